//! Programs as child processes: started apart from the user's environment, watched, killed.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::capture::{Capture, quote};

/// How long a killed process may take to be gone: only as long as the system needs.
const DEATH: Duration = Duration::from_secs(30);

/// How long output may still arrive when the program has ended. It has all been written by then; only a child that
/// has outlived the program keeps the streams open longer.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// A program to be started; made by [`Program::named`] or [`Program::at`].
#[derive(Debug)]
#[must_use = "nothing runs before `start`"]
pub struct Launch {
    binary: Binary,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    current_dir: Option<PathBuf>,
}

#[derive(Debug)]
enum Binary {
    OfWorkspace(String),
    At(PathBuf),
}

impl Launch {
    fn new(binary: Binary) -> Self {
        Self { binary, args: Vec::new(), env: Vec::new(), current_dir: None }
    }

    /// Adds one argument.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable. The program has no others but `PATH` and `HOME` (its own temporary folder,
    /// unless set here): nobody's configuration, credentials or certificate authorities get into a test.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Starts the program in this folder instead of its temporary home folder.
    pub fn current_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.current_dir = Some(dir.into());
        self
    }

    /// Starts the program.
    ///
    /// # Errors
    /// When the program is missing or cannot be started.
    pub fn start(self) -> Result<Program> {
        let path = match self.binary {
            Binary::OfWorkspace(name) => workspace_binary(&name)?,
            Binary::At(path) => path,
        };
        let home = tempfile::Builder::new().prefix("cm-home-").tempdir().context("cannot create a home folder")?;
        let mut child = Command::new(&path)
            .args(self.args)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("HOME", home.path())
            .envs(self.env)
            .current_dir(self.current_dir.as_deref().unwrap_or_else(|| home.path()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", path.display()))?;
        let capture = Capture::start(child.stdout.take(), child.stderr.take());
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Ok(Program { name, child, capture, home })
    }
}

/// A program's end: how, and all that it printed.
#[derive(Debug, Clone)]
pub struct Output {
    /// The program's name, for messages.
    pub name: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// The exit status; `None` when a signal ended the program.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The output of a program that has to exit with this status.
    ///
    /// # Errors
    /// When it ended otherwise; the message has the program's output.
    pub fn with_code(self, code: i32) -> Result<Self> {
        ensure!(
            self.code() == Some(code),
            "{} was to end with exit status {code}, but ended with {}\n{}",
            self.name,
            self.status,
            quote(&self.stdout, &self.stderr)
        );
        Ok(self)
    }
}

/// A started program. Dropping it kills it.
#[derive(Debug)]
pub struct Program {
    name: String,
    // Dropped, and so killed, before its home folder is deleted.
    child: Child,
    capture: Capture,
    home: TempDir,
}

impl Program {
    /// One of this workspace's programs (`coordinator`, `collector`, ...), as built beside the running test.
    ///
    /// ```no_run
    /// # async fn example() -> anyhow::Result<()> {
    /// use std::time::Duration;
    /// use tests::harness::Program;
    ///
    /// let mut check = Program::named("coordinator").args(["check", "audit.yaml"]).start()?;
    /// let output = check.wait(Duration::from_secs(10)).await?.with_code(0)?;
    /// assert!(output.stdout.contains("valid"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn named(name: impl Into<String>) -> Launch {
        Launch::new(Binary::OfWorkspace(name.into()))
    }

    /// The program of this path, or of this name in `PATH`.
    pub fn at(path: impl Into<PathBuf>) -> Launch {
        Launch::new(Binary::At(path.into()))
    }

    /// The program's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id; `None` when the program has ended.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// The program's temporary home folder.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// What the program has written to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.capture.stdout()
    }

    /// What the program has written to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.capture.stderr()
    }

    /// The first line with this text that the program prints, or has printed since its start, to either stream.
    ///
    /// # Errors
    /// When the time is over, or at once when the program ends without having printed it; the message has the
    /// program's output.
    pub async fn wait_for_line(&self, text: &str, patience: Duration) -> Result<String> {
        match timeout(patience, self.capture.line_with(text)).await {
            Ok(Some(line)) => Ok(line),
            Ok(None) => bail!("{} ended without printing {text:?}\n{}", self.name, self.printed()),
            Err(_) => bail!("{} did not print {text:?} within {patience:?}\n{}", self.name, self.printed()),
        }
    }

    /// Waits until the program has ended. It goes on running when the time is over.
    ///
    /// # Errors
    /// When the time is over; the message has the program's output.
    pub async fn wait(&mut self, patience: Duration) -> Result<Output> {
        let Ok(status) = timeout(patience, self.child.wait()).await else {
            bail!("{} did not end within {patience:?}\n{}", self.name, self.printed());
        };
        let status = status.with_context(|| format!("cannot wait for {}", self.name))?;
        // When this time is over, what is there has to do.
        let _ = timeout(LAST_OUTPUT, self.capture.ended()).await;
        Ok(Output { name: self.name.clone(), status, stdout: self.stdout(), stderr: self.stderr() })
    }

    /// Asks the program to end, as a service manager does (SIGTERM).
    ///
    /// # Errors
    /// When it has already ended.
    pub fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Interrupts the program, as Ctrl-C does (SIGINT).
    ///
    /// # Errors
    /// When it has already ended.
    pub fn interrupt(&mut self) -> Result<()> {
        self.signal(Signal::INT)
    }

    /// Freezes the program (SIGSTOP), as a host that is suspended does.
    ///
    /// # Errors
    /// When it has already ended.
    pub fn freeze(&mut self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Wakes a frozen program (SIGCONT).
    ///
    /// # Errors
    /// When it has already ended.
    pub fn wake(&mut self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Kills the program (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    /// When it has ended by itself before: a test that kills too late has tested nothing.
    pub async fn kill9(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        let status = self.wait(DEATH).await?.status;
        ensure!(
            status.signal() == Some(Signal::KILL.as_raw()),
            "{} ended by itself ({status}) before it was killed\n{}",
            self.name,
            self.printed()
        );
        Ok(())
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} has already ended ({status})\n{}", self.name, self.printed());
        }
        let id = self.child.id().context("a running program has a process id")?;
        let pid = Pid::from_raw(id.try_into()?).context("a process id is not 0")?;
        kill_process(pid, signal).with_context(|| format!("cannot send {signal:?} to {}", self.name))
    }

    fn printed(&self) -> String {
        quote(&self.stdout(), &self.stderr())
    }
}

/// Where cargo has put the workspace's programs: the folder above that of a test (`target/debug/deps`), or that of a
/// program (`target/release`).
fn workspace_binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find the running test")?;
    let folder = own.parent().context("the running test has no folder")?;
    let folder = match folder.file_name() {
        Some(deps) if deps == OsStr::new("deps") => folder.parent().unwrap_or(folder),
        _ => folder,
    };
    let path = folder.join(name);
    ensure!(path.is_file(), "there is no {}: run `cargo build --workspace --bins` (or `make test`)", path.display());
    Ok(path)
}
