//! The HTTP server: one listener for the login side, Resource Manager and Key Vault, told apart by the path.

use std::future::Future;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use tokio::net::TcpListener;

use super::arm;
use super::identity::{self, IdentityPath};
use super::login::{self, LoginPath};
use super::simulation::Simulation;
use super::tls;
use super::vault::{self, VaultPath};

/// No request that this server knows has a longer body.
const LONGEST_BODY: usize = 64 * 1024;

/// Serves until `stopped` is done and the answers under way are out; over https with an identity.
pub(super) async fn serve(
    listener: TcpListener,
    identity: Option<tls::Identity>,
    simulation: Arc<Simulation>,
    stopped: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    // A fallback takes every path: axum's own routes would tell upper case from lower case.
    let router = Router::new().fallback(answer).with_state(simulation);
    let served = match identity {
        Some(identity) => axum::serve(identity.listen(listener), router).with_graceful_shutdown(stopped).await,
        None => {
            let listener = listener.tap_io(|stream| {
                // Without it, answers come late, not wrong.
                let _ = stream.set_nodelay(true);
            });
            axum::serve(listener, router).with_graceful_shutdown(stopped).await
        }
    };
    served.context("the simulated cloud stopped serving")
}

async fn answer(State(simulation): State<Arc<Simulation>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = body::to_bytes(body, LONGEST_BODY).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let path = head.uri.path();
    if let Some(path) = LoginPath::parse(path) {
        login::answer(&simulation, path, &head, &body)
    } else if let Some(path) = IdentityPath::parse(path) {
        identity::answer(&simulation, path, &head)
    } else if let Some(path) = VaultPath::parse(path) {
        vault::answer(&simulation, path, &head).await
    } else {
        arm::answer(&simulation, &head).await
    }
}
