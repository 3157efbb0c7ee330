//! Writes JSON of any size as it is made, in the order in which it is made.

use std::io::{Result, Write};

const INDENT: &str = "    ";

/// An object that is being written.
pub(super) struct Object<'w, W> {
    out: &'w mut W,
    depth: usize,
    is_empty: bool,
}

impl<'w, W: Write> Object<'w, W> {
    /// Begins an object at a depth.
    pub(super) fn begin(out: &'w mut W, depth: usize) -> Result<Self> {
        out.write_all(b"{")?;
        Ok(Self { out, depth: depth + 1, is_empty: true })
    }

    /// Begins a member: gives where its value is to be written, and how deep that is.
    pub(super) fn member(&mut self, name: &str) -> Result<(&mut W, usize)> {
        self.out.write_all(if self.is_empty { b"\n" } else { b",\n" })?;
        self.is_empty = false;
        self.indent()?;
        text(self.out, name)?;
        self.out.write_all(b": ")?;
        Ok((self.out, self.depth))
    }

    /// A member whose value is JSON already.
    pub(super) fn raw(&mut self, name: &str, json: &str) -> Result<()> {
        compact(self.member(name)?.0, json)
    }

    /// A member whose value is a text.
    pub(super) fn text(&mut self, name: &str, value: &str) -> Result<()> {
        text(self.member(name)?.0, value)
    }

    /// Ends it.
    pub(super) fn end(mut self) -> Result<()> {
        if !self.is_empty {
            self.depth -= 1;
            self.out.write_all(b"\n")?;
            self.indent()?;
        }
        self.out.write_all(b"}")
    }

    fn indent(&mut self) -> Result<()> {
        (0..self.depth).try_for_each(|_| self.out.write_all(INDENT.as_bytes()))
    }
}

fn text(out: &mut impl Write, value: &str) -> Result<()> {
    Ok(serde_json::to_writer(out, value)?)
}

/// Writes JSON in one line, whatever its own layout.
fn compact(out: &mut impl Write, json: &str) -> Result<()> {
    if !json.contains('\n') {
        return out.write_all(json.as_bytes());
    }
    let (mut in_text, mut escaped, mut from) = (false, false, 0);
    let bytes = json.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        if in_text {
            in_text = escaped || *byte != b'"';
            escaped = !escaped && *byte == b'\\';
        } else if byte.is_ascii_whitespace() {
            out.write_all(&bytes[from..at])?;
            from = at + 1;
        } else {
            in_text = *byte == b'"';
            if matches!(byte, b',' | b':') {
                out.write_all(&bytes[from..=at])?;
                out.write_all(b" ")?;
                from = at + 1;
            }
        }
    }
    out.write_all(&bytes[from..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_in_one_line() {
        let mut out = Vec::new();
        compact(&mut out, "{\n  \"a\\\" \\\\\": [ 1,\n\"b : ,\"],\r\n\t\"c\":null }\n").unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), r#"{"a\" \\": [1, "b : ,"], "c": null}"#);
    }

    #[test]
    fn objects_are_indented() {
        let mut out = Vec::new();
        let mut object = Object::begin(&mut out, 0).unwrap();
        object.text("a", "x\"").unwrap();
        let (inner, depth) = object.member("b").unwrap();
        let mut b = Object::begin(inner, depth).unwrap();
        b.raw("c", "[1]").unwrap();
        b.end().unwrap();
        let (inner, depth) = object.member("d").unwrap();
        Object::begin(inner, depth).unwrap().end().unwrap();
        object.end().unwrap();
        let wanted = "{\n    \"a\": \"x\\\"\",\n    \"b\": {\n        \"c\": [1]\n    },\n    \"d\": {}\n}";
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
    }
}
