//! Whole runs against the simulated Azure, signed in in every way that there is: each reads all, and one that is
//! wrong says so once and shows nothing of what is secret.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tests::cloudsim::{Builder, Cloudsim};
use tests::harness::{Output, Workspace};

const SCOPE: &str = "https://management.azure.com/.default";
/// What a federated identity provider might have given out.
const FEDERATED: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzeXN0ZW06cG9kIn0.c2lnbmF0dXJl";

/// Nothing but what the sign-in needs: a list, and lists that hang on it.
fn builder() -> Builder {
    Cloudsim::builder().mysql_servers(0)
}

/// A run with these parameters beside the endpoints, and the documents that it stored.
async fn run(azure: &Cloudsim, params: Value, environment: &[(&str, &str)]) -> Result<(Output, Vec<Value>)> {
    let workspace = Workspace::new("{}")?;
    let mut all = json!({"login_endpoint": azure.url(), "arm_endpoint": azure.url()});
    for (name, value) in params.as_object().context("parameters are a mapping")? {
        all[name] = value.clone();
    }
    let configuration = json!({
        "plugins": {
            "azure": {"plugin": "cloudmarker.clouds.azcloud.AzCloud", "params": all},
            "filestore": {"params": {"path": workspace.out()}},
        },
        "audits": {"audit": {"clouds": ["azure"], "stores": ["filestore"], "events": [], "alerts": []}},
        "run": ["audit"],
    });
    workspace.configure(&configuration.to_string())?;
    let run = workspace.coordinator(&["run", "--now", "-c", "cloudmarker.yaml"]);
    let run = environment.iter().fold(run, |run, (name, value)| run.env(*name, *value));
    let output = run.start()?.wait(Duration::from_secs(60)).await?;
    let documents = workspace.documents("audit_azure.json").unwrap_or_default();
    Ok((output, documents))
}

async fn reads_all(azure: &Cloudsim, params: Value, environment: &[(&str, &str)]) -> Result<()> {
    let (output, documents) = run(azure, params, environment).await?;
    let output = output.with_code(0)?;
    let of = |kind: &str| documents.iter().filter(|document| document["ext"]["record_type"] == kind).count();
    let truth = azure.truth();
    assert_eq!((of("subscription"), of("nsg")), (truth.subscriptions, truth.nsgs), "{output:?}");
    shows_no_secret(azure, &output);
    Ok(())
}

/// The run fails, and its summary says this.
async fn fails_with(azure: &Cloudsim, params: Value, environment: &[(&str, &str)], parts: &[&str]) -> Result<()> {
    let (output, documents) = run(azure, params, environment).await?;
    let output = output.with_code(3)?;
    for part in parts {
        assert_eq!(output.stdout.matches(part).count(), 1, "{part}: {output:?}");
    }
    assert!(documents.is_empty());
    shows_no_secret(azure, &output);
    Ok(())
}

fn shows_no_secret(azure: &Cloudsim, output: &Output) {
    for secret in [azure.client_secret(), azure.identity_header(), FEDERATED, "cloudsim.", "BEGIN PRIVATE", "eyJ"] {
        assert!(!output.stdout.contains(secret) && !output.stderr.contains(secret), "{secret}: {output:?}");
    }
}

fn certificate(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../collector/tests/data/certificates").join(name)
}

fn application(azure: &Cloudsim, more: Value) -> Value {
    let mut params = json!({"tenant": azure.tenant(), "client": azure.client_id()});
    for (name, value) in more.as_object().into_iter().flatten() {
        params[name] = value.clone();
    }
    params
}

#[tokio::test]
async fn by_a_certificate() -> Result<()> {
    let pem = std::fs::read_to_string(certificate("pkcs1.pem"))?;
    let azure = builder().certificate(pem.as_str()).start().await?;
    for file in ["pkcs1.pem", "pkcs8.pem"] {
        reads_all(&azure, application(&azure, json!({"certificate": certificate(file)})), &[]).await?;
    }
    let by_reference = application(&azure, json!({"certificate": "${CM_CERTIFICATE}"}));
    reads_all(&azure, by_reference, &[("CM_CERTIFICATE", &pem)]).await?;

    let none = application(&azure, json!({"certificate": "none.pem"}));
    fails_with(&azure, none, &[], &["none.pem cannot be read: No such file"]).await?;
    let encrypted = application(&azure, json!({"certificate": certificate("encrypted.pem")}));
    fails_with(&azure, encrypted, &[], &["encrypted keys are not taken"]).await?;
    let strange = builder().start().await?;
    let unknown = application(&strange, json!({"certificate": certificate("pkcs8.pem")}));
    fails_with(&strange, unknown, &[], &["401 AADSTS700027", "add the certificate of `certificate` to the application"])
        .await
}

#[tokio::test]
async fn by_a_workload_identity() -> Result<()> {
    let azure = builder().federated_token(FEDERATED).start().await?;
    let folder = tempfile::tempdir()?;
    let (file, other) = (folder.path().join("token"), folder.path().join("other"));
    std::fs::write(&file, format!("{FEDERATED}\n"))?;
    std::fs::write(&other, FEDERATED.replace('.', "x."))?;
    let text = file.to_str().context("a path")?;
    let explicit = application(&azure, json!({"credential": "workload_identity", "token_file": text}));
    reads_all(&azure, explicit, &[]).await?;
    let surroundings = [
        ("AZURE_TENANT_ID", azure.tenant()),
        ("AZURE_CLIENT_ID", azure.client_id()),
        ("AZURE_FEDERATED_TOKEN_FILE", text),
    ];
    let by_surroundings = json!({"credential": "workload_identity"});
    reads_all(&azure, by_surroundings.clone(), &surroundings).await?;

    fails_with(&azure, by_surroundings, &surroundings[..2], &["set `token_file`"]).await?;
    let untrusted = application(&azure, json!({"credential": "workload_identity", "token_file": other}));
    fails_with(
        &azure,
        untrusted,
        &[],
        &["AADSTS70021: No matching federated", "give the application a federated credential"],
    )
    .await
}

#[tokio::test]
async fn by_the_identity_of_a_machine() -> Result<()> {
    let azure = builder().start().await?;
    let machine = |more: Value| {
        let mut params = json!({"credential": "managed_identity", "identity_endpoint": azure.url()});
        for (name, value) in more.as_object().into_iter().flatten() {
            params[name] = value.clone();
        }
        params
    };
    reads_all(&azure, machine(json!({})), &[]).await?;
    reads_all(&azure, machine(json!({"client": azure.client_id()})), &[]).await?;
    assert!(azure.statistics().token_requests == 0);

    fails_with(&azure, machine(json!({"client": "c"})), &[], &["400 Identity not found (assign the identity"]).await?;
    let away = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        format!("http://{}", listener.local_addr()?)
    };
    fails_with(&azure, machine(json!({"identity_endpoint": away})), &[], &["there is no managed identity here"]).await
}

#[tokio::test]
async fn by_the_identity_of_an_app() -> Result<()> {
    let azure = builder().start().await?;
    let (endpoint, header) = (azure.identity_endpoint(), azure.identity_header().to_owned());
    let app = |header| [("IDENTITY_ENDPOINT", endpoint.as_str()), ("IDENTITY_HEADER", header)];
    let params = json!({"credential": "managed_identity"});
    reads_all(&azure, params.clone(), &app(&header)).await?;
    fails_with(
        &azure,
        params.clone(),
        &app("another-header"),
        &["/msi/token: 401 The X-IDENTITY-HEADER is missing or wrong. (the environment variable IDENTITY_HEADER"],
    )
    .await?;
    let arc = [("IDENTITY_ENDPOINT", endpoint.as_str()), ("IMDS_ENDPOINT", endpoint.as_str())];
    fails_with(&azure, params, &arc, &["the managed identity of Azure Arc is not supported"]).await
}

#[tokio::test]
async fn by_the_azure_cli() -> Result<()> {
    let azure = builder().start().await?;
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("az");
    let az = |script: String| -> Result<()> {
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n"))?;
        Ok(std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?)
    };
    let path = folder.path().to_str().context("a path")?;
    let params = json!({"credential": "azure_cli", "tenant": azure.tenant()});
    // What it would answer, from where it would ask for it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", azure.client_id()),
        ("client_secret", azure.client_secret()),
        ("scope", SCOPE),
    ];
    let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let request = reqwest::Client::new().post(format!("{}/{}/oauth2/v2.0/token", azure.url(), azure.tenant()));
    let request = request.header("content-type", "application/x-www-form-urlencoded").body(form);
    let answer: Value = serde_json::from_str(&request.send().await?.text().await?)?;
    let until = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs() + 3000;
    let said = json!({"accessToken": answer["access_token"], "expires_on": until, "tokenType": "Bearer"});
    az(format!("echo '{said}'"))?;
    reads_all(&azure, params.clone(), &[("PATH", path)]).await?;

    az("echo \"ERROR: Please run 'az login' to setup account.\" >&2; exit 1".to_owned())?;
    fails_with(&azure, params.clone(), &[("PATH", path)], &["Please run 'az login' to setup account."]).await?;
    std::fs::remove_file(&program)?;
    fails_with(&azure, params, &[("PATH", path)], &["`az` is not installed here: install the Azure CLI"]).await
}

#[tokio::test]
async fn tokens_that_expire_during_the_run_are_replaced() -> Result<()> {
    let builder = builder().subscriptions(4).nsgs(12).page_size(2).token_lifetime(Duration::from_secs(2));
    let azure = builder.faults(|faults| faults.expire_tokens_after = Some(5)).start().await?;
    let params = application(&azure, json!({"secret": azure.client_secret()}));
    reads_all(&azure, params, &[]).await?;
    reads_all(&azure, json!({"credential": "managed_identity", "identity_endpoint": azure.url()}), &[]).await
}

#[tokio::test]
async fn without_a_hint_the_ways_are_told() -> Result<()> {
    let azure = builder().start().await?;
    let (output, _) = run(&azure, json!({}), &[]).await?;
    assert_ne!(output.code(), Some(0));
    for part in ["plugins.azure.params.credential: say how to sign in", "`managed_identity`", "`azure_cli`"] {
        assert!(output.stderr.contains(part) || output.stdout.contains(part), "{part}: {output:?}");
    }
    Ok(())
}
