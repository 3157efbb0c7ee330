//! A page of a list: `{"<items>": [...], "nextPageToken": "..."}`, or of an aggregated list, whose items stand by scope:
//! `{"items": {"zones/a": {"instances": [...]}, "zones/b": {"warning": {...}}}, ...}`.
//!
//! Reference: <https://cloud.google.com/apis/design/design_patterns#list_pagination> and
//! <https://cloud.google.com/compute/docs/reference/rest/v1/instances/aggregatedList>.

use std::collections::BTreeMap;

use proto::record::Text;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::record::object;

/// A list of more pages goes round in circles.
const MOST_PAGES: u32 = 100_000;
/// What an aggregated list says of a scope in which there is nothing.
const EMPTY: &str = "NO_RESULTS_ON_PAGE";

/// A page, its items unparsed.
#[derive(Debug)]
pub(super) struct Page<'a> {
    /// The items.
    pub(super) items: Vec<Item<'a>>,
    /// Parts of the page that cannot be understood, each with the reason.
    pub(super) lost: Vec<String>,
    /// What the service could not read itself; how much is missing is not known.
    pub(super) missing: Option<String>,
    next_token: Option<&'a RawValue>,
}

/// An item of a list.
#[derive(Debug)]
pub(super) struct Item<'a> {
    /// Its JSON, untouched.
    pub(super) raw: &'a RawValue,
    /// The zone that it was listed in.
    pub(super) zone: Option<String>,
}

/// What comes after a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: the list is at its end.
    End,
    /// Another page, with this token.
    Page(String),
    /// Something that is not followed, and why.
    Refused(String),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Projects<'a> {
    #[serde(borrow, default)]
    projects: Option<Vec<&'a RawValue>>,
    #[serde(borrow, default)]
    next_page_token: Option<&'a RawValue>,
}

/// A list of Compute Engine says what it is; an empty one has no items.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ComputeList<'a, T> {
    #[serde(borrow)]
    #[allow(dead_code, reason = "only whether it is there matters")]
    kind: Text<'a>,
    #[serde(default = "nothing")]
    items: Option<T>,
    #[serde(borrow, default)]
    next_page_token: Option<&'a RawValue>,
    #[serde(borrow, default)]
    unreachables: Option<Vec<Text<'a>>>,
    #[serde(borrow, default)]
    warning: Option<Warning<'a>>,
}

fn nothing<T>() -> Option<T> {
    None
}

#[derive(Debug, Deserialize)]
struct Warning<'a> {
    #[serde(borrow, default)]
    code: Option<Text<'a>>,
    #[serde(borrow, default)]
    message: Option<Text<'a>>,
}

/// A scope of an aggregated list of instances.
#[derive(Debug, Deserialize)]
struct Scope<'a> {
    #[serde(borrow, default)]
    instances: Option<Vec<&'a RawValue>>,
    #[serde(borrow, default)]
    warning: Option<Warning<'a>>,
}

impl<'a> Page<'a> {
    /// A page of the list of projects. One without projects has no members at all.
    pub(super) fn of_projects(body: &'a [u8]) -> serde_json::Result<Self> {
        let page: Projects<'a> = of_object(body)?;
        if page.projects.is_none() && page.next_page_token.is_none() {
            let members: BTreeMap<String, &RawValue> = of_object(body)?;
            if !members.is_empty() && !members.contains_key("projects") {
                return Err(serde::de::Error::custom("it has no `projects`"));
            }
        }
        let items = page.projects.into_iter().flatten().map(|raw| Item { raw, zone: None }).collect();
        Ok(Self { items, lost: Vec::new(), missing: None, next_token: page.next_page_token })
    }

    /// A page of a list of Compute Engine.
    pub(super) fn of_list(body: &'a [u8]) -> serde_json::Result<Self> {
        let page: ComputeList<'a, Vec<&'a RawValue>> = of_object(body)?;
        let missing = missing(page.unreachables, page.warning.into_iter().map(|warning| (None, warning)));
        let items = page.items.into_iter().flatten().map(|raw| Item { raw, zone: None }).collect();
        Ok(Self { items, lost: Vec::new(), missing, next_token: page.next_page_token })
    }

    /// A page of the list of the instances of all zones.
    pub(super) fn of_instances(body: &'a [u8]) -> serde_json::Result<Self> {
        let page: ComputeList<'a, BTreeMap<String, &'a RawValue>> = of_object(body)?;
        let mut items = Vec::new();
        let mut lost = Vec::new();
        let mut warnings: Vec<_> = page.warning.into_iter().map(|warning| (None, warning)).collect();
        for (name, scope) in page.items.into_iter().flatten() {
            match object::<Scope<'a>>(scope) {
                Ok(scope) => {
                    let zone = name.strip_prefix("zones/").map(str::to_owned);
                    let instances = scope.instances.into_iter().flatten();
                    items.extend(instances.map(|raw| Item { raw, zone: zone.clone() }));
                    warnings.extend(scope.warning.map(|warning| (Some(name), warning)));
                }
                Err(error) => lost.push(format!("{name} cannot be understood: {error}")),
            }
        }
        let missing = missing(page.unreachables, warnings.into_iter());
        Ok(Self { items, lost, missing, next_token: page.next_page_token })
    }

    /// What comes after this page, which was had with this token.
    pub(super) fn next(&self, here: Option<&str>, page: u32) -> Next {
        let Some(token) = self.next_token.filter(|token| token.get() != "null") else { return Next::End };
        match serde_json::from_str::<String>(token.get()) {
            Err(_) => Next::Refused("the token of the next page is not a text".to_owned()),
            Ok(token) if token.is_empty() => Next::End,
            Ok(token) if Some(token.as_str()) == here => {
                Next::Refused("the token of the next page is that of the same page".to_owned())
            }
            Ok(_) if page >= MOST_PAGES => Next::Refused(format!("the list has more than {MOST_PAGES} pages")),
            Ok(token) => Next::Page(token),
        }
    }
}

/// Reads a body that must be an object: a struct would be read of an array, too.
fn of_object<'a, T: Deserialize<'a>>(body: &'a [u8]) -> serde_json::Result<T> {
    object(serde_json::from_slice(body)?)
}

/// What the service could not read, in words.
fn missing<'a>(
    unreachables: Option<Vec<Text<'_>>>,
    warnings: impl Iterator<Item = (Option<String>, Warning<'a>)>,
) -> Option<String> {
    let unreachables: Vec<String> =
        unreachables.into_iter().flatten().map(|Text(name)| short(&name).to_owned()).collect();
    let mut said = Vec::new();
    if !unreachables.is_empty() {
        said.push(format!("Google could not reach {}", unreachables.join(", ")));
    }
    for (scope, warning) in warnings {
        let code = warning.code.as_deref().unwrap_or("a warning");
        if code == EMPTY || (code == "UNREACHABLE" && !unreachables.is_empty()) {
            continue;
        }
        let place = scope.map(|scope| format!(" in {scope}")).unwrap_or_default();
        let message = warning.message.map(|Text(message)| format!(": {message}")).unwrap_or_default();
        said.push(format!("Google says {code}{place}{message}"));
    }
    (!said.is_empty()).then(|| crate::http::bounded(&said.join("; "), 1000))
}

/// `zones/us-east1-b` of a link to it.
fn short(link: &str) -> &str {
    ["/zones/", "/regions/"].iter().find_map(|part| Some(&link[link.rfind(part)? + 1..])).unwrap_or(link)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raws(page: &Page<'_>) -> Vec<(String, Option<String>)> {
        page.items.iter().map(|item| (item.raw.get().to_owned(), item.zone.clone())).collect()
    }

    #[test]
    fn an_empty_list_has_no_members() {
        for body in ["{}", r#"{"projects":[]}"#, r#"{"projects":null}"#, r#"{"nextPageToken":"t"}"#] {
            assert!(Page::of_projects(body.as_bytes()).unwrap().items.is_empty(), "{body}");
        }
        let list = br#"{"kind":"compute#firewallList","id":"i","selfLink":"l"}"#;
        assert!(Page::of_list(list).unwrap().items.is_empty());
        assert!(Page::of_instances(list).unwrap().items.is_empty());
    }

    #[test]
    fn what_is_no_list_is_no_empty_list() {
        for body in ["", "[]", "null", "5", "<html>", r#"{"items":[]}"#, r#"{"projects":{}}"#] {
            assert!(Page::of_projects(body.as_bytes()).is_err(), "{body}");
        }
        for body in ["", "{}", "[]", r#"{"error":{}}"#, r#"{"kind":"k","items":5}"#] {
            assert!(Page::of_list(body.as_bytes()).is_err(), "{body}");
            assert!(Page::of_instances(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn instances_come_with_their_zone_and_empty_zones_are_no_trouble() {
        let body = br#"{"kind":"compute#instanceAggregatedList","items":{
            "zones/b":{"instances":[{"a": 1.0},{}]},
            "zones/a":{"warning":{"code":"NO_RESULTS_ON_PAGE","message":"none","data":[{"key":"scope"}]}},
            "regions/r":{"instances":[]}, "zones/c":5}}"#;
        let page = Page::of_instances(body).unwrap();
        let zone = Some("b".to_owned());
        assert_eq!(raws(&page), [(r#"{"a": 1.0}"#.to_owned(), zone.clone()), ("{}".to_owned(), zone)]);
        assert_eq!(page.missing, None);
        assert_eq!(page.lost.len(), 1);
        assert!(page.lost[0].starts_with("zones/c cannot"), "{:?}", page.lost);
    }

    #[test]
    fn what_google_cannot_reach_is_named() {
        let body = br#"{"kind":"k","items":{"zones/a":{"warning":{"code":"UNREACHABLE","message":"away"}}},
            "unreachables":["https://www.googleapis.com/compute/v1/projects/p/zones/a","zones/b"]}"#;
        let missing = Page::of_instances(body).unwrap().missing.unwrap();
        assert_eq!(missing, "Google could not reach zones/a, zones/b");
        let body = br#"{"kind":"k","items":[],"warning":{"code":"UNREACHABLE","message":"a zone is away"}}"#;
        assert_eq!(Page::of_list(body).unwrap().missing.unwrap(), "Google says UNREACHABLE: a zone is away");
        let body = br#"{"kind":"k","items":{"zones/a":{"warning":{"code":"SOME","message":"why"}}}}"#;
        assert_eq!(Page::of_instances(body).unwrap().missing.unwrap(), "Google says SOME in zones/a: why");
    }

    #[test]
    fn a_token_leads_on_unless_it_leads_nowhere() {
        let next = |token: &str, page| {
            let body = format!(r#"{{"kind":"k","nextPageToken":{token}}}"#);
            Page::of_list(body.as_bytes()).unwrap().next(Some("here"), page)
        };
        assert_eq!((next("null", 1), next(r#""""#, 1)), (Next::End, Next::End));
        assert_eq!(next(r#""a\u002f+b""#, 1), Next::Page("a/+b".to_owned()));
        for (token, page, why) in
            [("5", 1, "not a text"), (r#""here""#, 2, "the same page"), (r#""x""#, MOST_PAGES, "more than")]
        {
            let Next::Refused(reason) = next(token, page) else { panic!("{token}") };
            assert!(reason.contains(why), "{reason}");
        }
    }
}
