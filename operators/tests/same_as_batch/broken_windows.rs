//! Faults that windows of several slices have in saving and loading: each is planted into an operator that is right
//! otherwise, and caught.

use std::collections::BTreeMap;

use arrow::{
    array::{AsArray, Int64Array, RecordBatch, UInt32Array},
    compute::take_record_batch,
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use windrow_operators::{
    Advance, Operator, Outbox, Port, Result, Timestamp,
    state::{StateReader, StateWriter},
    testing::{Check, Pipeline},
};

use crate::{
    bids::us,
    broken::{Reading, readings, rows, rows_of_segment, segment, sums_schema},
};

const SIZE: i64 = 12;
const SLIDE: i64 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    DropsASliceOneWindowTooEarly,
    DropsASliceWhenItCloses,
    SavesOpenSlicesOnly,
    FiresAgainAfterARestore,
    MissesItsFirstSlice,
    MissesItsFirstSliceAfterARestore,
    ForgetsTheWindowsThatHaveYetToFire,
    OpensClosedSlicesAgain,
    LoadsSlicesThatAreDone,
}

/// Sums per sensor and hopping window, over slices as long as the slide.
struct Sums {
    fault: Fault,
    sums: BTreeMap<(i64, i64), i64>,
    closed: i64,
    /// The end of the last window that has fired.
    fired: i64,
    restored: bool,
}

impl Sums {
    fn new(fault: Fault) -> Result<Self> {
        Ok(Self { fault, sums: BTreeMap::new(), closed: i64::MIN, fired: i64::MIN, restored: false })
    }

    /// Fires the windows that end after the last one and not after `until`; returns (end, sensor, sum).
    fn fire(&mut self, until: i64) -> Vec<(i64, i64, i64)> {
        let mut results = Vec::new();
        while let Some((&(first, _), _)) = self.sums.first_key_value() {
            let end = self.fired.max(first).div_euclid(SLIDE) * SLIDE + SLIDE;
            if end > until {
                break;
            }
            let mut start = end - SIZE;
            let misses = match self.fault {
                Fault::MissesItsFirstSlice => true,
                Fault::MissesItsFirstSliceAfterARestore => self.restored,
                _ => false,
            };
            start += if misses { SLIDE } else { 0 };
            let mut sums = BTreeMap::new();
            for ((_, sensor), sum) in self.sums.range((start, i64::MIN)..(end, i64::MIN)) {
                *sums.entry(*sensor).or_insert(0) += sum;
            }
            results.extend(sums.into_iter().map(|(sensor, sum)| (end, sensor, sum)));
            self.fired = end;
            let early = if self.fault == Fault::DropsASliceOneWindowTooEarly { SLIDE } else { 0 };
            self.sums = self.sums.split_off(&(end - SIZE + SLIDE + early, i64::MIN));
        }
        results
    }
}

impl Operator for Sums {
    fn process(&mut self, _port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        let numbers = |column: usize| batch.column(column).as_primitive::<Int64Type>().clone();
        let (sensors, values) = (numbers(0), numbers(1));
        let times = batch.column(2).as_primitive::<TimestampMicrosecondType>().clone();
        let mut late = Vec::new();
        for row in 0..batch.num_rows() {
            let start = times.value(row).div_euclid(SLIDE) * SLIDE;
            if start + SLIDE <= self.closed {
                late.push(row as u32);
                continue;
            }
            *self.sums.entry((start, sensors.value(row))).or_insert(0) += values.value(row);
        }
        out.processed(batch.num_rows() - late.len());
        out.late(take_record_batch(&batch, &UInt32Array::from(late))?);
        Ok(())
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        self.closed = self.closed.max(time.micros());
        let until = self.closed;
        if self.fault == Fault::DropsASliceWhenItCloses && self.restored {
            self.sums = self.sums.split_off(&(until.saturating_sub(2 * SLIDE), i64::MIN));
        }
        let results = self.fire(until);
        self.fired = self.fired.max(until);
        let column = |value: fn(&(i64, i64, i64)) -> i64| Int64Array::from_iter_values(results.iter().map(value));
        let times = Timestamp::column(results.iter().map(|(end, ..)| end - 1).collect());
        let columns: Vec<arrow::array::ArrayRef> = vec![
            std::sync::Arc::new(column(|(end, ..)| end - SIZE)),
            std::sync::Arc::new(column(|(_, sensor, _)| *sensor)),
            std::sync::Arc::new(column(|(.., sum)| *sum)),
            times,
        ];
        out.emit(RecordBatch::try_new(sums_schema().columns().clone(), columns)?);
        Ok(Advance::Promise(time))
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        let closed =
            if self.fault == Fault::OpensClosedSlicesAgain { self.closed.saturating_sub(SLIDE) } else { self.closed };
        state.set("closed", closed);
        state.set("fired", self.fired);
        let is_open = |start: i64| self.fault != Fault::SavesOpenSlicesOnly || start + SLIDE > self.closed;
        let new: Vec<_> = self.sums.iter().filter(|((start, _), _)| is_open(*start)).collect();
        if !new.is_empty() {
            state.seal(segment(new.into_iter().map(|(key, sum)| (*key, *sum)))?);
        }
        Ok(())
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        self.restored = true;
        self.closed = state.greatest(false, "closed").unwrap_or(i64::MIN);
        self.fired = match self.fault {
            Fault::FiresAgainAfterARestore => self.closed.saturating_sub(SLIDE),
            Fault::ForgetsTheWindowsThatHaveYetToFire => self.closed.saturating_add(SLIDE),
            _ => state.greatest(false, "fired").unwrap_or(i64::MIN),
        };
        for (_, rows) in state.parts.iter().flat_map(|part| &part.segments) {
            for ((start, sensor), sum) in rows_of_segment(rows) {
                let start = if self.fault == Fault::LoadsSlicesThatAreDone { start + SLIDE } else { start };
                *self.sums.entry((start, sensor)).or_insert(0) += sum;
            }
        }
        Ok(())
    }
}

fn oracle(rows: &[Reading]) -> Vec<(i64, i64, i64)> {
    let mut sums = BTreeMap::new();
    for row in rows {
        let last = row.at.micros().div_euclid(SLIDE) * SLIDE;
        for start in (0..SIZE / SLIDE).map(|k| last - k * SLIDE) {
            *sums.entry((start, row.sensor)).or_insert(0) += row.value;
        }
    }
    sums.into_iter().map(|((start, sensor), sum)| (start, sensor, sum)).collect()
}

fn within_bound(fault: Fault) -> Result<(), String> {
    let pipeline = Pipeline::new(&readings()).exchange([0]).stage(&sums_schema(), move || Sums::new(fault));
    Check::new(pipeline).out_of_order(us(6)).seed(7).batch_rows(1..=12).run(&rows(), oracle)
}

fn beyond_bound(fault: Fault) -> Result<usize, String> {
    let pipeline = Pipeline::new(&readings()).exchange([0]).stage(&sums_schema(), move || Sums::new(fault));
    let is_late = |row: &Reading, time: Timestamp| row.at.micros().div_euclid(SLIDE) * SLIDE + SLIDE <= time.micros();
    Check::new(pipeline).out_of_order(us(6)).seed(7).run_beyond_bound(&rows(), is_late, oracle)
}

#[test]
fn a_correct_operator_passes() {
    within_bound(Fault::None).unwrap();
    beyond_bound(Fault::None).unwrap();
}

#[test]
fn every_fault_of_windows_of_several_slices_is_caught() {
    use Fault::*;
    let caught = [
        (DropsASliceOneWindowTooEarly, "missing", true),
        (DropsASliceWhenItCloses, "missing", false),
        (SavesOpenSlicesOnly, "missing", false),
        (FiresAgainAfterARestore, "law", false),
        (MissesItsFirstSlice, "missing", true),
        (MissesItsFirstSliceAfterARestore, "missing", false),
        (ForgetsTheWindowsThatHaveYetToFire, "missing", false),
        (LoadsSlicesThatAreDone, "law", false),
    ];
    for (fault, word, without_restart) in caught {
        let failure = within_bound(fault).expect_err(&format!("{fault:?} was not caught"));
        assert!(failure.contains(word), "{fault:?} was caught, but by this: {failure}");
        assert_eq!(failure.contains("never restarted"), without_restart, "{fault:?}: {failure}");
    }
    let failure = beyond_bound(OpensClosedSlicesAgain).unwrap_err();
    assert!(failure.contains("law") && !failure.contains("never restarted"), "{failure}");
}
