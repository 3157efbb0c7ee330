//! All findings as a file: JSON for programs, CSV for spreadsheets, compressed when they are many, and bounded.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::digest::Digest;
use crate::event::Finding;

/// Events up to this size in all go uncompressed.
const PLAIN: u64 = 1024 * 1024;

/// The form of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A JSON array of the events as they came.
    Json,
    /// A line for each finding.
    Csv,
}

/// A file with findings.
#[derive(Debug, Clone)]
pub struct Listing {
    /// Its name.
    pub name: String,
    /// Its media type.
    pub media_type: &'static str,
    /// Its content.
    pub content: Vec<u8>,
    /// How many findings are in it.
    pub findings: u64,
}

enum Output {
    Plain(Vec<u8>),
    Packed(GzEncoder<Vec<u8>>),
}

impl Output {
    fn written(&self) -> usize {
        match self {
            Self::Plain(content) => content.len(),
            Self::Packed(encoder) => encoder.get_ref().len(),
        }
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(content) => content.write_all(text),
            Self::Packed(encoder) => encoder.write_all(text),
        }
    }

    fn end(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Plain(content) => Ok(content),
            Self::Packed(encoder) => encoder.finish(),
        }
    }
}

impl Listing {
    /// All findings of a digest, the worst first, as many as go into about this many bytes.
    ///
    /// # Errors
    /// When an event cannot be read.
    pub fn of(digest: &Digest, form: Form, most: usize) -> io::Result<Self> {
        let packed = digest.bytes() > PLAIN.min(most as u64 / 2);
        let mut output = if packed {
            Output::Packed(GzEncoder::new(Vec::new(), Compression::default()))
        } else {
            Output::Plain(Vec::new())
        };
        output.write(match form {
            Form::Json => b"[",
            Form::Csv => CSV_HEAD.as_bytes(),
        })?;
        let mut findings = 0;
        for place in 0..digest.entries() {
            if output.written() >= most {
                break;
            }
            match form {
                Form::Json => {
                    output.write(if place == 0 { b"\n" } else { b",\n" })?;
                    output.write(&digest.event(place)?)?;
                }
                Form::Csv => output.write(csv(&digest.finding(place)?).as_bytes())?,
            }
            findings += 1;
        }
        if form == Form::Json {
            output.write(b"\n]\n")?;
        }
        let about = &digest.about;
        let (ending, media_type) = match (form, packed) {
            (Form::Json, false) => ("json", "application/json"),
            (Form::Csv, false) => ("csv", "text/csv; charset=utf-8"),
            (Form::Json, true) => ("json.gz", "application/gzip"),
            (Form::Csv, true) => ("csv.gz", "application/gzip"),
        };
        let name = format!("findings_{}_{}.{ending}", safe(about.audit.as_str()), about.version);
        Ok(Self { name, media_type, content: output.end()?, findings })
    }
}

/// A name that is one for every file system.
fn safe(name: &str) -> String {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    name.chars().map(|c| if is_safe(c) { c } else { '_' }).take(60).collect()
}

/// Excel takes a file for UTF-8 by the mark at its beginning.
const CSV_HEAD: &str = "\u{feff}severity,rule,title,cloud,account,type,resource,resource_id,region,description,recommendation,finding_id,id\r\n";

fn csv(finding: &Finding) -> String {
    let id = finding.id.to_string();
    let cells = [
        finding.severity.as_str(),
        &finding.rule,
        &finding.title,
        &finding.cloud,
        &finding.account,
        &finding.kind,
        &finding.resource,
        &finding.resource_id,
        &finding.region,
        &finding.description,
        &finding.recommendation,
        &finding.finding_id,
        &id,
    ];
    let mut text = String::new();
    for (place, value) in cells.into_iter().enumerate() {
        if place > 0 {
            text.push(',');
        }
        text.push_str(&cell(value));
    }
    text.push_str("\r\n");
    text
}

/// A cell that no spreadsheet takes for a formula.
fn cell(value: &str) -> String {
    let is_formula = value.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let quote = if is_formula { "'" } else { "" };
    if is_formula || value.contains([',', '"', '\n', '\r', ';']) {
        format!("\"{quote}{}\"", value.replace('"', "\"\""))
    } else {
        value.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use serde_json::Value;

    use super::*;
    use crate::digest::tests::event;
    use crate::outcome::Outcome;

    #[test]
    fn all_events_are_in_it_as_they_came() {
        let events: Vec<Value> = (0..5).map(|n| event(n, "high", "r", "a")).collect();
        let digest = Digest::of_events(&events, Outcome::unknown());
        let listing = Listing::of(&digest, Form::Json, 1 << 20).unwrap();
        assert_eq!((listing.name.as_str(), listing.findings), ("findings_prod_20260131_235959.json", 5));
        assert_eq!(serde_json::from_slice::<Vec<Value>>(&listing.content).unwrap(), events);
        let csv = Listing::of(&digest, Form::Csv, 1 << 20).unwrap();
        let text = String::from_utf8(csv.content).unwrap();
        assert_eq!(text.lines().count(), 6);
        assert!(text.contains("high,r,r ought,azure,a,nsg,thing-3,/things/3,eu,The thing 3 is open.,Close it.,f3,"));
        let none = Listing::of(&Digest::of_nothing().unwrap(), Form::Json, 1 << 20).unwrap();
        assert_eq!(serde_json::from_slice::<Vec<Value>>(&none.content).unwrap(), Vec::<Value>::new());
    }

    #[test]
    fn many_are_packed_and_too_many_are_cut() {
        let events: Vec<Value> = (0..4000).map(|n| event(n, "high", "r", "a")).collect();
        let digest = Digest::of_events(&events, Outcome::unknown());
        let unpacked = |listing: &Listing| {
            let mut text = String::new();
            GzDecoder::new(&listing.content[..]).read_to_string(&mut text).unwrap();
            serde_json::from_str::<Vec<Value>>(&text).unwrap().len() as u64
        };
        let all = Listing::of(&digest, Form::Json, 4 << 20).unwrap();
        assert!(all.name.ends_with(".json.gz") && all.findings == 4000 && unpacked(&all) == 4000);
        let cut = Listing::of(&digest, Form::Json, 10_000).unwrap();
        assert!(cut.findings < 4000 && cut.findings > 10 && unpacked(&cut) == cut.findings, "{}", cut.findings);
        assert!(cut.content.len() < 100_000);
    }

    #[test]
    fn a_cell_is_no_formula() {
        assert_eq!(cell("=cmd()"), "\"'=cmd()\"");
        assert_eq!(cell("a \"b\", c"), "\"a \"\"b\"\", c\"");
        assert_eq!(cell("plain"), "plain");
    }
}
