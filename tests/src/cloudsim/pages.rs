//! Lists in pages, and the opaque tokens that lead from one to the next.

use std::ops::Range;

use serde::Serialize;

use super::random::{Random, mix};

/// One page, as Resource Manager wraps it. The last one has no `nextLink`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page<T> {
    pub(super) value: Vec<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_link: Option<String>,
}

/// The page tokens of one list. They are made from the list and the offset alone, so that a server
/// started again with the same seed knows them; and they fit no other list.
pub(crate) struct SkipTokens {
    key: u64,
}

impl SkipTokens {
    /// The tokens of the list at `place`.
    pub(crate) fn of(seed: u64, place: &[u64]) -> Self {
        let mut random = Random::at(seed, place);
        Self { key: random.next() }
    }

    /// The token of the page that begins at `offset`.
    pub(crate) fn encode(&self, offset: usize) -> String {
        let offset = offset as u64;
        format!("{:016x}{:016x}", offset ^ self.key, self.seal(offset))
    }

    /// The offset that a token stands for; none if it is not a token of this list.
    pub(crate) fn decode(&self, token: &str) -> Option<usize> {
        if token.len() != 32 {
            return None;
        }
        let offset = u64::from_str_radix(token.get(..16)?, 16).ok()? ^ self.key;
        let seal = u64::from_str_radix(token.get(16..)?, 16).ok()?;
        (seal == self.seal(offset)).then(|| usize::try_from(offset).ok()).flatten()
    }

    fn seal(&self, offset: u64) -> u64 {
        mix(offset ^ self.key.rotate_left(17))
    }
}

/// The items of the page at `offset`, and the offset of the next page if there is one.
pub(crate) fn cut(total: usize, offset: usize, size: usize) -> (Range<usize>, Option<usize>) {
    let start = offset.min(total);
    let end = start.saturating_add(size).min(total);
    (start..end, (end < total).then_some(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_token_leads_back_to_its_offset_in_its_own_list_only() {
        let tokens = SkipTokens::of(1, &[2, 3]);
        let token = tokens.encode(450);
        assert_eq!(tokens.decode(&token), Some(450));
        assert_eq!(SkipTokens::of(1, &[2, 4]).decode(&token), None);
        assert_eq!(tokens.decode("450"), None);
        assert_eq!(tokens.decode(&token.replace(&token[..1], "!")), None);
    }

    #[test]
    fn pages_cover_a_list_once() {
        assert_eq!(cut(5, 0, 2), (0..2, Some(2)));
        assert_eq!(cut(5, 4, 2), (4..5, None));
        assert_eq!(cut(4, 2, 2), (2..4, None));
        assert_eq!(cut(0, 0, 2), (0..0, None));
        assert_eq!(cut(5, 9, 2), (5..5, None));
    }
}
