//! The Cloudmarker configuration that audits a simulated cloud.

use super::simulation::Simulation;

/// The cloud plugins that audit an Azure, by class name.
const CLASSES: [&str; 9] =
    ["AzCloud", "AzVM", "AzDisk", "AzKV", "AzMonitor", "AzPostgres", "AzSQL", "AzStorageAccount", "AzWebApp"];

/// The plugins that a configuration names if nobody says which.
pub(super) const DEFAULT: [&str; 1] = ["AzCloud"];

/// A whole configuration, in YAML, with the plugins of these classes; what is no class of an Azure plugin
/// is left out.
pub(super) fn configuration(simulation: &Simulation, classes: &[&str]) -> String {
    let classes: Vec<&str> = classes.iter().copied().filter(|class| CLASSES.contains(class)).collect();
    let plugins: String = classes.iter().map(|class| plugin(simulation, class)).collect();
    let keys: Vec<String> = classes.iter().map(|class| key(class)).collect();
    format!(
        "plugins:
{plugins}audits:
  myazaudit:
    clouds: [{}]
    stores: [filestore]
    events: [firewallruleevent]
    alerts: [filestore]
run: [myazaudit]
",
        keys.join(", ")
    )
}

fn key(class: &str) -> String {
    format!("my{}", class.to_ascii_lowercase())
}

fn plugin(simulation: &Simulation, class: &str) -> String {
    let url = &simulation.url;
    // The scope of a vault's tokens cannot be told from the address of this server.
    let vault_scope = match class {
        "AzKV" => "      key_vault_scope: https://vault.azure.net/.default\n",
        _ => "",
    };
    format!(
        "  {key}:
    plugin: cloudmarker.clouds.{module}.{class}
    params:
      tenant: {tenant}
      client: {client}
      secret: {secret}
      login_endpoint: {url}
      arm_endpoint: {url}
{vault_scope}",
        key = key(class),
        module = class.to_ascii_lowercase(),
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
