//! A mail server of a test's own, over real sockets: it records what it takes, and refuses, hangs and hangs up where
//! its script says so.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::certificates::Certificates;

/// How connections are made safe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tls {
    /// From the first byte.
    Implicit,
    /// When the client asks for it.
    Starttls,
    /// Never.
    #[default]
    None,
}

/// What a server does that is not what clients hope for. Verbs are `GREETING`, `EHLO`, `STARTTLS`, `AUTH`, `MAIL`,
/// `RCPT`, `DATA`, `MESSAGE` (the text behind DATA) and `QUIT`.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// How connections are made safe.
    pub tls: Tls,
    /// Who may log in. Then nobody else may send.
    pub user: Option<(&'static str, &'static str)>,
    /// Receivers that are refused: with what, and how often (`None`: always).
    pub refuse: BTreeMap<&'static str, (&'static str, Option<usize>)>,
    /// What is answered to a verb instead, and how often.
    pub answer: BTreeMap<&'static str, (&'static str, usize)>,
    /// The verb that is never answered.
    pub hang_at: Option<&'static str>,
    /// The verb at which the connection ends, before it is answered, and how often.
    pub hang_up_at: Option<(&'static str, usize)>,
}

/// A mail that was taken.
#[derive(Debug, Clone)]
pub struct Mail {
    /// The sender.
    pub from: String,
    /// The receivers.
    pub to: Vec<String>,
    /// The message, headers and all.
    pub text: String,
    /// Who sent it.
    pub user: Option<String>,
    /// Whether it came over TLS.
    pub is_safe: bool,
}

impl Mail {
    /// A header's value, its lines joined.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        let head = self.text.split("\r\n\r\n").next().unwrap_or_default().replace("\r\n ", " ");
        let prefix = format!("{name}: ");
        head.lines().find_map(|line| line.strip_prefix(&prefix).map(str::to_owned))
    }
}

#[derive(Debug, Default)]
struct Shared {
    script: Script,
    mails: Vec<Mail>,
    verbs: Vec<String>,
}

/// The server. Dropped, it ends.
#[derive(Debug)]
pub struct SmtpServer {
    port: u16,
    state: Arc<Mutex<Shared>>,
    changed: Arc<Notify>,
    listener: JoinHandle<()>,
    folder: TempDir,
}

impl Drop for SmtpServer {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl SmtpServer {
    /// Starts one.
    ///
    /// # Errors
    /// When it cannot listen, or there can be no certificate.
    pub async fn start(script: Script) -> Result<Self> {
        Self::listen(script, &Certificates::generate()?).await
    }

    /// Starts one that shows the certificate of another server (`elsewhere.test`), signed by whom a client trusts.
    ///
    /// # Errors
    /// As [`SmtpServer::start`].
    pub async fn start_as_another(script: Script) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec!["elsewhere.test".to_owned()])?;
        let certificates = Certificates {
            authority: made.cert.pem(),
            certificate: made.cert.der().to_vec(),
            key: made.signing_key.serialize_der(),
            ..Certificates::generate()?
        };
        Self::listen(script, &certificates).await
    }

    async fn listen(script: Script, certificates: &Certificates) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("ca.pem"), &certificates.authority)?;
        std::fs::write(folder.path().join("other.pem"), &certificates.other)?;
        let acceptor = TlsAcceptor::from(Arc::new(tls(certificates)?));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(Mutex::new(Shared { script, ..Shared::default() }));
        let changed = Arc::new(Notify::new());
        let session = Session { state: Arc::clone(&state), changed: Arc::clone(&changed), acceptor };
        let listener = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let session = session.clone();
                // A client that hangs up in mid-sentence is no error of the server's.
                tokio::spawn(async move { drop(session.serve(stream).await) });
            }
        });
        Ok(Self { port, state, changed, listener, folder })
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whom to trust.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// One of the same name that has not signed the certificate.
    #[must_use]
    pub fn other_ca_file(&self) -> PathBuf {
        self.folder.path().join("other.pem")
    }

    /// Replaces the script.
    pub fn rewrite(&self, script: Script) {
        lock(&self.state).script = script;
    }

    /// The mails that were taken.
    #[must_use]
    pub fn mails(&self) -> Vec<Mail> {
        lock(&self.state).mails.clone()
    }

    /// The verbs that were said, in order.
    #[must_use]
    pub fn verbs(&self) -> Vec<String> {
        lock(&self.state).verbs.clone()
    }

    /// Waits until a verb has been said so often.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn wait_for(&self, verb: &str, times: usize, patience: Duration) -> Result<()> {
        let said = async {
            loop {
                let mut changed = std::pin::pin!(self.changed.notified());
                changed.as_mut().enable();
                if self.verbs().iter().filter(|said| *said == verb).count() >= times {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(patience, said).await.with_context(|| format!("no {verb}: {:?}", self.verbs()))
    }
}

fn tls(certificates: &Certificates) -> Result<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certificates.key.clone()));
    Ok(ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(certificates.certificate.clone())], key)?)
}

fn lock(state: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Clone)]
struct Session {
    state: Arc<Mutex<Shared>>,
    changed: Arc<Notify>,
    acceptor: TlsAcceptor,
}

/// What a script has for a verb.
enum Instead {
    Nothing,
    Answer(String),
    HangUp,
}

/// How a conversation ends.
enum End<S> {
    Over,
    /// The client asks for TLS.
    Upgrade(S),
}

impl Session {
    async fn serve(self, stream: TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        let mode = lock(&self.state).script.tls;
        if mode == Tls::Implicit {
            let stream = self.acceptor.accept(stream).await?;
            self.converse(stream, true, true).await?;
            return Ok(());
        }
        if let End::Upgrade(stream) = self.converse(stream, false, true).await? {
            let stream = self.acceptor.accept(stream).await?;
            self.converse(stream, true, false).await?;
        }
        Ok(())
    }

    /// What the script has for a verb. One that is never answered is not come back from.
    async fn instead(&self, verb: &'static str) -> Instead {
        let instead = {
            let mut state = lock(&self.state);
            state.verbs.push(verb.to_owned());
            if state.script.hang_at == Some(verb) {
                None
            } else if let Some((_, left)) =
                state.script.hang_up_at.as_mut().filter(|(at, left)| *at == verb && *left > 0)
            {
                *left -= 1;
                Some(Instead::HangUp)
            } else if let Some((text, left)) = state.script.answer.get_mut(verb).filter(|(_, left)| *left > 0) {
                *left -= 1;
                Some(Instead::Answer((*text).to_owned()))
            } else {
                Some(Instead::Nothing)
            }
        };
        self.changed.notify_waiters();
        match instead {
            Some(instead) => instead,
            None => std::future::pending().await,
        }
    }

    fn receiver(&self, to: &str) -> Option<String> {
        let mut state = lock(&self.state);
        let (text, left) = state.script.refuse.get_mut(to)?;
        match left {
            None => Some((*text).to_owned()),
            Some(0) => None,
            Some(left) => {
                *left -= 1;
                Some((*text).to_owned())
            }
        }
    }

    async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        is_safe: bool,
        greets: bool,
    ) -> Result<End<S>> {
        let mut stream = BufReader::new(stream);
        if greets {
            match self.instead("GREETING").await {
                Instead::Nothing => say(&mut stream, "220 recorder.test ESMTP").await?,
                Instead::Answer(text) => say(&mut stream, &text).await?,
                Instead::HangUp => return Ok(End::Over),
            }
        }
        let (mut user, mut from, mut to) = (None, None, Vec::new());
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(End::Over);
            }
            let line = line.trim_end();
            let verb = match line.split(' ').next().unwrap_or_default().to_ascii_uppercase().as_str() {
                "EHLO" | "HELO" => "EHLO",
                "STARTTLS" => "STARTTLS",
                "AUTH" => "AUTH",
                "MAIL" => "MAIL",
                "RCPT" => "RCPT",
                "DATA" => "DATA",
                "QUIT" => "QUIT",
                _ => "OTHER",
            };
            match self.instead(verb).await {
                Instead::Nothing => {}
                Instead::Answer(text) => {
                    say(&mut stream, &text).await?;
                    continue;
                }
                Instead::HangUp => return Ok(End::Over),
            }
            let (mode, login) = {
                let state = lock(&self.state);
                (state.script.tls, state.script.user)
            };
            let may_send = login.is_none() || user.is_some();
            let answer = match verb {
                "EHLO" => {
                    let starttls = if mode == Tls::Starttls && !is_safe { "250-STARTTLS\r\n" } else { "" };
                    let auth =
                        if login.is_some() && (is_safe || mode == Tls::None) { "250-AUTH PLAIN LOGIN\r\n" } else { "" };
                    format!("250-recorder.test\r\n{starttls}{auth}250 8BITMIME")
                }
                "STARTTLS" if mode == Tls::Starttls && !is_safe => {
                    say(&mut stream, "220 go on").await?;
                    anyhow::ensure!(stream.buffer().is_empty(), "more behind STARTTLS");
                    return Ok(End::Upgrade(stream.into_inner()));
                }
                "AUTH" => match (credentials(line), login) {
                    (Some((name, password)), Some(known)) if known == (name.as_str(), password.as_str()) => {
                        user = Some(name);
                        "235 welcome".to_owned()
                    }
                    _ => "535 5.7.8 authentication credentials invalid".to_owned(),
                },
                "MAIL" if may_send => {
                    (from, to) = (Some(address(line)), Vec::new());
                    "250 fine".to_owned()
                }
                "MAIL" => "530 5.7.0 authentication required".to_owned(),
                "RCPT" if from.is_some() => {
                    let address = address(line);
                    match self.receiver(&address) {
                        Some(refusal) => refusal,
                        None => {
                            to.push(address);
                            "250 fine".to_owned()
                        }
                    }
                }
                "DATA" if !to.is_empty() => {
                    say(&mut stream, "354 go on").await?;
                    let text = read_message(&mut stream).await?;
                    let mail = Mail {
                        from: from.take().unwrap_or_default(),
                        to: std::mem::take(&mut to),
                        text,
                        user: user.clone(),
                        is_safe,
                    };
                    // It is taken before anything is answered: whoever is killed now does not know it.
                    let refused = lock(&self.state).script.answer.get("MESSAGE").is_some_and(|(_, left)| *left > 0);
                    if !refused {
                        lock(&self.state).mails.push(mail);
                    }
                    match self.instead("MESSAGE").await {
                        Instead::Nothing => "250 taken".to_owned(),
                        Instead::Answer(text) => text,
                        Instead::HangUp => return Ok(End::Over),
                    }
                }
                "QUIT" => {
                    say(&mut stream, "221 bye").await?;
                    return Ok(End::Over);
                }
                _ => "503 5.5.1 bad sequence of commands".to_owned(),
            };
            say(&mut stream, &answer).await?;
        }
    }
}

async fn say<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufReader<S>, text: &str) -> Result<()> {
    stream.get_mut().write_all(format!("{text}\r\n").as_bytes()).await?;
    Ok(stream.get_mut().flush().await?)
}

/// The message up to the lonely full stop.
async fn read_message<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) -> Result<String> {
    let mut text = String::new();
    loop {
        let mut line = Vec::new();
        anyhow::ensure!(stream.read_until(b'\n', &mut line).await? > 0, "the message ends too early");
        let line = String::from_utf8(line).context("8-bit text without its announcement")?;
        anyhow::ensure!(line.ends_with("\r\n") && line.len() <= 1000, "no line of a message: {line:?}");
        if line == ".\r\n" {
            return Ok(text);
        }
        text.push_str(line.strip_prefix('.').unwrap_or(&line));
    }
}

fn address(line: &str) -> String {
    line.split('<').nth(1).and_then(|rest| rest.split('>').next()).unwrap_or_default().to_owned()
}

fn credentials(line: &str) -> Option<(String, String)> {
    let encoded = line.strip_prefix("AUTH PLAIN ")?;
    let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let mut parts = decoded.split('\0').skip(1);
    Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
}
