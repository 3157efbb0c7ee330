//! Signatures: the receiver can tell that a message is ours, and of now.

use std::fmt::Write;

use proto::config::secret::Secret;
use ring::hmac;

/// When it was signed, in seconds since 1970.
pub(super) const TIMESTAMP: &str = "X-Cloudmarker-Timestamp";
/// `sha256=` and HMAC-SHA256, in hexadecimal digits, over the timestamp, a full stop, and the body.
pub(super) const SIGNATURE: &str = "X-Cloudmarker-Signature";

pub(super) fn signature(secret: &Secret, timestamp: u64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{timestamp}.").as_bytes());
    context.update(body);
    let mut text = String::from("sha256=");
    for byte in context.sign().as_ref() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_documented_one() {
        // printf '1700000000.{}' | openssl dgst -sha256 -hmac key
        let expected = "sha256=9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae";
        assert_eq!(signature(&Secret::from("key"), 1_700_000_000, b"{}"), expected);
    }
}
