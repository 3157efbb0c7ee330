//! Reads documents as the FileStore writes them, a JSON list with one document a line, and files with a document a line
//! and no list around them. One line is held at a time.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::value::RawValue;

/// How the names of files with documents end.
const ENDINGS: [&str; 6] = [".json", ".jsonl", ".ndjson", ".json.zst", ".jsonl.zst", ".ndjson.zst"];
/// The longest line, in bytes.
const MAX_LINE: u64 = 64 * 1024 * 1024;
/// How much is read at once, in bytes.
const BUFFER: usize = 1 << 20;

/// Takes a document, or what cannot be read, and the number of its line. Says `false` when it wants no more.
pub(super) trait Take: FnMut(usize, Result<&[u8], String>) -> bool {}

impl<F: FnMut(usize, Result<&[u8], String>) -> bool> Take for F {}

/// The files with documents in a folder, by name, and those that are passed over; or the file itself.
pub(super) fn files(path: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), String> {
    let cannot = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            format!("there is no {}; name the folder that a FileStore writes to", path.display())
        }
        _ => format!("{} cannot be read: {error}", path.display()),
    };
    if !fs::metadata(path).map_err(cannot)?.is_dir() {
        return Ok((vec![path.to_owned()], Vec::new()));
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(cannot)? {
        let file = entry.map_err(cannot)?.path();
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let is_kind = ENDINGS.iter().any(|ending| name.ends_with(ending));
        if is_kind && !name.starts_with('.') && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        let message = "no file in it ends in .json or .jsonl; name the folder that a FileStore writes to";
        return Err(format!("{}: {message}", path.display()));
    }
    let all = files.clone();
    let is_old = |file: &PathBuf| newer(file).is_some_and(|newer| all.contains(&newer));
    let (old, files) = files.into_iter().partition(is_old);
    Ok((files, old))
}

/// The file that a version which ended late stands beside: of `audit_cloud.20260131_235959.json`, `audit_cloud.json`.
fn newer(file: &Path) -> Option<PathBuf> {
    let name = file.file_name()?.to_str()?;
    let (rest, ending) = ENDINGS.iter().find_map(|ending| Some((name.strip_suffix(ending)?, ending)))?;
    let (stem, version) = rest.rsplit_once('.')?;
    proto::subject::Version::new(version).ok()?;
    Some(file.with_file_name(format!("{stem}{ending}")))
}

/// Opens a file, compressed or not.
pub(super) fn open(file: &Path) -> io::Result<Box<dyn BufRead>> {
    let opened = File::open(file)?;
    if file.extension().is_some_and(|extension| extension == "zst") {
        return Ok(Box::new(BufReader::with_capacity(BUFFER, zstd::Decoder::new(opened)?)));
    }
    Ok(Box::new(BufReader::with_capacity(BUFFER, opened)))
}

/// Gives each document of a file, and what cannot be read of it.
pub(super) fn read(file: &Path, mut take: impl Take) {
    let reader = match open(file) {
        Ok(opened) => opened,
        Err(error) => {
            take(0, Err(format!("it cannot be read: {error}")));
            return;
        }
    };
    lines(reader, take);
}

/// The same of what is open already.
pub(super) fn lines(mut reader: impl BufRead, mut take: impl Take) {
    let mut line = Vec::new();
    let (mut number, mut open) = (0, false);
    loop {
        line.clear();
        number += 1;
        match reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            Err(error) => {
                take(number, Err(format!("it cannot be read: {error}")));
                return;
            }
            Ok(0) => {
                if open {
                    take(number, Err("the list does not end: the file is not whole".to_owned()));
                }
                return;
            }
            Ok(_) if line.len() as u64 == MAX_LINE && line.last() != Some(&b'\n') => {
                take(number, Err(format!("it is longer than {} MiB: one document a line is expected", MAX_LINE >> 20)));
                return;
            }
            Ok(_) => {}
        }
        let mut text = line.trim_ascii();
        if let Some(rest) = text.strip_prefix(b"[") {
            if let Ok(items) = serde_json::from_slice::<Vec<&RawValue>>(text) {
                if !items.into_iter().all(|item| take(number, Ok(item.get().as_bytes()))) {
                    return;
                }
                continue;
            }
            open = true;
            text = rest.trim_ascii();
        }
        text = text.strip_prefix(b",").unwrap_or(text);
        text = text.strip_suffix(b",").unwrap_or(text);
        if open && let Some(last) = text.strip_suffix(b"]") {
            open = false;
            text = last;
        }
        text = text.trim_ascii();
        if !text.is_empty() && !take(number, Ok(text)) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        lines(text.as_bytes(), |line, document| {
            found.push(match document {
                Ok(document) => String::from_utf8_lossy(document).into_owned(),
                Err(trouble) => format!("{line}: {trouble}"),
            });
            true
        });
        found
    }

    #[test]
    fn lists_and_lines_are_read() {
        let both = [r#"{"a":[1]}"#, r#"{"b":2}"#];
        for text in [
            "[\n{\"a\":[1]},\n{\"b\":2}\n]\n",
            "[{\"a\":[1]},\n {\"b\":2}]",
            "[\n{\"a\":[1]}\n,{\"b\":2}\n]",
            "{\"a\":[1]}\n\n{\"b\":2}\n",
            "[{\"a\":[1]}, {\"b\":2}]\n",
        ] {
            assert_eq!(documents(text), both, "{text}");
        }
        assert_eq!(documents("[]\n"), [] as [&str; 0]);
        assert_eq!(documents(""), [] as [&str; 0]);
    }

    #[test]
    fn a_file_that_breaks_off_is_told() {
        let found = documents("[\n{\"a\":1},\n{\"b\"");
        assert_eq!(found, [r#"{"a":1}"#, r#"{"b""#, "4: the list does not end: the file is not whole"]);
    }

    #[test]
    fn an_older_version_beside_a_newer_one_is_known_by_its_name() {
        let newer = |name: &str| newer(Path::new(name)).map(|path| path.display().to_string());
        assert_eq!(newer("out/a_b.20260131_235959.json").as_deref(), Some("out/a_b.json"));
        assert_eq!(newer("out/a_b.json"), None);
        assert_eq!(newer("out/a.b.json"), None);
        assert_eq!(newer("a_b.20260131_235959.jsonl.zst").as_deref(), Some("a_b.jsonl.zst"));
    }
}
