//! Makes records of the events of CloudTrail.
//!
//! Reference: <https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html>.

use std::borrow::Cow;

use proto::record::Text;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::activity::TYPE;
use crate::activity::form::{Activity, Actor, Kind, Outcome, Reader, Resource, Values, time};
use crate::fields::Fields;

/// The cloud, in `ext` and in `com`.
const CLOUD: &str = "aws";

/// An event, as LookupEvents answers: the log event is a text in it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Envelope<'a> {
    #[serde(borrow, default)]
    event_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    event_name: Option<Text<'a>>,
    #[serde(borrow, default)]
    read_only: Option<Text<'a>>,
    #[serde(borrow, default)]
    access_key_id: Option<Text<'a>>,
    #[serde(default)]
    event_time: Option<f64>,
    #[serde(borrow, default)]
    event_source: Option<Text<'a>>,
    #[serde(borrow, default)]
    username: Option<Text<'a>>,
    #[serde(borrow, default)]
    resources: Option<Vec<Named<'a>>>,
    #[serde(borrow, default)]
    cloud_trail_event: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Named<'a> {
    #[serde(borrow, default)]
    resource_type: Option<Text<'a>>,
    #[serde(borrow, default)]
    resource_name: Option<Text<'a>>,
}

impl<'a> Envelope<'a> {
    /// Reads an item of the answer.
    pub(super) fn read(raw: &'a RawValue) -> Result<Self, String> {
        serde_json::from_str(raw.get()).map_err(|error| format!("an event cannot be understood: {error}"))
    }

    /// The log event as it is; the envelope where there is none.
    pub(super) fn log(&self, raw: &RawValue) -> Result<Box<RawValue>, String> {
        match &self.cloud_trail_event {
            None => Ok(raw.to_owned()),
            Some(text) => RawValue::from_string(text.to_string()).map_err(|error| {
                let id = self.event_id.as_deref().unwrap_or("without an id");
                format!("the log event {id} is not JSON: {error}")
            }),
        }
    }

    /// The values of the envelope's own fields.
    pub(super) fn own(&self) -> Vec<(&'static str, &str)> {
        let fields = [
            ("EventId", &self.event_id),
            ("EventName", &self.event_name),
            ("ReadOnly", &self.read_only),
            ("Username", &self.username),
            ("EventSource", &self.event_source),
            ("AccessKeyId", &self.access_key_id),
        ];
        let resources = self.resources.iter().flatten().flat_map(|resource| {
            [("ResourceType", &resource.resource_type), ("ResourceName", &resource.resource_name)]
        });
        fields.into_iter().chain(resources).filter_map(|(name, value)| Some((name, value.as_deref()?))).collect()
    }
}

/// The members of a log event that a record's form is made of.
#[derive(Debug)]
pub(super) struct EventReader(Reader<23>);

const EVENT_ID: usize = 0;
const EVENT_TIME: usize = 1;
const EVENT_NAME: usize = 2;
const EVENT_SOURCE: usize = 3;
const EVENT_TYPE: usize = 4;
const EVENT_CATEGORY: usize = 5;
const ERROR_CODE: usize = 6;
const ADDRESS: usize = 7;
const USER_AGENT: usize = 8;
const READ_ONLY: usize = 9;
const CONSOLE_LOGIN: usize = 10;
const KIND: usize = 11;
const PRINCIPAL: usize = 12;
const ARN: usize = 13;
const USER_NAME: usize = 14;
const INVOKED_BY: usize = 15;
const ROLE_NAME: usize = 16;
const RESOURCE_ARN: usize = 17;
const RESOURCE_TYPE: usize = 18;
const REGION: usize = 19;
const RECIPIENT: usize = 20;
const ACCESS_KEY: usize = 21;
const MFA: usize = 22;

/// In the order of the constants.
const PATHS: [&[&str]; 23] = [
    &["eventID"],
    &["eventTime"],
    &["eventName"],
    &["eventSource"],
    &["eventType"],
    &["eventCategory"],
    &["errorCode"],
    &["sourceIPAddress"],
    &["userAgent"],
    &["readOnly"],
    &["responseElements", "ConsoleLogin"],
    &["userIdentity", "type"],
    &["userIdentity", "principalId"],
    &["userIdentity", "arn"],
    &["userIdentity", "userName"],
    &["userIdentity", "invokedBy"],
    &["userIdentity", "sessionContext", "sessionIssuer", "userName"],
    &["resources", "ARN"],
    &["resources", "type"],
    &["awsRegion"],
    &["recipientAccountId"],
    &["userIdentity", "accessKeyId"],
    &["additionalEventData", "MFAUsed"],
];

/// A log event that was read.
pub(super) struct Read<'a> {
    values: Values<'a>,
    envelope: &'a Envelope<'a>,
}

impl EventReader {
    pub(super) fn new() -> Self {
        Self(Reader::new(PATHS))
    }

    pub(super) fn read<'a>(&self, log: &'a RawValue, envelope: &'a Envelope<'a>) -> Result<Read<'a>, String> {
        let values = self.0.read(log.get()).map_err(|error| format!("a log event cannot be understood: {error}"))?;
        Ok(Read { values, envelope })
    }
}

impl Read<'_> {
    fn get(&self, at: usize) -> Option<&str> {
        self.values.get(at)
    }

    /// The log's own id of the event.
    pub(super) fn id(&self) -> Option<&str> {
        self.envelope.event_id.as_deref().or_else(|| self.get(EVENT_ID))
    }

    /// `ext` of the record.
    pub(super) fn ext<'b>(&'b self, account: &'b str, region: &'b str) -> Fields<'b> {
        let envelope = self.envelope;
        let read_only =
            self.get(READ_ONLY).or(envelope.read_only.as_deref()).and_then(|text| text.parse::<bool>().ok());
        let resources = envelope.resources.iter().flatten().map(|resource| {
            Fields::new()
                .with("type", resource.resource_type.as_deref())
                .with("name", resource.resource_name.as_deref())
        });
        Fields::new()
            .with("cloud_type", CLOUD)
            .with("record_type", TYPE)
            .with("account_id", account)
            .with("region", region)
            .with("event_name", self.get(EVENT_NAME).or(envelope.event_name.as_deref()))
            .with("event_source", self.get(EVENT_SOURCE).or(envelope.event_source.as_deref()))
            .with("event_type", self.get(EVENT_TYPE))
            .with("event_category", self.get(EVENT_CATEGORY))
            .with("read_only", read_only)
            .with("access_key_id", self.get(ACCESS_KEY).or(envelope.access_key_id.as_deref()))
            .with("mfa_used", self.get(MFA))
            .with("resources", resources.collect::<Vec<_>>())
    }

    /// `com` of the record.
    pub(super) fn com<'b>(
        &'b self,
        id: &'b str,
        account: &'b str,
        region: &'b str,
        rules: &'b [&'b str],
    ) -> Activity<'b> {
        let envelope = self.envelope;
        let resource = envelope.resources.iter().flatten().next();
        Activity {
            time: self.get(EVENT_TIME).and_then(time).or_else(|| {
                // Seconds since 1970, perhaps with a fraction.
                let second = envelope.event_time.filter(|second| second.is_finite())?;
                #[expect(clippy::cast_possible_truncation, reason = "it is a time")]
                let second = second as i64;
                Some(jiff::Timestamp::from_second(second).ok()?.to_string())
            }),
            actor: self.actor(),
            action: self.action(),
            resource: Resource {
                id: self.get(RESOURCE_ARN).or_else(|| resource.and_then(|resource| resource.resource_name.as_deref())),
                kind: self
                    .get(RESOURCE_TYPE)
                    .or_else(|| resource.and_then(|resource| resource.resource_type.as_deref())),
            },
            outcome: Some(self.outcome()),
            error: self.get(ERROR_CODE),
            account: Some(self.get(RECIPIENT).unwrap_or(account)),
            region: Some(self.get(REGION).unwrap_or(region)),
            ..Activity::new(CLOUD, id, rules)
        }
    }

    fn actor(&self) -> Actor<'_> {
        let kind = self.get(KIND);
        Actor {
            name: self
                .get(USER_NAME)
                .or(self.envelope.username.as_deref())
                .or_else(|| self.get(ROLE_NAME))
                .or_else(|| self.get(INVOKED_BY))
                .or_else(|| kind.filter(|kind| *kind == "Root").map(|_| "root")),
            id: self.get(ARN).or_else(|| self.get(PRINCIPAL)),
            kind: match kind {
                Some("Root") => Some(Kind::Root),
                Some("IAMUser" | "IdentityCenterUser" | "Directory" | "Unknown") => Some(Kind::User),
                Some("AssumedRole" | "Role") => Some(Kind::Role),
                Some("FederatedUser" | "SAMLUser" | "WebIdentityUser") => Some(Kind::Federated),
                Some("AWSAccount") => Some(Kind::Account),
                Some("AWSService") => Some(Kind::Service),
                _ => None,
            },
            address: self.get(ADDRESS),
            user_agent: self.get(USER_AGENT),
        }
    }

    /// `iam:CreateUser`: the service as its host is called, and the call.
    fn action(&self) -> Option<String> {
        let name = self.get(EVENT_NAME).or(self.envelope.event_name.as_deref())?;
        let source = self.get(EVENT_SOURCE).or(self.envelope.event_source.as_deref());
        let service: Cow<'_, str> = match source {
            Some(source) => source.strip_suffix(".amazonaws.com").unwrap_or(source).into(),
            None => return Some(name.to_owned()),
        };
        Some(format!("{service}:{name}"))
    }

    /// A call without an error was done; a sign-in tells in its answer.
    fn outcome(&self) -> Outcome {
        if self.get(ERROR_CODE).is_some() || self.get(CONSOLE_LOGIN) == Some("Failure") {
            Outcome::Failure
        } else {
            Outcome::Success
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn com_and_ext(envelope: Value) -> (Value, Value) {
        let raw = RawValue::from_string(envelope.to_string()).unwrap();
        let envelope = Envelope::read(&raw).unwrap();
        let log = envelope.log(&raw).unwrap();
        let reader = EventReader::new();
        let read = reader.read(&log, &envelope).unwrap();
        let com = serde_json::to_value(read.com(read.id().unwrap(), "111111111111", "us-east-1", &["r"])).unwrap();
        (com, serde_json::to_value(read.ext("111111111111", "us-east-1")).unwrap())
    }

    #[test]
    fn an_event_has_the_form_of_all_logs() {
        let log = json!({
            "eventVersion": "1.09",
            "userIdentity": {"type": "AssumedRole", "principalId": "AROA:ann", "accountId": "111111111111",
                "arn": "arn:aws:sts::111111111111:assumed-role/admin/ann", "accessKeyId": "ASIA",
                "sessionContext": {"sessionIssuer": {"type": "Role", "userName": "admin"}}},
            "eventTime": "2026-01-02T03:04:05Z", "eventSource": "iam.amazonaws.com", "eventName": "CreateUser",
            "awsRegion": "us-east-1", "sourceIPAddress": "203.0.113.5", "userAgent": "aws-cli/2",
            "errorCode": "AccessDenied", "eventID": "11111111-2222-3333-4444-555555555555", "readOnly": false,
            "eventType": "AwsApiCall", "recipientAccountId": "111111111111", "eventCategory": "Management",
        });
        let (com, ext) = com_and_ext(json!({
            "EventId": "11111111-2222-3333-4444-555555555555", "EventName": "CreateUser", "ReadOnly": "false",
            "EventTime": 1_767_323_045.0, "EventSource": "iam.amazonaws.com", "Username": "ann",
            "Resources": [{"ResourceType": "AWS::IAM::User", "ResourceName": "bob"}], "CloudTrailEvent": log.to_string(),
        }));
        let expected = json!({
            "cloud_type": "aws", "record_type": "cloud_activity",
            "reference": "11111111-2222-3333-4444-555555555555",
            "event_id": "11111111-2222-3333-4444-555555555555",
            "time": "2026-01-02T03:04:05Z",
            "actor": {"name": "ann", "id": "arn:aws:sts::111111111111:assumed-role/admin/ann", "kind": "role",
                "address": "203.0.113.5", "user_agent": "aws-cli/2"},
            "action": "iam:CreateUser",
            "resource": {"id": "bob", "type": "AWS::IAM::User"},
            "outcome": "failure", "error": "AccessDenied",
            "account": "111111111111", "region": "us-east-1", "rules": ["r"],
        });
        assert_eq!(com, expected);
        assert_eq!(ext["read_only"], json!(false));
        assert_eq!(ext["resources"], json!([{"type": "AWS::IAM::User", "name": "bob"}]));
        assert_eq!((&ext["event_name"], &ext["access_key_id"]), (&json!("CreateUser"), &json!("ASIA")));
    }

    #[test]
    fn a_sign_in_tells_in_its_answer_how_it_ended() {
        let login = |how: &str| {
            let log = json!({"userIdentity": {"type": "Root", "arn": "arn:aws:iam::1:root"}, "eventName": "ConsoleLogin",
                "eventSource": "signin.amazonaws.com", "responseElements": {"ConsoleLogin": how}});
            com_and_ext(json!({"EventId": "e", "CloudTrailEvent": log.to_string()})).0
        };
        assert_eq!(login("Failure")["outcome"], "failure");
        let com = login("Success");
        assert_eq!(
            (&com["outcome"], &com["actor"]["kind"], &com["actor"]["name"]),
            (&json!("success"), &json!("root"), &json!("root"))
        );
        assert_eq!(com["account"], "111111111111");
    }

    #[test]
    fn an_envelope_alone_is_the_event() {
        let (com, ext) = com_and_ext(json!({"EventId": "e", "EventName": "X", "EventTime": 1_767_323_045.5}));
        assert_eq!((&com["action"], &com["time"]), (&json!("X"), &json!("2026-01-02T03:04:05Z")));
        assert_eq!((&com["actor"]["kind"], &ext["read_only"]), (&Value::Null, &Value::Null));
        let raw = RawValue::from_string(json!({"EventId": "e", "CloudTrailEvent": "{"}).to_string()).unwrap();
        assert!(Envelope::read(&raw).unwrap().log(&raw).unwrap_err().contains("the log event e is not JSON"));
    }
}
