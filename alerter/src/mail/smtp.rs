//! A session with a mail server: every step bounded in time, each receiver told apart.

use std::error::Error as _;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use lettre::Address;
use lettre::message::Mailbox;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailParameter};
use lettre::transport::smtp::response::Response;
use proto::config::secret::Secret;

use super::SslMode;
use crate::readable::line;

/// A mail server, and how it is spoken to.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) mode: SslMode,
    pub(super) login: Option<(String, Secret)>,
    pub(super) ca_cert: Option<PathBuf>,
    pub(super) timeout: Duration,
    pub(super) debug: bool,
}

impl Server {
    pub(super) fn is_on_this_host(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost")
            || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the mail server {}:{}", self.host, self.port)
    }
}

/// Why nobody has the mail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    /// No other try can help.
    #[error("{0}")]
    Permanent(String),
    /// It may go well later.
    #[error("{0}")]
    Transient(String),
}

/// A receiver that the server refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The receiver.
    pub to: Mailbox,
    /// Whether no other try can help.
    pub is_permanent: bool,
    /// What the server said.
    pub reason: String,
}

/// What became of a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sent {
    /// Who has it.
    pub taken: Vec<Mailbox>,
    /// Who has not.
    pub refused: Vec<Refusal>,
}

/// How long the server may take for a message, on top of a step's time: for each MiB.
const EACH_MIB: Duration = Duration::from_secs(20);
/// How long the server may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(3);

/// Why a step failed.
enum StepError {
    Smtp(Error),
    TimedOut(Duration),
}

pub(super) async fn send(server: &Server, from: &Address, to: &[Mailbox], message: &[u8]) -> Result<Sent, MailError> {
    let mut session = Session::open(server).await?;
    let sent = session.send(from, to, message).await;
    session.close().await;
    sent
}

struct Session<'a> {
    server: &'a Server,
    connection: AsyncSmtpConnection,
}

impl<'a> Session<'a> {
    async fn open(server: &'a Server) -> Result<Self, MailError> {
        let hello = ClientId::Domain(hello_name());
        let tls = match server.mode {
            SslMode::Disable => None,
            SslMode::Ssl | SslMode::Starttls => Some(tls(server).await?),
        };
        let at_once = tls.clone().filter(|_| server.mode == SslMode::Ssl);
        let address = (server.host.as_str(), server.port);
        let connecting = AsyncSmtpConnection::connect_tokio1(address, Some(server.timeout), &hello, at_once, None);
        let connection = within(server.timeout, connecting).await;
        let connection = connection.map_err(|error| explain_connecting(server, error))?;
        let mut session = Self { server, connection };
        session.note("EHLO", None);
        if let Some(tls) = tls.filter(|_| server.mode == SslMode::Starttls) {
            session.start_tls(tls, &hello).await?;
        }
        session.log_in().await?;
        Ok(session)
    }

    async fn start_tls(&mut self, tls: TlsParameters, hello: &ClientId) -> Result<(), MailError> {
        // Nothing goes on in plain text when the server, or somebody in between, does not offer it.
        if !self.connection.can_starttls() {
            return Err(MailError::Permanent(format!(
                "{} does not offer STARTTLS; for TLS from the first byte set `ssl_mode: ssl`, for none at all \
                 `ssl_mode: disable`",
                self.server
            )));
        }
        within(self.server.timeout, self.connection.starttls(tls, hello))
            .await
            .map_err(|error| self.explain("STARTTLS", error))?;
        self.note("STARTTLS", None);
        Ok(())
    }

    async fn log_in(&mut self) -> Result<(), MailError> {
        let Some((username, password)) = &self.server.login else { return Ok(()) };
        let info = self.connection.server_info();
        if DEFAULT_MECHANISMS.iter().all(|mechanism| !info.supports_auth_mechanism(*mechanism)) {
            let hint = match self.server.mode {
                SslMode::Disable => "; servers mostly take passwords over TLS alone: set `ssl_mode`",
                SslMode::Ssl | SslMode::Starttls => "",
            };
            return Err(MailError::Permanent(format!(
                "{} takes no password (AUTH PLAIN or LOGIN is not offered); leave `username` out{hint}",
                self.server
            )));
        }
        let credentials = Credentials::new(username.clone(), password.expose().to_owned());
        let auth = self.connection.auth(DEFAULT_MECHANISMS, &credentials);
        match within(self.server.timeout, auth).await {
            Ok(response) => {
                self.note("AUTH", Some(&response));
                Ok(())
            }
            Err(StepError::Smtp(error)) if error.is_permanent() => Err(MailError::Permanent(format!(
                "{} refuses the login of {}: {}; check `username` and `password`",
                self.server,
                line(username),
                said(&error)
            ))),
            Err(error) => Err(self.explain("AUTH", error)),
        }
    }

    async fn send(&mut self, from: &Address, to: &[Mailbox], message: &[u8]) -> Result<Sent, MailError> {
        let international = Extension::SmtpUtfEight;
        let has_international = self.connection.server_info().supports_feature(international);
        let is_plain = |address: &Address| AsRef::<str>::as_ref(address).is_ascii();
        let mut options = Vec::new();
        if has_international && !(is_plain(from) && to.iter().all(|to| is_plain(&to.email))) {
            options.push(MailParameter::SmtpUtfEight);
        }
        let mail = self.connection.command(Mail::new(Some(from.clone()), options));
        match within(self.server.timeout, mail).await {
            Ok(response) => self.note("MAIL", Some(&response)),
            Err(StepError::Smtp(error)) if error.is_permanent() => {
                return Err(MailError::Permanent(format!(
                    "{} refuses the sender {from}: {}",
                    self.server,
                    said(&error)
                )));
            }
            Err(error) => return Err(self.explain("MAIL", error)),
        }
        let mut sent = Sent::default();
        for to in to {
            if !is_plain(&to.email) && !has_international {
                let reason = "the server takes ASCII addresses alone".to_owned();
                sent.refused.push(Refusal { to: to.clone(), is_permanent: true, reason });
                continue;
            }
            let rcpt = self.connection.command(Rcpt::new(to.email.clone(), Vec::new()));
            match within(self.server.timeout, rcpt).await {
                Ok(response) => {
                    self.note("RCPT", Some(&response));
                    sent.taken.push(to.clone());
                }
                // 421: the server closes the session.
                Err(StepError::Smtp(error)) if error.status().is_some() && !is_closing(&error) => {
                    let refusal = Refusal { to: to.clone(), is_permanent: error.is_permanent(), reason: said(&error) };
                    sent.refused.push(refusal);
                }
                Err(error) => return Err(self.explain("RCPT", error)),
            }
        }
        if sent.taken.is_empty() {
            return Ok(sent);
        }
        let data = self.connection.command(Data);
        within(self.server.timeout, data).await.map_err(|error| self.explain("DATA", error))?;
        let mib = u32::try_from(message.len() / (1024 * 1024) + 1).unwrap_or(u32::MAX);
        let time = self.server.timeout + EACH_MIB.saturating_mul(mib);
        match within(time, self.connection.message(message)).await {
            Ok(response) => self.note("DATA", Some(&response)),
            Err(error) => return Err(self.explain("the message", error)),
        }
        Ok(sent)
    }

    async fn close(mut self) {
        // What was said is said: how the server takes leave does not matter.
        let _ = tokio::time::timeout(GOODBYE, self.connection.quit()).await;
    }

    fn explain(&self, step: &str, error: StepError) -> MailError {
        let server = self.server;
        match error {
            StepError::TimedOut(time) => {
                MailError::Transient(format!("{server} does not answer to {step} within {} s", time.as_secs()))
            }
            StepError::Smtp(error) => match trust(server, &error) {
                Some(reason) => MailError::Permanent(reason),
                None if error.is_permanent() => {
                    MailError::Permanent(format!("{server} refuses {step}: {}", said(&error)))
                }
                None => MailError::Transient(format!("{server}, at {step}: {}", said(&error))),
            },
        }
    }

    /// With `debug`, what is said is logged; passwords and messages are not.
    fn note(&self, step: &str, response: Option<&Response>) {
        if self.server.debug {
            let said = response
                .map(|response| format!("{} {}", response.code(), line(response.first_line().unwrap_or_default())));
            tracing::info!(server = %self.server, step, answer = said.as_deref().unwrap_or("as expected"), "SMTP");
        }
    }
}

async fn within<T>(time: Duration, step: impl Future<Output = Result<T, Error>>) -> Result<T, StepError> {
    match tokio::time::timeout(time, step).await {
        Ok(done) => done.map_err(StepError::Smtp),
        Err(_) => Err(StepError::TimedOut(time)),
    }
}

fn is_closing(error: &Error) -> bool {
    error.status().is_some_and(|code| u16::from(code) == 421)
}

fn explain_connecting(server: &Server, error: StepError) -> MailError {
    let hint = match server.mode {
        SslMode::Ssl => "",
        // A server that waits for TLS says nothing.
        SslMode::Starttls | SslMode::Disable => "; if the port speaks TLS from the first byte, set `ssl_mode: ssl`",
    };
    match error {
        StepError::TimedOut(time) => {
            MailError::Transient(format!("{server} does not answer within {} s{hint}", time.as_secs()))
        }
        StepError::Smtp(error) => match trust(server, &error) {
            Some(reason) => MailError::Permanent(reason),
            None if error.is_permanent() => MailError::Permanent(format!("{server} turns us away: {}", said(&error))),
            None => MailError::Transient(format!("cannot speak to {server}: {}", said(&error))),
        },
    }
}

/// What is wrong with the server's TLS, when that is the trouble: waiting does not mend it.
fn trust(server: &Server, error: &Error) -> Option<String> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = error.source();
    while let Some(inner) = cause {
        let io = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = inner
            .downcast_ref::<rustls::Error>()
            .or_else(|| io.and_then(|inner| inner.downcast_ref::<rustls::Error>()));
        match tls {
            Some(rustls::Error::InvalidCertificate(_)) => {
                let reason = line(&tls.map(ToString::to_string).unwrap_or_default());
                return Some(format!(
                    "the certificate of {server} is not to be trusted: {reason}; check `host`, or name the CA's \
                     file in `ca_cert`"
                ));
            }
            Some(rustls::Error::InvalidMessage(_)) => {
                return Some(format!(
                    "{server} does not speak TLS from the first byte; set `ssl_mode: starttls`, or another `port`"
                ));
            }
            _ => cause = inner.source(),
        }
    }
    None
}

/// What the server said, in one line.
fn said(error: &Error) -> String {
    let text = match (error.status(), error.source()) {
        (Some(code), Some(said)) => format!("{code} {said}"),
        (Some(code), None) => code.to_string(),
        (None, Some(cause)) => {
            let deeper = cause.source().map(|deeper| format!(": {deeper}")).unwrap_or_default();
            format!("{cause}{deeper}")
        }
        (None, None) => error.to_string(),
    };
    line(&text)
}

async fn tls(server: &Server) -> Result<TlsParameters, MailError> {
    let mut builder = TlsParameters::builder(server.host.clone());
    if let Some(path) = &server.ca_cert {
        let unusable = |reason: String| MailError::Permanent(format!("`ca_cert` {}: {reason}", path.display()));
        let pem = tokio::fs::read(path).await.map_err(|error| unusable(error.to_string()))?;
        let certificate = Certificate::from_pem(&pem).map_err(|error| unusable(error.to_string()))?;
        if !pem.windows(5).any(|window| window == b"BEGIN") {
            return Err(unusable("it holds no certificate in PEM form".to_owned()));
        }
        // Who names a CA trusts that one and no other.
        builder = builder.certificate_store(CertificateStore::None).add_root_certificate(certificate);
    }
    builder.build().map_err(|error| MailError::Permanent(format!("cannot set up TLS for {server}: {}", said(&error))))
}

/// The name that the server is greeted with: letters that a name may have.
fn hello_name() -> String {
    let name = proto::service::host_name();
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
    };
    if is_name(&name) { name } else { "localhost".to_owned() }
}
