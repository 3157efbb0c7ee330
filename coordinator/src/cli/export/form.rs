//! How events are written.

use std::borrow::Cow;
use std::io::{Error, Result, Write};

use proto::record::RecordView;
use serde_json::Value;

use super::Format;

/// The columns of a table: their names, and where they are in `com`.
const COLUMNS: [(&str, &str); 15] = [
    ("time", "/time"),
    ("event_id", "/event_id"),
    ("account", "/account"),
    ("region", "/region"),
    ("actor_name", "/actor/name"),
    ("actor_id", "/actor/id"),
    ("actor_kind", "/actor/kind"),
    ("actor_address", "/actor/address"),
    ("actor_user_agent", "/actor/user_agent"),
    ("action", "/action"),
    ("resource_id", "/resource/id"),
    ("resource_type", "/resource/type"),
    ("outcome", "/outcome"),
    ("error", "/error"),
    ("rules", "/rules"),
];

/// Writes events, one after another.
pub(super) struct Form {
    format: Format,
    events: u64,
}

impl Form {
    pub(super) fn new(format: Format) -> Self {
        Self { format, events: 0 }
    }

    /// How many there are.
    pub(super) fn events(&self) -> u64 {
        self.events
    }

    pub(super) fn begin(&mut self, out: &mut impl Write) -> Result<()> {
        match self.format {
            Format::Json | Format::Jsonl => Ok(()),
            Format::Csv => row(out, COLUMNS.iter().map(|(name, _)| Cow::Borrowed(*name)).chain(["raw".into()])),
        }
    }

    pub(super) fn event(&mut self, out: &mut impl Write, document: &str) -> Result<()> {
        let view = RecordView::parse(document.as_bytes()).map_err(Error::other)?;
        // Outside of texts, a line's end is but a space.
        let raw: Cow<'_, str> = match view.raw.map(|raw| raw.get()) {
            Some(raw) if raw.contains(['\n', '\r']) => raw.replace(['\n', '\r'], " ").into(),
            Some(raw) => raw.into(),
            None => "null".into(),
        };
        match self.format {
            Format::Json => write!(out, "{}{raw}", if self.events == 0 { "[\n" } else { ",\n" })?,
            Format::Jsonl => writeln!(out, "{raw}")?,
            Format::Csv => {
                let com: Value = match view.com {
                    Some(com) => serde_json::from_str(com.get())?,
                    None => Value::Null,
                };
                let values = COLUMNS.iter().map(|(_, place)| cell(com.pointer(place)));
                row(out, values.chain([raw]))?;
            }
        }
        self.events += 1;
        Ok(())
    }

    pub(super) fn end(&mut self, out: &mut impl Write) -> Result<()> {
        match self.format {
            Format::Json if self.events == 0 => out.write_all(b"[]\n"),
            Format::Json => out.write_all(b"\n]\n"),
            Format::Jsonl | Format::Csv => Ok(()),
        }
    }
}

fn cell(value: Option<&Value>) -> Cow<'_, str> {
    match value {
        None | Some(Value::Null) => "".into(),
        Some(Value::String(text)) => text.into(),
        Some(Value::Array(items)) => items.iter().map(|item| cell(Some(item))).collect::<Vec<_>>().join("; ").into(),
        Some(other) => other.to_string().into(),
    }
}

fn row<'a>(out: &mut impl Write, values: impl Iterator<Item = Cow<'a, str>>) -> Result<()> {
    for (at, value) in values.enumerate() {
        if at > 0 {
            out.write_all(b",")?;
        }
        if value.contains(['"', ',', '\n', '\r']) {
            write!(out, "\"{}\"", value.replace('"', "\"\""))?;
        } else {
            out.write_all(value.as_bytes())?;
        }
    }
    out.write_all(b"\r\n")
}
