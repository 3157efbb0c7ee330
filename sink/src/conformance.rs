//! What every store must do, as checks that run over any of them.
//!
//! A store's test makes a [`Subject`] and calls [`check`]:
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use sink::{conformance::{Subject, check}, store::Store};
//! # async fn example(store: Arc<dyn Store>) -> Result<(), String> {
//! let subject = Subject::new(store, |ids| Box::pin(async move { Ok(ids.iter().map(|_| todo!()).collect()) }));
//! check(&subject.with_too_large(20 * 1024 * 1024)).await
//! # }
//! ```

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use proto::identity::IdMaker;
use proto::subject::{Key, Version};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::batch;
use crate::store::{Document, Pruning, Store};

/// How long one check may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// The versions that the documents are of.
const VERSIONS: [&str; 3] = ["20260101_000000", "20260102_000000", "20260103_000000"];

/// How a check ends: well, or with what is wrong.
pub type Checked<T = ()> = Result<T, String>;

/// Reads documents back, by id, as JSON text: what is not there is left out. What a store keeps in another form (a
/// number as a text, a key with other signs) is turned back as the store's documentation tells its users to do it.
pub type Read = Box<dyn Fn(Vec<String>) -> BoxFuture<'static, Checked<BTreeMap<String, String>>> + Send + Sync>;

/// A store that is checked.
pub struct Subject {
    store: Arc<dyn Store>,
    read: Read,
    audit: Key,
    too_large: Option<usize>,
    prunes: bool,
}

impl std::fmt::Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Subject").field(&self.store.place()).finish()
    }
}

impl Subject {
    /// A store, and how its documents are read back.
    ///
    /// # Panics
    /// Never: the audit's name is short.
    pub fn new(
        store: Arc<dyn Store>,
        read: impl Fn(Vec<String>) -> BoxFuture<'static, Checked<BTreeMap<String, String>>> + Send + Sync + 'static,
    ) -> Self {
        #[allow(clippy::expect_used, reason = "a short name is a key")]
        let audit = Key::new("conformance").expect("a short name is a key");
        Self { store, read: Box::new(read), audit, too_large: None, prunes: true }
    }

    /// The size, in bytes, of a document that the store cannot take.
    #[must_use]
    pub fn with_too_large(mut self, bytes: usize) -> Self {
        self.too_large = Some(bytes);
        self
    }

    /// The store has no way to remove documents.
    #[must_use]
    pub fn without_pruning(mut self) -> Self {
        self.prunes = false;
        self
    }

    fn document(&self, version: &str, key: &str, mut body: Value) -> Checked<Document> {
        let version = Version::new(version).map_err(|error| error.to_string())?;
        let plugin = Key::new("cloud").map_err(|error| error.to_string())?;
        let id = IdMaker::of_records(&self.audit, &version, &plugin).id(&["thing", key]).to_string();
        body["com"]["id"] = id.as_str().into();
        body["com"]["key"] = key.into();
        body["com"]["audit_key"] = self.audit.as_str().into();
        body["com"]["audit_version"] = version.as_str().into();
        body["com"]["origin_key"] = "cloud".into();
        body["com"]["origin_type"] = "cloud".into();
        let record_type = body["ext"]["record_type"].as_str().unwrap_or_default().to_owned();
        Ok(Document { id, record_type, audit: self.audit.clone(), version, body: body.to_string().into() })
    }

    fn plain(&self, version: &str, key: &str) -> Checked<Document> {
        self.document(
            version,
            key,
            json!({
                "raw": {"name": key, "tags": {"team": "blue", "ünï": "…"}, "list": [1, 2.5, null, true, [], {}], "deep": {"a": {"b": {"c": -1}}}},
                "ext": {"cloud_type": "test", "record_type": "thing", "subscription_id": "s-1", "count": 3},
                "com": {"cloud_type": "test", "record_type": null, "reference": format!("/things/{key}")},
            }),
        )
    }

    /// Stores documents as the layer does; what the store refuses, by place.
    async fn store(&self, documents: &[Document]) -> Checked<BTreeMap<usize, String>> {
        batch::settle(&*self.store, documents).await
    }

    async fn store_all(&self, documents: &[Document]) -> Checked {
        let refused = self.store(documents).await?;
        match refused.first_key_value() {
            None => Ok(()),
            Some((place, reason)) => {
                Err(format!("{} of {} refused; the document {place}: {reason}", refused.len(), documents.len()))
            }
        }
    }

    /// Each of these documents must be there, equal by content.
    async fn expect<'a>(&self, documents: impl IntoIterator<Item = &'a Document>) -> Checked {
        let documents: Vec<&Document> = documents.into_iter().collect();
        let there = (self.read)(documents.iter().map(|document| document.id.clone()).collect()).await?;
        for document in documents {
            let Some(found) = there.get(&document.id) else {
                return Err(format!("the document {} is not there", document.id));
            };
            let expected = String::from_utf8_lossy(&document.body);
            if content(found)? != content(&expected)? {
                return Err(format!(
                    "the document {} came back as {}, not {}",
                    document.id,
                    cut(found),
                    cut(&expected)
                ));
            }
        }
        Ok(())
    }

    async fn expect_none(&self, documents: &[Document]) -> Checked {
        let there = (self.read)(documents.iter().map(|document| document.id.clone()).collect()).await?;
        match there.first_key_value() {
            None => Ok(()),
            Some((id, _)) => Err(format!("the document {id} is there")),
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(500).collect()
}

/// The content of JSON: without the order of keys and without white space, with all digits of whole numbers.
fn content(text: &str) -> Checked<Content> {
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| format!("no JSON: {error}: {}", cut(text)))?;
    Content::of(raw).map_err(|error| format!("no JSON: {error}: {}", cut(text)))
}

#[derive(Debug, PartialEq)]
enum Content {
    Object(BTreeMap<String, Content>),
    Array(Vec<Content>),
    Text(String),
    Whole(String),
    Number(f64),
    Word(String),
}

impl Content {
    fn of(raw: &RawValue) -> serde_json::Result<Self> {
        let text = raw.get();
        Ok(match text.as_bytes().first() {
            Some(b'{') => {
                let fields: BTreeMap<String, &RawValue> = serde_json::from_str(text)?;
                let fields = fields.into_iter().map(|(name, value)| Ok((name, Self::of(value)?)));
                Self::Object(fields.collect::<serde_json::Result<_>>()?)
            }
            Some(b'[') => {
                let items: Vec<&RawValue> = serde_json::from_str(text)?;
                Self::Array(items.into_iter().map(Self::of).collect::<serde_json::Result<_>>()?)
            }
            Some(b'"') => Self::Text(serde_json::from_str(text)?),
            Some(b't' | b'f' | b'n') => Self::Word(text.to_owned()),
            _ if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') => Self::Whole(text.to_owned()),
            _ => Self::Number(serde_json::from_str(text)?),
        })
    }
}

/// Runs all checks, one after the other.
///
/// # Errors
/// Everything that the store does not do as it must.
pub async fn check(subject: &Subject) -> Checked {
    let checks: [(&str, BoxFuture<'_, Checked>); 8] = [
        ("it can be connected to again and again", Box::pin(connects_again(subject))),
        ("documents come back equal", Box::pin(round_trip(subject))),
        ("a document is replaced by its id", Box::pin(replaces(subject))),
        ("a batch that comes again changes nothing", Box::pin(comes_again(subject))),
        ("odd documents are stored in a faithful form or refused", Box::pin(odd_documents(subject))),
        ("a document that is too large holds up no other", Box::pin(too_large(subject))),
        ("batches are written at the same time", Box::pin(at_once(subject))),
        ("old versions go and others stay", Box::pin(prunes(subject))),
    ];
    let mut wrong = String::new();
    for (name, check) in checks {
        let checked = tokio::time::timeout(PATIENCE, check).await;
        let checked = checked.unwrap_or_else(|_| Err(format!("no end after {} s", PATIENCE.as_secs())));
        if let Err(reason) = checked {
            // Writing to a string cannot fail.
            let _ = writeln!(wrong, "{name}: {reason}");
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

async fn connects_again(subject: &Subject) -> Checked {
    for _ in 0..2 {
        subject.store.connect().await.map_err(|error| error.to_string())?;
    }
    if subject.store.place().is_empty() {
        return Err("it does not say where its documents are".to_owned());
    }
    Ok(())
}

async fn round_trip(subject: &Subject) -> Checked {
    let one = subject.plain(VERSIONS[2], "alone")?;
    subject.store_all(std::slice::from_ref(&one)).await?;
    let many = (0..1_000).map(|n| subject.plain(VERSIONS[2], &format!("trip/{n}"))).collect::<Checked<Vec<_>>>()?;
    subject.store_all(&many).await?;
    subject.expect(many.iter().chain([&one])).await
}

async fn replaces(subject: &Subject) -> Checked {
    let first = subject.plain(VERSIONS[2], "replaced")?;
    let body = json!({"raw": {"other": [1]}, "ext": {"record_type": "thing"}, "com": {}});
    let second = subject.document(VERSIONS[2], "replaced", body)?;
    subject.store_all(std::slice::from_ref(&first)).await?;
    subject.expect([&first]).await?;
    subject.store_all(std::slice::from_ref(&second)).await?;
    // Nothing of the first may be left in it.
    subject.expect([&second]).await
}

async fn comes_again(subject: &Subject) -> Checked {
    let many = (0..100).map(|n| subject.plain(VERSIONS[2], &format!("again/{n}"))).collect::<Checked<Vec<_>>>()?;
    for part in [&many[..], &many[..50], &many[25..], &many[..]] {
        subject.store_all(part).await?;
    }
    subject.expect(&many).await
}

/// Documents that a store may find hard to take, by what is odd in them.
fn odd(subject: &Subject) -> Checked<Vec<(&'static str, Document)>> {
    let make = |name: &'static str, raw: Value, ext: Value| -> Checked<(&'static str, Document)> {
        let mut body = json!({"raw": raw, "ext": {"record_type": "odd"}, "com": {"cloud_type": "test"}});
        if let (Some(fields), Value::Object(more)) = (body["ext"].as_object_mut(), ext) {
            fields.extend(more);
        }
        Ok((name, subject.document(VERSIONS[2], &format!("odd/{name}"), body)?))
    };
    let many: serde_json::Map<String, Value> = (0..5_000).map(|n| (format!("key{n}"), n.into())).collect();
    let deep = (0..60).fold(json!(1), |inner, _| json!({"d": inner}));
    let mut odd = vec![
        make("dots", json!({"a.b": 1, "a": {"b": 2}, ".": 3, "..": 4, "a.": 5}), json!({"a.b": 1}))?,
        make("dollars", json!({"$set": {"a": 1}, "$": 2, "a$b": 3, "$where": "1"}), json!({"$ref": "x"}))?,
        make("NULs in keys", json!({"a\u{0}b": 1, "\u{0}": 2}), json!({}))?,
        make("NULs in texts", json!({"a": "b\u{0}c"}), json!({"name": "\u{0}"}))?,
        make("an empty key", json!({"": 1, "a": {"": {"": 2}}}), json!({"": 3}))?,
        make("the key _id", json!({"_id": 1, "_source": 2, "_index": 3}), json!({"_id": "x"}))?,
        make("texts that look like dates", json!({"a": "2026-02-31"}), json!({"created": "2026-02-31", "at": "0000"}))?,
        make("dates", json!({"a": "2026-01-31T00:00:00Z"}), json!({"created": "2026-01-31T00:00:00Z", "at": "x"}))?,
        make("a number where a text was", json!({"name": 1}), json!({"name": 1, "created": 5}))?,
        make("an object where a text was", json!({"name": {"a": 1}}), json!({"name": {"a": 1}}))?,
        make("a text where an object was", json!({"tags": "none"}), json!({"tags": "none"}))?,
        make("5,000 keys", Value::Object(many.clone()), json!({}))?,
        make("5,000 keys in ext", json!({}), Value::Object(many))?,
        make("depth", deep, json!({}))?,
        make("long texts", json!({"a": "x".repeat(100_000)}), json!({"a": "y".repeat(40_000)}))?,
        make("odd letters", json!({"\u{fffd}\u{1f600}\u{200b}": "\u{10ffff}\u{7f}\u{1}\r\n\t\\\"/"}), json!({}))?,
        make("mixed lists", json!({"a": [1, "x", {"b": 1}, [2]]}), json!({"list": [1, "x", {"b": 1}]}))?,
        make("no raw", Value::Null, json!({}))?,
    ];
    // Larger than any number of Rust's serde_json: written as text.
    let (name, mut document) = make("numbers beyond 64 bits", json!({"n": "N"}), json!({"n": "N"}))?;
    let text = String::from_utf8_lossy(&document.body).replace(
        "\"N\"",
        "[123456789012345678901234567890, -9223372036854775809, 18446744073709551615, 9223372036854775808, 1.5e300]",
    );
    document.body = text.into();
    odd.push((name, document));
    Ok(odd)
}

async fn odd_documents(subject: &Subject) -> Checked {
    let mut documents = Vec::new();
    let mut names = BTreeMap::new();
    for (name, document) in odd(subject)? {
        documents.push(subject.plain(VERSIONS[2], &format!("beside/{name}"))?);
        names.insert(documents.len(), name);
        documents.push(document);
    }
    let refused = subject.store(&documents).await?;
    for (place, reason) in &refused {
        match names.get(place) {
            None => return Err(format!("a plain document was refused beside odd ones: {reason}")),
            Some(name) if reason.is_empty() => return Err(format!("{name}: refused without a reason")),
            Some(_) => {}
        }
    }
    let mut wrong = Vec::new();
    for (place, document) in documents.iter().enumerate() {
        let name = names.get(&place).copied().unwrap_or("a plain document beside odd ones");
        let checked = if refused.contains_key(&place) {
            subject.expect_none(std::slice::from_ref(document)).await
        } else {
            subject.expect([document]).await
        };
        wrong.extend(checked.err().map(|reason| format!("{name}: {reason}")));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n  ")) }
}

async fn too_large(subject: &Subject) -> Checked {
    let Some(bytes) = subject.too_large else { return Ok(()) };
    let large = json!({"raw": {"a": "x".repeat(bytes)}, "ext": {"record_type": "thing"}, "com": {}});
    let mut documents =
        (0..20).map(|n| subject.plain(VERSIONS[2], &format!("beside large/{n}"))).collect::<Checked<Vec<_>>>()?;
    documents.insert(7, subject.document(VERSIONS[2], "large", large)?);
    let refused = subject.store(&documents).await?;
    if refused.keys().copied().collect::<Vec<_>>() != [7] {
        return Err(format!("these were refused, not the large one alone: {refused:?}"));
    }
    documents.remove(7);
    subject.expect(&documents).await
}

async fn at_once(subject: &Subject) -> Checked {
    let batches = (0..4)
        .map(|batch| {
            (0..250).map(|n| subject.plain(VERSIONS[2], &format!("at once/{batch}/{n}"))).collect::<Checked<Vec<_>>>()
        })
        .collect::<Checked<Vec<_>>>()?;
    let stored = futures::future::join_all(batches.iter().map(|batch| subject.store_all(batch))).await;
    stored.into_iter().collect::<Checked<()>>()?;
    subject.expect(batches.iter().flatten()).await
}

async fn prunes(subject: &Subject) -> Checked {
    if !subject.prunes {
        return Ok(());
    }
    let of = |version: &str| (0..30).map(|n| subject.plain(version, &format!("old/{n}"))).collect::<Checked<Vec<_>>>();
    let [first, second, third] = [of(VERSIONS[0])?, of(VERSIONS[1])?, of(VERSIONS[2])?];
    for documents in [&first, &second, &third] {
        subject.store_all(documents).await?;
    }
    let version = |text: &str| Version::new(text).map_err(|error| error.to_string());
    let mut pruning = Pruning {
        audit: Key::new("another audit").map_err(|error| error.to_string())?,
        before: version(VERSIONS[2])?,
        keep: vec![version(VERSIONS[0])?],
        permanent_days: None,
    };
    let prune =
        |pruning: Pruning| async move { subject.store.prune(&pruning).await.map_err(|error| error.to_string()) };
    prune(pruning.clone()).await?;
    subject
        .expect(first.iter().chain(&second).chain(&third))
        .await
        .map_err(|wrong| format!("another audit's: {wrong}"))?;
    pruning.audit = subject.audit.clone();
    prune(pruning.clone()).await?;
    subject.expect_none(&second).await?;
    subject.expect(first.iter().chain(&third)).await?;
    // What is not older than the bound stays, also when it is not named.
    pruning.keep.clear();
    prune(pruning).await?;
    subject.expect_none(&first).await?;
    subject.expect(&third).await
}
