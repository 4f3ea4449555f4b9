//! Windows under a memory budget whose state comes from a checkpoint by way of the disk; and mistakes of the disk, which must be
//! found.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray, StructArray},
    compute::concat_batches,
    datatypes::{DataType, Field, SchemaRef, UInt8Type},
};
use datafusion_expr::{col, lit};
use datafusion_functions_aggregate::expr_fn::{array_agg, count, max, sum};
use windrow_operators::{
    Advance, Operator, Outbox, Port, Result, StreamSchema, Timestamp,
    spill::{self, Memory, Room, Stored},
    state::{KEY_GROUP, Part, SegmentId, StateReader, StateWriter, StoredSegment},
    testing::TestRoom,
    window::{AggregatePlan, Cumulating, Hopping, Tumbling, Window},
};

use crate::{bids::us, restored::Saved};

/// An operator that finds in a room what it is to load, as the engine has it.
pub(crate) struct FromRoom<O> {
    operator: O,
    memory: Memory,
    /// How many rows a batch of a segment has.
    rows: usize,
}

impl<O: Operator> FromRoom<O> {
    pub(crate) fn new(mut operator: O, memory: Memory, rows: usize) -> Self {
        assert!(operator.limit(&memory));
        Self { operator, memory, rows }
    }
}

impl<O: Operator> Operator for FromRoom<O> {
    fn process(&mut self, port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        self.operator.process(port, batch, out)
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        self.operator.advance(time, out)
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        self.operator.save(state)
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        self.operator.load(&put_away(state, self.memory.room(), self.rows)?)
    }

    fn size(&self) -> usize {
        self.operator.size()
    }
}

/// The same state, not in memory: in batches of so many rows, of which one has none.
fn put_away(state: &StateReader, room: &dyn Room, each: usize) -> Result<StateReader> {
    let segment = |(id, rows): &(SegmentId, RecordBatch)| {
        let starts = (0..rows.num_rows()).step_by(each);
        let batches = starts.map(|start| rows.slice(start, each.min(rows.num_rows() - start)));
        let mut batches = batches.chain([rows.slice(0, 0)]).map(Ok);
        let groups = rows.column(0).as_primitive::<UInt8Type>().values().iter().copied();
        Ok(StoredSegment {
            id: *id,
            rows: room.store(rows.schema_ref(), &mut batches)?,
            count: rows.num_rows(),
            bytes: spill::bytes(rows),
            key_groups: groups.collect::<BTreeSet<u8>>(),
        })
    };
    let part = |part: &Part| {
        let stored = part.segments.iter().map(segment).collect::<Result<_>>()?;
        Ok(Part { segments: Vec::new(), stored, ..part.clone() })
    };
    let parts = state.parts.iter().map(part).collect::<Result<_>>()?;
    Ok(StateReader { key_groups: state.key_groups.clone(), parts })
}

/// A name that is longer than a view holds, a list of which may be in a state, a struct, and a number.
fn stream() -> StreamSchema {
    let b = Field::new("b", DataType::Utf8View, true);
    let of = DataType::Struct(vec![Field::new("a", DataType::Int64, true), b].into());
    let fields = [("name", DataType::Utf8View), ("of", of), ("n", DataType::Int64)];
    let mut fields: Vec<Field> = fields.into_iter().map(|(name, of)| Field::new(name, of, true)).collect();
    fields.push(Field::new("at", Timestamp::data_type(), false));
    StreamSchema::with_time(Arc::new(arrow::datatypes::Schema::new(fields)), "at").unwrap()
}

fn rows(rows: impl Iterator<Item = (i64, i64)> + Clone) -> RecordBatch {
    let text = |i: i64| (i % 11 > 0).then(|| format!("a name that is longer than a view holds {i}"));
    let names: ArrayRef = Arc::new(rows.clone().map(|(i, _)| text(i)).collect::<StringViewArray>());
    let numbers: ArrayRef = Arc::new(rows.clone().map(|(i, _)| (i % 5 > 0).then_some(i)).collect::<Int64Array>());
    let field = |name: &str, of: &ArrayRef| Arc::new(Field::new(name, of.data_type().clone(), true));
    let of = vec![(field("a", &numbers), numbers.clone()), (field("b", &names), names.clone())];
    let at = Timestamp::column(rows.map(|(_, at)| at).collect());
    let columns = vec![names, Arc::new(StructArray::from(of)), numbers, at];
    RecordBatch::try_new(stream().columns().clone(), columns).unwrap()
}

fn plan(window: Window, nested: bool) -> AggregatePlan {
    let mut aggregates = vec![count(lit(1)).alias("rows"), sum(col("n")).alias("sum")];
    if nested {
        aggregates.extend([max(col("name")).alias("max"), array_agg(col("of")).alias("structs")]);
        aggregates.push(array_agg(col("name")).alias("names"));
    }
    AggregatePlan::new(&stream(), &["name"], window, &aggregates).unwrap()
}

fn windows() -> [Window; 3] {
    [Tumbling::of(us(100)), Hopping::of(us(40), us(20)), Cumulating::of(us(100), us(25))]
}

/// The results, as text. The rows of a key are in the order in which they came, whatever was put away meanwhile.
fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let mut lines = Vec::new();
    for rows in batches {
        for row in 0..rows.num_rows() {
            let cell = |column: &ArrayRef| arrow::util::display::array_value_to_string(column, row).unwrap();
            lines.push(rows.columns().iter().map(cell).collect::<Vec<_>>().join("|"));
        }
    }
    lines.sort();
    lines
}

fn advance(operator: &mut dyn Operator, time: i64, batches: &mut Vec<RecordBatch>) -> Result<()> {
    let mut out = Outbox::new();
    while operator.advance(Timestamp::from_micros(time), &mut out)? == Advance::Again {}
    batches.extend(out.drain().map(|(_, rows)| rows));
    Ok(())
}

/// A life for each twelve of so many batches, with saves between them, and one more, and windows that fire on the way; without
/// memory one life.
fn answer(plan: &AggregatePlan, memory: Option<&Memory>, (rounds, keys, each): (i64, i64, i64)) -> Result<Vec<String>> {
    let make = || -> Box<dyn Operator> {
        let operator = plan.whole().unwrap();
        match memory {
            Some(memory) => Box::new(FromRoom::new(operator, memory.clone(), 50)),
            None => Box::new(operator),
        }
    };
    let (mut operator, mut saved, mut batches) = (make(), Saved::new(), Vec::new());
    operator.load(&StateReader { key_groups: 0..256, parts: Vec::new() })?;
    for round in 0..rounds {
        let some = (0..each).map(move |i| ((round * each + i * 7) % keys, round * 4 + i % 30));
        operator.process(Port::MAIN, rows(some), &mut Outbox::new())?;
        if round % 5 == 4 {
            advance(operator.as_mut(), round * 4, &mut batches)?;
        }
        if memory.is_some() && round % 4 == 3 {
            saved.save(operator.as_mut());
            if round % 12 == 11 {
                operator = make();
                operator.load(&StateReader { key_groups: 0..256, parts: vec![saved.part()] })?;
            }
        }
    }
    advance(operator.as_mut(), i64::MAX, &mut batches)?;
    Ok(lines(&batches))
}

#[test]
fn nested_and_view_states_come_back_from_disk_and_from_checkpoints() {
    for window in windows() {
        let plan = plan(window.clone(), true);
        let expected = answer(&plan, None, (24, 40, 25)).unwrap();
        for bytes in [0, 20_000] {
            let room = TestRoom::new();
            let actual = answer(&plan, Some(&room.memory(bytes)), (24, 40, 25)).unwrap();
            assert!(room.stored() > 0 && actual == expected, "{window} in {bytes} bytes");
            assert_eq!(room.there(), 0);
        }
    }
}

/// A room that makes a mistake with what was stored n-th.
#[derive(Debug)]
struct Wrong {
    room: TestRoom,
    mistake: Mistake,
    at: usize,
    stored: AtomicUsize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mistake {
    /// The rows of its first batch come twice.
    Twice,
    /// They do not come.
    Skipped,
    /// The first two batches come in each other's place. Only of runs of several: in segments it does no harm.
    Swapped,
}

#[derive(Debug)]
struct WrongStored(Arc<dyn Stored>, Mistake);

impl Room for Wrong {
    fn store(
        &self,
        schema: &SchemaRef,
        batches: &mut dyn Iterator<Item = Result<RecordBatch>>,
    ) -> Result<Arc<dyn Stored>> {
        let mut filled = 0;
        let mut batches =
            batches.inspect(|rows| filled += usize::from(matches!(rows, Ok(rows) if rows.num_rows() > 0)));
        let stored = self.room.store(schema, &mut batches)?;
        drop(batches);
        if self.mistake == Mistake::Swapped && (filled < 2 || schema.field(0).name() == KEY_GROUP) {
            return Ok(stored);
        }
        let is_it = self.stored.fetch_add(1, Relaxed) == self.at;
        Ok(if is_it { Arc::new(WrongStored(stored, self.mistake)) } else { stored })
    }
}

impl Stored for WrongStored {
    fn batches(&self) -> usize {
        self.0.batches()
    }

    fn read(&self, batch: usize) -> Result<RecordBatch> {
        let rows = |batch| self.0.read(batch);
        match (self.1, batch) {
            (Mistake::Twice, 0) => rows(0).and_then(|rows| Ok(concat_batches(rows.schema_ref(), [&rows, &rows])?)),
            (Mistake::Skipped, 0) => Ok(rows(0)?.slice(0, 0)),
            (Mistake::Swapped, 0 | 1) => rows(1 - batch),
            _ => rows(batch),
        }
    }
}

/// How many of so many mistakes change the answer or end the job, at times that are spread over all that is stored.
fn found(
    mistake: Mistake,
    (tries, bytes): (usize, usize),
    expected: &[String],
    answer: impl Fn(&Memory) -> Result<Vec<String>>,
) -> usize {
    let is_right = |at: usize| {
        let room = Arc::new(Wrong { room: TestRoom::new(), mistake, at, stored: AtomicUsize::new(0) });
        let memory = Memory::new(Arc::new(AtomicUsize::new(bytes)), room.clone());
        let actual = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| answer(&memory)));
        (matches!(actual, Ok(Ok(actual)) if actual == expected), room.stored.load(Relaxed))
    };
    let (right, all) = is_right(usize::MAX);
    assert!(right && all >= tries, "{mistake:?}: without one {right}, of {all}");
    let found = (0..tries).filter(|at| !is_right(at * all / tries).0).count();
    println!("{mistake:?}: {found} of {tries}, where {all} can be made");
    found
}

/// What goes wrong on disk changes the answer of these tests, or ends them: they are not blind. A segment of which rows come
/// twice does no harm, when it is loaded into memory.
#[test]
fn a_mistake_with_what_is_on_disk_is_found() {
    let plan = plan(Hopping::of(us(40), us(20)), false);
    let small = (24, 200, 80);
    let expected = answer(&plan, None, small).unwrap();
    for (mistake, least) in [(Mistake::Twice, 10), (Mistake::Skipped, 18)] {
        let found = found(mistake, (20, 20_000), &expected, |memory| answer(&plan, Some(memory), small));
        assert!(found >= least, "{mistake:?}: {found} of 20");
    }
}

/// Of large runs, which are read piece by piece.
#[test]
fn a_mistake_with_a_piece_of_a_run_is_found() {
    let plan = plan(Hopping::of(us(40), us(20)), false);
    let large = (12, 5_000, 4_000);
    let expected = answer(&plan, None, large).unwrap();
    let found = found(Mistake::Swapped, (10, 400 << 10), &expected, |memory| answer(&plan, Some(memory), large));
    assert!(found >= 9, "{found} of 10");
}

/// The same of runs that were made of the segments of two former tasks.
#[test]
fn a_mistake_with_a_piece_of_what_others_left_is_found() {
    let plan = plan(Hopping::of(us(40), us(20)), false);
    // Keys of one of the tasks only: nobody has no name.
    let named = |i: i64| i / 10 * 11 + i % 10 + 1;
    let some = |task: i64, turn: i64| (0..2_500_i64).map(move |i| (named(2 * i + task), turn * 10 + i % 30));
    let parts: Vec<Part> = [0, 1]
        .into_iter()
        .map(|task| {
            let (mut former, mut saved) = (plan.whole().unwrap(), Saved::new());
            former.load(&StateReader { key_groups: 0..256, parts: Vec::new() }).unwrap();
            for turn in 0..2 {
                former.process(Port::MAIN, rows(some(task, turn)), &mut Outbox::new()).unwrap();
                saved.save(&mut former);
            }
            saved.part()
        })
        .collect();
    let state = StateReader { key_groups: 0..256, parts };
    let answer = |operator: &mut dyn Operator| {
        operator.load(&state)?;
        let mut batches = Vec::new();
        for turn in 2..4 {
            operator.process(Port::MAIN, rows(some(turn % 2, turn)), &mut Outbox::new())?;
            operator.save(&mut StateWriter::new(&mut SegmentId(100)))?;
        }
        advance(operator, i64::MAX, &mut batches)?;
        Ok(lines(&batches))
    };
    let expected = answer(&mut plan.whole().unwrap()).unwrap();
    let found = found(Mistake::Swapped, (10, 400 << 10), &expected, |memory| {
        answer(&mut FromRoom::new(plan.whole().unwrap(), memory.clone(), 50))
    });
    assert!(found >= 9, "{found} of 10");
}

/// Counts the bytes of a checkpoint that have been read and are not in the room again.
#[derive(Clone, Debug, Default)]
struct Scale {
    room: TestRoom,
    read: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Weighed(Arc<dyn Stored>, Scale);

impl Room for Scale {
    fn store(
        &self,
        schema: &SchemaRef,
        batches: &mut dyn Iterator<Item = Result<RecordBatch>>,
    ) -> Result<Arc<dyn Stored>> {
        let stored = self.room.store(schema, batches)?;
        self.read.store(0, Relaxed);
        Ok(stored)
    }
}

impl Stored for Weighed {
    fn batches(&self) -> usize {
        self.0.batches()
    }

    fn read(&self, batch: usize) -> Result<RecordBatch> {
        let rows = self.0.read(batch)?;
        let read = self.1.read.fetch_add(spill::bytes(&rows), Relaxed) + spill::bytes(&rows);
        self.1.most.fetch_max(read, Relaxed);
        Ok(rows)
    }
}

/// A state many times the budget is restored within it, gives its answer, and saves only what changes.
#[test]
fn a_state_that_is_larger_than_the_budget_is_restored_within_it() {
    const BUDGET: usize = 1 << 20;
    for window in windows() {
        let plan = plan(window.clone(), false);
        let mut plain = plan.whole().unwrap();
        plain.load(&StateReader { key_groups: 0..256, parts: Vec::new() }).unwrap();
        let mut saved = Saved::new();
        for turn in 0..4_i64 {
            let some = (0..30_000_i64).map(move |i| (i * (turn + 1) % 60_000, i % 100));
            plain.process(Port::MAIN, rows(some), &mut Outbox::new()).unwrap();
            saved.save(&mut plain);
        }
        let scale = Scale::default();
        let state = StateReader { key_groups: 0..256, parts: vec![saved.part()] };
        let mut state = put_away(&state, &scale, 200).unwrap();
        for segment in &mut state.parts[0].stored {
            segment.rows = Arc::new(Weighed(segment.rows.clone(), scale.clone()));
        }
        let bytes: usize = state.parts[0].stored.iter().map(|segment| segment.bytes).sum();
        assert!(bytes > 4 * BUDGET, "{bytes} bytes");
        let mut operator = plan.whole().unwrap();
        assert!(operator.limit(&Memory::new(Arc::new(AtomicUsize::new(BUDGET)), Arc::new(scale.clone()))));
        operator.load(&state).unwrap();
        drop(state);
        let most = scale.most.load(Relaxed);
        assert!(most <= BUDGET / 2, "{window}: {most} bytes were read and not put away");
        assert!(operator.size() <= BUDGET, "{window}: {} bytes", operator.size());
        let mut after = saved.clone();
        assert_eq!(after.save(&mut operator), 0, "{window}: nothing has changed");
        let few = || rows((0..100).map(|i| (i * 7, i)));
        plain.process(Port::MAIN, few(), &mut Outbox::new()).unwrap();
        operator.process(Port::MAIN, few(), &mut Outbox::new()).unwrap();
        let new = after.save(&mut operator);
        assert!((90..=100).contains(&new), "{window}: {new} rows for 100 changes");
        let (mut expected, mut actual) = (Vec::new(), Vec::new());
        advance(&mut plain, i64::MAX, &mut expected).unwrap();
        advance(&mut operator, i64::MAX, &mut actual).unwrap();
        assert!(lines(&expected) == lines(&actual), "{window}");
        drop((operator, after));
        assert_eq!(scale.room.there(), 0);
    }
}
