//! Planned operators as a pipeline of the harness takes them, and one that is saved and restored by hand.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{AsArray, RecordBatch, UInt32Array},
    compute::{filter_record_batch, take_record_batch},
    datatypes::UInt8Type,
};
use windrow_operators::{
    Advance, Operator, Outbox, Partitioning, Plan, Port, Result, StreamSchema, Timestamp,
    state::{Part, SegmentId, StateReader, StateWriter, TaskState},
    testing::Pipeline,
};

/// What a plan makes.
pub(crate) struct Planned(pub(crate) Box<dyn Operator>);

impl Operator for Planned {
    fn process(&mut self, port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        self.0.process(port, batch, out)
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        self.0.advance(time, out)
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        self.0.save(state)
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        self.0.load(state)
    }

    fn size(&self) -> usize {
        self.0.size()
    }
}

/// The operator of a plan behind its exchange.
pub(crate) fn keyed<'a, P: Plan>(input: &StreamSchema, plan: &'a P) -> Pipeline<'a> {
    behind(Pipeline::new(input), plan)
}

/// The same, appended.
pub(crate) fn behind<'a, P: Plan>(pipeline: Pipeline<'a>, plan: &'a P) -> Pipeline<'a> {
    let Partitioning::Key(key) = plan.inputs().remove(0) else { panic!("by key") };
    let output = plan.outputs().remove(0).1;
    pipeline.exchange(key).stage(&output, || Ok(Planned(plan.whole()?))).keyed(Plan::keyed_output(plan))
}

/// What a fault does to the changes of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    InsertsForUpdates,
    DeletesAreLost,
    DeletesAnotherRow,
    LastRowOfABatchIsLost,
    ForgetsItsState,
}

/// An operator whose changes have a fault, or none.
pub(crate) struct Faulty<O> {
    inner: O,
    op: usize,
    fault: Option<Fault>,
}

impl<O: Operator> Faulty<O> {
    pub(crate) fn new(inner: O, output: &StreamSchema, fault: Option<Fault>) -> Self {
        Self { inner, op: output.op().unwrap(), fault }
    }

    fn emit(&self, mut from: Outbox, out: &mut Outbox) -> Result<()> {
        let (processed, _) = from.take_counts();
        out.processed(processed as usize);
        if from.take_again() {
            out.again();
        }
        for (port, rows) in from.drain() {
            if port == Port::MAIN { out.emit(self.garble(rows)?) } else { out.late_on(port, rows) }
        }
        Ok(())
    }

    fn garble(&self, rows: RecordBatch) -> Result<RecordBatch> {
        let mut columns = rows.columns().to_vec();
        let ops = columns[self.op].as_primitive::<UInt8Type>().clone();
        match self.fault {
            Some(Fault::InsertsForUpdates) => columns[self.op] = Arc::new(ops.unary::<_, UInt8Type>(|op| op & 2)),
            Some(Fault::DeletesAreLost) => {
                return Ok(filter_record_batch(&rows, &ops.iter().map(|op| Some(op != Some(2))).collect())?);
            }
            Some(Fault::LastRowOfABatchIsLost) => return Ok(rows.slice(0, rows.num_rows().saturating_sub(1))),
            Some(Fault::DeletesAnotherRow) => {
                let order = (0..rows.num_rows() as u32).map(|row| {
                    let deletes = (0..rows.num_rows()).filter(|&other| ops.value(other) == 2).map(|other| other as u32);
                    if ops.value(row as usize) == 2 { deletes.max().unwrap_or(row) } else { row }
                });
                return Ok(take_record_batch(&rows, &UInt32Array::from_iter_values(order))?);
            }
            _ => {}
        }
        Ok(RecordBatch::try_new(rows.schema(), columns)?)
    }
}

impl<O: Operator> Operator for Faulty<O> {
    fn process(&mut self, port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        let mut own = Outbox::new();
        own.set_step(out.step());
        self.inner.process(port, batch, &mut own)?;
        self.emit(own, out)
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        let mut own = Outbox::new();
        own.set_step(out.step());
        let advance = self.inner.advance(time, &mut own)?;
        self.emit(own, out)?;
        Ok(advance)
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        self.inner.save(state)
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        if self.fault == Some(Fault::ForgetsItsState) { Ok(()) } else { self.inner.load(state) }
    }
}

/// One task, and what a store would have of it.
pub(crate) struct Task<'p> {
    plan: &'p dyn Plan,
    pub(crate) operator: Box<dyn Operator>,
    pub(crate) out: Outbox,
    next: SegmentId,
    store: BTreeMap<SegmentId, RecordBatch>,
    pub(crate) state: TaskState,
}

impl<'p> Task<'p> {
    pub(crate) fn new(plan: &'p dyn Plan) -> Self {
        Self {
            plan,
            operator: plan.whole().unwrap(),
            out: Outbox::new(),
            next: SegmentId(0),
            store: BTreeMap::new(),
            state: TaskState::default(),
        }
    }

    /// Gives it rows; returns what it emits.
    pub(crate) fn process(&mut self, port: Port, batch: RecordBatch) -> Vec<(Port, RecordBatch)> {
        let rest = batch.slice(0, 0);
        self.operator.process(port, batch, &mut self.out).unwrap();
        while self.out.take_again() {
            self.operator.process(port, rest.clone(), &mut self.out).unwrap();
        }
        self.out.drain().collect()
    }

    /// Gives it a time; returns what it emits.
    pub(crate) fn advance(&mut self, time: i64) -> Vec<(Port, RecordBatch)> {
        while self.operator.advance(Timestamp::from_micros(time), &mut self.out).unwrap() == Advance::Again {}
        self.out.drain().collect()
    }

    /// Saves; returns the rows that were sealed.
    pub(crate) fn save(&mut self) -> usize {
        let mut writer = StateWriter::new(&mut self.next);
        self.operator.save(&mut writer).unwrap();
        self.state = writer.finish();
        let new: Vec<_> = self.state.segments.iter().filter_map(|(id, rows)| Some((*id, rows.clone()?))).collect();
        let sealed = new.iter().map(|(_, rows)| rows.num_rows()).sum();
        self.store.extend(new);
        self.store.retain(|id, _| self.state.segments.iter().any(|(named, _)| named == id));
        sealed
    }

    /// Goes on with another operator that is loaded from what was saved.
    pub(crate) fn restart(&mut self) {
        self.operator = self.plan.whole().unwrap();
        let segments = self.state.segments.iter().map(|(id, _)| (*id, self.store[id].clone())).collect();
        let part = Part { first_phase: false, numbers: self.state.numbers.clone(), segments, stored: Vec::new() };
        self.operator.load(&StateReader { key_groups: 0..256, parts: vec![part] }).unwrap();
    }
}
