//! What is done to a job and to its broker, one file for each row of the fault matrix. All begin with a run of a seed, and end with the
//! same question: is every record committed, once?

use std::{path::Path, time::Duration};

use clap::ValueEnum;
use tests::broker::Broker;

use super::{
    figures::Figures,
    run::{Result, Run},
};

mod broker;
mod growth;
mod kill;
mod network;
mod odd;
mod retention;
mod sleep;
mod zombie;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fault {
    /// The broker is killed at a random instant, and started again on its data; sometimes the job is killed meanwhile.
    #[value(name = "row12")]
    BrokerKill,
    /// The broker is stopped for longer than a transaction may stay open.
    #[value(name = "row12-pause")]
    BrokerPause,
    /// The job is killed at random instants, one to five times, also while it recovers, and started at another parallelism.
    #[value(name = "row13")]
    Kill,
    /// The same, while the input gains partitions.
    #[value(name = "row13-growth")]
    Growth,
    /// The network loses requests and replies, delays commits, and answers in the broker's place.
    #[value(name = "row14")]
    Network,
    /// A job process is suspended, another takes over without a lock to hinder it, the first wakes up: it is fenced.
    #[value(name = "row15")]
    Zombie,
    /// A producer repeats itself, records are removed that were read, partitions are added, and the topic is deleted and made again.
    #[value(name = "row28")]
    Odd,
    /// Records are removed before the job has read them.
    #[value(name = "row29")]
    Retention,
    /// The job is suspended, alone, for longer than a transaction may stay open.
    #[value(name = "k9")]
    Sleep,
}

impl Fault {
    /// How many runs there are for so many of row 13.
    pub(crate) fn share(self, runs: usize) -> usize {
        match self {
            Self::BrokerKill => runs.div_ceil(2),
            Self::BrokerPause => runs.div_ceil(5),
            Self::Kill | Self::Zombie => runs,
            Self::Network => 2 * runs,
            Self::Growth | Self::Odd | Self::Retention | Self::Sleep => runs.div_ceil(10),
        }
    }

    /// One run, whose commits are delayed for `delay` where they are.
    pub(crate) fn run(self, broker: &Broker, seed: u64, place: &Path, delay: Duration) -> Result<Figures> {
        let run = Run::begin(broker, seed, place)?;
        match self {
            Self::BrokerKill => broker::kill(run),
            Self::BrokerPause => broker::pause(run),
            Self::Kill => kill::run(run),
            Self::Growth => growth::run(run),
            Self::Odd => odd::run(run),
            Self::Network => network::run(run, delay),
            Self::Zombie => zombie::run(run),
            Self::Retention => retention::run(run),
            Self::Sleep => sleep::run(run),
        }
    }
}
