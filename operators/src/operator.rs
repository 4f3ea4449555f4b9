//! The contract of an operator.

use arrow::array::RecordBatch;

use crate::{
    Outbox, Result, Timestamp,
    spill::Memory,
    state::{StateReader, StateWriter},
};

/// An input or an output of an operator, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port(pub u8);

impl Port {
    /// The first and usually only input; the output that results leave by.
    pub const MAIN: Self = Self(0);
    /// The second input of an operator that has two: the right side of a join.
    pub const RIGHT: Self = Self(1);
    /// The output that rows leave by which came too late (of the first input, if there are two).
    pub const LATE: Self = Self(1);
    /// The output that rows of the second input leave by which came too late.
    pub const LATE_RIGHT: Self = Self(3);

    /// A side output that a user's function named, counted from 0.
    pub const fn side(number: u8) -> Self {
        Self(4 + number)
    }

    /// Whether the rows that leave by it keep the promises of event time: results and side outputs do, late rows do not.
    pub const fn is_timed(self) -> bool {
        self.0 == Self::MAIN.0 || self.0 >= Self::side(0).0
    }
}

/// What became of a call of [`Operator::advance`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advance {
    /// There is more to emit for this time: empty the outbox and call again with the same time. This keeps the outbox
    /// small when one watermark completes millions of groups.
    Again,
    /// Done. From now on no row on a port that [`Port::is_timed`] will be earlier than this. At most the time that was given: an
    /// operator that still accepts rows late by `g` promises `g` less.
    Promise(Timestamp),
}

/// A synchronous state machine over batches and watermarks.
///
/// It never awaits, reads a clock, spawns, or touches a disk or a socket; those belong to its caller. It has one caller
/// at a time, which forwards everything that leaves in the [`Outbox`] before it calls again. Results and
/// side outputs keep the promised time; late rows may be as old as they like. State that is too much for memory it gives to the
/// [`Room`](crate::spill::Room) of its caller.
pub trait Operator: Send {
    /// Takes the rows of `batch`. Answers for each of them: [`Outbox::processed`] or [`Outbox::late`].
    ///
    /// An operator of which few rows may make very many says [`Outbox::again`]: then it is called again with a batch without rows,
    /// on the same port, before anything else. Only such an operator has to know that; to others no rows mean nothing.
    fn process(&mut self, port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()>;

    /// No row earlier than `time` will come; `time` never goes backwards, and [`Timestamp::MAX`] is the end of the
    /// input. Emits what is now complete.
    fn advance(&mut self, time: Timestamp, _out: &mut Outbox) -> Result<Advance> {
        Ok(Advance::Promise(time))
    }

    /// Processing time has come to [`Outbox::now`]. Called when a task begins, after [`Operator::load`], and then when a
    /// time has come that the operator asked for with [`Outbox::wake_at`].
    fn tick(&mut self, _out: &mut Outbox) -> Result<()> {
        Ok(())
    }

    /// Emits what is held back only to save work, such as groups that are aggregated before an exchange. Called before
    /// the task says downstream that it is idle, and before it forwards a barrier: from then on nobody waits for it.
    fn flush(&mut self, _out: &mut Outbox) -> Result<()> {
        Ok(())
    }

    /// Takes down what it holds, at a barrier. Right after [`Operator::flush`], between two calls of the others, so there
    /// is nothing half done. The operator goes on as if nothing had happened.
    fn save(&mut self, _state: &mut StateWriter<'_>) -> Result<()> {
        Ok(())
    }

    /// Becomes what former tasks were, before any other call. There may be several of them, or none.
    fn load(&mut self, _state: &StateReader) -> Result<()> {
        Ok(())
    }

    /// The job has a memory budget, and this is what the operator may use of it. Returns whether it keeps to that, by putting
    /// what is too much into the room that comes with it. Called before any other, if it is.
    fn limit(&mut self, _memory: &Memory) -> bool {
        false
    }

    /// About how many bytes of state it holds in memory. May take time in the number of open windows or pieces, not in the number of
    /// rows; it is asked at watermarks, for the metrics.
    fn size(&self) -> usize {
        0
    }
}
