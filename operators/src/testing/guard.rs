//! An operator and the laws it is held to on every call.

use arrow::{
    array::RecordBatch,
    compute::{max, min},
    datatypes::TimestampMicrosecondType,
};

use super::pipeline::Stage;
use crate::{Advance, Operator, Outbox, Port, StreamSchema, Timestamp};

/// How often one watermark may be answered with [`Advance::Again`]: far more than any test's data needs.
const AGAIN_LIMIT: usize = 10_000;

/// Rows that an operator called late.
pub(super) struct Late {
    pub(super) stage: String,
    /// The time that the operator had been given.
    pub(super) time: Timestamp,
    pub(super) rows: RecordBatch,
}

/// An operator that is watched.
pub(super) struct Guarded<'p> {
    stage: &'p Stage<'p>,
    operator: Box<dyn Operator>,
    outbox: Outbox,
    given: Timestamp,
    promised: Timestamp,
    again: usize,
}

impl<'p> Guarded<'p> {
    pub(super) fn new(stage: &'p Stage<'p>) -> Result<Self, String> {
        let operator = (stage.make)().map_err(|error| format!("{} cannot be made: {error}", stage.name))?;
        let start = Timestamp::MIN;
        Ok(Self { stage, operator, outbox: Outbox::new(), given: start, promised: start, again: 0 })
    }

    /// Gives the operator rows; returns what it emits.
    pub(super) fn process(&mut self, batch: RecordBatch, late: &mut Vec<Late>) -> Result<Vec<RecordBatch>, String> {
        let rows = batch.num_rows() as u64;
        // A row earlier than the given time breaks the promise of whoever sent it. An operator without state passes it on.
        let earliest = range(&self.stage.input, &batch).map_or(Timestamp::MAX, |(first, _)| first);
        let floor = if earliest < self.given { self.promised.min(earliest) } else { self.promised };
        let called = self.operator.process(Port::MAIN, batch, &mut self.outbox);
        called.map_err(|error| self.broken(&format!("failed on a batch: {error}")))?;
        let (processed, called_late) = self.outbox.take_counts();
        if processed + called_late != rows {
            let answered = format!("{processed} rows processed and {called_late} late");
            return Err(self.broken(&format!("took {rows} rows and answered for {answered} (law 2)")));
        }
        self.emitted(floor, late)
    }

    /// Gives the operator a watermark; returns what it emits and whether that was all.
    pub(super) fn advance(
        &mut self,
        time: Timestamp,
        late: &mut Vec<Late>,
    ) -> Result<(Vec<RecordBatch>, Advance), String> {
        self.given = time;
        let called = self.operator.advance(time, &mut self.outbox);
        let advance = called.map_err(|error| self.broken(&format!("failed on a watermark: {error}")))?;
        if self.outbox.take_counts() != (0, 0) {
            return Err(self.broken("answered for rows on a watermark: rows are answered for when they come (law 2)"));
        }
        let emitted = self.emitted(self.promised, late)?;
        match advance {
            Advance::Again => {
                self.again += 1;
                if self.again > AGAIN_LIMIT {
                    return Err(self.broken(&format!("asked {AGAIN_LIMIT} times to be called again for one watermark")));
                }
            }
            Advance::Promise(promise) => {
                self.check_promise(promise)?;
                (self.promised, self.again) = (promise, 0);
            }
        }
        Ok((emitted, advance))
    }

    /// Makes the operator emit what it holds back; returns that.
    pub(super) fn flush(&mut self, late: &mut Vec<Late>) -> Result<Vec<RecordBatch>, String> {
        let called = self.operator.flush(&mut self.outbox);
        called.map_err(|error| self.broken(&format!("failed to flush: {error}")))?;
        self.emitted(self.promised, late)
    }

    fn check_promise(&self, promise: Timestamp) -> Result<(), String> {
        let (promised, given) = (self.promised, self.given);
        if promise < promised {
            return Err(self.broken(&format!("promised {promise} after it had promised {promised} (law 3)")));
        }
        if promise > given {
            return Err(self.broken(&format!("promised {promise} when it was given only {given} (law 3)")));
        }
        if given == Timestamp::MAX && promise != Timestamp::MAX {
            return Err(self.broken(&format!("promised only {promise} at the end of the input")));
        }
        Ok(())
    }

    /// Takes what is in the outbox: results, which must not be before `floor`, and late rows.
    fn emitted(&mut self, floor: Timestamp, late: &mut Vec<Late>) -> Result<Vec<RecordBatch>, String> {
        let mut emitted = Vec::new();
        let batches: Vec<_> = self.outbox.drain().collect();
        for (port, batch) in batches {
            let stage = self.stage;
            let schema = if port == Port::LATE { &stage.input } else { &stage.output };
            if batch.schema_ref() != schema.columns() {
                let schemas = format!("{:?}, not {:?}", batch.schema_ref().fields(), schema.columns().fields());
                return Err(self.broken(&format!("emitted a batch on {port:?} with the columns {schemas}")));
            }
            if port == Port::LATE {
                late.push(Late { stage: stage.name.clone(), time: self.given, rows: batch });
                continue;
            }
            if let Some((earliest, _)) = range(schema, &batch).filter(|(earliest, _)| *earliest < floor) {
                let promised = self.promised;
                return Err(
                    self.broken(&format!("emitted a row of {earliest} after it had promised {promised} (law 3)"))
                );
            }
            emitted.push(batch);
        }
        Ok(emitted)
    }

    /// Whether the end of the input has gone through.
    pub(super) fn has_ended(&self) -> bool {
        self.promised == Timestamp::MAX
    }

    fn broken(&self, what: &str) -> String {
        format!("{} {what}", self.stage.name)
    }
}

/// The least and the greatest event time of a batch; `None` without rows or without event time.
pub(super) fn range(schema: &StreamSchema, batch: &RecordBatch) -> Option<(Timestamp, Timestamp)> {
    use arrow::array::cast::AsArray;
    let times = batch.column(schema.time()?).as_primitive_opt::<TimestampMicrosecondType>()?;
    Some((Timestamp::from_micros(min(times)?), Timestamp::from_micros(max(times)?)))
}
