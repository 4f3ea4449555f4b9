//! Faults that only saving and loading have: each is planted into an operator whose state is right otherwise, and caught.

use std::collections::{BTreeMap, BTreeSet};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt8Array, UInt32Array},
    compute::take_record_batch,
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use windrow_operators::{
    Advance, KeyGroup, Operator, Outbox, Port, Result, Timestamp,
    key::key_groups,
    state::{KEY_GROUP, SegmentId, StateReader, StateWriter},
    testing::{Check, Pipeline},
};

use crate::{
    bids::us,
    broken::{LATENESS, Reading, SIZE, oracle, readings, results, rows, rows_of_segment, segment, sums_schema},
};

/// How many segments it keeps before it writes all anew.
const SEGMENTS: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    ForgetsHowFarTimeHadCome,
    ForgetsTheKeyGroups,
    ShiftsTheKeyGroups,
    ForgetsAnOldSegment,
    KeepsASegmentOfAnEarlierState,
    NamesASegmentTwice,
    TheOldestWins,
    MissesAChangedGroup,
    LosesItsStateWhenItSavesAgain,
    AppliesEverySegment,
    LoadsOnlyTheFirstPart,
    LoadsClosedWindows,
    SavesBeforeItIsFlushed,
    LoadsIntoTheWrongWindow,
}

/// Sums per sensor and window; saves the groups that have changed, and all of them now and then.
struct Sums {
    fault: Fault,
    sums: BTreeMap<(i64, i64), i64>,
    changed: BTreeSet<(i64, i64)>,
    segments: Vec<SegmentId>,
    forgotten: Vec<SegmentId>,
    closed: i64,
    saves: usize,
    /// What [`Fault::SavesBeforeItIsFlushed`] holds back.
    held: BTreeMap<(i64, i64), i64>,
}

impl Sums {
    fn new(fault: Fault) -> Result<Self> {
        Ok(Self {
            fault,
            sums: BTreeMap::new(),
            changed: BTreeSet::new(),
            segments: Vec::new(),
            forgotten: Vec::new(),
            closed: i64::MIN,
            saves: 0,
            held: BTreeMap::new(),
        })
    }

    fn rewrites(&self) -> bool {
        self.segments.len() >= SEGMENTS
    }
}

impl Operator for Sums {
    fn process(&mut self, _port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        let numbers = |column: usize| batch.column(column).as_primitive::<Int64Type>().clone();
        let (sensors, values) = (numbers(0), numbers(1));
        let times = batch.column(2).as_primitive::<TimestampMicrosecondType>().clone();
        let mut late = Vec::new();
        for row in 0..batch.num_rows() {
            let start = times.value(row).div_euclid(SIZE) * SIZE;
            if start + SIZE <= self.closed {
                late.push(row as u32);
                continue;
            }
            let key = (start, sensors.value(row));
            let held = self.fault == Fault::SavesBeforeItIsFlushed && row == 0;
            let sums = if held { &mut self.held } else { &mut self.sums };
            *sums.entry(key).or_insert(0) += values.value(row);
            self.changed.insert(key);
        }
        out.processed(batch.num_rows() - late.len());
        out.late(take_record_batch(&batch, &UInt32Array::from(late))?);
        Ok(())
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        let end = time == Timestamp::MAX;
        self.closed = if end { i64::MAX } else { time.micros().saturating_sub(LATENESS).max(self.closed) };
        for (key, sum) in std::mem::take(&mut self.held) {
            *self.sums.entry(key).or_insert(0) += sum;
        }
        let open = self.sums.split_off(&(self.closed.saturating_sub(SIZE).saturating_add(1), i64::MIN));
        out.emit(results(&std::mem::replace(&mut self.sums, open))?);
        Ok(Advance::Promise(Timestamp::from_micros(self.closed.min(time.micros()))))
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        self.saves += 1;
        if self.fault != Fault::ForgetsHowFarTimeHadCome {
            state.set("closed", self.closed);
        }
        if self.rewrites() {
            self.forgotten = std::mem::take(&mut self.segments);
        }
        let all = self.segments.is_empty();
        let keep = if self.fault == Fault::ForgetsAnOldSegment { 1 } else { 0 };
        self.segments.iter().skip(keep).for_each(|id| state.keep(*id));
        match self.fault {
            Fault::KeepsASegmentOfAnEarlierState if !all => self.forgotten.iter().for_each(|id| state.keep(*id)),
            Fault::NamesASegmentTwice => self.segments.iter().take(1).for_each(|id| state.keep(*id)),
            Fault::MissesAChangedGroup if !all => {
                self.changed.pop_last();
            }
            _ => {}
        }
        let changed = std::mem::take(&mut self.changed);
        let new: Vec<_> = self.sums.iter().filter(|(key, _)| all || changed.contains(key)).collect();
        if !new.is_empty() {
            let rows = segment(new.into_iter().map(|(key, sum)| (*key, *sum)))?;
            self.segments.push(state.seal(regroup(self.fault, &rows)?));
        }
        if self.fault == Fault::LosesItsStateWhenItSavesAgain && self.saves == 2 {
            self.sums.clear();
        }
        Ok(())
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        self.closed = state.greatest(false, "closed").unwrap_or(i64::MIN);
        let parts = if self.fault == Fault::LoadsOnlyTheFirstPart { 1 } else { state.parts.len() };
        for part in state.parts.iter().take(parts) {
            let closed = part.numbers.get("closed").copied().unwrap_or(i64::MIN);
            for (_, rows) in &part.segments {
                for ((start, sensor), sum) in rows_of_segment(rows) {
                    if start + SIZE <= closed && self.fault != Fault::LoadsClosedWindows {
                        continue;
                    }
                    let start = if self.fault == Fault::LoadsIntoTheWrongWindow { start + SIZE } else { start };
                    let group = self.sums.entry((start, sensor));
                    match self.fault {
                        Fault::TheOldestWins => drop(group.or_insert(sum)),
                        Fault::AppliesEverySegment => *group.or_insert(0) += sum,
                        _ => *group.insert_entry(sum).get_mut() = sum,
                    }
                }
            }
        }
        match &state.parts[..] {
            [one] => self.segments = one.segments.iter().map(|(id, _)| *id).collect(),
            _ => self.changed = self.sums.keys().copied().collect(),
        }
        Ok(())
    }
}

/// The rows with the key groups that the fault gives them.
fn regroup(fault: Fault, rows: &RecordBatch) -> Result<RecordBatch> {
    let groups = rows.column(0).as_primitive::<arrow::datatypes::UInt8Type>();
    let groups: UInt8Array = match fault {
        Fault::ForgetsTheKeyGroups => groups.unary(|_| 0),
        Fault::ShiftsTheKeyGroups => groups.unary(|group: u8| group.wrapping_add(1)),
        _ => return Ok(rows.clone()),
    };
    let mut columns: Vec<(&str, ArrayRef)> = vec![(KEY_GROUP, std::sync::Arc::new(groups))];
    let rest = rows.schema_ref().fields().iter().map(|field| field.name().as_str()).zip(rows.columns().iter().cloned());
    columns.extend(rest.skip(1));
    Ok(RecordBatch::try_from_iter(columns)?)
}

fn pipeline<'a>(fault: Fault) -> Pipeline<'a> {
    Pipeline::new(&readings()).exchange([0]).stage(&sums_schema(), move || Sums::new(fault))
}

/// Sensors whose key groups are the last and the first of a task.
fn sensors_at_the_edges() -> Vec<Reading> {
    let all: ArrayRef = std::sync::Arc::new(Int64Array::from_iter_values(0..2_000));
    let groups = key_groups(&[all], 2_000).unwrap();
    let is_edge =
        |group: usize| (2..=4).any(|tasks| (0..tasks).any(|task| group == KeyGroup::range(task, tasks).end - 1));
    let edges: Vec<i64> = (0..2_000).filter(|&sensor| is_edge(groups[sensor as usize].0.into())).take(40).collect();
    let rows = (0..3).flat_map(|_| rows()).enumerate();
    rows.map(|(i, row)| Reading { sensor: edges[i * i % edges.len()], ..row }).collect()
}

fn within_bound(fault: Fault) -> Result<(), String> {
    let check = Check::new(pipeline(fault)).out_of_order(us(6)).seed(7).batch_rows(1..=12);
    check.run(&sensors_at_the_edges(), oracle).and_then(|()| check.run(&rows(), oracle))
}

fn beyond_bound(fault: Fault) -> Result<usize, String> {
    let is_late =
        |row: &Reading, time: Timestamp| row.at.micros().div_euclid(SIZE) * SIZE + SIZE + LATENESS <= time.micros();
    let check = Check::new(pipeline(fault)).out_of_order(us(6)).seed(7);
    check.run_beyond_bound(&rows(), is_late, oracle)
}

#[test]
fn a_correct_operator_passes() {
    within_bound(Fault::None).unwrap();
    beyond_bound(Fault::None).unwrap();
}

#[test]
fn every_fault_in_saving_and_loading_is_caught() {
    use Fault::*;
    let caught = [
        (ForgetsTheKeyGroups, "sealed a row of key group"),
        (ShiftsTheKeyGroups, "sealed a row of key group"),
        (ForgetsAnOldSegment, "law 1"),
        (KeepsASegmentOfAnEarlierState, "which its last state did not have"),
        (NamesASegmentTwice, "twice in one state"),
        (TheOldestWins, "missing"),
        (MissesAChangedGroup, "missing"),
        (LosesItsStateWhenItSavesAgain, "missing"),
        (AppliesEverySegment, "extra"),
        (LoadsOnlyTheFirstPart, "missing"),
        (LoadsClosedWindows, "law"),
        (SavesBeforeItIsFlushed, "missing"),
        (LoadsIntoTheWrongWindow, "missing"),
    ];
    for (fault, word) in caught {
        let failure = within_bound(fault).expect_err(&format!("{fault:?} was not caught"));
        assert!(failure.contains(word), "{fault:?} was caught, but by this: {failure}");
        assert!(!failure.contains("never restarted"), "{fault:?} is not a fault of saving: {failure}");
    }
}

/// A window opens again and gives a second result: only rows that come too late show it.
#[test]
fn a_window_that_opens_again_is_caught() {
    let failure = beyond_bound(Fault::ForgetsHowFarTimeHadCome).unwrap_err();
    assert!(failure.contains("law") && !failure.contains("never restarted"), "{failure}");
}
