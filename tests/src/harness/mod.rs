//! What an end-to-end test stands on: the real NATS server and the programs of this workspace, as processes that
//! can be killed and started again.
//!
//! Nothing here skips: a server or program that is missing is an error that says what to run. Every process dies
//! with the value that stands for it, keeps its files in a temporary folder, and sees nothing of the environment or
//! the home folder of whoever runs the tests.

mod capture;
mod certificates;
mod hec;
mod mongod;
mod nats;
mod port;
mod postfix;
mod process;
mod search;
mod services;
mod slack;
mod smtp;
mod webhook;
mod workspace;

pub use hec::{Collector, Event, Fault, Token};
pub use mongod::MongoServer;
pub use nats::NatsServer;
pub use port::free_port;
pub use postfix::Postfix;
pub use process::{Launch, Output, Program};
pub use search::{SEARCH_KINDS, SearchKind, SearchServer};
pub use services::{STAGES, Services};
pub use slack::{Slack, TOKEN as SLACK_TOKEN};
pub use smtp::{Mail, Script, SmtpServer, Tls};
pub use webhook::{Posted, WebhookReceiver};
pub use workspace::{PATIENCE, Workspace};
