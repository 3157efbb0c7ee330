//! The program `sink`: records or events in, documents in a store out.
//!
//! Its allocator is the system's. What one thread takes and another frees, which is all of a sink's work, took twice the
//! memory with mimalloc, and no less time.

use std::process::ExitCode;

use clap::Parser;
use proto::plan::Stage;
use proto::service::args::ServiceArgs;
use proto::service::{self, Serves};

/// Fills stores: takes records and events from the broker and writes documents.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    service: ServiceArgs,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let serves = Serves {
        stage: Stage::Sink,
        classes: sink::registry::served().map(|class| class.short_name().to_owned()).collect(),
        pools: Vec::new(),
        concurrency: std::thread::available_parallelism().map_or(2, usize::from),
    };
    service::run(serves, &cli.service, sink::worker::run).await
}
