//! `coordinator import`: brings over the configurations of tools that this one takes the place of.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use proto::config::Environment;

use super::{INCOMPLETE, USAGE, print};
use crate::import::cloudtail;

const EXAMPLES: &str = "\
Examples:
  coordinator import cloudtail event_config.json
  coordinator import cloudtail event_config.json --output cloudmarker.yaml";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ImportArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Turn CloudTail's event_config.json into a configuration with AwsCloudTrail and AzActivityLog.
    Cloudtail(CloudtailArgs),
}

#[derive(Debug, Args)]
struct CloudtailArgs {
    /// CloudTail's configuration.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where to write ours, instead of standard output. A file that is there is not replaced.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn main(args: &ImportArgs) -> ExitCode {
    let Command::Cloudtail(args) = &args.command;
    let environment = Environment::of_process();
    let file = args.file.display();
    let text = match fs::read_to_string(environment.path(&args.file)) {
        Ok(text) => text,
        Err(error) => return refuse(&[format!("cannot read {file}: {error}")]),
    };
    let imported = match cloudtail(&text) {
        Ok(imported) => imported,
        Err(errors) => return refuse(&errors.iter().map(|error| format!("{file}: {error}")).collect::<Vec<_>>()),
    };
    let printed = match &args.output {
        None => print(&imported.config),
        Some(output) => match write(&environment.path(output), &imported.config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(reason) => return refuse(&[reason]),
        },
    };
    eprint!("{}", imported.notes);
    if imported.notes.is_incomplete() { ExitCode::from(INCOMPLETE) } else { printed }
}

fn write(output: &Path, config: &str) -> Result<(), String> {
    use std::io::Write;
    let file = fs::File::create_new(output);
    let written = file.and_then(|mut file| file.write_all(config.as_bytes()));
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            format!("{} is there already: remove it, or name another file", output.display())
        }
        _ => format!("cannot write {}: {error}", output.display()),
    })
}

fn refuse(reasons: &[String]) -> ExitCode {
    for reason in reasons {
        eprintln!("error: {reason}");
    }
    ExitCode::from(USAGE)
}
