//! The Cloudmarker configuration that audits a simulated cloud.

use super::simulation::Simulation;

/// A whole configuration, in YAML.
pub(super) fn configuration(simulation: &Simulation) -> String {
    let url = &simulation.url;
    format!(
        "plugins:
  myazcloud:
    plugin: cloudmarker.clouds.azcloud.AzCloud
    params:
      tenant: {tenant}
      client: {client}
      secret: {secret}
      login_endpoint: {url}
      arm_endpoint: {url}
audits:
  myazaudit:
    clouds: [myazcloud]
    stores: [filestore]
    events: [firewallruleevent]
    alerts: [filestore]
run: [myazaudit]
",
        tenant = simulation.estate.tenant(),
        client = simulation.client_id,
        secret = scalar(&simulation.client_secret),
    )
}

/// A text as a YAML scalar. Only plain words stay plain; the JSON form of anything else is YAML, too.
fn scalar(text: &str) -> String {
    let is_plain = text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.contains('-')
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-');
    if is_plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use super::scalar;

    #[test]
    fn a_text_that_yaml_would_read_as_something_else_is_quoted() {
        assert_eq!(scalar("a-secret"), "a-secret");
        assert_eq!(scalar("true"), "\"true\"");
        assert_eq!(scalar("1234-5"), "\"1234-5\"");
        assert_eq!(scalar("a: \"b\""), r#""a: \"b\"""#);
    }
}
