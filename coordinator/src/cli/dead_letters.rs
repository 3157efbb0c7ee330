//! `coordinator dead-letters`: what could not be processed: shows it, sends it back, or drops it.

use std::collections::{BTreeSet, HashMap};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use proto::bus::{BusError, BusErrorKind, ConsumerId, ConsumerSpec, ReaderSpec, SharedBus};
use proto::config::Environment;
use proto::plan::{Plan, PluginSpec, Stage};
use proto::service::args::BusArgs;
use proto::service::connect;
use proto::status::{DeadLetter, Retry};
use proto::subject::{self, Key, Role, Stream, Version};

use super::{INCOMPLETE, USAGE, print};
use crate::terminal::{Look, cut};

/// How long the broker may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// After how long a letter that was sent back comes to another sink, if the first one says nothing.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// How much of a reason a list shows, in characters.
const LONGEST: usize = 120;

const EXAMPLES: &str = "\
Examples:
  coordinator dead-letters list --nats nats://127.0.0.1:4222
  coordinator dead-letters list --run 20260131_235959 --plugin esstore
  coordinator dead-letters show 17                    the document, as it came
  coordinator dead-letters retry --all --plugin esstore
  coordinator dead-letters drop 17 18";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DeadLettersArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List dead letters.
    List(Which),
    /// Print dead letters whole, as JSON, one a line.
    Show(Chosen),
    /// Send documents back to the stores that refused them, also those of runs that have ended.
    Retry(Chosen),
    /// Remove dead letters.
    Drop(Chosen),
}

/// Which dead letters.
#[derive(Debug, Args)]
struct Which {
    /// Those of this audit.
    #[arg(long, value_name = "KEY")]
    audit: Option<String>,
    /// Those of this run. A run is `--run` here, as `--version` is the program's.
    #[arg(long = "run", value_name = "VERSION", value_parser = |text: &str| Version::new(text))]
    version: Option<Version>,
    /// Those of this plugin.
    #[arg(long, value_name = "KEY")]
    plugin: Option<String>,
    #[command(flatten)]
    bus: BusArgs,
}

impl Command {
    fn which(&self) -> &Which {
        let (Self::List(which)
        | Self::Show(Chosen { which, .. })
        | Self::Retry(Chosen { which, .. })
        | Self::Drop(Chosen { which, .. })) = self;
        which
    }
}

/// Dead letters by number, or all of a kind.
#[derive(Debug, Args)]
struct Chosen {
    /// The numbers that `list` shows.
    #[arg(value_name = "NUMBER", required_unless_present = "all")]
    numbers: Vec<u64>,
    /// All of them, or of those that the other options name.
    #[arg(long, conflicts_with = "numbers")]
    all: bool,
    #[command(flatten)]
    which: Which,
}

/// A dead letter at the broker.
struct Found {
    number: u64,
    audit: Key,
    version: Version,
    role: Role,
    plugin: Key,
    letter: DeadLetter,
}

pub(super) fn main(args: &DeadLettersArgs) -> ExitCode {
    let environment = Environment::of_process();
    let options = match connect::options(&args.command.which().bus, &environment) {
        Ok(Some(options)) => options,
        Ok(None) => return usage(connect::NO_BROKER),
        Err(reason) => return usage(&reason),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failure(&format!("cannot start: {error}")),
    };
    runtime.block_on(async {
        let bus = match connect::nats(options, Some(PATIENCE)).await {
            Ok(bus) => bus,
            Err(error) => return failure(&error.to_string()),
        };
        match act(&bus, &args.command).await {
            Ok(code) => code,
            Err(error) => failure(&error.to_string()),
        }
    })
}

fn usage(reason: &str) -> ExitCode {
    eprintln!("error: {reason}");
    ExitCode::from(USAGE)
}

fn failure(reason: &str) -> ExitCode {
    eprintln!("error: {reason}");
    ExitCode::from(INCOMPLETE)
}

async fn act(bus: &SharedBus, command: &Command) -> Result<ExitCode, BusError> {
    if !bus.is_ready().await? {
        return Ok(usage("there are no runs at this broker"));
    }
    let chosen = match command {
        Command::List(which) => return list(bus, which).await,
        Command::Show(chosen) | Command::Retry(chosen) | Command::Drop(chosen) => chosen,
    };
    let mut missing: BTreeSet<u64> = chosen.numbers.iter().copied().collect();
    let mut retrying = Retrying::default();
    let mut dropped = 0;
    // One at a time: there may be many, and large ones.
    each(bus, &chosen.which, async |found| {
        if !chosen.all && !missing.remove(&found.number) {
            return Ok(());
        }
        match command {
            Command::List(_) => {}
            Command::Show(_) => {
                let text = serde_json::to_string(&found.letter).map_err(BusError::json)?;
                print(&format!("{text}\n"));
            }
            Command::Retry(_) => retrying.retry(bus, found).await?,
            Command::Drop(_) => {
                bus.delete_message(Stream::Dead, found.number).await?;
                dropped += 1;
            }
        }
        Ok(())
    })
    .await?;
    for number in &missing {
        eprintln!("error: there is no dead letter {number}");
    }
    match command {
        Command::Retry(_) => eprintln!("{} sent back; what is refused again is listed again", retrying.sent),
        Command::Drop(_) => eprintln!("{dropped} dropped"),
        Command::List(_) | Command::Show(_) => {}
    }
    let good = missing.is_empty() && !retrying.failed;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(INCOMPLETE) })
}

/// Does something with each dead letter that there is now, in their order.
async fn each(
    bus: &SharedBus,
    which: &Which,
    mut with: impl AsyncFnMut(Found) -> Result<(), BusError>,
) -> Result<(), BusError> {
    let filter = "cm.dead.>".to_owned();
    let last = bus.last_seq(Stream::Dead, &filter).await?;
    if last == 0 {
        return Ok(());
    }
    let name = format!("dead-letters-{}", std::process::id());
    let mut reader = bus.read(&ReaderSpec { stream: Stream::Dead, filter, name }).await?;
    let mut seq = 0;
    while seq < last {
        // The last one may have been removed by somebody else.
        let Ok(message) = tokio::time::timeout(PATIENCE, reader.next()).await else { break };
        let message = message?;
        seq = message.seq;
        let Some((audit, version, role, plugin)) = subject::parse_letter(&message.subject) else { continue };
        let is_wanted = which.audit.as_ref().is_none_or(|wanted| audit.as_str() == wanted)
            && which.version.as_ref().is_none_or(|wanted| version == *wanted)
            && which.plugin.as_ref().is_none_or(|wanted| plugin.as_str() == wanted);
        // Those that came meanwhile are the same letters, refused again.
        if !is_wanted || seq > last {
            continue;
        }
        match DeadLetter::read(&message) {
            Ok(letter) => with(Found { number: seq, audit, version, role, plugin, letter }).await?,
            Err(error) => eprintln!("warning: the dead letter {seq} cannot be read: {error}"),
        }
    }
    Ok(())
}

async fn list(bus: &SharedBus, which: &Which) -> Result<ExitCode, BusError> {
    let look = Look::of_stdout();
    let mut table = look.table(&["number", "audit", "run", "role", "plugin", "bytes", "reason"]);
    each(bus, which, async |found| {
        let letter = &found.letter;
        table.add_row([
            found.number.to_string(),
            found.audit.to_string(),
            found.version.to_string(),
            found.role.to_string(),
            found.plugin.to_string(),
            letter.bytes.to_string(),
            cut(&letter.reason, LONGEST),
        ]);
        Ok(())
    })
    .await?;
    if table.is_empty() {
        eprintln!("there are no dead letters");
    } else {
        print(&look.text_of(&table));
    }
    Ok(ExitCode::SUCCESS)
}

/// Sends letters back.
#[derive(Default)]
struct Retrying {
    plans: HashMap<(Key, Version), Option<Plan>>,
    /// The roles whose sinks have something to take them from.
    served: Vec<Role>,
    sent: usize,
    /// Whether one could not be sent.
    failed: bool,
}

impl Retrying {
    async fn retry(&mut self, bus: &SharedBus, found: Found) -> Result<(), BusError> {
        let of = (found.audit.clone(), found.version.clone());
        if !self.plans.contains_key(&of) {
            let plan = Plan::fetch(&**bus, &found.audit, &found.version, Stage::Coordinator).await?;
            self.plans.insert(of.clone(), plan);
        }
        let plugin = match taker(&found, self.plans.get(&of).and_then(Option::as_ref)) {
            Ok(plugin) => plugin.clone(),
            Err(reason) => {
                self.refuse(found.number, &reason);
                return Ok(());
            }
        };
        self.serve(bus, found.role).await?;
        let subject = subject::retry(&found.audit, &found.version, found.role, &found.plugin);
        let message = match (Retry { letter: found.letter, plugin }).outgoing(&**bus, subject) {
            Err(error) if error.kind() == BusErrorKind::TooLarge => {
                self.refuse(found.number, &error.to_string());
                return Ok(());
            }
            message => message?,
        };
        bus.publish(message.with_id(format!("retry:{}", found.number))).await?;
        // Sent twice, it is stored once; removed first, it might be lost.
        bus.delete_message(Stream::Dead, found.number).await?;
        self.sent += 1;
        Ok(())
    }

    /// Sees to it that what is sent back is kept until a sink has taken it.
    async fn serve(&mut self, bus: &SharedBus, role: Role) -> Result<(), BusError> {
        if self.served.contains(&role) {
            return Ok(());
        }
        bus.create_consumer(&ConsumerSpec {
            id: ConsumerId::retries(role),
            filter: subject::retries_of(role),
            ack_wait: ACK_WAIT,
            metadata: vec![("purpose".to_owned(), "retry".to_owned())],
        })
        .await?;
        self.served.push(role);
        Ok(())
    }

    fn refuse(&mut self, number: u64, reason: &str) {
        eprintln!("error: the dead letter {number} cannot be sent back: {reason}");
        self.failed = true;
    }
}

/// The plugin that can take a letter, or why there is none.
fn taker<'a>(found: &Found, plan: Option<&'a Plan>) -> Result<&'a PluginSpec, String> {
    let plan = plan.ok_or_else(|| format!("the plan of the run {} is gone", found.version))?;
    let spec = plan.plugins.iter().find(|spec| spec.role == found.role && spec.key == found.plugin);
    let spec = spec.ok_or_else(|| format!("the plan of the run has no {} {}", found.role, found.plugin))?;
    if spec.stage != Stage::Sink || spec.exclusive {
        return Err(format!("{} takes no single documents; run the audit again", spec.short_class()));
    }
    if !found.letter.is_whole() {
        let (kept, all) = (found.letter.message.len(), found.letter.bytes);
        return Err(format!(
            "only {kept} of its {all} bytes were kept, as the broker takes no larger message; run the audit again"
        ));
    }
    Ok(spec)
}
