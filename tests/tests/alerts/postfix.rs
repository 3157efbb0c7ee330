//! Mail, against a real Postfix.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tests::harness::Postfix;

use crate::{deliver, events, failure};

const CLASS: &str = "cloudmarker.alerts.emailalert.EmailAlert";

fn params(postfix: &Postfix, mode: &str, others: Value) -> Value {
    let port = if mode == "ssl" { postfix.implicit() } else { postfix.starttls() };
    let mut params = json!({
        "from_addr": "Cloudmarker <cloudmarker@y.test>",
        "to_addrs": ["anna@y.test", "Bert <bert@y.test>"],
        "host": "localhost",
        "port": port,
        "ssl_mode": mode,
        "ca_cert": postfix.ca_file(),
        "username": "anna",
        "password": Postfix::PASSWORD,
        "timeout": "5s",
        "patience": "1s",
    });
    if let (Some(params), Value::Object(others)) = (params.as_object_mut(), others) {
        params.extend(others);
    }
    params
}

#[tokio::test]
async fn a_mail_arrives_over_tls_of_both_kinds() -> Result<()> {
    let postfix = Postfix::start().await?;
    for (mode, found) in [("ssl", 3), ("starttls", 4)] {
        let delivery = deliver(CLASS, &params(&postfix, mode, json!({})), &events(found)).await??;
        assert_eq!(delivery.documents, u64::from(found), "{mode}");
    }
    let (anna, bert) = (postfix.mails_of("anna", 2).await?, postfix.mails_of("bert", 2).await?);
    for mails in [&anna, &bert] {
        for count in ["prod: 1 critical, 2 high", "prod: 1 critical, 3 high"] {
            let mail = mails.iter().find(|mail| mail.contains(count)).with_context(|| format!("no mail of {count}"))?;
            for said in ["From: Cloudmarker <cloudmarker@y.test>", "multipart/alternative", "The port 1 is open."] {
                assert!(mail.contains(said), "{said} is not in\n{mail}");
            }
            assert!(mail.contains("ESMTPSA"), "not over TLS with a login:\n{mail}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_receiver_whom_it_does_not_know_costs_no_other() -> Result<()> {
    let postfix = Postfix::start().await?;
    let to = json!({"to_addrs": ["nobody@y.test", "bert@y.test"]});
    let said = failure(CLASS, &params(&postfix, "starttls", to), &events(1)).await?;
    for part in ["nobody@y.test: 550", "User unknown", "1 of 2 receivers have the mail"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert_eq!(postfix.mails_of("bert", 1).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn what_is_configured_wrongly_is_said() -> Result<()> {
    let postfix = Postfix::start().await?;
    let (implicit, starttls) = (json!(postfix.implicit()), json!(postfix.starttls()));
    let wrong = [
        ("ssl", json!({"password": "hunter2"}), "refuses the login of anna: 535"),
        ("starttls", json!({"username": "nobody"}), "refuses the login of nobody: 535"),
        ("starttls", json!({"username": "", "password": ""}), "anna@y.test: 554"),
        // Modes of the other port.
        ("ssl", json!({"port": starttls}), "does not speak TLS from the first byte; set `ssl_mode: starttls`"),
        ("starttls", json!({"port": implicit}), "if the port speaks TLS from the first byte, set `ssl_mode: ssl`"),
        ("disable", json!({"ca_cert": null}), "takes no password"),
        ("disable", json!({"ca_cert": null, "username": "", "password": ""}), "530"),
        ("disable", json!({"ca_cert": null, "port": implicit}), "`ssl_mode: ssl`"),
        ("ssl", json!({"ca_cert": null}), "not to be trusted"),
    ];
    for (mode, others, expected) in wrong {
        let params = params(&postfix, mode, others.clone());
        let said = failure(CLASS, &params, &events(1)).await?;
        assert!(said.contains(expected), "{mode} {others}: {said}");
        assert!(!said.contains("hunter2") && !said.contains(Postfix::PASSWORD), "{said}");
    }
    postfix.mails_of("anna", 0).await?;
    Ok(())
}
