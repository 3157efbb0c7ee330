//! What the process stands in: its variables and its directory. A value, so that tests need not touch the process.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// The variables and the current directory of a process.
///
/// ```
/// use proto::config::Environment;
/// let environment = Environment::empty().with("HOME", "/home/me");
/// assert_eq!(environment.path("~/a.yaml").to_str(), Some("/home/me/a.yaml"));
/// ```
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    directory: PathBuf,
}

impl Environment {
    /// The environment of this process, as it is now. Variables that are not text are left out.
    #[must_use]
    pub fn of_process() -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self { variables, directory: std::env::current_dir().unwrap_or_default() }
    }

    /// An environment without variables.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// The environment with one more variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The environment in another directory.
    #[must_use]
    pub fn in_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = directory.into();
        self
    }

    /// The value of a variable.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The home directory of the user.
    #[must_use]
    pub fn home(&self) -> Option<&Path> {
        self.variable("HOME").filter(|home| !home.is_empty()).map(Path::new)
    }

    /// The folder of what a host keeps from run to run: `CM_STATE_DIR`, or `cloudmarker` in the user's folder of
    /// states.
    ///
    /// ```
    /// use proto::config::Environment;
    /// let environment = Environment::empty().with("HOME", "/home/me");
    /// assert_eq!(environment.state_dir().to_str(), Some("/home/me/.local/state/cloudmarker"));
    /// ```
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        let set = |name| self.variable(name).filter(|path| !path.is_empty());
        match (set("CM_STATE_DIR"), set("XDG_STATE_HOME")) {
            (Some(folder), _) => self.path(folder),
            (None, Some(states)) => self.path(states).join("cloudmarker"),
            (None, None) => self.path("~/.local/state/cloudmarker"),
        }
    }

    /// A path as a person writes it: `~` is the home directory, a relative one starts at the current directory.
    #[must_use]
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        match (path.strip_prefix("~"), self.home()) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => self.directory.join(path),
        }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("variables", &self.variables.keys())
            .field("directory", &self.directory)
            .finish()
    }
}
