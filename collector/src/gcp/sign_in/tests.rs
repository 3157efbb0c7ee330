//! Every way to sign in, against a server that answers as each service does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use ring::signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::super::credential::tests::{key_file, user_file};
use super::super::credential::{Found, find};
use super::super::params::Way;
use super::*;
use crate::http::{Limits, Timeouts};
use proto::config::Environment;

/// A request as it came.
#[derive(Debug, Clone)]
pub(in super::super) struct Asked {
    /// `GET /path?query`.
    pub(in super::super) line: String,
    headers: HashMap<String, String>,
    body: String,
}

impl Asked {
    /// A field of the form.
    fn field(&self, name: &str) -> String {
        let fields = form_urlencoded::parse(self.body.as_bytes());
        fields.into_owned().find(|(field, _)| field == name).map_or(String::new(), |(_, value)| value)
    }

    pub(in super::super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Status, further headers, body.
pub(in super::super) type Given = (u16, &'static str, Value);
type Answers = dyn Fn(usize, &Asked) -> Given + Send + Sync;

/// A server that answers as it is told, by the number of the request from 0.
pub(in super::super) struct Server {
    pub(in super::super) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    pub(in super::super) async fn start(answers: impl Fn(usize, &Asked) -> Given + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answers, seen): (Arc<Answers>, _) = (Arc::new(answers), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&answers), Arc::clone(&seen)));
            }
        });
        Self { url, asked }
    }

    /// One that gives a token to all: `t0`, `t1`...
    async fn generous() -> Self {
        Self::start(|number, _| (200, "", token(number))).await
    }

    pub(in super::super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    fn token_uri(&self) -> String {
        format!("{}/token", self.url)
    }

    /// A sign-in with this file.
    fn with_file(&self, file: &Value, impersonate: Option<&str>) -> SignIn {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file.json"), file.to_string()).unwrap();
        let environment =
            Environment::empty().in_directory(directory.path()).with("GOOGLE_APPLICATION_CREDENTIALS", "file.json");
        self.sign_in(find(&Way::ApplicationDefault, impersonate, None, &environment).unwrap())
    }

    pub(in super::super) fn service_account(&self) -> SignIn {
        self.with_file(&key_file(&self.token_uri()), None)
    }

    fn machine(&self) -> SignIn {
        let endpoint = Endpoint::parse(&self.url).unwrap();
        self.sign_in(find(&Way::Metadata, None, Some(&endpoint), &Environment::empty()).unwrap())
    }

    fn sign_in(&self, found: Found) -> SignIn {
        let client = || Client::new(Timeouts::default(), true, Limits::new(1)).unwrap();
        let clients = Clients { google: client(), metadata: client() };
        SignIn::new(found.credential, clients, Endpoint::parse(&self.url).unwrap())
    }
}

async fn serve(stream: TcpStream, answers: Arc<Answers>, seen: Arc<Mutex<Vec<Asked>>>) {
    let mut stream = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        if line.trim_end().is_empty() {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let headers: HashMap<String, String> = lines
        .iter()
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let mut body = vec![0; headers.get("content-length").map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.unwrap();
    let line = lines[0].trim_end_matches(" HTTP/1.1").to_owned();
    let asked = Asked { line, headers, body: String::from_utf8(body).unwrap() };
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.push(asked.clone());
        seen.len() - 1
    };
    let (status, headers, body) = answers(number, &asked);
    let body = match body {
        Value::String(text) => text,
        body => body.to_string(),
    };
    let length = body.len();
    let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}");
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

pub(in super::super) fn token(number: usize) -> Value {
    json!({"token_type": "Bearer", "expires_in": 3599, "access_token": format!("t{number}")})
}

fn invalid_grant(description: &str) -> Value {
    json!({"error": "invalid_grant", "error_description": description})
}

fn failed(answer: Result<Token, WorkError>) -> String {
    match answer {
        Err(WorkError::NotRead { state: State::Failed, reason }) => reason,
        other => panic!("{other:?}"),
    }
}

/// A token that is held already.
pub(in super::super) fn held(secret: &str, renewal: Duration, expires: Duration) -> Option<Token> {
    let now = Instant::now();
    Some(Token { secret: secret.into(), generation: 0, renewal: now + renewal, expires: now + expires })
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_service_account_proves_itself_with_its_key() {
    let server = Server::generous().await;
    let sign_in = server.service_account();
    assert_eq!(sign_in.account(), Some("sa@p.iam.gserviceaccount.com"));
    assert_eq!(sign_in.token().await.unwrap().secret(), "t0");
    let [asked] = server.asked().try_into().unwrap();
    assert_eq!(asked.line, "POST /token");
    assert_eq!(asked.field("grant_type"), "urn:ietf:params:oauth:grant-type:jwt-bearer");
    let assertion = asked.field("assertion");
    let (signed, signature) = assertion.rsplit_once('.').unwrap();
    let Credential::ServiceAccount(account) = &sign_in.credential else { panic!() };
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, account.key.public_key());
    public.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    let part = |text: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap();
    let (head, claims) = signed.split_once('.').unwrap();
    assert_eq!(part(head), json!({"alg": "RS256", "typ": "JWT", "kid": "k1"}));
    let claims = part(claims);
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!("sa@p.iam.gserviceaccount.com"), &json!(server.token_uri())));
    assert_eq!(claims["scope"], READ.join(" "));
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 3600);
    assert!(claims["iat"].as_u64().unwrap().abs_diff(UNIX_EPOCH.elapsed().unwrap().as_secs()) < 60);
    // Nothing that is printed shows any of it.
    let printed = format!("{sign_in:?}");
    assert!(!printed.contains("t0") && !printed.contains(signature) && !printed.contains("MII"), "{printed}");
}

#[tokio::test]
async fn callers_share_what_one_of_them_asks_for() {
    let server = Server::generous().await;
    let sign_in = server.service_account();
    let tokens = futures::future::join_all((0..16).map(|_| sign_in.token())).await;
    assert!(tokens.into_iter().all(|token| token.unwrap().secret() == "t0"));
    // The same of a token that was refused.
    let refused = sign_in.token().await.unwrap();
    let tokens = futures::future::join_all((0..16).map(|_| sign_in.replace(&refused))).await;
    assert!(tokens.into_iter().all(|token| token.unwrap().secret() == "t1"));
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn a_token_is_renewed_before_it_expires_and_never_used_after() {
    let server = Server::start(|number, _| match number {
        0 => (200, "", json!({"expires_in": 2, "access_token": "t0"})),
        1 => (200, "", json!({"expires_in": 0, "access_token": "t1"})),
        _ => (200, "", token(number)),
    })
    .await;
    let sign_in = server.service_account();
    let token = sign_in.token().await.unwrap();
    let now = Instant::now();
    assert!(token.renewal > now && token.renewal < token.expires && token.expires <= now + Duration::from_secs(2));
    assert_eq!(token.expires - token.renewal, Duration::from_millis(500));
    sign_in.hold(held("old", Duration::ZERO, Duration::ZERO));
    let error = sign_in.token().await.unwrap_err();
    assert!(matches!(&error, WorkError::Transient { reason } if reason.contains("had expired")), "{error}");
    sign_in.hold(held("old", Duration::ZERO, MINUTE));
    let token = sign_in.token().await.unwrap();
    assert_eq!((token.secret(), token.expires - token.renewal), ("t2", EARLIEST_RENEWAL));
}

#[tokio::test]
async fn a_renewal_that_fails_rests_while_the_token_is_good() {
    let server = Server::start(|_, _| (503, "", json!("busy"))).await;
    let sign_in = server.service_account();
    sign_in.hold(held("old", Duration::ZERO, MINUTE));
    for _ in 0..3 {
        assert_eq!(sign_in.token().await.unwrap().secret(), "old");
    }
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_final_refusal_is_told_to_all_who_wait_and_shows_no_secret() {
    let server = Server::start(|_, asked| {
        (400, "", invalid_grant(&format!("Invalid JWT Signature. {}", asked.field("assertion"))))
    })
    .await;
    let sign_in = server.service_account();
    for answer in futures::future::join_all((0..8).map(|_| sign_in.token())).await {
        let reason = failed(answer);
        let begin = format!(
            "cannot sign in as sa@p.iam.gserviceaccount.com: POST {}: 400 invalid_grant: Invalid JWT Signature. ***",
            server.token_uri()
        );
        assert!(reason.starts_with(&begin), "{reason}");
        assert!(reason.contains("set `key_file_path`"), "{reason}");
    }
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_refusal_says_what_to_do() {
    for (description, remedy) in [
        ("Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe.", "set the clock"),
        ("Invalid grant: account not found", "was deleted or disabled"),
    ] {
        let server = Server::start(move |_, _| (400, "", invalid_grant(description))).await;
        let reason = failed(server.service_account().token().await);
        assert!(reason.contains(remedy), "{reason}");
    }
    let server = Server::start(|_, _| (200, "", json!("<html>"))).await;
    assert!(failed(server.service_account().token().await).contains("is `token_uri` in the key file right?"));
}

#[tokio::test]
async fn what_may_pass_is_not_final() {
    let server = Server::start(|number, _| match number {
        0 => (429, "Retry-After: 17\r\n", json!("")),
        1 => (502, "", json!("<html>")),
        2 => (400, "", json!({"error": "internal_failure"})),
        _ => (200, "", token(number)),
    })
    .await;
    let error = server.service_account().token().await.unwrap_err();
    assert!(matches!(&error, WorkError::Throttled { wait, .. } if wait.as_secs() == 17), "{error}");
    let sign_in = server.service_account();
    for _ in 0..2 {
        let error = sign_in.token().await.unwrap_err();
        assert!(matches!(&error, WorkError::Transient { .. }), "{error}");
    }
    assert_eq!(sign_in.token().await.unwrap().secret(), "t3");
}

#[tokio::test]
async fn a_person_signs_in_with_what_the_login_left() {
    let server = Server::start(|number, asked| match number {
        0 => (200, "", token(number)),
        _ => (400, "", invalid_grant(&format!("Bad Request {}", asked.field("refresh_token")))),
    })
    .await;
    let sign_in = server.with_file(&user_file(&server.token_uri()), None);
    assert_eq!(sign_in.token().await.unwrap().secret(), "t0");
    assert_eq!(sign_in.account(), None);
    let asked = server.asked().remove(0);
    assert_eq!((asked.field("grant_type"), asked.field("client_id")), ("refresh_token".into(), "c1".into()));
    assert_eq!((asked.field("client_secret"), asked.field("refresh_token")), ("s3cret".into(), "1//r3fresh".into()));
    sign_in.hold(None);
    let reason = failed(sign_in.token().await);
    assert!(reason.contains("gcloud auth application-default login") && !reason.contains("r3fresh"), "{reason}");
}

#[tokio::test]
async fn a_machine_asks_its_metadata_server() {
    let flavored = "Metadata-Flavor: Google\r\n";
    let server = Server::start(move |number, asked| match number {
        _ if asked.header("metadata-flavor") != "Google" => (403, flavored, json!("Missing required header")),
        0 => (200, flavored, json!("vm@developer.gserviceaccount.com")),
        1 | 2 => (200, flavored, token(number)),
        _ => (503, "", json!("")),
    })
    .await;
    let sign_in = server.machine();
    assert_eq!(sign_in.account(), None);
    assert_eq!(sign_in.token().await.unwrap().secret(), "t1");
    assert_eq!(sign_in.account(), Some("vm@developer.gserviceaccount.com"));
    let token = sign_in.token().await.unwrap();
    assert_eq!(sign_in.replace(&token).await.unwrap().secret(), "t2");
    let account = "GET /computeMetadata/v1/instance/service-accounts/default";
    let asked: Vec<String> = server.asked().into_iter().map(|asked| asked.line).collect();
    assert_eq!(asked.len(), 3);
    assert_eq!(asked[0], format!("{account}/email"));
    assert!(asked[1].starts_with(&format!("{account}/token?scopes=https")), "{asked:?}");
    // It was there before: it may come back.
    sign_in.hold(None);
    assert!(matches!(sign_in.token().await, Err(WorkError::Transient { .. })));
}

#[tokio::test]
async fn a_machine_without_an_account_or_a_metadata_server_says_so() {
    let server = Server::start(|_, _| (404, "Metadata-Flavor: Google\r\n", json!("<html>"))).await;
    assert!(failed(server.machine().token().await).contains("this machine has no service account"));

    let server = Server::start(|number, _| (200, "", token(number))).await;
    let reason = failed(server.machine().token().await);
    assert!(reason.contains("200 comes from something else than a metadata server"), "{reason}");

    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let environment = Environment::empty().with("GCE_METADATA_HOST", &away.to_string());
    let sign_in = server.sign_in(find(&Way::ApplicationDefault, None, None, &environment).unwrap());
    let reason = failed(sign_in.token().await);
    for part in
        ["GOOGLE_APPLICATION_CREDENTIALS is not set", "no metadata server here", "cannot connect", "`key_file_path`"]
    {
        assert!(reason.contains(part), "{part}: {reason}");
    }
}

const READER: &str = "reader@p.iam.gserviceaccount.com";

#[tokio::test]
async fn an_account_acts_as_another() {
    let server = Server::start(|number, asked| match number {
        0 => (200, "", token(number)),
        _ if asked.header("authorization") == "Bearer t0" => {
            let date = "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n";
            (200, date, json!({"accessToken": "other", "expireTime": "1970-01-01T01:00:00Z"}))
        }
        _ => (401, "", json!({})),
    })
    .await;
    let sign_in = server.with_file(&key_file(&server.token_uri()), Some(READER));
    assert_eq!(sign_in.account(), Some(READER));
    let token = sign_in.token().await.unwrap();
    assert_eq!(token.secret(), "other");
    let left = token.expires - Instant::now();
    assert!(left > Duration::from_secs(3500) && left < Duration::from_secs(3600), "{left:?}");
    let asked = server.asked();
    assert_eq!(asked[1].line, format!("POST /v1/projects/-/serviceAccounts/{READER}:generateAccessToken"));
    let body: Value = serde_json::from_str(&asked[1].body).unwrap();
    assert_eq!(body, json!({"scope": READ, "lifetime": "3600s"}));
    let claims = asked[0].field("assertion");
    let claims = URL_SAFE_NO_PAD.decode(claims.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims["scope"], IMPERSONATE.join(" "));
}

#[tokio::test]
async fn an_account_that_may_not_act_as_another_says_what_it_needs() {
    for (status, message, remedy) in [
        (403, "Permission 'iam.serviceAccounts.getAccessToken' denied on resource", "Service Account Token Creator on"),
        (403, "IAM Service Account Credentials API has not been used in project 1", "enable the IAM Service"),
        (404, "Not found; Gaia id not found for email", "there is no service account reader@"),
    ] {
        let server = Server::start(move |number, _| match number {
            0 => (200, "", token(number)),
            _ => (status, "", json!({"error": {"code": status, "message": message, "status": "STATUS"}})),
        })
        .await;
        let sign_in = server.with_file(&key_file(&server.token_uri()), Some(READER));
        let reason = failed(sign_in.token().await);
        let begin = format!("cannot sign in as {READER}, impersonated by sa@p.iam.gserviceaccount.com: POST ");
        assert!(reason.starts_with(&begin), "{reason}");
        assert!(reason.contains(&format!("{status} STATUS: {message}")) && reason.contains(remedy), "{reason}");
    }
}

#[test]
fn a_lifetime_is_counted_by_the_servers_clock() {
    let lifetime = |expires: &str, date: Option<&str>| {
        let mut headers = HeaderMap::new();
        if let Some(date) = date {
            headers.insert(header::DATE, date.parse().unwrap());
        }
        lifetime(expires, &headers, UNIX_EPOCH)
    };
    assert_eq!(lifetime("1970-01-01T00:00:07.5Z", None), Some(Duration::from_millis(7500)));
    let date = Some("Sun, 06 Nov 1994 08:49:00 GMT");
    assert_eq!(lifetime("1994-11-06T08:49:07Z", date), Some(Duration::from_secs(6)));
    assert_eq!(lifetime("1994-11-06T08:48:00Z", date), Some(Duration::ZERO));
    assert_eq!(lifetime("soon", date), None);
}
