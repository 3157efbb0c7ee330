//! The HTTP server: one listener for all services, told apart by the path.

use std::future::Future;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;

use super::google_error::GoogleError;
use super::request::Target;
use super::simulation::Simulation;
use super::{iam_credentials, lists, metadata_server, token_endpoint};

/// No request that this server knows has a longer body.
const LONGEST_BODY: usize = 64 * 1024;

/// Serves until `stopped` is done and the answers under way are out.
pub(super) async fn serve(
    listener: TcpListener,
    simulation: Arc<Simulation>,
    stopped: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let router = Router::new().fallback(answer).with_state(simulation);
    axum::serve(listener, router).with_graceful_shutdown(stopped).await.context("the simulated cloud stopped serving")
}

async fn answer(State(simulation): State<Arc<Simulation>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = body::to_bytes(body, LONGEST_BODY).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    match Target::parse(head.uri.path()) {
        Target::Token => token_endpoint::answer(&simulation, &head, &body),
        Target::Metadata(path) => metadata_server::answer(&simulation, &head, &path),
        Target::AccessToken(account) => iam_credentials::answer(&simulation, &head, &account, &body),
        Target::Nothing => {
            simulation.statistics.lock().other_requests += 1;
            GoogleError::no_such_page(head.uri.path()).into_response()
        }
        list => lists::answer(&simulation, &head, list).await,
    }
}
