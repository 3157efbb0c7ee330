//! Signals: the first SIGTERM or Ctrl-C drains, a second ends at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The exit code of a program that was ended by a second signal.
pub const INTERRUPTED: i32 = 130;

/// A token that is cancelled by the first SIGTERM or SIGINT. The second ends the process at once.
///
/// # Errors
/// When signals cannot be received.
pub fn on_signals(what_happens: &'static str) -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if cancelled.is_cancelled() {
                std::process::exit(INTERRUPTED);
            }
            tracing::warn!("{what_happens}; once more ends at once");
            cancelled.cancel();
        }
    });
    Ok(token)
}
