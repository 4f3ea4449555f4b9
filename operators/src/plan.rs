//! What an operator with state says of itself when a job is planned: all that the engine needs to know of it.
//!
//! ```text
//!   Plan ── inputs: how rows choose their task ──► the exchange in front of it
//!        ── outputs, state form ────────────────► streams and checkpoints
//!        ── keyed output ───────────────────────► which operators behind it need no exchange of their own
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

    /// By which columns of [`Port::MAIN`] its rows are where they are, behind the exchange by the key of [`Plan::inputs`]: what
    /// follows by these columns needs no other. `None` when that cannot be said of every row, also of one with nulls; and when
    /// tasks that were given the same watermark may promise different times. (They would go on as one after the job has been
    /// restored with another number of tasks, and what follows takes the greatest of their times for what is late.)
    fn keyed_output(&self) -> Option<KeyedOutput> {
        None
    }

    /// Whether its operators put away what is too much for memory: what [`Operator::limit`] of [`Plan::whole`] and of the second
    /// phase says.
    fn spills(&self) -> bool {
        false
    }

    /// The same work around an exchange, when that is possible and pays.
    fn two_phases(&self) -> Option<TwoPhases> {
        None
    }
}

/// By which columns of a stream its rows are with the tasks that they are with: those of a key, in the order in which they are
/// hashed. Several columns may have the values of one column of the key.
///
/// ```
/// use windrow_operators::KeyedOutput;
///
/// // A join on auction = id, of which both columns are in the result: auction, price, id.
/// let joined = KeyedOutput::any([vec![0, 2]]).unwrap();
/// assert!(joined.is(&[0]) && joined.is(&[2]));
/// assert!(!joined.is(&[1]) && !joined.is(&[0, 2]), "another column, and another hash");
/// // Then a projection to price and id.
/// let projected = joined.through(&[Some(1), Some(2)]).unwrap();
/// assert!(projected.is(&[1]) && !projected.is(&[0]));
/// assert_eq!(projected.through(&[Some(0), None]), None, "price, and what was computed");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyedOutput(Vec<Vec<usize>>);

impl KeyedOutput {
    /// By these columns.
    pub fn columns(key: impl IntoIterator<Item = usize>) -> Self {
        Self(key.into_iter().map(|column| vec![column]).collect())
    }

    /// By any of these columns for each column of the key; `None` if there is none for one of them.
    pub fn any(key: impl IntoIterator<Item = Vec<usize>>) -> Option<Self> {
        let key: Vec<Vec<usize>> = key.into_iter().collect();
        (!key.iter().any(Vec::is_empty)).then_some(Self(key))
    }

    /// By the columns of `output` that are called as the columns `key` of `input` are.
    pub(crate) fn named(input: &StreamSchema, key: &[usize], output: &StreamSchema) -> Option<Self> {
        let name = |&column: &usize| input.columns().field(column).name();
        let columns = key.iter().map(|column| output.index_of(name(column)).ok());
        columns.collect::<Option<Vec<usize>>>().map(Self::columns)
    }

    /// For the harness: keys that [`KeyedOutput::is`] says yes to, in which each of the columns occurs.
    #[cfg(feature = "testing")]
    pub(crate) fn keys(&self) -> Vec<Vec<usize>> {
        let most = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let nth = |n: usize| self.0.iter().filter_map(|any| any.get(n % any.len().max(1)).copied()).collect();
        (0..most).map(nth).collect()
    }

    /// Whether an exchange by `key` would leave every row where it is.
    pub fn is(&self, key: &[usize]) -> bool {
        self.0.len() == key.len() && self.0.iter().zip(key).all(|(any, column)| any.contains(column))
    }

    /// The same behind an operator that works on one row at a time where it is. Its columns are, as they came, the columns
    /// `kept`, or else `None`. Without a column for each column of the key it cannot be said any more.
    pub fn through(&self, kept: &[Option<usize>]) -> Option<Self> {
        let now = |any: &Vec<usize>| {
            let is_one = |column: &Option<usize>| column.is_some_and(|column| any.contains(&column));
            (0..kept.len()).filter(|&at| is_one(&kept[at])).collect()
        };
        Self::any(self.0.iter().map(now))
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
