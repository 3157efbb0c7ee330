//! Who a record, an event and a finding is, whatever happens to the messages that carry it.
//!
//! Ids are made of what they stand for, so that a redelivery, a second attempt or a second run of a version writes
//! the same document again instead of another one.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::subject::{Key, Version};

/// The first 128 bits of a SHA-256 over length-prefixed fields, written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(u128);

impl Id {
    /// Reads the hexadecimal form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)))
            .then(|| u128::from_str_radix(text, 16).ok().map(Self))
            .flatten()
    }

    /// The digest of a message's body, of the same shape as an id.
    #[must_use]
    pub fn digest(body: &[u8]) -> Self {
        Self::first_bits(Sha256::new_with_prefix(body))
    }

    /// The 128 bits.
    #[must_use]
    pub fn bits(self) -> u128 {
        self.0
    }

    /// The 32 hexadecimal digits, as bytes.
    #[must_use]
    pub fn hex(self) -> [u8; 32] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 32];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0.to_be_bytes()) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        text
    }

    fn first_bits(hasher: Sha256) -> Self {
        let digest = hasher.finalize();
        let mut bits = [0; 16];
        bits.copy_from_slice(&digest[..16]);
        Self(u128::from_be_bytes(bits))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Makes ids whose first fields are the same, hashing those once.
#[derive(Clone)]
pub struct IdMaker(Sha256);

impl fmt::Debug for IdMaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdMaker")
    }
}

impl IdMaker {
    /// Ids of the records that a cloud plugin makes in a version: over (audit, version, plugin, type, key).
    #[must_use]
    pub fn of_records(audit: &Key, version: &Version, plugin: &Key) -> Self {
        Self(Sha256::new()).field(audit.as_str()).field(version.as_str()).field(plugin.as_str())
    }

    /// Ids of records of permanent lifetime (activity logs): over (audit, type, key), the same in every version.
    #[must_use]
    pub fn of_permanent_records(audit: &Key) -> Self {
        Self(Sha256::new()).field(audit.as_str())
    }

    /// Ids of the events that an event plugin makes in a version: over (audit, version, plugin, event type, the
    /// source's key, sub-key).
    #[must_use]
    pub fn of_events(audit: &Key, version: &Version, plugin: &Key) -> Self {
        Self::of_records(audit, version, plugin)
    }

    /// Ids of findings: those of events without the version, so that a finding keeps its id from run to run.
    #[must_use]
    pub fn of_findings(audit: &Key, plugin: &Key) -> Self {
        Self(Sha256::new()).field(audit.as_str()).field(plugin.as_str())
    }

    /// The id of the thing that has these further fields.
    #[must_use]
    pub fn id(&self, fields: &[&str]) -> Id {
        Id::first_bits(fields.iter().fold(self.clone(), |maker, field| maker.field(field)).0)
    }

    fn field(mut self, field: &str) -> Self {
        self.0.update((field.len() as u64).to_be_bytes());
        self.0.update(field.as_bytes());
        self
    }
}

/// The ids that a reader has seen. About 14 bytes an id: ids are spread evenly by their making, so many short sorted
/// lists hold them tighter than a hash table would, and 108 of their bits tell them apart (ten million ids collide
/// with a probability of 10^-19).
#[derive(Debug)]
pub struct IdSet {
    /// By the first 12 bits; the next 96 stand in the list.
    shards: Vec<Vec<[u32; 3]>>,
    len: u64,
}

const SHARD_BITS: u32 = 12;

impl Default for IdSet {
    fn default() -> Self {
        Self { shards: vec![Vec::new(); 1 << SHARD_BITS], len: 0 }
    }
}

impl IdSet {
    /// Adds an id; false when it was there.
    pub fn insert(&mut self, id: Id) -> bool {
        let bits = id.bits();
        let word = |lowest: u32| (bits >> lowest & u128::from(u32::MAX)) as u32;
        let rest = [word(128 - SHARD_BITS - 32), word(128 - SHARD_BITS - 64), word(128 - SHARD_BITS - 96)];
        let Some(shard) = usize::try_from(bits >> (128 - SHARD_BITS)).ok().and_then(|at| self.shards.get_mut(at))
        else {
            return true; // cannot be: the top bits are below the number of shards
        };
        let Err(place) = shard.binary_search(&rest) else { return false };
        if shard.len() == shard.capacity() {
            shard.reserve_exact(shard.len() / 16 + 4);
        }
        shard.insert(place, rest);
        self.len += 1;
        true
    }

    /// How many ids were added.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether none was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maker() -> IdMaker {
        IdMaker::of_records(
            &Key::new("audit").unwrap(),
            &Version::new("20260131_235959").unwrap(),
            &Key::new("plugin").unwrap(),
        )
    }

    #[test]
    fn an_id_is_the_documented_hash() {
        let mut bytes = Vec::new();
        for field in ["audit", "20260131_235959", "plugin", "type", "key"] {
            bytes.extend((field.len() as u64).to_be_bytes());
            bytes.extend(field.as_bytes());
        }
        let whole = Sha256::digest(&bytes);
        let expected: String = whole[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        let id = maker().id(&["type", "key"]);
        assert_eq!(id.to_string(), expected);
        assert_eq!(id.hex(), expected.as_bytes());
        assert_eq!(Id::parse(&expected), Some(id));
    }

    #[test]
    fn fields_do_not_run_together() {
        assert_ne!(maker().id(&["ab", "c"]), maker().id(&["a", "bc"]));
    }

    #[test]
    fn a_set_knows_what_it_has_seen() {
        let mut set = IdSet::default();
        let ids: Vec<Id> = (0..50_000).map(|n| maker().id(&["t", &n.to_string()])).collect();
        assert!(ids.iter().all(|id| set.insert(*id)));
        assert!(ids.iter().all(|id| !set.insert(*id)));
        assert_eq!(set.len(), 50_000);
    }
}
