//! One partial match, row by row: the table of the [module](crate::pattern) as a machine.
//!
//! ```text
//!   row ──► fits the loop? ──► take it
//!             no └► something that must be absent? ──► the steps behind it are barred
//!                   └► fits a step that may follow? ──► take it
//!                        no └► pass it over: strict steps are out of reach
//! ```

use std::{cell::OnceCell, sync::Arc};

use crate::Result;

/// The steps of a pattern. `absent[i]` is what must not come before step `i`; the last of them, before the end.
#[derive(Debug)]
pub(super) struct Steps {
    pub(super) steps: Vec<Step>,
    pub(super) absent: Vec<Vec<Absence>>,
}

#[derive(Debug)]
pub(super) struct Step {
    pub(super) condition: usize,
    pub(super) strict: bool,
    pub(super) min: u64,
    pub(super) max: u64,
    pub(super) optional: bool,
}

#[derive(Debug)]
pub(super) struct Absence {
    pub(super) condition: usize,
    pub(super) next_only: bool,
}

impl Steps {
    /// Whether a match is complete only when its time is over.
    pub(super) fn ends_with_absence(&self) -> bool {
        self.absent.last().is_some_and(|absent| !absent.is_empty())
    }
}

/// A row of the key: its number, its time, and what is kept of it when it is taken, made when it first is.
pub(super) struct Row<'a> {
    pub(super) number: i64,
    pub(super) time: i64,
    keep: &'a dyn Fn() -> Option<Arc<[u8]>>,
    kept: OnceCell<Option<Arc<[u8]>>>,
}

impl<'a> Row<'a> {
    pub(super) fn new(number: i64, time: i64, keep: &'a dyn Fn() -> Option<Arc<[u8]>>) -> Self {
        Self { number, time, keep, kept: OnceCell::new() }
    }

    fn kept(&self) -> &Option<Arc<[u8]>> {
        self.kept.get_or_init(self.keep)
    }
}

/// The rows that a step took.
#[derive(Clone, Default)]
pub(super) struct Taken {
    pub(super) count: u64,
    pub(super) first: Option<Arc<[u8]>>,
    pub(super) last: Option<Arc<[u8]>>,
}

impl Taken {
    /// About how many bytes it holds. A row that is both the first and the last counts twice.
    pub(super) fn size(&self) -> usize {
        let kept = [&self.first, &self.last];
        size_of::<Self>() + kept.into_iter().flatten().map(|row| row.len()).sum::<usize>()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Further rows decide.
    Open,
    Matched,
    Dead,
}

pub(super) struct Partial {
    pub(super) fate: Fate,
    /// The number and the time of the first row, and of the last.
    pub(super) start: (i64, i64),
    pub(super) last: (i64, i64),
    /// By step.
    pub(super) taken: Box<[Taken]>,
    /// The step that took the last row.
    step: usize,
    /// Whether a row has been passed over since.
    gap: bool,
    /// Steps from this one on are barred: what must be absent has come since the last row.
    barred: usize,
    /// Whether it would be a match if no more rows came.
    pub(super) may_end: bool,
}

impl Partial {
    /// Nothing but a first row, which is not taken yet.
    pub(super) fn new(steps: &Steps, row: &Row<'_>) -> Self {
        let at = (row.number, row.time);
        Self {
            fate: Fate::Open,
            start: at,
            last: at,
            taken: vec![Taken::default(); steps.steps.len()].into(),
            step: 0,
            gap: false,
            barred: usize::MAX,
            may_end: false,
        }
    }

    /// Begins with a row that fits the first step.
    pub(super) fn begin(&mut self, steps: &Steps, row: &Row<'_>) {
        self.take(0, row);
        self.settle(steps);
    }

    /// Takes the next row of the key or passes it over. `fits` says whether it fits a condition.
    pub(super) fn go_on(
        &mut self,
        steps: &Steps,
        row: &Row<'_>,
        fits: impl Fn(usize, &Self) -> Result<bool>,
    ) -> Result<()> {
        let step = &steps.steps[self.step];
        let taker = if self.may_repeat(steps) && fits(step.condition, self)? {
            Some(self.step)
        } else if self.has_enough(steps) {
            self.follower(steps, fits)?
        } else {
            None
        };
        match taker {
            Some(taker) => self.take(taker, row),
            None => self.gap = true,
        }
        self.settle(steps);
        Ok(())
    }

    /// The step behind the present one that takes the row, if there is one.
    fn follower(&mut self, steps: &Steps, fits: impl Fn(usize, &Self) -> Result<bool>) -> Result<Option<usize>> {
        for next in self.step + 1..=steps.steps.len() {
            for absence in &steps.absent[next] {
                if !(absence.next_only && self.gap) && fits(absence.condition, self)? {
                    self.barred = self.barred.min(next);
                }
            }
            let Some(step) = steps.steps.get(next).filter(|_| next < self.barred) else { break };
            if !(step.strict && self.gap) && fits(step.condition, self)? {
                return Ok(Some(next));
            }
            if !step.optional {
                break;
            }
        }
        Ok(None)
    }

    fn take(&mut self, step: usize, row: &Row<'_>) {
        let taken = &mut self.taken[step];
        taken.count += 1;
        if taken.count == 1 {
            taken.first.clone_from(row.kept());
        }
        taken.last.clone_from(row.kept());
        self.last = (row.number, row.time);
        (self.step, self.gap, self.barred) = (step, false, usize::MAX);
    }

    /// Whether the present step may take the next row, if it fits.
    fn may_repeat(&self, steps: &Steps) -> bool {
        let step = &steps.steps[self.step];
        self.taken[self.step].count < step.max && !(step.strict && self.gap)
    }

    fn has_enough(&self, steps: &Steps) -> bool {
        self.taken[self.step].count >= steps.steps[self.step].min
    }

    /// Finds out what may still become of it.
    fn settle(&mut self, steps: &Steps) {
        let mut may_go_on = self.may_repeat(steps);
        self.may_end = false;
        if self.has_enough(steps) {
            for next in self.step + 1..=steps.steps.len() {
                if next >= self.barred {
                    break;
                }
                let Some(step) = steps.steps.get(next) else {
                    self.may_end = true;
                    break;
                };
                may_go_on |= !(step.strict && self.gap);
                if !step.optional {
                    break;
                }
            }
        }
        self.fate = match (may_go_on, self.may_end) {
            (true, _) => Fate::Open,
            (false, true) if steps.ends_with_absence() => Fate::Open,
            (false, true) => Fate::Matched,
            (false, false) => Fate::Dead,
        };
    }

    /// Its time is over.
    pub(super) fn expire(&mut self) {
        if self.fate == Fate::Open {
            self.fate = if self.may_end { Fate::Matched } else { Fate::Dead };
        }
    }
}
