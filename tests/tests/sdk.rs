//! The simulated clouds under the clouds' own clients: Microsoft's and Google's libraries for Python list
//! everything in them and find what is there. `tests/setup` installs the libraries.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;
use tests::cloudsim::{Cloudsim, Kind, Times, Trouble};
use tests::gcpsim::Gcpsim;
use tests::harness::{Launch, Program};

/// Much longer than it takes; a first run compiles the libraries, and the machine may be busy with other tests.
const PATIENCE: Duration = Duration::from_secs(300);

/// A script of `tests/sdk`, in the environment that has the libraries.
fn proof(script: &str) -> Result<Launch> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python: PathBuf = tests.join("../.testdeps/sdk/bin/python");
    ensure!(
        python.is_file(),
        "there is no Python with the Azure and Google clients at {}: run make test (or tests/setup)",
        python.display()
    );
    Ok(Program::at(python).arg(tests.join("sdk").join(script)))
}

/// What Microsoft's clients found: ids by kind. After the id of a detail comes what they read of it.
#[derive(Deserialize)]
struct AzureProof {
    found: BTreeMap<String, Vec<String>>,
    refusal: String,
    /// Where answers do not fit the clients' models.
    misfits: Vec<String>,
    /// How many objects were held against a model.
    judged: usize,
}

/// What there is, in the form of [`AzureProof::found`].
fn azure_truth(cloud: &Cloudsim) -> BTreeMap<String, Vec<String>> {
    let estate = cloud.estate();
    let mut truth = BTreeMap::<String, Vec<String>>::new();
    let mut note = |kind: &str, text: String| truth.entry(kind.to_owned()).or_default().push(text);
    for subscription in 0..cloud.truth().subscriptions {
        note("Subscription", estate.subscription(subscription).id().to_owned());
        for kind in Kind::ALL {
            for (index, item) in estate.items(subscription, kind).enumerate() {
                let name = format!("{kind:?}");
                if let (Some(read), Some(parent)) = (read_of(kind, &item), kind.parent()) {
                    let parent = estate.item(subscription, parent, estate.parent(subscription, kind, index));
                    note(&name, [vec![text(&parent["id"])], read].concat().join(" "));
                    continue;
                }
                let field = if kind == Kind::VaultKey { "kid" } else { "id" };
                note(&name, text(&item[field]));
                for rule in item["properties"]["securityRules"].as_array().into_iter().flatten() {
                    note("SecurityRule", text(&rule["id"]));
                }
            }
        }
    }
    truth
}

/// What the clients are to read of a detail; none for what is no detail.
fn read_of(kind: Kind, item: &Value) -> Option<Vec<String>> {
    let of_each =
        |items: &Value, field: &str| items.as_array().into_iter().flatten().map(|one| text(&one[field])).collect();
    let property = |name: &str| item["properties"][name].as_str().map(str::to_owned).into_iter().collect();
    match kind {
        Kind::InstanceView => Some(of_each(&item["statuses"], "code")),
        Kind::MysqlFlexibleConfigurations | Kind::PostgresqlConfigurations | Kind::PostgresqlFlexibleConfigurations => {
            Some(of_each(item, "name"))
        }
        Kind::TransparentDataEncryption => Some(property("state")),
        Kind::WebConfiguration => Some(property("minTlsVersion")),
        _ => None,
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort();
    ids
}

#[tokio::test]
async fn microsofts_clients_find_all_of_the_simulated_azure() -> Result<()> {
    let cloud = Cloudsim::builder()
        .tls()
        .page_size(2)
        .machines(5)
        .disks(4)
        .network_interfaces(3)
        .storage_accounts(5)
        .keys(5)
        .diagnostic_settings(2)
        // The first request of the first subscription.
        .faults(|faults| faults.trouble(0, Trouble::Throttled, Times::Next(1)))
        .start()
        .await?;
    let folder = tempfile::tempdir()?;
    let authority = folder.path().join("ca.pem");
    std::fs::write(&authority, cloud.ca_pem().context("the cloud speaks no TLS")?)?;

    let mut clients = proof("azure_proof.py")?
        .args([cloud.url(), &authority.to_string_lossy(), cloud.tenant(), cloud.client_id()])
        .env("AZURE_CLIENT_SECRET", cloud.client_secret())
        .start()?;
    let output = clients.wait(PATIENCE).await?.with_code(0)?;
    let proof: AzureProof = serde_json::from_str(&output.stdout)?;

    let truth = azure_truth(&cloud);
    let counts = |all: &BTreeMap<String, Vec<String>>| -> BTreeMap<String, usize> {
        all.iter().map(|(kind, ids)| (kind.clone(), ids.len())).collect()
    };
    println!("{:?}", counts(&proof.found));
    assert_eq!(counts(&proof.found), counts(&truth));
    let inventory = cloud.inventory();
    for kind in Kind::ALL {
        assert_eq!(proof.found[&format!("{kind:?}")].len(), inventory.of(kind), "{kind:?}");
    }
    assert_eq!(proof.found["SecurityRule"].len(), cloud.truth().rules);
    for (kind, ids) in truth {
        assert_eq!(sorted(proof.found[&kind].clone()), sorted(ids), "{kind}");
    }
    // The service answers this field, and its definition does not know it.
    assert_eq!(proof.misfits, ["WebConfiguration: SiteConfigResource has no location"]);
    assert!(proof.judged > 500, "{}", proof.judged);
    assert!(proof.refusal.contains("AADSTS7000215"), "{}", proof.refusal);
    assert_eq!(cloud.statistics().throttled, 1);
    cloud.stop().await
}

/// What Google's clients found, each of them.
#[derive(Deserialize)]
struct GoogleProof {
    projects: usize,
    firewalls: usize,
    rules: usize,
    instances: usize,
    unreadable_projects: Vec<String>,
    clients: Vec<String>,
    answers_judged: usize,
}

#[tokio::test]
async fn googles_clients_find_all_of_the_simulated_google_cloud() -> Result<()> {
    let cloud = Gcpsim::builder()
        .projects(5)
        .page_size(4)
        .instances_in(1, 31)
        .instances_in(2, 0)
        .faults(|faults| {
            faults.deny(0);
        })
        .start()
        .await?;
    let folder = tempfile::tempdir()?;
    let key_file = folder.path().join("key.json");
    std::fs::write(&key_file, cloud.key_file())?;

    let arguments = [cloud.url().to_owned(), key_file.to_string_lossy().into_owned()];
    let mut clients = proof("google_proof.py")?.args(arguments.clone()).start()?;
    let output = clients.wait(PATIENCE).await?.with_code(0)?;
    println!("{}", output.stdout);
    let found: GoogleProof = serde_json::from_str(&output.stdout)?;

    let readable = cloud.readable();
    assert_eq!(found.projects, cloud.truth().projects);
    assert_eq!(
        (found.firewalls, found.rules, found.instances),
        (readable.firewalls, readable.rules, readable.instances)
    );
    assert!(readable.firewalls < cloud.truth().firewalls && readable.instances > 31);
    // The first one is denied, the last one about to be deleted.
    let ids: Vec<String> = cloud.listed_projects().iter().map(|project| text(&project["projectId"])).collect();
    assert_eq!(found.unreadable_projects, sorted(vec![ids[0].clone(), ids[4].clone()]));
    assert_eq!(found.clients, ["discovery", "generated", "generated_self_signed", "raw"]);
    assert!(found.answers_judged > 50, "{}", found.answers_judged);

    std::fs::write(&key_file, cloud.wrong_key_file())?;
    let mut refused = proof("google_proof.py")?.args(arguments).start()?;
    let output = refused.wait(PATIENCE).await?.with_code(1)?;
    assert!(output.stderr.contains("RefreshError"), "{}", output.stderr);
    assert!(output.stderr.contains("Invalid JWT Signature"), "{}", output.stderr);
    cloud.stop().await
}
