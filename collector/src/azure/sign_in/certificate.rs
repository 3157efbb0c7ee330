//! A certificate of an application, and what it signs to prove itself.
//!
//! Reference: <https://learn.microsoft.com/entra/identity-platform/certificate-credentials>

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use azure_core::base64::encode_url_safe;
use azure_core::credentials::Secret as TokenSecret;
use proto::config::secret::Secret;
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use ring::rsa::KeyPair;
use ring::signature::{KeyPair as _, RSA_PSS_SHA256};
use rustls::pki_types::pem::{PemObject, SectionKind};
use serde_json::json;

/// How long an assertion is good for: it is used at once.
const LIFETIME: Duration = Duration::from_secs(600);
/// The largest file of a certificate or a token, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Where the certificate and its private key are.
#[derive(Debug, Clone)]
pub(in crate::azure) enum Certificate {
    /// In a PEM file.
    File(PathBuf),
    /// In this text.
    Pem(Secret),
}

impl Certificate {
    /// The key, with the thumbprint of the certificate that it belongs to.
    pub(super) fn signing_key(&self) -> Result<SigningKey, String> {
        match self {
            Self::Pem(pem) => SigningKey::read(pem.expose()).map_err(|why| format!("`certificate`: {why}")),
            Self::File(path) => {
                let name = format!("`certificate` {}", path.display());
                let pem = read_small_file(path).map_err(|why| {
                    format!("{name} cannot be read: {why}; put the file there, or make it readable for this user")
                })?;
                SigningKey::read(pem.expose()).map_err(|why| format!("{name}: {why}"))
            }
        }
    }
}

/// The text of a file that holds a secret.
pub(super) fn read_small_file(path: &Path) -> Result<Secret, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    if !file.metadata().map_err(|error| error.to_string())?.is_file() {
        return Err("it is not a plain file".to_owned());
    }
    let read = file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|error| error.to_string());
    let text = Secret::from(text);
    if read? as u64 > MAX_FILE { Err(format!("it is larger than {MAX_FILE} bytes")) } else { Ok(text) }
}

/// A key that signs for a certificate.
pub(super) struct SigningKey {
    key: KeyPair,
    /// SHA-256 of the certificate, base64url.
    thumbprint: String,
}

impl SigningKey {
    fn read(pem: &str) -> Result<Self, String> {
        if pem.contains("ENCRYPTED") {
            return Err("its key is encrypted, and encrypted keys are not taken: write it without a password by \
                `openssl pkey -in KEY -out FILE`, readable for this user only, and add the certificate"
                .to_owned());
        }
        let (mut key, mut certificates) = (None, Vec::new());
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes()) {
            let (kind, der) = section.map_err(|error| format!("it is not proper PEM ({error})"))?;
            match kind {
                SectionKind::Certificate => certificates.push(der),
                SectionKind::PrivateKey => key = Some(KeyPair::from_pkcs8(&der)),
                SectionKind::RsaPrivateKey => key = Some(KeyPair::from_der(&der)),
                SectionKind::EcPrivateKey => return Err(NOT_RSA.to_owned()),
                _ => {}
            }
        }
        let key = match key {
            None => return Err("there is no private key in it: `-----BEGIN PRIVATE KEY-----` is expected".to_owned()),
            Some(Err(refused)) if refused.to_string() == "WrongAlgorithm" => return Err(NOT_RSA.to_owned()),
            Some(Err(refused)) => {
                return Err(format!(
                    "its private key cannot be used ({refused}): an RSA key of 2048, 3072 or 4096 bits is expected"
                ));
            }
            Some(Ok(key)) => key,
        };
        if certificates.is_empty() {
            return Err("there is no certificate in it: `-----BEGIN CERTIFICATE-----` is expected".to_owned());
        }
        // A certificate holds its public key as it is; those of the authorities above it may stand beside it.
        let public = key.public_key().as_ref();
        let belongs = |der: &&Vec<u8>| der.windows(public.len()).any(|window| window == public);
        let Some(certificate) = certificates.iter().find(belongs) else {
            return Err("its private key belongs to none of its certificates".to_owned());
        };
        let thumbprint = encode_url_safe(digest::digest(&digest::SHA256, certificate));
        Ok(Self { key, thumbprint })
    }

    /// What an application says of itself to an audience, signed.
    pub(super) fn assertion(&self, client: &str, audience: &str) -> Result<TokenSecret, String> {
        let random = SystemRandom::new();
        let mut id = [0; 16];
        random.fill(&mut id).map_err(|_| "the system gives no random numbers")?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let header = json!({"alg": "PS256", "typ": "JWT", "x5t#S256": self.thumbprint});
        let claims = json!({
            "aud": audience,
            "iss": client,
            "sub": client,
            "jti": encode_url_safe(id),
            "iat": now.as_secs(),
            "nbf": now.as_secs(),
            "exp": (now + LIFETIME).as_secs(),
        });
        let signed = format!("{}.{}", encode_url_safe(header.to_string()), encode_url_safe(claims.to_string()));
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(&RSA_PSS_SHA256, &random, signed.as_bytes(), &mut signature)
            .map_err(|_| "its private key does not sign")?;
        Ok(TokenSecret::new(format!("{signed}.{}", encode_url_safe(signature))))
    }
}

const NOT_RSA: &str =
    "its private key is not an RSA key, and Entra ID takes no other: make a certificate with an RSA key";
