//! What is done to a job, one file for each kind of fault. All begin with a run of a seed, and end with the same question:
//! is every row there, once?

use std::path::Path;

use clap::ValueEnum;

use super::{
    figures::Figures,
    run::{Result, Run},
};

mod ending;
mod kill;
pub(crate) mod point;
mod race;
mod zombie;

/// What is done to the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fault {
    /// SIGKILL at random instants, one to five times, also while the job recovers; at another parallelism each time.
    Kill,
    /// The process ends itself at a named point of the checkpoint protocol: at each point, at its first, its second and a
    /// later pass.
    Point,
    /// Two to four processes start at once: one runs, the others say why they do not.
    Race,
    /// A process is suspended, another takes over without a lock to hinder it, the first wakes up: it is fenced.
    Zombie,
    /// All ways to end: sources of unequal length, one interrupt, two, SIGTERM, savepoints.
    End,
}

impl Fault {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_string()).unwrap_or_default()
    }

    /// One run of a fault that is drawn from its seed.
    pub(crate) fn run(self, seed: u64, place: &Path) -> Result<Figures> {
        let run = Run::begin(seed, place)?;
        match self {
            Self::Kill => kill::run(run),
            Self::Race => race::run(run),
            Self::Zombie => zombie::run(run),
            Self::End => ending::run(run),
            // It takes a point, too.
            Self::Point => Err("a point has to be named".to_string().into()),
        }
    }
}
