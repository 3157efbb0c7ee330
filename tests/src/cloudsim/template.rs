//! Things rendered once and filled in many times: a page of a thousand items is copied together, not
//! serialised.

use super::random::Random;

/// What differs between two things made from one template.
#[derive(Clone, Debug)]
pub(super) struct Filling<'a> {
    /// `{s}`: the GUID of the subscription.
    pub(super) subscription: &'a str,
    /// `{h}`: twelve hexadecimal digits of it, for names that are unique in the world.
    pub(super) short: &'a str,
    /// `{n}`: the thing's number, from 1.
    pub(super) number: usize,
    /// `{p}`: the number of the resource that it lies below, from 1.
    pub(super) parent: usize,
    /// `{g}`: the number of its resource group, from 1.
    pub(super) group: usize,
    /// What `{0}` to `{9}`, GUIDs of its own, are made from.
    pub(super) seed: u64,
}

/// What goes between two pieces of fixed text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hole {
    Subscription,
    Short,
    Number,
    Parent,
    Group,
    /// The name of a database: `master` for the first of a server.
    Database,
    Guid(u64),
}

impl Hole {
    fn of(letter: u8) -> Option<Self> {
        Some(match letter {
            b's' => Self::Subscription,
            b'h' => Self::Short,
            b'n' => Self::Number,
            b'p' => Self::Parent,
            b'g' => Self::Group,
            b'd' => Self::Database,
            b'0'..=b'9' => Self::Guid(u64::from(letter - b'0')),
            _ => return None,
        })
    }
}

/// Text with holes, written `{s}` and so on; see [`Filling`]. No JSON has such a thing by itself.
#[derive(Debug)]
pub(super) struct Template {
    pieces: Vec<(Box<[u8]>, Hole)>,
    rest: Box<[u8]>,
}

impl Template {
    pub(super) fn parse(text: &str) -> Self {
        let bytes = text.as_bytes();
        let (mut pieces, mut start, mut at) = (Vec::new(), 0, 0);
        while let Some(window) = bytes.get(at..at + 3) {
            let hole = match window {
                [b'{', letter, b'}'] => Hole::of(*letter),
                _ => None,
            };
            match hole {
                Some(hole) => {
                    pieces.push((bytes.get(start..at).unwrap_or_default().into(), hole));
                    at += 3;
                    start = at;
                }
                None => at += 1,
            }
        }
        Self { pieces, rest: bytes.get(start..).unwrap_or_default().into() }
    }

    /// About as long as what it renders to.
    pub(super) fn len(&self) -> usize {
        self.pieces.iter().map(|(text, _)| text.len() + 36).sum::<usize>() + self.rest.len()
    }

    pub(super) fn render(&self, filling: &Filling<'_>, out: &mut Vec<u8>) {
        for (text, hole) in &self.pieces {
            out.extend_from_slice(text);
            match hole {
                Hole::Subscription => out.extend_from_slice(filling.subscription.as_bytes()),
                Hole::Short => out.extend_from_slice(filling.short.as_bytes()),
                Hole::Number => write_number(filling.number, out),
                Hole::Parent => write_number(filling.parent, out),
                Hole::Group => write_number(filling.group, out),
                Hole::Database if filling.number == 1 => out.extend_from_slice(b"master"),
                Hole::Database => {
                    out.extend_from_slice(b"db");
                    write_number(filling.number - 1, out);
                }
                Hole::Guid(which) => write_guid(&mut Random::at(filling.seed, &[*which]), out),
            }
        }
        out.extend_from_slice(&self.rest);
    }

    pub(super) fn text(&self, filling: &Filling<'_>) -> String {
        let mut out = Vec::with_capacity(self.len());
        self.render(filling, &mut out);
        // Templates and fillings are texts, cut at ASCII.
        String::from_utf8(out).unwrap_or_default()
    }
}

fn write_number(number: usize, out: &mut Vec<u8>) {
    if number >= 10 {
        write_number(number / 10, out);
    }
    out.push(b'0' + (number % 10) as u8);
}

/// As [`Random::guid`], without a detour through a `String`.
fn write_guid(random: &mut Random, out: &mut Vec<u8>) {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let (high, low) = (random.next(), random.next());
    let high = (high & !0xf000) | 0x4000;
    let low = (low & !(0b11 << 62)) | (0b10 << 62);
    let both = (u128::from(high) << 64) | u128::from(low);
    for position in 0..32 {
        if matches!(position, 8 | 12 | 16 | 20) {
            out.push(b'-');
        }
        let digit = (both >> (124 - 4 * position)) & 0xf;
        out.push(DIGITS.get(digit as usize).copied().unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILLING: Filling<'_> =
        Filling { subscription: "guid", short: "short", number: 120, parent: 7, group: 3, seed: 1 };

    #[test]
    fn holes_are_filled_and_other_braces_stay() {
        let template =
            Template::parse(r#"{"a":"{s}/rg{g}/vm{n}","b":{"c":{}},"d":"{h}-{p}","e":{"f":"{x}"},"z":"{d}"}"#);
        assert_eq!(
            template.text(&FILLING),
            r#"{"a":"guid/rg3/vm120","b":{"c":{}},"d":"short-7","e":{"f":"{x}"},"z":"db119"}"#
        );
        assert_eq!(Template::parse("").text(&FILLING), "");
        assert_eq!(Template::parse("{n}").text(&Filling { number: 0, ..FILLING }), "0");
        assert_eq!(Template::parse("{d}").text(&Filling { number: 1, ..FILLING }), "master");
    }

    #[test]
    fn guids_are_the_things_own() {
        let template = Template::parse("{0}{1}");
        let text = template.text(&FILLING);
        let (first, second) = text.split_at(36);
        assert_ne!(first, second);
        for guid in [first, second] {
            assert!(crate::cloudsim::arm_request::is_guid(guid), "{guid}");
            assert_eq!(guid.as_bytes()[14], b'4', "{guid}");
            assert!(b"89ab".contains(&guid.as_bytes()[19]), "{guid}");
        }
        assert_eq!(text, template.text(&FILLING));
        assert_ne!(text, template.text(&Filling { seed: 2, ..FILLING }));
    }
}
