//! What plugin classes there are. Each stage's registry lists its own; the coordinator checks configurations against
//! all of them.

use std::fmt;

use serde_json::Value;

use crate::plan::Stage;
use crate::subject::Role;

/// Checks a class's parameters, unexpanded. Classes that are data have one each.
pub type Check = &'static (dyn Fn(&Value) -> Result<(), Vec<ParamError>> + Send + Sync);

/// A plugin class: one that this version serves, or one that is known by name only.
#[derive(Clone, Copy)]
pub struct PluginClass {
    /// The class's name as configurations write it: `cloudmarker.clouds.mockcloud.MockCloud`.
    pub name: &'static str,
    /// The roles that it can have in an audit.
    pub roles: &'static [Role],
    /// The stage that serves it.
    pub stage: Stage,
    /// Whether one worker serves a whole version of it (a file; one mail).
    pub exclusive: bool,
    /// The pool of its units unless the configuration names another: for clouds only, the cloud's name.
    pub pool: Option<&'static str>,
    /// Checks parameters, unexpanded; `None` when the class is known but not served by this version.
    pub check: Option<Check>,
}

impl fmt::Debug for PluginClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginClass")
            .field("name", &self.name)
            .field("stage", &self.stage)
            .field("served", &self.check.is_some())
            .finish_non_exhaustive()
    }
}

impl PluginClass {
    /// The last part of the name.
    #[must_use]
    pub fn short_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }

    /// A class that is known by name only.
    #[must_use]
    pub const fn planned(name: &'static str, roles: &'static [Role], stage: Stage) -> Self {
        Self { name, roles, stage, exclusive: false, pool: None, check: None }
    }
}

/// One parameter that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamError {
    /// Its path below `params`: `record_types[1]`, or empty for the parameters as a whole.
    pub path: String,
    /// What was found, what is allowed, what to do.
    pub message: String,
}

/// Parameter errors as one text for people.
#[must_use]
pub fn in_one_line(errors: &[ParamError]) -> String {
    let texts: Vec<String> = errors
        .iter()
        .map(|error| match error.path.as_str() {
            "" => error.message.clone(),
            path => format!("{path}: {}", error.message),
        })
        .collect();
    texts.join("; ")
}
