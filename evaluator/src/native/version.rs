//! Version numbers: `1.2`, `TLS1_2`, `v11.0.3`.

use std::cmp::Ordering;

/// A version: its numbers, without zeros at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number(Vec<u64>);

/// The most numbers that a version has.
const MAX_PARTS: usize = 8;

/// Reads a version: numbers separated by `.`, `_` or `-`, behind a word or a `v` if there is one. `None` when the text
/// is none: a word behind the numbers (`1.2-beta`) is not understood, for it may mean older or newer.
#[must_use]
pub fn parse(text: &str) -> Option<Number> {
    let digits = text.trim().trim_start_matches(|letter: char| letter.is_ascii_alphabetic());
    let digits =
        if digits.len() < text.trim().len() { digits.trim_start_matches([' ', '_', '-', 'v']) } else { digits };
    let mut parts = Vec::new();
    for part in digits.split(['.', '_', '-']) {
        let plain = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !plain || parts.len() == MAX_PARTS {
            return None;
        }
        parts.push(part.parse().ok()?);
    }
    while parts.last() == Some(&0) {
        parts.pop();
    }
    Some(Number(parts))
}

/// The order of two versions.
#[must_use]
pub fn compare(one: &Number, other: &Number) -> Ordering {
    one.0.cmp(&other.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_number_by_number() {
        let order = |one: &str, other: &str| Some(compare(&parse(one)?, &parse(other)?));
        for (one, other) in
            [("1.0", "1.2"), ("1.2", "1.10"), ("TLS1_1", "1.2"), ("TLSv1.1", "TLS1_2"), ("9.6", "10"), ("0", "1")]
        {
            assert_eq!(order(one, other), Some(Ordering::Less), "{one} {other}");
            assert_eq!(order(other, one), Some(Ordering::Greater), "{one} {other}");
        }
        for (one, other) in [("1.2", "1.2.0"), ("TLS1_2", " 1.2 "), ("2", "2.0"), ("v3", "3"), ("TLS 1.2", "1.2")] {
            assert_eq!(order(one, other), Some(Ordering::Equal), "{one} {other}");
        }
    }

    #[test]
    fn what_is_no_version_is_not_understood() {
        for text in ["", "TLS", "1.", ".1", "1..2", "1.2-beta", "1,2", "nan", "１", "-1.-2", "99999999999999999999999"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
