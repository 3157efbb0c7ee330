//! A MongoDB server of the test's own.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::certificates::Certificates;
use super::port::free_port;
use super::process::Program;

/// A start takes half a second; after a kill the server also reads its journal, and the machine may be busy.
const READY: Duration = Duration::from_secs(60);
const READY_LINE: &str = "Waiting for connections";

/// The real MongoDB server on a port of 127.0.0.1, with a data folder: both stay the same over restarts.
///
/// Dropping it kills the server and deletes its data.
#[derive(Debug)]
pub struct MongoServer {
    // Dropped, and so killed, before its data are deleted.
    program: Program,
    arguments: Vec<String>,
    port: u16,
    data: TempDir,
}

impl MongoServer {
    /// Starts a server that anybody may use: one by itself, without TLS.
    ///
    /// # Errors
    /// When the server is not installed, or does not get ready; the message then has its log.
    pub async fn start() -> Result<Self> {
        Self::launch(folder()?, Vec::new()).await
    }

    /// Starts a server as those that count on it do: TLS, users with passwords, a member of a replica set (`rs0`). It
    /// has neither users nor a replica set yet: until there is a user, a client of this host may make both.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_secured() -> Result<Self> {
        let data = folder()?;
        let certificates = Certificates::generate()?;
        let file = |name: &str, text: &str| -> Result<String> {
            let path = data.path().join(name);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400))?;
            Ok(path.display().to_string())
        };
        let authority = file("ca.pem", &certificates.authority)?;
        let server = file("server.pem", &certificates.server)?;
        file("other-ca.pem", &certificates.other)?;
        // What the members of the replica set know one another by; there is only one.
        let key = file("key", "b25seS1mb3ItdGhpcy10ZXN0")?;
        let arguments = [
            "--replSet",
            "rs0",
            "--oplogSize",
            "64",
            "--auth",
            "--keyFile",
            &key,
            "--tlsMode",
            "requireTLS",
            "--tlsCertificateKeyFile",
            &server,
            "--tlsCAFile",
            &authority,
            "--tlsAllowConnectionsWithoutCertificates",
        ];
        Self::launch(data, arguments.map(str::to_owned).to_vec()).await
    }

    async fn launch(data: TempDir, arguments: Vec<String>) -> Result<Self> {
        let port = free_port()?;
        let program = run(port, data.path(), &arguments).await?;
        Ok(Self { program, arguments, port, data })
    }

    /// The port on 127.0.0.1; the same after a restart.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The file of the authority that has signed the certificate of a secured server.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.data.path().join("ca.pem")
    }

    /// The file of an authority of the same name that has not signed it.
    #[must_use]
    pub fn other_authority(&self) -> PathBuf {
        self.data.path().join("other-ca.pem")
    }

    /// Kills the server (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill9(&mut self) -> Result<()> {
        self.program.kill9().await
    }

    /// Kills the server (SIGKILL) if it runs, starts it again on the same port with the same data, and waits until it
    /// is ready.
    ///
    /// # Errors
    /// When it does not get ready; the message then has its log.
    pub async fn restart(&mut self) -> Result<()> {
        if self.program.pid().is_some() {
            self.program.kill9().await?;
        }
        self.program = run(self.port, self.data.path(), &self.arguments).await?;
        Ok(())
    }
}

fn folder() -> Result<TempDir> {
    let data = tempfile::Builder::new().prefix("cm-mongo-").tempdir().context("cannot create a data folder")?;
    std::fs::create_dir(data.path().join("db")).context("cannot create a data folder")?;
    Ok(data)
}

async fn run(port: u16, data: &Path, arguments: &[String]) -> Result<Program> {
    let binary = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.testdeps/bin/mongod");
    ensure!(binary.is_file(), "there is no MongoDB server at {}: run make test (or tests/setup)", binary.display());
    let program = Program::at(binary)
        .arg("--dbpath")
        .arg(data.join("db"))
        // Its socket beside its data: nothing of a test is elsewhere.
        .arg("--unixSocketPrefix")
        .arg(data)
        .args(["--bind_ip", "127.0.0.1", "--port", &port.to_string(), "--wiredTigerCacheSizeGB", "0.25"])
        .args(["--setParameter", "diagnosticDataCollectionEnabled=false"])
        .args(["--setParameter", "enableTestCommands=1"])
        .args(["--wiredTigerEngineConfigString", "log=(prealloc=false,file_max=10MB)"])
        .args(arguments)
        .start()?;
    program.wait_for_line(READY_LINE, READY).await?;
    Ok(program)
}
