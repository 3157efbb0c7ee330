//! Every way to sign in, against a server that answers as each service does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use azure_core::base64::decode_url_safe;
use reqwest::Url;
use ring::digest;
use ring::signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::http::{Limits, Timeouts};

const SCOPE: &str = "https://management.azure.com/.default";
const SECRET: &str = "hunter2hunter2";
/// A token of a pod is a signed JSON web token like this one.
const FEDERATED: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzeXN0ZW06cG9kIn0.c2lnbmF0dXJl";

/// A request as it came.
#[derive(Debug, Clone)]
struct Asked {
    /// `GET /path?query`.
    line: String,
    headers: HashMap<String, String>,
    /// Of the query, or of the form.
    fields: HashMap<String, String>,
}

impl Asked {
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

/// A server that answers as it is told, by the number of the request from 0.
struct Server {
    endpoint: Endpoint,
    asked: Arc<Mutex<Vec<Asked>>>,
}

type Answers = dyn Fn(usize, &Asked) -> (u16, String, Value) + Send + Sync;

impl Server {
    async fn start(answers: impl Fn(usize, &Asked) -> (u16, String, Value) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answers, seen): (Arc<Answers>, _) = (Arc::new(answers), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&answers), Arc::clone(&seen)));
            }
        });
        Self { endpoint, asked }
    }

    /// One that gives a token to all: `t0`, `t1`...
    async fn generous() -> Self {
        Self::start(|number, _| (200, String::new(), entra_token(number, 3599))).await
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
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
        .map(|(n, v)| (n.to_lowercase(), v.to_owned()))
        .collect();
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    let line = lines[0].trim_end_matches(" HTTP/1.1").to_owned();
    let query = match length {
        0 => line.split_once('?').map_or("", |(_, query)| query).to_owned(),
        _ => String::from_utf8(body).unwrap(),
    };
    let fields = Url::parse(&format!("http://x/?{query}")).unwrap().query_pairs().into_owned().collect();
    let asked = Asked { line, headers, fields };
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.push(asked.clone());
        seen.len() - 1
    };
    let (status, headers, body) = answers(number, &asked);
    let body = body.to_string();
    let length = body.len();
    let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}");
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn entra_token(number: usize, lifetime: u64) -> Value {
    json!({"token_type": "Bearer", "expires_in": lifetime, "access_token": format!("t{number}")})
}

fn entra_error(code: i64, text: &str) -> Value {
    json!({"error": "invalid_client", "error_description": format!("AADSTS{code}: {text} Trace ID: 1"), "error_codes": [code]})
}

fn prepare(credential: Credential, server: &Server) -> Result<SignIn, SignInError> {
    let http = Client::new(Timeouts::default(), true, Limits::new(1)).unwrap();
    SignIn::new(credential, server.endpoint.clone(), SCOPE.to_owned(), http)
}

fn application(proof: Proof) -> Credential {
    Credential::Application(Application { tenant: "t.example".into(), client: "c".into() }, proof)
}

fn with_secret(server: &Server) -> Arc<SignIn> {
    Arc::new(prepare(application(Proof::Secret(SECRET.into())), server).unwrap())
}

fn machine(identity: Identity, server: &Server) -> SignIn {
    let endpoint = Some(server.endpoint.clone());
    prepare(Credential::ManagedIdentity { identity, endpoint }, server).unwrap()
}

fn failed(answer: Result<Token, WorkError>) -> String {
    match answer {
        Err(WorkError::NotRead { state: State::Failed, reason }) => reason,
        other => panic!("{other:?}"),
    }
}

fn transient(answer: Result<Token, WorkError>) -> String {
    match answer {
        Err(WorkError::Transient { reason }) => reason,
        other => panic!("{other:?}"),
    }
}

/// What many callers at once get.
async fn at_once(sign_in: &Arc<SignIn>, callers: usize) -> Vec<Result<Token, WorkError>> {
    let callers = (0..callers).map(|_| {
        let sign_in = Arc::clone(sign_in);
        tokio::spawn(async move { sign_in.token().await })
    });
    futures::future::join_all(callers).await.into_iter().map(Result::unwrap).collect()
}

fn data(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/data/certificates", name].iter().collect()
}

#[tokio::test]
async fn callers_share_one_token() {
    let server = Server::generous().await;
    let sign_in = with_secret(&server);
    for answer in at_once(&sign_in, 200).await {
        assert_eq!(answer.unwrap().secret(), "t0");
    }
    let asked = server.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].line, "POST /t.example/oauth2/v2.0/token");
    let fields = ["grant_type", "client_id", "client_secret", "scope"].map(|name| asked[0].field(name));
    assert_eq!(fields, ["client_credentials", "c", SECRET, SCOPE]);
}

#[tokio::test]
async fn a_refused_token_is_replaced_once() {
    let server = Server::generous().await;
    let sign_in = with_secret(&server);
    let first = sign_in.token().await.unwrap();
    let second = sign_in.replace(&first).await.unwrap();
    assert_eq!(second.secret(), "t1");
    // Others were refused the same token meanwhile.
    for _ in 0..3 {
        assert_eq!(sign_in.replace(&first).await.unwrap().secret(), "t1");
    }
    assert_eq!(sign_in.token().await.unwrap().secret(), "t1");
    assert_eq!(sign_in.replace(&second).await.unwrap().secret(), "t2");
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn a_token_of_a_second_is_asked_for_again_and_never_given_out_expired() {
    let server = Server::start(|number, _| (200, String::new(), entra_token(number, 1))).await;
    let sign_in = with_secret(&server);
    let begin = Instant::now();
    let mut last = (String::new(), begin);
    while server.asked().len() < 4 {
        let before = Instant::now();
        let token = sign_in.token().await.unwrap();
        if last.0 == token.secret() {
            assert!(before - last.1 < Duration::from_secs(1), "it had expired when it was asked for");
        } else {
            last = (token.secret().to_owned(), Instant::now());
        }
        assert!(begin.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Not for each use.
    assert!(begin.elapsed() > Duration::from_secs(2), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_token_that_comes_expired_is_an_error_that_may_pass() {
    let server = Server::start(|number, _| (200, String::new(), entra_token(number, 0))).await;
    assert!(transient(with_secret(&server).token().await).contains("had expired; is this host's clock right?"));
    let server = Server::start(|_, _| (200, String::new(), json!({"sorry": "no"}))).await;
    assert!(failed(with_secret(&server).token().await).contains("holds no token"));
}

#[tokio::test]
async fn a_final_refusal_holds_for_all_who_wait() {
    let server = Server::start(|_, _| (401, String::new(), entra_error(7_000_215, "Invalid client secret."))).await;
    let sign_in = with_secret(&server);
    for answer in at_once(&sign_in, 500).await {
        let reason = failed(answer);
        assert!(reason.starts_with("cannot sign in to tenant t.example as application c: POST http://127"), "{reason}");
        assert!(reason.contains("401 AADSTS7000215: Invalid client secret. (set `secret`"), "{reason}");
    }
    failed(sign_in.token().await);
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_replacement_asks_again_after_a_refusal() {
    let refuse = |number, _: &Asked| match number {
        1 => (401, String::new(), entra_error(7_000_222, "Expired.")),
        _ => (200, String::new(), entra_token(number, 3599)),
    };
    let server = Server::start(refuse).await;
    let sign_in = with_secret(&server);
    let first = sign_in.token().await.unwrap();
    failed(sign_in.replace(&first).await);
    // It was given up, so nobody asks for it a second time.
    failed(sign_in.replace(&first).await);
    assert_eq!(server.asked().len(), 2);
    sign_in.memory().failed.as_mut().unwrap().ended -= REST;
    assert_eq!(sign_in.token().await.unwrap().secret(), "t2");
}

#[tokio::test]
async fn what_may_pass_is_asked_again_by_those_who_come_later() {
    let server = Server::start(|number, _| match number {
        0 => (503, String::new(), json!({})),
        _ => (200, String::new(), entra_token(number, 3599)),
    })
    .await;
    let sign_in = with_secret(&server);
    transient(sign_in.token().await);
    assert_eq!(sign_in.token().await.unwrap().secret(), "t1");
}

#[tokio::test]
async fn a_throttled_sign_in_waits_as_it_is_told() {
    let server = Server::start(|_, _| (429, "Retry-After: 33\r\n".into(), json!({}))).await;
    let sign_in = with_secret(&server);
    for answer in at_once(&sign_in, 50).await {
        let Err(WorkError::Throttled { wait, .. }) = answer else { panic!("{answer:?}") };
        assert!((20..=33).contains(&wait.as_secs()), "{wait:?}");
    }
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn a_token_is_renewed_in_time_and_kept_while_it_is_good() {
    let start = Moment::now();
    let at = |seconds| start.after(Duration::from_secs(seconds));
    let held = |lifetime| {
        let mut memory = Memory::default();
        memory.hold(Fresh { secret: "t".into(), lifetime: Duration::from_secs(lifetime) }, start);
        memory
    };
    let mut hour = held(3600);
    assert!(hour.good(at(3299)).is_some() && hour.good(at(3300)).is_none());
    assert!(hour.valid(at(3599)).is_some() && hour.valid(at(3600)).is_none());
    // A renewal that failed rests; the old token serves meanwhile, to its end.
    hour.failed = Some(Failed { failure: Failure::Transient("x".into()), ended: at(3300).steady });
    assert!(hour.good(at(3329)).is_some() && hour.good(at(3330)).is_none());
    hour.failed = Some(Failed { failure: Failure::Final("x".into()), ended: at(3590).steady });
    assert!(hour.good(at(3599)).is_some() && hour.good(at(3600)).is_none());
    let short = held(4);
    assert!(short.good(at(2)).is_some() && short.good(at(3)).is_none());
    // The machine slept: the steady clock stood still.
    let woken = Moment { steady: at(60).steady, wall: at(7200).wall };
    assert!(held(3600).valid(woken).is_none());
}

#[tokio::test]
async fn a_failed_renewal_leaves_the_token_that_is_still_good() {
    let server = Server::start(|number, _| match number {
        0 => (200, String::new(), entra_token(0, 3599)),
        _ => (500, String::new(), json!({})),
    })
    .await;
    let sign_in = with_secret(&server);
    sign_in.token().await.unwrap();
    sign_in.memory().held.as_mut().unwrap().expires = Moment::now().after(Duration::from_secs(60));
    for _ in 0..5 {
        assert_eq!(sign_in.token().await.unwrap().secret(), "t0");
    }
    assert_eq!(server.asked().len(), 2);
    sign_in.memory().held.as_mut().unwrap().expires = Moment::now();
    transient(sign_in.token().await);
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_the_way_to_others() {
    let (asked, mut was_asked) = tokio::sync::mpsc::unbounded_channel();
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    let server = Server::start(move |number, _| {
        asked.send(()).unwrap();
        if number == 0 {
            tokio::task::block_in_place(|| gone.lock().unwrap().recv().unwrap_or_default());
        }
        (200, String::new(), entra_token(number, 3599))
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
    let server = runtime.spawn(server).await.unwrap();
    let sign_in = with_secret(&server);
    let first = tokio::spawn({
        let sign_in = Arc::clone(&sign_in);
        async move { sign_in.token().await }
    });
    was_asked.recv().await.unwrap();
    first.abort();
    assert_eq!(sign_in.token().await.unwrap().secret(), "t1");
    drop(go);
    runtime.shutdown_background();
}

/// The claims of an assertion, if its signature is that of the certificate.
fn verified(assertion: &str, pem: &str) -> Value {
    let parts: Vec<&str> = assertion.split('.').collect();
    let [header, claims, signature] = parts[..] else { panic!("{assertion}") };
    let json = |part| -> Value { serde_json::from_slice(&decode_url_safe(part).unwrap()).unwrap() };
    let header = json(header);
    let is_ours = |certificate: &CertificateDer<'_>| {
        header["x5t#S256"] == encode(digest::digest(&digest::SHA256, certificate).as_ref())
    };
    let certificate = CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).find(is_ours).unwrap();
    assert_eq!((&header["alg"], &header["typ"]), (&json!("PS256"), &json!("JWT")));
    // The public key of 2048 bits: a sequence of 266 bytes with the modulus and the exponent.
    let start = certificate.windows(8).position(|bytes| bytes == [0x30, 0x82, 1, 10, 2, 0x82, 1, 1]).unwrap();
    let public = UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, &certificate[start..start + 270]);
    let signed = &assertion[..assertion.rfind('.').unwrap()];
    public.verify(signed.as_bytes(), &decode_url_safe(signature).unwrap()).unwrap();
    json(claims)
}

fn encode(bytes: &[u8]) -> String {
    azure_core::base64::encode_url_safe(bytes)
}

#[tokio::test]
async fn a_certificate_signs_what_entra_can_verify() {
    for name in ["pkcs8.pem", "pkcs1.pem"] {
        let server = Server::generous().await;
        let pem = std::fs::read_to_string(data(name)).unwrap();
        for certificate in [Certificate::File(data(name)), Certificate::Pem(pem.as_str().into())] {
            let sign_in = prepare(application(Proof::Certificate(certificate)), &server).unwrap();
            sign_in.token().await.unwrap();
        }
        let asked = server.asked();
        let claims: Vec<Value> = asked.iter().map(|asked| verified(asked.field("client_assertion"), &pem)).collect();
        let audience = format!("{}/t.example/oauth2/v2.0/token", server.endpoint);
        for claims in &claims {
            assert_eq!((&claims["aud"], &claims["iss"], &claims["sub"]), (&json!(audience), &json!("c"), &json!("c")));
            assert_eq!(claims["exp"].as_u64().unwrap() - claims["nbf"].as_u64().unwrap(), 600);
        }
        assert_ne!(claims[0]["jti"], claims[1]["jti"]);
        assert_eq!(asked[0].field("client_assertion_type"), "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
        assert_eq!((asked[0].field("client_id"), asked[0].field("scope")), ("c", SCOPE));
    }
}

#[tokio::test]
async fn what_is_no_certificate_is_told_before_anything_is_asked() {
    let server = Server::generous().await;
    let refused = |certificate| {
        let error = prepare(application(Proof::Certificate(certificate)), &server).unwrap_err().to_string();
        assert!(!error.contains("MII"), "{error}");
        error
    };
    for (name, why) in [
        ("missing.pem", "cannot be read: No such file"),
        ("", "cannot be read: it is not a plain file"),
        ("README.md", "there is no private key in it"),
        ("encrypted.pem", "its key is encrypted, and encrypted keys are not taken"),
        ("ec.pem", "its private key is not an RSA key"),
        ("sec1.pem", "its private key is not an RSA key"),
        ("mismatch.pem", "its private key belongs to none of its certificates"),
    ] {
        let error = refused(Certificate::File(data(name)));
        assert!(error.starts_with("`certificate` /") && error.contains(why), "{name}: {error}");
    }
    let whole = std::fs::read_to_string(data("pkcs1.pem")).unwrap();
    let key_only = whole.split("-----BEGIN CERTIFICATE").next().unwrap();
    assert!(refused(Certificate::Pem(key_only.into())).starts_with("`certificate`: there is no certificate in it"));
    assert!(refused(Certificate::Pem(whole[..900].into())).contains("not proper PEM"));
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn a_federated_token_is_read_anew_for_each_sign_in() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    let server = Server::generous().await;
    let prepare = || prepare(application(Proof::Federated(file.clone())), &server);
    let missing = prepare().unwrap_err().to_string();
    assert!(missing.contains("token cannot be read: No such file") && missing.contains("is this a pod"), "{missing}");
    std::fs::write(&file, "root:$6$hunter2:19000:0\n").unwrap();
    let other = prepare().unwrap_err().to_string();
    assert!(other.contains("holds no token") && !other.contains("hunter2"), "{other}");
    std::fs::write(&file, format!("{FEDERATED}\n")).unwrap();
    let sign_in = prepare().unwrap();
    let first = sign_in.token().await.unwrap();
    std::fs::write(&file, FEDERATED.replace('.', "2.")).unwrap();
    let second = sign_in.replace(&first).await.unwrap();
    let sent: Vec<String> = server.asked().iter().map(|asked| asked.field("client_assertion").to_owned()).collect();
    assert_eq!(sent, [FEDERATED.to_owned(), FEDERATED.replace('.', "2.")]);
    std::fs::remove_file(&file).unwrap();
    assert!(failed(sign_in.replace(&second).await).contains("cannot be read"));
}

#[tokio::test]
async fn nobody_hears_what_is_secret() {
    let echo = |_, asked: &Asked| {
        let sent = format!("{} {}", asked.field("client_secret"), asked.field("client_assertion"));
        (400, String::new(), entra_error(7, &format!("You sent {sent}!")))
    };
    let server = Server::start(echo).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, FEDERATED).unwrap();
    for (proof, hidden, remedy) in [
        (Proof::Secret(SECRET.into()), SECRET, "check `tenant`, `client` and `secret`"),
        (Proof::Federated(file), FEDERATED, "check `tenant`, `client` and `token_file`"),
        (Proof::Certificate(Certificate::File(data("pkcs8.pem"))), "eyJ", "check `tenant`, `client` and `certificate`"),
    ] {
        let sign_in = prepare(application(proof), &server).unwrap();
        let reason = failed(sign_in.token().await);
        assert!(reason.contains("You sent") && reason.contains("***") && reason.contains(remedy), "{reason}");
        assert!(!reason.contains(hidden) && !format!("{sign_in:?}").contains(hidden), "{reason}");
    }
}

fn machine_token(number: usize, until: u64) -> Value {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    json!({"access_token": format!("m{number}"), "expires_in": "86399", "expires_on": (now + until).to_string(),
        "not_before": "1", "resource": "https://management.azure.com", "token_type": "Bearer"})
}

#[tokio::test]
async fn a_machine_signs_in_by_its_identity() {
    let server = Server::start(|number, _| (200, String::new(), machine_token(number, 3600))).await;
    for (identity, parameter, id) in [
        (Identity::System, "", ""),
        (Identity::Client("c".into()), "client_id", "c"),
        (Identity::Object("o".into()), "object_id", "o"),
        (Identity::Resource("/subscriptions/s/x".into()), "msi_res_id", "/subscriptions/s/x"),
    ] {
        let sign_in = machine(identity, &server);
        sign_in.token().await.unwrap();
        let asked = server.asked().pop().unwrap();
        assert!(asked.line.starts_with("GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource="));
        assert_eq!(asked.headers["metadata"], "true");
        assert_eq!((asked.field("resource"), asked.field(parameter)), ("https://management.azure.com", id));
        // What the service has kept for long ends as it says, not as long after.
        let left = sign_in.memory().held.as_ref().unwrap().lifetime;
        assert!((3590..=3600).contains(&left.as_secs()), "{left:?}");
    }
}

#[tokio::test]
async fn an_app_signs_in_as_app_service_says() {
    let server = Server::start(|number, asked| match asked.headers.get("x-identity-header").map(String::as_str) {
        Some(SECRET) => (200, String::new(), machine_token(number, 3600)),
        _ => (
            401,
            String::new(),
            json!({"statusCode": 401, "message": format!("not {}", asked.headers["x-identity-header"])}),
        ),
    })
    .await;
    let url = format!("{}/msi/token", server.endpoint);
    let environment =
        |header: &str| Environment::empty().with("IDENTITY_ENDPOINT", &url).with("IDENTITY_HEADER", header);
    let identity = Identity::Resource("/r".into());
    let source = ManagedIdentity::new(identity, None, &environment(SECRET)).unwrap();
    let sign_in = SignIn::of(Source::ManagedIdentity(source), SCOPE.into());
    assert_eq!(sign_in.token().await.unwrap().secret(), "m0");
    let asked = server.asked().pop().unwrap();
    assert!(asked.line.starts_with("GET /msi/token?api-version=2019-08-01&"), "{}", asked.line);
    assert_eq!((asked.field("mi_res_id"), asked.headers.get("metadata")), ("/r", None));
    assert!(!format!("{sign_in:?}").contains(SECRET));
    let long = "wrong".repeat(200);
    let source = ManagedIdentity::new(Identity::System, None, &environment(&long)).unwrap();
    let reason = failed(SignIn::of(Source::ManagedIdentity(source), SCOPE.into()).token().await);
    assert!(reason.contains("/msi/token: 401 not ***"), "{reason}");
}

#[test]
fn other_services_of_azure_are_told_by_name() {
    for (variables, name) in [
        (&["IDENTITY_ENDPOINT", "IMDS_ENDPOINT"][..], "Azure Arc"),
        (&["IDENTITY_ENDPOINT", "IDENTITY_HEADER", "IDENTITY_SERVER_THUMBPRINT"], "Service Fabric"),
        (&["MSI_ENDPOINT", "MSI_SECRET"], "Azure Machine Learning"),
        (&["MSI_ENDPOINT"], "Cloud Shell"),
    ] {
        let environment =
            variables.iter().fold(Environment::empty(), |all, name| all.with(name, "http://localhost:1/"));
        let why = ManagedIdentity::new(Identity::System, None, &environment).unwrap_err();
        assert!(why.contains(&format!("the managed identity of {name} is not supported")), "{why}");
    }
}

#[tokio::test]
async fn a_machine_without_an_identity_says_so_at_once() {
    let away = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Endpoint::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap()
    };
    let source = ManagedIdentity::new(Identity::System, Some(away), &Environment::empty()).unwrap();
    let begin = Instant::now();
    let reason = failed(SignIn::of(Source::ManagedIdentity(source), SCOPE.into()).token().await);
    assert!(reason.contains("there is no managed identity here") && reason.contains("cannot connect"), "{reason}");
    assert!(begin.elapsed() < Duration::from_secs(5));

    let not_found = json!({"error": "invalid_request", "error_description": "Identity not found"});
    for (identity, status, headers, body, is_final, part) in [
        (Identity::System, 400, "", not_found.clone(), true, "400 Identity not found (give the machine"),
        (Identity::Client("c".into()), 400, "", not_found, true, "400 Identity not found (assign the identity"),
        (Identity::System, 404, "", json!({}), true, "404 (there is no managed identity here"),
        (Identity::System, 410, "Server: IMDS/150.870\r\n", json!({}), false, "410"),
        (Identity::System, 500, "", json!({}), false, "500"),
        (Identity::System, 200, "", json!([]), true, "the answer holds no token"),
    ] {
        let server = Server::start(move |_, _| (status, headers.to_owned(), body.clone())).await;
        let answer = machine(identity, &server).token().await;
        let reason = if is_final { failed(answer) } else { transient(answer) };
        assert!(reason.contains(part), "{reason}");
    }
}

/// An `az` that does this.
fn az(directory: &tempfile::TempDir, script: &str) -> AzureCli {
    use std::os::unix::fs::PermissionsExt;
    let program = directory.path().join("az");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    AzureCli::at(program, Some("t.example".into()), Duration::from_secs(20))
}

#[tokio::test]
async fn the_azure_cli_signs_in_whoever_is_logged_in() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = directory.path().join("arguments");
    let until = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 1800;
    let script = format!(
        "echo \"$@\" > {}\necho '{{\"accessToken\": \"a0\", \"expiresOn\": \"soon\", \"expires_on\": {until}, \"tokenType\": \"Bearer\"}}'",
        arguments.display()
    );
    let sign_in = SignIn::of(Source::AzureCli(az(&directory, &script)), SCOPE.into());
    assert_eq!(sign_in.token().await.unwrap().secret(), "a0");
    assert_eq!(
        std::fs::read_to_string(arguments).unwrap().trim(),
        format!("account get-access-token --output json --scope {SCOPE} --tenant t.example")
    );
    let left = sign_in.memory().held.as_ref().unwrap().lifetime.as_secs();
    assert!((1790..=1800).contains(&left), "{left}");
}

#[tokio::test]
async fn an_azure_cli_that_cannot_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let token = async |cli| SignIn::of(Source::AzureCli(cli), SCOPE.into()).token().await;
    let missing = AzureCli::at(directory.path().join("none"), None, Duration::from_secs(20));
    assert!(failed(token(missing).await).contains("cannot sign in by the Azure CLI: `az` is not installed here"));
    let out = az(&directory, "echo \"ERROR: Please run 'az login' to setup account.\" >&2; exit 1");
    let reason = failed(token(out).await);
    assert!(
        reason.contains("exit status: 1: Please run 'az login' to setup account. (log in by `az login`"),
        "{reason}"
    );
    let network = az(&directory, "echo \"ERROR: HTTPSConnectionPool: Max retries exceeded\" >&2; exit 1");
    assert!(transient(token(network).await).contains("Max retries exceeded"));
    assert!(failed(token(az(&directory, "echo '{}'")).await).contains("holds no token"));
    az(&directory, "exec sleep 600");
    let silent = AzureCli::at(directory.path().join("az"), None, Duration::from_millis(200));
    assert!(transient(token(silent).await).contains("`az` did not answer in"));
}
