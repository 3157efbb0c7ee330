//! Reads the answers of the API into the few members that a record is made of.
//!
//! A member that is missing or null is missing: the record says so. One of another type than the API promises is
//! something that nobody has understood yet: it costs the resource its record, and nothing else.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::resource::Malformed;

/// An item of a list. `what` names it in errors.
pub(super) fn item<'a, T: Deserialize<'a>>(what: &str, raw: &'a RawValue) -> Result<T, Malformed> {
    serde_json::from_str(raw.get()).map_err(|error| Malformed::of(what, raw, &error))
}

/// Something that belongs to the resource `id`: the answer to a call of its own, or an item of a list below it.
pub(super) fn part<'a, T: Deserialize<'a>>(what: &str, id: &str, raw: &'a RawValue) -> Result<T, Malformed> {
    serde_json::from_str(raw.get()).map_err(|error| Malformed(format!("{what} of {id} cannot be understood: {error}")))
}

/// The name of a resource: how its id ends.
pub(super) fn name_of(id: &str) -> Option<&str> {
    id.rsplit('/').next().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_how_the_id_ends() {
        assert_eq!(name_of("/subscriptions/s/providers/Microsoft.Sql/servers/Db-1"), Some("Db-1"));
        assert_eq!(name_of("Db-1"), Some("Db-1"));
        assert_eq!(name_of(""), None);
        assert_eq!(name_of("/servers/"), None);
    }
}
