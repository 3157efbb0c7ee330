//! A page of a list of Azure Resource Manager: `{"value": [...], "nextLink": "<absolute URL>"}`.
//!
//! Reference: "Collection queries" in
//! <https://github.com/Azure/azure-resource-manager-rpc/blob/master/v1.0/resource-api-reference.md>.

use proto::coverage::{Coverage, State};
use serde::Deserialize;
use serde_json::value::RawValue;
use url::Url;

use crate::http::{Endpoint, call};

/// A list of more pages goes round in circles.
const MOST_PAGES: u32 = 100_000;

/// A page, its items unparsed.
#[derive(Debug, Deserialize)]
pub(super) struct Page<'a> {
    /// The items.
    #[serde(borrow)]
    pub(super) value: Vec<&'a RawValue>,
    #[serde(borrow, default, rename = "nextLink")]
    next_link: Option<&'a RawValue>,
}

/// What comes after a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: the list is at its end.
    End,
    /// Another page.
    Page(Url),
    /// Something that is not followed, and why.
    Refused(String),
}

impl<'a> Page<'a> {
    /// Reads the body of a page.
    pub(super) fn parse(body: &'a [u8]) -> serde_json::Result<Self> {
        // Some services begin with a byte order mark.
        serde_json::from_slice(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body))
    }

    /// What comes after this page, which was had from `here`.
    pub(super) fn next(&self, endpoint: &Endpoint, here: &Url, page: u32) -> Next {
        let Some(link) = self.next_link.filter(|link| link.get() != "null") else { return Next::End };
        let Ok(link) = serde_json::from_str::<String>(link.get()) else {
            return Next::Refused("the link to the next page is not a text".to_owned());
        };
        if link.is_empty() {
            return Next::End;
        }
        match Url::parse(&link) {
            Err(error) => Next::Refused(format!("the link to the next page is not a URL ({error})")),
            Ok(url) if !endpoint.is_origin_of(&url) => Next::Refused(format!(
                "the link to the next page leads away from {endpoint} ({}) and is not followed",
                call("GET", &url)
            )),
            Ok(url) if url == *here => Next::Refused("the link to the next page leads to the same page".to_owned()),
            Ok(_) if page >= MOST_PAGES => Next::Refused(format!("the list has more than {MOST_PAGES} pages")),
            Ok(url) => Next::Page(url),
        }
    }
}

/// The id of the unit that reads a page of a list. One that was begun again has other ids than before.
pub(super) fn unit_id(resource_type: &str, scope: &str, restart: u32, page: u32) -> String {
    let mut id = resource_type.to_owned();
    if !scope.is_empty() {
        id = format!("{id}/{scope}");
    }
    if restart > 0 {
        id = format!("{id}/r{restart}");
    }
    format!("{id}/p{page}")
}

/// Counts what was read of a page, and what was not.
#[derive(Debug, Default)]
pub(super) struct Tally {
    read: u64,
    lost: u64,
    is_cut: bool,
    left_out: Option<u64>,
    limited: bool,
    reason: Option<String>,
}

impl Tally {
    /// A resource was read.
    pub(super) fn read(&mut self) {
        self.read += 1;
    }

    /// Something on the page cannot be understood.
    pub(super) fn lost(&mut self, reason: String) {
        tracing::warn!(reason, "left out a part of Azure's answer");
        self.lost += 1;
        self.reason.get_or_insert(reason);
    }

    /// The pages that follow are not read: how much is missing is not known.
    pub(super) fn cut(&mut self, reason: String) {
        tracing::warn!(reason, "a list is not read to its end");
        self.is_cut = true;
        self.reason.get_or_insert(reason);
    }

    /// The configuration leaves out the rest: so many on this page, and more if the list goes on.
    pub(super) fn left_out(&mut self, here: u64, goes_on: bool, reason: String) {
        self.limited = true;
        self.left_out = (!goes_on).then_some(here);
        self.reason.get_or_insert(reason);
    }

    /// Whether the configuration leaves out something.
    pub(super) fn is_limited(&self) -> bool {
        self.limited
    }

    /// How many resources were read.
    pub(super) fn count(&self) -> u64 {
        self.read
    }

    pub(super) fn coverage(self, scope: &str, resource_type: &str) -> Coverage {
        let (state, missing) = match () {
            () if self.is_cut => (State::Partial, None),
            () if self.lost > 0 => (State::Partial, (!self.limited).then_some(self.lost)),
            () if self.limited => (State::Skipped, self.left_out),
            () => (State::Complete, None),
        };
        Coverage { state, missing, reason: self.reason, ..Coverage::complete(scope, resource_type, self.read) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(body: &str, page: u32) -> Next {
        let endpoint = Endpoint::parse("https://management.azure.com").unwrap();
        let here = Url::parse("https://management.azure.com/subscriptions?api-version=1").unwrap();
        Page::parse(body.as_bytes()).unwrap().next(&endpoint, &here, page)
    }

    #[test]
    fn a_list_ends_without_a_link() {
        for body in [r#"{"value":[]}"#, r#"{"value":[],"nextLink":null}"#, r#"{"value":[],"nextLink":""}"#] {
            assert_eq!(next(body, 1), Next::End, "{body}");
        }
        assert_eq!(next("\u{feff}{\"value\":[1,{}],\"more\":2}", 1), Next::End);
        assert!(Page::parse(br#"{"nextLink":null}"#).is_err());
        assert!(Page::parse(br#"{"value":null}"#).is_err());
    }

    #[test]
    fn a_link_is_followed_verbatim_within_its_origin() {
        let link = "https://management.azure.com/subscriptions?api-version=1&%24skiptoken=a%2Fb";
        let Next::Page(url) = next(&format!(r#"{{"value":[],"nextLink":"{link}"}}"#), 1) else { panic!() };
        assert_eq!(url.as_str(), link);
    }

    #[test]
    fn other_links_are_refused() {
        for (link, why) in [
            (r#""https://other.example/subscriptions?$skiptoken=s3cret""#, "GET https://other.example/subscriptions)"),
            (r#""http://management.azure.com/x""#, "leads away"),
            (r#""https://management.azure.com/subscriptions?api-version=1""#, "same page"),
            (r#""/subscriptions?$skiptoken=x""#, "not a URL"),
            ("5", "not a text"),
        ] {
            let Next::Refused(reason) = next(&format!(r#"{{"value":[],"nextLink":{link}}}"#), 1) else { panic!() };
            assert!(reason.contains(why) && !reason.contains("s3cret"), "{reason}");
        }
        let endless = r#"{"value":[],"nextLink":"https://management.azure.com/x"}"#;
        assert!(matches!(next(endless, MOST_PAGES), Next::Refused(_)));
    }

    #[test]
    fn ids_say_what_is_read() {
        assert_eq!(unit_id("subscription", "", 0, 2), "subscription/p2");
        assert_eq!(unit_id("nsg", "s", 0, 1), "nsg/s/p1");
        assert_eq!(unit_id("nsg", "s", 1, 1), "nsg/s/r1/p1");
    }

    #[test]
    fn a_tally_says_what_is_missing() {
        let mut tally = Tally::default();
        tally.read();
        assert_eq!(tally.coverage("s", "nsg"), Coverage::complete("s", "nsg", 1));

        let mut tally = Tally::default();
        tally.lost("first".into());
        tally.lost("second".into());
        let coverage = tally.coverage("s", "nsg");
        assert_eq!((coverage.state, coverage.missing), (State::Partial, Some(2)));
        assert_eq!(coverage.reason.as_deref(), Some("first"));

        let mut tally = Tally::default();
        tally.lost("first".into());
        tally.cut("cut".into());
        assert_eq!(tally.coverage("s", "nsg").missing, None);

        let mut tally = Tally::default();
        tally.left_out(3, false, "limit".into());
        let coverage = tally.coverage("s", "nsg");
        assert_eq!((coverage.state, coverage.missing), (State::Skipped, Some(3)));
    }
}
