//! MockEvent: fires on every n-th record, to try out and measure a pipeline.

use std::fmt;

use proto::catalogue::{ParamError, PluginClass};
use proto::config::params;
use proto::plan::Stage;
use proto::subject::Role;
use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Number, Value};

use crate::plugin::{EventDraft, EventPlugin, Outcome, Record};

/// The class.
pub const CLASS: PluginClass = PluginClass {
    name: "cloudmarker.events.mockevent.MockEvent",
    roles: &[Role::Event],
    stage: Stage::Evaluator,
    exclusive: false,
    pool: None,
    check: Some(check),
};

/// Checks parameters.
///
/// # Errors
/// All that is wrong with them.
pub fn check(params: &Value) -> Result<(), Vec<ParamError>> {
    params::read::<MockEvent>(params).map(drop)
}

/// Builds the plugin of its parameters.
///
/// # Errors
/// All that is wrong with them.
pub fn build(params: &Value) -> Result<Box<dyn EventPlugin>, Vec<ParamError>> {
    Ok(Box::new(params::read::<MockEvent>(params)?))
}

/// The plugin, which is its parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MockEvent {
    /// The records of which `raw.data` is a multiple of this number give an event.
    #[serde(default)]
    n: Divisor,
}

impl EventPlugin for MockEvent {
    fn evaluate(&self, record: &Record<'_>, events: &mut Vec<EventDraft>) -> Outcome {
        let data = match data(record) {
            Ok(data) => data,
            Err(reason) => return Outcome::Unknown(reason),
        };
        if !self.n.divides(&data) {
            return Outcome::Pass;
        }
        events.push(draft(data, self.n.number.clone()));
        Outcome::Fail
    }
}

fn draft(data: Number, n: Number) -> EventDraft {
    EventDraft {
        event_type: "mock_event",
        sub_key: String::new(),
        description: format!("{data} is a multiple of {n}."),
        recommendation: format!("Divide {data} by {n} and confirm that the remainder is 0."),
        ext: vec![("data", data.into()), ("n", n.into())],
        com: Vec::new(),
        with_source: false,
    }
}

/// `raw.data`, which is 1 for a record without.
fn data(record: &Record<'_>) -> Result<Number, String> {
    let Some(raw) = record.view.raw else { return Ok(1.into()) };
    if !raw.get().starts_with('{') {
        return Err("raw is not an object".into()); // a list would be taken for the struct's fields
    }
    let raw: Raw = serde_json::from_str(raw.get()).map_err(|error| format!("raw cannot be read: {error}"))?;
    match raw.data {
        Data::Number(data) => Ok(data),
        Data::Other(found) => Err(format!("raw.data is {found}; a number is needed")),
    }
}

/// What the plugin reads of `raw`; all else is skipped unparsed.
#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    data: Data,
}

enum Data {
    Number(Number),
    /// Something else, by its name for people.
    Other(&'static str),
}

impl Default for Data {
    fn default() -> Self {
        Self::Number(1.into())
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DataVisitor)
    }
}

struct DataVisitor;

impl<'de> Visitor<'de> for DataVisitor {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_u64<E>(self, number: u64) -> Result<Data, E> {
        Ok(Data::Number(number.into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Data, E> {
        Ok(Data::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Data, E> {
        Ok(Number::from_f64(number).map_or(Data::Other("not finite"), Data::Number))
    }

    fn visit_unit<E>(self) -> Result<Data, E> {
        Ok(Data::Other("null"))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Data, E> {
        Ok(Data::Other("a boolean"))
    }

    fn visit_str<E>(self, _: &str) -> Result<Data, E> {
        Ok(Data::Other("a text"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Data, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Data::Other("a list"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Data, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Data::Other("an object"))
    }
}

/// A number other than 0.
#[derive(Debug)]
struct Divisor {
    /// The number as it was written.
    number: Number,
}

impl Divisor {
    fn divides(&self, data: &Number) -> bool {
        match (data.as_i128(), self.number.as_i128()) {
            (Some(data), Some(n)) => data.checked_rem(n) == Some(0),
            // Exact, whatever their sizes, as far as they can be written as such numbers.
            _ => data.as_f64().zip(self.number.as_f64()).is_some_and(|(data, n)| data % n == 0.0),
        }
    }
}

impl Default for Divisor {
    fn default() -> Self {
        Self { number: 3.into() }
    }
}

impl<'de> Deserialize<'de> for Divisor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = Number::deserialize(deserializer)?;
        if number.as_f64() == Some(0.0) {
            return Err(D::Error::custom("invalid value: 0, expected a number other than 0"));
        }
        Ok(Self { number })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn outcome(params: &Value, record: &str) -> (Outcome, Vec<EventDraft>) {
        let mut events = Vec::new();
        let plugin = build(params).unwrap_or_else(|errors| panic!("{params}: {errors:?}"));
        (plugin.evaluate(&Record::parse(record.as_bytes()).unwrap(), &mut events), events)
    }

    #[test]
    fn multiples_fire_and_say_so() {
        let (outcome, events) = outcome(&Value::Null, r#"{"raw":{"x":[1],"data":6}}"#);
        assert_eq!(outcome, Outcome::Fail);
        assert_eq!(
            events,
            [EventDraft {
                event_type: "mock_event",
                sub_key: String::new(),
                ext: vec![("data", json!(6)), ("n", json!(3))],
                com: vec![],
                with_source: false,
                description: "6 is a multiple of 3.".into(),
                recommendation: "Divide 6 by 3 and confirm that the remainder is 0.".into(),
            }]
        );
    }

    #[test]
    fn any_numbers_are_divided() {
        let cases = [
            ("3", "0", true),
            ("3", "-3", true),
            ("3", "4", false),
            ("-3", "9", true),
            ("3", "9007199254740993", true),
            ("3", "9007199254740992", false),
            ("5", "18446744073709551615", true),
            ("-1", "-9223372036854775808", true),
            ("2", "4.0", true),
            ("3", "4.5", false),
            ("1.5", "4.5", true),
            ("2.5", "5", true),
            ("2.5", "6", false),
            ("3", "1e22", false),
        ];
        for (n, data, fires) in cases {
            let params: Value = serde_json::from_str(&format!(r#"{{"n":{n}}}"#)).unwrap();
            let (outcome, events) = outcome(&params, &format!(r#"{{"raw":{{"data":{data}}}}}"#));
            assert_eq!(outcome == Outcome::Fail, fires, "{data} % {n}");
            assert_eq!(events.len(), usize::from(fires));
        }
    }

    #[test]
    fn without_data_it_is_1() {
        for record in [r"{}", r#"{"raw":null}"#, r#"{"raw":{}}"#, r#"{"raw":{"Data":3}}"#] {
            assert_eq!(outcome(&json!({}), record).0, Outcome::Pass, "{record}");
            let (outcome, events) = outcome(&json!({"n": 1}), record);
            assert_eq!(outcome, Outcome::Fail, "{record}");
            assert_eq!(events[0].ext, [("data", json!(1)), ("n", json!(1))]);
        }
    }

    #[test]
    fn other_data_is_unknown_and_the_field_named() {
        for (raw, reason) in [
            (r#"{"data":null}"#, "raw.data is null; a number is needed"),
            (r#"{"data":"6"}"#, "raw.data is a text; a number is needed"),
            (r#"{"data":"\n"}"#, "raw.data is a text; a number is needed"),
            (r#"{"data":true}"#, "raw.data is a boolean; a number is needed"),
            (r#"{"data":[3,[4]]}"#, "raw.data is a list; a number is needed"),
            (r#"{"data":{"a":{}}}"#, "raw.data is an object; a number is needed"),
            ("[3]", "raw is not an object"),
            ("3", "raw is not an object"),
        ] {
            let (outcome, events) = outcome(&json!({}), &format!(r#"{{"raw": {raw}}}"#));
            assert_eq!(outcome, Outcome::Unknown(reason.into()), "{raw}");
            assert!(events.is_empty());
        }
    }

    #[test]
    fn wrong_parameters_are_refused() {
        for params in
            [json!({"n": 0}), json!({"n": 0.0}), json!({"n": "3"}), json!({"n": [3]}), json!({"m": 3}), json!(3)]
        {
            assert_eq!(check(&params).unwrap_err().len(), 1, "{params}");
            assert!(build(&params).is_err());
        }
        let errors = check(&json!({"n": 0})).unwrap_err();
        assert_eq!(errors[0].path, "n");
        assert_eq!(errors[0].message, "found the number 0; a number other than 0 is expected");
    }
}
