//! HTTP for alerts: bounded in time and size, no redirects, and never to addresses that are nobody's business.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{self, HeaderMap};
use reqwest::{RequestBuilder, StatusCode, redirect};
use url::{Host, Url};

use crate::alert::AlertError;
use crate::readable::line;

/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 1024 * 1024;
/// How long is waited for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How long is waited for the next bytes.
const READ: Duration = Duration::from_secs(30);
/// How long a whole exchange may take.
const WHOLE: Duration = Duration::from_secs(120);

/// Which addresses may be spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Any.
    Anywhere,
    /// Not this host, not this link, no metadata service: whoever configures a target from outside must not reach
    /// what only insiders can.
    Outside,
}

/// Why a target is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{host} is at {address}, {kind}; if that is meant, name the host in `allow`")]
pub struct Forbidden {
    host: String,
    address: IpAddr,
    kind: &'static str,
}

/// A client.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
}

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, or its beginning.
    pub body: Vec<u8>,
}

impl Answer {
    /// How long the server asks to wait, if it says so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let value = self.headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
        if let Ok(seconds) = value.parse::<u64>() {
            return Some(Duration::from_secs(seconds));
        }
        let date = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
        SystemTime::from(date).duration_since(SystemTime::now()).ok()
    }

    /// What it says, for people.
    #[must_use]
    pub fn excerpt(&self) -> String {
        let text: String = String::from_utf8_lossy(&self.body).chars().take(1000).collect();
        let text: String = line(&text).chars().take(200).collect();
        if text.is_empty() { String::new() } else { format!(": {text}") }
    }

    /// Whether it may go well later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.status.is_server_error()
            || matches!(
                self.status,
                StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
            )
    }
}

impl Client {
    /// A client. A `direct` one takes no proxy from the environment: for loopback targets.
    ///
    /// # Errors
    /// When TLS cannot be set up, for people: mostly because this host has no CA certificates.
    pub fn new(reach: Reach, direct: bool) -> Result<Self, String> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // An error means that somebody else was first, which is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("cloudmarker/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .read_timeout(READ)
            .timeout(WHOLE)
            .redirect(redirect::Policy::none());
        if reach == Reach::Outside {
            // A proxy would look names up itself, and nobody would see where they lead.
            builder = builder.no_proxy().dns_resolver(Arc::new(OutsideOnly));
        } else if direct {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| format!("cannot set up TLS: {}", chain(&error)))?;
        Ok(Self { http })
    }

    /// A POST.
    pub fn post(&self, url: Url) -> RequestBuilder {
        self.http.post(url)
    }
}

/// Sends a request. `what` names it in errors: URLs may hold secrets.
///
/// # Errors
/// When there is no answer.
pub async fn exchange(what: &str, request: RequestBuilder) -> Result<Answer, AlertError> {
    let mut response = request.send().await.map_err(|error| explain(what, error))?;
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| explain(what, error))? {
        let room = MAX_ANSWER - body.len();
        body.extend_from_slice(chunk.get(..room.min(chunk.len())).unwrap_or_default());
        if body.len() >= MAX_ANSWER {
            break;
        }
    }
    Ok(Answer { status, headers, body })
}

fn explain(what: &str, error: reqwest::Error) -> AlertError {
    let error = error.without_url();
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(inner) = cause {
        if let Some(forbidden) = inner.downcast_ref::<Forbidden>() {
            return AlertError::Permanent(format!("{what}: {forbidden}"));
        }
        let io = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = inner
            .downcast_ref::<rustls::Error>()
            .or_else(|| io.and_then(|inner| inner.downcast_ref::<rustls::Error>()));
        if matches!(tls, Some(rustls::Error::InvalidCertificate(_))) {
            return AlertError::Permanent(format!(
                "{what}: the server's certificate is not to be trusted: {}",
                chain(&error)
            ));
        }
        cause = inner.source();
    }
    if error.is_builder() {
        return AlertError::Permanent(format!("{what}: {}", chain(&error)));
    }
    AlertError::transient(format!("{what}: {}", chain(&error)))
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = inner.source();
    }
    line(&text)
}

/// Looks names up, and refuses those that lead to forbidden addresses: one is enough.
#[derive(Debug)]
struct OutsideOnly;

impl Resolve for OutsideOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            for address in &found {
                check(name.as_str(), address.ip())?;
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Refuses a URL whose host is written as a forbidden address: those are not looked up.
///
/// # Errors
/// When it is.
pub fn check_literal(url: &Url) -> Result<(), Forbidden> {
    match url.host() {
        Some(Host::Ipv4(address)) => check(&address.to_string(), address.into()),
        Some(Host::Ipv6(address)) => check(&address.to_string(), address.into()),
        Some(Host::Domain(_)) | None => Ok(()),
    }
}

fn check(host: &str, address: IpAddr) -> Result<(), Forbidden> {
    match forbidden(address) {
        Some(kind) => Err(Forbidden { host: host.to_owned(), address, kind }),
        None => Ok(()),
    }
}

/// Clouds serve their metadata, credentials among it, at these beside the link-local ones.
const METADATA_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200)];
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

/// What an address is, if it is not for everybody's eyes.
fn forbidden(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => forbidden_v4(address),
        IpAddr::V6(address) => {
            if let Some(inner) = embedded(address) {
                return forbidden_v4(inner);
            }
            let [first, ..] = address.segments();
            match () {
                () if address.is_loopback() => Some("a loopback address"),
                () if address.is_unspecified() => Some("no address of a host"),
                () if address.is_multicast() => Some("a multicast address"),
                () if METADATA_V6.contains(&address) => Some("a metadata address"),
                // fe80::/10, and the old fec0::/10.
                () if first & 0xff80 == 0xfe80 => Some("a link-local address"),
                () => None,
            }
        }
    }
}

fn forbidden_v4(address: Ipv4Addr) -> Option<&'static str> {
    match () {
        () if address.is_loopback() => Some("a loopback address"),
        () if address.octets()[0] == 0 => Some("no address of a host"),
        () if address.is_link_local() => Some("a link-local address, where metadata is served"),
        () if METADATA_V4.contains(&address) => Some("a metadata address"),
        () if address.is_multicast() || address.is_broadcast() => Some("a multicast address"),
        () => None,
    }
}

/// The IPv4 address within one of IPv6 (mapped, translated, compatible, NAT64, 6to4): it leads there.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let of = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0xffff] | [0, 0, 0, 0, 0xffff, 0] | [0x64, 0xff9b, 0, 0, 0, 0] => Some(of(g, h)),
        // A network's own prefix for NAT64.
        [0x64, 0xff9b, 1, ..] => Some(of(g, h)),
        [0, 0, 0, 0, 0, 0] if u32::from(g) << 16 | u32::from(h) > 1 => Some(of(g, h)),
        [0x2002, high, low, ..] => Some(of(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_addresses_are_known_in_every_form() {
        for inner in [
            "127.0.0.1",
            "127.8.9.10",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "168.63.129.16",
            "100.100.100.200",
            "255.255.255.255",
            "224.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a9fe:a9fe",
            "::ffff:0:127.0.0.1",
            "2002:7f00:1::",
            "::7f00:1",
            "ff02::1",
            "febf::1",
        ] {
            assert!(forbidden(inner.parse().unwrap()).is_some(), "{inner}");
        }
        for outer in ["8.8.8.8", "10.0.0.1", "192.168.1.1", "2001:4860::8888", "::ffff:8.8.8.8", "fd00::1"] {
            assert_eq!(forbidden(outer.parse().unwrap()), None, "{outer}");
        }
        for literal in ["http://127.1/", "http://0x7f000001/", "http://2130706433/", "http://[::1]/", "http://0/"] {
            assert!(check_literal(&Url::parse(literal).unwrap()).is_err(), "{literal}");
        }
    }

    #[tokio::test]
    async fn names_that_lead_inside_are_refused_where_they_are_looked_up() {
        let client = Client::new(Reach::Outside, false).unwrap();
        let request = client.post(Url::parse("http://localhost:1/secret").unwrap());
        let Err(AlertError::Permanent(reason)) = exchange("the webhook", request).await else { panic!("not refused") };
        assert!(reason.contains("loopback") && reason.contains("`allow`") && !reason.contains("secret"), "{reason}");
    }
}
