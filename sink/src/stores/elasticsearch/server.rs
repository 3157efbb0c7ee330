//! Which server it is: Elasticsearch and OpenSearch came from one, and differ where it matters here.

use std::fmt;

use serde_json::Value;

/// The first version with composable index templates.
const FIRST_ELASTICSEARCH: (u32, u32) = (7, 8);

/// A server, as far as it told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) kind: Kind,
    version: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Elasticsearch {
        /// Whether it has what its maker adds to the open source: the `flattened` fields, for one.
        complete: bool,
    },
    OpenSearch,
}

/// Why a server cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It is something else.
    Other,
    /// It is too old; its version.
    TooOld(String),
}

impl Server {
    /// Reads what a server says of itself.
    pub(super) fn read(greeting: &Value) -> Result<Self, Unfit> {
        let version = greeting.get("version").unwrap_or(&Value::Null);
        let text = |of: &Value, name: &str| of.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (number, tagline) = (text(version, "number"), text(greeting, "tagline"));
        if number.is_empty() {
            return Err(Unfit::Other);
        }
        // OpenSearch can be told to call itself Elasticsearch 7.10, for old clients; its tagline stays.
        if text(version, "distribution") == "opensearch" || tagline.contains("OpenSearch") {
            return Ok(Self { kind: Kind::OpenSearch, version: number });
        }
        if tagline != "You Know, for Search" {
            return Err(Unfit::Other);
        }
        let mut parts = number.split('.').map(|part| part.parse().unwrap_or(0));
        if (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < FIRST_ELASTICSEARCH {
            return Err(Unfit::TooOld(number));
        }
        let complete = text(version, "build_flavor") != "oss";
        Ok(Self { kind: Kind::Elasticsearch { complete }, version: number })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.kind {
            Kind::Elasticsearch { .. } => "Elasticsearch",
            Kind::OpenSearch => "OpenSearch",
        };
        write!(f, "{name} {}", self.version)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(number: &str, tagline: &str, more: &Value) -> Result<Kind, Unfit> {
        let mut greeting = json!({"tagline": tagline, "version": more});
        greeting["version"]["number"] = number.into();
        Server::read(&greeting).map(|server| server.kind)
    }

    #[test]
    fn servers_tell_what_they_are() {
        let search = "You Know, for Search";
        let complete = Ok(Kind::Elasticsearch { complete: true });
        for number in ["7.17.28", "8.15.3", "9.1.0-SNAPSHOT", "10.0.0"] {
            assert_eq!(read(number, search, &json!({"build_flavor": "default"})), complete, "{number}");
        }
        assert_eq!(
            read("7.10.2", search, &json!({"build_flavor": "oss"})),
            Ok(Kind::Elasticsearch { complete: false })
        );
        assert_eq!(read("2.11.0", "", &json!({"distribution": "opensearch"})), Ok(Kind::OpenSearch));
        let tagline = "The OpenSearch Project: https://opensearch.org/";
        assert_eq!(read("7.10.2", tagline, &json!({})), Ok(Kind::OpenSearch));
        assert_eq!(read("6.8.23", search, &json!({})), Err(Unfit::TooOld("6.8.23".into())));
        assert_eq!(read("7.7.1", search, &json!({})), Err(Unfit::TooOld("7.7.1".into())));
        assert_eq!(read("3.0", "another", &json!({})), Err(Unfit::Other));
        assert_eq!(Server::read(&json!({"ok": true})), Err(Unfit::Other));
        assert_eq!(Server::read(&Value::Null), Err(Unfit::Other));
    }
}
