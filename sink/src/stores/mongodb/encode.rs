//! Documents as BSON, straight from their text, so that nothing of them is lost on the way.
//!
//! - An integer is an `int` or a `long`; beyond 64 bits it is a `decimal`.
//! - Any other number is a `double` where that gives the same digits back, else a `decimal`.
//! - What BSON or the server has no form for gets the nearest one, and the document's exact text stands beside it in
//!   the field [`EXACT`]: numbers of more digits than a `decimal` has become strings; a NUL in a key becomes `␀`; a
//!   key at the top that the server has a meaning for (`_id`, `$…`) gets a `_` before it; what is nested deeper than
//!   [`MAX_DEPTH`] becomes a string of JSON; half of a surrogate pair becomes `\u{FFFD}`.
//!
//! Objects such as `{"$oid": …}` are what they are: nothing is read as "extended JSON".

use std::borrow::Cow;

use mongodb::bson::Decimal128;

/// Where a document's exact text stands when BSON cannot say all of it.
pub(super) const EXACT: &str = "_json";

/// How deep MongoDB takes documents, the document itself counted.
const MAX_DEPTH: usize = 100;

/// Types of BSON elements.
mod kind {
    pub(super) const DOUBLE: u8 = 0x01;
    pub(super) const STRING: u8 = 0x02;
    pub(super) const DOCUMENT: u8 = 0x03;
    pub(super) const ARRAY: u8 = 0x04;
    pub(super) const BOOLEAN: u8 = 0x08;
    pub(super) const NULL: u8 = 0x0a;
    pub(super) const INT: u8 = 0x10;
    pub(super) const LONG: u8 = 0x12;
    pub(super) const DECIMAL: u8 = 0x13;
}

/// BSON that is being written.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

/// A document or array that is not yet ended.
#[derive(Debug)]
#[must_use = "it has to be ended"]
pub(super) struct Open(usize);

impl Writer {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Forgets all that was written after the length was this.
    pub(super) fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    /// Begins a document that is no element of another.
    pub(super) fn open(&mut self) -> Open {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        Open(start)
    }

    pub(super) fn open_document(&mut self, key: &str) -> Open {
        self.element(kind::DOCUMENT, key);
        self.open()
    }

    pub(super) fn open_array(&mut self, key: &str) -> Open {
        self.element(kind::ARRAY, key);
        self.open()
    }

    pub(super) fn end(&mut self, open: Open) {
        self.0.push(0);
        // A document of more than 2 GiB is refused for its size before anybody reads this.
        let length = i32::try_from(self.0.len() - open.0).unwrap_or(i32::MAX);
        if let Some(place) = self.0.get_mut(open.0..open.0 + 4) {
            place.copy_from_slice(&length.to_le_bytes());
        }
    }

    pub(super) fn string(&mut self, key: &str, value: &str) {
        self.element(kind::STRING, key);
        self.text(value);
    }

    pub(super) fn boolean(&mut self, key: &str, value: bool) {
        self.element(kind::BOOLEAN, key);
        self.0.push(u8::from(value));
    }

    pub(super) fn integer(&mut self, key: &str, value: i64) {
        if let Ok(int) = i32::try_from(value) {
            self.element(kind::INT, key);
            self.0.extend_from_slice(&int.to_le_bytes());
        } else {
            self.element(kind::LONG, key);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    /// A whole document as an element of another.
    pub(super) fn document(&mut self, key: &str, bson: &[u8]) {
        self.element(kind::DOCUMENT, key);
        self.0.extend_from_slice(bson);
    }

    fn double(&mut self, key: &str, value: f64) {
        self.element(kind::DOUBLE, key);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn decimal(&mut self, key: &str, value: Decimal128) {
        self.element(kind::DECIMAL, key);
        self.0.extend_from_slice(&value.bytes());
    }

    fn null(&mut self, key: &str) {
        self.element(kind::NULL, key);
    }

    fn element(&mut self, kind: u8, key: &str) {
        self.0.push(kind);
        self.0.extend_from_slice(key.as_bytes());
        self.0.push(0);
    }

    fn text(&mut self, value: &str) {
        let length = i32::try_from(value.len() + 1).unwrap_or(i32::MAX);
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(0);
    }
}

/// Appends a document with this id. The error says what is wrong with its text; what was written is then of no use.
pub(super) fn write(bson: &mut Writer, id: &str, body: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(body).map_err(|error| format!("it is not UTF-8: {error}"))?;
    let mut reader = Reader { text, bytes: body, at: 0, exact: true };
    let open = bson.open();
    bson.string("_id", id);
    reader.skip_space();
    if reader.peek() != Some(b'{') {
        return Err("it is not a JSON object".to_owned());
    }
    reader.members(bson, 1)?;
    reader.skip_space();
    if reader.at < body.len() {
        return Err(reader.wrong("the end"));
    }
    if !reader.exact {
        bson.string(EXACT, text);
    }
    bson.end(open);
    Ok(())
}

/// Reads JSON, and writes it as BSON.
struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// Whether all so far has a form of its own in BSON.
    exact: bool,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn wrong(&self, expected: &str) -> String {
        format!("it is not JSON: {expected} is expected at byte {}", self.at)
    }

    fn eat(&mut self, byte: u8, expected: &str) -> Result<(), String> {
        self.skip_space();
        if self.peek() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            Err(self.wrong(expected))
        }
    }

    /// The members of an object, with its braces. `depth` counts the object.
    fn members(&mut self, bson: &mut Writer, depth: usize) -> Result<(), String> {
        self.eat(b'{', "`{`")?;
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.skip_space();
            let key = self.string()?;
            let key = self.usable(key, depth);
            self.eat(b':', "`:`")?;
            self.value(bson, &key, depth)?;
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err(self.wrong("`,` or `}`")),
            }
        }
        self.at += 1;
        Ok(())
    }

    /// The items of an array, with its brackets.
    fn items(&mut self, bson: &mut Writer, depth: usize) -> Result<(), String> {
        self.eat(b'[', "`[`")?;
        self.skip_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        let mut digits = [0; 20];
        for index in 0_usize.. {
            self.value(bson, decimal_digits(index, &mut digits), depth)?;
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err(self.wrong("`,` or `]`")),
            }
        }
        self.at += 1;
        Ok(())
    }

    /// Any value. `depth` is that of the object or array that it stands in.
    fn value(&mut self, bson: &mut Writer, key: &str, depth: usize) -> Result<(), String> {
        self.skip_space();
        match self.peek() {
            Some(b'"') => {
                let value = self.string()?;
                bson.string(key, &value);
            }
            Some(b'{' | b'[') if depth >= MAX_DEPTH => {
                let start = self.at;
                self.skip_nested()?;
                self.exact = false;
                bson.string(key, self.text.get(start..self.at).unwrap_or_default());
            }
            Some(b'{') => {
                let open = bson.open_document(key);
                self.members(bson, depth + 1)?;
                bson.end(open);
            }
            Some(b'[') => {
                let open = bson.open_array(key);
                self.items(bson, depth + 1)?;
                bson.end(open);
            }
            Some(b'-' | b'0'..=b'9') => self.number(bson, key)?,
            Some(b't') => {
                self.word("true")?;
                bson.boolean(key, true);
            }
            Some(b'f') => {
                self.word("false")?;
                bson.boolean(key, false);
            }
            Some(b'n') => {
                self.word("null")?;
                bson.null(key);
            }
            _ => return Err(self.wrong("a value")),
        }
        Ok(())
    }

    fn word(&mut self, word: &str) -> Result<(), String> {
        if self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(word.as_bytes())) {
            self.at += word.len();
            Ok(())
        } else {
            Err(self.wrong("a value"))
        }
    }

    /// Goes to the end of an object or array, without a call for each level.
    fn skip_nested(&mut self) -> Result<(), String> {
        let mut levels = 0_usize;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.string()?;
                    continue;
                }
                Some(b'{' | b'[') => levels += 1,
                Some(b'}' | b']') => levels -= 1,
                Some(_) => {}
                None => return Err(self.wrong("`}` or `]`")),
            }
            self.at += 1;
            if levels == 0 {
                return Ok(());
            }
        }
    }

    /// A string, without its quotes.
    fn string(&mut self) -> Result<Cow<'a, str>, String> {
        if self.peek() != Some(b'"') {
            return Err(self.wrong("a string"));
        }
        self.at += 1;
        let plain = self.plain()?;
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(plain));
        }
        let mut value = plain.to_owned();
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => value.push(self.escaped()?),
                _ => value.push_str(self.plain()?),
            }
        }
        self.at += 1;
        Ok(Cow::Owned(value))
    }

    /// The text to the next quote or backslash.
    fn plain(&mut self) -> Result<&'a str, String> {
        let start = self.at;
        let rest = self.bytes.get(start..).unwrap_or_default();
        match rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) {
            Some(length) => {
                self.at += length;
                Ok(self.text.get(start..self.at).unwrap_or_default())
            }
            None => {
                self.at = self.bytes.len();
                Err(self.wrong("`\"`"))
            }
        }
    }

    fn escaped(&mut self) -> Result<char, String> {
        self.at += 1;
        let escape = self.peek();
        self.at += 1;
        Ok(match escape {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => self.unicode()?,
            _ => return Err(self.wrong("an escape")),
        })
    }

    /// The character of `\uXXXX`, or of two of them.
    fn unicode(&mut self) -> Result<char, String> {
        let first = self.hexadecimal()?;
        if let Some(character) = char::from_u32(first) {
            return Ok(character);
        }
        let after = self.at;
        if first < 0xDC00 && self.bytes.get(after..after + 2) == Some(b"\\u") {
            self.at += 2;
            let second = self.hexadecimal()?;
            if (0xDC00..0xE000).contains(&second) {
                let pair = 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00);
                if let Some(character) = char::from_u32(pair) {
                    return Ok(character);
                }
            }
            self.at = after;
        }
        self.exact = false;
        Ok(char::REPLACEMENT_CHARACTER)
    }

    fn hexadecimal(&mut self) -> Result<u32, String> {
        let mut value = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            value = value * 16 + digit.ok_or_else(|| self.wrong("a hexadecimal digit"))?;
            self.at += 1;
        }
        Ok(value)
    }

    /// A key as it can stand in BSON, and at the top in a document that replaces another.
    fn usable(&mut self, key: Cow<'a, str>, depth: usize) -> Cow<'a, str> {
        let reserved = depth == 1 && (key.starts_with('$') || key == "_id" || key == EXACT);
        if !reserved && !key.as_bytes().contains(&0) {
            return key;
        }
        self.exact = false;
        let key = key.replace('\0', "\u{2400}");
        Cow::Owned(if reserved { format!("_{key}") } else { key })
    }

    fn number(&mut self, bson: &mut Writer, key: &str) -> Result<(), String> {
        let start = self.at;
        let mut whole = true;
        while let Some(byte) = self.peek() {
            match byte {
                b'0'..=b'9' | b'-' => {}
                b'.' | b'e' | b'E' | b'+' => whole = false,
                _ => break,
            }
            self.at += 1;
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        let integer = if whole && text != "-0" { text.parse::<i64>().ok() } else { None };
        if let Some(integer) = integer {
            bson.integer(key, integer);
            return Ok(());
        }
        let double = text.parse::<f64>().map_err(|_| format!("it is not JSON: `{text}` is not a number"))?;
        if (!whole || text == "-0") && is_exact(double, text) {
            bson.double(key, double);
        } else if let Ok(decimal) = text.parse::<Decimal128>() {
            bson.decimal(key, decimal);
        } else {
            self.exact = false;
            bson.string(key, text);
        }
        Ok(())
    }
}

fn decimal_digits(mut number: usize, digits: &mut [u8; 20]) -> &str {
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        if number == 0 {
            break;
        }
    }
    std::str::from_utf8(&digits[start..]).unwrap_or_default()
}

/// Whether a double, written as short as it can be, has just the digits of this text.
fn is_exact(double: f64, text: &str) -> bool {
    double.is_finite() && Digits::of(text).is_some_and(|digits| Some(digits) == Digits::of(&format!("{double:e}")))
}

/// A number as its digits, without zeros at either end, and the power of ten behind `0.<digits>`.
#[derive(Debug, PartialEq, Eq)]
struct Digits {
    negative: bool,
    digits: Vec<u8>,
    power: i64,
}

impl Digits {
    fn of(text: &str) -> Option<Self> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, power) = match text.split_once(['e', 'E']) {
            Some((mantissa, power)) => (mantissa, power.parse::<i64>().ok()?),
            None => (text, 0),
        };
        let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits: Vec<u8> = before.bytes().chain(after.bytes()).collect();
        let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
        digits.drain(..zeros);
        while digits.last() == Some(&b'0') {
            digits.pop();
        }
        let power = if digits.is_empty() {
            0
        } else {
            power.checked_add(i64::try_from(before.len()).ok()?)?.checked_sub(i64::try_from(zeros).ok()?)?
        };
        Some(Self { negative, digits, power })
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::{Bson, Document, doc};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn encoded(body: &str) -> Result<Document, String> {
        let mut bson = Writer::default();
        write(&mut bson, "i", body.as_bytes())?;
        Ok(Document::from_reader(bson.bytes()).unwrap())
    }

    fn value(json: &str) -> Bson {
        encoded(&format!("{{\"v\":{json}}}")).unwrap().remove("v").unwrap()
    }

    #[test]
    fn json_is_bson() {
        let body = r#" {"a" : [1, -2.5, "x\u0000\n\ud83d\ude00é", true, false, null, {}, []], "b":{"$oid":"x","c.d":1},"":2} "#;
        let expected = doc! {
            "_id": "i",
            "a": [1, -2.5, "x\0\n😀é", true, false, null, {}, []],
            "b": {"$oid": "x", "c.d": 1},
            "": 2,
        };
        assert_eq!(encoded(body).unwrap(), expected);
    }

    #[test]
    fn numbers_keep_their_digits() {
        let decimal = |text: &str| Bson::Decimal128(text.parse().unwrap());
        for (json, expected) in [
            ("0", Bson::Int32(0)),
            ("-2147483648", Bson::Int32(i32::MIN)),
            ("2147483648", Bson::Int64(1 << 31)),
            ("9223372036854775807", Bson::Int64(i64::MAX)),
            ("9223372036854775808", decimal("9223372036854775808")),
            ("18446744073709551615", decimal("18446744073709551615")),
            ("-1234567890123456789012345678901234", decimal("-1234567890123456789012345678901234")),
            ("0.1", Bson::Double(0.1)),
            ("1.50", Bson::Double(1.5)),
            ("1E2", Bson::Double(100.0)),
            ("1e+100", Bson::Double(1e100)),
            ("5e-324", Bson::Double(5e-324)),
            ("0.1000000000000000055511151231257827", decimal("0.1000000000000000055511151231257827")),
            ("1e400", decimal("1e400")),
            ("1e-400", decimal("1e-400")),
        ] {
            assert_eq!(value(json), expected, "{json}");
        }
        let Bson::Double(zero) = value("-0") else { panic!("a double has a negative zero") };
        assert!(zero.is_sign_negative());
    }

    #[test]
    fn what_bson_cannot_say_stands_beside_it() {
        let many = "12345678901234567890123456789012345678901";
        let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
        for (body, near) in [
            (format!("{{\"v\":{many}}}"), doc! {"v": many}),
            ("{\"v\":1e99999}".to_owned(), doc! {"v": "1e99999"}),
            (r#"{"v":{"a\u0000b":1}}"#.to_owned(), doc! {"v": {"a␀b": 1}}),
            (
                r#"{"$set":{"$set":1},"_id":5,"_json":6}"#.to_owned(),
                doc! {"_$set": {"$set": 1}, "__id": 5, "__json": 6},
            ),
            (r#"{"v":"\ud800","w":"\udc00\ud83dx"}"#.to_owned(), doc! {"v": "\u{FFFD}", "w": "\u{FFFD}\u{FFFD}x"}),
        ] {
            let mut expected = doc! {"_id": "i"};
            expected.extend(near);
            expected.insert(EXACT, &body);
            assert_eq!(encoded(&body).unwrap(), expected, "{body}");
        }
        let body = format!("{{\"v\":{deep}}}");
        let found = encoded(&body).unwrap();
        assert_eq!(found.get_str(EXACT).unwrap(), body);
        let (mut levels, mut inner) = (1, found.get("v").unwrap());
        while let Bson::Array(items) = inner {
            levels += 1;
            inner = items.first().unwrap();
        }
        assert_eq!((levels, inner.as_str().unwrap()), (MAX_DEPTH, "[]"));
        // No stack is deep enough for this one.
        let deeper = format!("{{\"v\":{}{}}}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert!(encoded(&deeper).is_ok());
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for body in [
            "",
            "[]",
            "1",
            "{",
            "{}}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\":[1,]}",
            "{\"a\":[1 2]}",
            "{\"a\":tru}",
            "{\"a\":\"",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\u12\"}",
            "{\"a\":1-2}",
            "{\"a\":-}",
            "{\"a\":.5}",
            "{a:1}",
            "{\"a\":\"\\",
        ] {
            assert!(encoded(body).is_err(), "{body}");
        }
        assert!(write(&mut Writer::default(), "i", b"{\"a\":\"\xff\"}").unwrap_err().contains("UTF-8"));
        let open = format!("{{\"v\":{}", "[".repeat(1_000_000));
        assert!(encoded(&open).is_err());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_filter("JSON has no such numbers", |number| number.is_finite()).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                proptest::collection::btree_map("[^\\x00]*", inner, 0..8)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn is_same(json: &Value, bson: &Bson) -> bool {
        match (json, bson) {
            (Value::Null, Bson::Null) => true,
            (Value::Bool(json), Bson::Boolean(bson)) => json == bson,
            (Value::String(json), Bson::String(bson)) => json == bson,
            (Value::Number(json), Bson::Int32(bson)) => json.as_i64() == Some((*bson).into()),
            (Value::Number(json), Bson::Int64(bson)) => json.as_i64() == Some(*bson),
            (Value::Number(json), Bson::Double(bson)) => json.as_f64() == Some(*bson) && json.as_i64().is_none(),
            (Value::Array(json), Bson::Array(bson)) => {
                json.len() == bson.len() && json.iter().zip(bson).all(|(json, bson)| is_same(json, bson))
            }
            (Value::Object(json), Bson::Document(bson)) => {
                json.len() == bson.len()
                    && json.iter().all(|(key, json)| bson.get(key).is_some_and(|bson| is_same(json, bson)))
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost(value in any_json()) {
            let found = encoded(&json!({"v": value}).to_string()).unwrap();
            prop_assert_eq!(found.get(EXACT), None);
            prop_assert!(is_same(&value, found.get("v").unwrap()), "{found:?}");
        }

        #[test]
        fn nothing_panics(body in "[{}\\[\\]\",:0-9a-f\\\\u.+-]{0,40}") {
            let _ = encoded(&body);
        }
    }
}
