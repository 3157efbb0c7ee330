//! Secrets, and the references to them that a configuration holds.
//!
//! A configuration says `${NAME}` or `${file:PATH}` where a secret belongs, and a plan that travels over the broker
//! holds just that. A worker puts the value in its place where it uses it, and only what its own start-up allows.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::environment::Environment;
use super::place::Place;
use crate::catalogue::ParamError;

/// Variables that begin so may always be expanded.
pub const PREFIX: &str = "CM_";
/// The largest file of a secret, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// A text that cannot be printed.
///
/// ```
/// use proto::config::secret::Secret;
/// let secret = Secret::from("hunter2");
/// assert_eq!(format!("{secret} {secret:?}"), "*** ***");
/// assert_eq!(serde_json::to_string(&secret)?, r#""***""#);
/// assert_eq!(secret.expose(), "hunter2");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is no text.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.0).into_bytes();
        bytes.fill(0);
        // Keeps the compiler from leaving out what nobody seems to read.
        std::hint::black_box(&bytes);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Secret;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(super::params::SECRET_TEXT)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
                Ok(Secret::from(text))
            }
            fn visit_string<E: de::Error>(self, text: String) -> Result<Secret, E> {
                Ok(Secret::from(text))
            }
        }
        deserializer.deserialize_string(Text)
    }
}

/// Why a reference in a text cannot be expanded. It never holds a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// `${` without `}`.
    #[error("`${{` is not closed by `}}`; write `$${{` for a dollar and a brace")]
    Unclosed,
    /// What stands between the braces is neither a name nor a file.
    #[error("`${{{0}}}` is not a reference; `${{NAME}}` or `${{file:PATH}}` is expected, `$$` stands for a dollar")]
    NotAReference(String),
    /// The worker may not look at the variable.
    #[error(
        "`${{{0}}}` may not be expanded here; choose a name that begins with `{PREFIX}`, or start the worker with `--allow-env {0}`"
    )]
    VariableNotAllowed(String),
    /// There is no such variable.
    #[error("`${{{0}}}` is not set; set the environment variable {0} where the worker starts")]
    NotSet(String),
    /// The worker may not look at the file.
    #[error(
        "`${{file:{path}}}` may not be expanded here; it must be a file under {allowed}, or start the worker with `--secrets-dir DIRECTORY`"
    )]
    FileNotAllowed {
        /// The path of the reference.
        path: String,
        /// Where secrets may lie.
        allowed: String,
    },
    /// The file cannot be read.
    #[error("`${{file:{path}}}` cannot be read: {reason}; put the file there, or make it readable for the worker")]
    Unreadable {
        /// The path of the reference.
        path: String,
        /// What the system says.
        reason: String,
    },
}

#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    Variable(&'a str),
    File(&'a str),
}

/// Cuts a text at its references.
fn pieces(text: &str) -> Result<Vec<Piece<'_>>, ReferenceError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, dollar) = rest.split_at(at);
        pieces.push(Piece::Text(before));
        if let Some(after) = dollar.strip_prefix("$$") {
            pieces.push(Piece::Text("$"));
            rest = after;
        } else if let Some(inside) = dollar.strip_prefix("${") {
            let (reference, after) = inside.split_once('}').ok_or(ReferenceError::Unclosed)?;
            pieces.push(piece(reference)?);
            rest = after;
        } else {
            pieces.push(Piece::Text("$"));
            rest = &dollar[1..];
        }
    }
    pieces.push(Piece::Text(rest));
    Ok(pieces)
}

fn piece(reference: &str) -> Result<Piece<'_>, ReferenceError> {
    let is_name = |name: &str| {
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
    };
    match reference.strip_prefix("file:") {
        Some(path) if !path.is_empty() => Ok(Piece::File(path)),
        None if is_name(reference) => Ok(Piece::Variable(reference)),
        _ => Err(ReferenceError::NotAReference(reference.to_owned())),
    }
}

/// Checks how the references in a text are written, without looking at what they stand for.
///
/// # Errors
/// [`ReferenceError::Unclosed`] or [`ReferenceError::NotAReference`].
///
/// ```
/// use proto::config::secret::check_references;
/// assert!(check_references("${CM_SECRET} and $$ and ${file:/run/secrets/a}").is_ok());
/// assert!(check_references("${CM_SECRET").is_err());
/// ```
pub fn check_references(text: &str) -> Result<(), ReferenceError> {
    pieces(text).map(drop)
}

/// Whether a text holds a reference, so that its value is not known before it is used.
///
/// ```
/// use proto::config::secret::has_reference;
/// assert!(has_reference("https://${CM_HOST}/"));
/// assert!(!has_reference("a$b"));
/// ```
#[must_use]
pub fn has_reference(text: &str) -> bool {
    !pieces(text).is_ok_and(|pieces| pieces.iter().all(|piece| matches!(piece, Piece::Text(_))))
}

/// Puts values in the place of references, as far as its policy allows.
///
/// ```
/// use proto::config::{Environment, secret::Expander};
/// let environment = Environment::empty().with("CM_SECRET", "hunter2").with("PATH", "/bin");
/// let expander = Expander::new(environment);
/// let params = serde_json::json!({"secret": "${CM_SECRET}", "price": "$$5"});
/// assert_eq!(expander.expand(&params)?, serde_json::json!({"secret": "hunter2", "price": "$5"}));
/// let refused = expander.expand(&serde_json::json!({"path": "${PATH}"})).unwrap_err();
/// assert_eq!(refused[0].path, "path");
/// # Ok::<(), Vec<proto::catalogue::ParamError>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Expander {
    environment: Arc<Environment>,
    policy: Policy,
}

#[derive(Debug, Clone)]
enum Policy {
    Everything,
    Only { names: BTreeSet<String>, directories: Vec<PathBuf> },
}

impl Expander {
    /// Expands variables whose names begin with [`PREFIX`], and nothing else.
    #[must_use]
    pub fn new(environment: Environment) -> Self {
        let policy = Policy::Only { names: BTreeSet::new(), directories: Vec::new() };
        Self { environment: Arc::new(environment), policy }
    }

    /// Expands whatever there is: for a process that runs its user's own configuration.
    #[must_use]
    pub fn of_everything(environment: Environment) -> Self {
        Self { environment: Arc::new(environment), policy: Policy::Everything }
    }

    /// Expands these variables, too.
    #[must_use]
    pub fn allow_env<I: IntoIterator<Item = S>, S: Into<String>>(mut self, more: I) -> Self {
        if let Policy::Only { names, .. } = &mut self.policy {
            names.extend(more.into_iter().map(Into::into));
        }
        self
    }

    /// Expands files under these directories, too. A relative path in a reference starts at the first of them.
    #[must_use]
    pub fn secrets_dirs<I: IntoIterator<Item = P>, P: AsRef<Path>>(mut self, more: I) -> Self {
        let more: Vec<PathBuf> = more.into_iter().map(|directory| self.environment.path(directory)).collect();
        if let Policy::Only { directories, .. } = &mut self.policy {
            directories.extend(more);
        }
        self
    }

    /// The value with all references in its texts expanded. Keys of mappings stay as they are.
    ///
    /// # Errors
    /// One error for each text that cannot be expanded, with its path in the value.
    pub fn expand(&self, value: &Value) -> Result<Value, Vec<ParamError>> {
        let mut value = value.clone();
        let mut errors = Vec::new();
        self.expand_in_place(&mut value, &Place::root(), &mut errors);
        if errors.is_empty() { Ok(value) } else { Err(errors) }
    }

    fn expand_in_place(&self, value: &mut Value, place: &Place, errors: &mut Vec<ParamError>) {
        match value {
            Value::String(text) => match self.expand_text(text) {
                Ok(expanded) => *text = expanded,
                Err(error) => errors.push(ParamError { path: place.to_string(), message: error.to_string() }),
            },
            Value::Array(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.expand_in_place(item, &place.index(index), errors);
                }
            }
            Value::Object(entries) => {
                for (key, entry) in entries {
                    self.expand_in_place(entry, &place.key(key), errors);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// The text with all its references expanded. What a reference stands for is not expanded again.
    ///
    /// # Errors
    /// [`ReferenceError`] for the first reference that cannot be expanded.
    pub fn expand_text(&self, text: &str) -> Result<String, ReferenceError> {
        let mut expanded = String::new();
        for piece in pieces(text)? {
            match piece {
                Piece::Text(text) => expanded.push_str(text),
                Piece::Variable(name) => expanded.push_str(self.variable(name)?),
                Piece::File(path) => expanded.push_str(&self.file(path)?),
            }
        }
        Ok(expanded)
    }

    fn variable(&self, name: &str) -> Result<&str, ReferenceError> {
        let allowed = match &self.policy {
            Policy::Everything => true,
            Policy::Only { names, .. } => name.starts_with(PREFIX) || names.contains(name),
        };
        if !allowed {
            return Err(ReferenceError::VariableNotAllowed(name.to_owned()));
        }
        self.environment.variable(name).ok_or_else(|| ReferenceError::NotSet(name.to_owned()))
    }

    fn file(&self, path: &str) -> Result<String, ReferenceError> {
        let found = match &self.policy {
            Policy::Everything => self.environment.path(path),
            Policy::Only { directories, .. } => allowed_file(path, directories)?,
        };
        let mut text =
            read_file(&found).map_err(|reason| ReferenceError::Unreadable { path: path.to_owned(), reason })?;
        if text.ends_with('\n') {
            text.truncate(text.len() - 1);
            if text.ends_with('\r') {
                text.truncate(text.len() - 1);
            }
        }
        Ok(text)
    }
}

/// The file's real path, if it lies under one of the directories. Of files elsewhere nothing is said, not even
/// whether they exist.
fn allowed_file(path: &str, directories: &[PathBuf]) -> Result<PathBuf, ReferenceError> {
    let refused = || {
        let list: Vec<String> = directories.iter().map(|directory| directory.display().to_string()).collect();
        let allowed = if list.is_empty() { "a directory of secrets".to_owned() } else { list.join(" or ") };
        ReferenceError::FileNotAllowed { path: path.to_owned(), allowed }
    };
    let wanted = directories.first().ok_or_else(refused)?.join(path);
    match wanted.canonicalize() {
        Ok(real) => {
            let inside = |directory: &PathBuf| directory.canonicalize().is_ok_and(|root| real.starts_with(root));
            if directories.iter().any(inside) { Ok(real) } else { Err(refused()) }
        }
        Err(error) => {
            let climbs = wanted.components().any(|component| component == Component::ParentDir);
            if climbs || !directories.iter().any(|directory| wanted.starts_with(directory)) {
                return Err(refused());
            }
            Err(ReferenceError::Unreadable { path: path.to_owned(), reason: error.to_string() })
        }
    }
}

fn read_file(path: &Path) -> Result<String, String> {
    let plain = std::fs::metadata(path).map_err(|error| error.to_string())?.is_file();
    if !plain {
        return Err("it is not a plain file".to_owned());
    }
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    let read = file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if read as u64 > MAX_FILE { Err(format!("it is larger than {MAX_FILE} bytes")) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    fn environment() -> Environment {
        Environment::empty().with("CM_A", "alpha").with("OTHER", "beta").with("CM_REF", "${CM_A}")
    }

    #[test]
    fn references_are_put_in_place() {
        let expander = Expander::new(environment());
        for (text, expanded) in [
            ("", ""),
            ("plain", "plain"),
            ("${CM_A}", "alpha"),
            ("<${CM_A}-${CM_A}>", "<alpha-alpha>"),
            ("$$", "$"),
            ("$${CM_A}", "${CM_A}"),
            ("$$${CM_A}", "$alpha"),
            ("pa$word$", "pa$word$"),
            ("${CM_REF}", "${CM_A}"),
            ("ü${CM_A}ü", "üalphaü"),
        ] {
            assert_eq!(expander.expand_text(text).as_deref(), Ok(expanded), "{text}");
        }
    }

    #[test]
    fn all_texts_of_a_value_are_expanded_and_all_errors_told() {
        let expander = Expander::new(environment());
        let value = json!({"a": ["${CM_A}", 1, null], "b": {"${CM_A}": "x${CM_A}"}});
        assert_eq!(expander.expand(&value).unwrap(), json!({"a": ["alpha", 1, null], "b": {"${CM_A}": "xalpha"}}));
        let errors =
            expander.expand(&json!({"a": ["${CM_A}", "${OTHER}"], "b": {"c": "${CM_NONE}", "d": "${"}})).unwrap_err();
        let said: Vec<String> = errors.iter().map(|error| format!("{}: {}", error.path, error.message)).collect();
        assert_eq!(
            said,
            [
                "a[1]: `${OTHER}` may not be expanded here; choose a name that begins with `CM_`, or start the worker with `--allow-env OTHER`",
                "b.c: `${CM_NONE}` is not set; set the environment variable CM_NONE where the worker starts",
                "b.d: `${` is not closed by `}`; write `$${` for a dollar and a brace",
            ]
        );
    }

    #[test]
    fn a_policy_can_be_widened() {
        let text = "${OTHER}";
        assert!(Expander::new(environment()).expand_text(text).is_err());
        assert_eq!(Expander::new(environment()).allow_env(["OTHER"]).expand_text(text).unwrap(), "beta");
        assert_eq!(Expander::of_everything(environment()).expand_text(text).unwrap(), "beta");
    }

    #[test]
    fn odd_references_are_refused() {
        for text in ["${}", "${1A}", "${a b}", "${file:}", "${vault:x}", "${CM_A:-x}", "${file}x${"] {
            let error = check_references(text);
            if text.starts_with("${file}") {
                assert_eq!(error, Err(ReferenceError::Unclosed));
            } else {
                assert!(matches!(error, Err(ReferenceError::NotAReference(_))), "{text}");
            }
        }
    }

    #[test]
    fn files_are_read_under_the_directories_of_secrets_only() {
        let root = tempfile::tempdir().unwrap();
        let secrets = root.path().join("secrets");
        fs::create_dir_all(secrets.join("..data")).unwrap();
        fs::write(root.path().join("outside"), "outside").unwrap();
        fs::write(secrets.join("..data/password"), "hunter2\n\n").unwrap();
        fs::write(secrets.join("windows"), "hunter3\r\n").unwrap();
        fs::write(secrets.join("bytes"), [0xff]).unwrap();
        std::os::unix::fs::symlink("..data/password", secrets.join("password")).unwrap();
        std::os::unix::fs::symlink("../outside", secrets.join("escape")).unwrap();
        let expander = Expander::new(environment()).secrets_dirs([&secrets]);
        let expand = |path: &str| expander.expand_text(&format!("${{file:{path}}}"));
        let absolute = |name: &str| secrets.join(name).display().to_string();

        // As Kubernetes lays them out: by symbolic links that stay inside.
        assert_eq!(expand("password").unwrap(), "hunter2\n");
        assert_eq!(expand(&absolute("password")).unwrap(), "hunter2\n");
        assert_eq!(expand("windows").unwrap(), "hunter3");

        let refused = [
            "escape".to_owned(),
            "../outside".to_owned(),
            "../missing".to_owned(),
            absolute("../outside"),
            "/etc/passwd".to_owned(),
            "/missing".to_owned(),
        ];
        for path in &refused {
            assert!(matches!(expand(path), Err(ReferenceError::FileNotAllowed { .. })), "{path}");
            let nowhere = Expander::new(environment()).expand_text(&format!("${{file:{path}}}"));
            assert!(matches!(nowhere, Err(ReferenceError::FileNotAllowed { .. })), "{path}");
        }
        for path in ["missing", ".", "bytes"] {
            let error = expand(path).unwrap_err();
            assert!(matches!(&error, ReferenceError::Unreadable { .. }), "{error}");
            assert!(!error.to_string().contains("hunter"), "{error}");
        }
        assert_eq!(
            expand("/etc/passwd").unwrap_err().to_string(),
            format!(
                "`${{file:/etc/passwd}}` may not be expanded here; it must be a file under {}, or start the worker with `--secrets-dir DIRECTORY`",
                secrets.display()
            )
        );
        let everything = Expander::of_everything(environment().in_directory(root.path()));
        assert_eq!(everything.expand_text("${file:outside}").unwrap(), "outside");
    }

    #[test]
    fn a_secret_is_read_from_a_text_only() {
        assert_eq!(serde_json::from_value::<Secret>(json!("x")).unwrap().expose(), "x");
        assert!(serde_json::from_value::<Secret>(json!(5)).is_err());
    }
}
