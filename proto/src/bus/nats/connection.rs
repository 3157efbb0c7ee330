//! Connections to the broker: made with patience, watched, and made again.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use async_nats::connection::State;
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr};
use tokio::sync::watch;
use tokio::time::timeout_at;

use super::backoff::Backoff;
use super::options::{NatsCredentials, NatsOptions};
use crate::bus::{BusError, BusErrorKind};

/// How often a person is told that the broker is waited for.
const REMINDER: Duration = Duration::from_secs(5);

/// For how long what the broker said is taken for the reason of what goes wrong.
const RECENT: Duration = Duration::from_secs(90);

/// The longest wait between two attempts to connect.
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(1);

/// Whether the bus reaches its broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionState {
    /// All connections stand.
    Connected,
    /// A connection is lost; it is being made again.
    Disconnected,
}

/// What is told of changes of the state.
pub(super) type OnState = dyn Fn(ConnectionState) + Send + Sync;

/// A connection that is made again whenever it is lost.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub(super) client: Client,
    /// How often the connection was made again.
    epoch: watch::Receiver<u64>,
    health: Arc<Health>,
}

impl Connection {
    /// Connects, and tries again until `deadline`, or for ever without one.
    pub(super) async fn open(
        options: &NatsOptions,
        purpose: &str,
        health: &Arc<Health>,
        deadline: Option<Instant>,
    ) -> Result<Self, BusError> {
        let servers = addresses(options)?;
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let mut reminded: Option<Instant> = None;
        loop {
            let reason = match Self::try_open(options, purpose, servers.clone(), health).await {
                Ok(connection) => return Ok(connection),
                Err(error) if error.kind() == BusErrorKind::Unavailable => error,
                Err(error) => return Err(error),
            };
            let delay = backoff.next();
            if deadline.is_some_and(|deadline| Instant::now() + delay >= deadline) {
                return Err(reason);
            }
            if reminded.is_none_or(|last| last.elapsed() >= REMINDER) {
                tracing::warn!("waiting for the broker at {}: {reason}", options.display_servers());
                reminded = Some(Instant::now());
            }
            tokio::time::sleep(delay).await;
        }
    }

    async fn try_open(
        options: &NatsOptions,
        purpose: &str,
        servers: Vec<ServerAddr>,
        health: &Arc<Health>,
    ) -> Result<Self, BusError> {
        let (epochs, epoch) = watch::channel(0);
        let follower = Arc::new(Follower { epochs, lost: Mutex::new(false), health: health.clone() });
        let connect = prepare(options)
            .await?
            .name(format!("{} {purpose}", options.name))
            .reconnect_delay_callback(reconnect_delay)
            .event_callback(move |event| {
                follower.follow(event);
                std::future::ready(())
            });
        let client = connect.connect(servers).await.map_err(|error| connect_error(options, &error))?;
        Ok(Self { client, epoch, health: health.clone() })
    }

    pub(super) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Tells when the connection was lost and made again after this call.
    pub(super) fn watch_epoch(&self) -> watch::Receiver<u64> {
        let mut epoch = self.epoch.clone();
        epoch.mark_unchanged();
        epoch
    }

    /// Waits until the connection stands; `false` when it does not by the deadline.
    pub(super) async fn wait_connected(&self, deadline: tokio::time::Instant) -> bool {
        while !self.is_connected() {
            if tokio::time::Instant::now() >= deadline {
                return false;
            }
            let mut epoch = self.watch_epoch();
            // The state changes a little before the epoch does: look again in between.
            let again = deadline.min(tokio::time::Instant::now() + Duration::from_millis(100));
            let _ = timeout_at(again, epoch.changed()).await;
        }
        true
    }

    /// What the broker has lately complained about, as a clause for a message.
    pub(super) fn recent_complaint(&self) -> String {
        self.health.recent_complaint()
    }
}

/// Waits until the connection was lost and made again.
pub(super) async fn reconnected(epoch: &mut watch::Receiver<u64>) {
    if epoch.changed().await.is_err() {
        // The client is closed; whoever waits has other reasons to go on.
        std::future::pending::<()>().await;
    }
}

/// The state of all connections of a bus together.
pub(super) struct Health {
    lost: Mutex<usize>,
    on_state: Box<OnState>,
    complaint: Mutex<Option<(Instant, String)>>,
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health").field("lost", &self.lost).finish_non_exhaustive()
    }
}

impl Health {
    pub(super) fn new(on_state: Box<OnState>) -> Self {
        Self { lost: Mutex::new(0), on_state, complaint: Mutex::new(None) }
    }

    pub(super) fn tell(&self, state: ConnectionState) {
        (self.on_state)(state);
    }

    fn recent_complaint(&self) -> String {
        match &*self.complaint.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((when, text)) if when.elapsed() < RECENT => format!("; the broker lately said: {text}"),
            _ => String::new(),
        }
    }

    fn connection_lost(&self) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        *lost += 1;
        if *lost == 1 {
            self.tell(ConnectionState::Disconnected);
        }
    }

    fn connection_back(&self) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        *lost = lost.saturating_sub(1);
        if *lost == 0 {
            self.tell(ConnectionState::Connected);
        }
    }
}

/// Follows the events of one connection.
struct Follower {
    epochs: watch::Sender<u64>,
    lost: Mutex<bool>,
    health: Arc<Health>,
}

impl Follower {
    fn follow(&self, event: Event) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Disconnected if !*lost => {
                *lost = true;
                tracing::warn!("the connection to the broker is lost; connecting again");
                self.health.connection_lost();
            }
            Event::Connected if *lost => {
                *lost = false;
                tracing::info!("the connection to the broker is back");
                self.epochs.send_modify(|epoch| *epoch += 1);
                self.health.connection_back();
            }
            Event::ServerError(error) => {
                tracing::warn!(%error, "the broker complains");
                let complaint = Some((Instant::now(), error.to_string()));
                *self.health.complaint.lock().unwrap_or_else(PoisonError::into_inner) = complaint;
            }
            Event::SlowConsumer(_) => tracing::warn!("messages of the broker were dropped: this program is too slow"),
            Event::ClientError(error) => tracing::debug!(%error, "cannot connect to the broker yet"),
            _ => {}
        }
    }
}

fn reconnect_delay(attempts: usize) -> Duration {
    let exponent = u32::try_from(attempts).unwrap_or(u32::MAX).min(10);
    Duration::from_millis(2_u64.saturating_pow(exponent)).min(MAX_RECONNECT_DELAY)
}

fn addresses(options: &NatsOptions) -> Result<Vec<ServerAddr>, BusError> {
    options
        .servers
        .iter()
        .map(|server| {
            server.parse().map_err(|error| {
                let servers = options.display_servers();
                let message =
                    format!("{servers}: not the address of a NATS server: {error}; it looks like nats://host:4222");
                BusError::new(BusErrorKind::Mismatch, message)
            })
        })
        .collect()
}

async fn prepare(options: &NatsOptions) -> Result<ConnectOptions, BusError> {
    let connect = ConnectOptions::new();
    let connect = match &options.credentials {
        NatsCredentials::None => connect,
        NatsCredentials::File(path) => connect.credentials_file(path).await.map_err(|error| {
            let message = format!("the credentials file {} cannot be used: {error}", path.display());
            BusError::new(BusErrorKind::Refused, message)
        })?,
        NatsCredentials::Password { user, password } => connect.user_and_password(user.clone(), password.clone()),
        NatsCredentials::Token(token) => connect.token(token.clone()),
    };
    let connect = match &options.tls_ca {
        Some(path) => connect.add_root_certificates(path.clone()).require_tls(true),
        None => connect,
    };
    Ok(match &options.tls_identity {
        Some((certificate, key)) => connect.add_client_certificate(certificate.clone(), key.clone()).require_tls(true),
        None => connect,
    })
}

fn connect_error(options: &NatsOptions, error: &async_nats::ConnectError) -> BusError {
    let servers = options.display_servers();
    match error.kind() {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => BusError::new(
            BusErrorKind::Refused,
            format!("the broker at {servers} refuses the credentials ({error}): check user, password, token or file"),
        ),
        ConnectErrorKind::ServerParse => {
            BusError::new(BusErrorKind::Mismatch, format!("{servers}: not the address of a NATS server: {error}"))
        }
        _ => BusError::new(BusErrorKind::Unavailable, format!("cannot connect to {servers}: {error}")),
    }
}
