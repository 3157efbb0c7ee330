//! A bound to the memory that a worker uses: above it, nothing more is pulled.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::metrics;

/// How often it is looked how much memory is in use.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Pulling resumes when so many per cent of the limit are in use.
const RESUME: u64 = 95;
/// How long a worker above its limit waits before it takes one message all the same.
pub(super) const TRICKLE: Duration = Duration::from_secs(10);

/// Whether there is room to take more in hand. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    closed: watch::Receiver<bool>,
}

impl Gate {
    /// A gate that closes while this process uses more than `limit` bytes.
    pub(super) fn start(limit: u64, shutdown: CancellationToken) -> Self {
        Self::follow(limit, shutdown, resident_bytes)
    }

    fn follow(limit: u64, shutdown: CancellationToken, used: impl Fn() -> Option<u64> + Send + 'static) -> Self {
        let (sender, closed) = watch::channel(false);
        tokio::spawn(async move {
            let mut said = false;
            while !shutdown.is_cancelled() {
                if let Some(used) = used() {
                    let closed = *sender.borrow();
                    let closes = if closed { used > limit / 100 * RESUME } else { used > limit };
                    if closes != closed {
                        metrics::memory_limited(closes);
                        say(closes, used, limit, &mut said);
                        sender.send_replace(closes);
                    }
                }
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
            }
        });
        Self { closed }
    }

    /// A gate that a test closes.
    #[cfg(test)]
    pub(super) fn by_hand() -> (watch::Sender<bool>, Self) {
        let (sender, closed) = watch::channel(false);
        (sender, Self { closed })
    }

    pub(super) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Waits until the gate is open, or for so long that one message is due all the same: a run does not hang on a
    /// limit that is too low. Returns whether the gate is open.
    pub(super) async fn wait(&mut self) -> bool {
        // An error means that the worker stops.
        tokio::time::timeout(TRICKLE, self.closed.wait_for(|closed| !closed)).await.is_ok()
    }
}

/// The first time for people, then for those who look.
fn say(closes: bool, used: u64, limit: u64, said: &mut bool) {
    let (used, limit) = (used >> 20, limit >> 20);
    match (closes, std::mem::replace(said, true)) {
        (true, false) => tracing::warn!(
            "{used} MiB are in use, more than --max-memory allows ({limit} MiB): nothing more is pulled until there is \
             room, but one message every {} s",
            TRICKLE.as_secs()
        ),
        (true, true) => tracing::debug!("{used} MiB are in use: nothing more is pulled"),
        (false, _) => tracing::debug!("{used} MiB are in use: pulling again"),
    }
}

/// The memory of this process that is in use.
pub(super) fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_gate_closes_above_the_limit_and_opens_well_below_it() {
        let used = Arc::new(AtomicU64::new(1000));
        let probe = Arc::clone(&used);
        let (looked, mut looks) = tokio::sync::mpsc::unbounded_channel();
        let mut gate = Gate::follow(1000, CancellationToken::new(), move || {
            let _ = looked.send(());
            Some(probe.load(Ordering::Relaxed))
        });
        assert!(gate.wait().await);
        used.store(1001, Ordering::Relaxed);
        gate.closed.wait_for(|closed| *closed).await.unwrap();
        used.store(960, Ordering::Relaxed);
        while looks.try_recv().is_ok() {}
        // The first may have begun before, the second has seen it.
        for _ in 0..3 {
            looks.recv().await.unwrap();
        }
        assert!(gate.is_closed(), "not far enough below");
        used.store(950, Ordering::Relaxed);
        assert!(gate.wait().await);
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(resident_bytes().unwrap() > 1 << 20);
    }
}
