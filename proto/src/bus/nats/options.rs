//! What a connection to NATS needs to know.

use std::fmt;
use std::path::PathBuf;

/// One gibibyte.
const GIB: u64 = 1 << 30;

/// How the broker is told who connects.
#[derive(Clone, Default)]
pub enum NatsCredentials {
    /// Not at all, or by what stands in the URLs.
    #[default]
    None,
    /// By a file with a JWT and a seed, as `nsc` writes it.
    File(PathBuf),
    /// By user name and password.
    Password {
        /// The user name.
        user: String,
        /// The password.
        password: String,
    },
    /// By a token.
    Token(String),
}

impl fmt::Debug for NatsCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Password { user, .. } => write!(f, "Password {{ user: {user:?}, password: *** }}"),
            Self::Token(_) => f.write_str("Token(***)"),
        }
    }
}

/// How much each stream may hold when it is created, in bytes. What an operator changes later stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimits {
    /// Frames of records.
    pub records_max_bytes: u64,
    /// Events.
    pub events_max_bytes: u64,
    /// What the stages say about runs.
    pub status_max_bytes: u64,
    /// Dead letters.
    pub dead_max_bytes: u64,
    /// Units of collecting.
    pub units_max_bytes: u64,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            records_max_bytes: 8 * GIB,
            events_max_bytes: 4 * GIB,
            status_max_bytes: GIB,
            dead_max_bytes: GIB,
            units_max_bytes: GIB / 2,
        }
    }
}

/// How to connect to NATS, and how to create what is missing there.
///
/// ```
/// use proto::bus::nats::NatsOptions;
/// let options = NatsOptions { replicas: 3, ..NatsOptions::new("nats://one:4222,nats://two:4222") };
/// assert_eq!(options.servers.len(), 2);
/// ```
#[derive(Clone)]
pub struct NatsOptions {
    /// The URLs of the servers of one cluster.
    pub servers: Vec<String>,
    /// How the broker is told who connects.
    pub credentials: NatsCredentials,
    /// A file with the certificates (PEM) that servers' certificates must be signed by, instead of the system's.
    pub tls_ca: Option<PathBuf>,
    /// The files (PEM) of the certificate that this client shows and of its key.
    pub tls_identity: Option<(PathBuf, PathBuf)>,
    /// What connections are called at the broker.
    pub name: String,
    /// On how many servers of a cluster each stream is kept.
    pub replicas: usize,
    /// How much streams may hold.
    pub limits: StreamLimits,
}

impl NatsOptions {
    /// The defaults, with the servers' URLs: one, or several separated by commas.
    #[must_use]
    pub fn new(servers: &str) -> Self {
        Self {
            servers: servers.split(',').map(|server| server.trim().to_owned()).collect(),
            credentials: NatsCredentials::None,
            tls_ca: None,
            tls_identity: None,
            name: "cloudmarker".into(),
            replicas: 1,
            limits: StreamLimits::default(),
        }
    }

    /// The servers for messages: without what stands before an `@`, as that may be a password.
    pub(super) fn display_servers(&self) -> String {
        self.servers.iter().map(|server| without_credentials(server)).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Debug for NatsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsOptions")
            .field("servers", &self.display_servers())
            .field("credentials", &self.credentials)
            .field("tls_ca", &self.tls_ca)
            .field("tls_identity", &self.tls_identity)
            .field("name", &self.name)
            .field("replicas", &self.replicas)
            .field("limits", &self.limits)
            .finish()
    }
}

fn without_credentials(server: &str) -> String {
    let (scheme, rest) = server.split_once("://").map_or(("", server), |(scheme, rest)| (scheme, rest));
    let address = rest.rsplit_once('@').map_or(rest, |(_, address)| address);
    if scheme.is_empty() { address.to_owned() } else { format!("{scheme}://{address}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let credentials = [
            NatsCredentials::Password { user: "u".into(), password: "secret".into() },
            NatsCredentials::Token("secret".into()),
        ];
        for credentials in credentials {
            let options = NatsOptions { credentials, ..NatsOptions::new("nats://u:secret@host:4222, secret@other") };
            let printed = format!("{options:?}");
            assert!(!printed.contains("secret") && printed.contains("nats://host:4222, other"), "{printed}");
        }
    }
}
