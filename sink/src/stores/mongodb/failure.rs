//! What went wrong, in plain sentences, and whether it may pass.

use std::sync::{Arc, Mutex, PoisonError};

use mongodb::ServerType;
use mongodb::error::{Error, ErrorKind};
use mongodb::event::EventHandler;
use mongodb::event::sdam::SdamEvent;

use super::params::Connection;
use crate::store::StoreError;

/// What the driver saw of the servers in the background: its own error after a vain wait does not say it.
#[derive(Debug, Clone, Default)]
pub(super) struct Watch(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    failure: Option<String>,
    no_primary: bool,
}

impl Watch {
    pub(super) fn handler(&self) -> EventHandler<SdamEvent> {
        let seen = Arc::clone(&self.0);
        EventHandler::callback(move |event| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                SdamEvent::ServerHeartbeatFailed(event) => {
                    seen.failure = Some(format!("{}: {}", event.server_address, reason(&event.failure)));
                }
                SdamEvent::ServerHeartbeatSucceeded(_) => seen.failure = None,
                SdamEvent::TopologyDescriptionChanged(event) => {
                    // The driver's type of the whole lags behind what it knows of its members.
                    let members = event.new_description.servers();
                    seen.no_primary = event.new_description.set_name().is_some()
                        && members.values().all(|member| member.server_type() != ServerType::RsPrimary);
                }
                _ => {}
            }
        })
    }

    fn explain(&self, connection: &Connection) -> StoreError {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &seen.failure {
            Some(failure) if failure.contains("invalid peer certificate") => permanent(format!(
                "{failure}; set `ca_cert` to the file of the authority that has signed the certificate"
            )),
            Some(failure) if failure.contains("failed to lookup") => {
                transient(format!("there is no such host: {failure}; check `host`, or the names in `uri`"))
            }
            Some(failure) if wants_other_tls(failure) => {
                let hint = if connection.encrypted() { "no `tls`" } else { "`tls: true`" };
                transient(format!("{failure}: the connection was broken off; perhaps the server wants {hint}"))
            }
            Some(failure) => transient(format!("no MongoDB server can be reached: {failure}")),
            None if seen.no_primary => transient(format!(
                "no member of the replica set at {connection} is primary at the moment, so that none takes writes"
            )),
            None => transient(format!("none of the servers at {connection} takes writes at the moment")),
        }
    }
}

/// How a server or client shows that one of them speaks TLS and the other does not.
fn wants_other_tls(failure: &str) -> bool {
    ["unexpected end of file", "end of file", "Connection reset", "corrupt message", "InvalidContentType"]
        .iter()
        .any(|sign| failure.contains(sign))
}

fn transient(reason: String) -> StoreError {
    StoreError::Transient { reason, wait: None }
}

fn permanent(reason: String) -> StoreError {
    StoreError::Permanent(reason)
}

/// The driver's error without its labels and the like.
pub(super) fn reason(error: &Error) -> String {
    match &*error.kind {
        ErrorKind::Command(command) => format!("{} (code {})", command.message, command.code),
        ErrorKind::Io(error) => error.to_string(),
        kind => kind.to_string(),
    }
}

/// What an error of a command means for all of its documents.
pub(super) fn of_command(error: &Error, connection: &Connection, watch: &Watch) -> StoreError {
    match &*error.kind {
        ErrorKind::ServerSelection { .. } => watch.explain(connection),
        ErrorKind::Authentication { .. } => match behind(error) {
            // A server that starts or stops breaks off sign-ins, too.
            Some(ErrorKind::Command(command)) if command.code != WRONG_PASSWORD => {
                of_code(command.code, &reason(error), connection)
            }
            Some(ErrorKind::Io(_)) => transient(format!("{connection}: {}", reason(error))),
            _ => permanent(sign_in(connection, &reason(error))),
        },
        ErrorKind::Command(command) => of_code(command.code, &reason(error), connection),
        ErrorKind::InvalidArgument { .. } | ErrorKind::InvalidTlsConfig { .. } => {
            permanent(format!("cannot connect to {connection}: {}", reason(error)))
        }
        ErrorKind::IncompatibleServer { .. } => permanent(format!("{connection}: {}", reason(error))),
        _ => transient(format!("{connection}: {}", reason(error))),
    }
}

const WRONG_PASSWORD: i32 = 18;

/// The driver's error that is behind another.
fn behind(error: &Error) -> Option<&ErrorKind> {
    let source = std::error::Error::source(error)?.downcast_ref::<Error>()?;
    Some(&source.kind)
}

fn sign_in(connection: &Connection, reason: &str) -> String {
    let user = connection.user.as_deref().unwrap_or_default();
    format!(
        "{connection} refuses to sign in the user {user:?}: {reason}; check `username`, `password` and `auth_source` \
         (the database that knows the user)"
    )
}

/// What an error code of a whole command means.
pub(super) fn of_code(code: i32, reason: &str, connection: &Connection) -> StoreError {
    let (db, collection) = (&connection.db, &connection.collection);
    match code {
        13 if connection.user.is_none() => {
            permanent(format!("{connection} asks for a sign-in: {reason}; set `username` and `password`"))
        }
        13 => permanent(format!(
            "{connection} does not let the user {:?} write to {db}.{collection}: {reason}; grant the role `readWrite` \
             on the database {db:?}",
            connection.user.as_deref().unwrap_or_default()
        )),
        WRONG_PASSWORD => permanent(sign_in(connection, reason)),
        10_107 | 13_435 | 10_058 => transient(format!(
            "{connection} is not primary and takes no writes: {reason}; give all members of the replica set in `uri`"
        )),
        // Too large, too deep or not BSON: one of the documents is to blame.
        15 | 22 | 10_334 => StoreError::TooLarge(reason.to_owned()),
        100 | 79 => permanent(format!("the write concern cannot be met: {reason}; check `write_concern`")),
        // The command or the name is wrong: bad values, unknown commands and options, names, views.
        2 | 9 | 14 | 20 | 26 | 40 | 59 | 72 | 73 | 166 | 303 | 40_415 => {
            permanent(format!("{connection} refuses to write to {db}.{collection}: {reason}"))
        }
        // Servers that start, stop or elect have many more codes than a list knows: patience ends what does not pass.
        _ => transient(format!("{connection}: {reason}")),
    }
}

/// Whether what is said of one document is of the moment: elections, shutdowns, conflicts, timeouts, chunks on the move, no space.
pub(super) fn may_pass(code: i32) -> bool {
    const CODES: &[i32] = &[
        6, 7, 24, 46, 50, 63, 64, 89, 91, 112, 117, 133, 134, 150, 189, 202, 234, 235, 246, 249, 262, 314, 317, 384,
        9_001, 10_058, 10_107, 11_600, 11_601, 11_602, 13_388, 13_435, 13_436, 14_031,
    ];
    CODES.contains(&code)
}
