//! A record as rules see it: `com` and `ext` parsed once for all rules, `raw` when the first rule asks for it.

use std::cell::OnceCell;

use proto::record::RecordView;

use crate::condition::{Bucket, Wanted};
use crate::json::Json;

/// A record.
#[derive(Debug)]
pub struct Record<'a> {
    /// The buckets, unparsed.
    pub view: RecordView<'a>,
    com: Part<'a>,
    ext: Part<'a>,
    raw: OnceCell<Part<'a>>,
    raw_wanted: Option<Vec<String>>,
    /// Why nothing can be said of the record, if nothing can.
    pub trouble: Option<String>,
}

/// A bucket.
#[derive(Debug)]
enum Part<'a> {
    There(Json<'a>),
    Missing,
    Broken(String),
}

impl<'a> Record<'a> {
    /// Splits the text of a record and parses what every rule needs. Of `raw`, no more is ever parsed than is wanted.
    ///
    /// # Errors
    /// When the text is not a JSON object.
    pub fn parse(text: &'a [u8], raw_wanted: &Wanted) -> serde_json::Result<Self> {
        let view = RecordView::parse(text)?;
        let com = Part::parse(view.com.map(|com| com.get()));
        let ext = Part::parse(view.ext.map(|ext| ext.get()));
        let trouble = trouble(&com);
        let raw_wanted = match raw_wanted {
            Wanted::All => None,
            Wanted::Fields(fields) => Some(fields.iter().cloned().collect()),
        };
        Ok(Self { view, com, ext, raw: OnceCell::new(), raw_wanted, trouble })
    }

    /// Common to all clouds.
    #[must_use]
    pub fn com(&self) -> Bucket<'_> {
        self.com.bucket()
    }

    /// Cloud-specific, derived.
    #[must_use]
    pub fn ext(&self) -> Bucket<'_> {
        self.ext.bucket()
    }

    /// The API's answer, as far as it is wanted.
    #[must_use]
    pub fn raw(&self) -> Bucket<'_> {
        let parse = || {
            let text = self.view.raw.map(|raw| raw.get());
            match &self.raw_wanted {
                None => Part::parse(text),
                Some(fields) => Part::parse_with(text, |text| Json::parse_only(text, fields)),
            }
        };
        self.raw.get_or_init(parse).bucket()
    }

    /// A text of `com`.
    #[must_use]
    pub fn com_text(&self, field: &str) -> Option<&str> {
        self.com.json()?.get(field)?.as_text()
    }

    /// A text of `ext`.
    #[must_use]
    pub fn ext_text(&self, field: &str) -> Option<&str> {
        self.ext.json()?.get(field)?.as_text()
    }

    /// A field of `com`.
    #[must_use]
    pub fn com_field(&self, field: &str) -> Option<&Json<'_>> {
        self.com.json()?.get(field)
    }

    /// The subscription, project or account that the resource belongs to.
    #[must_use]
    pub fn account(&self) -> Option<&str> {
        const FIELDS: [&str; 3] = ["subscription_id", "project_id", "account_id"];
        FIELDS.iter().find_map(|field| self.ext_text(field).filter(|text| !text.is_empty()))
    }

    /// What the record is called where a person reads it: the cloud's id, or else ours.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        const FIELDS: [&str; 3] = ["reference", "key", "id"];
        FIELDS.iter().find_map(|field| self.com_text(field).filter(|text| !text.is_empty()))
    }

    /// Why `ext` cannot be read, if it cannot.
    #[must_use]
    pub fn ext_trouble(&self) -> Option<&str> {
        match &self.ext {
            Part::Broken(reason) => Some(reason),
            Part::There(_) | Part::Missing => None,
        }
    }
}

impl<'a> Part<'a> {
    fn parse(text: Option<&'a str>) -> Self {
        Self::parse_with(text, Json::parse)
    }

    fn parse_with(text: Option<&'a str>, parse: impl FnOnce(&'a str) -> serde_json::Result<Json<'a>>) -> Self {
        match text.map(parse) {
            None | Some(Ok(Json::Null)) => Self::Missing,
            Some(Ok(json)) => Self::There(json),
            Some(Err(error)) => Self::Broken(error.to_string()),
        }
    }

    fn bucket(&self) -> Bucket<'_> {
        match self {
            Self::There(json) => Bucket::There(json),
            Self::Missing => Bucket::Missing,
            Self::Broken(reason) => Bucket::Broken(reason),
        }
    }

    fn json(&self) -> Option<&Json<'a>> {
        match self {
            Self::There(json) => Some(json),
            Self::Missing | Self::Broken(_) => None,
        }
    }
}

/// Why `com` does not say which rules look at the record, or who it is.
fn trouble(com: &Part<'_>) -> Option<String> {
    const NEEDED: [&str; 6] = ["id", "key", "cloud_type", "record_type", "reference", "origin_key"];
    let json = match com {
        Part::Missing => return None,
        Part::Broken(reason) => return Some(format!("com cannot be read: {reason}")),
        Part::There(json) => json,
    };
    if !matches!(json, Json::Object(_)) {
        return Some(format!("com is {}; an object is needed", json.kind()));
    }
    NEEDED.iter().find_map(|name| match json.get(name) {
        None | Some(Json::Null | Json::Text(_)) => None,
        Some(other) => Some(format!("com.{name} is {}; a text is needed", other.kind())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_that_are_null_are_missing() {
        let record = Record::parse(br#"{"raw":null,"com":{"cloud_type":"azure"}}"#, &Wanted::All).unwrap();
        assert!(matches!((record.raw(), record.ext()), (Bucket::Missing, Bucket::Missing)));
        assert_eq!(record.com_text("cloud_type"), Some("azure"));
        assert_eq!(record.trouble, None);
    }

    #[test]
    fn trouble_with_com_is_told() {
        for (text, said) in [
            (r#"{"com":[]}"#, "com is a list"),
            (r#"{"com":{"reference":5}}"#, "com.reference is a number"),
            (r#"{"com":{"x":1e999}}"#, "com cannot be read"),
        ] {
            let record = Record::parse(text.as_bytes(), &Wanted::All).unwrap();
            assert!(record.trouble.as_ref().is_some_and(|trouble| trouble.starts_with(said)), "{:?}", record.trouble);
        }
    }

    #[test]
    fn of_raw_only_what_is_wanted_is_read() {
        let wanted = Wanted::Fields(["a".to_owned()].into());
        let record = Record::parse(br#"{"raw":{"a":1,"b":2}}"#, &wanted).unwrap();
        let Bucket::There(raw) = record.raw() else { panic!() };
        assert_eq!((raw.get("a"), raw.get("b")), (Some(&Json::Int(1)), None));
    }
}
