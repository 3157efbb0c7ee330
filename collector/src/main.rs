//! The program `collector`: units in, records out.

use std::process::ExitCode;

use clap::Parser;
use proto::plan::Stage;
use proto::service::args::ServiceArgs;
use proto::service::{self, Serves};
use proto::subject::Key;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Reads clouds: takes units of collecting from the broker and publishes records.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// The pools to take units of, separated by commas; a pool is a cloud's name unless the configuration says
    /// otherwise. A host takes only the pools that it has credentials for.
    #[arg(long, value_name = "POOL", value_delimiter = ',', value_parser = |name: &str| Key::new(name))]
    pools: Vec<Key>,
    #[command(flatten)]
    service: ServiceArgs,
}

/// Units wait for clouds: many at once.
const UNITS_AT_ONCE: usize = 64;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let pools = if cli.pools.is_empty() { collector::registry::pools() } else { cli.pools };
    let serves = Serves {
        stage: Stage::Collector,
        classes: collector::registry::served().map(|class| class.short_name().to_owned()).collect(),
        pools: pools.clone(),
        concurrency: UNITS_AT_ONCE,
    };
    service::run(serves, &cli.service, |worker| collector::worker::run(worker, pools)).await
}
