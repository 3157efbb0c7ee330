//! The expressions by which the list of projects can be narrowed: `name:web* labels.team:data`. A
//! project is listed when any of them holds; those of the parent belong together, as do those with AND
//! between them.

use super::project::Project;

/// A whole expression. Without terms it lets everything through.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    groups: Vec<Vec<Term>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Term {
    field: Field,
    /// In lower case.
    pattern: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Field {
    Id,
    Name,
    State,
    ParentType,
    ParentId,
    Parent,
    Label(String),
}

impl Filter {
    /// None for what cannot be understood.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut groups: Vec<Vec<Term>> = Vec::new();
        let mut joined = false;
        for word in words(text) {
            match word.as_str() {
                "AND" => joined = true,
                "OR" => joined = false,
                _ => {
                    let term = Term::parse(&word)?;
                    let of_parent = |term: &Term| matches!(term.field, Field::ParentType | Field::ParentId);
                    match groups.last_mut() {
                        Some(group) if joined || (of_parent(&term) && group.iter().all(of_parent)) => group.push(term),
                        _ => groups.push(vec![term]),
                    }
                    joined = false;
                }
            }
        }
        Some(Self { groups })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    pub(super) fn lets_through(&self, project: &Project) -> bool {
        self.is_empty() || self.groups.iter().any(|group| group.iter().all(|term| term.holds(project)))
    }
}

impl Term {
    fn parse(word: &str) -> Option<Self> {
        let (field, pattern) = word.split_once([':', '='])?;
        let name = field.to_ascii_lowercase();
        let field = match name.as_str() {
            "id" | "projectid" => Field::Id,
            "name" | "displayname" => Field::Name,
            "lifecyclestate" | "state" => Field::State,
            "parent.type" => Field::ParentType,
            "parent.id" => Field::ParentId,
            "parent" => Field::Parent,
            label => Field::Label(label.strip_prefix("labels.")?.to_owned()),
        };
        Some(Self { field, pattern: pattern.to_lowercase() })
    }

    fn holds(&self, project: &Project) -> bool {
        let parent = project.parent();
        let value = match &self.field {
            Field::Id => Some(project.id().to_owned()),
            Field::Name => project.name().map(str::to_owned),
            Field::State => Some(project.state().to_owned()),
            Field::ParentType => parent.map(|parent| parent.kind.to_owned()),
            Field::ParentId => parent.map(|parent| parent.id.clone()),
            Field::Parent => parent.map(|parent| format!("{}s/{}", parent.kind, parent.id)),
            Field::Label(key) => project.label(key).map(str::to_owned),
        };
        value.is_some_and(|value| fits(&self.pattern, &value.to_lowercase()))
    }
}

/// A star at the end or at the beginning stands for anything.
fn fits(pattern: &str, value: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (_, Some(start)) if !start.starts_with('*') => value.starts_with(start),
        (Some(""), _) => true,
        (Some(rest), None) => value.ends_with(rest),
        (Some(rest), Some(_)) => value.contains(rest.trim_end_matches('*')),
        _ => value == pattern,
    }
}

/// The words of a text; quotes keep spaces together.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for letter in text.chars() {
        match letter {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            letter => {
                if let Some(word) = words.last_mut() {
                    word.push(letter);
                }
            }
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloudsim::random::Random;

    fn listed(filter: &str) -> Vec<usize> {
        let filter = Filter::parse(filter).unwrap();
        (0..10)
            .filter(|index| {
                let project = Project::generate(&mut Random::at(1, &[*index as u64]), *index, *index != 9);
                filter.lets_through(&project)
            })
            .collect()
    }

    #[test]
    fn a_project_is_listed_when_any_term_holds() {
        assert_eq!(listed("").len(), 10);
        assert_eq!(listed("lifecycleState:DELETE_REQUESTED"), [9]);
        assert_eq!(listed("lifecycleState:active").len(), 9);
        assert_eq!(listed("parent.type:folder parent.id:700000000001"), [0, 6]);
        assert_eq!(listed("parent:folders/700000000001"), [0, 6]);
        assert_eq!(listed("labels.environment:*"), [0, 1, 4, 5, 8, 9]);
        assert_eq!(listed("labels.team:* state:DELETE_REQUESTED"), [0, 4, 8, 9]);
        assert_eq!(listed("labels.environment:* AND state:DELETE_REQUESTED"), [9]);
        assert_eq!(listed("id:example.com*"), [6]);
        assert_eq!(listed("name:*3"), [3]);
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        assert_eq!(Filter::parse("colour:red"), None);
        assert_eq!(Filter::parse("active"), None);
    }
}
