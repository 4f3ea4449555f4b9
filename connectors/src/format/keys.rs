//! Names to columns, for formats that name a value in every record.
//!
//! Records of one producer name their values in one order. So the name at place 3 is first compared with the name that
//! stood at place 3 of the record before; only if they differ is it looked up. This also makes unknown names cheap.

use std::collections::HashMap;

/// Names longer than this are looked up every time, and so are places beyond [`PLACES`]: both bound the memory that
/// strange records can take.
const NAME_BYTES: usize = 64;
const PLACES: usize = 1024;

/// The columns of an object by name.
#[derive(Debug)]
pub(super) struct Keys {
    columns: HashMap<Box<str>, usize>,
    /// What stood at each place of the records before: a name, and its column unless it is unknown.
    seen: Vec<(String, Option<usize>)>,
}

impl Keys {
    /// The names in column order.
    pub(super) fn new<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let columns: HashMap<Box<str>, usize> = names.enumerate().map(|(i, name)| (name.into(), i)).collect();
        Self { columns, seen: Vec::new() }
    }

    /// The column called `name`, which stands at `place` in its record.
    pub(super) fn find(&mut self, place: usize, name: &str) -> Option<usize> {
        match self.seen.get(place) {
            Some((seen, column)) if seen == name => *column,
            _ => self.look_up(place, name),
        }
    }

    fn look_up(&mut self, place: usize, name: &str) -> Option<usize> {
        let column = self.columns.get(name).copied();
        if name.len() <= NAME_BYTES {
            if let Some((seen, its_column)) = self.seen.get_mut(place) {
                seen.clear();
                seen.push_str(name);
                *its_column = column;
            } else if place == self.seen.len() && place < PLACES {
                self.seen.push((name.to_string(), column));
            }
        }
        column
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_by_place_and_by_name() {
        let mut keys = Keys::new(["a", "b", "c"].into_iter());
        for _ in 0..2 {
            assert_eq!(keys.find(0, "c"), Some(2));
            assert_eq!(keys.find(1, "zzz"), None);
            assert_eq!(keys.find(2, "a"), Some(0));
        }
        assert_eq!(keys.find(0, "a"), Some(0), "another order is found too");
        assert_eq!(keys.find(0, "c"), Some(2));
        assert_eq!(keys.find(7, "b"), Some(1), "a place that was skipped");
        assert_eq!(keys.find(3, &"x".repeat(1000)), None);
        assert!(keys.seen.iter().all(|(name, _)| name.len() <= NAME_BYTES));
    }
}
