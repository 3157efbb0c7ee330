//! Sign-in at Microsoft Entra ID: tokens of one credential for one service, kept and renewed.
//!
//! `entra` signs in as an application (with a secret, a `certificate`, or a workload's federated token),
//! `managed_identity` asks the machine that this runs on, `azure_cli` asks the tool that a person is logged in to.
//! The cache of tokens is ours: the Azure SDK's asks anew, one caller after the other, for each use of a token that
//! lives for less than five minutes, and forgets no token that was refused.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use azure_core::credentials::Secret as TokenSecret;
use proto::config::Environment;
use proto::config::secret::Secret;
use proto::coverage::State;

use self::azure_cli::AzureCli;
pub(super) use self::certificate::Certificate;
use self::entra::Entra;
use self::managed_identity::ManagedIdentity;
use crate::cloud::WorkError;
use crate::http::{Client, Endpoint};

mod azure_cli;
mod certificate;
mod entra;
mod managed_identity;

/// The longest time for a token.
const PATIENCE: Duration = Duration::from_secs(120);
/// A token is renewed when a quarter of its life is left, at most so long before its end.
const EARLIEST_RENEWAL: Duration = Duration::from_secs(300);
/// How long a final refusal holds, so that units that wait do not all ask, and how long a renewal that failed rests.
const REST: Duration = Duration::from_secs(30);
/// The wait when a sign-in is throttled and nobody says for how long.
const DEFAULT_WAIT: Duration = Duration::from_secs(10);
/// No single wait is longer.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// An application, and the tenant that it signs in to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Application {
    pub(super) tenant: String,
    pub(super) client: String,
}

/// What an application proves itself with.
#[derive(Debug, Clone)]
pub(super) enum Proof {
    Secret(Secret),
    Certificate(Certificate),
    /// The file with a token that Entra ID trusts for the application.
    Federated(PathBuf),
}

/// Which of a machine's managed identities signs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Identity {
    /// The one assigned by the system.
    System,
    /// A user-assigned one, by its client id.
    Client(String),
    /// A user-assigned one, by its object (principal) id.
    Object(String),
    /// A user-assigned one, by its resource id.
    Resource(String),
}

/// What signs in.
#[derive(Debug, Clone)]
pub(super) enum Credential {
    Application(Application, Proof),
    ManagedIdentity { identity: Identity, endpoint: Option<Endpoint> },
    AzureCli { tenant: Option<String> },
}

/// Why a sign-in cannot be prepared on this host.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SignInError(String);

/// Gives out tokens of one credential for one service. Callers share what one of them has asked for.
pub(super) struct SignIn {
    source: Source,
    /// What the tokens are for: `https://management.azure.com/.default`.
    scope: String,
    memory: Mutex<Memory>,
    /// Held by the caller that asks for a token.
    asking: tokio::sync::Mutex<()>,
}

/// Where tokens come from.
#[derive(Debug)]
enum Source {
    Entra(Entra),
    ManagedIdentity(ManagedIdentity),
    AzureCli(AzureCli),
}

/// A token that was given out.
#[derive(Debug, Clone)]
pub(super) struct Token {
    secret: TokenSecret,
    generation: u64,
}

impl Token {
    /// The token, for the header that it is sent in.
    pub(super) fn secret(&self) -> &str {
        self.secret.secret()
    }

    #[cfg(test)]
    pub(super) fn for_test(secret: &'static str) -> Self {
        Self { secret: TokenSecret::new(secret), generation: 0 }
    }
}

/// A token that has just come.
#[derive(Debug)]
struct Fresh {
    secret: TokenSecret,
    /// How long it is good for.
    lifetime: Duration,
}

/// Why no token came.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Failure {
    Throttled { wait: Duration, reason: String },
    Transient(String),
    Final(String),
}

impl Failure {
    fn throttled(wait: Option<Duration>, reason: String) -> Self {
        Self::Throttled { wait: wait.unwrap_or(DEFAULT_WAIT).clamp(Duration::from_secs(1), LONGEST_WAIT), reason }
    }
}

impl From<Failure> for WorkError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Throttled { wait, reason } => Self::Throttled { wait, reason },
            Failure::Transient(reason) => Self::Transient { reason },
            Failure::Final(reason) => Self::NotRead { state: State::Failed, reason },
        }
    }
}

/// A time as two clocks show it: one does not run while the machine sleeps, the other may be set.
#[derive(Debug, Clone, Copy)]
struct Moment {
    steady: Instant,
    wall: SystemTime,
}

impl Moment {
    fn now() -> Self {
        Self { steady: Instant::now(), wall: SystemTime::now() }
    }

    fn after(self, time: Duration) -> Self {
        // Too far away to be a time at all: far enough in the future.
        let time = time.min(Duration::from_secs(365 * 24 * 60 * 60));
        Self { steady: self.steady + time, wall: self.wall + time }
    }

    /// How long it is until this moment, by the clock that says less.
    fn left(self, now: Self) -> Duration {
        let wall = self.wall.duration_since(now.wall).unwrap_or_default();
        self.steady.saturating_duration_since(now.steady).min(wall)
    }
}

/// What is known of the last token.
#[derive(Default)]
struct Memory {
    /// Counts the tokens that were held, and those that were given up.
    generation: u64,
    held: Option<Held>,
    failed: Option<Failed>,
}

struct Held {
    secret: TokenSecret,
    lifetime: Duration,
    expires: Moment,
}

/// The last attempt, if it failed.
struct Failed {
    failure: Failure,
    ended: Instant,
}

impl Memory {
    /// The token, if it has not expired.
    fn valid(&self, now: Moment) -> Option<Token> {
        let held = self.held.as_ref().filter(|held| !held.expires.left(now).is_zero())?;
        Some(Token { secret: held.secret.clone(), generation: self.generation })
    }

    /// The token, if nothing is to be done for it now.
    fn good(&self, now: Moment) -> Option<Token> {
        let rests = self.failed.as_ref().is_some_and(|failed| now.steady.duration_since(failed.ended) < REST);
        let is_due = |held: &Held| held.expires.left(now) <= (held.lifetime / 4).min(EARLIEST_RENEWAL);
        self.valid(now).filter(|_| rests || !self.held.as_ref().is_some_and(is_due))
    }

    /// The failure that holds for a caller who came then: of the attempt that it waited for, or a final one, or one
    /// that asked for a pause.
    fn failure(&self, came: Moment, now: Moment) -> Option<Failure> {
        let Failed { failure, ended } = self.failed.as_ref()?;
        let past = now.steady.saturating_duration_since(*ended);
        match failure {
            Failure::Throttled { wait, reason } if past < *wait => {
                Some(Failure::Throttled { wait: (*wait - past).max(Duration::from_secs(1)), reason: reason.clone() })
            }
            Failure::Final(_) if past < REST => Some(failure.clone()),
            _ => Some(failure.clone()).filter(|_| *ended >= came.steady),
        }
    }

    fn hold(&mut self, fresh: Fresh, asked: Moment) {
        let Fresh { secret, lifetime } = fresh;
        self.generation += 1;
        self.held = Some(Held { secret, lifetime, expires: asked.after(lifetime) });
        self.failed = None;
    }

    fn give_up(&mut self) {
        self.generation += 1;
        self.held = None;
        self.failed = None;
    }
}

impl fmt::Debug for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignIn").field("source", &self.source).field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl SignIn {
    /// Nothing is asked of the network yet, but files and what the environment says of this host are looked at: a
    /// host without them leaves the work to another.
    pub(super) fn new(
        credential: Credential,
        login: Endpoint,
        scope: String,
        http: Client,
    ) -> Result<Self, SignInError> {
        let source = match credential {
            Credential::Application(application, proof) => {
                Source::Entra(Entra::new(application, proof, login, http).map_err(SignInError)?)
            }
            Credential::ManagedIdentity { identity, endpoint } => {
                let environment = Environment::of_process();
                let source = ManagedIdentity::new(identity, endpoint, &environment).map_err(SignInError)?;
                Source::ManagedIdentity(source)
            }
            Credential::AzureCli { tenant } => Source::AzureCli(AzureCli::new(tenant)),
        };
        Ok(Self::of(source, scope))
    }

    fn of(source: Source, scope: String) -> Self {
        Self { source, scope, memory: Mutex::default(), asking: tokio::sync::Mutex::default() }
    }

    /// A token that has not expired.
    pub(super) async fn token(&self) -> Result<Token, WorkError> {
        let came = Moment::now();
        let spare = {
            let memory = self.memory();
            if let Some(token) = memory.good(came) {
                return Ok(token);
            }
            memory.valid(came)
        };
        let _asking = match (self.asking.try_lock(), spare) {
            (Ok(asking), _) => asking,
            // Somebody renews it already.
            (Err(_), Some(token)) => return Ok(token),
            (Err(_), None) => self.asking.lock().await,
        };
        {
            let (memory, now) = (self.memory(), Moment::now());
            if let Some(token) = memory.good(now) {
                return Ok(token);
            }
            if let Some(failure) = memory.failure(came, now) {
                return memory.valid(now).ok_or_else(|| failure.into());
            }
        }
        let asked = Moment::now();
        let answer = self.ask().await;
        let (mut memory, now) = (self.memory(), Moment::now());
        match answer {
            Ok(fresh) => {
                memory.hold(fresh, asked);
                memory
                    .valid(now)
                    .ok_or_else(|| WorkError::Transient { reason: self.reason("the token that came had expired") })
            }
            Err(failure) => {
                memory.failed = Some(Failed { failure: failure.clone(), ended: now.steady });
                memory.valid(now).ok_or_else(|| failure.into())
            }
        }
    }

    /// Another token in place of one that was refused. Whoever comes second gets the one that the first asked for.
    pub(super) async fn replace(&self, refused: &Token) -> Result<Token, WorkError> {
        {
            let mut memory = self.memory();
            if memory.generation == refused.generation {
                memory.give_up();
            }
        }
        self.token().await
    }

    async fn ask(&self) -> Result<Fresh, Failure> {
        let asking = async {
            match &self.source {
                Source::Entra(entra) => entra.token(&self.scope).await,
                Source::ManagedIdentity(identity) => identity.token(&self.scope).await,
                Source::AzureCli(cli) => cli.token(&self.scope).await,
            }
        };
        let answer = tokio::time::timeout(PATIENCE, asking).await;
        let fresh =
            answer.unwrap_or_else(|_| Err(Failure::Transient(self.reason("there was no answer in two minutes"))))?;
        if fresh.secret.secret().is_empty() {
            let why = "the answer holds no token; is it Azure that answers there?";
            return Err(Failure::Final(self.reason(why)));
        }
        if fresh.lifetime.is_zero() {
            return Err(Failure::Transient(
                self.reason("the token that came had expired; is this host's clock right?"),
            ));
        }
        Ok(fresh)
    }

    fn reason(&self, why: &str) -> String {
        match &self.source {
            Source::Entra(entra) => entra.reason(why),
            Source::ManagedIdentity(identity) => identity.reason(why),
            Source::AzureCli(cli) => cli.reason(why),
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
