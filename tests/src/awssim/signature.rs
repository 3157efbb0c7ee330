//! Signature Version 4, as a server checks it: computed anew from what came.
//!
//! Reference: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>.

use std::collections::BTreeMap;

use axum::http::request::Parts;
use ring::{digest, hmac};

/// What a signed request says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signed {
    pub(super) key_id: String,
    pub(super) token: Option<String>,
    pub(super) region: String,
    pub(super) service: String,
    /// `20260131T235959Z`.
    pub(super) time: String,
    date: String,
    headers: Vec<String>,
    signature: String,
}

impl Signed {
    /// Reads the header `Authorization`; `None` when it is not one of this kind.
    pub(super) fn read(request: &Parts) -> Option<Self> {
        let header = |name: &str| request.headers.get(name)?.to_str().ok().map(str::to_owned);
        let text = header("authorization")?;
        let fields: BTreeMap<&str, &str> = text
            .strip_prefix("AWS4-HMAC-SHA256")?
            .split(',')
            .filter_map(|field| field.trim().split_once('='))
            .collect();
        let mut scope = fields.get("Credential")?.split('/');
        let mut next = || scope.next().map(str::to_owned);
        let (key_id, date, region, service) = (next()?, next()?, next()?, next()?);
        (next()? == "aws4_request").then_some(())?;
        Some(Self {
            key_id,
            token: header("x-amz-security-token"),
            region,
            service,
            time: header("x-amz-date")?,
            date,
            headers: fields.get("SignedHeaders")?.split(';').map(str::to_owned).collect(),
            signature: (*fields.get("Signature")?).to_owned(),
        })
    }

    /// Whether the holder of the secret has signed this request with this body.
    pub(super) fn is_by(&self, secret: &str, request: &Parts, body: &[u8]) -> bool {
        let needed = ["host", "x-amz-date"];
        let with_token = self.token.is_none() || self.headers.iter().any(|name| name == "x-amz-security-token");
        self.time.starts_with(&self.date)
            && needed.iter().all(|name| self.headers.iter().any(|signed| signed == name))
            && with_token
            && self.expected(secret, request, body) == self.signature
    }

    fn expected(&self, secret: &str, request: &Parts, body: &[u8]) -> String {
        let mut query: Vec<&str> =
            request.uri.query().unwrap_or_default().split('&').filter(|it| !it.is_empty()).collect();
        query.sort_unstable();
        let headers: String = self.headers.iter().map(|name| format!("{name}:{}\n", values(request, name))).collect();
        let canonical = format!(
            "{}\n{}\n{}\n{headers}\n{}\n{}",
            request.method,
            request.uri.path(),
            query.join("&"),
            self.headers.join(";"),
            hex(digest::digest(&digest::SHA256, body).as_ref())
        );
        let scope = format!("{}/{}/{}/aws4_request", self.date, self.region, self.service);
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{}\n{scope}\n{}",
            self.time,
            hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref())
        );
        let mut key = format!("AWS4{secret}").into_bytes();
        for part in [&*self.date, &*self.region, &*self.service, "aws4_request"] {
            key = mac(&key, part);
        }
        hex(&mac(&key, &to_sign))
    }
}

fn values(request: &Parts, name: &str) -> String {
    let values = request.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.map(|value| value.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join(",")
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn request(signature: &str) -> Parts {
        // The example of AWS's own documentation, and its signature.
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date, Signature={signature}"
        );
        let request = Request::get("/?Action=ListUsers&Version=2010-05-08")
            .header("host", "iam.amazonaws.com")
            .header("content-type", "application/x-www-form-urlencoded; charset=utf-8")
            .header("x-amz-date", "20150830T123600Z")
            .header("authorization", authorization);
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_published_example_is_signed_rightly() {
        const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        let parts = request("5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7");
        let signed = Signed::read(&parts).unwrap();
        assert_eq!((signed.region.as_str(), signed.service.as_str()), ("us-east-1", "iam"));
        assert!(signed.is_by(SECRET, &parts, b""));
        assert!(!signed.is_by(SECRET, &parts, b"x"));
        assert!(!signed.is_by("another", &parts, b""));
        let other = request("0d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7");
        assert!(!Signed::read(&other).unwrap().is_by(SECRET, &other, b""));
    }
}
