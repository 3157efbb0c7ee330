//! The configuration: which plugins there are, which audits they make up, and what runs when.
//!
//! It is made of the built-in base ([`BASE`]) and of YAML files, merged in their order ([`load()`]), and then checked
//! against the classes that there are ([`validate()`]), which tells all that is wrong at once.
//!
//! ```
//! use proto::config::{Loaded, validate};
//! let loaded = Loaded::base().with_text("mine.yaml", "schedule: 10:30\nrun: [mockadit]");
//! let (config, problems) = validate(&loaded, &[], None);
//! assert!(config.is_none());
//! let wrong = "mine.yaml: run[0]: no audit `mockadit` is defined under `audits`; did you mean `mockaudit`?";
//! assert!(problems.iter().any(|problem| problem.to_string() == wrong));
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde_json::Value;

use crate::subject::Key;

mod audits;
mod checker;
mod class;
mod environment;
mod load;
mod logger;
mod merge;
mod nats;
pub mod params;
mod place;
mod plugins;
mod problem;
mod schedule;
pub mod secret;
pub mod suggest;
mod validate;
mod yaml;

pub use audits::AuditConfig;
pub use class::find_class;
pub use environment::Environment;
pub use load::{BASE, BASE_NAME, DEFAULT_FILES, Loaded, load};
pub use logger::{Level, LogHandler, LoggerConfig};
pub(crate) use logger::{OURS, targets};
pub use merge::merge;
pub use nats::NatsConfig;
pub use plugins::PluginConfig;
pub use problem::{Problem, Severity};
pub use schedule::{CronTimes, Overlap, ScheduleConfig, Timing};
pub use secret::{Expander, Secret};
pub use validate::{nats_section, rules_section, validate};

/// A configuration without errors.
#[derive(Clone, PartialEq)]
pub struct Config {
    /// The plugins that audits can use.
    pub plugins: BTreeMap<Key, PluginConfig>,
    /// The audits, whether they run or not.
    pub audits: BTreeMap<Key, AuditConfig>,
    /// The audits that run, in their order.
    pub run: Vec<Key>,
    /// Files and folders of users' own rules.
    pub rules: Vec<PathBuf>,
    /// When audits run that do not say it themselves.
    pub schedule: ScheduleConfig,
    /// What is logged, and where to.
    pub logger: LoggerConfig,
    /// The parameters of the notification mails, with their references not expanded; none for no mails.
    pub email: Option<Value>,
    /// The broker; none when the section is not there.
    pub nats: Option<NatsConfig>,
}

impl fmt::Debug for Config {
    /// The mail's parameters are left out: there may be a secret among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("plugins", &self.plugins)
            .field("audits", &self.audits)
            .field("run", &self.run)
            .field("rules", &self.rules)
            .field("schedule", &self.schedule)
            .field("logger", &self.logger)
            .field("email", &self.email.is_some())
            .field("nats", &self.nats)
            .finish()
    }
}
