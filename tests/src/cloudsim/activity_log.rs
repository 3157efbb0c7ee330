//! The Activity Log of subscriptions: events made when they are asked for, and some that came in out of turn.
//!
//! Reference: <https://learn.microsoft.com/rest/api/monitor/activity-logs/list>.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::arm::answer_json;
use super::pages::SkipTokens;
use super::simulation::Simulation;

/// What the events are, by turns: the operation as somebody spells it, and how it ended.
const OPERATIONS: [(&str, &str); 6] = [
    ("Microsoft.Compute/virtualMachines/write", "Succeeded"),
    ("Microsoft.Storage/storageAccounts/listKeys/action", "Succeeded"),
    ("MICROSOFT.COMPUTE/virtualMachines/delete", "Succeeded"),
    ("Microsoft.Network/networkInterfaces/write", "Started"),
    ("Microsoft.KeyVault/vaults/delete", "Failed"),
    ("Microsoft.Resources/subscriptions/resourcegroups/write", "Succeeded"),
];

/// An event that came in late, or out of turn.
#[derive(Debug, Clone)]
pub struct LateEvent {
    /// When it happened, in seconds since 1970.
    pub time: i64,
    /// The operation.
    pub operation: String,
}

/// The log: `count` events in each subscription, evenly over the time from `from` to `until`.
#[derive(Debug, Clone, Default)]
pub(super) struct ActivityLog {
    pub(super) from: i64,
    pub(super) until: i64,
    pub(super) count: u64,
    /// By subscription.
    pub(super) late: BTreeMap<usize, Vec<LateEvent>>,
}

impl ActivityLog {
    fn time(&self, number: u64) -> i64 {
        let span = i128::from(self.until - self.from);
        self.from + (span * i128::from(number) / i128::from(self.count.max(1))) as i64
    }

    fn first_at(&self, time: i64) -> u64 {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.time(middle) < time { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// The events from `start` to `end`, both included: those that came late, then the others, newest first.
    fn between(
        &self,
        simulation: &Simulation,
        subscription: usize,
        start: i64,
        end: i64,
    ) -> impl Iterator<Item = Value> {
        let id = simulation.estate.subscription_id(subscription);
        let late = self.late.get(&subscription).into_iter().flatten().enumerate();
        let late: Vec<Value> = late
            .filter(|(_, event)| (start..=end).contains(&event.time))
            .map(|(number, event)| self.event(&id, 'a', number as u64, event.time, &event.operation, "Succeeded"))
            .collect();
        let (first, last) = (self.first_at(start), self.first_at(end.saturating_add(1)));
        let regular = (first..last.max(first)).rev().map(move |number| {
            let (operation, status) = OPERATIONS[(number % OPERATIONS.len() as u64) as usize];
            self.event(&id, '0', number, self.time(number), operation, status)
        });
        late.into_iter().chain(regular)
    }

    fn event(&self, id: &str, series: char, number: u64, time: i64, operation: &str, status: &str) -> Value {
        let when = jiff::Timestamp::from_second(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let resource =
            format!("/subscriptions/{id}/resourceGroups/rg1/providers/Microsoft.Compute/virtualMachines/vm{number}");
        let value = |text: &str| json!({"value": text, "localizedValue": text});
        json!({
            "authorization": {"action": operation, "scope": resource},
            "caller": "ann@contoso.example",
            "channels": "Operation",
            "claims": {"ipaddr": "203.0.113.5", "idtyp": "user",
                "http://schemas.microsoft.com/identity/claims/objectidentifier": "77777777-0000-4000-8000-000000000001"},
            "correlationId": format!("{}-0000-4000-8000-{number:012x}", &id[..8]),
            "description": "",
            "eventDataId": format!("{}-{series}000-4000-8000-{number:012x}", &id[..8]),
            "eventName": value("EndRequest"), "category": value("Administrative"),
            "httpRequest": {"clientRequestId": "c", "clientIpAddress": "203.0.113.5", "method": "PUT"},
            "id": format!("{resource}/events/{number}/ticks/{time}"),
            "level": "Informational", "resourceGroupName": "rg1", "resourceProviderName": value("Microsoft.Compute"),
            "resourceId": resource, "resourceType": value("Microsoft.Compute/virtualMachines"),
            "operationId": format!("op{number}"), "operationName": value(operation),
            "properties": {"statusCode": "OK"}, "status": value(status), "subStatus": value(""),
            "eventTimestamp": when.to_string(), "submissionTimestamp": when.to_string(),
            "subscriptionId": id, "tenantId": "t",
        })
    }

    /// All events of a subscription.
    pub(super) fn all(&self, simulation: &Simulation, subscription: usize) -> Vec<Value> {
        self.between(simulation, subscription, i64::MIN / 4, i64::MAX / 4).collect()
    }
}

/// Answers a page of the log.
pub(super) fn answer(simulation: &Simulation, subscription: usize, request: &Parts, cut_off: bool) -> Response {
    let query: BTreeMap<String, String> =
        form_urlencoded::parse(request.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let filter = query.get("$filter").map_or("", String::as_str);
    let Some((start, end)) = times(filter) else {
        return refused("BadRequest", "The '$filter' clause is missing or cannot be understood.");
    };
    if start < jiff::Timestamp::now().as_second() - 90 * 86_400 {
        return refused("BadRequest", "The start time cannot be more than 90 days in the past.");
    }
    let tokens = SkipTokens::of(0xac71, &[subscription as u64, start.unsigned_abs(), end.unsigned_abs()]);
    let skip = match query.get("$skiptoken") {
        None => 0,
        Some(token) => match tokens.decode(token) {
            Some(skip) => skip,
            None => return refused("BadRequest", "The skip token is not valid."),
        },
    };
    let log = simulation.activity.lock();
    let mut rest = log.between(simulation, subscription, start, end).skip(skip);
    let value: Vec<Value> = rest.by_ref().take(simulation.page_size).collect();
    let mut page = json!({"value": value});
    if rest.next().is_some() {
        let token = tokens.encode(skip + simulation.page_size);
        let filter: String = form_urlencoded::byte_serialize(filter.as_bytes()).collect();
        page["nextLink"] = format!(
            "{}{}?api-version=2015-04-01&$filter={filter}&$skiptoken={token}",
            simulation.origin(&request.headers),
            request.uri.path()
        )
        .into();
    }
    drop(rest);
    drop(log);
    super::arm::count_page(simulation, cut_off);
    answer_json(page.to_string().into_bytes(), cut_off)
}

/// The two times of `eventTimestamp ge '…' and eventTimestamp le '…'`; all else is refused.
fn times(filter: &str) -> Option<(i64, i64)> {
    let (start, end) = filter.split_once(" and ")?;
    let time = |part: &str, operator: &str| {
        let text = part.trim().strip_prefix("eventTimestamp ")?.strip_prefix(operator)?.trim();
        let text = text.strip_prefix('\'')?.strip_suffix('\'')?;
        let with_zone = if text.ends_with('Z') { text.to_owned() } else { format!("{text}Z") };
        Some(with_zone.parse::<jiff::Timestamp>().ok()?.as_second())
    };
    Some((time(start, "ge")?, time(end, "le")?))
}

/// This service leaves out the outer object.
fn refused(code: &str, message: &str) -> Response {
    (StatusCode::BAD_REQUEST, axum::Json(json!({"code": code, "message": message}))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_two_times_and_nothing_else() {
        let good = "eventTimestamp ge '2026-01-01T00:00:00Z' and eventTimestamp le '2026-01-02T00:00:00'";
        assert_eq!(times(good).map(|(start, end)| end - start), Some(86_400));
        for bad in ["", "eventTimestamp ge '2026-01-01T00:00:00Z'", "category eq 'Administrative' and x le '1'"] {
            assert_eq!(times(bad), None, "{bad}");
        }
    }
}
