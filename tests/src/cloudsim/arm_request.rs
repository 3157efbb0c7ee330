//! What a request to Resource Manager asks for: its path and its parameters.

use url::form_urlencoded;

use super::kind::Kind;

/// What a path names. Resource Manager does not care about upper and lower case.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    Subscriptions,
    Subscription(&'a str),
    /// Something of a kind that this server has.
    Known(Known<'a>),
    /// Something in a subscription that this server does not have.
    Unknown {
        subscription: &'a str,
        namespace: &'a str,
        kind: &'a str,
    },
    Nothing,
}

/// A list, or one thing of it, by the names on the way to it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Known<'a> {
    pub(super) subscription: &'a str,
    pub(super) kind: Kind,
    /// The names of the things on the way, outermost first.
    pub(super) names: Vec<&'a str>,
    /// Whether the last of the names is of the kind itself; if not, its list is meant.
    pub(super) is_one: bool,
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
        let is = |part: &str, wanted: &str| part.eq_ignore_ascii_case(wanted);
        match rest {
            [] => Self::Subscriptions,
            [subscription] => Self::Subscription(subscription),
            [subscription, providers, namespace, rest @ ..] if is(providers, "providers") => {
                Self::in_provider(subscription, namespace, rest, false)
            }
            [subscription, groups, _, providers, namespace, rest @ ..]
                if is(groups, "resourceGroups") && is(providers, "providers") =>
            {
                Self::in_provider(subscription, namespace, rest, true)
            }
            [subscription, kind, name @ ..] if name.len() <= 1 => {
                let known = [Kind::Location, Kind::ResourceGroup]
                    .into_iter()
                    .find(|known| known.definition().types.iter().any(|wanted| is(kind, wanted)));
                match known {
                    Some(known) => {
                        Self::Known(Known { subscription, kind: known, names: name.to_vec(), is_one: !name.is_empty() })
                    }
                    None => Self::Unknown { subscription, namespace: "Microsoft.Resources", kind },
                }
            }
            [subscription, kind, ..] => Self::Unknown { subscription, namespace: "Microsoft.Resources", kind },
        }
    }

    /// `rest` is types and names by turns. Lists of a whole subscription stand outside of resource
    /// groups, all below a resource inside of one.
    fn in_provider(subscription: &'a str, namespace: &'a str, rest: &[&'a str], in_group: bool) -> Self {
        let types: Vec<&str> = rest.iter().step_by(2).copied().collect();
        let names: Vec<&str> = rest.iter().skip(1).step_by(2).copied().collect();
        let is_one = !rest.is_empty() && rest.len().is_multiple_of(2);
        let kind = Kind::ALL.into_iter().find(|kind| {
            let definition = kind.definition();
            definition.namespace.eq_ignore_ascii_case(namespace)
                && definition.types.len() == types.len()
                && definition.types.iter().zip(&types).all(|(wanted, part)| wanted.eq_ignore_ascii_case(part))
        });
        // Keys and secrets are the data plane's; their lists in Resource Manager are another thing.
        let kind = kind.filter(|kind| !matches!(kind, Kind::VaultKey | Kind::VaultSecret));
        let is_outside = kind.is_some_and(|kind| kind.namespace().eq_ignore_ascii_case("Microsoft.Insights"));
        match kind {
            Some(kind) if in_group != (names.is_empty() || is_outside) => {
                Self::Known(Known { subscription, kind, names, is_one })
            }
            _ => Self::Unknown { subscription, namespace, kind: types.first().copied().unwrap_or_default() },
        }
    }

    pub(super) fn subscription(&self) -> Option<&'a str> {
        match self {
            Self::Subscription(id) => Some(id),
            Self::Known(known) => Some(known.subscription),
            Self::Unknown { subscription, .. } => Some(subscription),
            Self::Subscriptions | Self::Nothing => None,
        }
    }

    /// The permission that reading it takes, and where. `path` is the request's: an id is its own scope.
    pub(super) fn permission(&self, subscription: &str, path: &str) -> (String, String) {
        let scope = format!("/subscriptions/{subscription}");
        match self {
            Self::Known(known) if known.names.is_empty() => {
                let definition = known.kind.definition();
                let scope = match known.kind {
                    Kind::Location | Kind::ResourceGroup => scope,
                    _ => format!("{scope}/providers/{}", definition.namespace),
                };
                (definition.permission.to_owned(), scope)
            }
            Self::Known(known) => (known.kind.permission().to_owned(), path.trim_end_matches('/').to_owned()),
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
    /// `$top`, and `maxresults`, as Key Vault calls it.
    pub(super) top: Option<usize>,
    /// `$expand`.
    pub(super) expand: Option<String>,
}

impl Query {
    pub(super) fn parse(query: &str) -> Self {
        let mut found = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if name.eq_ignore_ascii_case("api-version") {
                found.api_version = Some(value.into_owned());
            } else if name.eq_ignore_ascii_case("$skiptoken") {
                found.skip_token = Some(value.into_owned());
            } else if name.eq_ignore_ascii_case("$top") || name.eq_ignore_ascii_case("maxresults") {
                found.top = value.parse().ok().filter(|top| *top > 0);
            } else if name.eq_ignore_ascii_case("$expand") {
                found.expand = Some(value.into_owned());
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
        let known = |path| match Target::parse(path) {
            Target::Known(Known { subscription: "x", kind, names, is_one }) => Some((kind, names, is_one)),
            _ => None,
        };
        let list = "/SUBSCRIPTIONS/x/Providers/microsoft.network/NETWORKSECURITYGROUPS";
        assert_eq!(known(list), Some((Kind::NetworkSecurityGroup, vec![], false)));
        assert_eq!(known("/subscriptions/x/resourcegroups"), Some((Kind::ResourceGroup, vec![], false)));
        assert_eq!(known("/subscriptions/x/resourceGroups/a"), Some((Kind::ResourceGroup, vec!["a"], true)));
        let machine = "/subscriptions/x/resourcegroups/rg/providers/Microsoft.Compute/virtualMachines/vm";
        assert_eq!(known(machine), Some((Kind::VirtualMachine, vec!["vm"], true)));
        let view = format!("{machine}/INSTANCEVIEW");
        assert_eq!(known(&view), Some((Kind::InstanceView, vec!["vm"], false)));
        let database = "/subscriptions/x/resourcegroups/rg/providers/Microsoft.Sql/servers/a/databases/b";
        let encryption = format!("{database}/transparentDataEncryption/current");
        let wanted = (Kind::TransparentDataEncryption, vec!["a", "b", "current"], true);
        assert_eq!(known(&encryption), Some(wanted));
        assert_eq!(known("/subscriptions/x/providers/Microsoft.Compute/virtualMachines/vm"), None);
        assert_eq!(
            Target::parse("/subscriptions/x/tagNames"),
            Target::Unknown { subscription: "x", namespace: "Microsoft.Resources", kind: "tagNames" }
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
