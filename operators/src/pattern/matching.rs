//! The partial matches of one key, and what is skipped after a match.
//!
//! ```text
//!   row ──► those whose time is over are decided ──► the others go on ──► it may begin one
//!                                                                            │
//!   skip past last: the one that began first, once decided ◄─────────────────┤
//!   skip to next:   all that are decided ◄───────────────────────────────────┘
//! ```

use std::collections::VecDeque;

use super::{
    condition::Candidates,
    partial::{Fate, Partial, Row, Taken},
    plan::Shared,
    spec::Skip,
};
use crate::Result;

/// A match, complete.
pub(super) struct Match {
    pub(super) start: i64,
    pub(super) end: i64,
    /// Its event time.
    pub(super) time: i64,
    pub(super) taken: Box<[Taken]>,
}

/// What is held for a key.
#[derive(Default)]
pub(super) struct Matching {
    /// In the order in which they began.
    pub(super) partials: VecDeque<Partial>,
    /// The event time of the last row.
    pub(super) last_time: i64,
    /// Whether rows of the key are stored.
    pub(super) stored: bool,
    /// Whether a match has skipped rows since this was last asked.
    pub(super) skipped: bool,
}

impl Matching {
    /// Takes the next row of the key.
    pub(super) fn take(
        &mut self,
        plan: &Shared,
        rows: &Candidates<'_>,
        (row, number, time): (usize, i64, i64),
        matches: &mut Vec<Match>,
    ) -> Result<()> {
        self.last_time = time;
        self.expire(|start| plan.is_over(start, time));
        let may_begin = rows.may_begin(row);
        if self.partials.is_empty() && !may_begin {
            return Ok(());
        }
        let keep = || rows.keep(row);
        let taken = Row::new(number, time, &keep);
        for partial in self.partials.iter_mut().filter(|partial| partial.fate == Fate::Open) {
            partial.go_on(&plan.steps, &taken, |condition, partial| rows.fits(condition, row, partial))?;
        }
        if may_begin {
            let mut partial = Partial::new(&plan.steps, &taken);
            if rows.fits(plan.steps.steps[0].condition, row, &partial)? {
                partial.begin(&plan.steps, &taken);
                self.partials.push_back(partial);
            }
        }
        self.resolve(plan, matches);
        Ok(())
    }

    /// Decides those whose time is over. They are the first: times do not go back.
    fn expire(&mut self, is_over: impl Fn(i64) -> bool) {
        self.partials.iter_mut().take_while(|partial| is_over(partial.start.1)).for_each(Partial::expire);
    }

    /// No row of these times will come.
    pub(super) fn close(&mut self, plan: &Shared, is_over: impl Fn(i64) -> bool, matches: &mut Vec<Match>) {
        self.expire(is_over);
        self.resolve(plan, matches);
    }

    /// Takes out what is decided.
    fn resolve(&mut self, plan: &Shared, matches: &mut Vec<Match>) {
        match plan.skip {
            Skip::ToNext => {
                if self.partials.iter().all(|partial| partial.fate == Fate::Open) {
                    return;
                }
                for partial in std::mem::take(&mut self.partials) {
                    match partial.fate {
                        Fate::Open => self.partials.push_back(partial),
                        Fate::Matched => matches.push(complete(plan, partial)),
                        Fate::Dead => {}
                    }
                }
            }
            Skip::PastLast => {
                while let Some(first) = self.partials.pop_front_if(|first| first.fate != Fate::Open) {
                    if first.fate == Fate::Matched {
                        let last = first.last.0;
                        while self.partials.pop_front_if(|next| next.start.0 <= last).is_some() {}
                        self.skipped = true;
                        matches.push(complete(plan, first));
                    }
                }
            }
        }
    }

    /// When the first of them began: (number, time).
    pub(super) fn start(&self) -> Option<(i64, i64)> {
        self.partials.front().map(|first| first.start)
    }

    /// The least event time that a match may have whose rows have all come.
    pub(super) fn held(&self, plan: &Shared) -> Option<i64> {
        if plan.steps.ends_with_absence() {
            return None;
        }
        let may_match = |partial: &&Partial| partial.fate == Fate::Matched || partial.may_end;
        self.partials.iter().filter(may_match).map(|partial| partial.last.1).min()
    }

    /// About how many bytes it holds. A row that several matches took counts for each.
    pub(super) fn size(&self) -> usize {
        let partial = |p: &Partial| size_of::<Partial>() + p.taken.iter().map(Taken::size).sum::<usize>();
        size_of::<Self>() + self.partials.iter().map(partial).sum::<usize>()
    }
}

fn complete(plan: &Shared, partial: Partial) -> Match {
    let (start, end) = (partial.start.1, partial.last.1);
    let time = if plan.steps.ends_with_absence() { plan.over(start) } else { end };
    Match { start, end, time, taken: partial.taken }
}
