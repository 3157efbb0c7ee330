//! The Cloudmarker configuration that audits a simulated Google Cloud.

use std::path::Path;

use super::simulation::Simulation;

/// A whole configuration, in YAML, for a key file at this path.
pub(super) fn configuration(simulation: &Simulation, key_file: &Path) -> String {
    format!(
        "plugins:
  mygcpcloud:
    plugin: cloudmarker.clouds.gcpcloud.GCPCloud
    params:
      key_file_path: {key_file}
      api_endpoint: {url}
audits:
  mygcpaudit:
    clouds: [mygcpcloud]
    stores: [filestore]
    events: [firewallruleevent]
    alerts: [filestore]
run: [mygcpaudit]
",
        // The JSON form of a text is YAML, too.
        key_file = serde_json::Value::from(key_file.to_string_lossy()),
        url = simulation.url,
    )
}
