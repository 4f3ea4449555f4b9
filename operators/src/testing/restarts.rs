//! When a run is interrupted: operators that are replaced between two calls, and jobs that go on with other tasks.
//!
//! ```text
//!   Never        ─────────────────────────────────────────────►
//!   Operators    ─┬──┬──┬──┬──┬─►    after each call (or now and then): flush, save, throw away, make, load
//!   Job          ═══ 3 tasks ═══╪═══ 4 tasks ═══╪══ 2 tasks ══►    at barriers: everything is saved and loaded
//! ```

use std::fmt;

use arrow::{array::RecordBatch, compute::concat_batches};
use fastrand::Rng;

use super::arrivals::{Message, Scenario};
use crate::{Timestamp, Watermark};

/// How a run is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restarts {
    Never,
    /// After every call of every operator.
    EveryCall,
    /// Saves often and loads seldom, so that what is loaded was saved in many increments.
    SomeCalls,
    /// At barriers, with another number of tasks each time. In between operators save.
    Job,
}

impl Restarts {
    /// What a round of checks goes through: without a restart, and either restarts of operators or of the job in turn;
    /// both when there is only one round.
    pub(super) fn of_round(scenario: &Scenario, rounds: u8) -> Vec<Self> {
        let (_, width) = scenario.tasks();
        let round = scenario.round();
        let operators = if round.is_multiple_of(2) { Self::EveryCall } else { Self::SomeCalls };
        // In turn for each number of tasks.
        match (rounds, (round + round / width).is_multiple_of(2)) {
            (1, _) => vec![Self::Never, operators, Self::Job],
            (_, true) => vec![Self::Never, operators],
            (_, false) => vec![Self::Never, Self::Job],
        }
    }

    /// The number of tasks of each part of the run: the same again, one more, then two, then three, modulo how many
    /// numbers there are. So with 1 to 4 tasks four rounds meet every number after every other.
    pub(super) fn legs(self, scenario: &Scenario) -> Vec<usize> {
        if self != Self::Job {
            return vec![scenario.parallelism];
        }
        let (least, width) = scenario.tasks();
        [0, 0, 1, 3, 6].iter().map(|more| least + (scenario.parallelism - least + more) % width).collect()
    }

    /// What the operators of one task do.
    pub(super) fn habit(self, seed: u64) -> Habit {
        let (saves, loads) = match self {
            Self::Never => (0, 0),
            Self::EveryCall => (8, 8),
            Self::SomeCalls => (5, 2),
            Self::Job => (2, 0),
        };
        Habit { saves, loads, random: Rng::with_seed(seed) }
    }
}

impl fmt::Display for Restarts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Never => "never restarted",
            Self::EveryCall => "each operator restored after each call",
            Self::SomeCalls => "each operator saved after most calls and restored now and then",
            Self::Job => "the job restored with another number of tasks",
        })
    }
}

/// How often one operator saves and loads, out of eight times.
#[derive(Clone, Debug)]
pub(super) struct Habit {
    saves: u8,
    loads: u8,
    random: Rng,
}

impl Habit {
    /// Whether it saves after this call.
    pub(super) fn saves_now(&mut self) -> bool {
        self.saves > 0 && self.random.u8(..8) < self.saves
    }

    /// How many rows it emits in one step, if not as many as usual: often so few that it needs many steps.
    pub(super) fn step(&self) -> Option<usize> {
        let mut random = Rng::with_seed(self.random.get_seed() ^ 0x57_e9_00);
        (random.u8(..2) == 0).then(|| random.usize(1..=5))
    }

    /// How the processing time of the operator goes on.
    pub(super) fn clock(&self) -> Rng {
        Rng::with_seed(self.random.get_seed() ^ 0xc1_0c_c0)
    }

    /// Whether another one is loaded from what it has just saved.
    pub(super) fn loads_now(&mut self) -> bool {
        self.random.u8(..8) < self.loads
    }
}

/// What a barrier cuts off: the rows of each input that the sources had not sent, and the time that all of them had
/// reached.
pub(super) struct Rest {
    pub(super) inputs: Vec<RecordBatch>,
    pub(super) said: Timestamp,
}

/// Cuts what each source task of each input sends at a random place, so that `more` further parts have something to do.
pub(super) fn cut(
    inputs: &mut [Vec<Vec<Message>>],
    more: usize,
    random: &mut Rng,
    rest: &mut Rest,
) -> Result<(), String> {
    rest.said = Timestamp::MAX;
    for (sources, rows) in inputs.iter_mut().zip(&mut rest.inputs) {
        let (batches, said) = cut_input(sources, more, random);
        *rows = concat_batches(rows.schema_ref(), &batches).map_err(|error| error.to_string())?;
        rest.said = rest.said.min(said);
    }
    Ok(())
}

fn cut_input(sources: &mut [Vec<Message>], more: usize, random: &mut Rng) -> (Vec<RecordBatch>, Timestamp) {
    let mut batches = Vec::new();
    let mut said = Timestamp::MAX;
    for messages in sources {
        let most = messages.len().min(2 * messages.len().div_ceil(more + 1));
        let rest = messages.split_off(random.usize(..=most));
        batches.extend(rest.into_iter().filter_map(|message| match message {
            Message::Batch(batch) => Some(batch),
            Message::Watermark(_) => None,
        }));
        let times = messages.iter().filter_map(|message| match message {
            Message::Watermark(Watermark::At(time)) => Some(*time),
            _ => None,
        });
        said = said.min(times.max().unwrap_or(Timestamp::MIN));
    }
    (batches, said)
}

/// Lets new source tasks begin with the time that all former ones had reached.
pub(super) fn go_on(sources: &mut [Vec<Message>], said: Timestamp) {
    if said > Timestamp::MIN && said < Timestamp::MAX {
        for messages in sources {
            messages.insert(0, Message::Watermark(Watermark::At(said)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use super::{super::arrivals::Limits, *};

    #[test]
    fn twelve_rounds_meet_every_number_of_tasks_after_every_other_and_all_restarts() {
        let limits = Limits {
            bound: Duration::ZERO,
            parallelism: 1..=4,
            batch_rows: 1..=usize::MAX,
            beyond_bound: false,
            idle: false,
        };
        let (mut pairs, mut met) = (BTreeSet::new(), BTreeSet::new());
        for seed in 0..12 {
            let scenario = Scenario::new(seed, &limits, 50);
            for restarts in Restarts::of_round(&scenario, 12) {
                met.insert(restarts.to_string());
                pairs.extend(restarts.legs(&scenario).windows(2).map(|pair| (pair[0], pair[1])));
            }
        }
        assert_eq!((pairs.len(), met.len()), (16, 4), "{pairs:?} {met:?}");
    }
}
