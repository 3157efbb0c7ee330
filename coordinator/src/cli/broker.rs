//! Where a command finds runs: at a broker that the options, the environment or the configuration name, or here.

use std::process::ExitCode;
use std::time::Duration;

use proto::bus::SharedBus;
use proto::config::Environment;
use proto::service::args::BusArgs;
use proto::service::connect;

/// How long the broker may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where runs are.
pub(super) enum Place {
    /// What this host knows.
    Here,
    /// A broker with the streams of a coordinator.
    Broker(SharedBus),
}

/// Does something with the broker that is named, or without one.
///
/// # Errors
/// When the broker cannot be asked, or what is done fails: for people, with what to do next.
pub(super) fn with(
    args: &BusArgs,
    here: bool,
    act: impl AsyncFnOnce(Place) -> Result<ExitCode, String>,
) -> Result<ExitCode, String> {
    let options = if here { None } else { connect::options(args, &Environment::of_process())? };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
    let done = runtime.block_on(async {
        let place = match options {
            None => Place::Here,
            Some(options) => {
                let unknown = "; what this host knows without it: the same with --here";
                let bus = connect::nats(options, Some(PATIENCE)).await.map_err(|error| format!("{error}{unknown}"))?;
                if !bus.is_ready().await.map_err(|error| format!("{error}{unknown}"))? {
                    return Err(format!(
                        "there are no runs at this broker yet; `coordinator run --now --nats URL` begins one{unknown}"
                    ));
                }
                Place::Broker(bus)
            }
        };
        act(place).await
    });
    runtime.shutdown_background();
    done
}
