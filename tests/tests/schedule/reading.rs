//! What the broker knows of runs.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use async_nats::jetstream;
use futures::TryStreamExt;
use proto::run::{Phase, RunState};
use tests::harness::{NatsServer, PATIENCE, Program, Services, Workspace};

/// How soon a new leader has to be there after the old one's death.
pub(crate) const TAKE_OVER: Duration = Duration::from_secs(10);
/// How often something is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A broker with its services and a folder with a configuration.
pub(crate) struct House {
    pub(crate) nats: NatsServer,
    pub(crate) services: Services,
    pub(crate) workspace: Workspace,
    jetstream: jetstream::Context,
}

impl House {
    pub(crate) async fn with(configuration: &str) -> Result<Self> {
        let nats = NatsServer::start().await?;
        let services = Services::start(&nats, 1)?;
        let workspace = Workspace::new(configuration)?;
        let jetstream = jetstream::new(async_nats::connect(nats.url()).await?);
        Ok(Self { nats, services, workspace, jetstream })
    }

    /// Starts a coordinator that waits for turns.
    pub(crate) fn coordinator(&self) -> Result<Program> {
        self.workspace.coordinator(&["run", "--nats", self.nats.url()]).start()
    }

    /// Two of them: the first one leads.
    pub(crate) async fn two_coordinators(&self) -> Result<(Program, Program)> {
        let first = self.coordinator()?;
        first.wait_for_line("leading:", PATIENCE).await?;
        let second = self.coordinator()?;
        second.wait_for_line("standing by:", PATIENCE).await?;
        Ok((first, second))
    }

    /// All runs, in their order.
    pub(crate) async fn runs(&self) -> Result<Vec<RunState>> {
        // Before a coordinator was there, there is no bucket.
        let Ok(bucket) = self.jetstream.get_key_value("cm_runs").await else { return Ok(Vec::new()) };
        let keys: Vec<String> = bucket.keys().await?.try_collect().await?;
        let mut runs = Vec::new();
        for key in keys {
            if let Some(value) = bucket.get(key).await? {
                runs.push(serde_json::from_slice::<RunState>(&value)?);
            }
        }
        runs.sort_by(|one, other| one.version.cmp(&other.version));
        Ok(runs)
    }

    /// Waits until the runs are as wanted, and gives them.
    pub(crate) async fn until(&self, what: &str, mut wanted: impl FnMut(&[RunState]) -> bool) -> Result<Vec<RunState>> {
        let look = async {
            loop {
                let runs = self.runs().await?;
                if wanted(&runs) {
                    return anyhow::Ok(runs);
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        match tokio::time::timeout(PATIENCE, look).await {
            Ok(runs) => runs,
            Err(_) => bail!("not {what}: {:#?}\n{}", self.runs().await?, self.services.printed()),
        }
    }

    /// Messages in a stream.
    pub(crate) async fn messages(&self, stream: &str) -> Result<u64> {
        Ok(self.jetstream.get_stream(stream).await?.info().await?.state.messages)
    }

    /// Waits until records are on their way, so that the run is in the middle.
    pub(crate) async fn until_records(&self, frames: u64) -> Result<()> {
        let look = async {
            while self.messages("CM_RECORDS").await.unwrap_or(0) < frames {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        Ok(tokio::time::timeout(PATIENCE, look).await?)
    }
}

/// How many runs have ended complete.
pub(crate) fn complete(runs: &[RunState]) -> usize {
    runs.iter().filter(|run| run.is_ended() && run.audits.values().all(|audit| audit.complete == Some(true))).count()
}

/// Whether some run is in this phase.
pub(crate) fn in_phase(runs: &[RunState], phase: Phase) -> bool {
    runs.iter().any(|run| run.audits.values().any(|audit| audit.phase == phase))
}

/// Each turn of each audit was run once.
pub(crate) fn each_turn_once(runs: &[RunState]) -> Result<()> {
    let mut turns: BTreeMap<String, usize> = BTreeMap::new();
    for run in runs {
        let Some(turn) = &run.turn else { bail!("{} is of no turn", run.version) };
        for audit in &run.order {
            *turns.entry(format!("{audit} at {}", turn.at)).or_default() += 1;
        }
    }
    ensure!(turns.values().all(|count| *count == 1), "a turn was run twice: {turns:#?}");
    Ok(())
}
