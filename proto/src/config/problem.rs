//! What is wrong, or doubtful, in a configuration.

use std::fmt;

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Nothing runs with it.
    Error,
    /// It works, but may not mean what was meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One problem of a configuration. It reads as one line:
///
/// ```
/// use proto::config::{Problem, Severity};
/// let problem = Problem {
///     severity: Severity::Error,
///     file: Some("cloudmarker.yaml".into()),
///     path: "plugins.x.params.n".into(),
///     message: r#"found the text "abc"; a whole number is expected"#.into(),
/// };
/// let line = r#"cloudmarker.yaml: plugins.x.params.n: found the text "abc"; a whole number is expected"#;
/// assert_eq!(problem.to_string(), line);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The file that the value came from; none when it came from the command line.
    pub file: Option<String>,
    /// The path of keys to the value; empty for the file as a whole.
    pub path: String,
    /// What was found, what is allowed, what to do.
    pub message: String,
}

impl Problem {
    /// Whether nothing runs with it.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    pub(super) fn of_file(file: &str, message: String) -> Self {
        Self { severity: Severity::Error, file: Some(file.to_owned()), path: String::new(), message }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.file.iter().map(String::as_str).chain([self.path.as_str()]).filter(|part| !part.is_empty()) {
            write!(f, "{part}: ")?;
        }
        f.write_str(&self.message)
    }
}
