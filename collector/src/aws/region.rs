//! Where the services of AWS are.
//!
//! Reference: <https://docs.aws.amazon.com/general/latest/gr/rande.html>.

use url::Url;

use crate::http::Endpoint;

/// A service of AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    CloudTrail,
    Ec2,
    Sts,
}

impl Service {
    /// Its name in hosts and in signatures.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::CloudTrail => "cloudtrail",
            Self::Ec2 => "ec2",
            Self::Sts => "sts",
        }
    }
}

/// Partitions, by how the names of their regions begin: how hosts end, and the region that others are asked for in.
const PARTITIONS: [(&str, &str, &str); 8] = [
    ("cn-", "amazonaws.com.cn", "cn-north-1"),
    ("us-gov-", "amazonaws.com", "us-gov-west-1"),
    ("us-iso-", "c2s.ic.gov", "us-iso-east-1"),
    ("us-isob-", "sc2s.sgov.gov", "us-isob-east-1"),
    ("us-isof-", "csp.hci.ic.gov", "us-isof-south-1"),
    ("eu-isoe-", "cloud.adc-e.uk", "eu-isoe-west-1"),
    ("eusc-", "amazonaws.eu", "eusc-de-east-1"),
    ("", "amazonaws.com", "us-east-1"),
];

fn partition(region: &str) -> (&'static str, &'static str) {
    let found = PARTITIONS.iter().find(|(beginning, ..)| region.starts_with(beginning));
    found.map_or(("amazonaws.com", "us-east-1"), |(_, domain, main)| (domain, main))
}

/// The region in which the account itself is asked about: always enabled.
pub(super) fn main_region(any: &str) -> &'static str {
    partition(any).1
}

/// Where a service is in a region; at `endpoint` if there is one.
pub(super) fn url(service: Service, region: &str, endpoint: Option<&Endpoint>) -> Result<Url, url::ParseError> {
    match endpoint {
        Some(endpoint) => Ok(endpoint.url("/", None)),
        None => Url::parse(&format!("https://{}.{region}.{}/", service.name(), partition(region).0)),
    }
}

/// It becomes a part of hosts and of unit ids, so it is not taken on trust.
pub(super) fn is_region(text: &str) -> bool {
    let is_part = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    text.len() <= 32 && text.split('-').count() >= 3 && text.split('-').all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_has_its_domain() {
        let of = |region| url(Service::CloudTrail, region, None).unwrap().to_string();
        assert_eq!(of("eu-west-1"), "https://cloudtrail.eu-west-1.amazonaws.com/");
        assert_eq!(of("cn-north-1"), "https://cloudtrail.cn-north-1.amazonaws.com.cn/");
        assert_eq!(of("us-isob-east-1"), "https://cloudtrail.us-isob-east-1.sc2s.sgov.gov/");
        assert_eq!(of("eusc-de-east-1"), "https://cloudtrail.eusc-de-east-1.amazonaws.eu/");
        assert_eq!((main_region("us-gov-east-1"), main_region("ap-south-2")), ("us-gov-west-1", "us-east-1"));
        let local = Endpoint::parse("http://127.0.0.1:8").unwrap();
        assert_eq!(url(Service::Sts, "eu-west-1", Some(&local)).unwrap().as_str(), "http://127.0.0.1:8/");
    }

    #[test]
    fn regions_look_like_regions() {
        for good in ["us-east-1", "us-gov-west-1", "ap-southeast-7", "mx-central-1"] {
            assert!(is_region(good), "{good}");
        }
        for bad in ["", "useast1", "us-east-1.example", "us-east-", "US-EAST-1", "us/east-1-x"] {
            assert!(!is_region(bad), "{bad}");
        }
    }
}
