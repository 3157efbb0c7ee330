//! What a request to Resource Manager asks for: its path and its parameters.

use url::form_urlencoded;

/// What a path names. Resource Manager does not care about upper and lower case.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    Subscriptions,
    Subscription(&'a str),
    NetworkSecurityGroups(&'a str),
    /// Something in a subscription that this server does not have.
    Unknown {
        subscription: &'a str,
        namespace: &'a str,
        kind: &'a str,
    },
    Nothing,
}

impl<'a> Target<'a> {
    pub(super) fn parse(path: &'a str) -> Self {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (first, rest) = match parts.split_first() {
            Some((first, rest)) => (*first, rest),
            None => return Self::Nothing,
        };
        if !first.eq_ignore_ascii_case("subscriptions") {
            return Self::Nothing;
        }
        match rest {
            [] => Self::Subscriptions,
            [subscription] => Self::Subscription(subscription),
            [subscription, providers, namespace, kind]
                if providers.eq_ignore_ascii_case("providers")
                    && namespace.eq_ignore_ascii_case("Microsoft.Network")
                    && kind.eq_ignore_ascii_case("networkSecurityGroups") =>
            {
                Self::NetworkSecurityGroups(subscription)
            }
            [subscription, providers, namespace, kind, ..] if providers.eq_ignore_ascii_case("providers") => {
                Self::Unknown { subscription, namespace, kind }
            }
            [subscription, kind, ..] => Self::Unknown { subscription, namespace: "Microsoft.Resources", kind },
        }
    }

    pub(super) fn subscription(&self) -> Option<&'a str> {
        match self {
            Self::Subscription(id) | Self::NetworkSecurityGroups(id) => Some(id),
            Self::Unknown { subscription, .. } => Some(subscription),
            Self::Subscriptions | Self::Nothing => None,
        }
    }

    /// The permission that reading it takes, and where.
    pub(super) fn permission(&self, subscription: &str) -> (String, String) {
        let scope = format!("/subscriptions/{subscription}");
        match self {
            Self::NetworkSecurityGroups(_) => (
                "Microsoft.Network/networkSecurityGroups/read".to_owned(),
                format!("{scope}/providers/Microsoft.Network"),
            ),
            Self::Unknown { namespace, kind, .. } => {
                (format!("{namespace}/{kind}/read"), format!("{scope}/providers/{namespace}"))
            }
            _ => ("Microsoft.Resources/subscriptions/read".to_owned(), scope),
        }
    }
}

/// The parameters that matter. Their names, too, are matched in any case.
#[derive(Debug, Default)]
pub(super) struct Query {
    pub(super) api_version: Option<String>,
    pub(super) skip_token: Option<String>,
}

impl Query {
    pub(super) fn parse(query: &str) -> Self {
        let mut found = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if name.eq_ignore_ascii_case("api-version") {
                found.api_version = Some(value.into_owned());
            } else if name.eq_ignore_ascii_case("$skiptoken") {
                found.skip_token = Some(value.into_owned());
            }
        }
        found
    }
}

/// `2024-05-01`, or that with `-preview` or the like after it. Any date will do: which versions exist
/// changes every month.
pub(super) fn is_api_version(text: &str) -> bool {
    let date = text.get(..10).unwrap_or_default();
    let is_date = date.bytes().enumerate().all(|(index, byte)| match index {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    });
    let suffix = text.get(10..).unwrap_or_default();
    let is_suffix = suffix.is_empty()
        || (suffix.starts_with('-') && suffix.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
    date.len() == 10 && is_date && is_suffix
}

pub(super) fn is_guid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_in_any_case() {
        assert_eq!(Target::parse("/subscriptions/"), Target::Subscriptions);
        assert_eq!(Target::parse("/Subscriptions/x"), Target::Subscription("x"));
        assert_eq!(
            Target::parse("/SUBSCRIPTIONS/x/Providers/microsoft.network/NETWORKSECURITYGROUPS"),
            Target::NetworkSecurityGroups("x")
        );
        assert_eq!(
            Target::parse("/subscriptions/x/resourcegroups"),
            Target::Unknown { subscription: "x", namespace: "Microsoft.Resources", kind: "resourcegroups" }
        );
        assert_eq!(Target::parse("/"), Target::Nothing);
        assert_eq!(Target::parse("/tenants"), Target::Nothing);
    }

    #[test]
    fn an_api_version_is_a_date() {
        for good in ["2024-05-01", "2021-05-01-preview"] {
            assert!(is_api_version(good), "{good}");
        }
        for bad in ["", "1", "2024-5-01", "2024-05-01preview", "2024-05-01-a&b", "latest-abc"] {
            assert!(!is_api_version(bad), "{bad}");
        }
    }
}
