//! `coordinator rules new`: begins a rule.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use evaluator::rule::{Rule, built_in, run_tests, untested};
use proto::config::suggest;
use serde_json::Value;

use super::{Done, Refused, print};

const EXAMPLES: &str = "\
Examples:
  coordinator rules new sql_tde --cloud azure --record-type sql_db
  coordinator rules new open_ports --cloud gcp --record-type firewall_rule --to rules/

The file passes its own tests as it is. It is never written over another.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct NewArgs {
    /// The rule's id: small letters, digits, `_` and `-`.
    #[arg(value_name = "ID")]
    id: String,
    /// The cloud whose records it looks at.
    #[arg(long, value_name = "CLOUD", default_value = "azure")]
    cloud: String,
    /// The type of the records that it looks at.
    #[arg(long, value_name = "TYPE")]
    record_type: Option<String>,
    /// The folder to write `ID.yaml` in.
    #[arg(long, value_name = "DIR", default_value = ".")]
    to: PathBuf,
}

/// What the records of a type have, as the samples of the built-in rules show them.
#[derive(Debug, Default)]
struct Fields {
    ext: BTreeMap<String, Value>,
    com: BTreeMap<String, Value>,
}

pub(super) fn main(args: &NewArgs) -> Done {
    let record_type = match (&args.record_type, args.cloud.as_str()) {
        (Some(name), _) => name.as_str(),
        (None, "azure") => "storage_account_properties",
        (None, "gcp") => "instance",
        (None, cloud) => return Err(format!("name the records of {cloud}: --record-type TYPE").into()),
    };
    let (fields, is_common) = fields_of(&args.cloud, record_type);
    let known: Vec<&str> = built_in().rules().flat_map(|rule| types_of(rule)).collect();
    if !known.contains(&record_type) {
        let hint = suggest::did_you_mean(record_type, known);
        eprintln!("warning: no built-in rule looks at records of the type {record_type}{hint}");
    }
    if built_in().get(&args.id).is_some() {
        eprintln!(
            "warning: a built-in rule has the id {}; this one replaces it where a configuration names it",
            args.id
        );
    }
    let text = template(args, record_type, &fields, is_common);
    let file = PathBuf::from(format!("{}.yaml", args.id));
    let file = if args.to == Path::new(".") { file } else { args.to.join(file) };
    let name = file.display().to_string();
    prove(&text)?;
    let opened = OpenOptions::new().write(true).create_new(true).open(&file);
    let written = opened.and_then(|mut opened| opened.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            format!("{name} is there already; it is not written over: give the rule another id")
        }
        ErrorKind::NotFound => format!("{name} cannot be written: there is no folder {}", args.to.display()),
        _ => format!("{name} cannot be written: {error}"),
    })?;
    Ok(print(&format!(
        "{name} is written. Its tests: coordinator rules test {name}\n\
         What it finds: coordinator rules try {name} --from DIR\n"
    )))
}

fn types_of(rule: &Rule) -> impl Iterator<Item = &str> {
    rule.ext_types.iter().chain(&rule.com_types).flatten().map(String::as_str)
}

/// The fields of a type's records, and whether `com` says the type.
fn fields_of(cloud: &str, record_type: &str) -> (Fields, bool) {
    let mut fields = Fields::default();
    let (mut by_ext, mut by_com) = (false, false);
    let has = |types: &Option<Vec<String>>| types.iter().flatten().any(|name| name == record_type);
    for rule in built_in().rules() {
        let is_of_cloud = rule.clouds.as_ref().is_none_or(|clouds| clouds.iter().any(|name| name == cloud));
        if !is_of_cloud || !(has(&rule.ext_types) || has(&rule.com_types)) {
            continue;
        }
        by_ext |= has(&rule.ext_types);
        by_com |= has(&rule.com_types);
        for (bucket, known) in [("ext", &mut fields.ext), ("com", &mut fields.com)] {
            for (name, value) in rule.sample().get(bucket).and_then(Value::as_object).into_iter().flatten() {
                known.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
    }
    (fields, by_com && !by_ext)
}

/// The template is a rule, and passes its tests, whatever it was made of.
fn prove(text: &str) -> Result<(), Refused> {
    let rule = Rule::parse("the new rule", text).map_err(|error| error.to_string())?;
    let rule = Arc::new(rule);
    let (_, failures) = run_tests(&rule);
    let untested = untested(&rule);
    match (failures.first(), untested.first()) {
        (Some(failure), _) => Err(format!("cannot make a rule of this: {failure}").into()),
        (None, Some(untested)) => Err(format!("cannot make a rule of this: nothing tests {untested}").into()),
        (None, None) => Ok(()),
    }
}

fn template(args: &NewArgs, record_type: &str, fields: &Fields, is_common: bool) -> String {
    const OWN: [&str; 4] = ["cloud_type", "record_type", "reference", "subscription_id"];
    let of = |bucket: &'static str, fields: &BTreeMap<String, Value>| -> Vec<(&'static str, String, Value)> {
        let own = fields.iter().filter(|(name, _)| !OWN.contains(&name.as_str()));
        own.map(|(name, value)| (bucket, name.clone(), value.clone())).collect()
    };
    let mut all = of("com", &fields.com);
    all.extend(of("ext", &fields.ext));
    let is_plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    // A field that is true or false makes the plainest condition.
    let is_flag = |(_, name, value): &&(&str, String, Value)| value.is_boolean() && is_plain(name);
    let good = all.iter().filter(is_flag).find(|(.., value)| *value == Value::Bool(true));
    let flag = good.or_else(|| all.iter().find(is_flag)).cloned();
    let (bucket, name, good) = flag.unwrap_or_else(|| {
        let made_up = ("ext", "encrypted".to_owned(), Value::Bool(true));
        all.push(made_up.clone());
        made_up
    });
    let (field, bad) = (format!("{bucket}.{name}"), !good.as_bool().unwrap_or_default());
    let (id, cloud, record_type) = (&args.id, quoted(&args.cloud), quoted(record_type));
    let what = if is_common { "com.record_type" } else { "ext.record_type" };
    let mut sample = String::new();
    for (bucket, own) in [
        ("ext", vec![("cloud_type", cloud.as_str()), ("record_type", &record_type)]),
        (
            "com",
            vec![
                ("cloud_type", cloud.as_str()),
                ("record_type", &record_type),
                ("reference", "/accounts/a/things/one"),
            ],
        ),
    ] {
        // Writing to a string cannot fail.
        let _ = writeln!(sample, "  {bucket}:");
        for (name, value) in own {
            let _ = writeln!(sample, "    {name}: {value}");
        }
        for (_, name, value) in all.iter().filter(|(of, ..)| *of == bucket) {
            let _ = writeln!(sample, "    {}: {value}", quoted(name));
        }
    }
    format!(
        r#"# A rule: it looks at one record at a time and says pass, fail or unknown. It is used by its id:
#   rules: [{id}.yaml]
#   plugins: {{my_plugin: {{plugin: {id}}}}}
# Say here and in all texts what you mean; what each key does stands in the guide, evaluator/rules/README.md.
id: {id}
# What ought to be, in a few words.
title: Resources are as they should be
# critical, high, medium, low or info
severity: medium
# How to get there.
remediation: Say here how to mend it.
# Controls of benchmarks that it is about:
# controls: {{cis_azure_3.0: ["7.1"]}}

# Which records: no condition runs on any other.
applies_to:
  cloud: {cloud}
  {what}: {record_type}

# What a configuration may set, as `params.NAME` in conditions:
# params:
#   days: {{type: int, default: 90, min: 1, about: For how many days it may be so}}

event_type: {event_type}
# When it fails, in CEL over raw, ext, com, params and now. What is missing or null makes the result unknown, never a pass.
fail_if: {field} == {bad}
# What is wrong and what to do: a sentence each.
description: "{{{{ cloud }}}} resource {{{{ resource }}}} is not as it should be."
recommendation: "Check {{{{ resource }}}} and mend it."
# What it has looked at; it stands in the event.
evidence:
  {name}: {field}

# A record that passes. Each test changes it and says what comes out.
sample:
  raw: {{}}
{sample}tests:
  - name: as it should be
    expect: pass
  - name: not as it should be
    set: {{{field}: {bad}}}
    expect: fail
    events:
      - com.evidence.{name}: {bad}
  - name: nobody knows
    set: {{{field}: null}}
    expect: unknown
    because: {field} is null
  - name: not there
    unset: [{field}]
    expect: unknown
    because: {field} is missing
"#,
        event_type = event_type(id),
    )
}

/// The type of its events.
fn event_type(id: &str) -> String {
    if id.ends_with("_event") { id.to_owned() } else { format!("{id}_event") }
}

/// A word as YAML writes it: plain if it can be.
fn quoted(word: &str) -> String {
    let is_plain = word.starts_with(|c: char| c.is_ascii_alphabetic())
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&word.to_ascii_lowercase().as_str());
    if is_plain { word.to_owned() } else { Value::from(word).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_of_every_record_type_is_a_rule_that_passes_its_tests() {
        let types = built_in().rules().flat_map(|rule| types_of(rule));
        for record_type in types.chain(["something else", "null", "\"", "öl"]) {
            for cloud in ["azure", "gcp", "mock", "my \"cloud\": #1", "on"] {
                let args = NewArgs {
                    id: "my_rule".to_owned(),
                    cloud: cloud.to_owned(),
                    record_type: None,
                    to: PathBuf::new(),
                };
                let (fields, is_common) = fields_of(cloud, record_type);
                let text = template(&args, record_type, &fields, is_common);
                prove(&text).unwrap_or_else(|Refused(reasons)| panic!("{cloud} {record_type}: {reasons:?}\n{text}"));
            }
        }
    }
}
