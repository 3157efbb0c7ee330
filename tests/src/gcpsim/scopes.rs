//! What a token allows, beside what its account may do.

/// Everything in Google Cloud.
pub(super) const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";
const CLOUD_PLATFORM_READ_ONLY: &str = "https://www.googleapis.com/auth/cloud-platform.read-only";
const COMPUTE: &str = "https://www.googleapis.com/auth/compute";
const COMPUTE_READ_ONLY: &str = "https://www.googleapis.com/auth/compute.readonly";
const PROJECTS: &str = "https://www.googleapis.com/auth/cloudplatformprojects";
const PROJECTS_READ_ONLY: &str = "https://www.googleapis.com/auth/cloudplatformprojects.readonly";
const IAM: &str = "https://www.googleapis.com/auth/iam";

/// The services that this server is at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    /// Projects.
    ResourceManager,
    /// Firewalls, zones and instances.
    Compute,
    /// Tokens of other accounts.
    IamCredentials,
}

impl Service {
    /// The name by which Google knows the service: its host.
    pub(super) fn host(self) -> &'static str {
        match self {
            Self::ResourceManager => "cloudresourcemanager.googleapis.com",
            Self::Compute => "compute.googleapis.com",
            Self::IamCredentials => "iamcredentials.googleapis.com",
        }
    }

    /// The name that people read.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::ResourceManager => "Cloud Resource Manager API",
            Self::Compute => "Compute Engine API",
            Self::IamCredentials => "IAM Service Account Credentials API",
        }
    }

    /// Whether a token with these scopes is good for reading here.
    pub(super) fn is_open_to(self, scopes: &[String]) -> bool {
        let enough: &[&str] = match self {
            Self::ResourceManager => &[CLOUD_PLATFORM, CLOUD_PLATFORM_READ_ONLY, PROJECTS, PROJECTS_READ_ONLY],
            Self::Compute => &[CLOUD_PLATFORM, CLOUD_PLATFORM_READ_ONLY, COMPUTE, COMPUTE_READ_ONLY],
            Self::IamCredentials => &[CLOUD_PLATFORM, IAM],
        };
        scopes.iter().any(|scope| enough.contains(&scope.as_str()))
    }
}

/// The scopes of a list, if each has the form of one.
pub(super) fn parse<'a>(scopes: impl Iterator<Item = &'a str>) -> Option<Vec<String>> {
    scopes
        .map(|scope| {
            let is_scope = scope.starts_with("https://www.googleapis.com/auth/")
                || matches!(scope, "openid" | "email" | "profile" | "https://mail.google.com/");
            is_scope.then(|| scope.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_takes_a_scope_of_the_service_or_of_the_whole_cloud() {
        let open = |service: Service, scope: &str| service.is_open_to(&[scope.to_owned()]);
        assert!(open(Service::Compute, COMPUTE_READ_ONLY));
        assert!(!open(Service::ResourceManager, COMPUTE_READ_ONLY));
        assert!(open(Service::ResourceManager, CLOUD_PLATFORM_READ_ONLY));
        assert!(!open(Service::IamCredentials, CLOUD_PLATFORM_READ_ONLY));
        assert!(open(Service::IamCredentials, CLOUD_PLATFORM));
    }

    #[test]
    fn what_is_no_scope_is_refused() {
        assert_eq!(parse("openid email".split(' ')).unwrap().len(), 2);
        assert_eq!(parse(["cloud-platform"].into_iter()), None);
    }
}
