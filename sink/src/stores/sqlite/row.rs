//! The columns beside a document's JSON.

use std::borrow::Cow;

use proto::record::RecordView;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::store::Document;

/// A document as a row.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) document: &'a Document,
    pub(super) json: &'a str,
    pub(super) common: Common<'a>,
    /// The subscription, project or account.
    pub(super) account: Option<Cow<'a, str>>,
    pub(super) severity: Option<Cow<'a, str>>,
    pub(super) is_event: bool,
    pub(super) is_permanent: bool,
}

/// The fields of `com`. One that is not a text is as good as none.
#[derive(Debug, Default)]
pub(super) struct Common<'a> {
    pub(super) cloud_type: Option<Cow<'a, str>>,
    pub(super) reference: Option<Cow<'a, str>>,
    pub(super) origin: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Com<'a> {
    #[serde(borrow)]
    cloud_type: Option<&'a RawValue>,
    #[serde(borrow)]
    reference: Option<&'a RawValue>,
    #[serde(borrow)]
    origin_key: Option<&'a RawValue>,
    #[serde(borrow)]
    origin_type: Option<&'a RawValue>,
    #[serde(borrow)]
    severity: Option<&'a RawValue>,
    #[serde(borrow)]
    lifetime: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Ext<'a> {
    #[serde(borrow)]
    subscription_id: Option<&'a RawValue>,
    #[serde(borrow)]
    project_id: Option<&'a RawValue>,
    #[serde(borrow)]
    account_id: Option<&'a RawValue>,
    #[serde(borrow)]
    severity: Option<&'a RawValue>,
}

fn text<'a>(value: Option<&'a RawValue>) -> Option<Cow<'a, str>> {
    let json = value?.get();
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(json).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

impl<'a> Row<'a> {
    /// The error says why the document cannot be a row.
    pub(super) fn of(document: &'a Document) -> Result<Self, String> {
        let json = std::str::from_utf8(&document.body).map_err(|error| format!("the document is not text: {error}"))?;
        let view = RecordView::parse(&document.body).map_err(|error| format!("the document is not JSON: {error}"))?;
        let com: Com<'a> = view.com.and_then(|com| serde_json::from_str(com.get()).ok()).unwrap_or_default();
        let ext: Ext<'a> = view.ext.and_then(|ext| serde_json::from_str(ext.get()).ok()).unwrap_or_default();
        Ok(Self {
            document,
            json,
            account: text(ext.subscription_id).or_else(|| text(ext.project_id)).or_else(|| text(ext.account_id)),
            severity: text(com.severity).or_else(|| text(ext.severity)),
            is_event: text(com.origin_type).as_deref() == Some("event"),
            is_permanent: text(com.lifetime).as_deref() == Some("permanent"),
            common: Common {
                cloud_type: text(com.cloud_type),
                reference: text(com.reference),
                origin: text(com.origin_key),
            },
        })
    }
}
