//! Webhooks, against a receiver.

use anyhow::{Context, Result};
use ring::hmac;
use serde_json::{Value, json};
use tests::harness::{Posted, WebhookReceiver};

use crate::{VERSION, alert, deliver, event, events, failure, id, key};

const CLASS: &str = "WebhookAlert";
const SECRET: &str = "hunter2";

fn params(receiver: &WebhookReceiver, others: Value) -> Value {
    let mut params = json!({"url": receiver.url("/hook?sig=hunter2"), "allow": ["127.0.0.1"], "patience": "20s"});
    if let (Some(params), Value::Object(others)) = (params.as_object_mut(), others) {
        params.extend(others);
    }
    params
}

/// As a receiver would check it.
fn verify(posted: &Posted) -> Result<()> {
    let timestamp = posted.header("x-cloudmarker-timestamp").context("no timestamp")?;
    let signature = posted.header("x-cloudmarker-signature").context("no signature")?;
    let signature = signature.strip_prefix("sha256=").context("another signature")?;
    let bytes: Vec<u8> = (0..signature.len() / 2)
        .map(|n| u8::from_str_radix(&signature[2 * n..2 * n + 2], 16))
        .collect::<Result<_, _>>()?;
    let signed = [timestamp.as_bytes(), b".", &posted.body].concat();
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), &signed, &bytes)
        .map_err(|_| anyhow::anyhow!("the signature is wrong"))?;
    let age = jiff::Timestamp::now().as_second() - timestamp.parse::<i64>()?;
    anyhow::ensure!((0..60).contains(&age), "signed {age} s ago");
    Ok(())
}

#[tokio::test]
async fn a_message_about_a_version_is_signed_and_known_again() -> Result<()> {
    let receiver = WebhookReceiver::start().await?;
    let params = params(&receiver, json!({"secret": SECRET, "headers": {"X-Key": "k"}}));
    for _ in 0..2 {
        let delivery = deliver(CLASS, &params, &events(100)).await??;
        assert_eq!(delivery.documents, 100);
        assert!(!delivery.place.contains("hunter2"), "{}", delivery.place);
    }
    let posted = receiver.posted();
    assert_eq!(posted.len(), 2);
    for one in &posted {
        verify(one)?;
        assert_eq!((one.header("x-key"), one.header("content-type")), (Some("k"), Some("application/json")));
    }
    assert_eq!(posted[0].header("idempotency-key"), posted[1].header("idempotency-key"));
    assert_eq!(posted[0].body, posted[1].body);
    let body = posted[0].json();
    assert_eq!((&body["total"], &body["headline"]), (&json!(100), &json!("prod: 25 critical, 75 high")));
    Ok(())
}

#[tokio::test]
async fn each_finding_is_posted_once_through_trouble() -> Result<()> {
    let receiver = WebhookReceiver::start().await?;
    receiver.answer(202, None);
    receiver.answer(503, Some(("Retry-After", "1")));
    receiver.answer(500, None);
    receiver.answer(429, None);
    let template = "{\"what\": {{ finding.title ~ \": \" ~ finding.resource }}, \"id\": {{ finding.id }}}";
    let params = params(&receiver, json!({"per": "event", "template": template}));
    let mut odd = events(5);
    odd[3]["com"]["resource"]["name"] = json!("\", \"id\": \"evil");
    deliver(CLASS, &params, &odd).await??;
    let taken: Vec<Posted> = receiver.posted().into_iter().filter(|posted| posted.status == 202).collect();
    let mut ids: Vec<String> =
        taken.iter().map(|posted| posted.json()["id"].as_str().unwrap_or_default().to_owned()).collect();
    ids.sort();
    let mut expected: Vec<String> = (0..5).map(id).collect();
    expected.sort();
    assert_eq!(ids, expected);
    assert_eq!(receiver.posted().len(), 8);
    assert!(taken.iter().any(|posted| posted.json()["what"] == "Ports are closed to the internet: \", \"id\": \"evil"));
    Ok(())
}

#[tokio::test]
async fn a_finding_that_is_refused_does_not_stop_the_others() -> Result<()> {
    let receiver = WebhookReceiver::start().await?;
    receiver.answer(202, None);
    receiver.answer(400, None);
    let params = params(&receiver, json!({"per": "event"}));
    let said = failure(CLASS, &params, &events(5)).await?;
    assert!(said.contains("1 of 5 messages are refused") && said.contains("HTTP 400"), "{said}");
    assert_eq!(receiver.posted().len(), 5);
    receiver.answer(401, None);
    let said = failure(CLASS, &params, &events(5)).await?;
    assert!(said.contains("HTTP 401") && !said.contains("hunter2"), "{said}");
    assert_eq!(receiver.posted().len(), 6, "no other try can help");
    receiver.answer(302, Some(("Location", "http://127.0.0.1:1/")));
    let said = failure(CLASS, &params, &events(1)).await?;
    assert!(said.contains("redirects are not followed"), "{said}");
    Ok(())
}

#[tokio::test]
async fn the_presets_post_what_the_receivers_know() -> Result<()> {
    let receiver = WebhookReceiver::start().await?;
    let found = [event(1, "critical"), event(2, "high")];
    for (preset, keys) in
        [("teams", json!({})), ("pagerduty", json!({"routing_key": "R0"})), ("opsgenie", json!({"api_key": "A0"}))]
    {
        let mut others = keys;
        others["preset"] = json!(preset);
        deliver(CLASS, &params(&receiver, others), &found).await??;
    }
    let posted = receiver.posted();
    assert_eq!(posted.len(), 1 + 2 + 2);
    assert_eq!(posted[0].json()["attachments"][0]["content"]["type"], "AdaptiveCard");
    assert_eq!(posted[1].json()["routing_key"], "R0");
    assert_eq!(posted[1].json()["payload"]["severity"], "critical");
    assert_eq!(posted[3].header("authorization"), Some("GenieKey A0"));
    assert_eq!(posted[4].json()["priority"], "P2");
    Ok(())
}

#[tokio::test]
async fn targets_within_are_refused_unless_they_are_allowed_by_name() -> Result<()> {
    let receiver = WebhookReceiver::start().await?;
    let inside = receiver.url("/").replace("http", "https");
    let refused = alert(VERSION, CLASS, &json!({"url": inside})).err().context("taken")?;
    assert!(refused.to_string().contains("loopback"), "{refused}");
    // A name is looked up when it is used.
    let named = inside.replace("127.0.0.1", "localhost");
    let said = failure(CLASS, &json!({"url": named}), &events(1)).await?;
    assert!(said.contains("loopback") && said.contains("`allow`"), "{said}");
    // The name that is allowed is that of the URL, not where it leads.
    let said = failure(CLASS, &json!({"url": named, "allow": ["127.0.0.1"]}), &events(1)).await?;
    assert!(said.contains("loopback"), "{said}");
    assert!(receiver.posted().is_empty());
    deliver(CLASS, &json!({"url": named.replace("https", "http"), "allow": ["localhost"]}), &events(1)).await??;
    assert_eq!(receiver.posted().len(), 1);
    alerter::trial::send(&key("alert")?, CLASS, &params(&receiver, json!({}))).await.map_err(anyhow::Error::msg)?;
    assert_eq!(receiver.posted()[1].json()["test"], true);
    Ok(())
}
