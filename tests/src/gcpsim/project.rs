//! A project, in the shapes of the Resource Manager's versions 1 and 3.

use serde_json::{Map, Value, json};

use crate::cloudsim::random::Random;

/// The numbers of projects begin here; those of one seed are this far apart.
const FIRST_NUMBER: u64 = 100_000_000_000;
const NUMBER_STEP: u64 = 7_919;

/// Whom a project belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parent {
    /// `folder` or `organization`.
    pub(super) kind: &'static str,
    pub(super) id: String,
}

/// A project.
#[derive(Clone, Debug)]
pub struct Project {
    id: String,
    number: u64,
    name: Option<String>,
    is_active: bool,
    parent: Option<Parent>,
    labels: Vec<(&'static str, &'static str)>,
    created: String,
}

impl Project {
    /// The project with this number (from 0). Each tenth has an id with the name of a domain in it, as
    /// the oldest ones have; each ninth has no name; some have no parent.
    pub(super) fn generate(random: &mut Random, index: usize, is_active: bool) -> Self {
        let (stem, stage) = (stem(random), random.pick(&["prod", "staging", "dev", "sandbox"]));
        let domain = if index % 10 == 6 { "example.com:" } else { "" };
        let offset = random.below(NUMBER_STEP);
        let name = match index % 9 {
            4 => None,
            7 => Some(format!("{stem} \"{stage}\" - Ana's {index}!")),
            _ => Some(format!("{stem} {stage} {index}")),
        };
        let parent = match index % 5 {
            0 | 1 => Some(Parent { kind: "folder", id: (700_000_000_001 + index as u64 % 3).to_string() }),
            2 | 3 => Some(Parent { kind: "organization", id: "600000000001".to_owned() }),
            _ => None,
        };
        Self {
            id: format!("{domain}{stem}-{stage}-{index}"),
            number: FIRST_NUMBER + index as u64 * NUMBER_STEP + offset,
            name,
            is_active,
            parent,
            labels: match index % 4 {
                0 => vec![("environment", stage), ("team", random.pick(&["web", "data", "platform"]))],
                1 => vec![("environment", stage)],
                _ => Vec::new(),
            },
            created: format!(
                "20{:02}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
                15 + random.below(10),
                1 + random.below(12),
                1 + random.below(28),
                random.below(24),
                random.below(60),
                random.below(60),
                random.below(1000)
            ),
        }
    }

    /// The index that an id or a number can have; whether there is such a project is another question.
    pub(super) fn index_of(id: &str) -> Option<usize> {
        match id.parse::<u64>() {
            Ok(number) => usize::try_from(number.checked_sub(FIRST_NUMBER)? / NUMBER_STEP).ok(),
            Err(_) => id.rsplit_once('-')?.1.parse().ok(),
        }
    }

    /// The id, `data-prod-3`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The number, as the services write it.
    pub fn number(&self) -> String {
        self.number.to_string()
    }

    /// The name that people gave it, if they did.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Whether it is ACTIVE. Otherwise its deletion is requested, and nothing in it can be read.
    pub fn is_active(&self) -> bool {
        self.is_active
    }

    pub(super) fn parent(&self) -> Option<&Parent> {
        self.parent.as_ref()
    }

    pub(super) fn label(&self, key: &str) -> Option<&'static str> {
        self.labels.iter().find(|(name, _)| *name == key).map(|(_, value)| *value)
    }

    pub(super) fn state(&self) -> &'static str {
        if self.is_active { "ACTIVE" } else { "DELETE_REQUESTED" }
    }

    fn labels(&self) -> Option<Value> {
        let labels: Map<String, Value> =
            self.labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
        (!labels.is_empty()).then(|| labels.into())
    }

    /// As `GET /v1/projects` lists it.
    pub fn v1(&self) -> Value {
        let mut project = json!({
            "projectNumber": self.number(),
            "projectId": self.id,
            "lifecycleState": self.state(),
            "createTime": self.created,
        });
        let parent = self.parent().map(|parent| json!({"type": parent.kind, "id": parent.id}));
        add(&mut project, "name", self.name().map(Value::from));
        add(&mut project, "labels", self.labels());
        add(&mut project, "parent", parent);
        project
    }

    /// As `GET /v3/projects:search` lists it.
    pub fn v3(&self) -> Value {
        let mut project = json!({
            "name": format!("projects/{}", self.number),
            "projectId": self.id,
            "state": self.state(),
            "createTime": self.created,
            "updateTime": self.created,
            "etag": format!("W/\"{:016x}\"", self.number),
        });
        let parent = self.parent().map(|parent| format!("{}s/{}", parent.kind, parent.id).into());
        add(&mut project, "displayName", self.name().map(Value::from));
        add(&mut project, "labels", self.labels());
        add(&mut project, "parent", parent);
        add(&mut project, "deleteTime", (!self.is_active).then(|| "2026-11-01T00:00:00.000Z".into()));
        project
    }
}

/// Google leaves out what there is not.
pub(super) fn add(object: &mut Value, key: &str, value: Option<Value>) {
    if let (Some(object), Some(value)) = (object.as_object_mut(), value) {
        object.insert(key.to_owned(), value);
    }
}

fn stem(random: &mut Random) -> &'static str {
    random.pick(&["web", "data", "billing", "search", "ml-platform", "identity", "mobile-backend"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_is_found_by_its_id_and_by_its_number() {
        for index in [0, 6, 9, 1_234] {
            let project = Project::generate(&mut Random::at(3, &[index as u64]), index, true);
            assert_eq!(Project::index_of(project.id()), Some(index));
            assert_eq!(Project::index_of(&project.number()), Some(index));
        }
        assert_eq!(Project::index_of("12"), None);
        assert_eq!(Project::index_of("nothing"), None);
    }

    #[test]
    fn what_a_project_does_not_have_is_absent() {
        let project = |index| Project::generate(&mut Random::at(3, &[index as u64]), index, index != 4);
        assert!(project(4).v1().get("name").is_none());
        assert!(project(4).v1().get("parent").is_none());
        assert_eq!(project(4).v3()["state"], "DELETE_REQUESTED");
        assert_eq!(project(2).v3()["parent"], "organizations/600000000001");
        assert_eq!(project(0).v1()["parent"]["type"], "folder");
        assert!(project(6).id().starts_with("example.com:"));
    }
}
