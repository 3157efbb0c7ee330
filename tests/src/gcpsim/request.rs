//! What a request asks for: its path and its parameters.

use std::borrow::Cow;

use url::form_urlencoded;

use super::google_error::GoogleError;
use super::scopes::Service;

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// `POST /token`
    Token,
    /// `/computeMetadata/...`, and `/` by which a client looks whether there is a metadata server.
    Metadata(String),
    /// `POST /v1/projects/-/serviceAccounts/{email}:generateAccessToken`
    AccessToken(String),
    /// `GET /v1/projects`
    Projects,
    /// `GET /v3/projects:search`
    ProjectSearch,
    Zones {
        project: String,
    },
    Instances {
        project: String,
        zone: String,
    },
    AggregatedInstances {
        project: String,
    },
    Firewalls {
        project: String,
    },
    Nothing,
}

impl Target {
    pub(super) fn parse(path: &str) -> Self {
        let Some(parts) = path.trim_start_matches('/').split('/').map(decode).collect::<Option<Vec<_>>>() else {
            return Self::Nothing;
        };
        let parts: Vec<&str> = parts.iter().map(Cow::as_ref).collect();
        let owned = |text: &&str| (*text).to_owned();
        match parts.as_slice() {
            ["token"] => Self::Token,
            [""] => Self::Metadata(String::new()),
            ["computeMetadata", "v1", rest @ ..] => Self::Metadata(rest.join("/")),
            ["v1", "projects", "-", "serviceAccounts", method] => match method.strip_suffix(":generateAccessToken") {
                Some(account) => Self::AccessToken(account.to_owned()),
                None => Self::Nothing,
            },
            ["v1", "projects"] => Self::Projects,
            ["v3", "projects:search"] => Self::ProjectSearch,
            ["compute", "v1", "projects", project, rest @ ..] => match rest {
                ["zones"] => Self::Zones { project: owned(project) },
                ["zones", zone, "instances"] => Self::Instances { project: owned(project), zone: owned(zone) },
                ["aggregated", "instances"] => Self::AggregatedInstances { project: owned(project) },
                ["global", "firewalls"] => Self::Firewalls { project: owned(project) },
                _ => Self::Nothing,
            },
            _ => Self::Nothing,
        }
    }
}

/// A part of a path without its `%` escapes; none if it is no text.
fn decode(part: &str) -> Option<Cow<'_, str>> {
    if !part.contains('%') {
        return Some(part.into());
    }
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let (digits, after) = after.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok().map(Cow::from)
}

/// Parameters that every service takes and that change nothing here.
const OF_THE_SYSTEM: [&str; 8] =
    ["key", "quotaUser", "userIp", "$.xgafv", "oauth_token", "uploadType", "upload_protocol", "$userProject"];

/// The parameters of a list.
#[derive(Debug, Default)]
pub(super) struct Query {
    /// How many items the client wants at most; none for the server's choice.
    pub(super) page_size: Option<usize>,
    pub(super) page_token: Option<String>,
    pub(super) filter: String,
    pub(super) return_partial_success: bool,
    pub(super) compact: bool,
}

impl Query {
    /// Reads the parameters of a request to a list. A parameter that the list does not have is refused,
    /// as Google does it: a client with a typing error would silently get something else.
    pub(super) fn parse(target: &Target, service: Service, text: &str) -> Result<Self, GoogleError> {
        let (size, filter) = match target {
            Target::Projects => ("pageSize", "filter"),
            Target::ProjectSearch => ("pageSize", "query"),
            // A filter of Compute Engine is not simulated; saying so beats an answer that is not filtered.
            _ => ("maxResults", ""),
        };
        let is_aggregated = matches!(target, Target::AggregatedInstances { .. });
        let mut query = Self::default();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            let is_true = || match value.as_ref() {
                "true" | "" => Ok(true),
                "false" => Ok(false),
                _ => Err(GoogleError::invalid_value(service, &name, &value, "Must be true or false.")),
            };
            match name.as_ref() {
                name if name == size => query.page_size = parse_size(service, name, &value)?,
                "pageToken" => query.page_token = Some(value.into_owned()).filter(|token| !token.is_empty()),
                name if name == filter => query.filter = value.into_owned(),
                "returnPartialSuccess" if service == Service::Compute => query.return_partial_success = is_true()?,
                "includeAllScopes" if is_aggregated => {
                    is_true()?;
                }
                "prettyPrint" => query.compact = !is_true()?,
                "alt" | "$alt" if value == "json" || value.starts_with("json;") => {}
                "alt" | "$alt" => {
                    return Err(GoogleError::invalid_value(service, "alt", &value, "Must be json."));
                }
                name if OF_THE_SYSTEM.contains(&name) => {}
                name => return Err(GoogleError::unknown_parameter(name)),
            }
        }
        Ok(query)
    }
}

/// Compute Engine takes 0 to 500, the Resource Manager any number; 0 is the server's choice.
fn parse_size(service: Service, name: &str, value: &str) -> Result<Option<usize>, GoogleError> {
    let most = if service == Service::Compute { 500 } else { i32::MAX as usize };
    match value.parse::<usize>() {
        Ok(size) if size <= most => Ok(Some(size).filter(|size| *size > 0)),
        _ => {
            let why = format!("Must be a number from 0 to {most}.");
            Err(GoogleError::invalid_value(service, name, value, &why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_understood_with_and_without_escapes() {
        let firewalls = |path| match Target::parse(path) {
            Target::Firewalls { project } => project,
            other => panic!("{other:?}"),
        };
        assert_eq!(firewalls("/compute/v1/projects/web-1/global/firewalls"), "web-1");
        assert_eq!(firewalls("/compute/v1/projects/example.com:web-1/global/firewalls"), "example.com:web-1");
        assert_eq!(firewalls("/compute/v1/projects/example.com%3Aweb-1/global/firewalls"), "example.com:web-1");
        assert_eq!(
            Target::parse("/v1/projects/-/serviceAccounts/a%40b.c:generateAccessToken"),
            Target::AccessToken("a@b.c".to_owned())
        );
        assert_eq!(Target::parse("/"), Target::Metadata(String::new()));
        assert_eq!(
            Target::parse("/computeMetadata/v1/instance/service-accounts/default/"),
            Target::Metadata("instance/service-accounts/default/".to_owned())
        );
        assert_eq!(Target::parse("/compute/v1/projects/%ff/zones"), Target::Nothing);
        assert_eq!(Target::parse("/v1/projects/"), Target::Nothing);
    }

    #[test]
    fn parameters_that_a_list_does_not_have_are_refused() {
        let parse = |target: &Target, service, text| Query::parse(target, service, text);
        let query = parse(&Target::Projects, Service::ResourceManager, "pageSize=2&filter=a:b&alt=json").unwrap();
        assert_eq!((query.page_size, query.filter.as_str()), (Some(2), "a:b"));
        let zones = Target::Zones { project: "p".to_owned() };
        assert_eq!(parse(&zones, Service::Compute, "maxResults=0&pageToken=").unwrap().page_size, None);
        for text in ["maxResults=501", "maxResults=-1", "pageSize=2", "filter=name%3Da", "prettyPrint=no", "alt=media"]
        {
            assert!(parse(&zones, Service::Compute, text).is_err(), "{text}");
        }
        assert!(parse(&zones, Service::Compute, "includeAllScopes=true").is_err());
        assert!(parse(&zones, Service::Compute, "returnPartialSuccess=true").unwrap().return_partial_success);
    }
}
