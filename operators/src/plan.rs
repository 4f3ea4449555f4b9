//! What an operator with state says of itself when a job is planned: all that the engine needs to know of it.
//!
//! ```text
//!   Plan ── inputs: how rows choose their task ──► the exchange in front of it
//!        ── outputs, state form ────────────────► streams and checkpoints
//!        ── whole, or two phases ───────────────► the operators of the tasks
//! ```

use std::sync::Arc;

use crate::{Operator, Port, Result, StreamSchema, state::StateForm};

/// Makes the operator of one task.
pub type Factory = Arc<dyn Fn() -> Result<Box<dyn Operator>> + Send + Sync>;

/// How the rows of an input choose their task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Partitioning {
    /// By the key group of these columns; without any, all rows go to one task.
    Key(Vec<usize>),
    /// Every task gets all rows.
    Broadcast,
}

/// An operator with state, planned once and made for every task.
pub trait Plan: Send + Sync {
    /// What it is called in checkpoints, with a number: one lower-case word, such as `window`.
    fn noun(&self) -> &'static str;

    /// How the rows of each input choose their task, by port.
    fn inputs(&self) -> Vec<Partitioning>;

    /// What leaves it, [`Port::MAIN`] first.
    fn outputs(&self) -> Vec<(Port, StreamSchema)>;

    /// The form of its state.
    fn state_form(&self) -> StateForm;

    /// The whole operator, behind an exchange as [`Plan::inputs`] says.
    fn whole(&self) -> Result<Box<dyn Operator>>;

    /// Whether the rows that leave are rows that came in, so that they are still where the exchange has brought them: what
    /// follows by the same key needs no other.
    fn keeps_rows(&self) -> bool {
        false
    }

    /// The same work around an exchange, when that is possible and pays.
    fn two_phases(&self) -> Option<TwoPhases> {
        None
    }
}

/// An operator in two phases around an exchange. Late rows leave by the first.
pub struct TwoPhases {
    /// Before the exchange. It holds nothing once it has been flushed.
    pub first: Factory,
    /// The key columns between the two phases, by which the exchange routes.
    pub key: Vec<usize>,
    /// Behind the exchange.
    pub second: Factory,
}
