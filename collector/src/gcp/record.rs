//! What a record of Google Cloud looks like.

use std::borrow::Cow;

use proto::record::{Common, Text};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::project::Project;
use crate::fields::Fields;

/// The cloud's name in records.
const CLOUD_TYPE: &str = "gcp";

/// What was made of an item of a list.
#[derive(Debug)]
pub(super) struct Made<'a> {
    /// The records; the first is the item's own.
    pub(super) records: Vec<Record<'a>>,
    /// Parts of the item that are lost, each with the reason.
    pub(super) lost: Vec<String>,
}

impl<'a> Made<'a> {
    /// One record, and nothing lost.
    pub(super) fn one(record: Record<'a>) -> Self {
        Self { records: vec![record], lost: Vec::new() }
    }
}

/// A record before it is emitted.
#[derive(Debug)]
pub(super) struct Record<'a> {
    /// The type in `ext`.
    pub(super) record_type: &'static str,
    /// The type in `com`.
    pub(super) common_type: Option<&'static str>,
    /// Tells it from all others of its type.
    pub(super) key: String,
    /// `com.reference`.
    pub(super) reference: Option<Cow<'a, str>>,
    /// The zone that it is in.
    pub(super) zone: Option<Cow<'a, str>>,
    /// The answer, untouched.
    pub(super) raw: &'a RawValue,
    /// What `ext` says beyond what every record says.
    pub(super) ext: Fields<'a>,
    /// What `com` says beyond what every record says.
    pub(super) com: Fields<'a>,
}

impl<'a> Record<'a> {
    /// The bucket `ext`. The path of a key file is nobody's business: it is not there.
    pub(super) fn ext(&'a self, project: &'a Project, client_email: Option<&'a str>) -> Ext<'a> {
        Ext {
            cloud_type: CLOUD_TYPE,
            record_type: self.record_type,
            project_id: &project.id,
            project_name: project.name.as_deref(),
            zone: self.zone.as_deref(),
            client_email,
            fields: &self.ext,
        }
    }

    /// The bucket `com`.
    pub(super) fn com(&'a self) -> Com<'a> {
        let common =
            Common { cloud_type: CLOUD_TYPE, record_type: self.common_type, reference: self.reference.as_deref() };
        Com { common, fields: &self.com }
    }
}

/// The bucket `ext`.
#[derive(Debug, Serialize)]
pub(super) struct Ext<'a> {
    cloud_type: &'static str,
    record_type: &'static str,
    project_id: &'a str,
    project_name: Option<&'a str>,
    zone: Option<&'a str>,
    client_email: Option<&'a str>,
    #[serde(flatten)]
    fields: &'a Fields<'a>,
}

/// The bucket `com`.
#[derive(Debug, Serialize)]
pub(super) struct Com<'a> {
    #[serde(flatten)]
    common: Common<'a>,
    #[serde(flatten)]
    fields: &'a Fields<'a>,
}

/// What names a resource of Compute Engine.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Names<'a> {
    /// The number, in digits.
    #[serde(borrow)]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) name: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) self_link: Option<Text<'a>>,
}

impl<'a> Names<'a> {
    /// `projects/<project>/<collection>/<name>`: the link without the host and the version, which are no part of what
    /// the resource is. `path` leads to the collection, for a resource without a link.
    pub(super) fn key(&self, project: &Project, path: &str) -> Option<String> {
        let of_link = self.self_link.as_deref().and_then(|link| {
            let (_, relative) = link.split_once("/projects/")?;
            Some(format!("projects/{relative}"))
        });
        let below = |name: &str| format!("projects/{}/{path}/{name}", project.id);
        of_link.or_else(|| self.name.as_deref().or(self.id.as_deref()).filter(|name| !name.is_empty()).map(below))
    }

    /// The link to the resource.
    pub(super) fn reference(&self) -> Option<Cow<'a, str>> {
        self.self_link.as_ref().map(|Text(link)| link.clone()).filter(|link| !link.is_empty())
    }
}

/// Reads what must be an object: a struct would be read of an array, too.
pub(super) fn object<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> serde_json::Result<T> {
    if !raw.get().starts_with('{') {
        return Err(serde::de::Error::custom("it is not an object"));
    }
    serde_json::from_str(raw.get())
}

/// An item that cannot be understood: which, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) String);

impl Malformed {
    /// The error of reading the item, with what names it, if anything does.
    pub(super) fn of(what: &str, item: &RawValue, error: &serde_json::Error) -> Self {
        let names: Names<'_> = object(item).unwrap_or_default();
        match names.self_link.or(names.name).or(names.id) {
            Some(Text(name)) => Self(format!("{what} {name} cannot be understood: {error}")),
            None => Self(format!("{what} without a name cannot be understood: {error}")),
        }
    }

    /// The item has neither a link nor a name nor a number.
    pub(super) fn nameless(what: &str) -> Self {
        Self(format!("{what} has neither `selfLink` nor `name` nor `id`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(item: &str) -> Option<String> {
        let project = Project { id: "p".into(), name: None, number: None };
        serde_json::from_str::<Names<'_>>(item).unwrap().key(&project, "global/firewalls")
    }

    #[test]
    fn a_key_is_what_the_resource_is_wherever_it_was_read() {
        let expected = Some("projects/p/global/firewalls/f".to_owned());
        for host in ["https://www.googleapis.com/compute/v1", "https://compute.googleapis.com/compute/v1"] {
            assert_eq!(key(&format!(r#"{{"selfLink":"{host}/projects/p/global/firewalls/f"}}"#)), expected);
        }
        assert_eq!(key(r#"{"name":"f","id":"7"}"#), expected);
        assert_eq!(key(r#"{"id":"7"}"#).as_deref(), Some("projects/p/global/firewalls/7"));
        assert_eq!(key(r#"{"name":""}"#), None);
    }
}
