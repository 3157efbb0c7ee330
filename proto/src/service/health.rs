//! Health over HTTP: `/healthz` says that the process lives, `/readyz` that it reaches its bus.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::bus::SharedBus;

/// The longest request that is read, in bytes.
const MAX_REQUEST: usize = 4096;
/// How long a caller may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers until `shutdown`. Returns the address that it listens on, which is of use when the port was 0.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve(address: SocketAddr, bus: SharedBus, shutdown: CancellationToken) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let bus = bus.clone();
                    let draining = shutdown.is_cancelled();
                    tokio::spawn(async move {
                        // A caller that goes away is no trouble of ours.
                        let _ = tokio::time::timeout(PATIENCE, answer(stream, bus, draining)).await;
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "a caller of the health address could not be heard");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    });
    Ok(address)
}

async fn answer(mut stream: TcpStream, bus: SharedBus, draining: bool) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut chunk = [0; 512];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < MAX_REQUEST {
        match stream.read(&mut chunk).await? {
            0 => break,
            read => request.extend_from_slice(&chunk[..read]),
        }
    }
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let path = line.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    let (status, body) = match path {
        b"/healthz" => ("200 OK", "alive\n"),
        b"/readyz" if draining => ("503 Service Unavailable", "draining\n"),
        b"/readyz" => match bus.is_ready().await {
            Ok(true) => ("200 OK", "ready\n"),
            Ok(false) => ("503 Service Unavailable", "the broker has no streams yet: no coordinator has run\n"),
            Err(_) => ("503 Service Unavailable", "the broker does not answer\n"),
        },
        _ => ("404 Not Found", "ask for /healthz or /readyz\n"),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}
