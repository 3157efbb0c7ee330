//! What a value of CloudTail's configuration means.
//!
//! CloudTail guessed it: with a `*` it took a value for a wildcard pattern; else with any of `. ^ $ + ? { } [ ] | ( )`
//! for a regular expression, of which a match at the beginning was enough; else for the value itself. So each value
//! with a dot in it, and that is each source of events and each of Azure's operations, was a regular expression.

/// How a value is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pattern {
    Is(String),
    Like(String),
    Regex(String),
}

/// What makes a value a regular expression for CloudTail.
const SPECIAL: [char; 14] = ['.', '^', '$', '+', '?', '{', '}', '[', ']', '|', '(', ')', '*', '\\'];

/// The pattern that a value means, and what is to be said of it.
pub(super) fn pattern(value: &str) -> (Pattern, Option<&'static str>) {
    let has = |special: &[char]| value.contains(special);
    let whole = value.to_owned();
    if value.contains('*') {
        return of_wildcards(value);
    }
    if !has(&SPECIAL[..12]) {
        return (Pattern::Is(whole), None);
    }
    if !has(&SPECIAL[1..]) {
        if is_complete(value) {
            let note =
                "CloudTail took the value for a regular expression, for its dots; here it is the value itself (`is`)";
            return (Pattern::Is(whole), Some(note));
        }
        let note = "CloudTail took the value for a regular expression, for its dots, and for the beginning of what it looks \
                    for; here it is written as such (`like`, with a `*` at its end)";
        return (Pattern::Like(format!("{value}*")), Some(note));
    }
    if value.contains('@') && !has(&['^', '$', '?', '{', '}', '[', ']', '|', '(', ')', '\\']) {
        let note = "CloudTail took the address for a regular expression; here it is the value itself (`is`)";
        return (Pattern::Is(whole), Some(note));
    }
    let note = "CloudTail took the value for a regular expression by its characters; here it is marked as one (`regex`). As \
                there, it must match at the beginning of what it looks for, and need not match all of it";
    (Pattern::Regex(at_beginning(value)), Some(note))
}

/// Whether a value with dots looks whole, and not like the beginning of one.
fn is_complete(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    let last = lower.rsplit('/').next().unwrap_or_default();
    let is_operation = lower.contains('/') && ["write", "delete", "action", "read"].contains(&last);
    let is_address = value.contains('@') || value.parse::<std::net::Ipv4Addr>().is_ok();
    is_operation || is_address || lower.ends_with(".amazonaws.com")
}

fn of_wildcards(value: &str) -> (Pattern, Option<&'static str>) {
    if value.starts_with(".*") || value.contains(['^', '$', '+', '{', '}', '|', '(', ')', '\\']) {
        let note = "CloudTail took the regular expression for a wildcard pattern, for its `*`, and so found nothing with \
                    it; here it is a regular expression (`regex`), and finds what it says";
        return (Pattern::Regex(at_beginning(value)), Some(note));
    }
    if !value.contains('[') {
        return (Pattern::Like(value.to_owned()), None);
    }
    let note = "the wildcard pattern has `[...]`, which `like` does not know; here it is a regular expression (`regex`) \
                that means the same";
    (Pattern::Regex(of_glob(value)), Some(note))
}

/// A regular expression that matches at the beginning only.
fn at_beginning(expression: &str) -> String {
    let is_so = (expression.starts_with('^') || expression.starts_with(".*")) && !expression.contains('|');
    if is_so { expression.to_owned() } else { format!("^(?:{expression})") }
}

/// The regular expression of a shell's pattern.
fn of_glob(glob: &str) -> String {
    let mut regex = String::from("(?s)^");
    let mut rest = glob.chars();
    while let Some(c) = rest.next() {
        match c {
            '*' => regex.push_str(".*"),
            '?' => regex.push('.'),
            '[' => match class(rest.as_str()) {
                Some((class, after)) => {
                    regex.push_str(&class);
                    rest = after.chars();
                }
                None => regex.push_str("\\["),
            },
            c => regex.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    regex.push('$');
    regex
}

/// The class of characters that a pattern goes on with after `[`, and what follows it. The first character belongs to
/// it even if it is `]`.
fn class(rest: &str) -> Option<(String, &str)> {
    let (not, inner) = rest.strip_prefix('!').map_or(("", rest), |inner| ("^", inner));
    let first = inner.chars().next()?.len_utf8();
    let end = first + inner.get(first..)?.find(']')?;
    let members: String = inner[..end]
        .chars()
        .map(|c| if matches!(c, '[' | ']' | '\\' | '^' | '&' | '~') { format!("\\{c}") } else { c.to_string() })
        .collect();
    Some((format!("[{not}{members}]"), &inner[end + 1..]))
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    #[test]
    fn values_become_what_they_mean() {
        let is = |value: &str| Pattern::Is(value.to_owned());
        let like = |value: &str| Pattern::Like(value.to_owned());
        let regex = |value: &str| Pattern::Regex(value.to_owned());
        for (value, wanted, is_told) in [
            ("CreateUser", is("CreateUser"), false),
            ("arn:aws:iam::1:user/me", is("arn:aws:iam::1:user/me"), false),
            ("Delete*", like("Delete*"), false),
            ("s3.*", like("s3.*"), false),
            ("Microsoft.Compute/*", like("Microsoft.Compute/*"), false),
            ("s3.amazonaws.com", is("s3.amazonaws.com"), true),
            ("Microsoft.Compute/virtualMachines/write", is("Microsoft.Compute/virtualMachines/write"), true),
            ("10.0.0.1", is("10.0.0.1"), true),
            ("some.body@example.com", is("some.body@example.com"), true),
            ("some+body@example.com", is("some+body@example.com"), true),
            ("Microsoft.Compute", like("Microsoft.Compute*"), true),
            ("^(Create|Delete)User$", regex("^(?:^(Create|Delete)User$)"), true),
            ("Create(User|Role)", regex("^(?:Create(User|Role))"), true),
            ("^Create", regex("^Create"), true),
            (".*User$", regex(".*User$"), true),
            ("[CD]*User", regex("(?s)^[CD].*User$"), true),
        ] {
            let (found, note) = pattern(value);
            assert_eq!((&found, note.is_some()), (&wanted, is_told), "{value}");
        }
    }

    /// What the shell's patterns match, by the rules of Python's `fnmatch`.
    #[test]
    fn classes_of_wildcard_patterns_mean_the_same() {
        for (glob, matching, others) in [
            ("[CD]*User", &["CreateUser", "DUser"][..], &["createUser", "CreateUsers"][..]),
            ("[!a-c]x*", &["dx", "-xy"], &["ax", "x"]),
            ("[]a]*", &["]", "a."], &["b"]),
            ("a[*", &["a[", "a[b"], &["a", "ab"]),
            ("[^a]*?", &["^b", "ab"], &["b", "^"]),
        ] {
            let regex = Regex::new(&of_glob(glob)).unwrap();
            for text in matching {
                assert!(regex.is_match(text), "{glob} {text}");
            }
            for text in others {
                assert!(!regex.is_match(text), "{glob} {text}");
            }
        }
    }
}
