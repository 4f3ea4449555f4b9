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
    /// The headers of the records that have some, in their order.
    headers: Vec<Header>,
    /// The partition that the split is, if it is one of a topic.
    partition: Option<i32>,
    /// How long both were in the former batch: the next one is likely to be as long.
    expected: (usize, usize),
}

#[derive(Clone, Copy, Debug)]
struct Record {
    position: Position,
    line: Option<NonZeroU64>,
    /// It has no bytes, not even none: a tombstone of a topic.
    is_null: bool,
    /// The end of its bytes, which begin where the former record ends.
    end: usize,
    /// The end of its key, if it has one, which begins there.
    key_end: Option<usize>,
    /// The end of its headers, or of what it has without any: where the next record begins.
    last: usize,
    timestamp: Option<i64>,
}

/// A header, which begins where the former one of its record ends, or behind the record's bytes and key.
#[derive(Clone, Copy, Debug)]
struct Header {
    row: usize,
    /// The end of its name.
    end: usize,
    /// The end of its value, if it has one, which begins there.
    value_end: Option<usize>,
}

impl Origins {
    /// No records.
    pub fn new() -> Self {
        Self::default()
    }

    /// No records of a partition of a topic.
    pub fn of_partition(partition: i32) -> Self {
        Self { partition: Some(partition), ..Self::default() }
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
        let (line, last) = (line.and_then(NonZeroU64::new), key_end.unwrap_or(end));
        self.records.push(Record { position, line, is_null: false, end, key_end, last, timestamp: None });
    }

    /// As [`Origins::push`], of a record of a topic that has no payload, which is not one whose payload is empty.
    pub fn push_null(&mut self, position: Position, key: Option<&[u8]>) {
        self.push(position, None, b"", key);
        if let Some(record) = self.records.last_mut() {
            record.is_null = true;
        }
    }

    /// What the last record had beside its bytes and its key: its headers, and its time in milliseconds since 1970.
    pub fn beside<'a>(
        &mut self,
        headers: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
        timestamp: Option<i64>,
    ) {
        let row = self.records.len().wrapping_sub(1);
        let Some(record) = self.records.last_mut() else { return };
        record.timestamp = timestamp;
        for (name, value) in headers {
            self.bytes.extend_from_slice(name.as_bytes());
            let end = self.bytes.len();
            let value_end = value.map(|value| {
                self.bytes.extend_from_slice(value);
                self.bytes.len()
            });
            self.headers.push(Header { row, end, value_end });
        }
        record.last = self.bytes.len();
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
        std::mem::replace(self, Self { expected, partition: self.partition, ..Self::default() })
    }

    /// The record that a row was, rejected for this reason; `None` beyond the last row.
    pub fn reject(&self, row: usize, reason: String) -> Option<Rejected> {
        let record = self.records.get(row)?;
        let former = row.checked_sub(1).and_then(|former| self.records.get(former));
        let start = former.map_or(0, |former| former.last);
        let key = record.key_end.and_then(|key_end| self.bytes.get(record.end..key_end));
        let bytes = self.bytes.get(start..record.end)?;
        Some(Rejected {
            position: Some(record.position),
            line: record.line.map(NonZeroU64::get),
            reason,
            bytes: (!record.is_null).then(|| bytes.to_vec()),
            key: key.map(<[u8]>::to_vec),
            headers: self.headers_of(row, record.key_end.unwrap_or(record.end)),
            timestamp: record.timestamp,
            partition: self.partition,
            truncated: None,
        })
    }

    /// The headers of a row, the first of which begins at `at`.
    fn headers_of(&self, row: usize, mut at: usize) -> Vec<(String, Option<Vec<u8>>)> {
        let first = self.headers.partition_point(|header| header.row < row);
        let of_row = self.headers.iter().skip(first).take_while(|header| header.row == row);
        let bytes = |from: usize, to: usize| self.bytes.get(from..to).unwrap_or_default();
        let header = |header: &Header| {
            let name = String::from_utf8_lossy(bytes(at, header.end)).into_owned();
            let value = header.value_end.map(|end| bytes(header.end, end).to_vec());
            at = header.value_end.unwrap_or(header.end);
            (name, value)
        };
        of_row.map(header).collect()
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

    #[test]
    fn a_record_without_a_payload_is_not_one_whose_payload_is_empty() {
        let mut origins = Origins::of_partition(3);
        origins.push(Position(1), None, b"one", None);
        origins.push_null(Position(2), Some(b"k"));
        origins.beside([("a", Some(&b"x"[..]))], Some(7));
        origins.push(Position(3), None, b"", None);
        let was = |row| origins.reject(row, "bad".into()).map(|was| (was.bytes, was.key, was.headers.len()));
        assert_eq!(was(0), Some((Some(b"one".to_vec()), None, 0)));
        assert_eq!(was(1), Some((None, Some(b"k".to_vec()), 1)));
        assert_eq!(was(2), Some((Some(Vec::new()), None, 0)));
    }

    #[test]
    fn records_of_topics_keep_their_headers_and_their_time() {
        let mut origins = Origins::of_partition(3);
        origins.push(Position(1), None, b"one", Some(b"k"));
        origins.beside([("a", Some(&b"x"[..])), ("a", None), ("", Some(b""))], Some(7));
        origins.push(Position(2), None, b"two", None);
        origins.beside([], None);
        origins.push(Position(3), None, b"three", None);
        origins.beside([("b", Some(&b"y"[..]))], Some(-1));
        let batches = [origins.take(), {
            origins.push(Position(4), None, b"four", None);
            origins.take()
        }];
        let header = |name: &str, value: Option<&str>| (name.to_string(), value.map(|value| value.as_bytes().to_vec()));
        let beside = |batch: usize, row: usize| {
            let rejected = batches[batch].reject(row, "bad".into()).unwrap();
            assert_eq!((rejected.partition, rejected.truncated), (Some(3), None));
            (rejected.bytes.unwrap(), rejected.headers, rejected.timestamp)
        };
        let first = vec![header("a", Some("x")), header("a", None), header("", Some(""))];
        assert_eq!(beside(0, 0), (b"one".to_vec(), first, Some(7)));
        assert_eq!(beside(0, 1), (b"two".to_vec(), vec![], None));
        assert_eq!(beside(0, 2), (b"three".to_vec(), vec![header("b", Some("y"))], Some(-1)));
        assert_eq!(beside(1, 0), (b"four".to_vec(), vec![], None));
    }
}
