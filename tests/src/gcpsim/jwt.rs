//! The signed statements by which a service account says who it is.

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::signing_key::SigningKey;

/// The longest that a statement may be good.
const LONGEST: i64 = 3600;

/// How far the client's clock may be from the server's.
const SKEW: i64 = 300;

/// A JSON web token, taken apart and not yet trusted.
pub(super) struct Jwt<'a> {
    signed: &'a str,
    signature: Vec<u8>,
    head: Head,
    pub(super) claims: Claims,
}

#[derive(Deserialize)]
struct Head {
    alg: String,
    kid: Option<String>,
}

/// What a token states.
#[derive(Deserialize)]
pub(super) struct Claims {
    pub(super) iss: Option<String>,
    pub(super) sub: Option<String>,
    pub(super) aud: Option<String>,
    pub(super) scope: Option<String>,
    iat: Option<i64>,
    exp: Option<i64>,
}

impl<'a> Jwt<'a> {
    /// None for what is not a token at all.
    pub(super) fn parse(token: &'a str) -> Option<Self> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (head, claims) = signed.split_once('.')?;
        Some(Self {
            signed,
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
            head: part(head)?,
            claims: part(claims)?,
        })
    }

    /// Whether the holder of this key has signed it. A token need not name the key; if it does, it must
    /// be this one.
    pub(super) fn is_signed_by(&self, key: &SigningKey) -> bool {
        self.head.alg == "RS256"
            && self.head.kid.as_deref().is_none_or(|id| id == key.id())
            && key.has_signed(self.signed.as_bytes(), &self.signature)
    }

    /// Whether it is good now, and for an hour at most.
    pub(super) fn is_timely(&self, now: SystemTime) -> bool {
        let (Some(issued), Some(expires)) = (self.claims.iat, self.claims.exp) else {
            return false;
        };
        let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        issued <= now + SKEW && expires > now && expires > issued && expires - issued <= LONGEST
    }
}

fn part<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn token(claims: &str) -> String {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.{}", encode(r#"{"alg":"RS256"}"#), encode(claims), encode("no signature"))
    }

    #[test]
    fn a_token_is_good_for_an_hour_at_most() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(10_000);
        let is_timely = |claims: &str| Jwt::parse(&token(claims)).unwrap().is_timely(now);
        assert!(is_timely(r#"{"iat": 10000, "exp": 13600}"#));
        assert!(is_timely(r#"{"iat": 10200, "exp": 13600}"#));
        assert!(!is_timely(r#"{"iat": 10000, "exp": 13601}"#));
        assert!(!is_timely(r#"{"iat": 9000, "exp": 10000}"#));
        assert!(!is_timely(r#"{"iat": 10301, "exp": 10400}"#));
        assert!(!is_timely(r#"{"exp": 13600}"#));
    }

    #[test]
    fn a_wrong_signature_and_what_is_no_token_are_told() {
        let token = token(r#"{"iss": "someone"}"#);
        let jwt = Jwt::parse(&token).unwrap();
        assert_eq!(jwt.claims.iss.as_deref(), Some("someone"));
        assert!(!jwt.is_signed_by(&SigningKey::registered(1).unwrap()));
        for text in ["", "a.b.c", "ya29.abc", "e30.e30.!"] {
            assert!(Jwt::parse(text).is_none(), "{text}");
        }
    }
}
