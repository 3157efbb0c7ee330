//! The form of rule files: what YAML can say of it. What it means is checked in [`super::check`].

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A rule as its file has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleFile {
    pub(super) id: String,
    #[serde(default)]
    pub(super) class: Option<String>,
    pub(super) title: String,
    pub(super) severity: String,
    #[serde(default = "one")]
    pub(super) version: u32,
    #[serde(default)]
    pub(super) about: Option<String>,
    pub(super) remediation: String,
    #[serde(default)]
    pub(super) controls: BTreeMap<String, Vec<String>>,
    pub(super) applies_to: AppliesTo,
    #[serde(default)]
    pub(super) params: Entries<ParamFile>,
    #[serde(default, rename = "let")]
    pub(super) lets: Entries<String>,
    #[serde(default)]
    pub(super) when: Option<String>,
    #[serde(default)]
    pub(super) findings: Option<Vec<FindingFile>>,
    // The only finding of most rules stands at the top.
    #[serde(default)]
    pub(super) event_type: Option<String>,
    #[serde(default)]
    pub(super) for_each: Option<Entries<String>>,
    #[serde(default)]
    pub(super) fail_if: Option<String>,
    #[serde(default)]
    pub(super) unknown_if: Option<String>,
    #[serde(default)]
    pub(super) unknown_because: Option<String>,
    #[serde(default)]
    pub(super) sub_key: Option<String>,
    #[serde(default)]
    pub(super) description: Option<String>,
    #[serde(default)]
    pub(super) recommendation: Option<String>,
    #[serde(default)]
    pub(super) ext: Entries<String>,
    #[serde(default)]
    pub(super) com: Entries<String>,
    #[serde(default)]
    pub(super) evidence: Entries<String>,
    /// Whether `com` of the events names the source's cloud and reference.
    #[serde(default = "yes")]
    pub(super) names_source: bool,
    /// A record that the tests change.
    #[serde(default)]
    pub(super) sample: Value,
    #[serde(default)]
    pub(super) tests: Vec<TestFile>,
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}

/// What a rule finds.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FindingFile {
    #[serde(default)]
    pub(super) event_type: Option<String>,
    #[serde(default)]
    pub(super) title: Option<String>,
    #[serde(default)]
    pub(super) severity: Option<String>,
    #[serde(default)]
    pub(super) controls: Option<BTreeMap<String, Vec<String>>>,
    #[serde(default)]
    pub(super) for_each: Option<Entries<String>>,
    #[serde(default)]
    pub(super) fail_if: Option<String>,
    #[serde(default)]
    pub(super) unknown_if: Option<String>,
    #[serde(default)]
    pub(super) unknown_because: Option<String>,
    #[serde(default)]
    pub(super) sub_key: Option<String>,
    #[serde(default)]
    pub(super) description: Option<String>,
    #[serde(default)]
    pub(super) recommendation: Option<String>,
    #[serde(default)]
    pub(super) ext: Entries<String>,
    #[serde(default)]
    pub(super) com: Entries<String>,
    #[serde(default)]
    pub(super) evidence: Entries<String>,
}

/// The records that a rule looks at.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AppliesTo {
    #[serde(default)]
    pub(super) cloud: Option<Words>,
    #[serde(default, rename = "com.record_type")]
    pub(super) com: Option<Words>,
    #[serde(default, rename = "ext.record_type")]
    pub(super) ext: Option<Words>,
}

/// A parameter.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ParamFile {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) default: Value,
    #[serde(default)]
    pub(super) min: Option<f64>,
    #[serde(default)]
    pub(super) max: Option<f64>,
    #[serde(default)]
    pub(super) allowed: Option<Vec<String>>,
    /// Whether the number 0 is refused.
    #[serde(default)]
    pub(super) nonzero: bool,
    #[serde(default)]
    pub(super) about: String,
}

/// A test of a rule.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TestFile {
    pub(super) name: String,
    /// The whole record, in place of the sample.
    #[serde(default)]
    pub(super) record: Option<Value>,
    /// Values by path.
    #[serde(default)]
    pub(super) set: Entries<Value>,
    /// Paths of fields that are taken away.
    #[serde(default)]
    pub(super) unset: Vec<String>,
    #[serde(default)]
    pub(super) params: Value,
    /// The time of the run.
    #[serde(default)]
    pub(super) now: Option<String>,
    pub(super) expect: Expect,
    /// What the reason of an unknown says.
    #[serde(default)]
    pub(super) because: Option<String>,
    /// For each event, what stands at some of its paths.
    #[serde(default)]
    pub(super) events: Option<Vec<Entries<Value>>>,
}

/// What a rule should say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Expect {
    Pass,
    Fail,
    Unknown,
    NotApplicable,
}

/// A word or a list of words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Words(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordsVisitor;
        impl<'de> Visitor<'de> for WordsVisitor {
            type Value = Words;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word or a list of words")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Words, E> {
                Ok(Words(vec![word.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Words, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = list.next_element()? {
                    words.push(word);
                }
                Ok(Words(words))
            }
        }
        deserializer.deserialize_any(WordsVisitor)
    }
}

/// The entries of a mapping in their order, each name once.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entries<T>(pub(super) Vec<(String, T)>);

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for EntriesVisitor<T> {
            type Value = Entries<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_unit<E: Error>(self) -> Result<Entries<T>, E> {
                Ok(Entries(Vec::new()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<T>, A::Error> {
                let mut entries: Vec<(String, T)> = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if entries.iter().any(|(known, _)| *known == name) {
                        return Err(A::Error::custom(format_args!("`{name}` stands here a second time")));
                    }
                    entries.push((name, map.next_value()?));
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_any(EntriesVisitor(PhantomData))
    }
}
