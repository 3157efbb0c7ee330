//! What a collector answers, and what it means.

use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;

use crate::store::StoreError;

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
    /// How long the server asks to wait.
    pub(super) wait: Option<Duration>,
    /// Where it sends us.
    pub(super) location: Option<String>,
}

/// The JSON of an answer.
#[derive(Debug, Default, Deserialize)]
struct Said {
    #[serde(default)]
    text: String,
    code: Option<i64>,
    #[serde(rename = "invalid-event-number")]
    invalid_event: Option<usize>,
    #[serde(rename = "ackId")]
    ack: Option<u64>,
}

/// What it means for the events that were sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// They are taken. Indexers will confirm them under this number.
    Taken(Option<u64>),
    /// One of them is not as it should be. Its number may be counted from 0 or from 1: that differs by code.
    BadEvent {
        /// The number, if there is one.
        number: Option<usize>,
        /// The server's words.
        reason: String,
    },
    /// The token wants a channel for confirmations.
    NoChannel(String),
    /// None is taken, as far as one knows.
    Failed(StoreError),
}

impl Answer {
    /// What it means, as the answer of the server at this place to events for this index.
    pub(super) fn meaning(&self, place: &str, index: Option<&str>) -> Meaning {
        let said: Said = serde_json::from_slice(&self.body).unwrap_or_default();
        let words = match said.code {
            Some(code) => format!("{} (code {code})", said.text),
            None => format!("HTTP {}", self.status),
        };
        let permanent = |todo: &str| Meaning::Failed(StoreError::Permanent(format!("{place}: {words}; {todo}")));
        let later = || {
            let reason = format!("{place}: {words}");
            Meaning::Failed(StoreError::Transient { reason, wait: self.wait })
        };
        let status = self.status.as_u16();
        match (status, said.code) {
            // Newer servers have more codes for "taken": near their capacity, say.
            (200, _) => Meaning::Taken(said.ack),
            (_, Some(1)) => permanent("the token is disabled: enable it, or set `token` to another one"),
            (_, Some(2 | 3)) => permanent("no token arrived: does a proxy remove the header `Authorization`?"),
            (_, Some(4)) => permanent("the server does not know the token: check `token` and `uri`"),
            (_, Some(16)) => permanent("the server wants the token in a header, and it was sent so: check `uri`"),
            (_, Some(7)) => permanent(&match index {
                Some(index) => format!("there is no index {index:?}, or the token may not write to it: check `index`"),
                None => "the token may not write to its own index: set `index`".to_owned(),
            }),
            (_, Some(10 | 11)) => Meaning::NoChannel(words),
            (_, Some(14)) => permanent("the token is made without indexer acknowledgement: leave out `ack`"),
            (400, Some(6 | 12 | 13 | 15)) => Meaning::BadEvent { number: said.invalid_event, reason: words },
            (413, _) => Meaning::Failed(StoreError::TooLarge(format!("{place}: {words}: the request is too large"))),
            (429 | 408 | 500..=599, _) => later(),
            (401 | 403, _) => permanent("check `token`, and whether a proxy stands in between"),
            (404 | 405, _) => {
                permanent("there is no HTTP Event Collector: check `uri`, and whether the input is enabled")
            }
            (300..=399, _) => permanent(&format!(
                "it sends us to {}: set `uri` to where the collector is",
                self.location.as_deref().unwrap_or("another place")
            )),
            _ => permanent("an answer that this collector should not give: check `uri`"),
        }
    }

    /// Whether it says only that nothing was sent.
    pub(super) fn is_no_data(&self) -> bool {
        self.status == StatusCode::BAD_REQUEST
            && serde_json::from_slice(&self.body).is_ok_and(|said: Said| said.code == Some(5))
    }

    /// Whether the indexers have confirmed this number. An error is an answer that does not say it.
    pub(super) fn is_confirmed(&self, number: u64, place: &str) -> Result<bool, StoreError> {
        #[derive(Deserialize)]
        struct Acks {
            acks: std::collections::BTreeMap<String, bool>,
        }
        if self.status == StatusCode::OK
            && let Ok(Acks { acks }) = serde_json::from_slice(&self.body)
        {
            return Ok(acks.get(&number.to_string()).copied().unwrap_or(false));
        }
        Err(match self.meaning(place, None) {
            Meaning::Failed(error) => error,
            other => {
                let reason = format!("{place}: asked whether events are indexed, it answers {other:?}");
                StoreError::Transient { reason, wait: None }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(status: u16, body: &str) -> Meaning {
        let status = StatusCode::from_u16(status).unwrap();
        let answer = Answer { status, body: body.into(), wait: Some(Duration::from_secs(7)), location: None };
        answer.meaning("https://h", Some("main"))
    }

    fn coded(status: u16, code: u16) -> Meaning {
        meaning(status, &format!("{{\"text\":\"words\",\"code\":{code},\"invalid-event-number\":3}}"))
    }

    #[test]
    fn every_documented_code_has_its_meaning() {
        for code in [0, 17, 24, 25] {
            assert_eq!(coded(200, code), Meaning::Taken(None), "{code}");
        }
        for (status, code, todo) in [
            (403, 1, "enable"),
            (401, 2, "proxy"),
            (401, 3, "proxy"),
            (403, 4, "`token`"),
            (400, 5, "`uri`"),
            (400, 7, "`index`"),
            (400, 14, "`ack`"),
            (400, 16, "header"),
        ] {
            let Meaning::Failed(StoreError::Permanent(reason)) = coded(status, code) else { panic!("{code}") };
            assert!(reason.contains(todo) && reason.contains(&format!("words (code {code})")), "{reason}");
        }
        for (status, code) in [(500, 8), (503, 9), (503, 18), (503, 20), (503, 23), (429, 26), (429, 27)] {
            let Meaning::Failed(StoreError::Transient { wait, .. }) = coded(status, code) else { panic!("{code}") };
            assert_eq!(wait, Some(Duration::from_secs(7)));
        }
        for code in [6, 12, 13, 15] {
            let expected = Meaning::BadEvent { number: Some(3), reason: format!("words (code {code})") };
            assert_eq!(coded(400, code), expected);
        }
        for code in [10, 11] {
            assert!(matches!(coded(400, code), Meaning::NoChannel(_)), "{code}");
        }
        assert_eq!(meaning(200, r#"{"text":"Success","code":0,"ackId":5}"#), Meaning::Taken(Some(5)));
    }

    #[test]
    fn an_answer_of_somebody_else_has_a_meaning_too() {
        assert!(matches!(meaning(413, ""), Meaning::Failed(StoreError::TooLarge(_))));
        for status in [408, 429, 500, 502, 503, 504] {
            assert!(matches!(meaning(status, "<html>"), Meaning::Failed(StoreError::Transient { .. })), "{status}");
        }
        for status in [301, 400, 401, 403, 404, 405, 418] {
            assert!(matches!(meaning(status, "<html>"), Meaning::Failed(StoreError::Permanent(_))), "{status}");
        }
    }
}
