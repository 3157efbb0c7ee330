//! Reads service models where they lie: `<service>/<date>/service-2.json`, or `.json.gz` as botocore has had since 2023,
//! in a folder or in a wheel.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use zip::ZipArchive;

use super::SchemaError;

/// The file of a service, unpacked and packed.
const FILES: [&str; 2] = ["service-2.json", "service-2.json.gz"];
/// The largest model that is read; the largest there is has 4 MB.
const LARGEST: u64 = 256 << 20;
/// Where models lie under a folder that somebody may name: botocore itself, what has it, a virtual environment, the AWS
/// CLI's installation or its installer.
const PLACES: [&str; 9] = [
    "",
    "data",
    "botocore/data",
    "awscli/botocore/data",
    "dist/awscli/botocore/data",
    "v2/current/dist/awscli/botocore/data",
    "aws-cli/v2/current/dist/awscli/botocore/data",
    "aws/dist/awscli/botocore/data",
    "current/dist/awscli/botocore/data",
];
/// Where packages lie under the prefix of a Python.
const PACKAGES: [&str; 2] = ["site-packages", "dist-packages"];

/// Service models.
#[derive(Debug)]
pub struct Models {
    place: PathBuf,
    kept: Kept,
}

#[derive(Debug)]
enum Kept {
    Folder,
    Archive { archive: RefCell<ZipArchive<BufReader<File>>>, members: Members },
}

/// Of each service, for each version, the name in the archive.
type Members = BTreeMap<String, BTreeMap<String, String>>;

impl Models {
    /// The models at a path that somebody names: a folder of botocore, of a Python or of an AWS CLI, or a wheel.
    ///
    /// # Errors
    /// When there are none.
    pub fn at(path: &Path) -> Result<Self, SchemaError> {
        let kind = fs::metadata(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => SchemaError::NoModels(format!("there is no {}", path.display())),
            _ => SchemaError::unreadable(path.display(), error),
        })?;
        if kind.is_dir() {
            return Self::under(path).ok_or_else(|| {
                SchemaError::NoModels(format!(
                    "{} has no service models; name the folder `botocore` of a Python's site-packages, a wheel of \
                     botocore, or the folder of an AWS CLI",
                    path.display()
                ))
            });
        }
        Self::in_archive(path)
    }

    /// The models under a folder, if it has any where they usually are.
    pub(super) fn under(folder: &Path) -> Option<Self> {
        let packages = packages_of(folder)
            .into_iter()
            .flat_map(|packages| [packages.join("botocore/data"), packages.join("awscli/botocore/data")]);
        PLACES.iter().map(|place| folder.join(place)).chain(packages).find_map(|place| {
            let models = Self { place, kept: Kept::Folder };
            models.has_any().then_some(models)
        })
    }

    fn in_archive(path: &Path) -> Result<Self, SchemaError> {
        let file = File::open(path).map_err(|error| SchemaError::unreadable(path.display(), error))?;
        let archive = ZipArchive::new(BufReader::new(file)).map_err(|error| {
            SchemaError::NoModels(format!(
                "{} is not a wheel: {error}; `pip download --no-deps botocore` gets one",
                path.display()
            ))
        })?;
        let mut members = Members::new();
        // A name that cannot be read is not one of ours.
        for name in archive.file_names().flatten() {
            let mut parts = name.rsplit('/');
            let (Some(file), Some(version), Some(service)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            if FILES.contains(&file) && is_date(version) {
                members.entry(service.to_owned()).or_default().insert(version.to_owned(), name.to_string());
            }
        }
        if members.is_empty() {
            return Err(SchemaError::NoModels(format!(
                "{} has no service models; name a wheel of botocore: `pip download --no-deps botocore` gets one",
                path.display()
            )));
        }
        Ok(Self { place: path.to_owned(), kept: Kept::Archive { archive: RefCell::new(archive), members } })
    }

    /// Where they are.
    #[must_use]
    pub fn place(&self) -> &Path {
        &self.place
    }

    fn has_any(&self) -> bool {
        folders(&self.place).is_ok_and(|mut names| names.any(|service| self.newest(&service).is_some()))
    }

    /// The names of all services, sorted.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn services(&self) -> Result<Vec<String>, SchemaError> {
        match &self.kept {
            Kept::Archive { members, .. } => Ok(members.keys().cloned().collect()),
            Kept::Folder => {
                let unreadable = |error| SchemaError::unreadable(self.place.display(), error);
                let mut names: Vec<String> = folders(&self.place).map_err(unreadable)?.collect();
                names.retain(|service| self.newest(service).is_some());
                names.sort();
                Ok(names)
            }
        }
    }

    /// The versions of a service, the newest last.
    #[must_use]
    pub fn versions(&self, service: &str) -> Vec<String> {
        match &self.kept {
            Kept::Archive { members, .. } => {
                members.get(service).into_iter().flat_map(BTreeMap::keys).cloned().collect()
            }
            Kept::Folder => {
                let folder = self.place.join(service);
                let has_model = |version: &String| {
                    is_date(version) && FILES.iter().any(|file| folder.join(version).join(file).is_file())
                };
                // Dates written like this sort as they follow one another.
                let mut versions: Vec<String> = folders(&folder).into_iter().flatten().filter(has_model).collect();
                versions.sort();
                versions
            }
        }
    }

    fn newest(&self, service: &str) -> Option<String> {
        self.versions(service).pop()
    }

    /// The model of a service: its newest, or that of a version.
    ///
    /// # Errors
    /// When there is no such version, or its file cannot be read.
    pub fn text(&self, service: &str, version: Option<&str>) -> Result<String, SchemaError> {
        let versions = self.versions(service);
        let version = match version.filter(|version| *version != "latest") {
            None => versions.last(),
            Some(wanted) => {
                let found = versions.iter().find(|version| *version == wanted);
                Some(found.ok_or_else(|| {
                    SchemaError::Unknown(format!(
                        "{service} has no version `{wanted}` here; it has {}",
                        versions.join(", ")
                    ))
                })?)
            }
        };
        let version = version.ok_or_else(|| SchemaError::Unknown(format!("there is no service `{service}`")))?;
        self.read(service, version, LARGEST)
    }

    /// The first bytes of the newest model of a service.
    pub(super) fn beginning(&self, service: &str, bytes: u64) -> Option<String> {
        self.read(service, &self.newest(service)?, bytes).ok()
    }

    fn read(&self, service: &str, version: &str, most: u64) -> Result<String, SchemaError> {
        match &self.kept {
            Kept::Folder => {
                let folder = self.place.join(service).join(version);
                let path = FILES.map(|file| folder.join(file)).into_iter().find(|path| path.is_file());
                let path = path.unwrap_or_else(|| folder.join(FILES[0]));
                let unreadable = |error| SchemaError::unreadable(path.display(), error);
                let file = File::open(&path).map_err(unreadable)?;
                let is_packed = path.extension().is_some_and(|extension| extension == "gz");
                text_of(file, is_packed, most).map_err(unreadable)
            }
            Kept::Archive { archive, members } => {
                let name = members.get(service).and_then(|versions| versions.get(version)).map_or("", String::as_str);
                let unreadable = |reason: &dyn std::fmt::Display| {
                    SchemaError::unreadable(format_args!("{name} in {}", self.place.display()), reason)
                };
                let mut archive = archive.borrow_mut();
                let member = archive.by_name(name).map_err(|error| unreadable(&error))?;
                text_of(member, name.ends_with(".gz"), most).map_err(|error| unreadable(&error))
            }
        }
    }
}

/// Reads a text to its end, or its beginning.
fn text_of(file: impl Read, is_packed: bool, most: u64) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    if is_packed {
        GzDecoder::new(file).take(most).read_to_end(&mut bytes)?;
    } else {
        file.take(most).read_to_end(&mut bytes)?;
    }
    let is_whole = most == LARGEST;
    if is_whole && bytes.len() as u64 == LARGEST {
        return Err(std::io::Error::other(format!("it is larger than {} MiB", LARGEST >> 20)));
    }
    if is_whole {
        return String::from_utf8(bytes).map_err(|error| std::io::Error::other(format!("it is not text: {error}")));
    }
    // The beginning may end within a character.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The folders in one.
fn folders(folder: &Path) -> std::io::Result<impl Iterator<Item = String>> {
    Ok(fs::read_dir(folder)?.filter_map(|entry| {
        let entry = entry.ok()?;
        // A link may lead to a folder; what is a file is certainly none.
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file { None } else { entry.file_name().into_string().ok() }
    }))
}

/// The folders with packages under the prefix of a Python: `lib/python3.11/site-packages` and the like.
pub(super) fn packages_of(prefix: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for lib in ["lib", "lib64", "Lib", "local/lib"] {
        let lib = prefix.join(lib);
        found.extend(PACKAGES.map(|packages| lib.join(packages)));
        let mut pythons: Vec<String> =
            folders(&lib).into_iter().flatten().filter(|name| name.starts_with("python")).collect();
        // The newest first: 3.11 is newer than 3.9.
        pythons.sort_by_key(|name| {
            let minor = name.rsplit('.').next().and_then(|minor| minor.parse::<u32>().ok());
            std::cmp::Reverse(minor.unwrap_or_default())
        });
        for python in pythons {
            found.extend(PACKAGES.map(|packages| lib.join(&python).join(packages)));
        }
    }
    found.extend(PACKAGES.map(|packages| prefix.join(packages)));
    found.retain(|packages| packages.is_dir());
    found
}

/// Whether a name is like 2015-03-31.
fn is_date(name: &str) -> bool {
    let shape = "0000-00-00";
    name.len() == shape.len()
        && name
            .bytes()
            .zip(shape.bytes())
            .all(|(found, kind)| if kind == b'-' { found == b'-' } else { found.is_ascii_digit() })
}
