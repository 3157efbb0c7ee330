//! `coordinator status`: where a run stands, live or past.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use proto::bus::SharedBus;
use proto::config::Environment;
use proto::service::args::BusArgs;
use proto::subject::{Key, Version};
use tokio::time::Instant;

use super::broker::{self, Place};
use super::{INCOMPLETE, USAGE, print};
use crate::history::{History, Outcome};
use crate::status::{Follower, RunStatus, StatusError, newest, past};
use crate::terminal::Look;

/// How long a first look at a run that goes on is followed by a second one, so that rates are those of now.
const BETWEEN: Duration = Duration::from_secs(1);
/// How often a terminal is drawn anew.
const DRAW_EVERY: Duration = Duration::from_secs(1);
/// How often a line is appended where nothing can be drawn anew, while the phase does not change.
const APPEND_EVERY: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "\
Examples:
  coordinator status                                  the run that goes on, or the last one of this host
  coordinator status --nats nats://127.0.0.1:4222     that at a broker
  coordinator status 20260131_235959                  a certain one
  coordinator status --watch                          look on until it has ended
  coordinator status --json                           for programs

With --watch, the exit code is that of the run: 0 complete, 3 incomplete or failed.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct StatusArgs {
    /// The run; without it, the one that goes on, or the last one.
    #[arg(value_name = "VERSION", value_parser = |text: &str| Version::new(text))]
    version: Option<Version>,
    /// The last run of this audit.
    #[arg(long, value_name = "KEY", value_parser = |text: &str| Key::new(text))]
    audit: Option<Key>,
    /// Look on until the run has ended: on a terminal the picture is drawn anew, elsewhere lines are appended.
    #[arg(short, long)]
    watch: bool,
    /// Print JSON; with --watch, an object a line.
    #[arg(long)]
    json: bool,
    /// Ask no broker: what this host knows.
    #[arg(long)]
    here: bool,
    #[command(flatten)]
    bus: BusArgs,
}

pub(super) fn main(args: &StatusArgs) -> ExitCode {
    let history = History::of_host(&Environment::of_process());
    let shown = broker::with(&args.bus, args.here, async |place| match place {
        Place::Here => here(args, &history).map_err(|error| error.to_string()),
        Place::Broker(bus) => over_broker(args, &history, &bus).await.map_err(|error| error.to_string()),
    });
    match shown {
        Ok(code) => code,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::from(USAGE)
        }
    }
}

fn here(args: &StatusArgs, history: &History) -> Result<ExitCode, StatusError> {
    let version = match &args.version {
        Some(version) => version.clone(),
        None => newest(history, args.audit.as_ref())?,
    };
    let mut view = View::new(args);
    loop {
        let status = past(history, &version)?;
        let has_ended = status.has_ended();
        if let Some(code) = view.show(&status) {
            return Ok(code);
        }
        if !args.watch || has_ended {
            return Ok(if args.watch { code_of(&status) } else { ExitCode::SUCCESS });
        }
        std::thread::sleep(DRAW_EVERY);
    }
}

async fn over_broker(args: &StatusArgs, history: &History, bus: &SharedBus) -> Result<ExitCode, StatusError> {
    let mut follower = Follower::begin(bus, history, args.version.as_ref(), args.audit.as_ref()).await?;
    let mut view = View::new(args);
    let mut status = follower.look().await?;
    loop {
        if !status.has_ended() && view.shown.is_none() {
            tokio::time::sleep(BETWEEN).await;
            status = follower.look().await?;
        }
        if let Some(code) = view.show(&status) {
            return Ok(code);
        }
        if !args.watch {
            return Ok(ExitCode::SUCCESS);
        }
        if status.has_ended() {
            return Ok(code_of(&status));
        }
        status = loop {
            tokio::time::sleep(DRAW_EVERY).await;
            match follower.look().await {
                Ok(status) => break status,
                // A broker that elects or restarts will say later; what is on the screen stays.
                Err(StatusError::Bus(error)) if error.is_transient() => view.tell_once(&error.to_string()),
                Err(error) => return Err(error),
            }
        };
    }
}

fn code_of(status: &RunStatus) -> ExitCode {
    if status.outcome == Outcome::Complete { ExitCode::SUCCESS } else { ExitCode::from(INCOMPLETE) }
}

/// What is shown, one look after the other.
struct View {
    look: Look,
    json: bool,
    watch: bool,
    /// What is on the screen, to be drawn over.
    drawn: String,
    shown: Option<(String, Instant)>,
    /// It is said that the broker does not answer.
    has_told: bool,
}

impl View {
    fn new(args: &StatusArgs) -> Self {
        let look = Look::of_stdout();
        Self { look, json: args.json, watch: args.watch, drawn: String::new(), shown: None, has_told: false }
    }

    /// Says why nothing new is shown, until there is.
    fn tell_once(&mut self, reason: &str) {
        if std::mem::replace(&mut self.has_told, true) {
            return;
        }
        let line = format!("waiting for the broker: {reason}\n");
        if self.json || !self.look.is_for_a_person() {
            // Nobody may be reading it: that is no reason to stop.
            let _ = std::io::stderr().write_all(line.as_bytes());
            return;
        }
        self.drawn.push_str(&line);
        let _ = write(&line);
    }

    /// Shows a status; a code when nobody looks any more.
    fn show(&mut self, status: &RunStatus) -> Option<ExitCode> {
        self.has_told = false;
        // The window may have another size now.
        self.look = Look::of_stdout();
        let text = match (self.json, self.watch) {
            (true, true) => serde_json::to_string(status).map(|line| format!("{line}\n")),
            (true, false) => serde_json::to_string_pretty(status).map(|text| format!("{text}\n")),
            (false, true) if !self.look.is_for_a_person() && !status.has_ended() => Ok(status.in_a_line()),
            (false, _) => Ok(status.render(self.look)),
        };
        let text = match text {
            Ok(text) => text,
            Err(error) => {
                eprintln!("error: cannot write the status as JSON: {error}");
                return Some(ExitCode::from(INCOMPLETE));
            }
        };
        let phases: Vec<_> = status.audits.iter().map(|audit| audit.phase).collect();
        let state = format!("{phases:?}");
        let now = Instant::now();
        if self.watch && !self.json && self.look.is_for_a_person() {
            self.shown = Some((state, now));
            return self.draw(&text, status.has_ended());
        }
        let is_due = self.json
            || status.has_ended()
            || self.shown.as_ref().is_none_or(|(then, at)| *then != state || now.duration_since(*at) >= APPEND_EVERY);
        if !is_due {
            return None;
        }
        self.shown = Some((state, now));
        write(&text)
    }

    /// Draws over what is on the screen. What does not fit is left out until the end.
    fn draw(&mut self, text: &str, is_last: bool) -> Option<ExitCode> {
        let rows = rustix::termios::tcgetwinsize(std::io::stdout()).map_or(24, |size| usize::from(size.ws_row)).max(4);
        let mut picture = String::new();
        // A window of another width breaks the lines elsewhere.
        let above = self.look.height(&self.drawn).min(rows - 1);
        if above > 0 {
            picture.push_str(&format!("\u{1b}[{above}A"));
        }
        picture.push_str("\r\u{1b}[J");
        self.drawn.clear();
        if is_last || self.look.height(text) < rows {
            self.drawn.push_str(text);
        } else {
            let mut left = rows - 2;
            for line in text.lines() {
                let needed = self.look.height(line).max(1);
                if needed > left {
                    break;
                }
                left -= needed;
                self.drawn.push_str(line);
                self.drawn.push('\n');
            }
            self.drawn.push_str("… the window is too low for the rest\n");
        }
        picture.push_str(&self.drawn);
        write(&picture)
    }
}

fn write(text: &str) -> Option<ExitCode> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => None,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Some(ExitCode::SUCCESS),
        Err(_) => Some(print(text)),
    }
}
