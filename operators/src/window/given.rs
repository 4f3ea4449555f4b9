//! Which results the groups of a window have given, for windows that give more than one.
//!
//! ```text
//!   group         ann   bob   eve
//!   next            2     0     1     the revision of the next result
//!   since           0     7     3     rows since the last one: bob and eve have changed
//! ```
//!
//! A row costs a counter and nothing else. Both are saved, so that the next result after a restore has the revision that would
//! have come: with the states of their group, or in rows of their own if windows share slices.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, UInt32Array},
    datatypes::{DataType, Field, Int64Type, UInt32Type},
};

use crate::{OperatorError, Result};

/// How many columns of the state it has.
pub(super) const COLUMNS: usize = 2;

/// These columns.
pub(super) fn fields() -> [Field; COLUMNS] {
    [Field::new("revision", DataType::Int64, true), Field::new("since", DataType::UInt32, true)]
}

/// What the groups of one window have given.
#[derive(Default)]
pub(super) struct Given {
    next: Vec<i64>,
    since: Vec<u32>,
    /// Whether a result was given since the last save. Rows that came are known from elsewhere.
    pub(super) unsaved: bool,
}

impl Given {
    /// Counts rows, given the group of each. There are `groups` now.
    pub(super) fn count(&mut self, rows: &[usize], groups: usize) {
        self.next.resize(groups, 0);
        self.since.resize(groups, 0);
        for &group in rows {
            self.since[group] = self.since[group].saturating_add(1);
        }
    }

    /// There are `groups` now; those that are new have changed.
    pub(super) fn add_changed(&mut self, groups: usize) {
        self.next.resize(groups, 0);
        self.since.resize(groups, 1);
    }

    /// The groups of these rows that at least `rows` have come to since their last result, each once. They give one now.
    pub(super) fn due_among(&mut self, touched: &[usize], rows: u32) -> Vec<u32> {
        // A group that is due is found once, because its count falls to nothing.
        let due = touched.iter().filter(|&&group| {
            let due = self.since[group] >= rows;
            if due {
                self.since[group] = 0;
            }
            due
        });
        due.map(|&group| group as u32).collect()
    }

    /// Whether at least `rows` rows have come to one of these groups since its last result.
    pub(super) fn reach(&self, groups: &[usize], rows: u32) -> bool {
        groups.iter().any(|&group| self.since[group] >= rows)
    }

    /// The groups to which at least `rows` rows have come since their last result, which are not none. They give one now.
    pub(super) fn due(&mut self, rows: u32) -> Vec<u32> {
        let due = self.since.iter_mut().enumerate().filter(|(_, since)| **since >= rows);
        let give = |(group, since): (usize, &mut u32)| {
            *since = 0;
            group as u32
        };
        due.map(give).collect()
    }

    /// Whether a group has changed since its last result.
    pub(super) fn has_changed(&self) -> bool {
        self.since.iter().any(|since| *since > 0)
    }

    /// The revisions of the results that these groups give now.
    pub(super) fn revisions(&mut self, due: &UInt32Array) -> ArrayRef {
        self.unsaved = true;
        let revisions = due.values().iter().map(|&group| {
            let next = &mut self.next[group as usize];
            let revision = *next;
            *next = next.saturating_add(1);
            revision
        });
        Arc::new(Int64Array::from_iter_values(revisions))
    }

    /// As columns of the state.
    pub(super) fn columns(&self) -> [ArrayRef; COLUMNS] {
        [Arc::new(Int64Array::from(self.next.clone())), Arc::new(UInt32Array::from(self.since.clone()))]
    }

    /// Adds new groups with these columns.
    pub(super) fn restore(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let [next, since] = columns else {
            return Err(OperatorError::Internal("a segment has no revisions of its groups".into()));
        };
        self.next.extend(next.as_primitive::<Int64Type>().values());
        self.since.extend(since.as_primitive::<UInt32Type>().values());
        Ok(())
    }

    /// The bytes it holds.
    pub(super) fn size(&self) -> usize {
        size_of_val(&self.next[..]) + size_of_val(&self.since[..])
    }
}
