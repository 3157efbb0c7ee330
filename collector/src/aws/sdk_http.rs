//! The HTTP client that AWS's chain of credentials asks through: ours, so that there is one TLS in the program, and
//! every answer is bounded.

use std::net::IpAddr;
use std::sync::Arc;

use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use url::{Host, Url};

use crate::http::{Client, HttpError, Limits, Outgoing, Timeouts};

/// The services that give out credentials answer quickly, or are not there.
const TIMEOUTS: Timeouts = Timeouts {
    connect: std::time::Duration::from_secs(3),
    read: std::time::Duration::from_secs(15),
    whole: std::time::Duration::from_secs(30),
};

/// A client for the chain.
pub(super) fn client() -> reqwest::Result<SharedHttpClient> {
    let limits = Limits::new(16);
    let connector = SharedHttpConnector::new(Connector {
        // A proxy cannot reach this machine's own services, and must not see its credentials.
        near: Client::new(TIMEOUTS, true, Arc::clone(&limits))?,
        far: Client::new(TIMEOUTS, false, limits)?,
    });
    Ok(http_client_fn(move |_, _| connector.clone()))
}

#[derive(Debug, Clone)]
struct Connector {
    near: Client,
    far: Client,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let connector = self.clone();
        HttpConnectorFuture::new(async move { connector.send(&request).await })
    }
}

impl Connector {
    async fn send(&self, request: &HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let user = |error: String| ConnectorError::user(error.into());
        let url = Url::parse(request.uri()).map_err(|error| user(error.to_string()))?;
        let method = Method::from_bytes(request.method().as_bytes()).map_err(|error| user(error.to_string()))?;
        let mut headers = HeaderMap::new();
        for (name, value) in request.headers() {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| user(error.to_string()))?;
            headers.append(name, HeaderValue::from_str(value).map_err(|error| user(error.to_string()))?);
        }
        let Some(body) = request.body().bytes().map(<[u8]>::to_vec) else {
            return Err(user("a body that is a stream".to_owned()));
        };
        let client = if is_near(&url) { &self.near } else { &self.far };
        let sent = client.send(Outgoing { method, url, headers, body }).await;
        let answer = sent.map_err(|error| match error {
            HttpError::Transient { .. } => ConnectorError::io(error.into()),
            HttpError::TooLarge { .. } => ConnectorError::other(error.into(), None),
        })?;
        let status = answer.status.as_u16().try_into();
        let status = status.map_err(|_| ConnectorError::other("a status that is none".into(), None))?;
        let mut response = HttpResponse::new(status, SdkBody::from(answer.body));
        for (name, value) in &answer.headers {
            // The body is decompressed by now, and as long as it is.
            if let Ok(value) = value.to_str()
                && name != reqwest::header::CONTENT_LENGTH
                && name != reqwest::header::CONTENT_ENCODING
            {
                response.headers_mut().append(name.as_str().to_owned(), value.to_owned());
            }
        }
        Ok(response)
    }
}

/// This machine, and what the cloud shows to it alone.
fn is_near(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback() || address.is_link_local(),
        Some(Host::Ipv6(address)) => {
            let imds: Option<IpAddr> = "fd00:ec2::254".parse().ok();
            let containers: Option<IpAddr> = "fd00:ec2::23".parse().ok();
            address.is_loopback() || [imds, containers].contains(&Some(IpAddr::V6(address)))
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_is_not_asked_through_a_proxy() {
        let near = |url| is_near(&Url::parse(url).unwrap());
        assert!(
            near("http://169.254.169.254/latest") && near("http://localhost:1/") && near("http://[fd00:ec2::254]/")
        );
        assert!(!near("https://sts.us-east-1.amazonaws.com/") && !near("http://10.0.0.1/"));
    }
}
