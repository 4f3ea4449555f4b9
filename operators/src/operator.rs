//! The contract of an operator.

use arrow::array::RecordBatch;

use crate::{
    Outbox, Result, Timestamp,
    state::{StateReader, StateWriter},
};

/// An input or an output of an operator, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port(pub u8);

impl Port {
    /// The first and usually only input; the output that results leave by.
    pub const MAIN: Self = Self(0);
    /// The output that rows leave by which came too late.
    pub const LATE: Self = Self(1);
}

/// What became of a call of [`Operator::advance`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advance {
    /// There is more to emit for this time: empty the outbox and call again with the same time. This keeps the outbox
    /// small when one watermark completes millions of groups.
    Again,
    /// Done. From now on no row on [`Port::MAIN`] will be earlier than this. At most the time that was given: an
    /// operator that still accepts rows late by `g` promises `g` less.
    Promise(Timestamp),
}

/// A synchronous state machine over batches and watermarks.
///
/// It never awaits, reads a clock, spawns, or touches a disk or a socket; those belong to its caller. It has one caller
/// at a time, which forwards everything that leaves in the [`Outbox`] before it calls again. [`Port::MAIN`] carries the
/// promised time; other outputs carry none, because a late row may be as old as it likes.
pub trait Operator: Send {
    /// Takes the rows of `batch`. Answers for each of them: [`Outbox::processed`] or [`Outbox::late`].
    fn process(&mut self, port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()>;

    /// No row earlier than `time` will come; `time` never goes backwards, and [`Timestamp::MAX`] is the end of the
    /// input. Emits what is now complete.
    fn advance(&mut self, time: Timestamp, _out: &mut Outbox) -> Result<Advance> {
        Ok(Advance::Promise(time))
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
}
