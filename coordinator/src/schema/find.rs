//! Finds the models that a host has, by looking where Pythons and AWS CLIs put them. Nothing is started: that would take
//! longer than all the rest.

use std::path::{Path, PathBuf};

use proto::config::Environment;

use super::SchemaError;
use super::models::Models;

/// Programs that have botocore beside them.
const PROGRAMS: [&str; 3] = ["python3", "python", "aws"];
/// Where installers put things whatever the PATH says.
const USUAL: [&str; 6] = ["~/.local", "/usr/local", "/usr", "/usr/local/aws-cli", "~/.local/aws-cli", "/opt/homebrew"];

/// The models of this host's Python or AWS CLI.
///
/// # Errors
/// When there are none: says how to get them.
pub fn find(environment: &Environment) -> Result<Models, SchemaError> {
    let places = places(environment);
    places.iter().find_map(|place| Models::under(place)).ok_or_else(|| {
        SchemaError::NoModels(
            "there are no service models on this host: neither its python3 nor its aws has botocore. Get them with \
             `python3 -m pip install botocore`, or without installing anything: `pip download --no-deps botocore`, and \
             name the wheel with --models FILE"
                .to_owned(),
        )
    })
}

/// Where to look, in this order.
fn places(environment: &Environment) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = Vec::new();
    let mut look = |place: PathBuf| {
        if !places.contains(&place) {
            places.push(place);
        }
    };
    let folders = |name: &str| environment.variable(name).map(std::env::split_paths).into_iter().flatten();
    folders("VIRTUAL_ENV").chain(folders("PYTHONPATH")).map(|folder| environment.path(folder)).for_each(&mut look);
    for program in PROGRAMS {
        let Some(file) =
            folders("PATH").map(|folder| environment.path(folder).join(program)).find(|file| file.is_file())
        else {
            continue;
        };
        of_program(&file, environment).into_iter().for_each(&mut look);
    }
    USUAL.iter().map(|place| environment.path(place)).for_each(&mut look);
    places
}

/// The folders above a program, as it is named and as it is linked: `bin/..`, or `dist` of the AWS CLI.
fn of_program(file: &Path, environment: &Environment) -> Vec<PathBuf> {
    let mut places = Vec::new();
    for file in [Some(file.to_owned()), file.canonicalize().ok()].into_iter().flatten() {
        let Some(folder) = file.parent() else { continue };
        if folder.ends_with("shims") {
            places.extend(of_pyenv(folder.parent().unwrap_or(folder), environment));
        }
        places.extend(folder.parent().map(Path::to_owned));
        places.push(folder.to_owned());
    }
    places
}

/// The Pythons behind pyenv's shims, those that it would choose first.
fn of_pyenv(root: &Path, environment: &Environment) -> Vec<PathBuf> {
    let versions = root.join("versions");
    let chosen = environment.variable("PYENV_VERSION").map(str::to_owned);
    let chosen = chosen.or_else(|| std::fs::read_to_string(root.join("version")).ok()).unwrap_or_default();
    let mut places: Vec<PathBuf> = chosen
        .split([':', '\n'])
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(|name| versions.join(name))
        .collect();
    let mut others: Vec<PathBuf> =
        std::fs::read_dir(&versions).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
    others.sort();
    places.extend(others.into_iter().rev());
    places
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn with_model(place: &Path) {
        let folder = place.join("botocore/data/iam/2010-05-08");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("service-2.json"), "{}").unwrap();
    }

    fn program(file: &Path) {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "").unwrap();
    }

    fn found(root: &Path, environment: &Environment) -> String {
        let models = find(environment).unwrap();
        models
            .place()
            .strip_prefix(root.canonicalize().unwrap())
            .or(models.place().strip_prefix(root))
            .unwrap()
            .display()
            .to_string()
    }

    #[test]
    fn models_are_found_where_pythons_and_the_aws_cli_have_them() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let path = root.join("p/bin");
        let environment = Environment::empty().with("PATH", path.to_str().unwrap()).with("HOME", "/nowhere");

        // The AWS CLI's own installer: a link to a link, and the models beside the program.
        program(&root.join("cli/v2/2.1/dist/aws"));
        with_model(&root.join("cli/v2/2.1/dist/awscli"));
        fs::create_dir_all(&path).unwrap();
        std::os::unix::fs::symlink(root.join("cli/v2/2.1/dist/aws"), path.join("aws")).unwrap();
        assert_eq!(found(root, &environment), "cli/v2/2.1/dist/awscli/botocore/data");

        // Of several Pythons the newest; all come before the AWS CLI.
        program(&path.join("python3"));
        for python in ["python3.9", "python3.11"] {
            with_model(&root.join("p/lib").join(python).join("site-packages"));
        }
        assert_eq!(found(root, &environment), "p/lib/python3.11/site-packages/botocore/data");

        // A shim of pyenv is no Python; it stands for the one that is chosen.
        let shims = root.join("pyenv/shims");
        program(&shims.join("python3"));
        fs::write(root.join("pyenv/version"), "3.10.1\n").unwrap();
        for version in ["3.10.1/lib/python3.10", "3.12.0/lib/python3.12"] {
            with_model(&root.join("pyenv/versions").join(version).join("site-packages"));
        }
        let environment = environment.with("PATH", shims.to_str().unwrap());
        assert_eq!(found(root, &environment), "pyenv/versions/3.10.1/lib/python3.10/site-packages/botocore/data");

        // A virtual environment that is active comes first.
        with_model(&root.join("venv/lib/python3.9/site-packages"));
        let environment = environment.with("VIRTUAL_ENV", root.join("venv").to_str().unwrap());
        assert_eq!(found(root, &environment), "venv/lib/python3.9/site-packages/botocore/data");
    }
}
