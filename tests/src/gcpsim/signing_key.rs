//! RSA keys, as a service account has them.
//!
//! The two keys in this folder open nothing: they were made for these tests, no account of any cloud
//! knows them, and everybody can read them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rsa::KeyPair;
use ring::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

use crate::cloudsim::random::Random;

/// The key that the service account has.
const REGISTERED: &str = include_str!("service_account_key.pem");

/// A good key that no account has.
const UNREGISTERED: &str = include_str!("unregistered_key.pem");

/// A private key with its number, and the public key that goes with it.
pub(super) struct SigningKey {
    pem: &'static str,
    id: String,
    public: Vec<u8>,
}

impl SigningKey {
    pub(super) fn registered(seed: u64) -> Option<Self> {
        Self::new(REGISTERED, seed)
    }

    pub(super) fn unregistered(seed: u64) -> Option<Self> {
        Self::new(UNREGISTERED, seed)
    }

    /// The number has nothing to do with the key, as in Google's key files.
    fn new(pem: &'static str, seed: u64) -> Option<Self> {
        let lines = pem.lines().filter(|line| !line.starts_with('-'));
        let der = STANDARD.decode(lines.collect::<String>()).ok()?;
        let pair = KeyPair::from_pkcs8(&der).ok()?;
        let mut random = Random::at(seed, &[u64::from_le_bytes(*der.last_chunk()?)]);
        let id = format!("{:016x}{:016x}{:08x}", random.next(), random.next(), random.next() >> 32);
        Some(Self { pem, id, public: pair.public_key().as_ref().to_vec() })
    }

    /// PKCS#8, as key files have it.
    pub(super) fn pem(&self) -> &'static str {
        self.pem
    }

    /// What key files call `private_key_id` and the head of a JWT `kid`.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Whether the signature is RS256 over the message by this key.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.public).verify(message, signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_keys_are_not_the_same() {
        let (one, other) = (SigningKey::registered(1).unwrap(), SigningKey::unregistered(1).unwrap());
        assert_ne!(one.public, other.public);
        assert_ne!(one.id(), other.id());
        assert_eq!(one.id().len(), 40);
        assert_eq!(one.id(), SigningKey::registered(1).unwrap().id());
    }
}
