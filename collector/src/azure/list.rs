//! A page of a list of Azure Resource Manager: `{"value": [...], "nextLink": "<absolute URL>"}`.
//!
//! Reference: "Collection queries" in
//! <https://github.com/Azure/azure-resource-manager-rpc/blob/master/v1.0/resource-api-reference.md>.

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
        serde_json::from_slice(without_mark(body))
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

/// Some services begin with a byte order mark.
pub(super) fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
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
}
