//! `coordinator schema`: what stands in CloudTrail's events, from the models that AWS describes its services with.

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use proto::config::Environment;

use super::USAGE;
use crate::schema::{
    Asked, Models, Operation, Resolved, SchemaError, Service, Side, find, plain, resolve, rule, write_shape,
};

const EXAMPLES: &str = "\
Examples:
  coordinator schema                                      all services
  coordinator schema iam                                  the operations of one
  coordinator schema iam.CreatePolicy                     what an operation does, asks and answers
  coordinator schema iam.CreatePolicy.output              what it answers: `responseElements` of its event
  coordinator schema iam.amazonaws.com.CreatePolicy.input --json
  coordinator schema iam.CreatePolicy --rule > rules/create_policy.yaml
  coordinator schema --models botocore-1.44.5-py3-none-any.whl ec2

In the result, names are those that CloudTrail writes: with a small first letter. What begins with `$` is said of a value
where it stands: `$required`, `$locationName` (its name on the wire, which some services have in their events instead),
`$location`, `$documentation`; `$cycle` names the shape that contains itself there.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SchemaArgs {
    /// SERVICE[.OPERATION[.input|.output]]; without it, all services are listed. A service is named as botocore does
    /// (`iam`), or as events do (`iam.amazonaws.com`).
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Where the service models are: a folder or wheel of botocore, a Python's folder, or that of an AWS CLI. Without
    /// it, those of this host's python3 or aws are found.
    #[arg(long, value_name = "PATH")]
    models: Option<PathBuf>,
    /// The version of the service's interface, such as 2015-03-31, instead of the newest.
    #[arg(long, visible_alias = "api_version", value_name = "DATE")]
    api_version: Option<String>,
    /// Print JSON alone: the shape, or a list of names.
    #[arg(long, conflicts_with = "rule")]
    json: bool,
    /// Print a rule file to begin with, for events of this operation.
    #[arg(long)]
    rule: bool,
}

pub(super) fn main(args: &SchemaArgs) -> ExitCode {
    let mut out = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    let printed = print(args, &mut out).and_then(|()| Ok(out.flush()?));
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that has gone away wants no more.
        Err(SchemaError::Unwritten(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error @ SchemaError::Unwritten(_)) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(USAGE)
        }
    }
}

fn print(args: &SchemaArgs, out: &mut impl Write) -> Result<(), SchemaError> {
    let environment = Environment::of_process();
    let models = match &args.models {
        Some(path) => Models::at(&environment.path(path))?,
        None => find(&environment)?,
    };
    let Some(name) = args.name.as_deref().filter(|name| !name.is_empty()) else {
        if args.rule {
            return Err(SchemaError::Unknown(
                "--rule needs an operation: `coordinator schema iam.CreatePolicy --rule`".into(),
            ));
        }
        return names(out, "Services", &models.services()?, args.json);
    };
    let asked = Asked::parse(name)?;
    let Resolved { service, text, operation, notes } = resolve(&models, &asked, args.api_version.as_deref())?;
    for note in notes {
        eprintln!("note: {note}");
    }
    let service = Service::parse(&service, &text)?;
    match operation {
        None if args.rule => {
            Err(SchemaError::Unknown(format!("--rule needs an operation: {}.OPERATION", service.name)))
        }
        None => names(out, "Operations", &service.operations(), args.json),
        Some(name) if args.rule => Ok(out.write_all(rule(&service, &name)?.as_bytes())?),
        Some(name) => {
            let operation = service.operation(&name)?;
            match asked.side {
                Some(side) => one(out, &service, &name, &operation, side, args.json),
                None if args.json => both(out, &service, &operation),
                None => all(out, &service, &operation),
            }
        }
    }
}

fn names(out: &mut impl Write, title: &str, names: &[impl AsRef<str>], json: bool) -> Result<(), SchemaError> {
    if json {
        let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        serde_json::to_writer_pretty(&mut *out, &names).map_err(std::io::Error::from)?;
        return Ok(writeln!(out)?);
    }
    writeln!(out, "{title}:")?;
    for name in names {
        writeln!(out, "- {}", name.as_ref())?;
    }
    Ok(())
}

/// What is said of one side of an operation.
fn one(
    out: &mut impl Write,
    service: &Service<'_>,
    name: &str,
    operation: &Operation<'_>,
    side: Side,
    json: bool,
) -> Result<(), SchemaError> {
    // Nothing is printed of an operation that has no such side.
    let mut shape = Vec::new();
    if !write_shape(service, operation, side, &mut shape, 0)? {
        return Err(SchemaError::Unknown(format!("{}.{name} has no {}", service.name, side.name())));
    }
    if !json {
        describe(out, operation)?;
        write!(out, "Result\n------\n")?;
    }
    out.write_all(&shape)?;
    Ok(writeln!(out)?)
}

fn both(out: &mut impl Write, service: &Service<'_>, operation: &Operation<'_>) -> Result<(), SchemaError> {
    let mut before = "{\n    ";
    for side in Side::ALL {
        write!(out, "{before}\"{}\": ", side.name())?;
        before = ",\n    ";
        if !write_shape(service, operation, side, out, 1)? {
            write!(out, "null")?;
        }
    }
    Ok(writeln!(out, "\n}}")?)
}

fn all(out: &mut impl Write, service: &Service<'_>, operation: &Operation<'_>) -> Result<(), SchemaError> {
    describe(out, operation)?;
    for (side, title, after) in [(Side::Input, "Input", "\n\n\n"), (Side::Output, "Output", "\n")] {
        write!(out, "{title}\n------\n")?;
        if !write_shape(service, operation, side, out, 0)? {
            write!(out, "none")?;
        }
        write!(out, "{after}")?;
    }
    Ok(())
}

fn describe(out: &mut impl Write, operation: &Operation<'_>) -> Result<(), SchemaError> {
    let text = operation.documentation.as_deref().map(plain).filter(|text| !text.is_empty());
    let text = text.as_deref().unwrap_or("The model has no description.");
    Ok(write!(out, "Description\n------\n{text}\n\n\n")?)
}
