//! A test message: whether an alert is configured so that its messages arrive.

use std::sync::Arc;
use std::time::Duration;

use proto::subject::{Key, Version};
use serde_json::{Value, json};

use crate::alert::with_patience;
use crate::digest::{About, Gathering};
use crate::event::Finding;
use crate::outcome::Outcome;
use crate::registry;

/// How long the receiver may be away: somebody sits and waits.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends one message through an alert, plainly marked as a test. `params` are its parameters, expanded. The answer
/// says whom it was sent to.
///
/// # Errors
/// Why it could not be sent, for people.
pub async fn send(plugin: &Key, class: &str, params: &Value) -> Result<String, String> {
    let (settings, mut alert) = registry::build_alert(class, params)?;
    let audit = Key::new("test").map_err(|error| error.to_string())?;
    let version = Version::at(jiff::Timestamp::now());
    let about = About { is_trial: true, ..About::new(audit, version, plugin.clone()) };
    let event = example(&about);
    let on_disk = |error: std::io::Error| format!("cannot make a temporary file: {error}");
    let mut gathering = Gathering::new().map_err(on_disk)?;
    let finding = Finding::read(event.as_bytes(), plugin).map_err(|error| error.to_string())?;
    gathering.add(&finding, plugin, event.as_bytes()).map_err(on_disk)?;
    let digest = Arc::new(gathering.end(about, Outcome::unknown()).map_err(on_disk)?);
    with_patience(&mut *alert, &digest, settings.patience().min(PATIENCE)).await?;
    Ok(alert.place())
}

/// An event that nobody can take for a real one.
fn example(about: &About) -> String {
    json!({
        "ext": {"record_type": "test_event"},
        "com": {
            "record_type": "test_event",
            "id": about.idempotency_key("example"),
            "finding_id": about.idempotency_key("example"),
            "severity": "info",
            "rule": "test",
            "title": "TEST: messages of this alert should arrive",
            "resource": {"cloud": null, "account": "test", "type": "test", "id": null, "name": "test", "region": null},
            "description": "This is a test message of Cloudmarker. Nothing was audited, and nothing is wrong.",
            "recommendation": "None: if you can read this, messages arrive.",
            "audit_key": about.audit.as_str(),
            "audit_version": about.version.as_str(),
            "origin_key": about.plugin.as_str(),
        },
    })
    .to_string()
}
