//! Which subscriptions or projects are read: by id, by name, or by a pattern.

use std::fmt;

use proto::catalogue::ParamError;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// What is read of many: all that is included, or all there is if nothing is named, but never what is excluded.
///
/// In the configuration it is a list of what is included, or a mapping of two lists.
///
/// ```
/// use collector::selection::Selection;
/// use serde_json::json;
///
/// let selection: Selection = serde_json::from_value(json!({"include": ["prod-*"], "exclude": ["*-old"]}))?;
/// assert!(selection.includes(&["5a1c…", "Prod-Payments"]));
/// assert!(!selection.includes(&["77d0…", "prod-payments-old"]));
/// let list: Selection = serde_json::from_value(json!(["prod-payments"]))?;
/// assert!(!list.includes(&["77d0…", "test"]));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Nothing stands for all.
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
}

impl Selection {
    /// Whether something is read that is known by these texts: its id and its names.
    #[must_use]
    pub fn includes(&self, known_by: &[&str]) -> bool {
        let known_by: Vec<Vec<char>> = known_by.iter().map(|text| folded(text)).collect();
        let any = |patterns: &[Pattern]| {
            patterns.iter().any(|pattern| known_by.iter().any(|text| pattern.matches_folded(text)))
        };
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }

    /// What is included by name and is known by none of these texts: the entries as they were written.
    #[must_use]
    pub fn not_matched_by(&self, known_by: &[&str]) -> Vec<String> {
        let known_by: Vec<Vec<char>> = known_by.iter().map(|text| folded(text)).collect();
        let not_matched =
            self.include.iter().filter(|pattern| !known_by.iter().any(|text| pattern.matches_folded(text)));
        not_matched.map(|pattern| pattern.0.iter().collect()).collect()
    }

    /// What is wrong with the entries of a parameter that is otherwise a selection: `name` is the parameter's.
    #[must_use]
    pub fn check(name: &str, value: &Value) -> Vec<ParamError> {
        let mut errors = Vec::new();
        let lists = [
            (name.to_owned(), Some(value)),
            (format!("{name}.include"), value.get("include")),
            (format!("{name}.exclude"), value.get("exclude")),
        ];
        for (path, list) in lists {
            for (index, entry) in list.and_then(Value::as_array).into_iter().flatten().enumerate() {
                if entry.as_str().is_some_and(|text| text.trim().is_empty()) {
                    let message = "the entry is empty: write an id, a name, or a pattern with `*` and `?`".to_owned();
                    errors.push(ParamError { path: format!("{path}[{index}]"), message });
                }
            }
        }
        errors
    }

    /// Whether it leaves out nothing.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }
}

/// Matches a whole text without regard to case: `*` stands for any characters, `?` for one.
#[derive(Clone, PartialEq, Eq)]
struct Pattern(Vec<char>);

impl Pattern {
    fn new(text: &str) -> Self {
        Self(folded(text))
    }

    /// Each star first takes nothing; when the rest does not fit, the last star takes one character more. Of several
    /// stars the last alone needs another try, so the work is bounded by the product of the two lengths.
    fn matches_folded(&self, text: &[char]) -> bool {
        let pattern = &self.0;
        let (mut at, mut read) = (0, 0);
        let mut star = None;
        while read < text.len() {
            match pattern.get(at) {
                Some('*') => {
                    star = Some((at, read));
                    at += 1;
                }
                Some(wanted) if *wanted == '?' || *wanted == text[read] => {
                    at += 1;
                    read += 1;
                }
                _ => {
                    let Some((place, taken)) = star else { return false };
                    star = Some((place, taken + 1));
                    at = place + 1;
                    read = taken + 1;
                }
            }
        }
        pattern[at..].iter().all(|rest| *rest == '*')
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0.iter().collect::<String>(), f)
    }
}

fn folded(text: &str) -> Vec<char> {
    text.chars().flat_map(char::to_lowercase).collect()
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::new(String::deserialize(deserializer)?.trim()))
    }
}

/// A list that names at least one: one that names none might be meant for all or for nothing.
#[derive(Default)]
struct Named(Vec<Pattern>);

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let patterns = Vec::deserialize(deserializer)?;
        if patterns.is_empty() {
            return Err(de::Error::custom("the list is empty: name at least one, or leave the list out to read all"));
        }
        Ok(Self(patterns))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lists {
    #[serde(default)]
    include: Option<Named>,
    #[serde(default)]
    exclude: Option<Vec<Pattern>>,
}

impl<'de> Deserialize<'de> for Selection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Selection;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of ids, names and patterns, or a mapping with such lists, `include` and `exclude`,")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Selection, A::Error> {
                let Named(include) = Named::deserialize(SeqAccessDeserializer::new(list))?;
                Ok(Selection { include, exclude: Vec::new() })
            }

            fn visit_map<A: MapAccess<'de>>(self, lists: A) -> Result<Selection, A::Error> {
                let Lists { include, exclude } = Lists::deserialize(MapAccessDeserializer::new(lists))?;
                Ok(Selection { include: include.unwrap_or_default().0, exclude: exclude.unwrap_or_default() })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use proto::config::params;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Params {
        #[serde(default)]
        subscriptions: Option<Selection>,
    }

    fn selection(value: Value) -> Selection {
        params::read::<Params>(&json!({"subscriptions": value})).unwrap().subscriptions.unwrap_or_default()
    }

    fn errors(value: Value) -> Vec<String> {
        let errors = params::read::<Params>(&json!({"subscriptions": value})).unwrap_err();
        errors.into_iter().map(|error| format!("{}: {}", error.path, error.message)).collect()
    }

    #[test]
    fn a_pattern_matches_the_whole_text_in_any_case() {
        for (pattern, text, is_match) in [
            ("prod", "PROD", true),
            ("prod", "prod-1", false),
            ("Ünit", "ünit", true),
            ("*", "", true),
            ("*", "anything", true),
            ("", "", true),
            ("?", "", false),
            ("?", "ü", true),
            ("prod-?", "prod-10", false),
            ("prod-??", "prod-10", true),
            ("*prod*", "my production", true),
            ("a*b*c", "aXbXbc", true),
            ("a*b*c", "aXbXbd", false),
            ("*-old", "prod-old-old", true),
            ("*a", "b", false),
            ("a**", "a", true),
            ("x.y", "xzy", false),
        ] {
            assert_eq!(Pattern::new(pattern).matches_folded(&folded(text)), is_match, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_are_no_trap() {
        let pattern = Pattern::new(&"*a".repeat(200));
        assert!(!pattern.matches_folded(&folded(&"a".repeat(199))));
        assert!(!pattern.matches_folded(&folded(&format!("{}b", "a".repeat(20_000)))));
    }

    #[test]
    fn an_id_or_a_name_is_enough_and_exclusion_wins() {
        let all = selection(Value::Null);
        assert!(all.is_everything() && all.includes(&["id", "name"]) && all.includes(&[]));
        let list = selection(json!(["ID-1", "prod-*"]));
        assert!(list.includes(&["id-1", "test"]) && list.includes(&["id-2", "Prod-A"]));
        assert!(!list.includes(&["id-2", "test"]) && !list.includes(&[]));
        let without = selection(json!({"exclude": ["*sandbox*"]}));
        assert!(without.includes(&["id-1", "prod"]) && !without.includes(&["id-1", "My Sandbox 3"]));
        let both = selection(json!({"include": ["prod-*"], "exclude": ["id-2"]}));
        assert!(both.includes(&["id-1", "prod-a"]) && !both.includes(&["id-2", "prod-b"]));
    }

    #[test]
    fn what_matches_nothing_is_known_by_its_text() {
        let selection: Selection = serde_json::from_value(json!(["prod-*", "b", "c"])).unwrap();
        assert_eq!(selection.not_matched_by(&["Prod-1", "c"]), ["b"]);
        assert!(Selection::default().not_matched_by(&[]).is_empty());
    }

    #[test]
    fn what_is_no_selection_is_told_with_its_place() {
        let empty = "the list is empty: name at least one, or leave the list out to read all";
        assert_eq!(errors(json!([])), [format!("subscriptions: {empty}")]);
        assert_eq!(errors(json!({"include": []})), [format!("subscriptions.include: {empty}")]);
        assert_eq!(
            errors(json!("prod")),
            [
                "subscriptions: found the text \"prod\"; a list of ids, names and patterns, or a mapping with such lists, `include` and `exclude`, is expected"
            ]
        );
        assert_eq!(
            errors(json!({"inlcude": ["a"], "exclude": ["a", 7, true]})),
            [
                "subscriptions.exclude[1]: found the number 7; a text is expected; write it in quotes",
                "subscriptions.exclude[2]: found `true`; a text is expected; write it in quotes",
                "subscriptions.inlcude: unknown parameter `inlcude`; did you mean `include`? (allowed: include, exclude)",
            ]
        );
        let empty = |value| -> Vec<String> {
            Selection::check("projects", &value).into_iter().map(|error| error.path).collect()
        };
        assert_eq!(empty(json!(["a", "", 7])), ["projects[1]"]);
        let both = json!({"include": [" "], "exclude": ["a", ""]});
        assert_eq!(empty(both), ["projects.include[0]", "projects.exclude[1]"]);
        assert!(empty(json!("a")).is_empty());
    }
}
