//! `coordinator dead-letters`: what could not be processed: shows it, sends it back, or drops it.

use std::collections::{BTreeSet, HashMap};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use proto::bus::{BusError, ConsumerId, ConsumerSpec, Outgoing, ReaderSpec, SharedBus};
use proto::config::Environment;
use proto::plan::{Plan, PluginSpec, Stage};
use proto::service::args::BusArgs;
use proto::service::connect;
use proto::status::{DeadLetter, Retry};
use proto::subject::{self, Key, Role, Stream, Version};

use super::{INCOMPLETE, USAGE, print};

/// How long the broker may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// After how long a letter that was sent back comes to another sink, if the first one says nothing.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// How much of a reason a list shows, in characters.
const LONGEST: usize = 120;

#[derive(Debug, Args)]
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
    let mut found = read(bus, command.which()).await?;
    let missing = match command {
        Command::List(_) => return Ok(list(&found)),
        Command::Show(chosen) | Command::Retry(chosen) | Command::Drop(chosen) => choose(&mut found, chosen),
    };
    let mut failed = false;
    for number in missing {
        eprintln!("error: there is no dead letter {number}");
        failed = true;
    }
    match command {
        Command::List(_) => {}
        Command::Show(_) => {
            let mut lines = String::new();
            for found in &found {
                lines.push_str(&serde_json::to_string(&found.letter).map_err(BusError::json)?);
                lines.push('\n');
            }
            print(&lines);
        }
        Command::Retry(_) => failed |= retry(bus, &found).await?,
        Command::Drop(_) => {
            for found in &found {
                bus.delete_message(Stream::Dead, found.number).await?;
            }
            eprintln!("{} dropped", found.len());
        }
    }
    Ok(if failed { ExitCode::from(INCOMPLETE) } else { ExitCode::SUCCESS })
}

/// Keeps those that are chosen; the numbers that are not there.
fn choose(found: &mut Vec<Found>, chosen: &Chosen) -> Vec<u64> {
    if chosen.all {
        return Vec::new();
    }
    found.retain(|found| chosen.numbers.contains(&found.number));
    let there: BTreeSet<u64> = found.iter().map(|found| found.number).collect();
    chosen.numbers.iter().copied().filter(|number| !there.contains(number)).collect()
}

async fn read(bus: &SharedBus, which: &Which) -> Result<Vec<Found>, BusError> {
    let filter = "cm.dead.>".to_owned();
    let count = bus.count(Stream::Dead, &filter).await?;
    let mut found = Vec::new();
    if count == 0 {
        return Ok(found);
    }
    let name = format!("dead-letters-{}", std::process::id());
    let mut reader = bus.read(&ReaderSpec { stream: Stream::Dead, filter, name }).await?;
    for _ in 0..count {
        let Ok(message) = tokio::time::timeout(PATIENCE, reader.next()).await else { break };
        let message = message?;
        let Some((audit, version, role, plugin)) = subject::parse_letter(&message.subject) else { continue };
        let is_wanted = which.audit.as_ref().is_none_or(|wanted| audit.as_str() == wanted)
            && which.version.as_ref().is_none_or(|wanted| version == *wanted)
            && which.plugin.as_ref().is_none_or(|wanted| plugin.as_str() == wanted);
        if !is_wanted {
            continue;
        }
        match serde_json::from_slice(&message.payload) {
            Ok(letter) => found.push(Found { number: message.seq, audit, version, role, plugin, letter }),
            Err(error) => eprintln!("warning: the dead letter {} cannot be read: {error}", message.seq),
        }
    }
    Ok(found)
}

fn list(found: &[Found]) -> ExitCode {
    if found.is_empty() {
        eprintln!("there are no dead letters");
        return ExitCode::SUCCESS;
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["number", "audit", "run", "role", "plugin", "bytes", "reason"]);
    for found in found {
        let letter = &found.letter;
        let mut reason: String = letter.reason.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
        if reason.len() < letter.reason.len() {
            reason.push('…');
        }
        table.add_row([
            found.number.to_string(),
            found.audit.to_string(),
            found.version.to_string(),
            found.role.to_string(),
            found.plugin.to_string(),
            letter.bytes.to_string(),
            reason,
        ]);
    }
    print(&format!("{table}\n"))
}

/// Sends letters back; true when one could not be.
async fn retry(bus: &SharedBus, found: &[Found]) -> Result<bool, BusError> {
    let mut plans: HashMap<(Key, Version), Option<Plan>> = HashMap::new();
    let (mut sent, mut failed) = (0, false);
    for role in [Role::Store, Role::Alert] {
        if found.iter().any(|found| found.role == role) {
            bus.create_consumer(&ConsumerSpec {
                id: ConsumerId::retries(role),
                filter: subject::retries_of(role),
                ack_wait: ACK_WAIT,
                metadata: vec![("purpose".to_owned(), "retry".to_owned())],
            })
            .await?;
        }
    }
    for found in found {
        let of = (found.audit.clone(), found.version.clone());
        if !plans.contains_key(&of) {
            let plan = Plan::fetch(&**bus, &found.audit, &found.version, Stage::Coordinator).await?;
            plans.insert(of.clone(), plan);
        }
        let plugin = match taker(found, plans.get(&of).and_then(Option::as_ref)) {
            Ok(plugin) => plugin.clone(),
            Err(reason) => {
                eprintln!("error: the dead letter {} cannot be sent back: {reason}", found.number);
                failed = true;
                continue;
            }
        };
        let subject = subject::retry(&found.audit, &found.version, found.role, &found.plugin);
        let message = Outgoing::json(subject, &Retry { letter: found.letter.clone(), plugin });
        let id = format!("retry:{}", found.number);
        bus.publish(message.map_err(BusError::json)?.with_id(id)).await?;
        // Sent twice, it is stored once; removed first, it might be lost.
        bus.delete_message(Stream::Dead, found.number).await?;
        sent += 1;
    }
    eprintln!("{sent} sent back; what is refused again is listed again");
    Ok(failed)
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
        return Err(format!("only {kept} of its {all} bytes were kept; run the audit again"));
    }
    Ok(spec)
}
