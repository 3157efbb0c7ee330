//! `only_new`: what the last complete version of the audit did not have.

use anyhow::Result;
use proto::bus::{Bucket, SharedBus};
use proto::findings;
use proto::subject::Version;
use serde_json::{Value, json};
use tests::harness::WebhookReceiver;

use crate::{alert_of, bus, event, events, key, message};

const CLASS: &str = "WebhookAlert";
const FIRST: &str = "20260201_000000";
const SECOND: &str = "20260202_000000";
const THIRD: &str = "20260203_000000";

struct Case {
    bus: SharedBus,
    receiver: WebhookReceiver,
}

impl Case {
    async fn new() -> Result<Self> {
        Ok(Self { bus: bus(), receiver: WebhookReceiver::start().await? })
    }

    fn params(&self, more: Value) -> Value {
        let mut params = json!({"url": self.receiver.url("/"), "allow": ["127.0.0.1"], "only_new": true});
        if let (Some(params), Value::Object(more)) = (params.as_object_mut(), more) {
            params.extend(more);
        }
        params
    }

    /// What an alert of a version tells of its events: the message, or where there is none, why.
    async fn told(&self, version: &str, more: Value, events: &[Value]) -> Result<Result<Value, String>> {
        let before = self.receiver.posted().len();
        let mut alert = alert_of(&self.bus, version, CLASS, &self.params(more))?;
        for event in events {
            alert.accept(&message(version, event)?.into_message()).await?;
        }
        let delivery = alert.finish(1).await?;
        let posted = self.receiver.posted();
        Ok(match posted.get(before) {
            Some(posted) => Ok(posted.json()),
            None => Err(delivery.place),
        })
    }

    async fn ends(&self, version: &str, complete: bool) -> Result<()> {
        let (audit, version) = (key("prod")?, Version::new(version)?);
        if complete {
            findings::complete(&*self.bus, &audit, &version).await?;
        }
        Ok(findings::forget(&*self.bus, &audit, &version).await?)
    }
}

/// The same findings in another version: an event's id is of the version, a finding's is not.
fn again(count: u32) -> Vec<Value> {
    (0..count)
        .map(|n| {
            let mut event = event(n + 500_000, "high");
            event["com"]["finding_id"] = json!(format!("{:032x}", n + 1_000_000));
            event
        })
        .collect()
}

fn headline(told: Result<Value, String>) -> String {
    told.map_or_else(|place| place, |message| message["headline"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn what_the_last_complete_version_had_is_not_told_again() -> Result<()> {
    let case = Case::new().await?;
    // Nothing is known: everything is new.
    let told = case.told(FIRST, json!({}), &events(3)).await?;
    assert_eq!(headline(told), "prod: 1 critical, 2 high (new)");
    // The worker dies before it says so, and another begins again: that is no news of another kind.
    let told = case.told(FIRST, json!({}), &events(3)).await?;
    assert_eq!(headline(told), "prod: 1 critical, 2 high (new)");
    case.ends(FIRST, true).await?;

    let told = case.told(SECOND, json!({}), &again(3)).await?;
    let said = headline(told);
    assert!(said.contains("all of 3 findings are left out") && said.contains(FIRST), "{said}");
    let told = case.told(SECOND, json!({"always": true}), &again(3)).await?;
    assert_eq!(headline(told), "prod: nothing new");
    let told = case.told(SECOND, json!({}), &again(5)).await?;
    assert_eq!(headline(told), "prod: 2 high (new)");
    // It ends incomplete: it may not have seen what was there before, and nothing of it is taken for told.
    case.ends(SECOND, false).await?;
    let told = case.told(THIRD, json!({}), &again(5)).await?;
    assert_eq!(headline(told), "prod: 2 high (new)");
    case.ends(THIRD, true).await?;
    // An older one that ends late changes nothing.
    case.told(SECOND, json!({}), &again(1)).await?.ok();
    case.ends(SECOND, true).await?;
    let told = case.told("20260204_000000", json!({}), &again(5)).await?;
    assert!(headline(told).contains(THIRD));
    Ok(())
}

#[tokio::test]
async fn a_filter_does_not_make_a_finding_new() -> Result<()> {
    let case = Case::new().await?;
    let told = case.told(FIRST, json!({"accounts": ["sub-1"]}), &events(3)).await?;
    assert_eq!(headline(told), "prod: 1 high (new)");
    case.ends(FIRST, true).await?;
    // Another alert, or the same with other filters: the version had all three.
    let said = headline(case.told(SECOND, json!({}), &again(3)).await?);
    assert!(said.contains("left out"), "{said}");
    Ok(())
}

#[tokio::test]
async fn many_findings_are_known_again() -> Result<()> {
    const MANY: u32 = 100_000;
    let case = Case::new().await?;
    let told = case.told(FIRST, json!({}), &events(MANY)).await?;
    assert!(headline(told).starts_with("prod: 25,000 critical, 75,000 high (new)"));
    case.ends(FIRST, true).await?;
    let largest = case.bus.kv_entries(Bucket::Findings, "").await?.iter().map(|entry| entry.value.len()).max();
    assert!(largest < Some(1024 * 1024), "{largest:?}");
    let told = case.told(SECOND, json!({}), &again(MANY + 1)).await?;
    assert_eq!(headline(told), "prod: 1 high (new)");
    Ok(())
}
