//! The simulated activity logs under the clouds' own clients: Amazon's and Microsoft's libraries for Python find what
//! is there, and what is refused is refused in the words that they know. `tests/setup` installs the libraries.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tests::awssim::{Account, Awssim};
use tests::cloudsim::Cloudsim;
use tests::harness::{Launch, Program};

/// Much longer than it takes; a first run compiles the libraries, and the machine may be busy with other tests.
const PATIENCE: Duration = Duration::from_secs(300);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A script of `tests/sdk`, in the environment that has the libraries.
fn proof(script: &str) -> Result<Launch> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = tests.join("../.testdeps/sdk/bin/python");
    ensure!(python.is_file(), "there is no Python with the clouds' clients at {}: run tests/setup", python.display());
    Ok(Program::at(python).arg(tests.join("sdk").join(script)))
}

#[derive(Deserialize)]
struct AwsProof {
    found: BTreeMap<String, Vec<String>>,
    by_name: BTreeMap<String, Vec<String>>,
    refused: BTreeMap<String, Value>,
}

#[tokio::test]
async fn amazons_client_finds_all_events_and_knows_what_is_refused() -> Result<()> {
    let (one, two) = ("111111111111", "222222222222");
    let regions = ["us-east-1", "eu-west-1"];
    let first = Account::new(one);
    let second = Account::new(two).with_role("audit", Some("external-1"));
    let (key, secret, role) = (first.key_id.clone(), first.secret.clone(), second.role_arn("audit"));
    let aws = Awssim::builder()
        .account(first)
        .account(second)
        .regions(&regions)
        .events(230, DAY * 80)
        .calls_per_second(Some(20.0))
        .start()
        .await?;
    let launch = proof("aws_proof.py")?.args([aws.url(), key.as_str(), role.as_str(), "external-1"]);
    let output = launch.env("AWS_SECRET_ACCESS_KEY", secret).start()?.wait(PATIENCE).await?.with_code(0)?;
    let proof: AwsProof = serde_json::from_str(&output.stdout).context("what aws_proof.py prints")?;
    for (account, region) in [one, two].into_iter().flat_map(|account| regions.map(|region| (account, region))) {
        let found = &proof.found[&format!("{account}/{region}")];
        let ids: BTreeSet<String> = found.iter().cloned().collect();
        assert_eq!((ids.len(), found.len()), (230, 230), "each once");
        assert_eq!(ids, aws.event_ids(account, region, None));
        let named = &proof.by_name[&format!("{account}/{region}")];
        assert_eq!((named.len(), named.iter().all(|name| name == "CreateUser")), (23, true));
    }
    let expected = json!({
        "secret": "InvalidSignatureException",
        "key": "UnrecognizedClientException",
        "sts secret": "SignatureDoesNotMatch",
        "token": "InvalidNextTokenException",
        "times": "InvalidTimeRangeException",
        "attributes": "InvalidLookupAttributesException",
        "role": "AccessDenied",
        "most": "InvalidMaxResultsException",
        "hurry": ["ThrottlingException"],
    });
    assert_eq!(json!(proof.refused), expected);
    Ok(())
}

#[derive(Deserialize)]
struct AzureProof {
    found: BTreeMap<String, Vec<String>>,
    refused: String,
}

#[tokio::test]
async fn microsofts_client_finds_all_events() -> Result<()> {
    let azure = Cloudsim::builder().subscriptions(2).page_size(40).activity(130, DAY * 80).tls().start().await?;
    let folder = tempfile::tempdir()?;
    let authority = folder.path().join("ca.pem");
    std::fs::write(&authority, azure.ca_pem().context("it speaks https")?)?;
    let ids: Vec<String> = (0..2).map(|subscription| azure.estate().subscription_id(subscription)).collect();
    let launch = proof("azure_activity_proof.py")?.args([azure.url(), &*authority.display().to_string()]);
    let launch = launch.args([azure.tenant(), azure.client_id()]).args(ids.clone());
    let output =
        launch.env("AZURE_CLIENT_SECRET", azure.client_secret()).start()?.wait(PATIENCE).await?.with_code(0)?;
    let proof: AzureProof = serde_json::from_str(&output.stdout).context("what azure_activity_proof.py prints")?;
    for (subscription, id) in ids.iter().enumerate() {
        let found: BTreeSet<&String> = proof.found[id].iter().collect();
        let truth = azure.activity(subscription);
        let truth: BTreeSet<String> =
            truth.iter().filter_map(|event| event["eventDataId"].as_str()).map(str::to_owned).collect();
        assert_eq!((found.len(), proof.found[id].len()), (130, 130), "each once");
        assert!(truth.iter().all(|id| found.contains(id)));
    }
    assert!(proof.refused.contains("$filter"), "{}", proof.refused);
    Ok(())
}
