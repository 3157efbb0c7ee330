//! A rule file to begin with.

use std::fmt::Write;

use super::SchemaError;
use super::expand::{Side, key};
use super::service::{Reference, Service};

/// How many members of a side are listed, and how deep.
const MOST_MEMBERS: usize = 30;
const DEEPEST: usize = 4;
/// Services that add the version of their interface to the names of their events: `CreateFunction20150331`.
const VERSIONED: [&str; 2] = ["lambda", "cloudfront"];

/// A rule over the events of an operation: it passes its own tests, and is to be narrowed down.
///
/// # Errors
/// When the operation cannot be read.
pub fn rule(service: &Service<'_>, name: &str) -> Result<String, SchemaError> {
    let operation = service.operation(name)?;
    let source = service.event_source();
    let short = source.strip_suffix(".amazonaws.com").unwrap_or(&source).to_owned();
    let action = format!("{short}:{name}");
    let id = format!("aws_{}_{}", snake(&service.name), snake(name));
    let when = if VERSIONED.contains(&service.name.as_str()) {
        format!("com.action.matches('^{action}(20[0-9]{{2}}[0-9_v]*)?$')")
    } else {
        format!("com.action == '{action}'")
    };
    let mut members = String::new();
    for side in Side::ALL {
        let mut list = List { service, lines: Vec::new(), more: false };
        match side.of(&operation) {
            Some(reference) => list.walk(reference, &format!("raw.{}", side.in_event()), false, &mut Vec::new())?,
            None => list.lines.push(format!("raw.{}: nothing", side.in_event())),
        }
        for line in list.lines {
            let _ = writeln!(members, "#   {line}");
        }
        if list.more {
            let _ = writeln!(members, "#   ...: coordinator schema {}.{name}.{} shows all", service.name, side.name());
        }
    }
    let full_name = service.full_name().replace(['\n', '\r'], " ");
    Ok(format!(
        "\
# Calls of {name} of {full_name}, as CloudTrail has them. Change what is said here, and try it:
#   coordinator rules test {id}.yaml
id: {id}
title: {name} is called only as agreed
severity: low
remediation: Ask who called it why, and undo what was not agreed.

applies_to:
  cloud: aws
  com.record_type: cloud_activity

# The log's `eventSource` and `eventName`. Look at an event of yours: some services name them otherwise than their models.
when: {when}

# The call as such is what is found: every one that was carried out. Narrow it down by who called (`com.actor`), and by
# what was asked and answered. A call that was refused has no `responseElements`, and one that changes nothing mostly has
# none either; ask for a member that may be missing like this: raw.?requestParameters.?name.orValue('').
{members}\
event_type: {id}_event
fail_if: com.outcome == 'success'
description: \"{{{{ com.actor.name or com.actor.id }}}} called {action} in the {{{{ cloud }}}} account {{{{ com.account }}}}.\"
recommendation: Find out whether {name} was to be called.

sample:
  raw: {{eventSource: {source}, eventName: {name}, requestParameters: null, responseElements: null}}
  ext: {{record_type: cloud_activity}}
  com:
    cloud_type: aws
    record_type: cloud_activity
    reference: 00000000-0000-0000-0000-000000000000
    action: '{action}'
    actor: {{name: somebody, id: 'arn:aws:iam::111111111111:user/somebody'}}
    account: \"111111111111\"
    outcome: failure
tests:
  - name: refused
    expect: pass
  - name: carried out
    set: {{com.outcome: success}}
    expect: fail
  - name: nobody knows how it ended
    set: {{com.outcome: null}}
    expect: unknown
    because: com.outcome is null
  - name: another call
    set: {{com.action: '{short}:Other'}}
    expect: not_applicable
"
    ))
}

/// The members of a side, by their paths.
struct List<'s, 'a> {
    service: &'s Service<'a>,
    lines: Vec<String>,
    more: bool,
}

impl List<'_, '_> {
    fn walk(
        &mut self,
        reference: &Reference<'_>,
        path: &str,
        is_required: bool,
        within: &mut Vec<String>,
    ) -> Result<(), SchemaError> {
        let shape = self.service.shape(&reference.shape)?;
        let is_leaf = shape.members.is_none() && shape.parts.is_empty();
        let is_cut = within.len() > DEEPEST || within.iter().any(|name| *name == reference.shape);
        if is_leaf || is_cut {
            self.more |= is_cut && !is_leaf;
            if self.lines.len() >= MOST_MEMBERS {
                self.more = true;
            } else {
                let required = if is_required { ", required" } else { "" };
                self.lines.push(format!("{path}: {}{required}", shape.kind));
            }
            return Ok(());
        }
        within.push(reference.shape.to_string());
        for (name, member) in shape.members.iter().flat_map(|members| &members.0) {
            if self.lines.len() >= MOST_MEMBERS {
                self.more = true;
                break;
            }
            let is_required = shape.required.iter().any(|required| required == name);
            self.walk(member, &format!("{path}.{}", key(name)), is_required, within)?;
        }
        for (part, reference) in &shape.parts {
            match *part {
                "member" => self.walk(reference, &format!("{path}[0]"), is_required, within)?,
                "value" => self.walk(reference, &format!("{path}[\"KEY\"]"), is_required, within)?,
                _ => {}
            }
        }
        within.pop();
        Ok(())
    }
}

/// `CreateVPCEndpoint` as `create_vpc_endpoint`.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    let all: Vec<char> = name.chars().collect();
    for (at, c) in all.iter().enumerate() {
        if !c.is_ascii_alphanumeric() {
            snake.push('_');
            continue;
        }
        let before = at.checked_sub(1).and_then(|at| all.get(at));
        let begins = c.is_ascii_uppercase()
            && before.is_some_and(|before| {
                let ends_capitals =
                    before.is_ascii_uppercase() && all.get(at + 1).is_some_and(char::is_ascii_lowercase);
                before.is_ascii_lowercase() || before.is_ascii_digit() || ends_capitals
            });
        if begins {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::snake;

    #[test]
    fn names_become_ids() {
        for (name, id) in [
            ("CreatePolicy", "create_policy"),
            ("CreateVPCEndpoint", "create_vpc_endpoint"),
            ("PutMFADevice2", "put_mfa_device2"),
            ("cognito-idp", "cognito_idp"),
            ("AddClientIDToOpenIDConnectProvider", "add_client_id_to_open_id_connect_provider"),
        ] {
            assert_eq!(snake(name), id);
        }
    }
}
