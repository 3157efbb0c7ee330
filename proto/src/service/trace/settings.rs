//! What is exported, and where to: the option, and the variables that OpenTelemetry has for it.

use crate::config::Environment;

/// How spans are exported.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceSettings {
    /// Where to: the URL of the receiver's traces.
    pub(super) url: String,
    /// Headers that the receiver asks for.
    pub(super) headers: Vec<(String, String)>,
    /// What this program is.
    pub(super) resource: Vec<(String, String)>,
    /// The share of traces that is exported, from 0 to 1.
    pub(super) share: f64,
}

impl TraceSettings {
    /// The settings of the option `--otlp` and the environment; `None` when nothing is to be exported.
    ///
    /// # Errors
    /// What is wrong with them, for people.
    pub fn read(
        otlp: Option<&str>,
        service: &str,
        instance: &str,
        environment: &Environment,
    ) -> Result<Option<Self>, String> {
        let var = |name: &str| environment.variable(name).filter(|value| !value.trim().is_empty()).map(str::to_owned);
        if var("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) && otlp.is_none() {
            return Ok(None);
        }
        let base = |url: &str| format!("{}/v1/traces", url.trim_end_matches('/'));
        let (from, url) = if let Some(url) = otlp {
            ("--otlp", base(url))
        } else if let Some(url) = var("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", url)
        } else if let Some(url) = var("OTEL_EXPORTER_OTLP_ENDPOINT") {
            ("OTEL_EXPORTER_OTLP_ENDPOINT", base(&url))
        } else {
            return Ok(None);
        };
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(format!("{from}: `{url}` is no URL; write http://HOST:4318 (OTLP over HTTP)"));
        }
        for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
            if let Some(protocol) = var(name).filter(|protocol| !protocol.starts_with("http/")) {
                return Err(format!(
                    "{name}: `{protocol}` is not spoken; set http/json, and the port for it (4318 as a rule)"
                ));
            }
        }
        let headers = var("OTEL_EXPORTER_OTLP_TRACES_HEADERS").or_else(|| var("OTEL_EXPORTER_OTLP_HEADERS"));
        let headers = pairs("OTEL_EXPORTER_OTLP_HEADERS", &headers.unwrap_or_default())?;
        let mut resource = pairs("OTEL_RESOURCE_ATTRIBUTES", &var("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default())?;
        let mut set = |name: &str, value: String, wins: bool| {
            let known = resource.iter().position(|(known, _)| known == name);
            match known {
                Some(place) if wins => {
                    resource.remove(place);
                }
                Some(_) => return,
                None => {}
            }
            resource.push((name.to_owned(), value));
        };
        match var("OTEL_SERVICE_NAME") {
            Some(name) => set("service.name", name, true),
            None => set("service.name", service.to_owned(), false),
        }
        set("service.namespace", "cloudmarker".to_owned(), false);
        set("service.version", env!("CARGO_PKG_VERSION").to_owned(), false);
        set("service.instance.id", instance.to_owned(), false);
        Ok(Some(Self { url, headers, resource, share: share(var)? }))
    }
}

fn share(var: impl Fn(&str) -> Option<String>) -> Result<f64, String> {
    let sampler = var("OTEL_TRACES_SAMPLER").unwrap_or_default();
    match sampler.strip_prefix("parentbased_").unwrap_or(&sampler) {
        "" | "always_on" => Ok(1.0),
        "always_off" => Ok(0.0),
        "traceidratio" => {
            let text = var("OTEL_TRACES_SAMPLER_ARG").unwrap_or_else(|| "1".to_owned());
            let share = text.trim().parse().ok().filter(|share| (0.0..=1.0).contains(share));
            share.ok_or_else(|| format!("OTEL_TRACES_SAMPLER_ARG: `{text}` is no number from 0 to 1"))
        }
        _ => Err(format!(
            "OTEL_TRACES_SAMPLER: `{sampler}` is unknown; allowed: always_on, always_off, traceidratio, and these with \
             parentbased_"
        )),
    }
}

/// Reads `name=value,name=value`, with what is escaped by `%`.
fn pairs(name: &str, text: &str) -> Result<Vec<(String, String)>, String> {
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    entries
        .map(|entry| {
            let (key, value) = entry.split_once('=').ok_or_else(|| {
                // The value may be a secret.
                format!("{name}: an entry is not of the form name=value")
            })?;
            Ok((key.trim().to_owned(), unescape(value.trim())))
        })
        .collect()
}

fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escaped = (*byte == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(decoded) => {
                plain.push(decoded);
                at += 3;
            }
            None => {
                plain.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(otlp: Option<&str>, variables: &[(&str, &str)]) -> Result<Option<TraceSettings>, String> {
        let environment =
            variables.iter().fold(Environment::empty(), |environment, (name, value)| environment.with(name, value));
        TraceSettings::read(otlp, "collector", "host-1", &environment)
    }

    #[test]
    fn nothing_is_exported_unless_it_is_asked_for() {
        assert_eq!(read(None, &[]), Ok(None));
        let disabled = [("OTEL_SDK_DISABLED", "true"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318")];
        assert_eq!(read(None, &disabled), Ok(None));
    }

    #[test]
    fn the_variables_of_opentelemetry_are_read() {
        let settings = read(
            None,
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318/"),
                ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20x, b=c"),
                ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,deployment.environment=test"),
                ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
                ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ],
        );
        let settings = settings.unwrap().unwrap();
        assert_eq!(settings.url, "http://a:4318/v1/traces");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(settings.headers, [pair("authorization", "Basic x"), pair("b", "c")]);
        assert!(settings.resource.contains(&pair("service.name", "other")), "{:?}", settings.resource);
        assert!(settings.resource.contains(&pair("service.instance.id", "host-1")));
        assert_eq!(settings.share, 0.25);
        let traces = [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://a/t"), ("OTEL_SERVICE_NAME", "s")];
        let settings = read(None, &traces).unwrap().unwrap();
        assert_eq!((settings.url.as_str(), settings.share), ("http://a/t", 1.0));
        assert!(settings.resource.contains(&pair("service.name", "s")));
        assert_eq!(read(Some("http://b"), &traces).unwrap().unwrap().url, "http://b/v1/traces");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (otlp, variables, said) in [
            (Some("a:4317"), vec![], "--otlp"),
            (Some("http://a"), vec![("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], "http/json"),
            (Some("http://a"), vec![("OTEL_EXPORTER_OTLP_HEADERS", "secret")], "name=value"),
            (Some("http://a"), vec![("OTEL_TRACES_SAMPLER", "jaeger_remote")], "traceidratio"),
            (
                Some("http://a"),
                vec![("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "2")],
                "from 0 to 1",
            ),
        ] {
            let error = read(otlp, &variables).unwrap_err();
            assert!(error.contains(said) && !error.contains("secret"), "{error}");
        }
    }
}
