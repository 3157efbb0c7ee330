//! Health over HTTP: `/healthz` says that the process lives, `/readyz` that it can work, `/metrics` what it has done.
//!
//! It answers from the program's start, before there is a broker, until its end: a worker that drains says so.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::metered::{self, Metered};
use super::metrics;
use crate::bus::Bus;
use crate::plan::Stage;

/// The longest request that is read, in bytes.
const MAX_REQUEST: usize = 4096;
/// How long a caller may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers for as long as it is there.
#[derive(Debug)]
pub struct Health {
    /// The address that it listens on.
    pub address: SocketAddr,
    state: Arc<State>,
    _open: DropGuard,
}

#[derive(Debug)]
struct State {
    bus: OnceLock<Arc<Metered>>,
    /// All is in this process: there is no broker to wait for.
    alone: AtomicBool,
    shutdown: CancellationToken,
}

impl Health {
    /// Begins to answer, and to count. Once `shutdown` is cancelled, it says that the program drains.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn serve(address: SocketAddr, stage: Stage, shutdown: CancellationToken) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        metrics::begin(stage);
        let state = Arc::new(State { bus: OnceLock::new(), alone: AtomicBool::new(false), shutdown });
        let closed = CancellationToken::new();
        let answering = listen(listener, Arc::clone(&state));
        let until = closed.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = until.cancelled() => {}
                () = answering => {}
            }
        });
        Ok(Self { address, state, _open: closed.drop_guard() })
    }

    /// There is no broker to wait for.
    pub(super) fn set_alone(&self) {
        self.state.alone.store(true, Ordering::Relaxed);
    }

    /// There is a bus now.
    pub(super) fn set_bus(&self, bus: &Arc<Metered>) {
        let _ = self.state.bus.set(Arc::clone(bus));
    }
}

async fn listen(listener: TcpListener, state: Arc<State>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let state = Arc::clone(&state);
                tokio::spawn(async move {
                    // A caller that goes away is no trouble of ours.
                    let _ = tokio::time::timeout(PATIENCE, answer(stream, &state)).await;
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a caller of the health address could not be heard");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(mut stream: TcpStream, state: &State) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut chunk = [0; 512];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < MAX_REQUEST {
        match stream.read(&mut chunk).await? {
            0 => break,
            read => request.extend_from_slice(&chunk[..read]),
        }
    }
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let target = line.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    let (status, content_type, body) = match path {
        b"/healthz" => ("200 OK", "text/plain", "alive\n".to_owned()),
        b"/readyz" => match state.ready().await {
            Ok(()) => ("200 OK", "text/plain", "ready\n".to_owned()),
            Err(reason) => ("503 Service Unavailable", "text/plain", format!("{reason}\n")),
        },
        b"/metrics" => {
            if let Some(bus) = state.bus.get() {
                metered::measure_lag(bus).await;
            }
            ("200 OK", metrics::CONTENT_TYPE, metrics::text(state.shutdown.is_cancelled()))
        }
        _ => ("404 Not Found", "text/plain", "ask for /healthz, /readyz or /metrics\n".to_owned()),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

impl State {
    async fn ready(&self) -> Result<(), &'static str> {
        if self.shutdown.is_cancelled() {
            return Err("draining");
        }
        if self.alone.load(Ordering::Relaxed) {
            return Ok(());
        }
        let Some(bus) = self.bus.get() else { return Err("waiting for the broker") };
        match bus.is_ready().await {
            Ok(true) => Ok(()),
            Ok(false) => Err("the broker has no streams yet: no coordinator has run"),
            Err(_) => Err("the broker does not answer"),
        }
    }
}
