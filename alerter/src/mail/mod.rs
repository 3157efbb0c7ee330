//! Mail: the parameters that a mail server and a message have in configurations, messages, and how they are sent.
//!
//! It knows nothing of findings: whoever has something to say by mail says it through this.

mod letter;
mod message;
mod smtp;

use std::path::PathBuf;
use std::time::Duration;

use lettre::message::Mailbox;
use proto::catalogue::ParamError;
use proto::config::params;
use proto::config::secret::{Secret, has_reference};
use serde::Deserialize;
use serde_json::Value;

pub use letter::Letter;
pub use message::{Attachment, Draft};
pub use smtp::{MailError, Refusal, Sent};

/// How a connection is made safe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SslMode {
    /// TLS from the first byte; port 465 unless another is named.
    #[default]
    Ssl,
    /// A plain connection that becomes one of TLS before anything is said; port 25 unless another is named.
    Starttls,
    /// A plain connection; port 25 unless another is named.
    Disable,
}

/// The server's dialogue in the log: the Python tool takes a number, and a truth value is as good.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Debug {
    Flag(bool),
    Level(i64),
}

/// The parameters, as configurations have them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    from_addr: String,
    to_addrs: Vec<String>,
    #[serde(default = "default_subject")]
    subject: String,
    /// The Python tool's function has it; what a mail says is not configured.
    #[serde(default)]
    content: Option<Value>,
    host: String,
    #[serde(default)]
    port: u16,
    #[serde(default)]
    ssl_mode: SslMode,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: Secret,
    #[serde(default)]
    debug: Option<Debug>,
    #[serde(default)]
    ca_cert: Option<PathBuf>,
    #[serde(default, deserialize_with = "params::duration")]
    timeout: Option<Duration>,
}

/// What the required parameters are.
const ABOUT: &[(&str, &str)] = &[
    ("from_addr", "the sender's address, such as `cloudmarker@example.com`"),
    ("to_addrs", "a list of the receivers' addresses"),
    ("host", "the mail server's name"),
];

fn default_subject() -> String {
    "[Cloudmarker]".to_owned()
}

/// The longest that is waited for one answer, unless the parameters say otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Sends mail: the server, the sender and the receivers.
#[derive(Debug, Clone)]
pub struct Mailer {
    server: smtp::Server,
    from: Mailbox,
    to: Vec<Mailbox>,
    subject: String,
}

/// Checks the parameters, unexpanded.
///
/// # Errors
/// Everything that is not as it should be.
pub fn check(value: &Value) -> Result<(), Vec<ParamError>> {
    Mailer::read(value, true).map(drop)
}

impl Mailer {
    /// A mailer of these parameters, expanded.
    ///
    /// # Errors
    /// Everything that is not as it should be.
    pub fn new(value: &Value) -> Result<Self, Vec<ParamError>> {
        let mailer = Self::read(value, false)?.ok_or_else(Vec::new)?;
        let server = &mailer.server;
        if server.login.is_some() && server.mode == SslMode::Disable && !server.is_on_this_host() {
            tracing::warn!(host = server.host, "`ssl_mode: disable` shows the password to the network");
        }
        Ok(mailer)
    }

    /// `None` when what is right cannot be told from what is wrong before references are expanded.
    fn read(value: &Value, unexpanded: bool) -> Result<Option<Self>, Vec<ParamError>> {
        let read: Params = params::read_with(value, ABOUT)?;
        let mut errors = Vec::new();
        let mut note = |path: &str, message: String| errors.push(ParamError { path: path.to_owned(), message });
        let is_open = |text: &str| unexpanded && has_reference(text);
        let mut mailbox = |path: &str, text: &str| match mailbox(text) {
            _ if is_open(text) => None,
            Ok(mailbox) => Some(mailbox),
            Err(reason) => {
                note(path, reason);
                None
            }
        };
        let from = mailbox("from_addr", &read.from_addr);
        let to: Vec<Option<Mailbox>> =
            read.to_addrs.iter().enumerate().map(|(n, text)| mailbox(&format!("to_addrs[{n}]"), text)).collect();
        if read.to_addrs.is_empty() {
            note("to_addrs", "found an empty list; at least one address is expected".to_owned());
        }
        if read.host.trim().is_empty() {
            note("host", "found an empty text; the mail server's name is expected".to_owned());
        }
        if read.subject.chars().any(char::is_control) {
            note("subject", "a subject is one line without control characters".to_owned());
        }
        if read.username.is_empty() && !read.password.is_empty() {
            note("password", "is of no use without `username`; set that, or leave this out".to_owned());
        }
        if read.ca_cert.is_some() && read.ssl_mode == SslMode::Disable {
            note("ca_cert", "is of no use with `ssl_mode: disable`; leave one of them out".to_owned());
        }
        if read.timeout.is_some_and(|timeout| timeout.is_zero()) {
            note("timeout", "found 0; a duration such as `30s` is expected".to_owned());
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        if read.content.is_some() && !unexpanded {
            tracing::warn!("`content` is ignored: what is found is what the mail says");
        }
        let (Some(from), Some(to)) = (from, to.into_iter().collect::<Option<Vec<Mailbox>>>()) else { return Ok(None) };
        let port = match (read.port, read.ssl_mode) {
            (0, SslMode::Ssl) => 465,
            (0, SslMode::Starttls | SslMode::Disable) => 25,
            (port, _) => port,
        };
        let debug = match read.debug {
            None | Some(Debug::Flag(false) | Debug::Level(0)) => false,
            Some(Debug::Flag(true) | Debug::Level(_)) => true,
        };
        let server = smtp::Server {
            host: read.host.trim().to_owned(),
            port,
            mode: read.ssl_mode,
            login: (!read.username.is_empty()).then_some((read.username, read.password)),
            ca_cert: read.ca_cert,
            timeout: read.timeout.unwrap_or(TIMEOUT),
            debug,
        };
        Ok(Some(Self { server, from, to, subject: read.subject }))
    }

    /// The receivers.
    #[must_use]
    pub fn to(&self) -> &[Mailbox] {
        &self.to
    }

    /// The subject that is configured, and what comes behind it.
    #[must_use]
    pub fn subject(&self, outcome: &str) -> String {
        let subject = crate::readable::line(&format!("{} {outcome}", self.subject));
        subject.trim().to_owned()
    }

    /// Whom it sends to, and by which server, for people.
    #[must_use]
    pub fn place(&self) -> String {
        let to: Vec<&str> = self.to.iter().map(|to| to.email.as_ref()).collect();
        format!("mail to {} by {}", to.join(", "), self.server())
    }

    /// The server, for people: `mail.example.com:465`.
    #[must_use]
    pub fn server(&self) -> String {
        format!("{}:{}", self.server.host, self.server.port)
    }

    /// A `Message-ID` that is this key's alone.
    #[must_use]
    pub fn message_id(&self, key: &str) -> String {
        let domain = self.from.email.domain();
        // An id is ASCII, whatever script the domain is written in.
        match url::Host::parse(domain) {
            Ok(host) => format!("<{key}@{host}>"),
            Err(_) => format!("<{key}@cloudmarker.invalid>"),
        }
    }

    /// Writes a message from the sender to all receivers.
    ///
    /// # Errors
    /// What keeps it from being one, for people.
    pub fn write(&self, draft: Draft) -> Result<Vec<u8>, String> {
        message::write(&self.from, &self.to, draft)
    }

    /// Sends a written message to some of the receivers, in one session, each step of it bounded in time. Whom the
    /// server refuses costs no other.
    ///
    /// # Errors
    /// When nobody has it, for another reason than that the receivers were refused.
    pub async fn send(&self, to: &[Mailbox], message: &[u8]) -> Result<Sent, MailError> {
        smtp::send(&self.server, &self.from.email, to, message).await
    }
}

fn mailbox(text: &str) -> Result<Mailbox, String> {
    const EXPECTED: &str = "an address such as `ops@example.com` or `Operations <ops@example.com>` is expected";
    if text.chars().any(char::is_control) {
        return Err(format!("found control characters; {EXPECTED}"));
    }
    text.trim().parse().map_err(|_| format!("found {}; {EXPECTED}", params::describe(&text.into())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn errors(value: &Value) -> Vec<String> {
        check(value).unwrap_err().into_iter().map(|error| format!("{}: {}", error.path, error.message)).collect()
    }

    #[test]
    fn the_ports_are_those_of_the_mode() {
        let port = |mode: &str, port: u16| {
            let value =
                json!({"from_addr": "a@b.c", "to_addrs": ["d@e.f"], "host": "h", "ssl_mode": mode, "port": port});
            Mailer::new(&value).unwrap().server
        };
        assert_eq!([port("ssl", 0).port, port("starttls", 0).port, port("disable", 0).port], [465, 25, 25]);
        assert_eq!(port("starttls", 587).port, 587);
        let least = json!({"from_addr": "a@b.c", "to_addrs": ["d@e.f"], "host": "h", "subject": "x", "content": "y", "debug": 1});
        let mailer = Mailer::new(&least).unwrap();
        assert!(mailer.server.mode == SslMode::Ssl && mailer.server.login.is_none() && mailer.server.debug);
        assert_eq!(mailer.subject("prod: 1 high"), "x prod: 1 high");
        assert_eq!(mailer.message_id("k"), "<k@b.c>");
        let other = json!({"from_addr": "a@bücher.example", "to_addrs": ["d@e.f"], "host": "h"});
        assert_eq!(Mailer::new(&other).unwrap().message_id("k"), "<k@xn--bcher-kva.example>");
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once_and_no_secret() {
        assert_eq!(
            errors(&json!({
                "from_addr": "a@b.c\r\nBcc: x@y.z", "to_addrs": ["nobody", "ok@example.com"], "host": " ",
                "subject": "a\nb", "password": "hunter2", "ssl_mode": "disable", "ca_cert": "/ca", "timeout": 0,
            })),
            [
                "from_addr: found control characters; an address such as `ops@example.com` or `Operations <ops@example.com>` is expected",
                "to_addrs[0]: found the text \"nobody\"; an address such as `ops@example.com` or `Operations <ops@example.com>` is expected",
                "host: found an empty text; the mail server's name is expected",
                "subject: a subject is one line without control characters",
                "password: is of no use without `username`; set that, or leave this out",
                "ca_cert: is of no use with `ssl_mode: disable`; leave one of them out",
                "timeout: found 0; a duration such as `30s` is expected",
            ]
        );
        assert_eq!(
            errors(&json!({"ssl_mode": "tls", "hots": "h"}))[0],
            "from_addr: set `from_addr`: the sender's address, such as `cloudmarker@example.com`"
        );
        let open = json!({"from_addr": "${CM_FROM}", "to_addrs": ["${CM_TO}"], "host": "${CM_HOST}"});
        assert!(check(&open).is_ok());
        assert!(Mailer::new(&open).is_err());
    }
}
