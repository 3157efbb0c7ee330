//! The HTTP server: one listener for the login side and for Resource Manager, told apart by the path.

use std::future::Future;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;

use super::arm;
use super::login::{self, LoginPath};
use super::simulation::Simulation;

/// No request that this server knows has a longer body.
const LONGEST_BODY: usize = 64 * 1024;

/// Serves until `stopped` is done and the answers under way are out.
pub(super) async fn serve(
    listener: TcpListener,
    simulation: Arc<Simulation>,
    stopped: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    // A fallback takes every path: axum's own routes would tell upper case from lower case.
    let router = Router::new().fallback(answer).with_state(simulation);
    axum::serve(listener, router).with_graceful_shutdown(stopped).await.context("the simulated cloud stopped serving")
}

async fn answer(State(simulation): State<Arc<Simulation>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = body::to_bytes(body, LONGEST_BODY).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    match LoginPath::parse(head.uri.path()) {
        Some(path) => login::answer(&simulation, path, &head.method, &body),
        None => arm::answer(&simulation, &head).await,
    }
}
