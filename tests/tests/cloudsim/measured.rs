//! How fast the simulator is: it must not be what a benchmark of a collector measures.

use std::time::Instant;

use serde_json::Value;
use tests::cloudsim::{Cloudsim, Kind};

use crate::caller::Caller;

#[tokio::test]
async fn items_can_be_made_as_long_as_a_benchmark_wants_them() {
    let caller = Caller::start(Cloudsim::builder().subscriptions(1).storage_accounts(3).item_bytes(4096)).await;
    let id = caller.cloud.estate().subscription_id(0);
    let path = format!("/subscriptions/{id}/providers/Microsoft.Storage/storageAccounts?api-version=2023-05-01");
    let (accounts, _) = caller.list(&path).await;
    for account in &accounts {
        let length = account.to_string().len();
        assert!((3_900..4_400).contains(&length), "{length}");
        assert!(account["tags"].as_object().unwrap().len() <= 50);
    }
    assert_eq!(accounts, caller.cloud.estate().items(0, Kind::StorageAccount).collect::<Vec<Value>>());
}

/// Run with `--release -- --ignored --nocapture` for a number that means something.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn items_served_in_a_second() {
    const ACCOUNTS: usize = 200_000;
    let builder = Cloudsim::builder().subscriptions(1).storage_accounts(ACCOUNTS).page_size(1_000).item_bytes(4_096);
    let caller = Caller::start(builder).await;
    let id = caller.cloud.estate().subscription_id(0);
    let mut next = format!("/subscriptions/{id}/providers/Microsoft.Storage/storageAccounts?api-version=2023-05-01");
    let (begun, mut bytes, mut pages) = (Instant::now(), 0, 0);
    loop {
        let body = caller.request(&next).send().await.unwrap().bytes().await.unwrap();
        bytes += body.len();
        pages += 1;
        // The link is at the end: no need to read the whole as JSON.
        let tail = String::from_utf8_lossy(&body[body.len().saturating_sub(600)..]).into_owned();
        match tail.rsplit_once("\"nextLink\":\"") {
            Some((_, link)) => next = link.trim_end_matches("\"}").to_owned(),
            None => break,
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{pages} pages, {bytes} bytes in {seconds:.2} s: {:.0} items/s", ACCOUNTS as f64 / seconds);
    assert_eq!(pages, 200);
}
