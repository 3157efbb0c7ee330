//! Signing in without a secret: certificates, federated tokens, managed identities; and over https.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{CertificateParams, KeyPair};
use reqwest::{Certificate, Client, StatusCode};
use ring::signature::{RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tests::cloudsim::{Cloudsim, Kind};
use url::form_urlencoded;

use crate::caller::{Answer, Caller, SCOPE, client};

/// Keys for these tests alone: the library that signs certificates cannot make RSA keys.
const KEY: &str = include_str!("client_key.pem");
const OTHER_KEY: &str = include_str!("other_key.pem");

fn certificate(key: &str) -> rcgen::Certificate {
    let key = KeyPair::from_pem(key).unwrap();
    CertificateParams::new(vec!["client.example.com".to_owned()]).unwrap().self_signed(&key).unwrap()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// What a client of this cloud says in its assertion.
fn claims(cloud: &Cloudsim) -> Value {
    json!({
        "aud": format!("{}/{}/oauth2/v2.0/token", cloud.url(), cloud.tenant()),
        "iss": cloud.client_id(),
        "sub": cloud.client_id(),
        "jti": "1",
        "nbf": now(),
        "exp": now() + 600,
    })
}

fn header(algorithm: &str) -> Value {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate(KEY).der());
    json!({"alg": algorithm, "typ": "JWT", "x5t#S256": URL_SAFE_NO_PAD.encode(digest)})
}

fn signed(header: &Value, claims: &Value, key: &str) -> String {
    let key = PrivatePkcs8KeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let key = RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).unwrap();
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(header), part(claims));
    let encoding: &dyn RsaEncoding = if header["alg"] == "PS256" { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(encoding, &ring::rand::SystemRandom::new(), text.as_bytes(), &mut signature).unwrap();
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

async fn show(http: &Client, cloud: &Cloudsim, assertion: &str) -> Answer {
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "client_credentials")
        .append_pair("client_id", cloud.client_id())
        .append_pair("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
        .append_pair("client_assertion", assertion)
        .append_pair("scope", SCOPE)
        .finish();
    let request = http
        .post(format!("{}/{}/oauth2/v2.0/token", cloud.url(), cloud.tenant()))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form);
    Answer::read(request.send().await.unwrap()).await
}

fn number(answer: &Answer) -> u64 {
    assert_eq!((answer.status, answer.body["error"].as_str()), (StatusCode::UNAUTHORIZED, Some("invalid_client")));
    let number = answer.body["error_codes"][0].as_u64().unwrap();
    assert!(answer.body["error_description"].as_str().unwrap().starts_with(&format!("AADSTS{number}: ")));
    number
}

#[tokio::test]
async fn a_certificate_signs_in_and_a_bad_assertion_is_refused_for_its_reason() {
    let cloud = Cloudsim::builder().certificate(certificate(KEY).pem()).start().await.unwrap();
    let http = client();
    let answer = show(&http, &cloud, &signed(&header("RS256"), &claims(&cloud), KEY)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let token = answer.body["access_token"].as_str().unwrap();
    let nsgs = "providers/Microsoft.Network/networkSecurityGroups?api-version=2024-05-01";
    let list = format!("{}/subscriptions/{}/{nsgs}", cloud.url(), cloud.estate().subscription_id(0));
    assert_eq!(http.get(list).bearer_auth(token).send().await.unwrap().status(), StatusCode::OK);

    let sha1 = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, certificate(KEY).der());
    let by_sha1 = json!({"alg": "RS256", "x5t": URL_SAFE_NO_PAD.encode(sha1)});
    let answer = show(&http, &cloud, &signed(&by_sha1, &claims(&cloud), KEY)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let answer = show(&http, &cloud, &signed(&header("PS256"), &claims(&cloud), KEY)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);

    let changed = |name: &str, value: Value| {
        let mut claims = claims(&cloud);
        claims[name] = value;
        signed(&header("RS256"), &claims, KEY)
    };
    let mut unknown = header("RS256");
    unknown["x5t#S256"] = URL_SAFE_NO_PAD.encode([7; 32]).into();
    for (assertion, wanted) in [
        (signed(&header("RS256"), &claims(&cloud), OTHER_KEY), 700_027),
        (signed(&unknown, &claims(&cloud), KEY), 700_027),
        (signed(&json!({"alg": "RS256"}), &claims(&cloud), KEY), 50_027),
        ("not.a.token".to_owned(), 50_027),
        (changed("aud", "https://login.example.com/".into()), 700_023),
        (changed("iss", "somebody".into()), 700_021),
        (changed("exp", (now() - 1).into()), 700_024),
        (changed("nbf", (now() + 3_600).into()), 700_024),
        (changed("exp", Value::Null), 700_024),
    ] {
        assert_eq!(number(&show(&http, &cloud, &assertion).await), wanted);
    }
    assert_eq!(cloud.statistics().tokens_issued, 3);
}

#[tokio::test]
async fn a_federated_token_signs_in() {
    let cloud = Cloudsim::builder().federated_token("header.claims.signature").start().await.unwrap();
    let http = client();
    assert_eq!(show(&http, &cloud, "header.claims.signature").await.status, StatusCode::OK);
    assert_eq!(number(&show(&http, &cloud, "header.claims.other").await), 70_021);
    let unregistered = signed(&header("RS256"), &claims(&cloud), KEY);
    assert_eq!(number(&show(&http, &cloud, &unregistered).await), 700_027);
}

#[tokio::test]
async fn managed_identities_get_tokens_as_machines_and_as_app_services() {
    let cloud = Cloudsim::builder().start().await.unwrap();
    let mut caller = Caller { http: client(), cloud, token: String::new() };
    let query = "?api-version=2018-02-01&resource=https%3A%2F%2Fmanagement.azure.com%2F";
    let machine = format!("{}/metadata/identity/oauth2/token{query}", caller.cloud.url());
    let answer = Answer::read(caller.http.get(&machine).send().await.unwrap()).await;
    assert_eq!((answer.status, answer.body["error"].as_str()), (StatusCode::BAD_REQUEST, Some("invalid_request")));
    let answer = Answer::read(caller.http.get(&machine).header("Metadata", "true").send().await.unwrap()).await;
    assert_eq!(answer.body["expires_in"], "3599");
    assert!(answer.body["expires_on"].as_str().unwrap().parse::<u64>().unwrap() > now());
    caller.token = answer.body["access_token"].as_str().unwrap().to_owned();
    assert_eq!(caller.get(&caller.nsgs_path(0)).await.status, StatusCode::OK);

    let service =
        format!("{}?api-version=2019-08-01&resource=https://vault.azure.net", caller.cloud.identity_endpoint());
    let answer = Answer::read(caller.http.get(&service).send().await.unwrap()).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    let request = caller.http.get(&service).header("X-IDENTITY-HEADER", caller.cloud.identity_header());
    let answer = Answer::read(request.send().await.unwrap()).await;
    assert_eq!((answer.status, &answer.body["client_id"]), (StatusCode::OK, &Value::from(caller.cloud.client_id())));
    caller.token = answer.body["access_token"].as_str().unwrap().to_owned();
    let vault = caller.cloud.estate().item(0, Kind::Vault, 0);
    let keys = format!("{}keys?api-version=7.4", vault["properties"]["vaultUri"].as_str().unwrap());
    assert_eq!(caller.get(&keys).await.status, StatusCode::OK);
    assert_eq!(caller.cloud.statistics().identity_requests, 4);
    let other = format!("{machine}&client_id=00000000-0000-0000-0000-000000000000");
    let answer = Answer::read(caller.http.get(&other).header("Metadata", "true").send().await.unwrap()).await;
    assert_eq!(answer.body["error_description"], "Identity not found");
}

#[tokio::test]
async fn over_https_every_address_is_https() {
    let cloud = Cloudsim::builder().page_size(2).tls().start().await.unwrap();
    assert!(cloud.url().starts_with("https://localhost:"), "{}", cloud.url());
    // A client that does not know the authority does not trust it.
    let stranger = client().get(format!("{}/subscriptions", cloud.url())).send().await;
    assert!(stranger.is_err());
    let authority = Certificate::from_pem(cloud.ca_pem().unwrap().as_bytes()).unwrap();
    let http =
        Client::builder().no_proxy().tls_certs_only([authority]).timeout(Duration::from_secs(20)).build().unwrap();
    let mut caller = Caller { http, cloud, token: String::new() };
    let discovery = format!("{}/{}/v2.0/.well-known/openid-configuration", caller.cloud.url(), caller.cloud.tenant());
    let document = caller.get(&discovery).await;
    let endpoint = document.body["token_endpoint"].as_str().unwrap();
    assert_eq!(endpoint, format!("{}/{}/oauth2/v2.0/token", caller.cloud.url(), caller.cloud.tenant()));
    caller.sign_in().await;
    let first = caller.get(&caller.nsgs_path(0)).await;
    let next = first.body["nextLink"].as_str().unwrap();
    assert!(next.starts_with(caller.cloud.url()), "{next}");
    assert_eq!(caller.list(&caller.nsgs_path(0)).await.0.len(), 5);
    let vault = caller.cloud.estate().item(0, Kind::Vault, 0);
    assert!(vault["properties"]["vaultUri"].as_str().unwrap().starts_with(caller.cloud.url()));
    // The server is told to stop while a connection is kept open, and stops.
    let Caller { cloud, http, .. } = caller;
    drop(http);
    cloud.stop().await.unwrap();
}
