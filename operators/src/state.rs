//! State on its way to a checkpoint and back: immutable Arrow segments, and a few numbers.
//!
//! ```text
//!   Operator::save ──► StateWriter ── seal(rows) ──► a new segment: uploaded once
//!                          │       ├─ seal_stored ► the same, of rows that are not in memory
//!                          │       └─ keep(id)  ──► an older segment that is still needed: named again, not uploaded
//!                          └─ set("closed", t)  ──► a number
//!
//!   a checkpoint ──► StateReader: one Part per former task ──► Operator::load
//!                          └─ rows in memory; or in a room, to be read in pieces
//! ```
//!
//! A segment is a batch whose first column, [`KEY_GROUP`], holds the key group of each row. It never changes once it is
//! sealed, so a checkpoint names the segments that make up the state and uploads only the new ones.
//!
//! An operator may be restored with another number of tasks than it was saved with. So [`StateReader`] gives it the
//! parts of all former tasks that held any of its key groups, each with only the rows of key groups that are its own.
//! What is not keyed, such as how far event time had come, is a number of each former task.
//!
//! # The disk format
//!
//! Segments are written to disk and are read by later versions. So are their columns: `__key_group` (`UInt8`), then those
//! of [`StateForm::columns`], by name and in order; an operator says in its documentation what its rows mean. Numbers
//! are `i64` by name. A job that was changed is checked against the form that was saved ([`StateForm::accepts`]); a type
//! may become wider, and [`StateForm::widen`] brings older segments to it.

pub(crate) mod bounded;
mod reading;
pub(crate) mod segments;
pub(crate) mod timed;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use arrow::{
    array::RecordBatch,
    compute::cast,
    datatypes::{DataType, Field, Schema, SchemaRef},
};

pub use reading::{Reading, Rule};

use crate::{
    OperatorError, Result,
    spill::{Stored, read_all},
};

/// The name of the first column of every segment, a `UInt8`.
pub const KEY_GROUP: &str = "__key_group";

/// Names a segment among those of one task of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentId(pub u64);

/// What one task of an operator is made of at a barrier.
#[derive(Clone, Debug, Default)]
pub struct TaskState {
    /// The numbers it set.
    pub numbers: BTreeMap<String, i64>,
    /// Its segments, oldest first: those that are new with their rows, those that were saved before without.
    pub segments: Vec<(SegmentId, Option<RecordBatch>)>,
    /// Of those that are without rows in `segments`: the new ones, whose rows are not in memory.
    pub stored: BTreeMap<SegmentId, Arc<dyn Stored>>,
}

/// Takes down the state of one task of an operator.
#[derive(Debug)]
pub struct StateWriter<'a> {
    state: TaskState,
    /// The next segment of this task gets this number.
    next: &'a mut SegmentId,
}

impl<'a> StateWriter<'a> {
    /// Begins a state. `next` counts the segments of the task over all its checkpoints.
    pub fn new(next: &'a mut SegmentId) -> Self {
        Self { state: TaskState::default(), next }
    }

    /// Notes a number that does not belong to a key.
    pub fn set(&mut self, name: &str, value: i64) {
        self.state.numbers.insert(name.into(), value);
    }

    /// Adds a new segment. Segments are ordered: what must be read later is added later.
    pub fn seal(&mut self, rows: RecordBatch) -> SegmentId {
        let id = *self.next;
        self.next.0 += 1;
        self.state.segments.push((id, Some(rows)));
        id
    }

    /// Adds a new segment whose rows are not in memory.
    pub fn seal_stored(&mut self, rows: Arc<dyn Stored>) -> SegmentId {
        let id = *self.next;
        self.next.0 += 1;
        self.state.segments.push((id, None));
        self.state.stored.insert(id, rows);
        id
    }

    /// Adds a segment that an earlier state of this task had, or that it was loaded from.
    pub fn keep(&mut self, id: SegmentId) {
        self.state.segments.push((id, None));
    }

    /// The state, complete.
    pub fn finish(self) -> TaskState {
        self.state
    }
}

/// What a former task left to this one.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// Whether it was the first of two phases of the operator.
    pub first_phase: bool,
    /// The numbers it had set.
    pub numbers: BTreeMap<String, i64>,
    /// Its segments, oldest first, with the rows of the key groups that were its own and are now this task's. Both,
    /// because a segment that it had kept from *its* former task may have outdated rows of key groups that went elsewhere.
    pub segments: Vec<(SegmentId, RecordBatch)>,
    /// Those whose rows are not in memory, instead of `segments`: of an operator that keeps to its memory, as it said in
    /// [`Operator::limit`](crate::Operator::limit), when the caller has put them into a room.
    pub stored: Vec<StoredSegment>,
}

/// A segment to be loaded whose rows are not in memory.
#[derive(Clone, Debug)]
pub struct StoredSegment {
    /// Which one it is.
    pub id: SegmentId,
    /// Its rows, of the key groups that are this task's. A batch may have none.
    pub rows: Arc<dyn Stored>,
    /// How many rows these are; at least one.
    pub count: usize,
    /// About how many bytes they take in memory.
    pub bytes: usize,
    /// Their key groups.
    pub key_groups: BTreeSet<u8>,
}

impl Part {
    /// Whether it has any rows.
    pub fn has_rows(&self) -> bool {
        !self.segments.is_empty() || !self.stored.is_empty()
    }

    /// With all rows in memory, for an operator that keeps them there anyway.
    pub fn in_memory(mut self) -> Result<Self> {
        for StoredSegment { id, rows, .. } in std::mem::take(&mut self.stored) {
            self.segments.push((id, read_all(rows.as_ref())?));
        }
        Ok(self)
    }
}

/// What a task of an operator begins with.
#[derive(Clone, Debug)]
pub struct StateReader {
    /// The key groups that are this task's. Of an operator without a key the first task has group 0.
    pub key_groups: Range<usize>,
    /// What former tasks left.
    pub parts: Vec<Part>,
}

impl StateReader {
    /// The least value of a number over the former tasks of one phase; `None` when there were none.
    pub fn least(&self, first_phase: bool, name: &str) -> Option<i64> {
        let parts = self.parts.iter().filter(|part| part.first_phase == first_phase);
        parts.filter_map(|part| part.numbers.get(name)).copied().min()
    }

    /// The greatest value of a number over the former tasks of one phase; `None` when there were none.
    pub fn greatest(&self, first_phase: bool, name: &str) -> Option<i64> {
        let parts = self.parts.iter().filter(|part| part.first_phase == first_phase);
        parts.filter_map(|part| part.numbers.get(name)).copied().max()
    }
}

/// What an operator says of the form of its state, so that a changed job is refused before it misreads the state of the
/// former one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateForm {
    /// The columns of its segments, [`KEY_GROUP`] first.
    pub columns: SchemaRef,
    /// How many columns after [`KEY_GROUP`] say which row it is: of several rows of a task that agree in them, those of the
    /// newest segment count. For those who read a checkpoint without the job.
    pub identity: usize,
    /// What else must be the same, in words that the user knows: `tumbling 10s; count(1), max(price)`.
    pub meaning: String,
    /// Which rows still count, for those who read a checkpoint without the job.
    pub reading: Reading,
}

impl StateForm {
    /// Whether state of the form `saved` can be loaded into an operator of this form. The columns must have the same
    /// names in the same order and either the same types or wider ones of the same kind; the error says what differs.
    pub fn accepts(&self, saved: &Self) -> Result<(), String> {
        if self.meaning != saved.meaning {
            return Err(format!(
                "the state that was saved is of `{}`, but now it is `{}`",
                saved.meaning, self.meaning
            ));
        }
        let (now, before) = (self.columns.fields(), saved.columns.fields());
        let lacks = |fields: &[Arc<Field>], name: &str| fields.iter().all(|field| field.name() != name);
        if let Some(field) = before.iter().find(|field| lacks(now, field.name())) {
            return Err(format!("the state that was saved has the column {:?}, which is not there now", field.name()));
        }
        if let Some(field) = now.iter().find(|field| lacks(before, field.name())) {
            return Err(format!("the column {:?} is not in the state that was saved", field.name()));
        }
        let names = |schema: &Schema| schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
        if names(&self.columns) != names(&saved.columns) {
            return Err(format!(
                "the columns of the state that was saved were in the order {}, but now they are {}",
                names(&saved.columns).join(", "),
                names(&self.columns).join(", ")
            ));
        }
        for (now, before) in now.iter().zip(before) {
            let (new, old) = (now.data_type(), before.data_type());
            if !is_wider(new, old) {
                let name = now.name();
                return Err(format!(
                    "the column {name:?} was saved as {old} and is {new} now: a type may only become wider"
                ));
            }
        }
        Ok(())
    }

    /// Rows that were saved with the types of a form that this one accepts, in the types of this one.
    pub fn widen(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        if rows.schema_ref() == &self.columns {
            return Ok(rows.clone());
        }
        let schema = rows.schema_ref();
        let same = |(saved, now): (&Arc<Field>, &Arc<Field>)| {
            saved.name() == now.name() && is_wider(now.data_type(), saved.data_type())
        };
        if schema.fields().len() != self.columns.fields().len()
            || !schema.fields().iter().zip(self.columns.fields()).all(same)
        {
            let message = format!("a segment has the columns {schema}, but its operator takes {}", self.columns);
            return Err(OperatorError::Internal(message));
        }
        let columns = rows.columns().iter().zip(self.columns.fields());
        let columns = columns.map(|(column, field)| cast(column, field.data_type())).collect::<Result<_, _>>()?;
        Ok(RecordBatch::try_new(self.columns.clone(), columns)?)
    }
}

/// Whether every value of type `old` is one of type `new`, with the same hash.
fn is_wider(new: &DataType, old: &DataType) -> bool {
    use DataType::{Binary, BinaryView, Float32, Float64, LargeBinary, LargeUtf8, Utf8, Utf8View};
    let is_text = |data_type: &DataType| matches!(data_type, Utf8 | LargeUtf8 | Utf8View);
    let is_bytes = |data_type: &DataType| matches!(data_type, Binary | LargeBinary | BinaryView);
    if let (DataType::List(new), DataType::List(old)) = (new, old) {
        return is_wider(new.data_type(), old.data_type());
    }
    let at_least = || new.primitive_width() >= old.primitive_width();
    new.equals_datatype(old)
        || (new.is_signed_integer() && old.is_signed_integer() && at_least())
        || (new.is_unsigned_integer() && old.is_unsigned_integer() && at_least())
        || (*new == Float64 && *old == Float32)
        || (is_text(new) && is_text(old))
        || (is_bytes(new) && is_bytes(old))
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int32Array, StringArray, UInt8Array};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn form(meaning: &str, columns: &[(&str, DataType)]) -> StateForm {
        let mut fields = vec![Field::new(KEY_GROUP, DataType::UInt8, false)];
        fields.extend(columns.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)));
        StateForm {
            columns: Arc::new(Schema::new(fields)),
            identity: 1,
            meaning: meaning.into(),
            reading: Reading::default(),
        }
    }

    #[track_caller]
    fn refused(now: &StateForm, saved: &StateForm, words: &str) {
        assert_eq!(now.accepts(saved).unwrap_err(), words);
    }

    #[test]
    fn a_refusal_says_what_differs() {
        use DataType::{Int32, Int64, UInt64, Utf8};
        let saved = form("tumbling 10s; max(price)", &[("who", Utf8), ("top", Int64)]);
        refused(
            &form("tumbling 20s; max(price)", &[("who", Utf8), ("top", Int64)]),
            &saved,
            "the state that was saved is of `tumbling 10s; max(price)`, but now it is `tumbling 20s; max(price)`",
        );
        let now = |columns: &[(&str, DataType)]| form("tumbling 10s; max(price)", columns);
        refused(
            &now(&[("top", Int64)]),
            &saved,
            r#"the state that was saved has the column "who", which is not there now"#,
        );
        refused(
            &now(&[("who", Utf8), ("top", Int64), ("n", Int64)]),
            &saved,
            r#"the column "n" is not in the state that was saved"#,
        );
        refused(
            &now(&[("top", Int64), ("who", Utf8)]),
            &saved,
            "the columns of the state that was saved were in the order __key_group, who, top, but now they are __key_group, top, who",
        );
        let narrower = r#"the column "top" was saved as Int64 and is Int32 now: a type may only become wider"#;
        refused(&now(&[("who", Utf8), ("top", Int32)]), &saved, narrower);
        let other = r#"the column "top" was saved as Int64 and is UInt64 now: a type may only become wider"#;
        refused(&now(&[("who", Utf8), ("top", UInt64)]), &saved, other);
    }

    #[test]
    fn a_wider_type_of_the_same_kind_is_accepted() {
        use DataType::{Float32, Float64, Int8, Int64, LargeUtf8, UInt16, UInt32, Utf8, Utf8View};
        let pairs = [(Int64, Int8), (UInt32, UInt16), (Float64, Float32), (LargeUtf8, Utf8), (Utf8View, Utf8)];
        for (new, old) in pairs {
            let (now, saved) = (form("m", &[("x", new)]), form("m", &[("x", old)]));
            assert_eq!(now.accepts(&saved), Ok(()));
            assert_eq!(saved.accepts(&saved), Ok(()));
        }
        for (new, old) in [(Int8, Int64), (Float32, Float64), (Int64, UInt32), (Float64, Int8), (Utf8, Int8)] {
            assert!(form("m", &[("x", new)]).accepts(&form("m", &[("x", old)])).is_err());
        }
    }

    #[test]
    fn an_older_segment_is_brought_to_wider_types() {
        let saved = form("m", &[("x", DataType::Int32), ("who", DataType::Utf8)]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(UInt8Array::from(vec![3, 4])),
            Arc::new(Int32Array::from(vec![Some(-7), None])),
            Arc::new(StringArray::from(vec!["ann", "bob"])),
        ];
        let rows = RecordBatch::try_new(saved.columns.clone(), columns).unwrap();
        let now = form("m", &[("x", DataType::Int64), ("who", DataType::Utf8View)]);
        let wide = now.widen(&rows).unwrap();
        assert_eq!(wide.schema_ref(), &now.columns);
        assert_eq!(wide.column(1).as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(-7), None]);
        assert_eq!(wide.column(2).as_string_view().value(1), "bob");
        assert!(saved.widen(&wide).is_err(), "narrower");
    }
}
