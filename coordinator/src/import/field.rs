//! The names of fields: CloudTail took them as they came, and what was wrong found nothing or ended the program.

use collector::activity::keep;
use proto::config::suggest::nearest;

/// The members of a CloudTrail event.
const OF_CLOUD_TRAIL: [&str; 29] = [
    "additionalEventData",
    "addendum",
    "apiVersion",
    "awsRegion",
    "edgeDeviceDetails",
    "errorCode",
    "errorMessage",
    "eventCategory",
    "eventID",
    "eventName",
    "eventSource",
    "eventTime",
    "eventType",
    "eventVersion",
    "managementEvent",
    "readOnly",
    "recipientAccountId",
    "requestID",
    "requestParameters",
    "resources",
    "responseElements",
    "serviceEventDetails",
    "sessionCredentialFromConsole",
    "sharedEventID",
    "sourceIPAddress",
    "tlsDetails",
    "userAgent",
    "userIdentity",
    "vpcEndpointId",
];

/// The members of an event of the Activity Log.
const OF_ACTIVITY_LOG: [&str; 25] = [
    "authorization",
    "caller",
    "category",
    "channels",
    "claims",
    "correlationId",
    "description",
    "eventDataId",
    "eventName",
    "eventTimestamp",
    "httpRequest",
    "id",
    "level",
    "operationId",
    "operationName",
    "properties",
    "resourceGroupName",
    "resourceId",
    "resourceProviderName",
    "resourceType",
    "status",
    "subStatus",
    "submissionTimestamp",
    "subscriptionId",
    "tenantId",
];

/// A field as our configuration has it, and what was wrong with its name, if anything.
pub(super) struct Field {
    pub(super) name: String,
    pub(super) note: Option<String>,
}

/// The field of CloudTrail that a name means.
pub(super) fn of_cloud_trail(name: &str) -> Field {
    let own = keep::CLOUD_TRAIL.own_fields;
    if own.contains(&name) {
        return Field { name: name.to_owned(), note: None };
    }
    of(name, &[own, &OF_CLOUD_TRAIL].concat(), "LookupEvents and CloudTrail's events have")
}

/// The field of the Activity Log that a name means.
pub(super) fn of_activity_log(name: &str) -> Field {
    let field = of(&camel(name), &OF_ACTIVITY_LOG, "the Activity Log's events have");
    let is_respelt = field.note.is_none() && field.name != name;
    let note = is_respelt.then(|| format!("`{name}` is `{}` in the Activity Log itself", field.name));
    Field { note: note.or(field.note), ..field }
}

fn of(name: &str, known: &[&str], have: &str) -> Field {
    let (first, rest) = name.split_at(name.find('.').unwrap_or(name.len()));
    if known.contains(&first) {
        return Field { name: name.to_owned(), note: None };
    }
    match nearest(first, known.iter().copied()) {
        Some(meant) => Field {
            name: format!("{meant}{rest}"),
            note: Some(format!("there is no field `{first}`: taken for `{meant}`")),
        },
        None => Field {
            name: name.to_owned(),
            note: Some(format!("`{first}` is no field that {have}; it is kept, and may find nothing")),
        },
    }
}

/// `operation_name` as `operationName`: CloudTail knew both.
fn camel(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    let mut is_start = false;
    for c in name.chars() {
        if c == '_' && !camel.is_empty() {
            is_start = true;
        } else if is_start {
            camel.extend(c.to_uppercase());
            is_start = false;
        } else {
            camel.push(c);
        }
    }
    camel
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(field: Field) -> (String, Option<String>) {
        (field.name, field.note)
    }

    #[test]
    fn names_are_kept_or_corrected() {
        let kept = |name: &str| (name.to_owned(), None);
        for name in ["EventName", "eventName", "userIdentity.arn", "AccessKeyId"] {
            assert_eq!(both(of_cloud_trail(name)), kept(name));
        }
        for name in ["operationName", "category", "authorization.action"] {
            assert_eq!(both(of_activity_log(name)), kept(name));
        }
        let said = |name: &str, note: &str| (name.to_owned(), Some(note.to_owned()));
        assert_eq!(
            both(of_cloud_trail("Eventname")),
            said("EventName", "there is no field `Eventname`: taken for `EventName`")
        );
        assert_eq!(
            both(of_cloud_trail("userIdentiy.arn")),
            said("userIdentity.arn", "there is no field `userIdentiy`: taken for `userIdentity`")
        );
        assert_eq!(
            both(of_activity_log("operation_name")),
            said("operationName", "`operation_name` is `operationName` in the Activity Log itself")
        );
        assert!(both(of_cloud_trail("colour")).1.unwrap().contains("is no field that LookupEvents"));
    }
}
