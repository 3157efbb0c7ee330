//! `MockCloud`: makes records out of nothing, to try Cloudmarker on.

use std::sync::Arc;

use async_trait::async_trait;
use proto::catalogue::{ParamError, PluginClass};
use proto::config::params;
use proto::coverage::{Coverage, State};
use proto::plan::Stage;
use proto::record::Common;
use proto::subject::Role;
use proto::unit::{ROOT, Unit};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::cloud::{Cloud, Done, WorkError};
use crate::emit::{Draft, Emitter};

/// The class.
pub const CLASS: PluginClass = PluginClass {
    name: "cloudmarker.clouds.mockcloud.MockCloud",
    roles: &[Role::Cloud],
    stage: Stage::Collector,
    exclusive: false,
    pool: Some("mock"),
    check: Some(&check),
};

/// How many records a unit makes.
const UNIT: u64 = 10_000;
const TYPE: &str = "mock";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Params {
    /// How many records.
    record_count: u64,
    /// The types that they take by turns.
    record_types: Vec<String>,
}

impl Default for Params {
    fn default() -> Self {
        Self { record_count: 10, record_types: vec!["foo".into(), "bar".into()] }
    }
}

fn read(value: &Value) -> Result<Params, Vec<ParamError>> {
    let read: Params = params::read(value)?;
    if read.record_types.is_empty() {
        let message = "found an empty list; at least one record type is needed".into();
        return Err(vec![ParamError { path: "record_types".into(), message }]);
    }
    Ok(read)
}

fn check(value: &Value) -> Result<(), Vec<ParamError>> {
    read(value).map(|_| ())
}

/// Builds the plugin of its parameters.
///
/// # Errors
/// Every parameter that is not as it should be.
pub fn build(value: &Value) -> Result<Arc<dyn Cloud>, Vec<ParamError>> {
    Ok(Arc::new(Mock(read(value)?)))
}

struct Mock(Params);

/// What a unit makes: the records from `first` on, below `end`.
#[derive(Serialize, Deserialize)]
struct Span {
    first: u64,
    end: u64,
}

#[derive(Serialize)]
struct Ext<'a> {
    cloud_type: &'static str,
    record_type: &'a str,
}

#[async_trait]
impl Cloud for Mock {
    async fn work(&self, unit: &Unit, out: &mut Emitter) -> Result<Done, WorkError> {
        if unit.id == ROOT {
            return self.spans(unit);
        }
        let span: Span = serde_json::from_str(unit.task.get())
            .map_err(|error| failed(format!("the unit {} is not one of MockCloud's: {error}", unit.id)))?;
        self.make(unit, &span, out).await?;
        let coverage = vec![Coverage::complete("", TYPE, span.end - span.first)];
        Ok(Done { coverage, ..Done::default() })
    }
}

impl Mock {
    fn spans(&self, unit: &Unit) -> Result<Done, WorkError> {
        let count = self.0.record_count;
        if count == 0 {
            return Ok(Done { coverage: vec![Coverage::complete("", TYPE, 0)], ..Done::default() });
        }
        let firsts = (0..count).step_by(UNIT as usize);
        let children = firsts.map(|first| {
            let span = Span { first, end: (first + UNIT).min(count) };
            let task = serde_json::value::to_raw_value(&span).map_err(|error| failed(error.to_string()))?;
            Ok(unit.child(format!("mock/{first}"), "", TYPE, task))
        });
        Ok(Done { children: children.collect::<Result<_, WorkError>>()?, ..Done::default() })
    }

    async fn make(&self, unit: &Unit, span: &Span, out: &mut Emitter) -> Result<(), WorkError> {
        let com = Common { cloud_type: TYPE, record_type: Some(TYPE), reference: None };
        for (number, record_type) in (span.first..span.end)
            .zip(self.0.record_types.iter().cycle().skip((span.first % self.0.record_types.len() as u64) as usize))
        {
            let raw =
                RawValue::from_string(format!("{{\"data\":{number}}}")).map_err(|error| failed(error.to_string()))?;
            // Each plugin of this class is a cloud of its own: its key is a part of its resources' ids.
            let key = format!("{}/{number}", unit.plugin);
            let ext = Ext { cloud_type: TYPE, record_type };
            out.emit(Draft { record_type, key: &key, raw: Some(&raw), ext: &ext, com: &com }).await?;
        }
        Ok(())
    }
}

fn failed(reason: String) -> WorkError {
    WorkError::NotRead { state: State::Failed, reason }
}
