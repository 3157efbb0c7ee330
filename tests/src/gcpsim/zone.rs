//! The zones, and which instances are in which.

use std::ops::Range;

use serde_json::{Value, json};

/// Where every simulated zone comes from.
pub(super) const NAMES: [&str; 24] = [
    "us-central1-a",
    "us-central1-b",
    "us-central1-c",
    "us-central1-f",
    "us-east1-b",
    "us-east1-c",
    "us-east1-d",
    "us-west1-a",
    "us-west1-b",
    "us-west1-c",
    "europe-west1-b",
    "europe-west1-c",
    "europe-west1-d",
    "europe-west3-a",
    "europe-west3-b",
    "europe-west3-c",
    "europe-north1-a",
    "europe-north1-b",
    "europe-north1-c",
    "asia-south1-a",
    "asia-south1-b",
    "asia-south1-c",
    "asia-east1-a",
    "asia-east1-b",
];

/// The region of a zone.
pub(super) fn region(zone: &str) -> &str {
    zone.rsplit_once('-').map_or(zone, |(region, _)| region)
}

/// A zone as the list of a project gives it.
pub(super) fn zone(project: &str, index: usize, name: &str) -> Value {
    json!({
        "kind": "compute#zone",
        "id": (2000 + index).to_string(),
        "creationTimestamp": "1969-12-31T16:00:00.000-08:00",
        "name": name,
        "description": name,
        "status": "UP",
        "region": format!("https://www.googleapis.com/compute/v1/projects/{project}/regions/{}", region(name)),
        "selfLink": format!("https://www.googleapis.com/compute/v1/projects/{project}/zones/{name}"),
        "availableCpuPlatforms": ["Intel Broadwell", "Intel Skylake", "AMD Milan"],
        "supportsPzs": false,
    })
}

/// The instances of a zone, of all `count` of a project. One zone of three is empty, and which it is
/// differs from project to project.
pub(super) fn instances(project: usize, zone: usize, zones: usize, count: usize) -> Range<usize> {
    let is_empty = |zone: usize| zones > 2 && (zone + project) % 3 == 2;
    if is_empty(zone) {
        return 0..0;
    }
    let used = (0..zones).filter(|zone| !is_empty(*zone)).count();
    let place = (0..zone).filter(|zone| !is_empty(*zone)).count();
    place * count / used..(place + 1) * count / used
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_instance_is_in_one_zone() {
        for (project, zones, count) in [(0, 1, 5), (1, 2, 5), (2, 6, 100), (3, 24, 7), (4, 3, 0)] {
            let ranges: Vec<_> = (0..zones).map(|zone| instances(project, zone, zones, count)).collect();
            let all: Vec<usize> = ranges.iter().cloned().flatten().collect();
            assert_eq!(all, (0..count).collect::<Vec<_>>(), "{ranges:?}");
            assert!(zones < 3 || ranges.iter().any(|range| range.is_empty()));
        }
    }

    #[test]
    fn a_region_is_a_zone_without_its_letter() {
        assert_eq!(region("europe-west1-b"), "europe-west1");
    }
}
