//! A NATS server of the test's own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::port::free_port;
use super::process::Program;

/// A start takes some 20 ms; a restart also reads the streams, and the machine may be busy with other tests.
const READY: Duration = Duration::from_secs(30);

/// How long the server may take to stop by itself.
const STOP: Duration = Duration::from_secs(30);

/// What the server logs: where its monitoring is, and then that its streams are read and it accepts clients.
const MONITOR_LINE: &str = "Starting http monitor on ";
const READY_LINE: &str = "Server is ready";

/// The real NATS server with the project's own configuration (`deploy/nats/nats-server.conf`), on a port of
/// 127.0.0.1 and with a data folder that stay the same over restarts.
///
/// Dropping it kills the server and deletes its data.
///
/// ```no_run
/// # async fn example() -> anyhow::Result<()> {
/// use tests::harness::NatsServer;
///
/// let mut nats = NatsServer::start().await?;
/// println!("connect to {}", nats.url());
/// nats.restart().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct NatsServer {
    // Dropped, and so killed, before its data are deleted.
    program: Program,
    monitoring_url: String,
    url: String,
    binary: PathBuf,
    port: u16,
    data: TempDir,
}

impl NatsServer {
    /// Starts a server and waits until it is ready.
    ///
    /// # Errors
    /// When the server is not installed, or does not get ready; the message then has its log.
    pub async fn start() -> Result<Self> {
        let binary = installed()?;
        let port = free_port()?;
        let data = tempfile::Builder::new().prefix("cm-nats-").tempdir().context("cannot create a data folder")?;
        let (program, monitoring_url) = launch(&binary, port, data.path()).await?;
        let url = format!("nats://127.0.0.1:{port}");
        Ok(Self { program, monitoring_url, url, binary, port, data })
    }

    /// Starts a server that does not sync each write to the disk, but every two minutes as is its default: to measure
    /// what the syncing costs. Not to be restarted.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_unsynced() -> Result<Self> {
        let binary = installed()?;
        let port = free_port()?;
        let data = tempfile::Builder::new().prefix("cm-nats-").tempdir().context("cannot create a data folder")?;
        let text = std::fs::read_to_string(configuration())?;
        let configuration = data.path().join("unsynced.conf");
        std::fs::write(&configuration, text.replace("sync_interval: always", ""))?;
        let (program, monitoring_url) = launch_with(&configuration, &binary, port, data.path()).await?;
        let url = format!("nats://127.0.0.1:{port}");
        Ok(Self { program, monitoring_url, url, binary, port, data })
    }

    /// Where clients connect; the same after a restart.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where the server tells its state (`/healthz`, `/jsz`, `/connz`); another one after a restart.
    #[must_use]
    pub fn monitoring_url(&self) -> &str {
        &self.monitoring_url
    }

    /// What the server has logged since it was last started.
    #[must_use]
    pub fn log(&self) -> String {
        self.program.stderr()
    }

    /// Kills the server (SIGKILL) and waits until it is gone. [`Self::restart`] brings it back.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill9(&mut self) -> Result<()> {
        self.program.kill9().await
    }

    /// Stops the server as a service manager does (SIGTERM) and waits until it has ended. [`Self::restart`] brings
    /// it back.
    ///
    /// # Errors
    /// When it does not run, or does not stop.
    pub async fn stop(&mut self) -> Result<()> {
        self.program.terminate()?;
        self.program.wait(STOP).await?;
        Ok(())
    }

    /// Kills the server (SIGKILL) if it runs, starts it again on the same port with the same data, and waits until
    /// it is ready.
    ///
    /// # Errors
    /// When it does not get ready; the message then has its log.
    pub async fn restart(&mut self) -> Result<()> {
        if self.program.pid().is_some() {
            self.program.kill9().await?;
        }
        (self.program, self.monitoring_url) = launch(&self.binary, self.port, self.data.path()).await?;
        Ok(())
    }
}

async fn launch(binary: &Path, port: u16, data: &Path) -> Result<(Program, String)> {
    launch_with(&configuration(), binary, port, data).await
}

fn configuration() -> PathBuf {
    repository().join("deploy/nats/nats-server.conf")
}

async fn launch_with(configuration: &Path, binary: &Path, port: u16, data: &Path) -> Result<(Program, String)> {
    // The configuration puts the data under the folder that the server is started in.
    let program = Program::at(binary)
        .arg("-c")
        .arg(configuration)
        .args(["-a", "127.0.0.1", "-p", &port.to_string(), "-m", "-1"])
        .current_dir(data)
        .start()?;
    let line = program.wait_for_line(MONITOR_LINE, READY).await?;
    program.wait_for_line(READY_LINE, READY).await?;
    let (_, address) = line.split_once(MONITOR_LINE).context("the line was found by this text")?;
    Ok((program, format!("http://{address}")))
}

fn installed() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("CM_NATS_SERVER").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        let usable = path.is_absolute() && path.is_file();
        ensure!(usable, "CM_NATS_SERVER={} is not the absolute path of a file", path.display());
        return Ok(path);
    }
    let path = repository().join(".testdeps/bin/nats-server");
    ensure!(path.is_file(), "there is no NATS server at {}: run make test (or tests/setup)", path.display());
    Ok(path)
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
