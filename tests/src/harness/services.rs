//! The services as processes of their own, over a broker.

use std::time::Duration;

use anyhow::Result;

use super::{NatsServer, Program};

/// The services that are not the coordinator.
pub const STAGES: [&str; 4] = ["collector", "evaluator", "sink", "alerter"];

/// Running services.
#[derive(Debug)]
pub struct Services {
    programs: Vec<Program>,
}

impl Services {
    /// Starts so many of each service.
    ///
    /// # Errors
    /// When a program is not there or does not start.
    pub fn start(nats: &NatsServer, of_each: usize) -> Result<Self> {
        Self::start_these(nats, &STAGES.map(|stage| (stage, of_each)))
    }

    /// Starts so many of these services.
    ///
    /// # Errors
    /// When a program is not there or does not start.
    pub fn start_these(nats: &NatsServer, stages: &[(&str, usize)]) -> Result<Self> {
        let mut services = Self { programs: Vec::new() };
        for (stage, count) in stages {
            for _ in 0..*count {
                services.add(nats, stage)?;
            }
        }
        Ok(services)
    }

    /// Starts one more.
    ///
    /// # Errors
    /// When the program is not there or does not start.
    pub fn add(&mut self, nats: &NatsServer, stage: &str) -> Result<()> {
        self.programs.push(Program::named(stage).args(["--nats", nats.url()]).start()?);
        Ok(())
    }

    /// The place of the first program of a stage among the running ones.
    #[must_use]
    pub fn first(&mut self, stage: &str) -> Option<&mut Program> {
        self.programs.iter_mut().find(|program| program.name() == stage)
    }

    /// Waits until all say that they are ready.
    ///
    /// # Errors
    /// When one does not in time.
    pub async fn ready(&self) -> Result<()> {
        for program in &self.programs {
            program.wait_for_line("ready", Duration::from_secs(30)).await?;
        }
        Ok(())
    }

    /// Kills the first program of a stage as a power cut would, and starts another.
    ///
    /// # Errors
    /// When there is none, or it had ended by itself.
    pub async fn kill9_and_replace(&mut self, nats: &NatsServer, stage: &str) -> Result<()> {
        let place = self.programs.iter().position(|program| program.name() == stage);
        let Some(place) = place else { anyhow::bail!("no {stage} is running") };
        let mut program = self.programs.remove(place);
        program.kill9().await?;
        self.add(nats, stage)
    }

    /// What a program of each stage has printed, for messages.
    #[must_use]
    pub fn printed(&self) -> String {
        self.programs.iter().map(|program| format!("--- {}\n{}\n", program.name(), program.stderr())).collect()
    }
}
