//! Keys and states between columns and the row format in which they are held.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array, new_null_array},
    compute::{cast, take},
    datatypes::{DataType, Int64Type, TimestampMicrosecondType},
    row::{RowConverter, Rows, SortField},
};

use super::{
    counters::{Counter, Open},
    plan::Shared,
};
use crate::{OperatorError, Result, Timestamp, key::comparable, state::segments::key_group_column};

/// The columns of a segment between the key and the states: window, rows, start.
const BETWEEN: usize = 3;

/// The row formats of the keys and of the states. `None` without columns: then a row format knows no number of rows.
pub(super) struct Forms {
    key: Option<RowConverter>,
    states: Option<RowConverter>,
    state_types: Vec<DataType>,
}

/// A key, its rows, and its windows that are not full.
type Restored = (Box<[u8]>, u64, Vec<Open>);
/// The rows of a key, and its windows with their numbers.
type Found = (u64, Vec<(i64, Open)>);

impl Forms {
    pub(super) fn new(plan: &Shared) -> Result<Self> {
        let fields = plan.form.columns.fields();
        let (key, rest) = fields[1..].split_at(plan.key.len());
        let types = |fields: &[Arc<arrow::datatypes::Field>]| -> Vec<DataType> {
            fields.iter().map(|field| field.data_type().clone()).collect()
        };
        let converter = |types: &[DataType]| -> Result<Option<RowConverter>> {
            let fields: Vec<SortField> = types.iter().cloned().map(SortField::new).collect();
            Ok(if fields.is_empty() { None } else { Some(RowConverter::new(fields)?) })
        };
        let state_types = types(&rest[BETWEEN..]);
        Ok(Self { key: converter(&types(key))?, states: converter(&state_types)?, state_types })
    }

    /// The keys of rows.
    pub(super) fn keys(&self, columns: &[ArrayRef]) -> Result<Option<Rows>> {
        Ok(self.key.as_ref().map(|key| key.convert_columns(columns)).transpose()?)
    }

    /// The states of `rows` groups, one by one.
    pub(super) fn encode(&self, states: &[ArrayRef], rows: usize) -> Result<Vec<Box<[u8]>>> {
        match &self.states {
            Some(converter) if rows > 0 => {
                Ok(converter.convert_columns(states)?.iter().map(|row| row.data().into()).collect())
            }
            _ => Ok(vec![Box::default(); rows]),
        }
    }

    /// The columns of states.
    pub(super) fn states(&self, states: &[&[u8]]) -> Result<Vec<ArrayRef>> {
        let columns = decode(self.states.as_ref(), states)?;
        // The row format gives the values of a dictionary.
        let typed = columns.into_iter().zip(&self.state_types);
        let typed = typed.map(|(column, to)| if column.data_type() == to { Ok(column) } else { cast(&column, to) });
        Ok(typed.collect::<Result<_, _>>()?)
    }

    /// The rows of a segment: those of the given keys.
    pub(super) fn segment<'a>(
        &self,
        plan: &Shared,
        counters: impl Iterator<Item = (&'a [u8], &'a Counter)>,
    ) -> Result<RecordBatch> {
        let (mut keys, mut windows, mut rows, mut starts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut states, mut state_of) = (Vec::new(), Vec::new());
        for (key, counter) in counters {
            for at in 0..counter.open.len().max(1) {
                let open = counter.open.get(at);
                keys.push(key);
                windows.push(at as i64);
                rows.push(counter.rows as i64);
                starts.push(open.map(|open| open.start));
                state_of.push(open.map(|_| states.len() as u32));
                states.extend(open.map(|open| open.state.as_ref()));
            }
        }
        let key = decode(self.key.as_ref(), &keys)?;
        let mut columns = vec![key_group_column(&key, keys.len())?];
        columns.extend(key);
        let starts = cast(&Int64Array::from(starts), &Timestamp::data_type())?;
        columns.extend([Arc::new(Int64Array::from(windows)) as ArrayRef, Arc::new(Int64Array::from(rows)), starts]);
        if states.is_empty() {
            columns.extend(self.state_types.iter().map(|data_type| new_null_array(data_type, keys.len())));
        } else {
            let state_of = UInt32Array::from(state_of);
            for state in self.states(&states)? {
                columns.push(take(&state, &state_of, None)?);
            }
        }
        Ok(RecordBatch::try_new(plan.form.columns.clone(), columns)?)
    }

    /// What a segment has of keys of which no newer one has anything.
    pub(super) fn restore(
        &self,
        plan: &Shared,
        segment: &RecordBatch,
        is_known: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<Restored>> {
        let segment = plan.form.widen(segment)?;
        let (key, rest) = segment.columns()[1..].split_at(plan.key.len());
        let key: Vec<ArrayRef> = key.iter().map(comparable).collect();
        let keys = self.keys(&key)?;
        let (windows, rows) = (rest[0].as_primitive::<Int64Type>(), rest[1].as_primitive::<Int64Type>());
        let starts = rest[2].as_primitive::<TimestampMicrosecondType>();
        let states = self.encode(&rest[BETWEEN..], segment.num_rows())?;
        let mut restored: HashMap<&[u8], Found> = HashMap::new();
        for (row, state) in states.into_iter().enumerate() {
            let key: &[u8] = keys.as_ref().map_or(&[], |keys| keys.row(row).data());
            if !is_known(key) {
                let (count, open) = restored.entry(key).or_default();
                *count = rows.value(row) as u64;
                if starts.is_valid(row) {
                    open.push((windows.value(row), Open { start: starts.value(row), state }));
                }
            }
        }
        let in_order = |(key, (rows, mut open)): (&[u8], Found)| {
            open.sort_by_key(|(window, _)| *window);
            (key.into(), rows, open.into_iter().map(|(_, open)| open).collect())
        };
        Ok(restored.into_iter().map(in_order).collect())
    }
}

fn decode(converter: Option<&RowConverter>, rows: &[&[u8]]) -> Result<Vec<ArrayRef>> {
    let Some(converter) = converter.filter(|_| !rows.is_empty()) else { return Ok(Vec::new()) };
    let parser = converter.parser();
    let columns = converter.convert_rows(rows.iter().map(|row| parser.parse(row)))?;
    match columns.iter().all(|column| column.len() == rows.len()) {
        true => Ok(columns),
        false => Err(OperatorError::Internal("rows in row format were lost".into())),
    }
}
