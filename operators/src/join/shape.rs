//! The shape of a join of rows, planned once: what is paired, event time, the result, and the disk format.
//!
//! ```text
//!   left: auction, price, at      right: auction, seller, since       on auction = auction
//!
//!   result       [window_start │ window_end │] auction │ price │ at │ seller │ since │ (hidden) event time
//!   segment      __key_group │ side │ left.auction │ left.price │ left.at │ right.auction │ right.seller │ right.since
//! ```
//!
//! What is paired, and of which columns the result is, is said in `pairing`. In a segment the columns of the other side are
//! null. `side` is 0 for rows of the left side and 1 for those of the right one; what other numbers mean is said by the join that
//! writes them.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt8Array, UInt32Array, new_null_array},
    compute::{interleave, take},
    datatypes::{DataType, Field, FieldRef, Schema, UInt8Type},
};
use datafusion_expr::Expr;

use super::{
    JoinType, LEFT, RIGHT,
    pairing::{NAMES, PairCondition, Pairing, Source},
};
use crate::{
    KeyedOutput, Partitioning, Port, Result, StreamSchema, Timestamp,
    state::{
        KEY_GROUP, Reading, StateForm,
        segments::{key_group_column, own_bytes},
        timed::TimedRows,
    },
    time::times_of,
};

/// The columns of a segment before those of the sides.
const LEADING: usize = 2;

/// Which column of a segment says what kind of row it is.
const SIDE: usize = 1;

#[derive(Debug)]
pub(super) struct Shape {
    pub(super) join_type: JoinType,
    pub(super) inputs: [StreamSchema; 2],
    pub(super) keys: [Vec<usize>; 2],
    /// Where event time is on each side.
    pub(super) times: [usize; 2],
    condition: Option<PairCondition>,
    sources: Vec<Source>,
    pub(super) keyed: Option<KeyedOutput>,
    pub(super) output: StreamSchema,
    pub(super) form: StateForm,
}

/// What the user says of a join.
pub(super) struct Description<'a> {
    pub(super) left: &'a StreamSchema,
    pub(super) right: &'a StreamSchema,
    pub(super) on: &'a [(&'a str, &'a str)],
    pub(super) join_type: JoinType,
    pub(super) condition: Option<&'a Expr>,
    /// Columns of the result that stand before those of the sides and take the place of those so called.
    pub(super) leading: Vec<Field>,
    /// For the checkpoint: what kind of join it is.
    pub(super) kind: String,
}

impl Shape {
    pub(super) fn new(of: Description<'_>) -> Result<Self> {
        let Description { left, right, on, join_type, condition, leading, kind } = of;
        let times = [left.event_time("the left side of a join")?, right.event_time("the right side of a join")?];
        let pairing = Pairing::new([left, right], on, join_type, condition, leading)?;
        let inputs = [left.clone(), right.clone()];
        let output = StreamSchema::with_hidden_time(&Schema::new(pairing.fields))?;
        let on: Vec<String> = on.iter().map(|(left, right)| format!("left.{left} = right.{right}")).collect();
        let mut meaning = format!("{join_type} join, {kind}, on {}", on.join(" and "));
        if let Some(condition) = condition {
            meaning.push_str(&format!(", where {condition}"));
        }
        let form = form(&inputs, meaning);
        let Pairing { on: keys, condition, sources, keyed, .. } = pairing;
        Ok(Self { join_type, inputs, keys, times, condition, sources, keyed, output, form })
    }

    pub(super) fn partitioning(&self) -> Vec<Partitioning> {
        self.keys.iter().cloned().map(Partitioning::Key).collect()
    }

    pub(super) fn outputs(&self) -> Vec<(Port, StreamSchema)> {
        let [left, right] = self.inputs.clone();
        vec![(Port::MAIN, self.output.clone()), (Port::LATE, left), (Port::LATE_RIGHT, right)]
    }

    /// Whether pairs of equal key are partners without more ado.
    pub(super) fn has_condition(&self) -> bool {
        self.condition.is_some()
    }

    /// Keeps the pairs that meet the condition.
    pub(super) fn meet(&self, pairs: &mut [Picked<'_>; 2]) -> Result<()> {
        let Some(condition) = &self.condition else { return Ok(()) };
        let mask = condition.meets(pairs[LEFT].rows.len(), |side, column| pairs[side].column(column))?;
        pairs.iter_mut().for_each(|picked| picked.filter(&mask));
        Ok(())
    }

    /// The result of rows of the sides, of which one may be absent: a batch that begins with `leading` columns.
    pub(super) fn result(
        &self,
        leading: Vec<ArrayRef>,
        sides: [Option<&Picked<'_>>; 2],
        times: Vec<i64>,
    ) -> Result<RecordBatch> {
        let mut columns = leading;
        for (source, field) in self.sources.iter().zip(&self.output.columns().fields()[columns.len()..]) {
            let (side, column) = match *source {
                Source::Side(side, column) => (side, column),
                Source::Either(left, _) if sides[LEFT].is_some() => (LEFT, left),
                Source::Either(_, right) => (RIGHT, right),
            };
            columns.push(match sides[side] {
                Some(picked) => picked.column(column)?,
                None => new_null_array(field.data_type(), times.len()),
            });
        }
        columns.push(Timestamp::column(times));
        Ok(RecordBatch::try_new(self.output.columns().clone(), columns)?)
    }

    /// Rows of a side as a segment; `kind` is what its column `side` says.
    pub(super) fn segment(&self, side: usize, kind: u8, rows: &RecordBatch) -> Result<RecordBatch> {
        let key: Vec<ArrayRef> = self.keys[side].iter().map(|&column| rows.column(column).clone()).collect();
        let n = rows.num_rows();
        let mut columns = vec![key_group_column(&key, n)?, Arc::new(UInt8Array::from(vec![kind; n]))];
        for (at, input) in self.inputs.iter().enumerate() {
            match at == side {
                true => columns.extend(rows.columns().iter().cloned().map(own_bytes)),
                false => {
                    columns.extend(input.columns().fields().iter().map(|field| new_null_array(field.data_type(), n)))
                }
            }
        }
        Ok(RecordBatch::try_new(self.form.columns.clone(), columns)?)
    }

    /// Where in a segment a column of a side is.
    pub(super) fn place(&self, side: usize, column: usize) -> usize {
        let lefts = if side == LEFT { 0 } else { self.inputs[LEFT].columns().fields().len() };
        LEADING + lefts + column
    }

    /// The form of a state of rows by time: of which kind, of which side, and what they are called.
    pub(super) fn form_of(&self, kinds: &[(u8, usize, &str)]) -> StateForm {
        let rule = |&(kind, side, name): &(u8, usize, &str)| {
            TimedRows::<()>::rule(name, Some(kind), self.place(side, self.times[side]))
        };
        StateForm { reading: Reading::each(kinds.iter().map(rule)), ..self.form.clone() }
    }

    /// The rows of a side in a segment, if they are of this kind: all rows of a segment are of one.
    pub(super) fn of_segment(&self, side: usize, kind: u8, segment: &RecordBatch) -> Result<Option<RecordBatch>> {
        let segment = self.form.widen(segment)?;
        let kinds = segment.column(SIDE).as_primitive::<UInt8Type>().values();
        if kinds.first() != Some(&kind) {
            return Ok(None);
        }
        let lefts = self.inputs[LEFT].columns().fields().len();
        let columns = self.inputs[side].columns();
        let first = if side == LEFT { LEADING } else { LEADING + lefts };
        let rows = segment.columns()[first..first + columns.fields().len()].to_vec();
        Ok(Some(RecordBatch::try_new(columns.clone(), rows)?))
    }
}

fn form(inputs: &[StreamSchema; 2], meaning: String) -> StateForm {
    let mut fields = vec![Field::new(KEY_GROUP, DataType::UInt8, false), Field::new("side", DataType::UInt8, false)];
    for (input, side) in inputs.iter().zip(NAMES) {
        let named = |field: &FieldRef| field.as_ref().clone().with_name(format!("{side}.{}", field.name()));
        fields.extend(input.columns().fields().iter().map(named).map(|field| field.with_nullable(true)));
    }
    // Each row is in one segment: none takes the place of another.
    StateForm {
        identity: fields.len() - 1,
        columns: Arc::new(Schema::new(fields)),
        meaning,
        reading: Reading::default(),
    }
}

/// Rows of some batches: (batch, row).
pub(super) type Places = Vec<(usize, usize)>;

/// Rows of some batches of one side.
pub(super) struct Picked<'a> {
    pub(super) batches: Vec<&'a RecordBatch>,
    pub(super) rows: Places,
}

impl<'a> Picked<'a> {
    pub(super) fn none_of(batches: Vec<&'a RecordBatch>) -> Self {
        Self { batches, rows: Vec::new() }
    }

    /// The rows of one batch.
    pub(super) fn of(batch: &'a RecordBatch, rows: impl Iterator<Item = usize>) -> Self {
        Self { batches: vec![batch], rows: rows.map(|row| (0, row)).collect() }
    }

    fn column(&self, column: usize) -> Result<ArrayRef> {
        if let [one] = self.batches[..] {
            let rows = UInt32Array::from_iter_values(self.rows.iter().map(|&(_, row)| row as u32));
            return Ok(take(one.column(column), &rows, None)?);
        }
        let arrays: Vec<&dyn Array> = self.batches.iter().map(|batch| batch.column(column).as_ref()).collect();
        Ok(interleave(&arrays, &self.rows)?)
    }

    /// The event times of the rows.
    pub(super) fn times(&self, column: usize) -> Result<Vec<i64>> {
        let all = self.batches.iter().map(|batch| times_of(batch, column)).collect::<Result<Vec<_>>>()?;
        Ok(self.rows.iter().map(|&(batch, row)| all[batch][row]).collect())
    }

    fn filter(&mut self, mask: &BooleanArray) {
        let mut row = 0;
        self.rows.retain(|_| {
            row += 1;
            mask.value(row - 1)
        });
    }
}
