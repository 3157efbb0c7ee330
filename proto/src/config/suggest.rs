//! What somebody may have meant.

/// The candidate that a name looks most like, if one is near enough.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let distance = strsim::damerau_levenshtein(&lower, &candidate.to_lowercase());
            let length = name.chars().count().max(candidate.chars().count());
            (distance <= (length / 3).max(1) && distance < length).then_some((distance, candidate))
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// `; did you mean ...?`, or nothing.
#[must_use]
pub fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, candidates).map(|candidate| format!("; did you mean `{candidate}`?")).unwrap_or_default()
}

/// What is wrong with a key that nobody knows: `unknown key ...; did you mean ...? (allowed: ...)`.
#[must_use]
pub fn unknown(what: &str, name: &str, allowed: &[&str]) -> String {
    let hint = did_you_mean(name, allowed.iter().copied());
    if allowed.is_empty() {
        format!("unknown {what} `{name}`; there are none to set")
    } else {
        format!("unknown {what} `{name}`{hint} (allowed: {})", allowed.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_near_is_suggested() {
        let keys = ["plugin", "params", "pool"];
        assert_eq!(nearest("parms", keys), Some("params"));
        assert_eq!(nearest("Plugins", keys), Some("plugin"));
        assert_eq!(nearest("port", keys), None);
        assert_eq!(nearest("x", ["y"]), None);
    }

    #[test]
    fn the_allowed_keys_are_told() {
        assert_eq!(unknown("key", "pol", &["pool"]), "unknown key `pol`; did you mean `pool`? (allowed: pool)");
        assert_eq!(unknown("key", "size", &["pool"]), "unknown key `size` (allowed: pool)");
        assert_eq!(unknown("key", "size", &[]), "unknown key `size`; there are none to set");
    }
}
