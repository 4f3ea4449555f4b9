//! The memory budget of a job: who may hold how much.
//!
//! ```text
//!   budget ─┬─ what operators hold that keep all their state in memory, counted now and then
//!           │    └ more than the others leave: an error that names the operator
//!           └─ the rest, in equal parts: the allowances of those that put on disk what is too much and are still there
//!                └ never less than LEAST_TASK_BYTES each: a budget that is not enough for that does not start
//! ```

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use windrow_operators::{Operator, OperatorError, spill::Memory};

use super::spill::{Directory, Shelf};
use crate::{
    Error, Result,
    metrics::Counters,
    plan::{
        graph::{Graph, Kind},
        physical::{Body, ChainPlan, LinkPlan, PhysicalPlan},
    },
};

/// The least budget. Less would be spent on the work itself.
pub(crate) const LEAST_BYTES: usize = 1 << 20;
/// The least part of it for an operator with state in one task: less would be all work and no state.
pub(crate) const LEAST_TASK_BYTES: usize = 256 << 10;

/// How many operators there are, task by task, that put on disk what is too much.
pub(crate) fn spilling_tasks(graph: &Graph, plan: &PhysicalPlan) -> usize {
    let spills = |kind: &Kind| matches!(kind, Kind::Stateful(plan) if plan.spills());
    tasks(plan, |link| !link.first_phase && spills(&graph.nodes[link.node].kind))
}

/// How many of the operators that `counts` says there are, task by task.
fn tasks(plan: &PhysicalPlan, counts: impl Fn(&LinkPlan) -> bool) -> usize {
    let of_chain = |chain: &ChainPlan| match &chain.body {
        Body::Links { links, .. } => chain.tasks * links.iter().filter(|link| counts(link)).count(),
        Body::Sink { .. } => 0,
    };
    plan.chains.iter().map(of_chain).sum()
}

/// Fails when a budget of so many bytes, if there is one, is too little for the operators with state.
pub(crate) fn check_budget(budget: Option<usize>, graph: &Graph, plan: &PhysicalPlan) -> Result<()> {
    let tasks = tasks(plan, |link| matches!(graph.nodes[link.node].kind, Kind::Stateful(_)));
    let least = tasks * LEAST_TASK_BYTES;
    match budget.filter(|bytes| *bytes < least) {
        None => Ok(()),
        Some(bytes) => Err(Error::Plan {
            job: graph.job.clone(),
            mistakes: vec![format!(
                "a memory budget of {bytes} bytes is too little for the {tasks} operators with state that it has, each counted \
                 once for every task (the first phase of a window is one of its own): at least {least}, which is {} KiB for \
                 each: say .memory_budget({least}), or fewer tasks with .parallelism(tasks)",
                LEAST_TASK_BYTES >> 10,
            )],
        }),
    }
}

/// What the operators of all tasks of an attempt share.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes: usize,
    directory: Arc<Directory>,
    /// How much each operator may use that puts away what is too much.
    allowance: Arc<AtomicUsize>,
    ledger: Mutex<Ledger>,
}

/// What changes together: tasks report at the same time, and each is to be judged by what all hold, not by half of what another
/// has just said.
#[derive(Debug, Default)]
struct Ledger {
    /// How many operators there are still, or will be, that put away what is too much, task by task.
    spilling: usize,
    /// How much the others hold.
    kept: usize,
}

impl Budget {
    /// Dealt to so many operators that put away what is too much, task by task: what they load is to fit as what they make is.
    pub(crate) fn new(bytes: usize, directory: Arc<Directory>, spilling: usize) -> Arc<Self> {
        let ledger = Ledger { spilling, kept: 0 };
        let budget = Self { bytes, directory, allowance: Arc::default(), ledger: Mutex::default() };
        budget.deal_by(&ledger);
        Arc::new(Self { ledger: Mutex::new(ledger), ..budget })
    }

    /// Tells an operator that is new.
    pub(crate) fn limit(self: &Arc<Self>, operator: &mut dyn Operator, counters: &Arc<Counters>) -> Share {
        let shelf = Shelf::new(self.directory.clone(), counters.clone());
        let spills = operator.limit(&Memory::new(self.allowance.clone(), Arc::new(shelf)));
        Share { budget: self.clone(), spills, held: 0 }
    }

    /// Deals what is left of the budget.
    fn deal_by(&self, ledger: &Ledger) {
        let left = self.bytes.saturating_sub(ledger.kept);
        self.allowance.store((left / ledger.spilling.max(1)).max(LEAST_TASK_BYTES), Relaxed);
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an operator has of a budget, as long as this is there.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    /// Whether it puts away what is too much. What it holds if it does not is to be reported.
    spills: bool,
    /// What it said last if it does not.
    held: usize,
}

impl Share {
    pub(crate) fn spills(&self) -> bool {
        self.spills
    }

    /// It holds so many bytes now. Fails when it keeps all of them in memory and that, with what others of its kind hold, is more
    /// than the budget leaves them.
    pub(crate) fn holds(&mut self, bytes: usize) -> windrow_operators::Result<()> {
        if self.spills || self.held == bytes {
            return Ok(());
        }
        let (all, aside) = self.becomes(bytes);
        let budget = self.budget.bytes;
        if all <= budget.saturating_sub(aside) {
            return Ok(());
        }
        let aside = match aside {
            0 => String::new(),
            aside => format!(", of which {} are set aside for windows that put theirs on disk", mebibytes(aside)),
        };
        Err(OperatorError::OverBudget(format!(
            "it holds {} of state in this task, and all operators that keep their state in memory hold {} together, but the \
             memory budget of the job is {}{aside}: give it more with .memory_budget(bytes), or let it remember less, with \
             shorter windows, intervals or times to live, or greatest rows without ties",
            mebibytes(bytes),
            mebibytes(all),
            mebibytes(budget),
        )))
    }

    /// Writes down what it holds, in one step. Returns what all hold, and what is set aside for those that need not.
    fn becomes(&mut self, bytes: usize) -> (usize, usize) {
        let mut ledger = self.budget.ledger();
        ledger.kept = ledger.kept - self.held + bytes;
        self.held = bytes;
        self.budget.deal_by(&ledger);
        (ledger.kept, ledger.spilling * LEAST_TASK_BYTES)
    }
}

impl Drop for Share {
    /// Its task has ended, or failed: what it had is there for the others.
    fn drop(&mut self) {
        if self.spills {
            let mut ledger = self.budget.ledger();
            ledger.spilling = ledger.spilling.saturating_sub(1);
            self.budget.deal_by(&ledger);
        } else if self.held > 0 {
            self.becomes(0);
        }
    }
}

fn mebibytes(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use windrow_operators::{Outbox, Port};

    use super::*;

    /// Puts away what is too much, or does not.
    struct Holds(Option<Memory>, bool);

    impl Operator for Holds {
        fn process(&mut self, _: Port, _: arrow::array::RecordBatch, _: &mut Outbox) -> windrow_operators::Result<()> {
            Ok(())
        }

        fn limit(&mut self, memory: &Memory) -> bool {
            self.0 = Some(memory.clone());
            self.1
        }
    }

    const KIB: usize = 1 << 10;

    /// A budget that is dealt to so many operators that put away what is too much, and so many that do not: what they have of it,
    /// in this order.
    fn dealt(bytes: usize, spilling: usize, keeping: usize) -> (Arc<Budget>, Vec<Share>, Vec<Share>) {
        let budget = Budget::new(bytes, Directory::below(None), spilling);
        let counters = Counters::new("window".into(), 1);
        let operators = (0..spilling + keeping).map(|number| Holds(None, number < spilling));
        let shares = operators.map(|mut it| budget.limit(&mut it, &counters));
        let (spilling, keeping) = shares.partition(Share::spills);
        (budget, spilling, keeping)
    }

    #[test]
    fn what_is_kept_is_taken_off_and_the_rest_is_dealt() {
        let budget = Budget::new(4_000 * KIB, Directory::below(None), 2);
        let counters = Counters::new("window".into(), 1);
        let mut operators = [true, false, true, false].map(|spills| Holds(None, spills));
        let mut shares: Vec<Share> = Vec::new();
        for operator in &mut operators {
            shares.push(budget.limit(operator, &counters));
            // From the beginning: what it loads then is to fit as well.
            assert_eq!(operator.0.as_ref().unwrap().allowance(), 2_000 * KIB);
        }
        let allowance = || operators[0].0.as_ref().unwrap().allowance() / KIB;
        let (mut spilling, mut kept): (Vec<Share>, Vec<Share>) = shares.into_iter().partition(Share::spills);
        assert_eq!((spilling.len(), kept.len()), (2, 2));
        spilling[0].holds(9_000 * KIB).unwrap();
        kept[0].holds(500 * KIB).unwrap();
        kept[1].holds(1_500 * KIB).unwrap();
        assert_eq!(allowance(), 1_000);
        kept[1].holds(0).unwrap();
        assert_eq!(allowance(), 1_750);
        // The others keep 256 KiB each, whatever is kept.
        kept[0].holds((4_000 - 512) * KIB).unwrap();
        assert_eq!(allowance(), 256);
        let error = kept[1].holds(1).unwrap_err().to_string();
        let words = [
            "it holds 0.0 MiB of state in this task, and all operators that keep their state in memory hold 3.4 MiB together",
            "budget of the job is 3.9 MiB, of which 0.5 MiB are set aside for windows that put theirs on disk: give it more",
            "with .memory_budget(bytes)",
        ];
        words.iter().for_each(|words| assert!(error.contains(words), "{words:?} in {error}"));
        assert_eq!(allowance(), 256);
    }

    /// Windows whose tasks have ended need no part, and nothing is set aside for them.
    #[test]
    fn what_an_operator_had_that_is_gone_is_dealt_to_the_others() {
        let (budget, mut spilling, mut kept) = dealt(3_000 * KIB, 3, 1);
        let allowance = || budget.allowance.load(Relaxed) / KIB;
        assert_eq!(allowance(), 1_000);
        drop(spilling.pop());
        assert_eq!(allowance(), 1_500);
        kept[0].holds(2_000 * KIB).unwrap();
        assert_eq!(allowance(), 500);
        assert!(kept[0].holds(2_700 * KIB).is_err());
        drop(spilling.pop());
        kept[0].holds(2_710 * KIB).unwrap();
        assert_eq!(allowance(), 290);
        drop(spilling);
        kept[0].holds(3_000 * KIB).unwrap();
        assert_eq!(budget.ledger().spilling, 0);
    }

    /// A task that has ended holds nothing, however it ended.
    #[test]
    fn what_an_operator_held_that_is_gone_is_there_for_the_others() {
        let (budget, _spilling, mut kept) = dealt(2_000 * KIB, 1, 2);
        kept[0].holds(1_500 * KIB).unwrap();
        assert!(kept[1].holds(500 * KIB).is_err());
        drop(kept.remove(1));
        assert_eq!(budget.allowance.load(Relaxed), 500 * KIB);
        drop(kept);
        assert_eq!(budget.allowance.load(Relaxed), 2_000 * KIB);
        assert_eq!(budget.ledger().kept, 0);
    }

    /// Two tasks that hold at most nine tenths of the budget together are never told that it is too much.
    #[test]
    fn tasks_that_report_at_once_are_judged_by_what_they_hold() {
        let (budget, _spilling, mut kept) = dealt(10_000 * KIB, 1, 2);
        kept.iter_mut().for_each(|kept| kept.holds(4_000 * KIB).unwrap());
        std::thread::scope(|threads| {
            for mine in &mut kept {
                threads.spawn(move || {
                    for turn in 0..200_000 {
                        mine.holds((4_000 + turn % 2 * 500) * KIB).unwrap();
                    }
                    mine.holds(3_000 * KIB).unwrap();
                });
            }
        });
        assert_eq!(budget.allowance.load(Relaxed), 4_000 * KIB, "what is dealt is what the last report leaves");
    }
}
