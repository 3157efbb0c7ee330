//! What a record of Azure looks like, and what a maker of records works with.

use std::borrow::Cow;

use proto::record::{Common, Text};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::service::Item;
use super::subscription::Subscription;
use crate::fields::Fields;

/// The cloud's name in records.
const CLOUD_TYPE: &str = "azure";

/// What was made of an item.
#[derive(Debug, Default)]
pub(super) struct Made<'a> {
    /// The records, in their order.
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
    /// The cloud's own id: `com.reference`, and, lower-cased, the record's key.
    pub(super) id: Cow<'a, str>,
    /// The answer.
    pub(super) raw: Raw<'a>,
    /// What `ext` says beyond what every record says.
    pub(super) ext: Fields<'a>,
    /// What `com` says beyond what every record says.
    pub(super) com: Fields<'a>,
}

/// What the API answered.
#[derive(Debug)]
pub(super) enum Raw<'a> {
    /// An answer, untouched.
    Answer(&'a RawValue),
    /// Two answers: the second is a member of the first.
    Joined(Box<RawValue>),
    /// The record says that there is nothing.
    Nothing,
}

impl Raw<'_> {
    /// The text.
    pub(super) fn get(&self) -> Option<&RawValue> {
        match self {
            Self::Answer(raw) => Some(raw),
            Self::Joined(raw) => Some(raw),
            Self::Nothing => None,
        }
    }
}

impl<'a> Record<'a> {
    /// A record of an item as it is.
    pub(super) fn of(
        record_type: &'static str,
        common_type: Option<&'static str>,
        id: Cow<'a, str>,
        raw: &'a RawValue,
    ) -> Self {
        Self { record_type, common_type, id, raw: Raw::Answer(raw), ext: Fields::new(), com: Fields::new() }
    }

    /// The id, lower-cased: Azure writes it now in this case, now in that.
    pub(super) fn key(&self) -> String {
        self.id.to_lowercase()
    }

    /// The bucket `ext`. Only records of `AzCloud` name the tenant.
    pub(super) fn ext(&'a self, subscription: &'a Subscription, with_tenant: bool) -> Ext<'a> {
        Ext {
            cloud_type: CLOUD_TYPE,
            record_type: self.record_type,
            subscription_id: &subscription.id,
            tenant_id: with_tenant.then_some(&*subscription.tenant),
            subscription_name: subscription.name.as_deref(),
            subscription_state: subscription.state.as_deref(),
            fields: &self.ext,
        }
    }

    /// The bucket `com`.
    pub(super) fn com(&'a self) -> Com<'a> {
        let common =
            Common { cloud_type: CLOUD_TYPE, record_type: self.common_type, reference: Some(self.id.as_ref()) };
        Com { common, fields: &self.com }
    }
}

/// The bucket `ext`.
#[derive(Debug, Serialize)]
pub(super) struct Ext<'a> {
    cloud_type: &'static str,
    record_type: &'static str,
    subscription_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant_id: Option<&'a str>,
    subscription_name: Option<&'a str>,
    subscription_state: Option<&'a str>,
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

/// A resource whose record is nothing but its JSON.
#[derive(Debug, Deserialize)]
struct JustId<'a> {
    #[serde(borrow)]
    id: Text<'a>,
}

/// The id of an item of a list that has one: `what` names the item in errors.
pub(super) fn id_of<'a>(what: &str, item: &'a RawValue) -> Result<Cow<'a, str>, Malformed> {
    let JustId { id } = serde_json::from_str(item.get()).map_err(|error| Malformed::of(what, item, &error))?;
    checked_id(what, id)
}

/// The one record of an item that is a record as it is.
pub(super) fn plain<'a>(
    record_type: &'static str,
    common_type: Option<&'static str>,
    item: Item<'a>,
) -> Result<Made<'a>, Malformed> {
    let id = id_of("a resource", item.raw)?;
    Ok(Made::one(Record::of(record_type, common_type, id, item.raw)))
}

/// An answer with another one as its last member: an object's text is kept to the byte.
pub(super) fn joined(parent: &RawValue, member: &str, answer: &RawValue) -> Result<Box<RawValue>, Malformed> {
    let not_an_object = || Malformed(format!("the resource that `{member}` belongs to is not a JSON object"));
    let body = parent.get().trim_end().strip_suffix('}').ok_or_else(not_an_object)?;
    let comma = if body.trim_end().ends_with('{') { "" } else { "," };
    let text = format!("{body}{comma}\"{member}\":{}}}", answer.get());
    RawValue::from_string(text).map_err(|_| not_an_object())
}

/// An item that cannot be understood: which, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) String);

impl Malformed {
    /// The error of reading the item, with the id if it has one.
    pub(super) fn of(what: &str, item: &RawValue, error: &serde_json::Error) -> Self {
        match serde_json::from_str::<JustId<'_>>(item.get()) {
            Ok(JustId { id }) => Self(format!("{what} {} cannot be understood: {error}", &*id)),
            Err(_) => Self(format!("{what} without an id cannot be understood: {error}")),
        }
    }
}

/// The id of an item: never empty.
pub(super) fn checked_id<'a>(what: &str, Text(id): Text<'a>) -> Result<Cow<'a, str>, Malformed> {
    if id.is_empty() { Err(Malformed(format!("{what} has an empty id"))) } else { Ok(id) }
}
