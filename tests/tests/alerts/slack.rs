//! Slack, against a stand-in.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tests::harness::{Launch, Program, SLACK_TOKEN, Slack};

use crate::{deliver, events, failure, key};

const CLASS: &str = "cloudmarker.alerts.slackalert.SlackAlert";

fn params(slack: &Slack, to: &[&str]) -> Value {
    json!({"bot_user_token": SLACK_TOKEN, "to": to, "text": "Attention", "base_url": slack.url(), "patience": "20s"})
}

#[tokio::test]
async fn people_and_channels_get_a_message_and_the_file() -> Result<()> {
    let slack = Slack::start().await?;
    let params = params(&slack, &["anna@example.com", "U0000BERT", "#ops"]);
    let found = events(30);
    let delivery = deliver(CLASS, &params, &found).await??;
    assert_eq!(delivery.documents, 30);
    assert!(delivery.place.contains("anna@example.com, U0000BERT, #ops"), "{}", delivery.place);
    let channels: Vec<Value> = slack.calls_of("chat.postMessage").iter().map(|call| call["channel"].clone()).collect();
    assert_eq!(channels, ["D0000ANNA", "D0000BERT", "#ops"]);
    let message = &slack.calls_of("chat.postMessage")[0];
    let text = message.to_string();
    for said in ["Attention", "prod: 8 critical, 22 high", "Ports are closed to the internet", "20 more findings"] {
        assert!(text.contains(said), "{said} is not in {text}");
    }
    let files = slack.files();
    assert_eq!(
        files.iter().map(|file| file.channel.as_str()).collect::<Vec<_>>(),
        ["D0000ANNA", "D0000BERT", "C0000OPS1"]
    );
    for file in files {
        assert_eq!(serde_json::from_slice::<Vec<Value>>(&file.content)?.len(), 30);
    }
    for upload in slack.calls_of("upload") {
        assert_eq!(upload["authorization"], false, "the token is nobody's business there");
    }
    Ok(())
}

#[tokio::test]
async fn one_receiver_who_fails_does_not_stop_the_rest() -> Result<()> {
    let slack = Slack::start().await?;
    let said =
        failure(CLASS, &params(&slack, &["nobody@example.com", "C0000NONE", "anna@example.com"]), &events(1)).await?;
    for reason in [
        "nobody@example.com: Slack's users.lookupByEmail: users_not_found",
        "C0000NONE: Slack's chat.postMessage: channel_not_found",
        "1 of 3 receivers have been told",
    ] {
        assert!(said.contains(reason), "{reason} is not in {said}");
    }
    assert_eq!(slack.files().len(), 1);
    Ok(())
}

#[tokio::test]
async fn limits_are_kept_and_nobody_is_told_twice() -> Result<()> {
    let slack = Slack::start().await?;
    slack.answer("users.lookupByEmail", 429, Some(1), json!({"ok": false, "error": "ratelimited"}));
    slack.answer("files.completeUploadExternal", 503, None, json!({}));
    slack.answer("files.getUploadURLExternal", 200, None, json!({"ok": false, "error": "internal_error"}));
    let begun = std::time::Instant::now();
    deliver(CLASS, &params(&slack, &["anna@example.com", "bert@example.com"]), &events(1)).await??;
    assert!(begun.elapsed().as_secs_f64() >= 1.0, "Retry-After is not kept");
    assert_eq!(slack.calls_of("chat.postMessage").len(), 2);
    assert_eq!(slack.files().len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_token_that_is_revoked_is_said_and_not_shown() -> Result<()> {
    let slack = Slack::start().await?;
    let mut wrong = params(&slack, &["anna@example.com", "bert@example.com"]);
    wrong["bot_user_token"] = json!("xoxb-hunter2");
    let said = failure(CLASS, &wrong, &events(1)).await?;
    assert!(said.contains("invalid_auth") && said.contains("`bot_user_token`") && !said.contains("hunter2"), "{said}");
    assert_eq!(slack.calls().len(), 1, "no other try can help");
    slack.answer("conversations.open", 200, None, json!({"ok": false, "error": "missing_scope", "needed": "im:write"}));
    let said = failure(CLASS, &params(&slack, &["U0000ANNA"]), &events(1)).await?;
    assert!(said.contains("the scope im:write"), "{said}");
    slack.answer("conversations.open", 200, None, json!("<html>"));
    let said = failure(CLASS, &params(&slack, &["U0000ANNA"]), &events(1)).await?;
    assert!(said.contains("no JSON"), "{said}");
    Ok(())
}

#[tokio::test]
async fn nothing_is_sent_about_nothing_and_a_test_is_marked() -> Result<()> {
    let slack = Slack::start().await?;
    deliver(CLASS, &params(&slack, &["#ops"]), &[]).await??;
    assert!(slack.calls().is_empty());
    alerter::trial::send(&key("alert")?, CLASS, &params(&slack, &["#ops"])).await.map_err(anyhow::Error::msg)?;
    assert!(slack.calls_of("chat.postMessage")[0].to_string().contains("This is a test message"));
    assert!(slack.files().is_empty());
    Ok(())
}

/// Slack's own clients, as `tests/setup` installs them.
fn clients() -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.testdeps/slack");
    ensure!(
        folder.join("installed.txt").is_file(),
        "Slack's clients for Python and Node are not at {}: run make test (or tests/setup), which needs Node 20",
        folder.display()
    );
    Ok(folder.canonicalize()?)
}

fn proof(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("slack").join(name)
}

/// What a client of Slack's own was told by the stand-in.
async fn told(client: Launch, slack: &Slack) -> Result<Value> {
    slack.answer("chat.postMessage", 429, Some(2), json!({"ok": false, "error": "ratelimited"}));
    let output = client.start()?.wait(Duration::from_secs(120)).await?.with_code(0)?;
    Ok(serde_json::from_str(&output.stdout)?)
}

#[tokio::test]
async fn slacks_client_for_python_takes_the_stand_in_for_slack() -> Result<()> {
    let (folder, slack) = (clients()?, Slack::start().await?);
    let client = Program::at("python3")
        .arg(proof("proof.py"))
        .args([slack.url().as_str(), SLACK_TOKEN])
        .env("PYTHONPATH", folder.join("python"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let told = told(client, &slack).await?;
    let refused = |error: &str| json!({"error": error, "status": 200, "retry_after": null});
    assert_eq!(told["limited"], json!({"error": "ratelimited", "status": 429, "retry_after": "2"}));
    assert_eq!((&told["message"], &told["files"]), (&json!(["D0000ANNA", "1.0"]), &json!(1)));
    assert_eq!(told["nobody"], refused("users_not_found"));
    assert_eq!(told["nowhere"], refused("channel_not_found"));
    assert_eq!(told["wrong_token"], refused("invalid_auth"));
    shared(&slack, "D0000ANNA", "python.csv")
}

#[tokio::test]
async fn slacks_client_for_node_takes_the_stand_in_for_slack() -> Result<()> {
    let (folder, slack) = (clients()?, Slack::start().await?);
    let client = Program::at("node").arg(proof("proof.mjs")).args([slack.url().as_str(), SLACK_TOKEN]).arg(folder);
    let told = told(client, &slack).await?;
    let refused = |error: &str| json!({"code": "slack_webapi_platform_error", "error": error, "retry_after": null});
    let limited = json!({"code": "slack_webapi_rate_limited_error", "error": null, "retry_after": 2});
    assert_eq!(told["limited"], limited);
    assert_eq!((&told["message"], &told["files"]), (&json!(["D0000BERT", "1.0"]), &json!(1)));
    assert_eq!(told["nobody"], refused("users_not_found"));
    assert_eq!(told["nowhere"], refused("channel_not_found"));
    assert_eq!(told["wrong_token"], refused("invalid_auth"));
    shared(&slack, "D0000BERT", "node.csv")
}

/// The file that a client has shared.
fn shared(slack: &Slack, channel: &str, name: &str) -> Result<()> {
    let files = slack.files();
    ensure!(files.len() == 1, "{files:?}");
    assert_eq!((files[0].channel.as_str(), files[0].name.as_str()), (channel, name));
    assert_eq!(String::from_utf8_lossy(&files[0].content), "a,b\n1,2\n");
    Ok(())
}
