//! Destination ports: tokens such as `22`, `8000-8100` and `*`, and which of a set of ports they open.

use std::ops::RangeInclusive;

/// Reads one token: a port, a range with both ends included, or a word for all ports. An end above 65535 is cut off
/// there. `None` when the token names no port at all.
#[must_use]
pub fn parse(token: &str) -> Option<RangeInclusive<u16>> {
    let token = token.trim();
    if is_all(token) {
        return Some(0..=u16::MAX);
    }
    let (first, last) = token.split_once('-').unwrap_or((token, token));
    let first = u16::try_from(number(first)?).ok()?;
    let last = u16::try_from(number(last)?).unwrap_or(u16::MAX);
    (first <= last).then_some(first..=last)
}

fn is_all(token: &str) -> bool {
    token == "*" || token.eq_ignore_ascii_case("all") || token.eq_ignore_ascii_case("any")
}

/// ASCII digits and nothing else; a number too large for the type is as large as the type allows.
fn number(digits: &str) -> Option<u64> {
    let digits = digits.trim();
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// Those of `ports`, which must be sorted, that lie in one of the ranges.
#[must_use]
pub fn within(ports: &[u16], mut ranges: Vec<RangeInclusive<u16>>) -> Vec<u16> {
    ranges.sort_unstable_by_key(|range| *range.start());
    let mut ranges = ranges.into_iter().peekable();
    // The furthest end of the ranges that begin at or before the port: it alone decides.
    let mut reach = None;
    let mut found = Vec::new();
    for &port in ports {
        while let Some(range) = ranges.next_if(|range| *range.start() <= port) {
            reach = reach.max(Some(*range.end()));
        }
        if reach >= Some(port) {
            found.push(port);
        }
    }
    found
}

/// At most so many ports stand in a sentence.
const LISTED: usize = 20;

/// The ports as a part of a sentence: `port 22`, `ports 22 and 3389`, `ports 22, 1433, and 3389`.
#[must_use]
pub fn phrase(ports: &[u16]) -> String {
    let mut items: Vec<String> = ports.iter().take(LISTED).map(u16::to_string).collect();
    if ports.len() > LISTED {
        items.push(format!("{} more", ports.len() - LISTED));
    }
    let noun = if ports.len() == 1 { "port" } else { "ports" };
    match items.as_slice() {
        [] => "no ports".to_owned(),
        [only] => format!("{noun} {only}"),
        [first, second] => format!("{noun} {first} and {second}"),
        [rest @ .., last] => format!("{noun} {}, and {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_name_ports() {
        let cases = [
            ("22", 22..=22),
            ("022", 22..=22),
            (" 22 ", 22..=22),
            ("0", 0..=0),
            ("8000-8100", 8000..=8100),
            ("1 - 2", 1..=2),
            ("*", 0..=65535),
            ("Any", 0..=65535),
            ("ALL", 0..=65535),
            ("0-65535", 0..=65535),
            ("60000-70000", 60000..=65535),
            ("60000-99999999999999999999999999", 60000..=65535),
        ];
        for (token, range) in cases {
            assert_eq!(parse(token), Some(range), "{token}");
        }
    }

    #[test]
    fn tokens_that_name_none() {
        for token in [
            "", "-", "22-", "-22", "-1", "22-80-90", "80-22", "1e3", "0x16", "+22", "2²", "２２", "ssh", "65536", "2 2",
        ] {
            assert_eq!(parse(token), None, "{token}");
        }
        assert_eq!(parse(&"9".repeat(1 << 20)), None);
    }

    #[test]
    fn ports_in_ranges_are_found_as_by_looking_at_each() {
        let mut state = 1_u64;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            u16::try_from((state >> 33) % below).unwrap()
        };
        for _ in 0..2_000 {
            let mut ports: Vec<u16> = (0..next(8)).map(|_| next(40)).collect();
            ports.sort_unstable();
            ports.dedup();
            let ranges: Vec<_> =
                (0..next(6)).map(|_| (next(40), next(6))).map(|(first, more)| first..=first + more).collect();
            let each: Vec<u16> =
                ports.iter().copied().filter(|port| ranges.iter().any(|range| range.contains(port))).collect();
            assert_eq!(within(&ports, ranges.clone()), each, "{ports:?} in {ranges:?}");
        }
    }

    #[test]
    fn a_sentence_lists_its_ports() {
        assert_eq!(phrase(&[]), "no ports");
        assert_eq!(phrase(&[22]), "port 22");
        assert_eq!(phrase(&[22, 3389]), "ports 22 and 3389");
        assert_eq!(phrase(&[22, 1433, 3389]), "ports 22, 1433, and 3389");
        let many: Vec<u16> = (1..=1000).collect();
        assert!(phrase(&many).ends_with("19, 20, and 980 more"), "{}", phrase(&many));
    }
}
