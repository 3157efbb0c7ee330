//! `SlackAlert`: a message to people and channels, and all findings as a file.

mod api;
mod blocks;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use proto::catalogue::{ParamError, PluginClass, in_one_line};
use proto::config::params;
use proto::config::secret::{Secret, has_reference};
use proto::plan::Stage;
use proto::subject::Role;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use crate::alert::{Alert, AlertError};
use crate::digest::Digest;
use crate::listing::{Form, Listing};
use crate::readable::{counted, grouped, line};
use api::{Api, Scope};
use blocks::Said;

/// The class.
pub const CLASS: PluginClass = PluginClass {
    name: "cloudmarker.alerts.slackalert.SlackAlert",
    roles: &[Role::Alert],
    stage: Stage::Alerter,
    exclusive: true,
    pool: None,
    check: Some(&check),
};

/// The largest file that is sent, in bytes.
const LARGEST_FILE: usize = 8 * 1024 * 1024;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    bot_user_token: Secret,
    /// E-mail addresses, ids of users, ids and names of channels.
    to: Vec<String>,
    #[serde(default)]
    text: String,
    /// The Python tool wrote a file on its way.
    #[serde(default)]
    temp_file: Option<PathBuf>,
    #[serde(default = "default_url")]
    base_url: String,
}

const ABOUT: &[(&str, &str)] = &[
    ("bot_user_token", "the bot's token (`xoxb-...`)"),
    ("to", "a list of e-mail addresses, users (`U...`) and channels (`C...` or `#name`)"),
];

fn default_url() -> String {
    "https://slack.com/api/".to_owned()
}

fn check(value: &Value) -> Result<(), Vec<ParamError>> {
    let read: Params = params::read_with(value, ABOUT)?;
    read.faults(true)
}

impl Params {
    fn faults(&self, unexpanded: bool) -> Result<(), Vec<ParamError>> {
        let mut errors = Vec::new();
        let mut note = |path: String, message: &str| errors.push(ParamError { path, message: message.to_owned() });
        if self.bot_user_token.is_empty() {
            note("bot_user_token".into(), "found an empty text; the bot's token (`xoxb-...`) is expected");
        }
        if !unexpanded && self.bot_user_token.expose().chars().any(|c| !c.is_ascii_graphic()) {
            note(
                "bot_user_token".into(),
                "it has characters that no token has; is there a space or a line break in it?",
            );
        }
        if self.to.is_empty() {
            note("to".into(), "found an empty list; at least one receiver is expected");
        }
        for (place, to) in self.to.iter().enumerate() {
            if !(unexpanded && has_reference(to)) && Receiver::read(to).is_none() {
                let expected =
                    "an e-mail address, a user's id (`U...`), or a channel's id (`C...`) or name (`#name`) is expected";
                note(format!("to[{place}]"), &format!("found {}; {expected}", params::describe(&to.as_str().into())));
            }
        }
        if !(unexpanded && has_reference(&self.base_url))
            && let Err(reason) = base(&self.base_url)
        {
            note("base_url".into(), reason);
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

/// Where the API is. Plain http shows the token to the network: it is for this host alone.
fn base(text: &str) -> Result<Url, &'static str> {
    let text = if text.ends_with('/') { text.to_owned() } else { format!("{text}/") };
    let url = Url::parse(&text).map_err(|_| "it is not a URL; leave it out for Slack's own")?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if api::is_loopback(&url) => Ok(url),
        _ => Err("https is expected (http is for loopback addresses only)"),
    }
}

/// Whom a message is for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Receiver {
    Email(String),
    User(String),
    /// By id or name.
    Channel(String),
}

impl Receiver {
    fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        let is_id = text.len() > 7 && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
        match text.chars().next()? {
            '#' if text.len() > 1 && !text.contains(char::is_whitespace) => Some(Self::Channel(text.to_owned())),
            'U' | 'W' if is_id => Some(Self::User(text.to_owned())),
            'C' | 'G' | 'D' if is_id => Some(Self::Channel(text.to_owned())),
            '@' => None,
            _ if text.contains('@') && !text.contains(char::is_whitespace) => Some(Self::Email(text.to_owned())),
            _ => None,
        }
    }
}

/// Builds the alert of its parameters.
///
/// # Errors
/// What is wrong with them, for people.
pub fn build(value: &Value) -> Result<Box<dyn Alert>, String> {
    let read: Params = params::read_with(value, ABOUT).map_err(|errors| in_one_line(&errors))?;
    read.faults(false).map_err(|errors| in_one_line(&errors))?;
    if read.temp_file.is_some() {
        tracing::warn!("`temp_file` is ignored: nothing is written on the way to Slack");
    }
    let api = Api::new(base(&read.base_url)?, read.bot_user_token.clone())?;
    let deliveries = read
        .to
        .iter()
        .filter_map(|to| Some(Delivery { to: line(to), receiver: Receiver::read(to)?, step: Step::Find }))
        .collect();
    Ok(Box::new(SlackAlert { api, text: read.text, deliveries, written: None }))
}

/// How far one receiver's delivery has come.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Find,
    Open {
        user: String,
    },
    Post {
        channel: String,
    },
    /// Slack's own id of the channel: a name will not do for a file.
    Upload {
        channel: String,
    },
    Done,
    Refused(String),
}

struct Delivery {
    to: String,
    receiver: Receiver,
    step: Step,
}

/// What is sent: the same for all.
struct Written {
    said: Said,
    file: Option<Listing>,
}

struct SlackAlert {
    api: Api,
    text: String,
    deliveries: Vec<Delivery>,
    written: Option<Written>,
}

#[async_trait]
impl Alert for SlackAlert {
    async fn deliver(&mut self, digest: &Arc<Digest>) -> Result<(), AlertError> {
        if self.written.is_none() {
            let (digest, text) = (Arc::clone(digest), self.text.clone());
            let written = tokio::task::spawn_blocking(move || write(&digest, &text)).await;
            let written = written.map_err(|error| AlertError::Permanent(error.to_string()))?;
            self.written = Some(written.map_err(|error| {
                AlertError::Permanent(format!("cannot read the temporary file of the findings: {error}"))
            })?);
        }
        let Some(written) = &self.written else { return Ok(()) };
        let mut later: Option<(String, Option<std::time::Duration>)> = None;
        for delivery in &mut self.deliveries {
            match delivery.go_on(&self.api, written).await {
                Ok(()) => {}
                Err(api::Failure { scope: Scope::Everybody, error: AlertError::Permanent(reason) }) => {
                    return Err(AlertError::Permanent(reason));
                }
                Err(api::Failure { error: AlertError::Permanent(reason), .. }) => {
                    tracing::warn!(receiver = delivery.to, reason, "a receiver of a Slack alert cannot be told");
                    delivery.step = Step::Refused(reason);
                }
                Err(api::Failure { error: AlertError::Transient { reason, wait }, .. }) => {
                    let longest = later.take().and_then(|(_, wait)| wait);
                    later = Some((format!("{}: {reason}", delivery.to), wait.max(longest)));
                    if wait.is_some() {
                        break; // the limit is that of the bot, whoever is told
                    }
                }
            }
        }
        if let Some((reason, wait)) = later {
            return Err(AlertError::Transient { reason: self.so_far(reason), wait });
        }
        if self.refused().is_empty() {
            return Ok(());
        }
        Err(AlertError::Permanent(self.so_far("not all receivers could be told".to_owned())))
    }

    fn told(&self) -> u64 {
        self.deliveries.iter().filter(|delivery| delivery.step == Step::Done).count() as u64
    }

    fn place(&self) -> String {
        let to: Vec<&str> = self.deliveries.iter().map(|delivery| delivery.to.as_str()).collect();
        format!("Slack to {}", to.join(", "))
    }
}

impl SlackAlert {
    fn refused(&self) -> Vec<String> {
        let refused = |delivery: &Delivery| match &delivery.step {
            Step::Refused(reason) => Some(format!("{}: {reason}", delivery.to)),
            _ => None,
        };
        self.deliveries.iter().filter_map(refused).collect()
    }

    fn so_far(&self, reason: String) -> String {
        let mut text = reason;
        let refused = self.refused();
        if !refused.is_empty() {
            text = format!("{text}; {}", refused.join("; "));
        }
        if self.told() > 0 {
            let all = counted(self.deliveries.len() as u64, "receiver", "receivers");
            text = format!("{text}; {} of {all} have been told", grouped(self.told()));
        }
        text
    }
}

impl Delivery {
    /// Does what is left to do. What is done is not done again.
    async fn go_on(&mut self, api: &Api, written: &Written) -> Result<(), api::Failure> {
        loop {
            self.step = match &self.step {
                Step::Find => match &self.receiver {
                    Receiver::Email(address) => Step::Open { user: api.user_of(address).await? },
                    Receiver::User(user) => Step::Open { user: user.clone() },
                    Receiver::Channel(channel) => Step::Post { channel: channel.clone() },
                },
                Step::Open { user } => Step::Post { channel: api.open(user).await? },
                Step::Post { channel } => {
                    let channel = api.post(channel, &written.said).await?;
                    if written.file.is_some() { Step::Upload { channel } } else { Step::Done }
                }
                Step::Upload { channel } => {
                    if let Some(file) = &written.file {
                        api.upload(channel, file).await?;
                    }
                    Step::Done
                }
                Step::Done | Step::Refused(_) => return Ok(()),
            };
        }
    }
}

fn write(digest: &Digest, text: &str) -> std::io::Result<Written> {
    let said = blocks::of(digest, text)?;
    let file = if digest.is_empty() || digest.about.is_trial {
        None
    } else {
        Some(Listing::of(digest, Form::Json, LARGEST_FILE)?)
    };
    Ok(Written { said, file })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn receivers_are_told_apart() {
        let read = |text: &str| Receiver::read(text);
        assert_eq!(read("a@example.com"), Some(Receiver::Email("a@example.com".into())));
        assert_eq!(read("U012AB3CD"), Some(Receiver::User("U012AB3CD".into())));
        assert_eq!(read("C012AB3CD"), Some(Receiver::Channel("C012AB3CD".into())));
        assert_eq!(read("#alerts"), Some(Receiver::Channel("#alerts".into())));
        for wrong in ["", "#", "alerts", "@bob", "u012ab3cd", "a b@example.com"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_and_no_token() {
        let errors =
            check(&json!({"bot_user_token": "", "to": ["nobody"], "base_url": "http://example.com"})).unwrap_err();
        let paths: Vec<&str> = errors.iter().map(|error| error.path.as_str()).collect();
        assert_eq!(paths, ["bot_user_token", "to[0]", "base_url"]);
        let token = build(&json!({"bot_user_token": "xoxb secret", "to": ["U012AB3CD"]})).err().unwrap();
        assert!(!token.contains("secret") && token.contains("bot_user_token"), "{token}");
        assert!(check(&json!({"bot_user_token": "${CM_T}", "to": ["${CM_TO}"], "temp_file": "/x"})).is_ok());
        assert!(check(&json!({"to": ["U012AB3CD"]})).unwrap_err()[0].message.contains("the bot's token"));
    }
}
