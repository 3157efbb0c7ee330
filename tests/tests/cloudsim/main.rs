//! The simulated cloud, seen through its socket: what a client gets is what the truth says, and each
//! fault looks as it does in Azure.

#![allow(clippy::unwrap_used, reason = "the whole file is tests; the lint knows test functions only")]

mod caller;
mod measured;
mod resources;
mod sign_in;
mod troubles;
mod vaults;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;
use tests::cloudsim::{Cloudsim, Times, Trouble};
use url::Url;

use caller::{Answer, Caller, SCOPE, client};

const SUBSCRIPTIONS: &str = "/subscriptions?api-version=2022-12-01";

fn ids(items: &[Value]) -> HashSet<String> {
    items.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

fn rules_of(nsg: &Value) -> &Vec<Value> {
    nsg["properties"]["securityRules"].as_array().unwrap()
}

#[tokio::test]
async fn pages_add_up_to_the_truth() {
    let caller =
        Caller::start(Cloudsim::builder().subscriptions(7).nsgs(25).nsgs_in(3, 0).nsgs_in(4, 20).rules(3).page_size(3))
            .await;
    let (subscriptions, pages) = caller.list(SUBSCRIPTIONS).await;
    assert_eq!(pages, 3);
    let truth = caller.cloud.truth();
    assert_eq!(subscriptions.len(), truth.subscriptions);

    let (mut nsgs, mut rules, mut seen) = (0, 0, HashSet::new());
    for (index, subscription) in subscriptions.iter().enumerate() {
        let id = caller.cloud.estate().subscription_id(index);
        assert_eq!(subscription["subscriptionId"], id.as_str());
        let (listed, _) = caller.list(&caller.nsgs_path(index)).await;
        let counts = caller.cloud.estate().counts_of(index);
        assert_eq!(listed.len(), counts.nsgs);
        let expected: HashSet<String> = (0..counts.nsgs).map(|nsg| caller.cloud.estate().nsg_id(index, nsg)).collect();
        assert_eq!(ids(&listed), expected);
        nsgs += listed.len();
        for nsg in &listed {
            rules += rules_of(nsg).len();
            seen.extend(ids(rules_of(nsg)));
        }
    }
    assert_eq!(nsgs, truth.nsgs);
    assert_eq!(rules, truth.rules);
    assert_eq!(seen.len(), truth.rules, "rule ids are unique");
    assert_eq!(truth, caller.cloud.readable());

    let statistics = caller.cloud.statistics();
    assert_eq!(statistics.tokens_issued, 1);
    assert_eq!(statistics.subscription_list_requests, 3);
    assert_eq!(statistics.nsg_list_requests, 5 * 9 + 1 + 7);
    assert_eq!(statistics.pages_served, statistics.arm_requests());
}

#[tokio::test]
async fn the_same_seed_gives_the_same_cloud_and_another_seed_another() {
    let listed = async |seed| {
        let caller = Caller::start(Cloudsim::builder().seed(seed)).await;
        caller.list(&caller.nsgs_path(1)).await.0
    };
    let first = listed(7).await;
    assert_eq!(first, listed(7).await);
    assert_ne!(first, listed(8).await);
}

#[tokio::test]
async fn answers_have_the_published_fields() {
    let caller = Caller::start(Cloudsim::builder()).await;
    let fields = |value: &Value| -> HashSet<String> { value.as_object().unwrap().keys().cloned().collect() };
    let set = |names: &[&str]| -> HashSet<String> { names.iter().map(|name| (*name).to_owned()).collect() };
    let (subscriptions, _) = caller.list(SUBSCRIPTIONS).await;
    let wanted = set(&[
        "id",
        "authorizationSource",
        "managedByTenants",
        "subscriptionId",
        "tenantId",
        "displayName",
        "state",
        "subscriptionPolicies",
        "tags",
    ]);
    assert_eq!(fields(&subscriptions[0]), wanted);
    let policies = &subscriptions[0]["subscriptionPolicies"];
    assert_eq!(fields(policies), set(&["locationPlacementId", "quotaId", "spendingLimit"]));
    assert_eq!(subscriptions[0]["tenantId"], caller.cloud.tenant());

    let (nsgs, _) = caller.list(&caller.nsgs_path(0)).await;
    let wanted = set(&["id", "name", "type", "etag", "location", "tags", "properties"]);
    assert_eq!(fields(&nsgs[0]), wanted);
    let properties = &nsgs[0]["properties"];
    let wanted = set(&[
        "provisioningState",
        "resourceGuid",
        "flushConnection",
        "securityRules",
        "defaultSecurityRules",
        "networkInterfaces",
        "subnets",
        "flowLogs",
    ]);
    assert_eq!(fields(properties), wanted);
    let id = caller.cloud.estate().subscription_id(0);
    assert_eq!(
        nsgs[0]["id"],
        format!("/subscriptions/{id}/resourceGroups/rg1/providers/Microsoft.Network/networkSecurityGroups/nsg1")
    );
    assert_eq!(properties["defaultSecurityRules"].as_array().unwrap().len(), 6);

    let always = set(&[
        "provisioningState",
        "protocol",
        "access",
        "priority",
        "direction",
        "sourcePortRanges",
        "destinationPortRanges",
        "sourceAddressPrefixes",
        "destinationAddressPrefixes",
    ]);
    for rule in nsgs.iter().flat_map(rules_of) {
        assert_eq!(fields(rule), set(&["id", "name", "etag", "type", "properties"]));
        assert!(fields(&rule["properties"]).is_superset(&always), "{rule}");
        let priority = rule["properties"]["priority"].as_u64().unwrap();
        assert!((100..=4096).contains(&priority));
    }
}

#[tokio::test]
async fn every_kind_of_rule_comes_up_and_each_subscription_exposes_something() {
    let caller = Caller::start(Cloudsim::builder().nsgs(20).rules(10)).await;
    for subscription in 0..3 {
        let estate = caller.cloud.estate();
        let first = estate.nsg(subscription, 0);
        assert!((1..=u16::MAX).any(|port| first.security_rules()[0].exposes(port)));
    }
    let (nsgs, _) = caller.list(&caller.nsgs_path(0)).await;
    let rules: Vec<&Value> = nsgs.iter().flat_map(rules_of).collect();
    let some = |field: &str, value: &str| rules.iter().any(|rule| rule["properties"][field] == value);
    for (field, value) in [
        ("direction", "Outbound"),
        ("access", "Deny"),
        ("protocol", "TCP"),
        ("sourceAddressPrefix", "*"),
        ("sourceAddressPrefix", "Internet"),
        ("sourceAddressPrefix", "0.0.0.0/0"),
        ("sourceAddressPrefix", "10.0.0.0/8"),
        ("destinationPortRange", "22"),
    ] {
        assert!(some(field, value), "{field} {value}");
    }
    for list in [
        "destinationPortRanges",
        "sourceAddressPrefixes",
        "destinationAddressPrefixes",
        "sourceApplicationSecurityGroups",
    ] {
        let filled = |rule: &&Value| rule["properties"][list].get(0).is_some();
        assert!(rules.iter().any(filled), "{list}");
    }
}

#[tokio::test]
async fn sign_in_is_refused_as_entra_id_refuses_it() {
    let caller = Caller::start(Cloudsim::builder()).await;
    let cloud = &caller.cloud;
    let (tenant, id, secret) = (cloud.tenant(), cloud.client_id(), cloud.client_secret());
    let nobody = "00000000-0000-0000-0000-000000000000";
    for (answer, status, error, number) in [
        (caller.ask_token(tenant, id, "wrong", SCOPE).await, StatusCode::UNAUTHORIZED, "invalid_client", 7_000_215),
        (
            caller.ask_token(tenant, nobody, secret, SCOPE).await,
            StatusCode::BAD_REQUEST,
            "unauthorized_client",
            700_016,
        ),
        (caller.ask_token(nobody, id, secret, SCOPE).await, StatusCode::BAD_REQUEST, "invalid_request", 90_002),
        (caller.ask_token(tenant, id, secret, "openid").await, StatusCode::BAD_REQUEST, "invalid_scope", 1_002_012),
        (caller.ask_token(tenant, id, "", SCOPE).await, StatusCode::BAD_REQUEST, "invalid_request", 900_144),
    ] {
        assert_eq!(answer.status, status, "{}", answer.body);
        assert_eq!(answer.body["error"], error);
        assert_eq!(answer.body["error_codes"][0], number);
        let text = answer.body["error_description"].as_str().unwrap();
        assert!(text.starts_with(&format!("AADSTS{number}: ")), "{text}");
        for field in ["timestamp", "trace_id", "correlation_id", "error_uri"] {
            assert!(answer.body[field].is_string(), "{field}");
        }
    }
    let statistics = cloud.statistics();
    assert_eq!((statistics.token_requests, statistics.tokens_issued), (6, 1));
}

#[tokio::test]
async fn a_login_library_finds_the_token_endpoint() {
    let caller = Caller::start(Cloudsim::builder()).await;
    let (url, tenant) = (caller.cloud.url(), caller.cloud.tenant());
    let instance = caller.get("/common/discovery/instance?api-version=1.1").await;
    let configuration = instance.body["tenant_discovery_endpoint"].as_str().unwrap();
    let configuration = caller.get(configuration).await;
    assert_eq!(configuration.body["token_endpoint"], format!("{url}/{tenant}/oauth2/v2.0/token"));
    let stranger = caller.get("/contoso/v2.0/.well-known/openid-configuration").await;
    assert_eq!(stranger.status, StatusCode::BAD_REQUEST);
    assert_eq!(stranger.body["error"], "invalid_tenant");
}

#[tokio::test]
async fn without_a_good_token_nothing_is_answered() {
    let mut caller = Caller::start(Cloudsim::builder()).await;
    let good = caller.token.clone();
    let expect = |answer: &Answer, code: &str| {
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert_eq!(answer.code(), code);
        let challenge = answer.header("www-authenticate");
        let authority = format!("{}/{}", caller.cloud.url(), caller.cloud.tenant());
        let wanted = format!("Bearer authorization_uri=\"{authority}\"");
        assert!(challenge.starts_with(&wanted), "{challenge}");
    };
    let url = format!("{}{SUBSCRIPTIONS}", caller.cloud.url());
    let bare = caller.http.get(&url).send().await.unwrap();
    expect(&Answer::read(bare).await, "AuthenticationFailed");
    let basic = caller.http.get(&url).basic_auth("a", Some("b"));
    expect(&Answer::read(basic.send().await.unwrap()).await, "AuthenticationFailedInvalidHeader");
    let unknown = caller.http.get(&url).bearer_auth("made-up");
    expect(&Answer::read(unknown.send().await.unwrap()).await, "InvalidAuthenticationToken");
    let cloud = &caller.cloud;
    let vault = caller
        .ask_token(cloud.tenant(), cloud.client_id(), cloud.client_secret(), "https://vault.azure.net/.default")
        .await;
    let vault = vault.body["access_token"].as_str().unwrap();
    let foreign = caller.http.get(&url).bearer_auth(vault);
    expect(&Answer::read(foreign.send().await.unwrap()).await, "InvalidAuthenticationTokenAudience");
    cloud.expire_tokens();
    let expired = caller.get(SUBSCRIPTIONS).await;
    expect(&expired, "ExpiredAuthenticationToken");
    assert!(expired.message().contains("is earlier than current UTC time"));
    assert_eq!(cloud.statistics().unauthorized, 5);

    caller.sign_in().await;
    assert_ne!(caller.token, good);
    assert_eq!(caller.get(SUBSCRIPTIONS).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_token_for_the_servers_own_address_is_good_by_either_name() {
    let mut caller = Caller::start(Cloudsim::builder().page_size(1)).await;
    let port = Url::parse(caller.cloud.url()).unwrap().port().unwrap();
    let localhost = format!("http://localhost:{port}");
    let cloud = &caller.cloud;
    let (tenant, id, secret) = (cloud.tenant(), cloud.client_id(), cloud.client_secret());
    let own = format!("{}/.default", cloud.url());
    let own = caller.ask_token(tenant, id, secret, &own).await;
    let named = format!("{localhost}/.default");
    let named = caller.ask_token(tenant, id, secret, &named).await;
    caller.token = own.body["access_token"].as_str().unwrap().to_owned();
    let answer = caller.get(SUBSCRIPTIONS).await;
    let next = answer.body["nextLink"].as_str().unwrap();
    assert!(next.starts_with(caller.cloud.url()), "{next}");
    caller.token = named.body["access_token"].as_str().unwrap().to_owned();
    let request = caller.request(SUBSCRIPTIONS).header("host", format!("localhost:{port}"));
    let answer = Answer::read(request.send().await.unwrap()).await;
    let next = answer.body["nextLink"].as_str().unwrap();
    assert!(next.starts_with(&localhost), "{next}");
}

#[tokio::test]
async fn a_token_of_another_cloud_is_unknown() {
    let mut caller = Caller::start(Cloudsim::builder()).await;
    let other = Caller::start(Cloudsim::builder()).await;
    caller.token = other.token;
    let answer = caller.get(SUBSCRIPTIONS).await;
    assert_eq!(answer.code(), "InvalidAuthenticationToken");
}

#[tokio::test]
async fn a_token_without_a_lifetime_is_expired_at_once() {
    let caller = Caller::start(Cloudsim::builder().token_lifetime(Duration::ZERO)).await;
    let answer = caller.get(SUBSCRIPTIONS).await;
    assert_eq!(answer.code(), "ExpiredAuthenticationToken");
}

#[tokio::test]
async fn a_token_can_expire_between_two_pages() {
    let mut caller = Caller::start(Cloudsim::builder().page_size(2).faults(|faults| {
        faults.expire_tokens_after = Some(1);
    }))
    .await;
    let first = caller.get(&caller.nsgs_path(0)).await;
    assert_eq!(first.status, StatusCode::OK);
    let next = first.body["nextLink"].as_str().unwrap();
    let second = caller.get(next).await;
    assert_eq!(second.code(), "ExpiredAuthenticationToken");
    caller.sign_in().await;
    let (rest, _) = caller.list(next).await;
    assert_eq!(rest.len(), 3);
}

#[tokio::test]
async fn a_forbidden_subscription_is_listed_but_cannot_be_read() {
    let caller = Caller::start(Cloudsim::builder().faults(|faults| faults.forbid(1))).await;
    let (subscriptions, _) = caller.list(SUBSCRIPTIONS).await;
    assert_eq!(subscriptions.len(), 3);
    let answer = caller.get(&caller.nsgs_path(0)).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert_eq!(answer.code(), "AuthorizationFailed");
    let start = format!("The client '{}' with object id '", caller.cloud.client_id());
    assert!(answer.message().starts_with(&start), "{}", answer.message());
    let id = caller.cloud.estate().subscription_id(0);
    let rest = format!(
        "does not have authorization to perform action 'Microsoft.Network/networkSecurityGroups/read' over scope '/subscriptions/{id}/providers/Microsoft.Network' or the scope is invalid. If access was recently granted, please refresh your credentials."
    );
    assert!(answer.message().ends_with(&rest), "{}", answer.message());
    assert_eq!(caller.cloud.readable().nsgs, 10);
    assert_eq!(caller.cloud.truth().nsgs, 15);

    caller.cloud.faults(|faults| faults.subscriptions.clear());
    assert_eq!(caller.list(&caller.nsgs_path(0)).await.0.len(), 5);
    assert_eq!(caller.cloud.readable(), caller.cloud.truth());
}

#[tokio::test]
async fn what_is_not_there_is_refused_in_resource_managers_shape() {
    let caller = Caller::start(Cloudsim::builder()).await;
    let own = caller.cloud.estate().subscription_id(0);
    let nobody = "00000000-0000-0000-0000-000000000000";
    let nsgs = "providers/Microsoft.Network/networkSecurityGroups";
    for (path, status, code) in [
        ("/subscriptions".to_owned(), 400, "MissingApiVersionParameter"),
        ("/subscriptions?api-version=latest".to_owned(), 400, "InvalidApiVersionParameter"),
        (format!("/subscriptions/{nobody}/{nsgs}?api-version=2024-05-01"), 404, "SubscriptionNotFound"),
        (format!("/subscriptions/production/{nsgs}?api-version=2024-05-01"), 400, "InvalidSubscriptionId"),
        (
            format!("/subscriptions/{own}/providers/Microsoft.Nothing/things?api-version=2024-05-01"),
            404,
            "InvalidResourceType",
        ),
        ("/tenants?api-version=2022-12-01".to_owned(), 404, "MissingSubscription"),
        (format!("/subscriptions/{own}/{nsgs}?api-version=2024-05-01&$skiptoken=2"), 400, "InvalidSkipToken"),
    ] {
        let answer = caller.get(&path).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.code(), code, "{path}");
    }
    let posted = caller.http.post(format!("{}{SUBSCRIPTIONS}", caller.cloud.url()));
    let posted = Answer::read(posted.send().await.unwrap()).await;
    assert_eq!(posted.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn paths_and_parameters_are_read_in_any_case() {
    let caller = Caller::start(Cloudsim::builder().page_size(2)).await;
    let id = caller.cloud.estate().subscription_id(1).to_uppercase();
    let path = format!("/SUBSCRIPTIONS/{id}/Providers/microsoft.network/NetworkSecurityGroups?API-version=2026-03-01");
    assert_eq!(caller.list(&path).await, caller.list(&caller.nsgs_path(1)).await);
    let one = caller.get(&format!("/subscriptions/{id}?api-version=2022-12-01")).await;
    assert_eq!(one.body["displayName"], "Simulated Subscription 2");
}

#[tokio::test]
async fn every_nth_request_is_throttled() {
    let caller = Caller::start(Cloudsim::builder().faults(|faults| {
        faults.throttle_every = 3;
        faults.retry_after = 17;
    }))
    .await;
    let path = caller.nsgs_path(0);
    for round in 1..=6 {
        let answer = caller.get(&path).await;
        if round % 3 != 0 {
            assert_eq!(answer.status, StatusCode::OK);
            continue;
        }
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(answer.header("retry-after"), "17");
        assert_eq!(answer.code(), "SubscriptionRequestsThrottled");
        let id = caller.cloud.estate().subscription_id(0);
        let start = format!("Number of 'read' requests for subscription '{id}' actor '");
        assert!(answer.message().starts_with(&start), "{}", answer.message());
    }
    assert_eq!(caller.cloud.statistics().throttled, 2);

    caller.cloud.faults(|faults| faults.throttle_every = 1);
    assert_eq!(caller.get(&path).await.status, StatusCode::TOO_MANY_REQUESTS);
    caller.cloud.faults(|faults| faults.throttle_every = 0);
    assert_eq!(caller.get(&path).await.status, StatusCode::OK);
}

#[tokio::test]
async fn every_nth_request_fails_with_500_and_503_by_turns() {
    let caller = Caller::start(Cloudsim::builder().faults(|faults| faults.fail_every = 2)).await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(caller.get(SUBSCRIPTIONS).await.status.as_u16());
    }
    assert_eq!(statuses, [200, 500, 200, 503]);
    assert_eq!(caller.cloud.statistics().failed, 2);
}

#[tokio::test]
async fn one_subscription_can_be_in_trouble_for_a_while() {
    let caller = Caller::start(Cloudsim::builder().faults(|faults| {
        faults.trouble(0, Trouble::Throttled, Times::Next(2));
        faults.trouble(1, Trouble::Broken, Times::Always);
    }))
    .await;
    let status = async |subscription| {
        let answer = caller.get(&caller.nsgs_path(subscription)).await;
        answer.status.as_u16()
    };
    assert_eq!([status(0).await, status(1).await, status(2).await], [429, 500, 200]);
    assert_eq!([status(0).await, status(1).await, status(2).await], [429, 500, 200]);
    assert_eq!([status(0).await, status(1).await, status(2).await], [200, 500, 200]);
}

#[tokio::test]
async fn a_good_page_token_is_refused_once_or_always() {
    let caller = Caller::start(Cloudsim::builder().page_size(2)).await;
    let first = caller.get(&caller.nsgs_path(0)).await;
    let next = first.body["nextLink"].as_str().unwrap();
    caller.cloud.faults(|faults| faults.refuse_page_tokens = Times::Next(1));
    let refused = caller.get(next).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert_eq!(refused.code(), "InvalidSkipToken");
    assert_eq!(caller.get(next).await.status, StatusCode::OK);
    caller.cloud.faults(|faults| faults.refuse_page_tokens = Times::Always);
    for _ in 0..3 {
        assert_eq!(caller.get(next).await.status, StatusCode::BAD_REQUEST);
    }
    assert_eq!(caller.get(&caller.nsgs_path(0)).await.status, StatusCode::OK);
    assert_eq!(caller.cloud.statistics().page_tokens_refused, 4);
}

#[tokio::test]
async fn a_page_token_fits_its_own_list_only() {
    let caller = Caller::start(Cloudsim::builder().page_size(2)).await;
    let first = caller.get(&caller.nsgs_path(0)).await;
    let next = first.body["nextLink"].as_str().unwrap();
    let (_, token) = next.split_once("skiptoken=").unwrap();
    let elsewhere = format!("{}&%24skiptoken={token}", caller.nsgs_path(1));
    assert_eq!(caller.get(&elsewhere).await.code(), "InvalidSkipToken");
}

#[tokio::test]
async fn a_next_link_can_lead_to_a_stranger() {
    let stranger = Caller::start(Cloudsim::builder()).await;
    let caller = Caller::start(Cloudsim::builder().faults(|faults| {
        let trouble = Trouble::ForeignNextLink(stranger.cloud.url().to_owned());
        faults.trouble(1, trouble, Times::Always);
    }))
    .await;
    let answer = caller.get(&caller.nsgs_path(1)).await;
    let next = answer.body["nextLink"].as_str().unwrap();
    assert!(next.starts_with(stranger.cloud.url()), "{next}");
    let honest = caller.get(&caller.nsgs_path(0)).await;
    assert!(honest.body.get("nextLink").is_none());
    assert_eq!(stranger.cloud.statistics().arm_requests(), 0);
}

#[tokio::test]
async fn a_body_can_be_cut_off_in_the_middle() {
    let caller = Caller::start(Cloudsim::builder().faults(|faults| faults.cut_off_every = 2)).await;
    let path = caller.nsgs_path(0);
    let whole = caller.request(&path).send().await.unwrap();
    let whole = whole.bytes().await.unwrap();
    let mut cut = caller.request(&path).send().await.unwrap();
    assert_eq!(cut.status(), StatusCode::OK);
    assert_eq!(cut.content_length(), Some(whole.len() as u64));
    let mut read = 0;
    let end = loop {
        match cut.chunk().await {
            Ok(Some(chunk)) => read += chunk.len(),
            end => break end,
        }
    };
    assert!(end.is_err(), "the body ended as if it were whole");
    assert_eq!(read, whole.len() / 2);
    let statistics = caller.cloud.statistics();
    assert_eq!((statistics.pages_served, statistics.cut_off), (1, 1));
}

#[tokio::test]
async fn latency_delays_resource_manager() {
    let latency = Duration::from_millis(50);
    let caller = Caller::start(Cloudsim::builder().faults(|faults| faults.latency = latency)).await;
    let begun = std::time::Instant::now();
    caller.get(SUBSCRIPTIONS).await;
    assert!(begun.elapsed() >= latency);
}

#[tokio::test]
async fn a_huge_estate_is_generated_page_by_page() {
    let caller = Caller::start(Cloudsim::builder().nsgs(200_000).page_size(10)).await;
    assert_eq!(caller.cloud.truth().nsgs, 600_000);
    let first = caller.get(&caller.nsgs_path(2)).await;
    assert_eq!(first.body["value"].as_array().unwrap().len(), 10);
    assert!(first.body["nextLink"].is_string());
}

#[tokio::test]
async fn only_loopback_addresses_are_served() {
    let everywhere: SocketAddr = ([0, 0, 0, 0], 0).into();
    let error = Cloudsim::builder().listen(everywhere).start().await;
    let error = error.err().unwrap().to_string();
    assert!(error.contains("loopback"), "{error}");
}

#[tokio::test]
async fn a_stopped_cloud_answers_no_more() {
    let caller = Caller::start(Cloudsim::builder()).await;
    let url = caller.cloud.url().to_owned();
    caller.cloud.stop().await.unwrap();
    assert!(client().get(&url).send().await.is_err());
}

#[tokio::test]
async fn a_dropped_cloud_stops() {
    let cloud = Cloudsim::builder().start().await.unwrap();
    let url = Url::parse(cloud.url()).unwrap();
    let address = url.socket_addrs(|| None).unwrap()[0];
    drop(cloud);
    let refused = async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), refused).await.unwrap();
}

#[tokio::test]
async fn the_configuration_names_this_cloud() {
    let cloud = Cloudsim::builder().start().await.unwrap();
    let configuration = cloud.configuration();
    for line in [
        format!("      tenant: {}\n", cloud.tenant()),
        format!("      client: {}\n", cloud.client_id()),
        format!("      secret: {}\n", cloud.client_secret()),
        format!("      login_endpoint: {}\n", cloud.url()),
        format!("      arm_endpoint: {}\n", cloud.url()),
    ] {
        assert!(configuration.contains(&line), "{configuration}");
    }
}
