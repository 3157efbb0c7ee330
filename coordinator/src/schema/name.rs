//! What a person asks for: `iam`, `iam.CreatePolicy`, `iam.CreatePolicy.output`, with the names of botocore or those of
//! CloudTrail's events.

use proto::config::suggest;
use serde::Deserialize;

use super::SchemaError;
use super::expand::Side;
use super::models::Models;
use super::service::{Metadata, Service, source_of};

/// How event sources end.
const DOMAIN: &str = ".amazonaws.com";
/// How much of a model is read for what it says of its service: that stands at its beginning, at times after a text.
const BEGINNING: u64 = 8 << 10;

/// A name, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The service, by any of its names.
    service: String,
    /// Whether it was named as CloudTrail does, as `iam.amazonaws.com`.
    is_source: bool,
    operation: Option<String>,
    /// The side that is asked for, if not both.
    pub side: Option<Side>,
}

/// The service and operation that are meant.
#[derive(Debug)]
pub struct Resolved {
    /// The name of the service's folder.
    pub service: String,
    /// Its model.
    pub text: String,
    /// The name of the operation, if one was asked for.
    pub operation: Option<String>,
    /// What the person should know about the choice.
    pub notes: Vec<String>,
}

impl Asked {
    /// Takes a name apart.
    ///
    /// # Errors
    /// When it has too many parts, or its last one is no side of an operation.
    pub fn parse(name: &str) -> Result<Self, SchemaError> {
        let (service, rest, is_source) = match name.to_ascii_lowercase().find(DOMAIN) {
            Some(at) => {
                let rest = &name[at + DOMAIN.len()..];
                (&name[..at], rest.strip_prefix('.').unwrap_or(rest), true)
            }
            None => {
                let (service, rest) = name.split_once('.').unwrap_or((name, ""));
                (service, rest, false)
            }
        };
        let mut parts = rest.splitn(3, '.').filter(|part| !part.is_empty());
        let operation = parts.next().map(str::to_owned);
        let side = parts.next().map(side).transpose()?;
        if let Some(more) = parts.next() {
            let side = side.map_or("output", Side::name);
            return Err(SchemaError::Unknown(format!("`{name}`: nothing is expected after `{side}`; found `.{more}`")));
        }
        Ok(Self { service: service.to_owned(), is_source, operation, side })
    }
}

fn side(word: &str) -> Result<Side, SchemaError> {
    let is = |side: &Side| word.eq_ignore_ascii_case(side.name()) || word.eq_ignore_ascii_case(side.in_event());
    Side::ALL.into_iter().find(is).ok_or_else(|| {
        let names = Side::ALL.map(Side::name);
        SchemaError::Unknown(format!(
            "an operation has an `input` and an `output`; found `{word}`{}",
            suggest::did_you_mean(word, names)
        ))
    })
}

/// The service and operation that a name means.
///
/// # Errors
/// When there are none, or several: says what there is.
pub fn resolve(models: &Models, asked: &Asked, version: Option<&str>) -> Result<Resolved, SchemaError> {
    let read = |service: &str| -> Result<(String, Option<Operation>), SchemaError> {
        let text = models.text(service, version)?;
        let Some(wanted) = &asked.operation else { return Ok((text, None)) };
        let found = operation(&Service::parse(service, &text)?, wanted);
        Ok((text, Some(found)))
    };
    let own = of_this_name(models, &asked.service)?;
    let mut nearest = Vec::new();
    if let Some(service) = &own {
        let (text, found) = read(service)?;
        match found {
            None => return Ok(Resolved { service: service.clone(), text, operation: None, notes: Vec::new() }),
            Some(Operation::Found(name, notes)) => {
                return Ok(Resolved { service: service.clone(), text, operation: Some(name), notes });
            }
            Some(Operation::Unknown(names)) => nearest.push((service.clone(), names)),
        }
    }
    // A source of events may be several services, one of which has its name.
    let others = if own.is_none() || asked.is_source { of_this_source(models, &asked.service)? } else { Vec::new() };
    let others: Vec<String> = others.into_iter().filter(|service| own.as_ref() != Some(service)).collect();
    let mut meant = Vec::new();
    for service in &others {
        // A version is that of one service.
        let Ok((text, found)) = read(service) else { continue };
        let (operation, mut notes) = match found {
            None => (None, Vec::new()),
            Some(Operation::Found(name, notes)) => (Some(name), notes),
            Some(Operation::Unknown(names)) => {
                nearest.push((service.clone(), names));
                continue;
            }
        };
        notes.push(format!("`{}` is the service {service} here", asked.service));
        meant.push(Resolved { service: service.clone(), text, operation, notes });
    }
    match (meant.pop(), meant.len()) {
        (Some(one), 0) => Ok(one),
        (Some(last), _) => {
            let names: Vec<&str> = meant.iter().chain([&last]).map(|found| found.service.as_str()).collect();
            Err(SchemaError::Unknown(format!(
                "`{}` may be one of several services; name one of them: {}",
                asked.service,
                names.join(", ")
            )))
        }
        (None, _) => Err(nobody(models, asked, &nearest)),
    }
}

/// Why nothing is meant.
fn nobody(models: &Models, asked: &Asked, nearest: &[(String, Vec<String>)]) -> SchemaError {
    if nearest.is_empty() {
        let names = models.services().unwrap_or_default();
        let hint = hint(&asked.service, names.iter().map(String::as_str));
        return SchemaError::Unknown(format!(
            "there is no service `{}`{hint}; `coordinator schema` lists all",
            asked.service
        ));
    }
    let wanted = asked.operation.as_deref().unwrap_or_default();
    let services: Vec<&str> = nearest.iter().map(|(service, _)| service.as_str()).collect();
    let hint = hint(wanted, nearest.iter().flat_map(|(_, names)| names).map(String::as_str));
    let services = services.join(", ");
    SchemaError::Unknown(format!(
        "{services} has no operation `{wanted}`{hint}; `coordinator schema {}` lists all",
        nearest[0].0
    ))
}

/// What somebody may have meant: one that is near, or those that have it in their names.
fn hint<'n>(wanted: &str, names: impl Iterator<Item = &'n str> + Clone) -> String {
    let near = suggest::did_you_mean(wanted, names.clone());
    if !near.is_empty() || wanted.is_empty() {
        return near;
    }
    let wanted = wanted.to_lowercase();
    let with: Vec<&str> = names.filter(|name| name.to_lowercase().contains(&wanted)).take(5).collect();
    if with.is_empty() { near } else { format!("; these have it in their names: {}", with.join(", ")) }
}

/// The service whose folder has this name.
fn of_this_name(models: &Models, name: &str) -> Result<Option<String>, SchemaError> {
    let is_word = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    // Most people write it as it is: no other folder is read then.
    if is_word(name) && !name.is_empty() && !models.versions(name).is_empty() {
        return Ok(Some(name.to_owned()));
    }
    Ok(models.services()?.into_iter().find(|service| service.eq_ignore_ascii_case(name)))
}

/// The services whose endpoints, signatures or events have this name.
fn of_this_source(models: &Models, name: &str) -> Result<Vec<String>, SchemaError> {
    let name = plain(name);
    let mut found = Vec::new();
    for service in models.services()? {
        let Some(beginning) = models.beginning(&service, BEGINNING) else { continue };
        let Some(metadata) = metadata(&beginning) else { continue };
        let names = [source_of(&metadata), metadata.endpoint_prefix.as_deref(), metadata.service_id.as_deref()];
        if names.into_iter().flatten().any(|known| plain(known) == name) {
            found.push(service);
        }
    }
    Ok(found)
}

/// A name without what differs between its spellings.
fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// The metadata of a model of which the beginning is there.
fn metadata(beginning: &str) -> Option<Metadata<'_>> {
    let (_, rest) = beginning.split_once("\"metadata\"")?;
    let object = rest.trim_start().strip_prefix(':')?;
    // What follows the object is of no concern, and may break off.
    Metadata::deserialize(&mut serde_json::Deserializer::from_str(object)).ok()
}

enum Operation {
    /// Its name, and what is to be said of it.
    Found(String, Vec<String>),
    /// The names there are.
    Unknown(Vec<String>),
}

/// The operation of a service that a name means: its own, in any case, or what CloudTrail makes of it for some services
/// by adding the version of their interface (`CreateFunction20150331`).
fn operation(service: &Service<'_>, wanted: &str) -> Operation {
    let names = service.operations();
    let among = |wanted: &str| {
        let exact = names.iter().find(|name| **name == wanted);
        exact.or_else(|| names.iter().find(|name| name.eq_ignore_ascii_case(wanted)))
    };
    if let Some(name) = among(wanted) {
        return Operation::Found((*name).to_owned(), Vec::new());
    }
    let stem = wanted.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '_' | 'v'));
    let is_version = wanted.len() - stem.len() >= 8 && wanted[stem.len()..].starts_with("20");
    match among(stem).filter(|_| is_version) {
        Some(name) => {
            let note = format!("`{wanted}` is the operation {name} in its version of CloudTrail's events");
            Operation::Found((*name).to_owned(), vec![note])
        }
        None => Operation::Unknown(names.into_iter().map(str::to_owned).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: &str) -> (String, Option<String>, Option<Side>, bool) {
        let asked = Asked::parse(name).unwrap();
        (asked.service, asked.operation, asked.side, asked.is_source)
    }

    #[test]
    fn names_are_taken_apart() {
        let of = |service: &str, operation: &str, side, is_source| {
            (service.to_owned(), (!operation.is_empty()).then(|| operation.to_owned()), side, is_source)
        };
        assert_eq!(asked("iam"), of("iam", "", None, false));
        assert_eq!(asked("iam."), of("iam", "", None, false));
        assert_eq!(asked("iam.CreatePolicy"), of("iam", "CreatePolicy", None, false));
        assert_eq!(asked("iam.CreatePolicy.output"), of("iam", "CreatePolicy", Some(Side::Output), false));
        assert_eq!(asked("iam.CreatePolicy.requestParameters"), of("iam", "CreatePolicy", Some(Side::Input), false));
        assert_eq!(asked("iam.amazonaws.com"), of("iam", "", None, true));
        assert_eq!(asked("IAM.AmazonAWS.com.CreatePolicy.INPUT"), of("IAM", "CreatePolicy", Some(Side::Input), true));
        assert_eq!(asked("runtime.lex.amazonaws.com"), of("runtime.lex", "", None, true));
    }

    #[test]
    fn names_that_say_too_much_are_refused() {
        let said = |name: &str| Asked::parse(name).unwrap_err().to_string();
        assert_eq!(
            said("iam.CreatePolicy.input.more.still"),
            "`iam.CreatePolicy.input.more.still`: nothing is expected after `input`; found `.more.still`"
        );
        assert_eq!(
            said("iam.CreatePolicy.outptu"),
            "an operation has an `input` and an `output`; found `outptu`; did you mean `output`?"
        );
    }

    #[test]
    fn metadata_is_read_from_what_is_there() {
        let model = "{\"documentation\": \"<p>x</p>\", \"metadata\" : {\"endpointPrefix\": \"email\", \"signingName\":\"ses\"}, \"opera";
        let found = metadata(model).unwrap();
        assert_eq!(source_of(&found), Some("ses"));
        assert!(metadata("{\"version\": \"2.0\", \"metadata\": {\"endpo").is_none());
    }
}
