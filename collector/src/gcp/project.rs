//! Projects: the list that all else hangs on.
//!
//! Reference: <https://cloud.google.com/resource-manager/reference/rest/v1/projects/list>.

use std::borrow::Cow;

use proto::record::Text;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::record::{Malformed, Record, object};
use crate::fields::Fields;

/// The name of the type.
pub(super) const NAME: &str = "project";
/// The path of the list.
pub(super) const PATH: &str = "/v1/projects";

/// What the records of a project's resources say of it, and what its refusals are compared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Project {
    /// `my-project-1234`.
    pub(super) id: String,
    /// The name that people see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    /// The number that Google gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) number: Option<String>,
}

/// An item of the list, in the shape of the API.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    #[serde(borrow)]
    project_id: Text<'a>,
    #[serde(borrow, default)]
    name: Option<Text<'a>>,
    #[serde(borrow, default)]
    project_number: Option<Text<'a>>,
    #[serde(borrow, default)]
    lifecycle_state: Option<Text<'a>>,
}

/// What is known of a project after its item was read.
#[derive(Debug)]
pub(super) struct Read<'a> {
    pub(super) project: Project,
    pub(super) record: Record<'a>,
    /// Why its resources cannot be read, if it says so itself.
    pub(super) unreadable: Option<String>,
}

/// Reads an item of the list.
pub(super) fn read(raw: &RawValue) -> Result<Read<'_>, Malformed> {
    let item: Item<'_> = object(raw).map_err(|error| malformed(raw, &error))?;
    let Text(id) = item.project_id;
    if !is_project_id(&id) {
        return Err(Malformed(format!("{:?} is not the id of a project", id.chars().take(100).collect::<String>())));
    }
    let unreadable = match item.lifecycle_state.as_deref() {
        None | Some("ACTIVE") => None,
        Some("DELETE_REQUESTED") => Some("the project is pending deletion (DELETE_REQUESTED)".to_owned()),
        Some(state) => Some(format!("the project is not active ({state})")),
    };
    let ext =
        Fields::new().with("lifecycle_state", item.lifecycle_state).with("project_number", item.project_number.clone());
    let owned = |text: Option<Text<'_>>| text.map(|Text(text)| Cow::into_owned(text));
    let project = Project { id: id.clone().into_owned(), name: owned(item.name), number: owned(item.project_number) };
    let record = Record {
        record_type: NAME,
        common_type: Some(NAME),
        key: project.id.clone(),
        reference: Some(id),
        zone: None,
        raw,
        ext,
        com: Fields::new(),
    };
    Ok(Read { project, record, unreadable })
}

fn malformed(raw: &RawValue, error: &serde_json::Error) -> Malformed {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct JustId<'a> {
        #[serde(borrow)]
        project_id: Text<'a>,
    }
    match object::<JustId<'_>>(raw) {
        Ok(JustId { project_id }) => Malformed(format!("the project {} cannot be understood: {error}", &*project_id)),
        Err(_) => Malformed(format!("a project without an id cannot be understood: {error}")),
    }
}

/// It becomes a part of paths and of unit ids, so it is not taken on trust. Old ids have a domain: `example.com:app`.
fn is_project_id(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
    (1..=100).contains(&text.len())
        && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && text.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn raw(item: serde_json::Value) -> Box<RawValue> {
        RawValue::from_string(item.to_string()).unwrap()
    }

    #[test]
    fn a_project_gives_its_record_and_what_its_resources_say_of_it() {
        let raw = raw(json!({"projectId": "example.com:app", "name": "My \"App\"", "projectNumber": "17",
            "lifecycleState": "ACTIVE", "labels": {"a": 1.50}}));
        let read = read(&raw).unwrap();
        let expected = json!({"id": "example.com:app", "name": "My \"App\"", "number": "17"});
        assert_eq!(serde_json::to_value(&read.project).unwrap(), expected);
        assert_eq!(read.unreadable, None);
        assert_eq!(
            serde_json::to_string(&read.record.ext(&read.project, None)).unwrap(),
            r#"{"cloud_type":"gcp","record_type":"project","project_id":"example.com:app","project_name":"My \"App\"","zone":null,"client_email":null,"lifecycle_state":"ACTIVE","project_number":"17"}"#
        );
        assert_eq!(
            serde_json::to_string(&read.record.com()).unwrap(),
            r#"{"cloud_type":"gcp","record_type":"project","reference":"example.com:app"}"#
        );
    }

    #[test]
    fn what_is_not_active_is_listed_and_not_read() {
        for (state, expected) in [
            (json!("DELETE_REQUESTED"), Some("pending deletion")),
            (json!("DELETE_IN_PROGRESS"), Some("DELETE_IN_PROGRESS")),
            (json!(null), None),
        ] {
            let raw = raw(json!({"projectId": "p1", "lifecycleState": state}));
            let unreadable = read(&raw).unwrap().unreadable;
            assert_eq!(unreadable.is_some(), expected.is_some());
            assert!(unreadable.unwrap_or_default().contains(expected.unwrap_or_default()));
        }
    }

    #[test]
    fn a_malformed_project_says_what_is_wrong() {
        for item in [
            json!(null),
            json!([]),
            json!(["p1"]),
            json!({"name": "a"}),
            json!({"projectId": 8}),
            json!({"projectId": ""}),
            json!({"projectId": "../p"}),
            json!({"projectId": "a/b"}),
            json!({"projectId": "a?b"}),
            json!({"projectId": "a", "name": 5}),
        ] {
            assert!(read(&raw(item.clone())).is_err(), "{item}");
        }
    }
}
