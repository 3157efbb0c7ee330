//! From options, environment and configuration to a connection.

use std::sync::Arc;
use std::time::Duration;

use crate::bus::nats::{ConnectionState, NatsBus, NatsCredentials, NatsOptions, StreamLimits};
use crate::bus::{BusError, SharedBus};
use crate::config::secret::{Expander, Secret};
use crate::config::{Config, Environment, NatsConfig};
use crate::service::args::BusArgs;

/// What a service says that was not told of a broker.
pub const NO_BROKER: &str = "no broker is named; name it with --nats nats://HOST:4222, the variable NATS_URL, or `nats: {url: ...}` in the \
     configuration";

/// After how long a frame or unit comes again whose worker says nothing, unless the configuration says otherwise.
const ACK_WAIT: Duration = Duration::from_secs(30);

/// The connection that a service is to make; `None` when no broker is named.
///
/// # Errors
/// What is wrong with the configuration's `nats:` section, for people.
pub fn options(args: &BusArgs, environment: &Environment) -> Result<Option<NatsOptions>, String> {
    let loaded = crate::config::load(args.config.as_deref(), environment);
    let section = crate::config::nats_section(&loaded).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        lines.join("\n")
    })?;
    of_section(args.nats.as_deref(), section.as_ref(), environment)
}

/// The connection that a coordinator is to make; `None` when no broker is named.
///
/// # Errors
/// What is wrong, for people.
pub fn of_config(url: Option<&str>, config: &Config, environment: &Environment) -> Result<Option<NatsOptions>, String> {
    of_section(url, config.nats.as_ref(), environment)
}

/// After how long a frame or unit comes again whose worker says nothing.
#[must_use]
pub fn ack_wait(config: &Config) -> Duration {
    config.nats.as_ref().and_then(|nats| nats.ack_wait).unwrap_or(ACK_WAIT)
}

fn of_section(
    url: Option<&str>,
    section: Option<&NatsConfig>,
    environment: &Environment,
) -> Result<Option<NatsOptions>, String> {
    let default = NatsConfig::default();
    let section = section.unwrap_or(&default);
    let servers = match url {
        Some(url) => url.to_owned(),
        None if section.url.is_empty() => return Ok(None),
        None => section.url.join(","),
    };
    // The section is the operator's of this host: it may refer to all that this process sees.
    let expander = Expander::of_everything(environment.clone());
    let expand = |text: &str| expander.expand_text(text).map_err(|error| format!("nats: {error}"));
    let secret = |secret: &Secret| expand(secret.expose());
    let mut options = NatsOptions::new(&expand(&servers)?);
    options.credentials = match (&section.credentials_file, &section.user, &section.password, &section.token) {
        (Some(file), ..) => NatsCredentials::File(environment.path(file)),
        (None, Some(user), Some(password), _) => {
            NatsCredentials::Password { user: expand(user)?, password: secret(password)? }
        }
        (None, _, _, Some(token)) => NatsCredentials::Token(secret(token)?),
        _ => NatsCredentials::None,
    };
    options.tls_ca = section.ca_file.as_ref().map(|file| environment.path(file));
    let identity = section.cert_file.as_ref().zip(section.key_file.as_ref());
    options.tls_identity = identity.map(|(certificate, key)| (environment.path(certificate), environment.path(key)));
    if let Some(replicas) = section.replicas {
        options.replicas = usize::from(replicas);
    }
    let limits = StreamLimits::default();
    options.limits = StreamLimits {
        records_max_bytes: section.records_max_bytes.unwrap_or(limits.records_max_bytes),
        events_max_bytes: section.events_max_bytes.unwrap_or(limits.events_max_bytes),
        status_max_bytes: section.status_max_bytes.unwrap_or(limits.status_max_bytes),
        dead_max_bytes: section.dead_max_bytes.unwrap_or(limits.dead_max_bytes),
        units_max_bytes: section.units_max_bytes.unwrap_or(limits.units_max_bytes),
    };
    Ok(Some(options))
}

/// Connects to the broker, waiting for it for ever or as long as given.
///
/// # Errors
/// When the broker refuses the credentials, cannot be used, or is not there in time.
pub async fn nats(options: NatsOptions, patience: Option<Duration>) -> Result<SharedBus, BusError> {
    let bus: Arc<NatsBus> = NatsBus::connect(options, patience, |state| match state {
        ConnectionState::Connected => tracing::info!("connected to the broker"),
        ConnectionState::Disconnected => tracing::warn!("lost the broker; waiting for it"),
    })
    .await?;
    Ok(bus)
}
