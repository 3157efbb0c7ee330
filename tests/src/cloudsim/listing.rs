//! Lists: which page is asked for, and its body.

use super::estate::Estate;
use super::faults::Faults;
use super::kind::Kind;
use super::pages;
use super::providers::{End, Form};

/// A list of the things of one kind: all of a subscription, or those below one parent.
pub(super) struct Listing<'a> {
    estate: &'a Estate,
    subscription: usize,
    kind: Kind,
    /// The number of the first of them.
    start: usize,
    total: usize,
    /// Most items of a page.
    size: usize,
    end: End,
}

impl<'a> Listing<'a> {
    pub(super) fn new(estate: &'a Estate, subscription: usize, kind: Kind, parent: Option<usize>, size: usize) -> Self {
        let (start, total) = match parent {
            Some(parent) => {
                let each = estate.below_each(subscription, kind);
                (parent * each, each)
            }
            None => (0, estate.count(subscription, kind)),
        };
        let (size, end) = match kind.definition().form {
            Form::Pages { end, .. } => (size, end),
            _ => (usize::MAX, End::Absent),
        };
        Self { estate, subscription, kind, start, total, size, end }
    }

    pub(super) fn total(&self) -> usize {
        self.total
    }

    /// The offset of the page after the one at `offset`.
    pub(super) fn next(&self, offset: usize) -> Option<usize> {
        let (range, next) = pages::cut(self.total, offset, self.size);
        next.or_else(|| (self.end.may_be_empty() && range.len() == self.size).then_some(self.total))
    }

    /// The body of the page at `offset`, with this link to the next.
    pub(super) fn body(&self, offset: usize, next: Option<&str>, faults: &PageFaults) -> Vec<u8> {
        let (mut range, _) = pages::cut(self.total, offset, self.size);
        if faults.is_shifting && !range.is_empty() {
            range.start = range.start.saturating_sub(1);
        }
        let mut out = br#"{"value":["#.to_vec();
        for (position, index) in range.clone().enumerate() {
            let before = out.len();
            if position > 0 {
                out.push(b',');
            }
            self.render(self.start + index, faults, &mut out);
            if position == 0 {
                // Items of a kind are about as long as one another.
                out.reserve((out.len() - before + 64) * range.len());
            }
        }
        out.push(b']');
        match next {
            Some(link) => {
                out.extend_from_slice(br#","nextLink":"#);
                out.extend_from_slice(serde_json::Value::from(link).to_string().as_bytes());
            }
            None if self.end.is_null() => out.extend_from_slice(br#","nextLink":null"#),
            None => {}
        }
        out.push(b'}');
        out
    }

    fn render(&self, index: usize, faults: &PageFaults, out: &mut Vec<u8>) {
        render(self.estate, self.subscription, self.kind, index, &faults.faults, out);
    }
}

/// What is wrong with pages of one kind.
pub(super) struct PageFaults {
    is_shifting: bool,
    /// Set if things of the kind are odd.
    faults: Option<Faults>,
}

impl PageFaults {
    pub(super) fn of(faults: &Faults, kind: Kind) -> Self {
        Self { is_shifting: faults.shifting_pages, faults: odd(faults, kind) }
    }
}

/// The faults, if things of the kind are odd: cloning them is for those cases alone.
pub(super) fn odd(faults: &Faults, kind: Kind) -> Option<Faults> {
    faults.is_odd(kind).then(|| faults.clone())
}

/// Appends one thing, in its odd form if it has one.
pub(super) fn render(
    estate: &Estate,
    subscription: usize,
    kind: Kind,
    index: usize,
    faults: &Option<Faults>,
    out: &mut Vec<u8>,
) {
    match faults.as_ref().and_then(|faults| faults.oddity(kind, index)) {
        Some(oddity) => {
            let odd = match estate.item(subscription, kind, index) {
                serde_json::Value::Array(items) => items.into_iter().map(|item| oddity.apply(item)).collect(),
                item => oddity.apply(item),
            };
            out.extend_from_slice(odd.to_string().as_bytes());
        }
        None => estate.render(subscription, kind, index, out),
    }
}
