//! What is held for each key, and its columns in a segment.
//!
//! ```text
//!   Counter { rows, open windows: start and states as bytes }
//!      │ ▲
//!      ▼ │
//!   __key_group │ key │ __rows │ window_start │ sum      │ …
//!            17 │ ann │      3 │ [10, 12]     │ [40, 30] │      one row per key, one value of each list per open window
//!            17 │ bob │        │              │          │      a key that is done
//! ```

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, ListArray},
    buffer::{NullBuffer, OffsetBuffer},
    datatypes::{DataType, Field, Int64Type, TimestampMicrosecondType},
};

use crate::{Result, Timestamp, key::encoded::KeyEncoder};

/// A window that is not full: the time of its first row, and the states of the aggregates as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) start: i64,
    pub(super) state: Box<[u8]>,
}

/// What is held for a key.
#[derive(Debug, Default)]
pub(super) struct Counter {
    /// The rows since the first of the open windows began.
    pub(super) rows: u64,
    pub(super) open: Vec<Open>,
}

impl Counter {
    /// About how many bytes its windows take.
    pub(super) fn bytes(&self) -> usize {
        self.open.iter().map(|open| size_of::<Open>() + open.state.len()).sum()
    }
}

/// The states of windows, between columns and bytes.
pub(super) struct States {
    encoder: KeyEncoder,
    types: Vec<DataType>,
}

/// A list column of a segment.
pub(super) fn list(name: &str, of: &DataType) -> Field {
    Field::new_list(name, Field::new_list_field(of.clone(), true), true)
}

impl States {
    /// Of aggregates whose states have these types.
    pub(super) fn new(types: Vec<DataType>) -> Result<Self> {
        Ok(Self { encoder: KeyEncoder::new(types.iter())?, types })
    }

    /// The states of `rows` groups, one by one.
    pub(super) fn encode(&self, states: &[ArrayRef], rows: usize) -> Result<Vec<Box<[u8]>>> {
        let bytes = self.encoder.encode_exactly(states)?;
        Ok((0..rows).map(|row| bytes.get(row).into()).collect())
    }

    /// The columns of states.
    pub(super) fn decode<'a>(&self, states: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        self.encoder.decode(states)
    }

    /// What keys hold as columns of a segment.
    pub(super) fn columns(&self, held: &[Option<&Counter>]) -> Result<Vec<ArrayRef>> {
        let rows: Int64Array = held.iter().map(|held| held.map(|counter| counter.rows as i64)).collect();
        let open = || held.iter().flatten().flat_map(|counter| &counter.open);
        let windows = held.iter().map(|held| held.map_or(0, |counter| counter.open.len()));
        let offsets = OffsetBuffer::<i32>::from_lengths(windows);
        let nulls: NullBuffer = held.iter().map(Option::is_some).collect();
        let lists = |of: &DataType, values: ArrayRef| -> Result<ArrayRef> {
            let field = Arc::new(Field::new_list_field(of.clone(), true));
            Ok(Arc::new(ListArray::try_new(field, offsets.clone(), values, Some(nulls.clone()))?))
        };
        let starts = Timestamp::column(open().map(|open| open.start).collect());
        let mut columns: Vec<ArrayRef> = vec![Arc::new(rows), lists(&Timestamp::data_type(), starts)?];
        for (of, values) in self.types.iter().zip(self.decode(open().map(|open| &*open.state))?) {
            columns.push(lists(of, values)?);
        }
        Ok(columns)
    }

    /// What the rows of a segment hold that are asked for; `None` of a key that is done. `columns` are those of
    /// [`States::columns`].
    pub(super) fn read(&self, columns: &[ArrayRef], rows: &[usize]) -> Result<Vec<Option<Counter>>> {
        let (counts, starts) = (columns[0].as_primitive::<Int64Type>(), columns[1].as_list::<i32>());
        // Of a part of a segment the values may begin anywhere, but in all lists alike: those of the rows, and no others.
        let first = starts.value_offsets()[0] as usize;
        let end = starts.value_offsets()[starts.len()] as usize;
        let values = |list: &ArrayRef| {
            let list = list.as_list::<i32>();
            let (first, end) = (list.value_offsets()[0] as usize, list.value_offsets()[list.len()] as usize);
            list.values().slice(first, end - first)
        };
        let states = self.encoder.encode_exactly(&columns[2..].iter().map(values).collect::<Vec<_>>())?;
        let times = starts.values().slice(first, end - first);
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let counter = |row: usize| Counter {
            rows: counts.value(row) as u64,
            open: (starts.value_offsets()[row] as usize - first..starts.value_offsets()[row + 1] as usize - first)
                .map(|at| Open { start: times.value(at), state: states.get(at).into() })
                .collect(),
        };
        Ok(rows.iter().map(|&row| counts.is_valid(row).then(|| counter(row))).collect())
    }
}
