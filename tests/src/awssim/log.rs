//! The events of a region of an account: made when they are asked for, so that there may be millions.

use serde_json::{Value, json};

/// What the events are, by turns: the service, the call, who, the type of the resource.
const CALLS: [(&str, &str, bool, &str); 10] = [
    ("ec2", "DescribeInstances", true, "AWS::EC2::Instance"),
    ("iam", "CreateUser", false, "AWS::IAM::User"),
    ("sts", "AssumeRole", true, "AWS::IAM::Role"),
    ("iam", "CreateAccessKey", false, "AWS::IAM::AccessKey"),
    ("ec2", "AuthorizeSecurityGroupIngress", false, "AWS::EC2::SecurityGroup"),
    ("s3", "PutBucketPolicy", false, "AWS::S3::Bucket"),
    ("cloudtrail", "StopLogging", false, "AWS::CloudTrail::Trail"),
    ("ec2", "RunInstances", false, "AWS::EC2::Instance"),
    ("kms", "Decrypt", true, "AWS::KMS::Key"),
    ("iam", "DeleteUser", false, "AWS::IAM::User"),
];

/// An event that came in late, or out of turn.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// When it happened, in seconds since 1970.
    pub time: i64,
    /// The call: `CreateUser`.
    pub name: String,
    /// A number of its own.
    pub number: u64,
}

/// The log of a region of an account: `count` events, evenly over the time from `from` to `until`.
#[derive(Debug, Clone, Default)]
pub(super) struct Log {
    pub(super) from: i64,
    pub(super) until: i64,
    pub(super) count: u64,
    pub(super) arrivals: Vec<Arrival>,
}

/// A place in a log: newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Arrival(usize),
    Regular(u64),
}

impl Log {
    fn time(&self, number: u64) -> i64 {
        let span = i128::from(self.until - self.from);
        self.from + (span * i128::from(number) / i128::from(self.count.max(1))) as i64
    }

    /// The number of the first regular event at `time` or later.
    fn first_at(&self, time: i64) -> u64 {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.time(middle) < time { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// The entries from `start` to `end`, both included: those that came out of turn, then the others, newest first.
    pub(super) fn between(&self, start: i64, end: i64) -> impl Iterator<Item = Entry> {
        let mut arrivals: Vec<usize> =
            (0..self.arrivals.len()).filter(|at| (start..=end).contains(&self.arrivals[*at].time)).collect();
        arrivals.sort_by_key(|at| std::cmp::Reverse(self.arrivals[*at].time));
        let (first, last) = (self.first_at(start), self.first_at(end.saturating_add(1)));
        arrivals.into_iter().map(Entry::Arrival).chain((first..last.max(first)).rev().map(Entry::Regular))
    }

    /// An event as LookupEvents answers it.
    pub(super) fn event(&self, entry: Entry, account: &str, region: &str) -> Value {
        let (time, number, arrival) = match entry {
            Entry::Regular(number) => (self.time(number), number, None),
            Entry::Arrival(at) => {
                let arrival = &self.arrivals[at];
                (arrival.time, arrival.number, Some(arrival))
            }
        };
        let (service, name, read_only, kind) = CALLS[(number % CALLS.len() as u64) as usize];
        let (service, name) = arrival.map_or((service, name), |arrival| ("iam", arrival.name.as_str()));
        let series = if arrival.is_some() { 'a' } else { '0' };
        let id = event_id(series, account, region, number);
        let user = if number.is_multiple_of(7) { "admin-user".to_owned() } else { format!("user{}", number % 20) };
        let when = jiff::Timestamp::from_second(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string();
        let source = format!("{service}.amazonaws.com");
        let resource = format!("{}-{number}", name.to_lowercase());
        let log = json!({
            "eventVersion": "1.09",
            "userIdentity": {
                "type": "IAMUser", "principalId": format!("AIDA{account}"),
                "arn": format!("arn:aws:iam::{account}:user/{user}"), "accountId": account,
                "accessKeyId": "AKIAIOSFODNN7EXAMPLE", "userName": user,
                "sessionContext": {"attributes": {"creationDate": when, "mfaAuthenticated": "false"}},
            },
            "eventTime": when, "eventSource": source, "eventName": name, "awsRegion": region,
            "sourceIPAddress": format!("203.0.113.{}", number % 250),
            "userAgent": "aws-cli/2.17.0 md/awscrt#0.20.11 ua/2.0 os/linux#6.1 md/arch#x86_64 lang/python#3.11.8",
            "requestParameters": {"userName": resource, "path": "/", "tags": [{"key": "team", "value": "payments"}]},
            "responseElements": Value::Null,
            "requestID": format!("req-{id}"), "eventID": id, "readOnly": read_only, "eventType": "AwsApiCall",
            "managementEvent": true, "recipientAccountId": account, "eventCategory": "Management",
            "tlsDetails": {"tlsVersion": "TLSv1.3", "cipherSuite": "TLS_AES_128_GCM_SHA256",
                "clientProvidedHostHeader": format!("{service}.{region}.amazonaws.com")},
        });
        json!({
            "EventId": id, "EventName": name, "ReadOnly": read_only.to_string(),
            "AccessKeyId": "AKIAIOSFODNN7EXAMPLE", "EventTime": time, "EventSource": source, "Username": user,
            "Resources": [{"ResourceType": kind, "ResourceName": resource}], "CloudTrailEvent": log.to_string(),
        })
    }

    /// Whether an event has the value of a lookup attribute.
    pub(super) fn has(event: &Value, key: &str, value: &str) -> bool {
        match key {
            "ResourceType" | "ResourceName" => {
                let resources = event["Resources"].as_array();
                resources.is_some_and(|resources| resources.iter().any(|resource| resource[key] == value))
            }
            key => event[key] == value,
        }
    }
}

/// The id of an event. `series` tells those that came out of turn.
pub(super) fn event_id(series: char, account: &str, region: &str, number: u64) -> String {
    let place = format!("{account}/{region}");
    let digest = ring::digest::digest(&ring::digest::SHA256, place.as_bytes());
    let place = super::signature::hex(&digest.as_ref()[..8]);
    format!("{}-{}-4{}-{series}000-{number:012x}", &place[..8], &place[8..12], &place[12..15])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_its_events_newest_first() {
        let mut log = Log { from: 0, until: 1000, count: 10, arrivals: vec![] };
        log.arrivals.push(Arrival { time: 350, name: "X".into(), number: 1 });
        let between = |start, end| log.between(start, end).collect::<Vec<_>>();
        assert_eq!(between(200, 400), [Entry::Arrival(0), Entry::Regular(4), Entry::Regular(3), Entry::Regular(2)]);
        assert_eq!(between(401, 499), []);
        assert_eq!(between(-5, 5000).len(), 11);
        let ids: std::collections::HashSet<String> = between(-5, 5000)
            .into_iter()
            .map(|entry| log.event(entry, "111111111111", "us-east-1")["EventId"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(ids.len(), 11);
    }
}
