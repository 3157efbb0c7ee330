//! Client assertions: what an application shows instead of a secret, signed with its certificate or handed
//! out by a federated identity provider.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm};
use serde_json::Value;

/// The ways to sign in besides the client secret.
#[derive(Clone, Debug, Default)]
pub(super) struct Credentials {
    certificates: Vec<Certificate>,
    federated: Vec<String>,
    /// What a client on an App Service shows to prove that it is there.
    pub(super) identity_header: String,
}

impl Credentials {
    pub(super) fn new(identity_header: String) -> Self {
        Self { identity_header, ..Self::default() }
    }

    /// Registers a certificate at the application.
    pub(super) fn add_certificate(&mut self, pem: &str) -> Result<()> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).context("there is no certificate in the PEM text")?;
        webpki::EndEntityCert::try_from(&der).context("the certificate cannot be read")?;
        self.certificates.push(Certificate { der: der.into_owned() });
        Ok(())
    }

    /// Trusts a text that a federated identity provider gave out.
    pub(super) fn add_federated(&mut self, assertion: String) {
        self.federated.push(assertion);
    }

    /// Looks at an assertion that `client` shows to a token endpoint of these names.
    pub(super) fn check(
        &self,
        assertion: &str,
        client: &str,
        endpoints: &[String],
        now: SystemTime,
    ) -> Result<(), Doubt> {
        if self.federated.iter().any(|known| known == assertion) {
            return Ok(());
        }
        let jwt = match Jwt::parse(assertion) {
            Some(jwt) if jwt.has_thumbprint() => jwt,
            Some(_) | None if !self.federated.is_empty() => return Err(Doubt::NotFederated),
            Some(_) => return Err(Doubt::NoThumbprint),
            None => return Err(Doubt::Malformed),
        };
        let certificate = self
            .certificates
            .iter()
            .find(|certificate| jwt.names(certificate))
            .ok_or_else(|| Doubt::UnknownKey(jwt.thumbprint()))?;
        if !certificate.has_signed(&jwt) {
            return Err(Doubt::BadSignature(certificate.thumbprint()));
        }
        let is_client = |name: &str| jwt.claims[name].as_str().is_some_and(|found| found.eq_ignore_ascii_case(client));
        if !is_client("iss") || !is_client("sub") {
            return Err(Doubt::OtherClient);
        }
        let audience = jwt.claims["aud"].as_str().unwrap_or_default();
        if !endpoints.iter().any(|endpoint| endpoint.eq_ignore_ascii_case(audience)) {
            return Err(Doubt::OtherAudience(audience.to_owned()));
        }
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let (from, until) = (jwt.claims["nbf"].as_u64().unwrap_or_default(), jwt.claims["exp"].as_u64());
        // Five minutes are granted for clocks that differ.
        if from > now + 300 || until.is_none_or(|until| until <= now) {
            return Err(Doubt::OutOfTime { from, until: until.unwrap_or_default() });
        }
        Ok(())
    }
}

/// What is wrong with an assertion.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    Malformed,
    NoThumbprint,
    UnknownKey(String),
    BadSignature(String),
    OtherClient,
    OtherAudience(String),
    OutOfTime { from: u64, until: u64 },
    NotFederated,
}

#[derive(Clone, Debug)]
struct Certificate {
    der: CertificateDer<'static>,
}

impl Certificate {
    fn digest(&self, algorithm: &'static digest::Algorithm) -> digest::Digest {
        digest::digest(algorithm, &self.der)
    }

    /// The one that people compare: SHA-1, in capital hexadecimal digits.
    fn thumbprint(&self) -> String {
        hexadecimal(self.digest(&digest::SHA1_FOR_LEGACY_USE_ONLY).as_ref())
    }

    fn has_signed(&self, jwt: &Jwt<'_>) -> bool {
        let algorithm: &dyn SignatureVerificationAlgorithm = match jwt.header["alg"].as_str() {
            Some("RS256") => webpki::ring::RSA_PKCS1_2048_8192_SHA256,
            Some("PS256") => webpki::ring::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
            _ => return false,
        };
        let certificate = webpki::EndEntityCert::try_from(&self.der);
        certificate.is_ok_and(|certificate| {
            certificate.verify_signature(algorithm, jwt.signed.as_bytes(), &jwt.signature).is_ok()
        })
    }
}

struct Jwt<'a> {
    header: Value,
    claims: Value,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Jwt<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let json = |part: &str| -> Option<Value> {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok().filter(Value::is_object)
        };
        Some(Self {
            header: json(header)?,
            claims: json(claims)?,
            signed,
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
        })
    }

    fn has_thumbprint(&self) -> bool {
        ["x5t", "x5t#S256"].iter().any(|name| self.header[*name].is_string())
    }

    /// Whether the thumbprints, as far as there are any, are the certificate's.
    fn names(&self, certificate: &Certificate) -> bool {
        [("x5t", &digest::SHA1_FOR_LEGACY_USE_ONLY), ("x5t#S256", &digest::SHA256)].into_iter().all(
            |(name, algorithm)| {
                let shown = self.header[name].as_str().map(|shown| shown.trim_end_matches('='));
                shown.is_none_or(|shown| shown == URL_SAFE_NO_PAD.encode(certificate.digest(algorithm)))
            },
        )
    }

    fn thumbprint(&self) -> String {
        let shown = self.header["x5t"].as_str().or(self.header["x5t#S256"].as_str()).unwrap_or_default();
        hexadecimal(&URL_SAFE_NO_PAD.decode(shown.trim_end_matches('=')).unwrap_or_default())
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}
