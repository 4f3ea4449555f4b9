//! What is counted over runs, and what a run that failed says.

use std::{fmt, io, ops::AddAssign};

/// What is counted, and added up over runs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) runs: u64,
    pub(crate) starts: u64,
    /// Processes that did not end by themselves or by what was asked of them.
    pub(crate) kills: u64,
    /// Checkpoints that were decided.
    pub(crate) epochs: u64,
    /// Rows in published files.
    pub(crate) rows: u64,
    /// How often the reader found a file that had been published since it last looked.
    pub(crate) seen: u64,
    /// Rows that came too late for their window and were written apart.
    pub(crate) late: u64,
    /// Rows that were missing.
    pub(crate) lost: u64,
    /// Rows that were there too often, or that nobody knows.
    pub(crate) repeated: u64,
}

impl AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        self.runs += other.runs;
        self.starts += other.starts;
        self.kills += other.kills;
        self.epochs += other.epochs;
        self.rows += other.rows;
        self.seen += other.seen;
        self.late += other.late;
        self.lost += other.lost;
        self.repeated += other.repeated;
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runs, kills, epochs, rows, lost, repeated, .. } = self;
        write!(f, "{runs} runs, {kills} kills, {epochs} epochs, {rows} rows, {lost} lost, {repeated} repeated")
    }
}

/// Why a run failed, and what it had counted.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    pub(crate) figures: Figures,
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self { reason, figures: Figures { runs: 1, ..Figures::default() } }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        error.to_string().into()
    }
}
