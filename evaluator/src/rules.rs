//! The rules of one audit's version: chosen by record type before any condition runs.

use std::collections::HashMap;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use proto::catalogue::in_one_line;
use proto::plan::{Plan, PluginSpec};
use proto::subject::{Key, Role, Version};
use serde_json::Value;

use crate::condition::Wanted;
use crate::event::Maker;
use crate::record::Record;
use crate::rule::{Instance, Judgement, Outcome, Pack};

/// The event plugins of an audit's version.
#[derive(Debug)]
pub struct Rules {
    rules: Vec<AuditRule>,
    /// By `ext.record_type`: the rules that select by it.
    by_ext: HashMap<String, Vec<usize>>,
    /// By `com.record_type`: the rules that select by it, and not by that of `ext`.
    by_com: HashMap<String, Vec<usize>>,
    /// The rules that look at records of every type.
    of_all: Vec<usize>,
    raw: Wanted,
    now: Timestamp,
}

/// An event plugin of an audit.
#[derive(Debug)]
pub struct AuditRule {
    /// The plugin's key.
    pub key: Key,
    /// Its rule, with parameters.
    pub instance: Instance,
    /// Makes its events.
    pub maker: Maker,
}

impl Rules {
    /// The event plugins of a plan, their parameters expanded by the caller.
    ///
    /// # Errors
    /// The first plugin that cannot be built, and why.
    pub fn build(
        plan: &Plan,
        pack: &Pack,
        expand: impl Fn(&Value) -> Result<Value, String>,
    ) -> Result<Self, (Key, String)> {
        let rules = plan.of_role(Role::Event).map(|spec| {
            let instance = expand(&spec.params).and_then(|params| instance(pack, spec, &params));
            let instance = instance.map_err(|reason| (spec.key.clone(), reason))?;
            let maker = Maker::new(&plan.audit, &plan.version, &spec.key, &spec.class);
            Ok(AuditRule { key: spec.key.clone(), instance, maker })
        });
        Ok(Self::new(rules.collect::<Result<_, _>>()?, time_of(&plan.version)))
    }

    /// These rules, at this time.
    #[must_use]
    pub fn new(rules: Vec<AuditRule>, now: Timestamp) -> Self {
        let mut all = Self {
            rules,
            by_ext: HashMap::new(),
            by_com: HashMap::new(),
            of_all: Vec::new(),
            raw: Wanted::default(),
            now,
        };
        for (number, AuditRule { instance, .. }) in all.rules.iter().enumerate() {
            let rule = &instance.rule;
            all.raw.add(rule.raw_wanted());
            let (types, index) = match (&rule.ext_types, &rule.com_types) {
                (Some(types), _) => (types, &mut all.by_ext),
                (None, Some(types)) => (types, &mut all.by_com),
                (None, None) => {
                    all.of_all.push(number);
                    continue;
                }
            };
            for name in types {
                index.entry(name.clone()).or_default().push(number);
            }
        }
        all
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &[AuditRule] {
        &self.rules
    }

    /// Reads a record as far as the rules need it.
    ///
    /// # Errors
    /// When the text is not a JSON object.
    pub fn read<'a>(&self, text: &'a [u8]) -> serde_json::Result<Record<'a>> {
        Record::parse(text, &self.raw)
    }

    /// What the rules that look at a record say of it, each by its number. Those that do not say nothing.
    pub fn judge(&self, record: &Record<'_>, mut say: impl FnMut(usize, Judgement)) {
        if record.trouble.is_some() || record.ext_trouble().is_some() {
            for (number, rule) in self.rules.iter().enumerate() {
                tell(number, rule.instance.judge(record, self.now), &mut say);
            }
            return;
        }
        let (ext, com) = (record.ext_text("record_type"), record.com_text("record_type"));
        let cloud = record.com_text("cloud_type");
        let by_ext = ext.and_then(|name| self.by_ext.get(name));
        let by_com = com.and_then(|name| self.by_com.get(name));
        for &number in by_ext.into_iter().chain(by_com).flatten().chain(&self.of_all) {
            let Some(rule) = self.rules.get(number) else { continue };
            if rule.instance.selects(cloud, com, ext) {
                tell(number, rule.instance.judge_selected(record, self.now), &mut say);
            }
        }
    }
}

fn tell(number: usize, judgement: Judgement, say: &mut impl FnMut(usize, Judgement)) {
    if judgement.outcome != Outcome::NotApplicable {
        say(number, judgement);
    }
}

fn instance(pack: &Pack, spec: &PluginSpec, params: &Value) -> Result<Instance, String> {
    match pack.instance(&spec.class, params) {
        None => Err(format!("this evaluator does not serve the class {}", spec.class)),
        Some(instance) => instance.map_err(|errors| in_one_line(&errors)),
    }
}

/// The time that a version is named after: the same for each delivery of a record, so that it gives the same events.
#[must_use]
pub fn time_of(version: &Version) -> Timestamp {
    let time = DateTime::strptime("%Y%m%d_%H%M%S", version.as_str()).ok();
    let time = time.and_then(|time| time.to_zoned(TimeZone::UTC).ok());
    time.map_or(Timestamp::UNIX_EPOCH, |time| time.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_version() {
        let version = Version::new("20260131_235959").unwrap();
        assert_eq!(time_of(&version).to_string(), "2026-01-31T23:59:59Z");
    }
}
