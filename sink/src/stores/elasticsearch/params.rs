//! The parameters: where the server is, who we are there, and which index it is.

use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{GeneralPurposeConfig, STANDARD};
use proto::catalogue::ParamError;
use proto::config::params;
use proto::config::secret::{Secret, has_reference};
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::index::IndexPattern;

const DEFAULT_HOST: &str = "localhost";
const DEFAULT_PORT: u16 = 9200;
const DEFAULT_INDEX: &str = "cloudmarker";
const DEFAULT_BUFFER: u64 = 5_000_000;
/// What the servers take as one request unless they are told otherwise.
const LARGEST_BUFFER: u64 = 100_000_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Params {
    /// The server's name or address.
    host: Option<String>,
    /// Its port.
    port: Option<u16>,
    /// Where the server is, in place of `host` and `port`: for https, or a path.
    url: Option<String>,
    /// Where a deployment of Elastic Cloud is, in place of the above.
    cloud_id: Option<String>,
    /// The index, or a pattern of indexes.
    index: String,
    /// Bytes of documents in a request.
    #[serde(deserialize_with = "params::size")]
    buffer_size: Option<u64>,
    /// A file of certificates, in PEM: who may vouch for the server in place of the host's own.
    ca_cert: Option<String>,
    /// Whether the server's certificate is looked at.
    verify: bool,
    username: Option<String>,
    password: Option<Secret>,
    /// In place of a user: the key as the server gives it out (`encoded`), or `id:key`.
    api_key: Option<Secret>,
    /// Whether requests travel compressed.
    compress: bool,
    /// Whether the index template is ours to make.
    template: bool,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            host: None,
            port: None,
            url: None,
            cloud_id: None,
            index: DEFAULT_INDEX.to_owned(),
            buffer_size: None,
            ca_cert: None,
            verify: true,
            username: None,
            password: None,
            api_key: None,
            compress: false,
            template: true,
        }
    }
}

/// Who we are to the server.
#[derive(Debug)]
pub(super) enum Login {
    Nobody,
    User {
        name: String,
        password: Secret,
    },
    /// As it stands in the header.
    ApiKey(Secret),
}

/// The parameters, checked.
#[derive(Debug)]
pub(super) struct Settings {
    /// Ends with a slash.
    pub(super) base: Url,
    pub(super) index: IndexPattern,
    pub(super) buffer_bytes: usize,
    pub(super) ca_cert: Option<String>,
    pub(super) verify: bool,
    pub(super) login: Login,
    pub(super) compress: bool,
    pub(super) template: bool,
}

/// Checks parameters that are not expanded yet: what a reference stands for is not known.
pub(super) fn check(value: &Value) -> Result<(), Vec<ParamError>> {
    let mut read: Params = params::read(value)?;
    let is_open = |text: &Option<String>| text.as_deref().is_some_and(has_reference);
    // What fits all that may stand there.
    if is_open(&read.url) || is_open(&read.host) || is_open(&read.cloud_id) {
        let others = [read.url.take(), read.cloud_id.take(), read.host.take()].iter().flatten().count();
        let port = read.port.take();
        read.url = Some("https://reference.invalid".to_owned());
        // Two places at once are wrong whatever they are.
        read.host = (others > 1).then(|| DEFAULT_HOST.to_owned());
        read.port = port.filter(|_| others > 1);
    }
    if has_reference(&read.index) {
        DEFAULT_INDEX.clone_into(&mut read.index);
    }
    settle(read).map(drop)
}

/// Reads parameters that are expanded.
pub(super) fn read(value: &Value) -> Result<Settings, Vec<ParamError>> {
    settle(params::read(value)?)
}

fn error(path: &str, message: impl Into<String>) -> ParamError {
    ParamError { path: path.to_owned(), message: message.into() }
}

fn settle(params: Params) -> Result<Settings, Vec<ParamError>> {
    let mut errors = Vec::new();
    let mut note = |error| errors.push(error);
    let base = place(&params).map_err(&mut note).ok();
    let index = IndexPattern::parse(&params.index).map_err(|message| note(error("index", message))).ok();
    let buffer = params.buffer_size.unwrap_or(DEFAULT_BUFFER);
    if !(1..=LARGEST_BUFFER).contains(&buffer) {
        note(error("buffer_size", format!("found {buffer}; 1 to {LARGEST_BUFFER} bytes are expected")));
    }
    let plain = base.as_ref().is_some_and(|base| base.scheme() == "http");
    if plain {
        let written =
            base.as_ref().map(Url::as_str).unwrap_or_default().trim_end_matches('/').replacen("http", "https", 1);
        let remedy = format!("set `url: {written}`, or leave it out");
        if params.ca_cert.is_some() {
            note(error("ca_cert", format!("is for https, but the server is reached by plain http; {remedy}")));
        }
        if !params.verify {
            note(error("verify", format!("is for https, but the server is reached by plain http; {remedy}")));
        }
    }
    if params.ca_cert.is_some() && !params.verify {
        note(error(
            "verify",
            "`verify: false` trusts everybody, and `ca_cert` says whom to trust; leave out one of them",
        ));
    }
    if params.ca_cert.as_deref() == Some("") {
        note(error("ca_cert", "found an empty text; the path of a file of certificates (PEM) is expected"));
    }
    let (ca_cert, verify, compress, template) =
        (params.ca_cert.clone(), params.verify, params.compress, params.template);
    let login = login(params).map_err(|more| more.into_iter().for_each(&mut note)).ok();
    match (base, index, login) {
        (Some(base), Some(index), Some(login)) if errors.is_empty() => Ok(Settings {
            base,
            index,
            buffer_bytes: usize::try_from(buffer).unwrap_or(usize::MAX),
            ca_cert,
            verify,
            login,
            compress,
            template,
        }),
        _ => Err(errors),
    }
}

/// Where the server is.
fn place(params: &Params) -> Result<Url, ParamError> {
    let given = |name: &'static str, is: bool| is.then_some(name);
    let ways: Vec<&str> = [
        given("cloud_id", params.cloud_id.is_some()),
        given("url", params.url.is_some()),
        given("host", params.host.is_some()),
        given("port", params.port.is_some()),
    ]
    .into_iter()
    .flatten()
    .collect();
    if let [first @ ("cloud_id" | "url"), others @ ..] = ways.as_slice()
        && !others.is_empty()
    {
        let message =
            format!("`{first}` says where the server is, and so does `{}`; leave out one", others.join("`, `"));
        return Err(error(first, message));
    }
    match (&params.cloud_id, &params.url) {
        (Some(cloud_id), _) => cloud(cloud_id)
            .ok_or_else(|| error("cloud_id", "it is none; copy it from the deployment's page in Elastic Cloud")),
        (None, Some(url)) => base(url).map_err(|message| error("url", message)),
        (None, None) => of_host(params.host.as_deref().unwrap_or(DEFAULT_HOST), params.port.unwrap_or(DEFAULT_PORT)),
    }
}

fn of_host(host: &str, port: u16) -> Result<Url, ParamError> {
    if port == 0 {
        return Err(error("port", "found 0; 1 to 65535 is expected, mostly 9200"));
    }
    let wrong = |remedy: &str| error("host", format!("{host:?} is not the name or address of a host; {remedy}"));
    if host.contains("://") {
        return Err(wrong(&format!("write it as `url: {host}`")));
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let host_only = if bare.contains(':') { format!("[{bare}]") } else { bare.to_owned() };
    let url = Url::parse(&format!("http://{host_only}:{port}/"));
    let is_host = !host.is_empty() && !host.contains(['/', '@', '?', '#', '\\']);
    url.ok().filter(|_| is_host).ok_or_else(|| wrong("write it like `localhost` or `10.1.2.3`, and the port as `port`"))
}

fn base(text: &str) -> Result<Url, String> {
    const LIKE: &str = "write it like `https://host:9200` or `https://host/path`";
    // Never the URL itself: somebody may have written a password into it.
    let mut url = Url::parse(text).map_err(|error| format!("it is not a URL ({error}); {LIKE}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(format!("its scheme is `{}`; {LIKE}", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it has a user or password in it; set `username` and `password` instead".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("it has a `?` or `#`; {LIKE}"));
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

/// `name:` and, encoded, `host$elasticsearch$kibana`: the server is `https://elasticsearch.host`. Each may have a port.
fn cloud(cloud_id: &str) -> Option<Url> {
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent);
    let encoded = cloud_id.trim().rsplit_once(':').map_or(cloud_id.trim(), |(_, encoded)| encoded);
    let decoded = GeneralPurpose::new(&base64::alphabet::STANDARD, lenient).decode(encoded).ok()?;
    let decoded = String::from_utf8(decoded).ok()?;
    let mut parts = decoded.split('$');
    let (host, server) = (parts.next()?, parts.next()?);
    let (host, port) = host.split_once(':').unwrap_or((host, ""));
    let (server, port) = server.split_once(':').unwrap_or((server, port));
    let is_name = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
    };
    if !is_name(host) || !is_name(server) {
        return None;
    }
    let port = if port.is_empty() { 443 } else { port.parse::<u16>().ok()? };
    Url::parse(&format!("https://{server}.{host}:{port}/")).ok()
}

fn login(params: Params) -> Result<Login, Vec<ParamError>> {
    let mut errors = Vec::new();
    if params.api_key.is_some() && (params.username.is_some() || params.password.is_some()) {
        errors.push(error("api_key", "it says who we are, and so do `username` and `password`; leave out one"));
    } else if params.username.is_some() != params.password.is_some() {
        let (there, missing) =
            if params.username.is_some() { ("username", "password") } else { ("password", "username") };
        errors.push(error(missing, format!("set `{missing}`, too: `{there}` needs it")));
    }
    if params.username.as_deref().is_some_and(|name| name.is_empty() || name.contains(':')) {
        errors.push(error("username", "a user's name is not empty and has no `:`"));
    }
    if params.password.as_ref().is_some_and(Secret::is_empty) {
        errors.push(error("password", "found an empty text; a password is expected"));
    }
    let is_header = |key: &Secret| !key.is_empty() && key.expose().bytes().all(|byte| byte.is_ascii_graphic());
    if params.api_key.as_ref().is_some_and(|key| !has_reference(key.expose()) && !is_header(key)) {
        errors.push(error("api_key", "it is none; take `encoded` of what the server gave out, or `id:api_key`"));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(match (params.api_key, params.username, params.password) {
        (Some(key), _, _) if key.expose().contains(':') => Login::ApiKey(STANDARD.encode(key.expose()).into()),
        (Some(key), _, _) => Login::ApiKey(key),
        (None, Some(name), Some(password)) => Login::User { name, password },
        _ => Login::Nobody,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn base_of(params: &Value) -> String {
        read(params).unwrap().base.to_string()
    }

    fn errors(params: &Value) -> Vec<String> {
        read(params).unwrap_err().into_iter().map(|error| format!("{}: {}", error.path, error.message)).collect()
    }

    #[test]
    fn the_parameters_of_the_python_tool_mean_the_same() {
        let settings = read(&json!({})).unwrap();
        assert_eq!(settings.base.as_str(), "http://localhost:9200/");
        assert_eq!(settings.index.fixed(), Some("cloudmarker"));
        assert_eq!(settings.buffer_bytes, 5_000_000);
        assert!(matches!(settings.login, Login::Nobody) && settings.template && settings.verify);
        let settings = read(&json!({"host": "es", "port": 9201, "index": "i", "buffer_size": 1000})).unwrap();
        assert_eq!((settings.base.as_str(), settings.buffer_bytes), ("http://es:9201/", 1000));
        assert_eq!(base_of(&json!({"host": "::1"})), "http://[::1]:9200/");
    }

    #[test]
    fn a_server_is_where_a_url_or_a_cloud_id_says() {
        assert_eq!(base_of(&json!({"url": "https://es.example/path"})), "https://es.example/path/");
        let id = format!("my:deployment:{}", STANDARD.encode("eu.aws.example$abc$def"));
        assert_eq!(base_of(&json!({"cloud_id": id})), "https://abc.eu.aws.example/");
        let id = format!("x:{}", STANDARD.encode("eu.example:9243$abc$"));
        assert_eq!(base_of(&json!({"cloud_id": id.trim_end_matches('=')})), "https://abc.eu.example:9243/");
    }

    #[test]
    fn keys_are_taken_in_both_forms() {
        let key = |key: &str| match read(&json!({"api_key": key})).unwrap().login {
            Login::ApiKey(key) => key.expose().to_owned(),
            _ => String::new(),
        };
        assert_eq!(key("aWQ6a2V5"), "aWQ6a2V5");
        assert_eq!(key("id:key"), "aWQ6a2V5");
    }

    #[test]
    fn all_errors_are_told_at_once_with_what_to_do() {
        assert_eq!(
            errors(&json!({
                "url": "https://u:p@h", "index": "A b", "buffer_size": 0, "username": "u", "ca_cert": "", "verify": false,
            })),
            [
                "url: it has a user or password in it; set `username` and `password` instead",
                "index: \"a b\" has ' ', which index names must not have; write an index name such as `cloudmarker`, \
                 `cloudmarker-{record_type}` or `cloudmarker-{month}`",
                "buffer_size: found 0; 1 to 100000000 bytes are expected",
                "verify: `verify: false` trusts everybody, and `ca_cert` says whom to trust; leave out one of them",
                "ca_cert: found an empty text; the path of a file of certificates (PEM) is expected",
                "password: set `password`, too: `username` needs it",
            ]
        );
        assert_eq!(
            errors(&json!({"url": "http://h", "host": "h", "port": 1})),
            ["url: `url` says where the server is, and so does `host`, `port`; leave out one"]
        );
        assert_eq!(
            errors(&json!({"ca_cert": "/ca.pem"})),
            [
                "ca_cert: is for https, but the server is reached by plain http; set `url: https://localhost:9200`, or leave \
              it out"
            ]
        );
        assert_eq!(
            errors(&json!({"host": "https://h"})),
            ["host: \"https://h\" is not the name or address of a host; write it as `url: https://h`"]
        );
        for (params, path) in [
            (json!({"host": "a/b"}), "host"),
            (json!({"host": ""}), "host"),
            (json!({"port": 0}), "port"),
            (json!({"url": "ftp://h"}), "url"),
            (json!({"url": "h:9200"}), "url"),
            (json!({"url": "http://h?x"}), "url"),
            (json!({"cloud_id": "x:y"}), "cloud_id"),
            (json!({"api_key": "a b"}), "api_key"),
            (json!({"api_key": "k", "username": "u", "password": "p"}), "api_key"),
            (json!({"username": "", "password": "p"}), "username"),
            (json!({"username": "u", "password": ""}), "password"),
        ] {
            assert_eq!(read(&params).unwrap_err()[0].path, path, "{params}");
        }
        let shown = format!("{:?}", read(&json!({"username": "u", "password": "hunter2"})).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn what_a_reference_stands_for_is_not_checked_before_it_is_known() {
        for good in [
            json!({"url": "${CM_URL}", "ca_cert": "${CM_CA}", "username": "u", "password": "${CM_P}"}),
            json!({"host": "${CM_HOST}", "port": 1, "index": "${CM_INDEX}"}),
            json!({"cloud_id": "${CM_ID}", "api_key": "${file:/run/secrets/a b}"}),
        ] {
            assert_eq!(check(&good), Ok(()), "{good}");
        }
        assert!(check(&json!({"url": "${CM_URL}", "host": "h"})).is_err());
        assert!(check(&json!({"url": "${CM_URL}", "index": "{x}"})).is_err());
    }
}
