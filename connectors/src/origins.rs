//! What the rows of a batch were before they were decoded, for rows that turn out to be unusable behind the decoder.
//!
//! ```text
//!   record ──► Decoder::push ──► row 7 of the batch ──► the engine: it has no event time ─┐
//!      │                                                                                  ▼
//!      └─────► Origins::push ──► bytes, key, position, line ──────────► Origins::reject(7, why) ──► Rejected
//! ```
//!
//! Nobody knows beforehand which rows will be asked for, and nearly always none is. So a record is copied to the end of
//! one buffer, which costs a few nanoseconds, and the buffer goes with its batch.

use std::num::NonZeroU64;

use crate::{Position, Rejected};

/// The records that the rows of a batch were decoded from, one for each row, in their order. See
/// [`Rows::origins`](crate::Rows::origins).
///
/// ```
/// use windrow_connectors::{Origins, Position};
///
/// let mut origins = Origins::new();
/// origins.push(Position(1206), None, br#"{"at": 7}"#, Some(b"u6"));
/// origins.push(Position(1207), None, br#"{"at": null}"#, Some(b"u7"));
/// let rejected = origins.reject(1, "event time is null".into()).unwrap();
/// assert_eq!(rejected.position, Some(Position(1207)));
/// assert_eq!((rejected.bytes.as_deref(), rejected.key.as_deref()), (Some(&br#"{"at": null}"#[..]), Some(&b"u7"[..])));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Origins {
    /// Of each record its bytes, then its key.
    bytes: Vec<u8>,
    records: Vec<Record>,
    /// How long both were in the former batch: the next one is likely to be as long.
    expected: (usize, usize),
}

#[derive(Clone, Copy, Debug)]
struct Record {
    position: Position,
    line: Option<NonZeroU64>,
    /// The end of its bytes, which begin where the former record ends.
    end: usize,
    /// The end of its key, if it has one, which begins there.
    key_end: Option<usize>,
}

impl Origins {
    /// No records.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next row was this record: where it begins in its split, its line counted from 1 if that is known, its bytes
    /// without a line end, and its key if it has one.
    pub fn push(&mut self, position: Position, line: Option<u64>, bytes: &[u8], key: Option<&[u8]>) {
        if self.records.is_empty() {
            self.bytes.reserve(self.expected.0);
            self.records.reserve(self.expected.1);
        }
        self.bytes.extend_from_slice(bytes);
        let end = self.bytes.len();
        let key_end = key.map(|key| {
            self.bytes.extend_from_slice(key);
            self.bytes.len()
        });
        self.records.push(Record { position, line: line.and_then(NonZeroU64::new), end, key_end });
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Gives the records away with their batch, and begins those of the next one.
    pub fn take(&mut self) -> Self {
        let expected = (self.bytes.len(), self.records.len());
        std::mem::replace(self, Self { expected, ..Self::default() })
    }

    /// The record that a row was, rejected for this reason; `None` beyond the last row.
    pub fn reject(&self, row: usize, reason: String) -> Option<Rejected> {
        let record = self.records.get(row)?;
        let former = row.checked_sub(1).and_then(|former| self.records.get(former));
        let start = former.map_or(0, |former| former.key_end.unwrap_or(former.end));
        let key = record.key_end.and_then(|key_end| self.bytes.get(record.end..key_end));
        Some(Rejected {
            position: Some(record.position),
            line: record.line.map(NonZeroU64::get),
            reason,
            bytes: Some(self.bytes.get(start..record.end)?.to_vec()),
            key: key.map(<[u8]>::to_vec),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a row was: position, line, bytes, key.
    fn was(origins: &Origins, row: usize) -> Option<(u64, Option<u64>, String, Option<String>)> {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let rejected = origins.reject(row, "bad".into())?;
        assert_eq!(rejected.reason, "bad");
        Some((rejected.position.unwrap().0, rejected.line, text(rejected.bytes.unwrap()), rejected.key.map(text)))
    }

    #[test]
    fn every_row_has_its_own_record_also_after_the_batch_is_given_away() {
        let mut origins = Origins::new();
        origins.push(Position(5), Some(2), b"one", None);
        origins.push(Position(9), None, b"two", Some(b"k"));
        origins.push(Position(10), None, b"", Some(b""));
        origins.push(Position(12), None, b"four", None);
        let first = origins.take();
        assert!(origins.is_empty());
        origins.push(Position(20), None, b"", None);
        assert_eq!((first.len(), origins.len()), (4, 1));
        assert_eq!(was(&first, 0), Some((5, Some(2), "one".into(), None)));
        assert_eq!(was(&first, 1), Some((9, None, "two".into(), Some("k".into()))));
        assert_eq!(was(&first, 2), Some((10, None, String::new(), Some(String::new()))), "an empty key is a key");
        assert_eq!(was(&first, 3), Some((12, None, "four".into(), None)));
        assert_eq!(was(&first, 4), None);
        assert_eq!(was(&origins, 0), Some((20, None, String::new(), None)));
    }
}
