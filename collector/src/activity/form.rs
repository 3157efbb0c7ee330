//! The form that the records of all activity logs have in `com`.

use serde::Serialize;

use super::TYPE;
use super::members::{Found, Members};

/// What happened, by whom, to what: `com` of a record.
#[derive(Debug, Clone, Serialize)]
pub struct Activity<'a> {
    /// `aws`, `azure`.
    pub cloud_type: &'static str,
    /// [`TYPE`].
    pub record_type: &'static str,
    /// The log event's own id.
    pub reference: &'a str,
    /// The log event's own id.
    pub event_id: &'a str,
    /// When, in RFC 3339, in UTC.
    pub time: Option<String>,
    /// Who.
    pub actor: Actor<'a>,
    /// What was done: `iam:CreateUser`, `Microsoft.Compute/virtualMachines/write`.
    pub action: Option<String>,
    /// To what.
    pub resource: Resource<'a>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// The cloud's word for what went wrong.
    pub error: Option<&'a str>,
    /// The account or the subscription.
    pub account: Option<&'a str>,
    /// The region, if the log has one.
    pub region: Option<&'a str>,
    /// The rules that keep it.
    pub rules: &'a [&'a str],
}

impl<'a> Activity<'a> {
    /// One of which nothing is known but its id.
    #[must_use]
    pub fn new(cloud_type: &'static str, event_id: &'a str, rules: &'a [&'a str]) -> Self {
        Self {
            cloud_type,
            record_type: TYPE,
            reference: event_id,
            event_id,
            time: None,
            actor: Actor::default(),
            action: None,
            resource: Resource::default(),
            outcome: None,
            error: None,
            account: None,
            region: None,
            rules,
        }
    }
}

/// Who did it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Actor<'a> {
    /// The name that people know.
    pub name: Option<&'a str>,
    /// The cloud's id: an ARN, an object id.
    pub id: Option<&'a str>,
    /// What it is.
    pub kind: Option<Kind>,
    /// Where from: mostly an address, or the name of a service of the cloud.
    pub address: Option<&'a str>,
    /// The program.
    pub user_agent: Option<&'a str>,
}

/// What somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The owner of an AWS account itself.
    Root,
    /// A person's or a program's user.
    User,
    /// Somebody who has taken a role.
    Role,
    /// An application or a managed identity of Azure.
    Application,
    /// Somebody signed in elsewhere.
    Federated,
    /// Another account.
    Account,
    /// The cloud itself.
    Service,
}

/// What it was done to.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Resource<'a> {
    /// The cloud's id, or the name if that is all that the log has.
    pub id: Option<&'a str>,
    /// The cloud's word for what it is.
    #[serde(rename = "type")]
    pub kind: Option<&'a str>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Success,
    /// It was refused, or it failed.
    Failure,
    /// It has begun; another event tells of its end.
    Started,
}

/// The members of a log event that a form is made of.
#[derive(Debug)]
pub struct Reader<const N: usize>(Members);

impl<const N: usize> Reader<N> {
    /// A reader of members, each by the names on its way. All are different.
    #[must_use]
    pub fn new(paths: [&[&str]; N]) -> Self {
        let mut members = Members::default();
        for path in paths {
            members.add_path(path.iter().copied());
        }
        Self(members)
    }

    /// Reads them, in their order.
    ///
    /// # Errors
    /// When the event is not JSON.
    pub fn read<'a>(&self, event: &'a str) -> serde_json::Result<Values<'a>> {
        self.0.values(event).map(Values)
    }
}

/// What was read.
#[derive(Debug)]
pub struct Values<'a>(Found<'a>);

impl Values<'_> {
    /// The first value of a member, unless it is empty.
    #[must_use]
    pub fn get(&self, at: usize) -> Option<&str> {
        self.0.get(at)?.first().map(|value| &**value).filter(|value| !value.is_empty())
    }

    /// All values of a member.
    pub fn all(&self, at: usize) -> impl Iterator<Item = &str> {
        self.0.get(at).into_iter().flatten().map(|value| &**value)
    }
}

/// A time as all records have it.
#[must_use]
pub fn time(text: &str) -> Option<String> {
    text.parse::<jiff::Timestamp>().ok().map(|time| time.to_string())
}
