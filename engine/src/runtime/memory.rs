//! The memory budget of a job: who may hold how much.
//!
//! ```text
//!   budget ─┬─ what operators hold that keep all their state in memory, counted now and then
//!           │    └ more than the budget: an error that names the operator
//!           └─ the rest, in equal parts: the allowances of those that put on disk what is too much
//! ```

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use windrow_operators::{Operator, OperatorError, spill::Memory};

use super::spill::{Directory, Shelf};
use crate::metrics::Counters;

/// The least budget. Less would be spent on the work itself.
pub(crate) const LEAST_BYTES: usize = 1 << 20;

/// What the operators of all tasks of an attempt share.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes: usize,
    directory: Arc<Directory>,
    /// How many operators put away what is too much, task by task.
    spilling: AtomicUsize,
    /// How much each of them may use.
    allowance: Arc<AtomicUsize>,
    /// How much the others hold.
    kept: AtomicUsize,
}

impl Budget {
    /// For so many operators with state, task by task.
    pub(crate) fn new(bytes: usize, directory: Arc<Directory>, operators: usize) -> Arc<Self> {
        let allowance = Arc::new(AtomicUsize::new(bytes / operators.max(1)));
        Arc::new(Self { bytes, directory, spilling: AtomicUsize::new(0), allowance, kept: AtomicUsize::new(0) })
    }

    /// Tells an operator that is new. If it keeps all its state in memory, what it holds is to be reported.
    pub(crate) fn limit(self: &Arc<Self>, operator: &mut dyn Operator, counters: &Arc<Counters>) -> Option<Kept> {
        let shelf = Shelf::new(self.directory.clone(), counters.clone());
        if operator.limit(&Memory::new(self.allowance.clone(), Arc::new(shelf))) {
            self.spilling.fetch_add(1, Relaxed);
            return None;
        }
        Some(Kept { budget: self.clone(), held: 0 })
    }

    /// Deals what is left of the budget; first when all operators are there.
    pub(crate) fn deal(&self) {
        let left = self.bytes.saturating_sub(self.kept.load(Relaxed));
        self.allowance.store(left / self.spilling.load(Relaxed).max(1), Relaxed);
    }
}

/// What an operator holds that keeps all its state in memory.
#[derive(Debug)]
pub(crate) struct Kept {
    budget: Arc<Budget>,
    held: usize,
}

impl Kept {
    /// It holds so many bytes now. Fails when that, with what others of its kind hold, is more than the budget.
    pub(crate) fn holds(&mut self, bytes: usize) -> Result<(), OperatorError> {
        let Budget { bytes: budget, kept, .. } = self.budget.as_ref();
        let former = std::mem::replace(&mut self.held, bytes);
        if former == bytes {
            return Ok(());
        }
        kept.fetch_add(bytes, Relaxed);
        let all = kept.fetch_sub(former, Relaxed) - former;
        self.budget.deal();
        if all <= *budget {
            return Ok(());
        }
        Err(OperatorError::OverBudget(format!(
            "it holds {} of state in this task, and all operators that keep their state in memory hold {} together, but the \
             memory budget of the job is {}: give it more with .memory_budget(bytes), or let it remember less, with \
             shorter windows, intervals or times to live",
            mebibytes(bytes),
            mebibytes(all),
            mebibytes(*budget),
        )))
    }
}

fn mebibytes(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use windrow_operators::{Outbox, Port, Result};

    use super::*;

    /// Puts away what is too much, or does not.
    struct Holds(Option<Memory>, bool);

    impl Operator for Holds {
        fn process(&mut self, _: Port, _: arrow::array::RecordBatch, _: &mut Outbox) -> Result<()> {
            Ok(())
        }

        fn limit(&mut self, memory: &Memory) -> bool {
            self.0 = Some(memory.clone());
            self.1
        }
    }

    #[test]
    fn what_is_kept_is_taken_off_and_the_rest_is_dealt() {
        let budget = Budget::new(1_200, Directory::below(None), 4);
        let counters = Counters::new("window".into(), 1);
        let mut operators = [true, false, true, false].map(|spills| Holds(None, spills));
        let mut kept: Vec<Kept> = operators.iter_mut().filter_map(|it| budget.limit(it, &counters)).collect();
        let allowance = || operators[0].0.as_ref().unwrap().allowance();
        assert_eq!((kept.len(), allowance()), (2, 300));
        budget.deal();
        assert_eq!(allowance(), 600);
        kept[0].holds(200).unwrap();
        kept[1].holds(600).unwrap();
        assert_eq!(allowance(), 200);
        kept[1].holds(0).unwrap();
        assert_eq!(allowance(), 500);
        kept[0].holds(1_200).unwrap();
        let error = kept[1].holds(1).unwrap_err().to_string();
        assert!(
            error.contains("memory budget of the job is 0.0 MiB: give it more with .memory_budget(bytes)"),
            "{error}"
        );
        assert_eq!(allowance(), 0);
    }
}
