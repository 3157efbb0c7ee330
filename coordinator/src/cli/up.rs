//! `coordinator up`: a broker and one of each worker on this host, kept alive until Ctrl-C.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use clap::Args;
use proto::config::Environment;
use proto::service::args::BusArgs;
use proto::service::connect;
use rustix::fs::FlockOperation;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{INCOMPLETE, USAGE, print};

pub(super) const EXAMPLES: &str = "\
Examples:
  coordinator up                                      a broker (nats-server, found on PATH) and one of each worker
  coordinator up --nats-server ./nats-server          with this one
  coordinator up --nats nats://broker.example:4222    only the workers, for a broker that is there
then, in another terminal:
  coordinator run --now --nats nats://127.0.0.1:4222  what it prints, with its port";

/// What the broker is configured with; the command line says where it listens.
const BROKER: &str = include_str!("../../../deploy/nats/nats-server.conf");
/// The port that clients of NATS try by themselves.
const USUAL_PORT: u16 = 4222;
/// The workers, in the order in which they are taken down: nobody makes work for one that has gone.
const WORKERS: [&str; 4] = ["collector", "evaluator", "sink", "alerter"];
/// How long a broker may take to answer.
const BROKER_PATIENCE: Duration = Duration::from_secs(60);
/// How long a process may take to end what it has in hand. Workers give back the rest after 20 s, those that remove old
/// versions after 55 s.
const DRAIN: Duration = Duration::from_secs(60);
/// The pauses before a process that died is started again.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(30);
/// A process that lived for so long has not failed at its start.
const LIVED: Duration = Duration::from_secs(60);
/// The exit code after a second Ctrl-C.
const INTERRUPTED: u8 = 130;

/// The options of `up`.
#[derive(Debug, Args)]
pub(super) struct UpArgs {
    /// The program nats-server, instead of the one on PATH.
    #[arg(long, value_name = "PATH", env = "CM_NATS_SERVER", conflicts_with = "nats")]
    nats_server: Option<PathBuf>,
    /// The port of 127.0.0.1 that the broker listens on: 4222, or any that is free.
    #[arg(long, value_name = "PORT", conflicts_with = "nats")]
    port: Option<u16>,
    /// Start workers only, for the broker that is there.
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
    /// Configuration files, instead of the default ones: for what their section `nats` says.
    #[arg(short, long, value_name = "FILE", num_args = 0.., action = clap::ArgAction::Append)]
    config: Option<Vec<PathBuf>>,
    /// Where the broker keeps its data.
    #[arg(long, value_name = "FOLDER")]
    state_dir: Option<PathBuf>,
    /// The pools that the collector takes units of, instead of all.
    #[arg(long, value_name = "POOL,...")]
    pools: Option<String>,
    /// Variables that parameters may refer to as ${NAME}, beside those that begin with CM_.
    #[arg(long, value_name = "NAME")]
    allow_env: Vec<String>,
    /// Folders of files that parameters may refer to as ${file:PATH}.
    #[arg(long, value_name = "FOLDER")]
    secrets_dir: Vec<PathBuf>,
    /// From which level on the workers log.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
}

pub(super) fn main(args: &UpArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Failure::Start(format!("cannot start: {error}"))),
    };
    let ended = runtime.block_on(run(args));
    runtime.shutdown_background();
    ended.unwrap_or_else(|failure| fail(&failure))
}

/// Why it does not run.
enum Failure {
    Usage(String),
    Start(String),
}

fn fail(failure: &Failure) -> ExitCode {
    let (reason, code) = match failure {
        Failure::Usage(reason) => (reason, USAGE),
        Failure::Start(reason) => (reason, INCOMPLETE),
    };
    eprintln!("error: {reason}");
    ExitCode::from(code)
}

async fn run(args: &UpArgs) -> Result<ExitCode, Failure> {
    let environment = Environment::of_process();
    let mut signals = Signals::new().map_err(|error| Failure::Start(format!("cannot receive signals: {error}")))?;
    let programs = Programs::find(args, &environment)?;
    let folder = args.state_dir.as_ref().map_or_else(|| environment.state_dir(), |folder| environment.path(folder));
    let state = State::open(&folder.join("up"))?;
    state.end_leftovers().await;

    let mut up = Up { state, running: Vec::new() };
    let url = match &args.nats {
        Some(url) => url.clone(),
        None => up.start_broker(&programs, args)?,
    };
    let ready = tokio::select! {
        ready = make_streams(args, &url, &environment) => ready,
        died = up.broker_died() => Err(Failure::Start(died)),
        _ = signals.next() => Ok(()),
    };
    if let Err(failure) = ready {
        up.take_down(&mut signals).await;
        return Err(failure);
    }
    if !signals.came {
        for launch in programs.workers(args, &url) {
            up.start(launch);
        }
        // A reader that has gone away wants no more.
        let _ = print(&up.describe(&url));
        signals.next().await;
    }
    say("up: stopping: what is being worked on is finished; once more ends all at once");
    Ok(up.take_down(&mut signals).await)
}

/// Waits for the broker, and makes its streams: so workers need not wait for the first run.
async fn make_streams(args: &UpArgs, url: &str, environment: &Environment) -> Result<(), Failure> {
    let bus = BusArgs { nats: Some(url.to_owned()), config: args.config.clone() };
    let options = connect::options(&bus, environment).map_err(Failure::Usage)?;
    let options = options.ok_or_else(|| Failure::Usage(connect::NO_BROKER.to_owned()))?;
    let failed = |error: proto::bus::BusError| Failure::Start(error.to_string());
    let bus = connect::nats(options, Some(BROKER_PATIENCE)).await.map_err(failed)?;
    bus.ensure_streams().await.map_err(failed)
}

/// The signals that end it.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    came: bool,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        // The terminal is closed: the others, in groups of their own, are not told of it.
        let hangup = signal(SignalKind::hangup())?;
        Ok(Self { terminate, interrupt, hangup, came: false })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            // It comes from the terminal and from the shell: twice, and nobody means anything by the second.
            _ = self.hangup.recv(), if !self.came => {}
        }
        self.came = true;
    }
}

/// The programs that are started.
struct Programs {
    broker: Option<PathBuf>,
    folder: PathBuf,
}

impl Programs {
    fn find(args: &UpArgs, environment: &Environment) -> Result<Self, Failure> {
        let own = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.to_owned()));
        let folder = own.ok_or_else(|| Failure::Start("cannot find the folder of this program".to_owned()))?;
        let missing: Vec<&str> = WORKERS.into_iter().filter(|name| !folder.join(name).is_file()).collect();
        if !missing.is_empty() {
            let (missing, folder) = (missing.join(", "), folder.display());
            return Err(Failure::Usage(format!(
                "{folder} holds no {missing}: install the workers beside the coordinator"
            )));
        }
        let broker = match (&args.nats, &args.nats_server) {
            (Some(_), _) => None,
            (None, Some(path)) if path.is_file() => Some(environment.path(path)),
            (None, Some(path)) => {
                return Err(Failure::Usage(format!("there is no nats-server at {}", path.display())));
            }
            (None, None) => {
                let found = on_path("nats-server", environment).ok_or_else(|| {
                    Failure::Usage(
                        "there is no nats-server on PATH; install it (https://nats.io/download), name it with \
                         --nats-server PATH, or name a broker that is there with --nats URL"
                            .to_owned(),
                    )
                })?;
                Some(found)
            }
        };
        Ok(Self { broker, folder })
    }

    fn workers(&self, args: &UpArgs, url: &str) -> Vec<Launch> {
        let launch = |name: &'static str| {
            let mut words = vec!["--nats".to_owned(), url.to_owned(), "--log-level".to_owned(), args.log_level.clone()];
            let named = args.allow_env.iter().map(|name| ("--allow-env", name.clone()));
            let folders = args.secrets_dir.iter().map(|folder| ("--secrets-dir", folder.display().to_string()));
            let configs = args.config.iter().flatten().map(|file| ("--config", file.display().to_string()));
            let pools = args.pools.iter().filter(|_| name == "collector").map(|pools| ("--pools", pools.clone()));
            for (option, value) in named.chain(folders).chain(configs).chain(pools) {
                words.extend([option.to_owned(), value]);
            }
            Launch { name, program: self.folder.join(name), args: words, folder: None }
        };
        WORKERS.into_iter().map(launch).collect()
    }
}

fn on_path(name: &str, environment: &Environment) -> Option<PathBuf> {
    let path = environment.variable("PATH")?;
    std::env::split_paths(path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// How a process is started.
#[derive(Debug, Clone)]
struct Launch {
    name: &'static str,
    program: PathBuf,
    args: Vec<String>,
    folder: Option<PathBuf>,
}

impl Launch {
    fn spawn(&self) -> std::io::Result<Child> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            // The workers are told all on their command lines.
            .env_remove("NATS_URL")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C at a terminal is for this process alone: it takes the others down in their order.
            .process_group(0)
            .kill_on_drop(true);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        let mut child = command.spawn()?;
        repeat(self.name, child.stdout.take());
        repeat(self.name, child.stderr.take());
        Ok(child)
    }
}

/// Repeats what a process prints, under its name.
fn repeat(name: &'static str, stream: Option<impl AsyncRead + Unpin + Send + 'static>) {
    let Some(stream) = stream else { return };
    tokio::spawn(async move {
        let mut lines = BufReader::new(stream).split(b'\n');
        while let Ok(Some(line)) = lines.next_segment().await {
            say(&format!("{name:<9} | {}", String::from_utf8_lossy(&line).trim_end()));
        }
    });
}

/// Writes a line to standard error. Nobody may be reading it any more: that is no reason to stop.
fn say(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// All that runs.
struct Up {
    state: State,
    /// In the order of their start: the broker, if it is ours, comes first.
    running: Vec<Kept>,
}

/// A process that is kept alive.
struct Kept {
    name: &'static str,
    pid: Option<u32>,
    stop: CancellationToken,
    kill: CancellationToken,
    keeping: JoinSet<()>,
    deaths: mpsc::UnboundedReceiver<String>,
    place: Option<String>,
}

impl Up {
    fn start_broker(&mut self, programs: &Programs, args: &UpArgs) -> Result<String, Failure> {
        let Some(program) = programs.broker.clone() else {
            return Err(Failure::Usage(connect::NO_BROKER.to_owned()));
        };
        let port = port(args.port)?;
        let folder = self.state.folder.join("broker");
        let configuration = folder.join("nats-server.conf");
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(&configuration, BROKER))
            .map_err(|error| Failure::Start(format!("cannot write {}: {error}", configuration.display())))?;
        let words = ["-c", &configuration.to_string_lossy(), "-a", "127.0.0.1", "-p", &port.to_string(), "-m", "-1"];
        let args = words.map(str::to_owned).to_vec();
        let place = folder.display().to_string();
        self.start(Launch { name: "broker", program, args, folder: Some(folder) });
        if let Some(broker) = self.running.last_mut() {
            broker.place = Some(place);
        }
        Ok(format!("nats://127.0.0.1:{port}"))
    }

    fn start(&mut self, launch: Launch) {
        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        let (told, deaths) = mpsc::unbounded_channel();
        let mut keeping = JoinSet::new();
        let name = launch.name;
        let keeper = Keeper { launch, stop: stop.clone(), kill: kill.clone(), told, state: self.state.clone() };
        let child = keeper.launch.spawn();
        let pid = child.as_ref().ok().and_then(Child::id);
        keeper.state.note(name, pid);
        keeping.spawn(keeper.keep(child));
        self.running.push(Kept { name, pid, stop, kill, keeping, deaths, place: None });
    }

    /// Returns when the broker has died, with what is to be said of it; never where it is not ours.
    async fn broker_died(&mut self) -> String {
        let broker = self.running.iter_mut().find(|kept| kept.name == "broker");
        match broker {
            Some(broker) => broker.deaths.recv().await.unwrap_or_else(|| "the broker has ended".to_owned()),
            None => std::future::pending().await,
        }
    }

    fn describe(&self, url: &str) -> String {
        let mut text = String::new();
        for kept in &self.running {
            let pid = kept.pid.map_or_else(|| "not running".to_owned(), |pid| format!("process {pid}"));
            let _ = match &kept.place {
                Some(place) => writeln!(text, "{:<9}  {pid}, {url}, data in {place}", kept.name),
                None => writeln!(text, "{:<9}  {pid}", kept.name),
            };
        }
        let _ = writeln!(text, "next: coordinator run --now --nats {url}\nCtrl-C stops all");
        text
    }

    /// Takes all down: the workers in their order, and the broker when nobody needs it any more.
    async fn take_down(mut self, signals: &mut Signals) -> ExitCode {
        let mut order: VecDeque<Kept> = self.running.drain(..).collect();
        // The broker was first.
        if order.front().is_some_and(|kept| kept.name == "broker") {
            order.rotate_left(1);
        }
        let mut at_once = false;
        while let Some(mut kept) = order.pop_front() {
            kept.stop.cancel();
            if !at_once {
                let ended = async { while kept.keeping.join_next().await.is_some() {} };
                tokio::select! {
                    () = ended => {}
                    () = tokio::time::sleep(DRAIN) => {
                        say(&format!("up: the {} does not end by itself: it is killed", kept.name));
                    }
                    () = signals.next() => at_once = true,
                }
            }
            if at_once {
                order.iter().for_each(|kept| kept.kill.cancel());
            }
            kept.kill.cancel();
            while kept.keeping.join_next().await.is_some() {}
        }
        self.state.forget();
        if at_once {
            return ExitCode::from(INTERRUPTED);
        }
        say("up: all has stopped");
        ExitCode::SUCCESS
    }
}

/// Keeps one process alive.
struct Keeper {
    launch: Launch,
    stop: CancellationToken,
    kill: CancellationToken,
    told: mpsc::UnboundedSender<String>,
    state: State,
}

impl Keeper {
    async fn keep(self, first: std::io::Result<Child>) {
        let mut next = Some(first);
        let mut pause = FIRST_PAUSE;
        loop {
            let began = Instant::now();
            let death = match next.take().unwrap_or_else(|| self.launch.spawn()) {
                Ok(mut child) => {
                    self.state.note(self.launch.name, child.id());
                    match self.watch(&mut child).await {
                        Some(death) => death,
                        None => return,
                    }
                }
                Err(error) => format!("{} cannot be started: {error}", self.launch.program.display()),
            };
            if began.elapsed() >= LIVED {
                pause = FIRST_PAUSE;
            }
            let text = format!("the {} has died ({death})", self.launch.name);
            say(&format!("up: {text}; it is started again in {:.1} s", pause.as_secs_f64()));
            let _ = self.told.send(text);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => return,
                () = self.kill.cancelled() => return,
            }
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// Watches a process to its end. How it died; nothing when it was to end.
    async fn watch(&self, child: &mut Child) -> Option<String> {
        tokio::select! {
            status = child.wait() => {
                return Some(status.map_or_else(|error| error.to_string(), |status| status.to_string()));
            }
            () = self.stop.cancelled() => {}
            () = self.kill.cancelled() => {}
        }
        if !self.kill.is_cancelled() {
            if let Some(pid) = child.id().and_then(pid_of) {
                let _ = rustix::process::kill_process(pid, Signal::TERM);
            }
            tokio::select! {
                _ = child.wait() => return None,
                () = self.kill.cancelled() => {}
            }
        }
        let _ = child.kill().await;
        None
    }
}

fn pid_of(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// A port of 127.0.0.1 that nobody listens on.
fn port(wanted: Option<u16>) -> Result<u16, Failure> {
    let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|bound| bound.local_addr());
    let found = match wanted {
        Some(port) => free(port).map_err(|error| {
            Failure::Usage(format!("the port {port} of 127.0.0.1 cannot be had: {error}; name another with --port"))
        })?,
        None => free(USUAL_PORT)
            .or_else(|_| free(0))
            .map_err(|error| Failure::Start(format!("no port of 127.0.0.1 can be had: {error}")))?,
    };
    Ok(found.port())
}

/// What this command keeps on the host: whose folder it is, and the processes that it has started, so that none is left
/// when it was killed.
#[derive(Debug, Clone)]
struct State {
    folder: PathBuf,
    _lock: std::sync::Arc<File>,
}

impl State {
    fn open(folder: &Path) -> Result<Self, Failure> {
        let cannot = |error: std::io::Error| Failure::Start(format!("cannot use {}: {error}", folder.display()));
        std::fs::create_dir_all(folder.join("processes")).map_err(cannot)?;
        let lock = File::create(folder.join("lock")).map_err(cannot)?;
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let folder = folder.display();
            return Err(Failure::Usage(format!(
                "another `coordinator up` uses {folder}; stop it, or name another folder with --state-dir"
            )));
        }
        Ok(Self { folder: folder.to_owned(), _lock: std::sync::Arc::new(lock) })
    }

    /// Notes a process that runs.
    fn note(&self, name: &str, pid: Option<u32>) {
        let began = pid.and_then(|pid| Some((pid, began_of(pid)?)));
        let text = began.map(|(pid, began)| format!("{pid} {began}\n")).unwrap_or_default();
        let _ = std::fs::write(self.folder.join("processes").join(name), text);
    }

    fn forget(&self) {
        let _ = std::fs::remove_dir_all(self.folder.join("processes"));
    }

    /// Ends what a `coordinator up` has left that was killed. The time of its start tells a process from a later one
    /// that has the same number.
    async fn end_leftovers(&self) {
        for name in WORKERS.into_iter().chain(["broker"]) {
            let Ok(text) = std::fs::read_to_string(self.folder.join("processes").join(name)) else { continue };
            let mut words = text.split_whitespace();
            let (pid, began) = (words.next().and_then(|word| word.parse().ok()), words.next());
            let Some((pid, began)) = pid.zip(began) else { continue };
            let lives = || began_of(pid).as_deref() == Some(began);
            if !lives() {
                continue;
            }
            say(&format!("up: ending the {name} (process {pid}) that an earlier `coordinator up` has left"));
            let Some(process) = pid_of(pid) else { continue };
            let _ = rustix::process::kill_process(process, Signal::TERM);
            let deadline = Instant::now() + DRAIN;
            while lives() && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            if lives() {
                let _ = rustix::process::kill_process(process, Signal::KILL);
            }
        }
    }
}

/// When a process began, as the system counts it; nothing of one that has ended.
fn began_of(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is its name, in parentheses, with any character in it.
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let ended = matches!(*fields.first()?, "Z" | "X");
    fields.get(19).filter(|_| !ended).map(|began| (*began).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_by_its_start() {
        let own = began_of(std::process::id()).unwrap();
        assert!(own.parse::<u64>().unwrap() > 0);
        assert_eq!(began_of(u32::MAX), None);
    }

    #[test]
    fn a_port_that_is_taken_is_refused_and_any_other_found() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port_taken = taken.local_addr().unwrap().port();
        assert!(matches!(port(Some(port_taken)), Err(Failure::Usage(_))));
        assert!(port(None).is_ok_and(|port| port != port_taken));
    }

    #[test]
    fn a_folder_is_used_once_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = State::open(folder.path());
        assert!(first.is_ok());
        assert!(matches!(State::open(folder.path()), Err(Failure::Usage(_))));
        drop(first);
        assert!(State::open(folder.path()).is_ok());
    }
}
