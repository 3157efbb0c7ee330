//! Removes the versions that a store is not to keep, after a version has ended complete.
//!
//! The coordinator knows which versions ended complete and says so with the end of each. Only what is older than all
//! that is to be kept goes: a version that runs meanwhile, or that nobody has heard of, stays.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use jiff::{SignedDuration, Timestamp};
use proto::bus::Bucket;
use proto::bus::lease::Lease;
use proto::run::{AuditState, Phase, RunState};
use proto::subject::{Key, Version};

use super::Job;
use crate::settings::Settings;
use crate::store::{Pruning, Store};

impl Job {
    /// Prunes, if the version ended complete and something is to go. One worker does it.
    pub(super) async fn prune(&self, store: &dyn Store, settings: &Settings) {
        if !settings.prunes() {
            return;
        }
        let plan = &self.open.plan;
        let Some(state) = self.last_state().await else { return };
        let Some(pruning) = pruning(&plan.audit, &state, settings, Timestamp::now()) else { return };
        let key = format!("prune.{}.{}.{}", plan.audit.token(), self.spec.role, self.spec.key.token());
        let lease = match Lease::try_acquire(&self.worker.bus, &key, &self.worker.name).await {
            Ok(Some(lease)) => lease,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, plugin = %self.spec.key, "old versions stay until the next version has ended");
                return;
            }
        };
        match AssertUnwindSafe(store.prune(&pruning)).catch_unwind().await {
            Ok(Ok(0)) => {}
            Ok(Ok(documents)) => {
                tracing::info!(audit = %plan.audit, plugin = %self.spec.key, documents, "documents of old versions went");
            }
            Ok(Err(error)) => {
                tracing::warn!(audit = %plan.audit, plugin = %self.spec.key, %error, "old versions stay for now");
            }
            Err(_) => tracing::error!(plugin = %self.spec.key, "the store's code panicked while old versions went"),
        }
        lease.release().await;
    }
}

impl Job {
    /// The state of the version when it had ended; a worker that stops may not have heard of it.
    async fn last_state(&self) -> Option<AuditState> {
        let seen = self.open.view.borrow().state.clone();
        if seen.phase == Phase::Ended {
            return Some(seen);
        }
        let plan = &self.open.plan;
        let entry = self.worker.bus.kv_get(Bucket::Runs, plan.version.as_str()).await.ok()??;
        let mut run: RunState = serde_json::from_slice(&entry.value).ok()?;
        run.audits.remove(&plan.audit).filter(|state| state.phase == Phase::Ended)
    }
}

/// What is to go; `None` when all stays.
fn pruning(audit: &Key, state: &AuditState, settings: &Settings, now: Timestamp) -> Option<Pruning> {
    let last_complete = state.complete_versions.first().filter(|_| state.complete == Some(true))?;
    let nothing = Version::new("00000000_000000").ok();
    let by_count = settings.keep_versions.and_then(|count| {
        let oldest_kept = usize::try_from(count).ok()?.checked_sub(1)?;
        state.complete_versions.get(oldest_kept).cloned()
    });
    // A newer version may have ended complete while this one was running, however long that was: it stays.
    let by_age = settings
        .keep_days
        .map(|days| Version::at(now - SignedDuration::from_hours(i64::from(days) * 24)).min(last_complete.clone()));
    let before = match (settings.keep_versions, settings.keep_days) {
        // What either keeps is kept.
        (Some(_), Some(_)) => by_count.zip(by_age).map(|(one, other)| one.min(other)),
        _ => by_count.or(by_age),
    };
    if before.is_none() && settings.keep_permanent_days.is_none() {
        return None;
    }
    Some(Pruning {
        audit: audit.clone(),
        before: before.or(nothing)?,
        keep: vec![last_complete.clone()],
        permanent_days: settings.keep_permanent_days,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn before(complete: &[&str], params: serde_json::Value) -> Option<Pruning> {
        let state = AuditState {
            complete: Some(true),
            complete_versions: complete.iter().map(|version| Version::new(version).unwrap()).collect(),
            ..AuditState::default()
        };
        let settings = Settings::read(&params).unwrap();
        pruning(&Key::new("audit").unwrap(), &state, &settings, "2026-01-31T00:00:00Z".parse().unwrap())
    }

    const VERSIONS: [&str; 3] = ["20260130_000000", "20260120_000000", "20260110_000000"];

    fn goes(pruning: &Pruning, version: &str) -> bool {
        pruning.goes(&Version::new(version).unwrap())
    }

    #[test]
    fn a_number_of_complete_versions_stays() {
        let two = before(&VERSIONS, json!({"keep_versions": 2})).unwrap();
        assert!(goes(&two, VERSIONS[2]) && goes(&two, "20260119_000000"));
        // One that was never heard of and is newer stays, and so does the future.
        assert!(!goes(&two, VERSIONS[1]) && !goes(&two, "20260125_000000") && !goes(&two, "20270101_000000"));
        assert_eq!(before(&VERSIONS, json!({"keep_versions": 4})), None);
        assert_eq!(before(&VERSIONS, json!({})), None);
        assert_eq!(before(&[], json!({"keep_versions": 1})), None);
    }

    #[test]
    fn the_last_complete_version_stays_whatever_its_age() {
        let days = before(&["20250101_000000", "20240101_000000"], json!({"keep_days": 5})).unwrap();
        assert!(!goes(&days, "20250101_000000") && goes(&days, "20240101_000000"));
        // What is newer, and may be complete, stays, too, even where it is older than that.
        assert!(!goes(&days, "20250102_000000") && !goes(&days, "20260125_000000"));
        let both = before(&VERSIONS, json!({"keep_days": 5, "keep_versions": 2})).unwrap();
        assert!(!goes(&both, VERSIONS[1]) && goes(&both, VERSIONS[2]));
        let permanent = before(&VERSIONS, json!({"keep_permanent_days": 9})).unwrap();
        assert!(permanent.permanent_days == Some(9) && !goes(&permanent, VERSIONS[2]));
    }
}
