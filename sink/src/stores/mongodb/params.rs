//! The parameters of the class, and the driver's options that they are.

use std::fmt;
use std::time::Duration;

use mongodb::options::{
    Acknowledgment, ClientOptions, ConnectionString, HostInfo, ServerAddress, Tls, TlsOptions, WriteConcern,
};
use proto::catalogue::ParamError;
use proto::config::secret::{Secret, has_reference};
use proto::config::{Environment, params};
use serde::Deserialize;
use serde_json::Value;

const HOST: &str = "localhost";
const PORT: u16 = 27_017;
const NAME: &str = "cloudmarker";
/// Most documents that the server takes in one command.
const MAX_BUFFER: usize = 100_000;

/// How long is waited for a server that takes writes.
pub(super) const SELECTION: Duration = Duration::from_secs(5);
/// How often servers are looked at.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// How long the server waits for the members of its replica set to have a write.
const REPLICATION: Duration = Duration::from_secs(60);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Params {
    /// A connection string, in place of `host` and `port`. It may hold a password.
    pub(super) uri: Option<Secret>,
    host: Option<String>,
    port: Option<u16>,
    /// The database: that of the connection string, or `cloudmarker`.
    db: Option<String>,
    pub(super) collection: String,
    username: Option<String>,
    password: Option<Secret>,
    /// The database that knows the user.
    auth_source: Option<String>,
    /// Whether the connection is encrypted. It is if there is a `ca_cert`.
    tls: Option<bool>,
    ca_cert: Option<CaCert>,
    write_concern: Option<Concern>,
    /// How many documents are written at once.
    pub(super) buffer_size: usize,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            uri: None,
            host: None,
            port: None,
            db: None,
            collection: NAME.to_owned(),
            username: None,
            password: None,
            auth_source: None,
            tls: None,
            ca_cert: None,
            write_concern: None,
            buffer_size: 1_000,
        }
    }
}

/// Whom to trust.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum CaCert {
    /// `false`: whoever answers. `true`: whom everybody trusts.
    Check(bool),
    /// The authorities in this file.
    File(String),
}

/// How many members must have a write before it counts as stored.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Concern {
    Nodes(u32),
    Name(String),
}

pub(super) fn check(value: &Value) -> Result<(), Vec<ParamError>> {
    let read: Params = params::read(value)?;
    let mut errors = Vec::new();
    let mut wrong = |path: &str, message: String| errors.push(ParamError { path: path.to_owned(), message });
    if !(1..=MAX_BUFFER).contains(&read.buffer_size) {
        wrong("buffer_size", format!("found {}; a number from 1 to {MAX_BUFFER} is expected", read.buffer_size));
    }
    if let Some(uri) = &read.uri {
        for (name, set) in [("host", read.host.is_some()), ("port", read.port.is_some())] {
            if set {
                wrong(name, format!("`uri` says it, too; leave out `{name}` or `uri`"));
            }
        }
        // What a reference stands for is not known here.
        if !has_reference(uri.expose())
            && let Err(message) = connection_string(uri)
        {
            wrong("uri", message);
        }
    }
    if read.host.as_deref() == Some("") {
        wrong("host", "found an empty text; the name or address of a server is expected".to_owned());
    }
    if let Some(problem) = read.db.as_deref().and_then(wrong_database) {
        wrong("db", problem.to_owned());
    }
    if let Some(problem) = wrong_collection(&read.collection) {
        wrong("collection", problem.to_owned());
    }
    match (&read.username, &read.password) {
        (None, Some(_)) if read.uri.is_none() => wrong("username", "set `username`: there is a password".to_owned()),
        (Some(_), None) => wrong("password", "set `password`: there is a user name".to_owned()),
        _ => {}
    }
    if read.tls == Some(false) && matches!(read.ca_cert, Some(CaCert::File(_))) {
        wrong("tls", "`ca_cert` is of use with TLS only; leave out `tls` or `ca_cert`".to_owned());
    }
    match &read.write_concern {
        Some(Concern::Nodes(0)) => {
            wrong(
                "write_concern",
                "found 0, with which losses go unseen; 1, more, or `majority` is expected".to_owned(),
            );
        }
        Some(Concern::Name(name)) if name.is_empty() => {
            wrong("write_concern", "found an empty text; `majority`, a number or a tag is expected".to_owned());
        }
        _ => {}
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn wrong_database(name: &str) -> Option<&'static str> {
    if name.is_empty() || name.len() > 63 {
        Some("the name of a database has 1 to 63 bytes")
    } else if name.contains(['/', '\\', '.', ' ', '"', '$', '*', '<', '>', ':', '|', '?', '\0']) {
        Some("the name of a database has none of / \\ . \" $ * < > : | ? and no space")
    } else {
        None
    }
}

fn wrong_collection(name: &str) -> Option<&'static str> {
    if name.is_empty() || name.len() > 200 {
        Some("the name of a collection has 1 to 200 bytes")
    } else if name.contains(['$', '\0']) || name.starts_with("system.") || name.starts_with('.') || name.ends_with('.')
    {
        Some("the name of a collection has no `$`, does not begin with `system.`, and has no dot at either end")
    } else {
        None
    }
}

/// The error does not show the connection string.
fn connection_string(uri: &Secret) -> Result<ConnectionString, String> {
    if uri.expose().starts_with("mongodb+srv:") {
        return Err("`mongodb+srv://` is not supported; write the servers' names: \
                    `mongodb://user:password@host1,host2,host3/?tls=true&authSource=admin&replicaSet=name` \
                    (Atlas shows this form for older drivers)"
            .to_owned());
    }
    ConnectionString::parse(uri.expose()).map_err(|error| {
        // The driver's message may quote a part of the string; what stands before the host is nobody's business.
        let message = error.kind.to_string();
        let secret = uri.expose().rsplit_once('@').map(|(before, _)| before.trim_start_matches("mongodb://"));
        let message = match secret {
            Some(secret) if !secret.is_empty() && message.contains(secret) => "it cannot be read".to_owned(),
            _ => message,
        };
        format!("not a connection string: {message}; write it like `mongodb://user:password@host:{PORT}/db`")
    })
}

/// Where documents go, and how.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub(super) options: ClientOptions,
    pub(super) db: String,
    pub(super) collection: String,
    pub(super) user: Option<String>,
    pub(super) concern: WriteConcern,
}

impl Params {
    /// Without a look at the network or a file.
    pub(super) fn connection(&self) -> Result<Connection, String> {
        let string = match &self.uri {
            Some(uri) => connection_string(uri)?,
            None => {
                let mut string = ConnectionString::default();
                let host = self.host.clone().unwrap_or_else(|| HOST.to_owned());
                string.host_info =
                    HostInfo::HostIdentifiers(vec![ServerAddress::Tcp { host, port: Some(self.port.unwrap_or(PORT)) }]);
                string
            }
        };
        let db = self.db.clone().or_else(|| string.default_database.clone()).unwrap_or_else(|| NAME.to_owned());
        let mut options = options_of(string)?;
        if self.username.is_some() || self.password.is_some() || self.auth_source.is_some() {
            let mut credential = options.credential.take().unwrap_or_default();
            credential.username = self.username.clone().or(credential.username);
            credential.password = self.password.as_ref().map(|it| it.expose().to_owned()).or(credential.password);
            credential.source = self.auth_source.clone().or(credential.source);
            options.credential = Some(credential);
        }
        self.encrypt(&mut options);
        options.app_name.get_or_insert_with(|| NAME.to_owned());
        options.server_selection_timeout.get_or_insert(SELECTION);
        options.connect_timeout.get_or_insert(SELECTION);
        // A server that was given up is looked at again before waiting for one ends.
        options.heartbeat_freq.get_or_insert(HEARTBEAT);
        let concern = self.concern(options.write_concern.take());
        options.write_concern = Some(concern.clone());
        let user = options.credential.as_ref().and_then(|credential| credential.username.clone());
        Ok(Connection { options, db, collection: self.collection.clone(), user, concern })
    }

    fn encrypt(&self, options: &mut ClientOptions) {
        match (self.tls, &self.ca_cert) {
            (Some(false), _) => options.tls = Some(Tls::Disabled),
            (None, None) => {}
            (Some(true), None) if matches!(options.tls, Some(Tls::Enabled(_))) => {}
            (_, cert) => {
                let mut tls = match options.tls.take() {
                    Some(Tls::Enabled(tls)) => tls,
                    _ => TlsOptions::default(),
                };
                match cert {
                    Some(CaCert::File(path)) => tls.ca_file_path = Some(Environment::of_process().path(path)),
                    Some(CaCert::Check(check)) => tls.allow_invalid_certificates = Some(!check),
                    None => {}
                }
                options.tls = Some(Tls::Enabled(tls));
            }
        }
    }

    /// What the parameters say, else the connection string, else: most members, in their journals.
    fn concern(&self, of_string: Option<WriteConcern>) -> WriteConcern {
        let mut concern = of_string.unwrap_or_default();
        match &self.write_concern {
            Some(Concern::Nodes(nodes)) => concern.w = Some(Acknowledgment::Nodes(*nodes)),
            Some(Concern::Name(name)) => concern.w = Some(name.as_str().into()),
            None => {
                concern.w.get_or_insert(Acknowledgment::Majority);
            }
        }
        // A server that is killed loses what was not yet in its journal.
        concern.journal.get_or_insert(true);
        concern.w_timeout.get_or_insert(REPLICATION);
        concern
    }
}

/// The options of a connection string. The driver's own way is an asynchronous one, for it may ask the name service.
fn options_of(string: ConnectionString) -> Result<ClientOptions, String> {
    use futures::FutureExt;
    match ClientOptions::parse(string).into_future().now_or_never() {
        Some(options) => options.map_err(|error| error.kind.to_string()),
        None => Err("the connection string needs the name service".to_owned()),
    }
}

impl Connection {
    pub(super) fn encrypted(&self) -> bool {
        matches!(self.options.tls, Some(Tls::Enabled(_)))
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, host) in self.options.hosts.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{host}")?;
        }
        Ok(())
    }
}
