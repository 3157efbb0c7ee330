//! Subscriptions: the list that all else hangs on.
//!
//! Reference: <https://learn.microsoft.com/rest/api/resources/subscriptions/list>.

use std::borrow::Cow;

use proto::coverage::Coverage;
use proto::record::Text;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::resource::{Malformed, Record, checked_id};

/// The name of the type.
pub(super) const NAME: &str = "subscription";
/// The path of the list.
pub(super) const PATH: &str = "/subscriptions";
/// The version of the API that it is read by.
pub(super) const API_VERSION: &str = "2022-12-01";

/// What the records of a subscription's resources say of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Subscription {
    /// The GUID.
    pub(super) id: String,
    /// The name that people see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    /// `Enabled`, `Warned`, `PastDue`, `Disabled`, `Deleted`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) state: Option<String>,
    /// The tenant that it belongs to: another than the one signed in to if it is managed from there.
    pub(super) tenant: String,
}

impl Subscription {
    /// Whether it is gone but for its name; reading works in all other states.
    pub(super) fn is_deleted(&self) -> bool {
        self.state.as_deref().is_some_and(|state| state.eq_ignore_ascii_case("deleted"))
    }

    /// What is to be known of a subscription that is not in order, though it is read.
    pub(super) fn note(&self) -> Option<Coverage> {
        let state = self.state.as_deref().filter(|state| !state.eq_ignore_ascii_case("enabled"))?;
        let reason = format!("the subscription is {state}: what it still shows was read");
        Some(Coverage { reason: Some(reason), ..Coverage::complete(&self.id, NAME, 0) })
    }
}

/// An item of the list, in the shape of the API.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    subscription_id: Text<'a>,
    #[serde(borrow, default)]
    display_name: Option<Text<'a>>,
    #[serde(borrow, default)]
    state: Option<Text<'a>>,
    #[serde(borrow, default)]
    tenant_id: Option<Text<'a>>,
}

/// The record of a subscription, and what the units below it need to know. `tenant` is the one signed in to.
pub(super) fn read<'a>(raw: &'a RawValue, tenant: &str) -> Result<(Subscription, Record<'a>), Malformed> {
    let item: Item<'_> =
        serde_json::from_str(raw.get()).map_err(|error| Malformed::of("a subscription", raw, &error))?;
    let id = checked_id("a subscription", item.id)?;
    if !is_subscription_id(&item.subscription_id) {
        return Err(Malformed(format!("the subscription {id} has no proper `subscriptionId`")));
    }
    let owned = |text: Option<Text<'_>>| text.map(|Text(text)| Cow::into_owned(text));
    let subscription = Subscription {
        id: item.subscription_id.to_string(),
        name: owned(item.display_name),
        state: owned(item.state),
        tenant: owned(item.tenant_id).unwrap_or_else(|| tenant.to_owned()),
    };
    Ok((subscription, Record::of(NAME, Some(NAME), id, raw)))
}

/// It becomes a part of paths and of unit ids, so it is not taken on trust.
fn is_subscription_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn raw(item: serde_json::Value) -> Box<RawValue> {
        RawValue::from_string(item.to_string()).unwrap()
    }

    #[test]
    fn a_subscription_gives_its_record_and_what_its_resources_say_of_it() {
        let raw = raw(json!({
            "id": "/subscriptions/A8", "subscriptionId": "A8", "displayName": "Contoso \"Prod\"",
            "state": "Enabled", "tenantId": "t2", "more": 1.50,
        }));
        let (subscription, record) = read(&raw, "t1").unwrap();
        let expected = json!({"id": "A8", "name": "Contoso \"Prod\"", "state": "Enabled", "tenant": "t2"});
        assert_eq!(serde_json::to_value(&subscription).unwrap(), expected);
        assert_eq!(record.key(), "/subscriptions/a8");
        assert!(!subscription.is_deleted());
    }

    #[test]
    fn what_is_missing_is_null_or_taken_from_the_sign_in() {
        let raw = raw(json!({"id": "/subscriptions/a8", "subscriptionId": "a8", "state": null}));
        let (subscription, record) = read(&raw, "t1").unwrap();
        assert_eq!((subscription.state.as_deref(), subscription.tenant.as_str()), (None, "t1"));
        let ext = serde_json::to_value(record.ext(&subscription, true)).unwrap();
        assert_eq!(ext["subscription_name"], json!(null));
    }

    #[test]
    fn a_malformed_subscription_says_what_is_wrong() {
        for item in [
            json!(null),
            json!([]),
            json!({"subscriptionId": "a8"}),
            json!({"id": "", "subscriptionId": "a8"}),
            json!({"id": "/subscriptions/a8"}),
            json!({"id": "/subscriptions/a8", "subscriptionId": 8}),
            json!({"id": "/subscriptions/a8", "subscriptionId": "../a8"}),
            json!({"id": "/subscriptions/a8", "subscriptionId": "a8", "state": 1}),
        ] {
            assert!(read(&raw(item.clone()), "t1").is_err(), "{item}");
        }
    }
}
