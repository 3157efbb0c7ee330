//! The simulated Google Cloud, seen through its socket: what a client gets is what the truth says, and
//! each fault looks as it does at Google.

#![allow(clippy::unwrap_used, reason = "the whole file is tests; the lint knows test functions only")]

use std::collections::HashSet;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::{Client, StatusCode};
use ring::rand::SystemRandom;
use ring::rsa::KeyPair;
use ring::signature::RSA_PKCS1_SHA256;
use serde_json::{Value, json};
use tests::gcpsim::{Builder, Gcpsim, Part, Place, Throttling, Times, Trouble};
use url::form_urlencoded;

const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";
const COMPUTE_READ_ONLY: &str = "https://www.googleapis.com/auth/compute.readonly";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

fn client() -> Client {
    static PROVIDER: OnceLock<()> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        // An error means that there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    Client::builder().no_proxy().build().unwrap()
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// A JWT with these claims, signed with the key of a key file.
fn sign(key_file: &str, claims: &Value) -> String {
    let file: Value = serde_json::from_str(key_file).unwrap();
    let lines = file["private_key"].as_str().unwrap().lines().filter(|line| !line.starts_with('-'));
    let key = KeyPair::from_pkcs8(&STANDARD.decode(lines.collect::<String>()).unwrap()).unwrap();
    let head = json!({"alg": "RS256", "typ": "JWT", "kid": file["private_key_id"]});
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(head.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A client of one simulated cloud, as simple as can be: no retries.
struct Caller {
    http: Client,
    cloud: Gcpsim,
    token: String,
}

struct Answer {
    status: StatusCode,
    headers: reqwest::header::HeaderMap,
    body: Value,
}

impl Answer {
    async fn read(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Self { status, headers, body }
    }

    /// Status, canonical name, and the reason of the first error.
    fn refusal(&self) -> (u16, &str, &str) {
        let error = &self.body["error"];
        assert_eq!(error["code"], self.status.as_u16(), "{}", self.body);
        assert_eq!(error["errors"][0]["message"], error["message"]);
        (self.status.as_u16(), error["status"].as_str().unwrap(), error["errors"][0]["reason"].as_str().unwrap())
    }

    fn message(&self) -> &str {
        self.body["error"]["message"].as_str().unwrap()
    }

    /// The details' `google.rpc.ErrorInfo`.
    fn info(&self) -> &Value {
        let details = self.body["error"]["details"].as_array().unwrap();
        details.iter().find(|detail| detail["@type"] == "type.googleapis.com/google.rpc.ErrorInfo").unwrap()
    }
}

impl Caller {
    async fn start(builder: Builder) -> Self {
        let cloud = builder.start().await.unwrap();
        let mut caller = Self { http: client(), cloud, token: String::new() };
        caller.sign_in().await;
        caller
    }

    fn claims(&self) -> Value {
        json!({
            "iss": self.cloud.service_account(),
            "aud": format!("{}/token", self.cloud.url()),
            "scope": CLOUD_PLATFORM,
            "iat": now(),
            "exp": now() + 3600,
        })
    }

    async fn sign_in(&mut self) {
        self.sign_in_for(CLOUD_PLATFORM).await;
    }

    async fn sign_in_for(&mut self, scope: &str) {
        let mut claims = self.claims();
        claims["scope"] = scope.into();
        let answer = self.assert_claims(&self.cloud.key_file(), &claims).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        assert_eq!(answer.body["token_type"], "Bearer");
        answer.body["access_token"].as_str().unwrap().clone_into(&mut self.token);
    }

    async fn assert_claims(&self, key_file: &str, claims: &Value) -> Answer {
        self.ask_token(&[("grant_type", JWT_BEARER), ("assertion", &sign(key_file, claims))]).await
    }

    async fn ask_token(&self, form: &[(&str, &str)]) -> Answer {
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = self.http.post(format!("{}/token", self.cloud.url()));
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(form);
        Answer::read(request.send().await.unwrap()).await
    }

    fn request(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.get(format!("{}{path}", self.cloud.url())).bearer_auth(&self.token)
    }

    async fn get(&self, path: &str) -> Answer {
        Answer::read(self.request(path).send().await.unwrap()).await
    }

    async fn metadata(&self, path: &str) -> Answer {
        let url = format!("{}/computeMetadata/v1/{path}", self.cloud.url());
        Answer::read(self.http.get(url).header("Metadata-Flavor", "Google").send().await.unwrap()).await
    }

    async fn impersonate(&self, account: &str, body: &Value) -> Answer {
        let url = format!("{}/v1/projects/-/serviceAccounts/{account}:generateAccessToken", self.cloud.url());
        Answer::read(self.http.post(url).bearer_auth(&self.token).body(body.to_string()).send().await.unwrap()).await
    }

    fn compute(&self, project: usize, rest: &str) -> String {
        format!("/compute/v1/projects/{}/{rest}", self.cloud.estate().project(project).id())
    }

    fn firewalls(&self, project: usize) -> String {
        self.compute(project, "global/firewalls")
    }

    fn aggregated(&self, project: usize) -> String {
        self.compute(project, "aggregated/instances?returnPartialSuccess=true")
    }

    /// All pages of a list.
    async fn pages(&self, path: &str) -> Vec<Value> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let (mut pages, mut next) = (Vec::new(), Some(path.to_owned()));
        while let Some(target) = next {
            let answer = self.get(&target).await;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
            next = answer.body["nextPageToken"].as_str().map(|token| format!("{path}{separator}pageToken={token}"));
            pages.push(answer.body);
        }
        pages
    }

    /// All items of a list.
    async fn list(&self, path: &str, key: &str) -> Vec<Value> {
        self.pages(path).await.iter().flat_map(|page| page[key].as_array().cloned().unwrap_or_default()).collect()
    }

    /// All instances of a project's zones.
    async fn all_instances(&self, project: usize) -> Vec<Value> {
        instances_of(&self.pages(&self.aggregated(project)).await)
    }
}

/// The instances on these pages of an aggregated list.
fn instances_of(pages: &[Value]) -> Vec<Value> {
    let mut all = Vec::new();
    for page in pages {
        for (scope, content) in page["items"].as_object().unwrap() {
            for instance in content["instances"].as_array().into_iter().flatten() {
                if let Some(zone) = instance["zone"].as_str() {
                    assert!(zone.ends_with(scope.as_str()), "{zone} is in {scope}");
                }
                all.push(instance.clone());
            }
        }
    }
    all
}

/// The same items, in whatever order.
fn assert_same(got: &[Value], wanted: &[Value]) {
    let sorted = |items: &[Value]| {
        let mut texts: Vec<String> = items.iter().map(Value::to_string).collect();
        texts.sort();
        texts
    };
    assert_eq!(sorted(got), sorted(wanted));
}

#[tokio::test]
async fn pages_add_up_to_the_truth() {
    let builder = Gcpsim::builder().projects(8).deleted_projects(2).firewalls(37).firewalls_in(2, 0).instances(23);
    let caller = Caller::start(builder.instances_in(3, 0).page_size(5)).await;
    let cloud = &caller.cloud;
    let projects = caller.list("/v1/projects", "projects").await;
    assert_eq!(projects, cloud.listed_projects());
    assert_eq!(projects[7]["lifecycleState"], "DELETE_REQUESTED");

    let (mut firewalls, mut rules, mut instances, mut links) = (0, 0, 0, HashSet::new());
    for project in 0..6 {
        let listed = caller.list(&caller.firewalls(project), "items").await;
        assert_eq!(listed, cloud.listed_firewalls(project));
        firewalls += listed.len();
        for firewall in &listed {
            let entries = |key: &str| firewall[key].as_array().map_or(0, Vec::len);
            rules += entries("allowed") + entries("denied");
            assert!(links.insert(firewall["selfLink"].as_str().unwrap().to_owned()), "{firewall}");
        }
        let pages = caller.pages(&caller.aggregated(project)).await;
        let machines = instances_of(&pages);
        assert_same(&machines, &cloud.listed_instances(project));
        instances += machines.len();

        let zones = caller.list(&caller.compute(project, "zones"), "items").await;
        assert_eq!(zones.len(), 6);
        let mut by_zone = Vec::new();
        for zone in &zones {
            let path = caller.compute(project, &format!("zones/{}/instances", zone["name"].as_str().unwrap()));
            by_zone.extend(caller.list(&path, "items").await);
        }
        assert_same(&by_zone, &machines);
        for page in &pages {
            assert_eq!(page["items"].as_object().unwrap().len(), 6, "every page has every zone");
        }
    }
    let truth = cloud.truth();
    assert_eq!((projects.len(), firewalls, rules, instances), (8, truth.firewalls, truth.rules, truth.instances));
    assert_eq!((truth.active_projects, truth.firewalls, truth.instances), (6, 5 * 37, 5 * 23));
    assert_eq!(cloud.readable(), truth);
}

#[tokio::test]
async fn empty_lists_have_no_items_and_answers_have_many_lines() {
    let caller = Caller::start(Gcpsim::builder().projects(1).deleted_projects(0).firewalls(0).instances(0)).await;
    let answer = caller.get(&caller.firewalls(0)).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.body["kind"], "compute#firewallList");
    assert!(answer.body.get("items").is_none(), "{}", answer.body);
    let aggregated = caller.get(&caller.aggregated(0)).await.body;
    let mut scopes = aggregated["items"].as_object().unwrap().values();
    assert!(
        scopes.all(|scope| { scope["warning"]["code"] == "NO_RESULTS_ON_PAGE" && scope.get("instances").is_none() })
    );
    let lines = async |path: &str| caller.request(path).send().await.unwrap().text().await.unwrap().lines().count();
    assert!(lines("/v1/projects").await > 5);
    assert_eq!(lines("/v1/projects?prettyPrint=false").await, 1);
    assert_eq!(caller.get("/v1/projects?filter=id:nothing").await.body, json!({}));
}

#[tokio::test]
async fn projects_can_be_searched_and_filtered() {
    let caller = Caller::start(Gcpsim::builder().projects(12).deleted_projects(3).page_size(2)).await;
    let found = caller.list("/v3/projects:search", "projects").await;
    let listed = caller.cloud.listed_projects();
    assert_eq!(found.len(), 12);
    for (found, listed) in found.iter().zip(&listed) {
        assert_eq!(found["projectId"], listed["projectId"]);
        assert_eq!(found["name"], format!("projects/{}", listed["projectNumber"].as_str().unwrap()));
        assert_eq!(found["displayName"], listed["name"]);
        assert_eq!(found["state"], listed["lifecycleState"]);
    }
    let active = caller.list("/v1/projects?filter=lifecycleState%3AACTIVE&pageSize=4", "projects").await;
    assert_eq!(active.len(), 9);
    let deleted = caller.list("/v3/projects:search?query=state:DELETE_REQUESTED", "projects").await;
    assert_eq!(deleted.len(), 3);
    let refused = caller.get("/v1/projects?filter=colour:red").await;
    assert_eq!(refused.refusal(), (400, "INVALID_ARGUMENT", "badRequest"));
    // The token of one filter is none of another's.
    let first = caller.get("/v1/projects?filter=lifecycleState:ACTIVE").await;
    let token = first.body["nextPageToken"].as_str().unwrap();
    let refused = caller.get(&format!("/v1/projects?pageToken={token}")).await;
    assert_eq!(refused.refusal(), (400, "INVALID_ARGUMENT", "badRequest"));
}

#[tokio::test]
async fn a_project_goes_by_its_number_and_by_an_id_with_a_domain() {
    let caller = Caller::start(Gcpsim::builder().projects(8).deleted_projects(0)).await;
    let project = caller.cloud.estate().project(6);
    assert!(project.id().starts_with("example.com:"));
    for name in [project.id().to_owned(), project.id().replace(':', "%3A"), project.number()] {
        let firewalls = caller.list(&format!("/compute/v1/projects/{name}/global/firewalls"), "items").await;
        assert_eq!(firewalls, caller.cloud.listed_firewalls(6));
    }
    let missing = caller.get("/compute/v1/projects/nobody-1/global/firewalls").await;
    assert_eq!(missing.refusal(), (404, "NOT_FOUND", "notFound"));
    assert_eq!(missing.message(), "The resource 'projects/nobody-1' was not found");
    let zone = caller.get(&caller.compute(0, "zones/mars-east1-a/instances")).await;
    assert_eq!(zone.refusal(), (400, "INVALID_ARGUMENT", "invalid"));
    let nothing = caller.get("/compute/v1/nothing").await;
    assert_eq!(nothing.status, StatusCode::NOT_FOUND);
    assert!(nothing.headers["content-type"].to_str().unwrap().starts_with("text/html"));
}

#[tokio::test]
async fn an_assertion_must_be_right_in_every_part() {
    let caller = Caller::start(Gcpsim::builder()).await;
    let key = caller.cloud.key_file();
    let with = |change: &[(&str, Value)]| {
        let mut claims = caller.claims();
        for (name, value) in change {
            claims[*name] = value.clone();
        }
        claims
    };
    let cases = [
        (with(&[("iss", "nobody@example.com".into())]), "invalid_grant", "account not found"),
        (with(&[("exp", (now() + 3700).into())]), "invalid_grant", "short-lived token"),
        (
            with(&[("iat", (now() - 7200).into()), ("exp", (now() - 3600).into())]),
            "invalid_grant",
            "reasonable timeframe",
        ),
        (with(&[("aud", "https://example.com/token".into())]), "invalid_grant", "audience"),
        (with(&[("scope", Value::Null)]), "invalid_scope", "Empty or missing scope"),
        (with(&[("scope", "compute".into())]), "invalid_scope", "Invalid OAuth scope"),
        (with(&[("sub", "ana@example.com".into())]), "unauthorized_client", "unauthorized"),
    ];
    for (claims, error, description) in cases {
        let answer = caller.assert_claims(&key, &claims).await;
        assert!(answer.status.is_client_error());
        assert_eq!(answer.body["error"], error, "{}", answer.body);
        assert!(answer.body["error_description"].as_str().unwrap().contains(description), "{}", answer.body);
    }
    let answer = caller.assert_claims(&caller.cloud.wrong_key_file(), &caller.claims()).await;
    assert_eq!(answer.body, json!({"error": "invalid_grant", "error_description": "Invalid JWT Signature."}));
    let answer = caller.ask_token(&[("grant_type", JWT_BEARER), ("assertion", "nonsense")]).await;
    assert_eq!(answer.body["error"], "invalid_grant");
    let answer = caller.ask_token(&[("grant_type", "password")]).await;
    assert_eq!(answer.body["error"], "unsupported_grant_type");
    // Google's own clients name Google's address, whichever they ask.
    let google = with(&[("aud", "https://oauth2.googleapis.com/token".into())]);
    assert_eq!(caller.assert_claims(&key, &google).await.status, StatusCode::OK);
    assert_eq!(caller.cloud.statistics().tokens_issued, 2);
}

#[tokio::test]
async fn a_refresh_token_gives_the_person_s_token() {
    let mut caller = Caller::start(Gcpsim::builder()).await;
    let file: Value = serde_json::from_str(&caller.cloud.user_file()).unwrap();
    let text = |name: &str| file[name].as_str().unwrap().to_owned();
    let (id, secret, refresh) = (text("client_id"), text("client_secret"), text("refresh_token"));
    let form = |secret: &'static str, refresh: &'static str| [("client_secret", secret), ("refresh_token", refresh)];
    for (change, error) in [(form("wrong", "x"), "invalid_client"), (form("", "x"), "invalid_request")] {
        let mut form = vec![("grant_type", "refresh_token"), ("client_id", id.as_str())];
        form.extend(change);
        assert_eq!(caller.ask_token(&form).await.body["error"], error);
    }
    let mut form =
        vec![("grant_type", "refresh_token"), ("client_id", &id), ("client_secret", &secret), ("refresh_token", "old")];
    assert_eq!(
        caller.ask_token(&form).await.body,
        json!({"error": "invalid_grant", "error_description": "Token has been expired or revoked."})
    );
    form[3].1 = &refresh;
    let answer = caller.ask_token(&form).await;
    answer.body["access_token"].as_str().unwrap().clone_into(&mut caller.token);
    assert_eq!(caller.get("/v1/projects").await.status, StatusCode::OK);
    assert!(caller.cloud.callers().contains(caller.cloud.user()));
    for secret in [refresh, secret, caller.token.clone()] {
        assert!(caller.cloud.secrets().contains(&secret));
    }
}

#[tokio::test]
async fn a_self_signed_jwt_is_good_for_the_service_that_it_names() {
    let mut caller = Caller::start(Gcpsim::builder()).await;
    let account = caller.cloud.service_account().to_owned();
    let claims =
        |audience: &str| json!({"iss": account, "sub": account, "aud": audience, "iat": now(), "exp": now() + 3600});
    let key = caller.cloud.key_file();
    let firewalls = caller.firewalls(0);
    let expect = [
        (sign(&key, &claims("https://compute.googleapis.com/")), 200, 401),
        (sign(&key, &claims("https://cloudresourcemanager.googleapis.com/")), 401, 200),
        (sign(&key, &claims(caller.cloud.url())), 200, 200),
        (sign(&key, &claims("https://example.com/")), 401, 401),
        (sign(&caller.cloud.wrong_key_file(), &claims(caller.cloud.url())), 401, 401),
        (sign(&key, &json!({"iss": account, "sub": account, "iat": now(), "exp": now() + 60})), 401, 401),
        (
            sign(
                &key,
                &json!({"iss": account, "sub": account, "scope": COMPUTE_READ_ONLY, "iat": now(), "exp": now() + 60}),
            ),
            200,
            403,
        ),
    ];
    for (token, compute, projects) in expect {
        caller.token = token;
        assert_eq!(caller.get(&firewalls).await.status.as_u16(), compute);
        assert_eq!(caller.get("/v1/projects").await.status.as_u16(), projects);
    }
    assert_eq!(caller.cloud.statistics().self_signed_requests, 5);
}

#[tokio::test]
async fn the_metadata_server_answers_whom_it_may() {
    let mut caller = Caller::start(Gcpsim::builder()).await;
    let url = format!("{}/computeMetadata/v1/instance/service-accounts/default/token", caller.cloud.url());
    let bare = caller.http.get(&url).send().await.unwrap();
    assert_eq!(bare.status(), StatusCode::FORBIDDEN);
    let through_a_proxy =
        caller.http.get(&url).header("Metadata-Flavor", "Google").header("X-Forwarded-For", "10.0.0.1").send().await;
    assert_eq!(through_a_proxy.unwrap().status(), StatusCode::FORBIDDEN);

    let email = caller.metadata("instance/service-accounts/default/email").await;
    assert_eq!(email.body, Value::String(caller.cloud.machine_account().to_owned()));
    assert_eq!(email.headers["metadata-flavor"], "Google");
    let all = caller.metadata("instance/service-accounts/default/?recursive=true").await;
    assert_eq!(all.body["email"], caller.cloud.machine_account());
    assert_eq!(caller.metadata("instance/service-accounts/other/email").await.status, StatusCode::NOT_FOUND);

    let token = caller.metadata("instance/service-accounts/default/token").await;
    assert_eq!(token.body["expires_in"], 3599);
    token.body["access_token"].as_str().unwrap().clone_into(&mut caller.token);
    assert_eq!(caller.get("/v1/projects").await.status, StatusCode::OK);
    assert!(caller.cloud.callers().contains(caller.cloud.machine_account()));
    let narrow = caller.metadata(&format!("instance/service-accounts/default/token?scopes={COMPUTE_READ_ONLY}")).await;
    narrow.body["access_token"].as_str().unwrap().clone_into(&mut caller.token);
    assert_eq!(caller.get(&caller.firewalls(0)).await.status, StatusCode::OK);
    assert_eq!(caller.get("/v1/projects").await.info()["reason"], "ACCESS_TOKEN_SCOPE_INSUFFICIENT");
}

#[tokio::test]
async fn another_account_s_token_can_be_had_where_it_is_allowed() {
    let mut caller = Caller::start(Gcpsim::builder()).await;
    let accounts = caller.cloud.impersonable().to_vec();
    let own = caller.cloud.service_account().to_owned();
    caller.cloud.faults(|faults| {
        faults.blind.insert(own);
    });
    assert_eq!(caller.get("/v1/projects").await.body, json!({}), "one that may read nothing sees nothing");
    assert_eq!(caller.get(&caller.firewalls(0)).await.refusal().0, 403);

    let wanted = json!({"scope": [CLOUD_PLATFORM], "lifetime": "600s", "delegates": null});
    let refused = caller.impersonate("nobody@example.com", &wanted).await;
    assert_eq!(refused.refusal(), (403, "PERMISSION_DENIED", "forbidden"));
    assert_eq!(refused.info()["reason"], "IAM_PERMISSION_DENIED");
    assert_eq!(refused.info()["metadata"]["permission"], "iam.serviceAccounts.getAccessToken");
    for body in [
        json!({"scope": [], "lifetime": "600s"}),
        json!({"scope": [CLOUD_PLATFORM], "lifetime": "3601s"}),
        json!({"scope": ["everything"]}),
        json!({"scopes": [CLOUD_PLATFORM]}),
    ] {
        assert_eq!(caller.impersonate(&accounts[0], &body).await.refusal().0, 400, "{body}");
    }
    let chain = |delegate: &str| json!({"scope": [CLOUD_PLATFORM], "delegates": [format!("projects/-/serviceAccounts/{delegate}")]});
    assert_eq!(caller.impersonate(&accounts[0], &chain("nobody@example.com")).await.refusal().0, 403);
    assert_eq!(caller.impersonate(&accounts[0], &chain(&accounts[1])).await.status, StatusCode::OK);

    let answer = caller.impersonate(&accounts[0].replace('@', "%40"), &wanted).await;
    let expires: jiff::Timestamp = answer.body["expireTime"].as_str().unwrap().parse().unwrap();
    let lifetime = expires.as_second() - i64::try_from(now()).unwrap();
    assert!((598..=601).contains(&lifetime), "{lifetime}");
    answer.body["accessToken"].as_str().unwrap().clone_into(&mut caller.token);
    assert_eq!(caller.list("/v1/projects", "projects").await.len(), 4);
    assert!(caller.cloud.callers().contains(&accounts[0]));

    caller.sign_in_for(COMPUTE_READ_ONLY).await;
    let refused = caller.impersonate(&accounts[0], &wanted).await;
    assert_eq!(refused.info()["reason"], "ACCESS_TOKEN_SCOPE_INSUFFICIENT");
}

#[tokio::test]
async fn tokens_are_looked_at() {
    let mut caller = Caller::start(Gcpsim::builder()).await;
    let bare = caller.http.get(format!("{}/v1/projects", caller.cloud.url())).send().await.unwrap();
    let bare = Answer::read(bare).await;
    assert_eq!(bare.refusal(), (401, "UNAUTHENTICATED", "required"));
    assert!(bare.headers.contains_key("www-authenticate"));
    let good = std::mem::replace(&mut caller.token, "ya29.c.nonsense".to_owned());
    assert_eq!(caller.get("/v1/projects").await.refusal(), (401, "UNAUTHENTICATED", "authError"));
    caller.token = good;
    assert_eq!(caller.get("/v1/projects").await.status, StatusCode::OK);
    caller.cloud.expire_tokens();
    assert_eq!(caller.get("/v1/projects").await.refusal(), (401, "UNAUTHENTICATED", "authError"));
    caller.sign_in().await;
    caller.cloud.faults(|faults| faults.expire_tokens_after = Some(2));
    assert_eq!(caller.get("/v1/projects").await.status, StatusCode::OK);
    assert_eq!(caller.get("/v1/projects").await.status, StatusCode::OK);
    assert_eq!(caller.get("/v1/projects").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(caller.cloud.statistics().unauthorized, 4);

    let short = Caller::start(Gcpsim::builder().token_lifetime(Duration::ZERO)).await;
    assert_eq!(short.get("/v1/projects").await.status, StatusCode::UNAUTHORIZED);
    // The tokens of another server are none here.
    let other = Caller::start(Gcpsim::builder()).await;
    caller.token = other.token.clone();
    assert_eq!(caller.get("/v1/projects").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn denied_places_say_which_permission_is_missing() {
    let caller = Caller::start(Gcpsim::builder().projects(6).deleted_projects(1).firewalls(10).instances(7)).await;
    caller.cloud.faults(|faults| {
        faults.deny(0);
        faults.deny_part(1, Part::Firewalls);
        faults.disable_api(2);
        faults.at(Place::Part(3, Part::Instances), Trouble::Broken, Times::Next(1));
    });
    let id = |project| caller.cloud.estate().project(project).id().to_owned();
    for (project, path, permission) in [
        (0, caller.firewalls(0), "compute.firewalls.list"),
        (0, caller.aggregated(0), "compute.instances.list"),
        (0, caller.compute(0, "zones"), "compute.zones.list"),
        (1, caller.firewalls(1), "compute.firewalls.list"),
    ] {
        let answer = caller.get(&path).await;
        assert_eq!(answer.refusal(), (403, "PERMISSION_DENIED", "forbidden"));
        assert_eq!(answer.message(), format!("Required '{permission}' permission for 'projects/{}'", id(project)));
        assert_eq!(answer.info()["metadata"]["permission"], permission);
    }
    assert_eq!(caller.all_instances(1).await.len(), 7);

    let off = caller.get(&caller.firewalls(2)).await;
    assert_eq!(off.refusal(), (403, "PERMISSION_DENIED", "accessNotConfigured"));
    assert!(off.message().starts_with("Compute Engine API has not been used in project "), "{}", off.message());
    assert_eq!(off.info()["reason"], "SERVICE_DISABLED");
    assert_eq!(off.info()["metadata"]["service"], "compute.googleapis.com");

    assert_eq!(caller.get(&caller.aggregated(3)).await.refusal(), (500, "INTERNAL", "backendError"));
    assert_eq!(caller.all_instances(3).await.len(), 7);

    let deleted = caller.get(&caller.firewalls(5)).await;
    assert_eq!(deleted.refusal(), (403, "PERMISSION_DENIED", "forbidden"));
    assert!(deleted.message().ends_with(" has been deleted."), "{}", deleted.message());
    assert_eq!(deleted.info()["reason"], "CONSUMER_INVALID");

    let (truth, readable) = (caller.cloud.truth(), caller.cloud.readable());
    assert_eq!((truth.firewalls, truth.instances), (50, 35));
    assert_eq!((readable.firewalls, readable.instances), (20, 21));
    assert_eq!(caller.cloud.statistics().forbidden, 6);
    assert_eq!(caller.list("/v1/projects", "projects").await.len(), 6, "all are listed all the same");

    caller.cloud.faults(|faults| faults.at(Place::ProjectList, Trouble::Denied, Times::Always));
    assert_eq!(caller.get("/v1/projects").await.refusal(), (403, "PERMISSION_DENIED", "forbidden"));
    caller.cloud.faults(|faults| faults.at(Place::ProjectList, Trouble::ApiDisabled, Times::Always));
    assert_eq!(caller.get("/v1/projects").await.info()["reason"], "SERVICE_DISABLED");
}

#[tokio::test]
async fn too_many_requests_are_told_in_both_ways() {
    let caller = Caller::start(Gcpsim::builder().faults(|faults| faults.throttle_every = 2)).await;
    assert_eq!(caller.get(&caller.firewalls(0)).await.status, StatusCode::OK);
    let answer = caller.get(&caller.firewalls(0)).await;
    assert_eq!(answer.refusal(), (403, "PERMISSION_DENIED", "rateLimitExceeded"));
    assert_eq!(answer.info()["reason"], "RATE_LIMIT_EXCEEDED");
    assert!(!answer.headers.contains_key("retry-after"));

    caller.cloud.faults(|faults| {
        faults.throttle_every = 1;
        faults.throttling = Throttling::ResourceExhausted;
        faults.retry_after = Some(17);
    });
    let answer = caller.get(&caller.firewalls(0)).await;
    assert_eq!(answer.refusal(), (429, "RESOURCE_EXHAUSTED", "rateLimitExceeded"));
    assert_eq!(answer.headers["retry-after"], "17");

    caller.cloud.faults(|faults| faults.throttling = Throttling::RateLimitExceeded);
    let answer = caller.get("/v1/projects").await;
    assert_eq!(answer.refusal(), (429, "RESOURCE_EXHAUSTED", "rateLimitExceeded"), "the others know 429 alone");
    let statistics = caller.cloud.statistics();
    assert_eq!((statistics.throttled, statistics.forbidden), (3, 0));
}

#[tokio::test]
async fn failures_come_by_turns_and_one_is_no_json() {
    let caller = Caller::start(Gcpsim::builder().faults(|faults| faults.fail_every = 1)).await;
    assert_eq!(caller.get("/v1/projects").await.refusal(), (500, "INTERNAL", "backendError"));
    assert_eq!(caller.get("/v1/projects").await.refusal(), (503, "UNAVAILABLE", "backendError"));
    let gateway = caller.get("/v1/projects").await;
    assert_eq!(gateway.status, StatusCode::BAD_GATEWAY);
    assert!(gateway.body.as_str().unwrap().starts_with("<!DOCTYPE html>"));
    assert_eq!(caller.cloud.statistics().failed, 3);

    caller.cloud.faults(|faults| faults.fail_token_requests = Times::Next(2));
    let answer = caller.assert_claims(&caller.cloud.key_file(), &caller.claims()).await;
    assert_eq!((answer.status.as_u16(), &answer.body["error"]), (503, &json!("internal_failure")));
    let answer = caller.metadata("instance/service-accounts/default/token").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    let answer = caller.metadata("instance/service-accounts/default/token").await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test]
async fn page_tokens_fit_their_own_list_and_can_be_refused() {
    let caller = Caller::start(Gcpsim::builder().firewalls(30).page_size(10)).await;
    let first = caller.get(&format!("{}?maxResults=7", caller.firewalls(0))).await;
    assert_eq!(first.body["items"].as_array().unwrap().len(), 7);
    let token = first.body["nextPageToken"].as_str().unwrap().to_owned();
    let next = |project| format!("{}?pageToken={token}", caller.firewalls(project));
    assert_eq!(caller.get(&next(0)).await.body["items"].as_array().unwrap().len(), 10);
    assert_eq!(caller.get(&next(1)).await.refusal(), (400, "INVALID_ARGUMENT", "invalid"));
    let refused = caller.get(&format!("{}?pageToken=nonsense", caller.firewalls(0))).await;
    assert!(refused.message().starts_with("Invalid value for field 'pageToken': 'nonsense'."));

    caller.cloud.faults(|faults| faults.refuse_page_tokens = Times::Next(1));
    assert_eq!(caller.get(&next(0)).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(caller.get(&next(0)).await.status, StatusCode::OK);
    assert_eq!(caller.cloud.statistics().page_tokens_refused, 3);

    for (parameters, reason) in
        [("maxResults=501", "invalid"), ("pageSize=3", "invalid"), ("filter=name%3Dx", "invalid")]
    {
        let answer = caller.get(&format!("{}?{parameters}", caller.firewalls(0))).await;
        assert_eq!(answer.refusal(), (400, "INVALID_ARGUMENT", reason), "{parameters}");
    }
}

#[tokio::test]
async fn pages_that_shift_repeat_items_and_lose_none() {
    let caller = Caller::start(Gcpsim::builder().firewalls(30).instances(30).page_size(10)).await;
    caller.cloud.faults(|faults| faults.page_overlap = 3);
    for (listed, truth) in [
        (caller.list(&caller.firewalls(0), "items").await, caller.cloud.listed_firewalls(0)),
        (caller.all_instances(0).await, caller.cloud.listed_instances(0)),
    ] {
        assert!(listed.len() > truth.len());
        let links = |items: &[Value]| items.iter().map(|item| item["selfLink"].to_string()).collect::<HashSet<_>>();
        assert_eq!(links(&listed), links(&truth));
    }
    // Even a page that is all overlap comes to an end.
    caller.cloud.faults(|faults| faults.page_overlap = 1000);
    assert!(caller.list(&caller.firewalls(0), "items").await.len() > 30);
}

#[tokio::test]
async fn bodies_can_end_early_and_stall() {
    let caller = Caller::start(Gcpsim::builder()).await;
    caller.cloud.faults(|faults| faults.cut_off_every = 1);
    let response = caller.request(&caller.firewalls(0)).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.bytes().await.is_err());
    assert_eq!(caller.cloud.statistics().cut_off, 1);

    caller.cloud.faults(|faults| {
        faults.cut_off_every = 0;
        faults.stall_every = 1;
        faults.stall_for = Duration::from_millis(60);
        faults.latency = Duration::from_millis(40);
    });
    let begun = Instant::now();
    assert_eq!(caller.list(&caller.firewalls(0), "items").await, caller.cloud.listed_firewalls(0));
    assert!(begun.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn a_zone_that_does_not_answer_is_named() {
    let caller = Caller::start(Gcpsim::builder().instances(40).page_size(9)).await;
    let zone = caller.cloud.estate().zones()[0];
    let all = caller.all_instances(0).await;
    caller.cloud.faults(|faults| {
        faults.unreachable_zones.insert(zone.to_owned());
    });

    let pages = caller.pages(&caller.aggregated(0)).await;
    for page in &pages {
        assert_eq!(page["unreachables"], json!([format!("zones/{zone}")]));
        assert_eq!(page["items"][format!("zones/{zone}")]["warning"]["code"], "UNREACHABLE");
    }
    let rest = instances_of(&pages);
    assert!(!rest.is_empty() && rest.len() < all.len());
    assert_same(&rest, &caller.cloud.listed_instances(0));
    assert!(caller.cloud.readable().instances < caller.cloud.truth().instances);

    let path = caller.compute(0, "aggregated/instances");
    assert_eq!(caller.get(&path).await.refusal(), (503, "UNAVAILABLE", "backendError"));
    let new = caller.request(&path).header("X-Goog-Api-Version", "2026-11-01").send().await.unwrap();
    assert_eq!(Answer::read(new).await.body["unreachables"], json!([format!("zones/{zone}")]));
    let alone = caller.get(&caller.compute(0, &format!("zones/{zone}/instances"))).await;
    assert_eq!(alone.refusal(), (503, "UNAVAILABLE", "backendError"));
}

#[tokio::test]
async fn odd_things_are_listed_and_the_truth_has_them_as_well() {
    let caller = Caller::start(Gcpsim::builder().projects(9).deleted_projects(0).firewalls(40).instances(40)).await;
    let clean = (caller.cloud.listed_firewalls(0), caller.cloud.listed_instances(0));
    caller.cloud.faults(|faults| {
        faults.odd_every = 5;
        faults.odd_projects_every = 2;
    });
    let firewalls = caller.list(&caller.firewalls(0), "items").await;
    assert_eq!(firewalls, caller.cloud.listed_firewalls(0));
    assert_eq!(firewalls.iter().zip(&clean.0).filter(|(one, other)| one != other).count(), 8);
    let instances = caller.all_instances(0).await;
    assert_same(&instances, &caller.cloud.listed_instances(0));
    assert_eq!(caller.cloud.listed_instances(0).iter().zip(&clean.1).filter(|(one, other)| one != other).count(), 8);
    let projects = caller.list("/v1/projects", "projects").await;
    assert_eq!(projects, caller.cloud.listed_projects());
    assert!(projects.contains(&Value::Null));
}

#[tokio::test]
async fn a_list_of_any_size_is_there_at_once() {
    let begun = Instant::now();
    let caller = Caller::start(Gcpsim::builder().firewalls(50_000_000).instances(50_000_000)).await;
    let answer = caller.get(&format!("{}?maxResults=500", caller.firewalls(0))).await;
    assert_eq!(answer.body["items"].as_array().unwrap().len(), 500);
    assert_eq!(instances_of(&[caller.get(&caller.aggregated(0)).await.body]).len(), 500);
    assert!(begun.elapsed() < Duration::from_secs(20));
}
