//! Names to columns, for formats that name a value in every record.
//!
//! Records of one producer name their values in one order, and some leave a few of them out. So a name is first compared
//! with those that are due by the records before; only if it is none of them is it looked up. This also makes unknown
//! names cheap.

use std::collections::HashMap;

/// Names longer than this are looked up every time, and so are those behind so many others: both bound the memory that
/// strange records can take. And names that JSON does not write as they are, so that no escape is taken for one.
const NAME_BYTES: usize = 64;
const PLACES: usize = 1024;

/// A name is due if it is among so many next ones.
const DUE: usize = 4;

/// The columns of an object by name.
#[derive(Debug)]
pub(super) struct Keys {
    columns: HashMap<Box<str>, usize>,
    /// The names of the records before, in their order.
    seen: Vec<Seen>,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Its column, unless it is unknown.
    pub(super) column: Option<usize>,
    /// The place of the name that is due next. That of the first is 0.
    pub(super) next: usize,
}

#[derive(Debug, Default)]
struct Seen {
    /// The name as JSON has it: between quotes, with a colon behind.
    written: String,
    /// Its column, unless it is unknown.
    column: Option<usize>,
}

impl Seen {
    fn set(&mut self, name: &str, column: Option<usize>) {
        self.written.clear();
        ["\"", name, "\":"].into_iter().for_each(|part| self.written.push_str(part));
        self.column = column;
    }

    fn is(&self, name: &str) -> bool {
        self.written.strip_prefix('"').and_then(|written| written.strip_suffix("\":")) == Some(name)
    }
}

impl Keys {
    /// The names in column order.
    pub(super) fn new<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let columns: HashMap<Box<str>, usize> = names.enumerate().map(|(i, name)| (name.into(), i)).collect();
        Self { columns, seen: Vec::new() }
    }

    /// Looks for `name`, where the name at `place` is due.
    pub(super) fn find(&mut self, place: usize, name: &str) -> Found {
        match self.due(place, |seen| seen.is(name)) {
            Some((_, found)) => found,
            None => Found { column: self.look_up(place, name), next: place + 1 },
        }
    }

    /// If `json` begins with a name that is due at `place` and a colon: how long they are, and what the name stands for.
    #[inline]
    pub(super) fn guess(&self, place: usize, json: &[u8]) -> Option<(usize, Found)> {
        let is_it = |seen: &Seen| json.starts_with(seen.written.as_bytes());
        match self.seen.get(place) {
            Some(seen) if is_it(seen) => Some((seen.written.len(), Found { column: seen.column, next: place + 1 })),
            _ => self.due(place + 1, is_it),
        }
    }

    // Not inlined: what is looked for twice is rare.
    #[inline(never)]
    fn due(&self, place: usize, is_it: impl Fn(&Seen) -> bool) -> Option<(usize, Found)> {
        for (seen, next) in self.seen.get(place..)?.iter().take(DUE).zip(place + 1..) {
            if is_it(seen) {
                return Some((seen.written.len(), Found { column: seen.column, next }));
            }
        }
        None
    }

    fn look_up(&mut self, place: usize, name: &str) -> Option<usize> {
        let column = self.columns.get(name).copied();
        let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
        if name.len() <= NAME_BYTES && name.bytes().all(is_plain) {
            if place == self.seen.len() && place < PLACES {
                self.seen.push(Seen::default());
            }
            if let Some(seen) = self.seen.get_mut(place) {
                seen.set(name, column);
            }
        }
        column
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_due_and_what_is_not() {
        let mut keys = Keys::new(["a", "b", "c"].into_iter());
        let found = |column, next| Found { column, next };
        for _ in 0..2 {
            assert_eq!(keys.find(0, "c"), found(Some(2), 1));
            assert_eq!(keys.find(1, "zzz"), found(None, 2));
            assert_eq!(keys.find(2, "a"), found(Some(0), 3));
        }
        assert_eq!(keys.guess(0, b"\"c\":1"), Some((4, found(Some(2), 1))));
        assert_eq!(keys.guess(0, b"\"a\":"), Some((4, found(Some(0), 3))), "two are left out");
        assert_eq!(keys.find(0, "a"), found(Some(0), 3));
        for other in ["\"b\":", "\"c\"", "\"c\" :", "\"cc\":", "c\":", ""] {
            assert_eq!(keys.guess(0, other.as_bytes()), None, "{other}");
        }
        assert_eq!(keys.find(0, "b"), found(Some(1), 1), "another order is found too");
        assert_eq!(keys.find(0, "c"), found(Some(2), 1));
        assert_eq!(keys.find(7, "b"), found(Some(1), 8), "a place that was skipped");
        assert_eq!(keys.find(3, &"x".repeat(1000)), found(None, 4));
        assert_eq!(keys.find(0, "c\\u0020"), found(None, 1));
        assert_eq!(keys.guess(0, b"\"c\\u0020\":"), None, "an escape is not taken for the name it looks like");
        assert!(keys.seen.iter().all(|seen| seen.written.len() <= NAME_BYTES + 3));
    }
}
