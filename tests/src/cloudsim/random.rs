//! Deterministic variety: the same seed gives the same cloud, whatever is asked of it first.

/// A small generator (SplitMix64). Each thing in the estate gets one of its own, made from the seed and
/// the thing's place, so that page 900 of a list can be generated without the 899 before it.
pub(crate) struct Random(u64);

impl Random {
    /// The generator of the thing at `place`.
    pub(crate) fn at(seed: u64, place: &[u64]) -> Self {
        let mut state = mix(seed);
        for part in place {
            state = mix(state ^ mix(*part));
        }
        Self(state)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `limit`; 0 if the limit is 0. The slight bias of the remainder does not matter here.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next().checked_rem(limit).unwrap_or(0)
    }

    /// One of the texts.
    pub(crate) fn pick(&mut self, choices: &[&'static str]) -> &'static str {
        let index = self.below(choices.len() as u64) as usize;
        choices.get(index).copied().unwrap_or_default()
    }

    /// A random (version 4) GUID in lower case.
    pub(crate) fn guid(&mut self) -> String {
        let (high, low) = (self.next(), self.next());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0x0fff,
            0x8000 | ((low >> 48) & 0x3fff),
            low & 0xffff_ffff_ffff
        )
    }
}

/// The finalizer of SplitMix64: every bit of the input changes about half of the bits of the output.
pub(crate) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_place_gives_the_same_guid_and_another_place_another() {
        let guid = Random::at(7, &[1, 2]).guid();
        assert_eq!(guid, Random::at(7, &[1, 2]).guid());
        assert_ne!(guid, Random::at(7, &[2, 1]).guid());
        assert_ne!(guid, Random::at(8, &[1, 2]).guid());
    }

    #[test]
    fn a_guid_has_the_form_of_version_4() {
        for place in 0..200 {
            let guid = Random::at(1, &[place]).guid();
            let lengths: Vec<usize> = guid.split('-').map(str::len).collect();
            assert_eq!(lengths, [8, 4, 4, 4, 12], "{guid}");
            assert_eq!(guid.as_bytes()[14], b'4', "{guid}");
            assert!(b"89ab".contains(&guid.as_bytes()[19]), "{guid}");
        }
    }
}
