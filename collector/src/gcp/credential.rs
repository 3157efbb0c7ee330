//! What signs in, and where on a host it is found.
//!
//! References: <https://google.aip.dev/auth/4110> for the order of the application default credentials,
//! <https://google.aip.dev/auth/4112> for key files, <https://google.aip.dev/auth/4113> for credentials of people,
//! <https://google.aip.dev/auth/4115> for the metadata server.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use proto::config::Environment;
use proto::config::secret::Secret;
use ring::signature::RsaKeyPair;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use url::Url;

use super::params::{Way, is_email};
use crate::http::Endpoint;

/// Where Google gives out tokens.
const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";
/// Where the metadata server is, on every machine of Google Cloud. It is reached by plain http, within the machine.
const METADATA_SERVER: &str = "http://metadata.google.internal";
/// The variable that names a file.
const FILE_VARIABLE: &str = "GOOGLE_APPLICATION_CREDENTIALS";
/// The variable that says where the metadata server is.
const METADATA_VARIABLE: &str = "GCE_METADATA_HOST";
/// The largest file that is taken for a key file, in bytes.
const MAX_FILE: u64 = 1024 * 1024;
/// The only universe that is served.
const UNIVERSE: &str = "googleapis.com";

/// Why there is nothing to sign in with on this host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CredentialError(String);

/// What signs in.
#[derive(Debug)]
pub(super) enum Credential {
    /// A service account with its key.
    ServiceAccount(Box<ServiceAccount>),
    /// A person who has logged in.
    User(User),
    /// The service account of the machine.
    Machine(Machine),
    /// A service account that another credential may act as.
    Impersonated(Impersonated),
}

/// A service account with its key.
pub(super) struct ServiceAccount {
    pub(super) email: String,
    pub(super) key_id: Option<String>,
    pub(super) key: RsaKeyPair,
    pub(super) token_uri: Url,
}

/// A person who has logged in with `gcloud auth application-default login`.
#[derive(Debug)]
pub(super) struct User {
    pub(super) client_id: String,
    pub(super) client_secret: Secret,
    pub(super) refresh_token: Secret,
    pub(super) token_uri: Url,
}

/// The machine's metadata server.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) url: Url,
    /// Where else credentials were looked for in vain.
    pub(super) looked: Option<String>,
}

/// A service account that another credential acts as.
#[derive(Debug)]
pub(super) struct Impersonated {
    pub(super) source: Box<Credential>,
    pub(super) email: String,
    pub(super) delegates: Vec<String>,
}

impl fmt::Debug for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceAccount")
            .field("email", &self.email)
            .field("token_uri", &self.token_uri.as_str())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServiceAccount(account) => f.write_str(&account.email),
            Self::User(_) => f.write_str("the user who is logged in on this host"),
            Self::Machine(_) => f.write_str("the service account of this machine"),
            Self::Impersonated(Impersonated { source, email, .. }) => write!(f, "{email}, impersonated by {source}"),
        }
    }
}

/// What was found on a host.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) credential: Credential,
    /// The project that a person's calls are charged to.
    pub(super) quota_project: Option<String>,
}

/// Looks for what a configuration names. Files are read; nothing is asked of the network.
pub(super) fn find(
    way: &Way,
    impersonate: Option<&str>,
    metadata: Option<&Endpoint>,
    environment: &Environment,
) -> Result<Found, CredentialError> {
    let mut found = match way {
        Way::KeyFile(path) => {
            let path = environment.path(path);
            let file = CredentialFile::read(&path).map_err(|why| CredentialError(format!("`key_file_path`: {why}")))?;
            if file.kind != "service_account" {
                return Err(CredentialError(format!(
                    "`key_file_path`: {} is not the key file of a service account (its type is {:?}); \
                     with `credential: application_default` other files are taken, too",
                    path.display(),
                    file.kind
                )));
            }
            file.found(&path)?
        }
        Way::ApplicationDefault => application_default(metadata, environment)?,
        Way::Metadata => machine(metadata, environment, None)?,
    };
    if let Some(email) = impersonate {
        let (source, email) = (Box::new(found.credential), email.to_owned());
        found.credential = Credential::Impersonated(Impersonated { source, email, delegates: Vec::new() });
    }
    Ok(found)
}

/// A file that a variable names, the file that the `gcloud` tool leaves, the metadata server: in Google's order.
fn application_default(metadata: Option<&Endpoint>, environment: &Environment) -> Result<Found, CredentialError> {
    if let Some(path) = environment.variable(FILE_VARIABLE).filter(|path| !path.is_empty()) {
        let path = environment.path(path);
        let file = CredentialFile::read(&path).map_err(|why| CredentialError(format!("{FILE_VARIABLE}: {why}")))?;
        return file.found(&path);
    }
    let well_known = well_known_file(environment);
    if let Some(path) = well_known.as_deref().filter(|path| path.exists()) {
        return CredentialFile::read(path).map_err(CredentialError)?.found(path);
    }
    let looked = match well_known {
        Some(path) => format!("{FILE_VARIABLE} is not set and there is no {}", path.display()),
        None => format!("{FILE_VARIABLE} is not set"),
    };
    machine(metadata, environment, Some(looked))
}

fn well_known_file(environment: &Environment) -> Option<PathBuf> {
    let directory = match environment.variable("CLOUDSDK_CONFIG").filter(|directory| !directory.is_empty()) {
        Some(directory) => environment.path(directory),
        None => environment.home()?.join(".config/gcloud"),
    };
    Some(directory.join("application_default_credentials.json"))
}

fn machine(
    metadata: Option<&Endpoint>,
    environment: &Environment,
    looked: Option<String>,
) -> Result<Found, CredentialError> {
    let url = match (metadata, environment.variable(METADATA_VARIABLE).filter(|host| !host.is_empty())) {
        (Some(endpoint), _) => endpoint.url("/", None),
        (None, Some(host)) => parsed(&format!("http://{host}")).ok_or_else(|| {
            CredentialError(format!("{METADATA_VARIABLE} is {host:?}; write it like `HOST` or `HOST:PORT`"))
        })?,
        (None, None) => parsed(METADATA_SERVER).ok_or_else(|| CredentialError("no metadata server".to_owned()))?,
    };
    Ok(Found { credential: Credential::Machine(Machine { url, looked }), quota_project: None })
}

/// The URL of a host, with nothing else.
fn parsed(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let is_host = url.has_host() && url.path() == "/" && url.query().is_none() && url.username().is_empty();
    is_host.then_some(url)
}

/// A file with credentials, in Google's shape.
#[derive(Deserialize)]
struct CredentialFile {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    client_email: Option<String>,
    #[serde(default)]
    private_key: Option<Secret>,
    #[serde(default)]
    private_key_id: Option<String>,
    #[serde(default)]
    client_id: Option<String>,
    #[serde(default)]
    client_secret: Option<Secret>,
    #[serde(default)]
    refresh_token: Option<Secret>,
    #[serde(default)]
    token_uri: Option<String>,
    #[serde(default)]
    universe_domain: Option<String>,
    #[serde(default)]
    quota_project_id: Option<String>,
    #[serde(default)]
    service_account_impersonation_url: Option<String>,
    #[serde(default)]
    delegates: Option<Vec<String>>,
    #[serde(default)]
    source_credentials: Option<Box<CredentialFile>>,
}

impl CredentialFile {
    fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let unreadable = |error: std::io::Error| format!("cannot read {shown}: {error}");
        let file = File::open(path).map_err(unreadable)?;
        if !file.metadata().map_err(unreadable)?.is_file() {
            return Err(format!("cannot read {shown}: it is not a plain file"));
        }
        let mut text = String::new();
        file.take(MAX_FILE).read_to_string(&mut text).map_err(unreadable)?;
        let text = Secret::from(text);
        // Serde's words might show what stands in the file.
        serde_json::from_str(text.expose()).map_err(|error| {
            format!(
                "{shown} is not a file with credentials of Google Cloud (line {}, column {}): \
                 download the key of a service account as JSON",
                error.line(),
                error.column()
            )
        })
    }

    fn found(self, path: &Path) -> Result<Found, CredentialError> {
        let quota_project = self.quota_project_id.clone().filter(|project| !project.is_empty());
        let credential = self.credential().map_err(|why| CredentialError(format!("{}: {why}", path.display())))?;
        Ok(Found { credential, quota_project })
    }

    fn credential(self) -> Result<Credential, String> {
        if let Some(universe) = self.universe_domain.as_deref().filter(|universe| *universe != UNIVERSE) {
            return Err(format!("its `universe_domain` is {universe:?}; only {UNIVERSE} is served"));
        }
        match self.kind.as_str() {
            "service_account" => self.service_account(),
            "authorized_user" => self.user(),
            "impersonated_service_account" => self.impersonated(),
            "external_account" | "external_account_authorized_user" => Err(format!(
                "credentials of the type `{}` (workload or workforce identity federation) are not served; \
                 use the key file of a service account, or run on Google Cloud with `credential: metadata`",
                self.kind
            )),
            other => Err(format!(
                "credentials of the type {other:?} are not known \
                 (known: service_account, authorized_user, impersonated_service_account)"
            )),
        }
    }

    fn service_account(self) -> Result<Credential, String> {
        let email = required("client_email", self.client_email)?;
        let pem = required("private_key", self.private_key)?;
        Ok(Credential::ServiceAccount(Box::new(ServiceAccount {
            email,
            key_id: self.private_key_id,
            key: key(&pem)?,
            token_uri: token_uri(self.token_uri.as_deref())?,
        })))
    }

    fn user(self) -> Result<Credential, String> {
        Ok(Credential::User(User {
            client_id: required("client_id", self.client_id)?,
            client_secret: required("client_secret", self.client_secret)?,
            refresh_token: required("refresh_token", self.refresh_token)?,
            token_uri: token_uri(self.token_uri.as_deref())?,
        }))
    }

    fn impersonated(self) -> Result<Credential, String> {
        let url = required("service_account_impersonation_url", self.service_account_impersonation_url)?;
        // The address alone is taken of it: where tokens are sent is not for a file to say.
        let email = url
            .rsplit_once("/serviceAccounts/")
            .and_then(|(_, rest)| rest.strip_suffix(":generateAccessToken"))
            .map(|email| email.replace("%40", "@"))
            .filter(|email| is_email(email))
            .ok_or("its `service_account_impersonation_url` names no service account")?;
        let source = required("source_credentials", self.source_credentials)?.credential()?;
        Ok(Credential::Impersonated(Impersonated {
            source: Box::new(source),
            email,
            delegates: self.delegates.unwrap_or_default(),
        }))
    }
}

fn required<T>(name: &str, value: Option<T>) -> Result<T, String> {
    value.ok_or_else(|| format!("it has no `{name}`: download it again"))
}

/// The key of a PEM text, as PKCS#8 or PKCS#1.
fn key(pem: &Secret) -> Result<RsaKeyPair, String> {
    // Neither the library's words nor any part of the text are shown.
    let unusable = |why: &str| format!("its `private_key` is not an RSA key in PEM form ({why}): download it again");
    let der = PrivateKeyDer::from_pem_slice(pem.expose().as_bytes()).map_err(|_| unusable("no PEM"))?;
    let pair = match &der {
        PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
        PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
        _ => return Err(unusable("another kind of key")),
    };
    pair.map_err(|error| unusable(&error.to_string()))
}

/// Whoever gets the proof of an account gets a token of it: by https, or on this host.
fn token_uri(text: Option<&str>) -> Result<Url, String> {
    let text = text.filter(|text| !text.is_empty()).unwrap_or(TOKEN_URI);
    let url = Url::parse(text).map_err(|error| format!("its `token_uri` is not a URL ({error})"))?;
    Endpoint::parse(&url.origin().ascii_serialization()).map_err(|why| format!("its `token_uri` is refused: {why}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("its `token_uri` has credentials".to_owned());
    }
    Ok(url)
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;

    use serde_json::{Value, json};

    use super::*;

    /// Made for these tests, and good for nothing else.
    pub(in super::super) const PRIVATE_KEY: &str = include_str!("../../tests/data/gcp_test_key.pem");

    pub(in super::super) fn key_file(token_uri: &str) -> Value {
        json!({"type": "service_account", "project_id": "p", "private_key_id": "k1", "private_key": PRIVATE_KEY,
            "client_email": "sa@p.iam.gserviceaccount.com", "client_id": "1", "token_uri": token_uri,
            "universe_domain": "googleapis.com"})
    }

    pub(in super::super) fn user_file(token_uri: &str) -> Value {
        json!({"type": "authorized_user", "client_id": "c1", "client_secret": "s3cret", "refresh_token": "1//r3fresh",
            "quota_project_id": "payer", "token_uri": token_uri, "account": ""})
    }

    struct Host {
        directory: tempfile::TempDir,
        environment: Environment,
    }

    impl Host {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let home = directory.path().display().to_string();
            let environment = Environment::empty().with("HOME", &home).in_directory(directory.path());
            Self { directory, environment }
        }

        fn with(mut self, name: &str, value: &str) -> Self {
            self.environment = self.environment.with(name, value);
            self
        }

        fn file(self, path: &str, content: &str) -> Self {
            let path = self.directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
            self
        }

        fn find(&self, way: &Way) -> Result<Found, CredentialError> {
            find(way, None, None, &self.environment)
        }
    }

    const URI: &str = "https://oauth2.googleapis.com/token";
    const WELL_KNOWN: &str = ".config/gcloud/application_default_credentials.json";

    fn file_error(content: &Value) -> String {
        let host = Host::new().file("k.json", &content.to_string());
        let error = host.with(FILE_VARIABLE, "k.json").find(&Way::ApplicationDefault).unwrap_err().to_string();
        let (_, why) = error.split_once("k.json: ").unwrap_or_else(|| panic!("{error}"));
        assert!(!error.contains("MII") && !error.contains("s3cret") && !error.contains("r3fresh"), "{error}");
        why.to_owned()
    }

    #[test]
    fn a_key_file_is_read_relative_to_the_worker() {
        let mut content = key_file(URI);
        let host = Host::new().file("keys/k.json", &content.to_string());
        let Credential::ServiceAccount(account) = host.find(&Way::KeyFile("keys/k.json".into())).unwrap().credential
        else {
            panic!()
        };
        assert_eq!((account.email.as_str(), account.key_id.as_deref()), ("sa@p.iam.gserviceaccount.com", Some("k1")));
        assert_eq!(account.token_uri.as_str(), URI);
        assert!(!format!("{account:?}").contains("key"), "{account:?}");
        content.as_object_mut().unwrap().remove("token_uri");
        let host = host.file("k.json", &content.to_string());
        assert!(host.find(&Way::KeyFile("~/k.json".into())).is_ok());
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_without_showing_it() {
        let host = Host::new().file("text", "hunter2").file("user", &user_file(URI).to_string());
        let error = |path: &str| host.find(&Way::KeyFile(path.into())).unwrap_err().to_string();
        assert!(error("missing").contains("`key_file_path`: cannot read"), "{}", error("missing"));
        assert!(error(".").contains("not a plain file"));
        assert!(error("text").contains("not a file with credentials") && !error("text").contains("hunter2"));
        assert!(error("user").contains("(its type is \"authorized_user\")"));

        let with = |name: &str, value: Value| {
            let mut file = key_file(URI);
            file[name] = value;
            file_error(&file)
        };
        assert!(with("private_key", Value::Null).contains("no `private_key`"));
        assert!(
            with("private_key", json!("-----BEGIN PRIVATE KEY-----\nMIIabc\n-----END PRIVATE KEY-----\n"))
                .contains("not an RSA key")
        );
        assert!(with("client_email", Value::Null).contains("no `client_email`"));
        assert!(with("token_uri", json!("http://oauth2.googleapis.com/token")).contains("plain http"));
        assert!(with("token_uri", json!("https://a:b@oauth2.googleapis.com/token")).contains("credentials"));
        assert!(with("universe_domain", json!("s3ns.fr")).contains("only googleapis.com"));
        assert!(with("type", json!("external_account")).contains("are not served; use the key file"));
        assert!(with("type", json!("other")).contains("are not known"));
    }

    #[test]
    fn application_default_credentials_are_looked_for_in_googles_order() {
        let find = |host: &Host| host.find(&Way::ApplicationDefault).unwrap();
        let host = Host::new();
        let Credential::Machine(machine) = find(&host).credential else { panic!() };
        assert_eq!(machine.url.as_str(), "http://metadata.google.internal/");
        let looked = machine.looked.unwrap();
        assert!(
            looked.contains("GOOGLE_APPLICATION_CREDENTIALS is not set and there is no") && looked.contains(WELL_KNOWN)
        );

        let host = host.file(WELL_KNOWN, &user_file(URI).to_string());
        let found = find(&host);
        assert!(matches!(found.credential, Credential::User(_)));
        assert_eq!(found.quota_project.as_deref(), Some("payer"));
        assert!(!format!("{found:?}").contains("s3cret") && !format!("{found:?}").contains("r3fresh"));

        let host = host.file("k.json", &key_file(URI).to_string()).with(FILE_VARIABLE, "k.json");
        assert!(matches!(find(&host).credential, Credential::ServiceAccount(_)));
        // A file that is named must be there.
        let host = host.with(FILE_VARIABLE, "none.json");
        let error = host.find(&Way::ApplicationDefault).unwrap_err().to_string();
        assert!(error.starts_with("GOOGLE_APPLICATION_CREDENTIALS: cannot read"), "{error}");

        let host = Host::new().file("conf/application_default_credentials.json", &user_file(URI).to_string());
        assert!(matches!(find(&host.with("CLOUDSDK_CONFIG", "conf")).credential, Credential::User(_)));
    }

    #[test]
    fn an_impersonated_account_has_a_source() {
        let url = "https://elsewhere.example/v1/projects/-/serviceAccounts/reader@p.iam.gserviceaccount.com:generateAccessToken";
        let file = json!({"type": "impersonated_service_account", "service_account_impersonation_url": url,
            "delegates": ["d@p.iam.gserviceaccount.com"], "source_credentials": user_file(URI)});
        let host = Host::new().file(WELL_KNOWN, &file.to_string());
        let found = find(&Way::ApplicationDefault, Some("second@p.iam.gserviceaccount.com"), None, &host.environment);
        let Credential::Impersonated(outer) = found.unwrap().credential else { panic!() };
        assert_eq!(outer.email, "second@p.iam.gserviceaccount.com");
        let Credential::Impersonated(inner) = *outer.source else { panic!() };
        assert_eq!(inner.email, "reader@p.iam.gserviceaccount.com");
        assert_eq!(inner.delegates, ["d@p.iam.gserviceaccount.com"]);
        assert!(matches!(*inner.source, Credential::User(_)));

        let mut file = file;
        file["service_account_impersonation_url"] =
            json!("https://x/v1/projects/-/serviceAccounts/../x:generateAccessToken");
        assert!(file_error(&file).contains("names no service account"));
    }

    #[test]
    fn the_metadata_server_may_be_elsewhere() {
        let url = |host: &Host, endpoint: Option<&Endpoint>| {
            let found = find(&Way::Metadata, None, endpoint, &host.environment)?;
            let Credential::Machine(machine) = found.credential else { panic!() };
            Ok::<_, CredentialError>(machine.url.to_string())
        };
        let host = Host::new().with(METADATA_VARIABLE, "127.0.0.1:8080");
        assert_eq!(url(&host, None).unwrap(), "http://127.0.0.1:8080/");
        let endpoint = Endpoint::parse("http://localhost:9").unwrap();
        assert_eq!(url(&host, Some(&endpoint)).unwrap(), "http://localhost:9/");
        let error = url(&host.with(METADATA_VARIABLE, "http://host/x"), None).unwrap_err().to_string();
        assert!(error.contains("GCE_METADATA_HOST is"), "{error}");
    }
}
