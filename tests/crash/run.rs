//! One run: its place on the disk, its starts, and what must hold in the end: every row once, and nothing left over.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use tests::process::{Exit, Start};

use super::{
    child::JOB,
    figures::{Failure, Figures},
    oracle::{self, Line},
    reader,
    scenario::{Output, Scenario, What},
    watcher::Watcher,
};

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// A run under way.
pub(crate) struct Run {
    pub(crate) seed: u64,
    pub(crate) place: PathBuf,
    pub(crate) scenario: Scenario,
    pub(crate) random: fastrand::Rng,
    pub(crate) figures: Figures,
    watcher: Option<Watcher>,
}

impl Run {
    /// Writes the input and begins to watch the output.
    pub(crate) fn begin(seed: u64, place: &Path) -> Result<Self> {
        let scenario = Scenario::new(seed);
        super::input::write(&scenario, place)?;
        let watcher = Watcher::start(scenario.outputs.iter().map(|output| place.join(output.directory)).collect());
        // The faults are drawn apart from the scenario, so that one does not change with the other.
        let random = fastrand::Rng::with_seed(seed ^ 0xfa01_7500);
        let figures = Figures { runs: 1, ..Figures::default() };
        Ok(Self { seed, place: place.to_path_buf(), scenario, random, figures, watcher: Some(watcher) })
    }

    /// The next start, at a parallelism of its own.
    pub(crate) fn start(&mut self) -> Start {
        self.figures.starts += 1;
        Start::of(self.seed, &self.place).with("parallelism", self.random.usize(1..5))
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.place.join("store").join(JOB)
    }

    /// Ends the run: one last start that nobody disturbs, and then everything must be there, once.
    pub(crate) fn finish(mut self) -> Result<Figures> {
        self.start().start("last")?.complete()?;
        self.check()
    }

    /// That everything is there, once, and nothing else.
    pub(crate) fn check(mut self) -> Result<Figures> {
        if let Some(watcher) = self.watcher.take() {
            self.figures.seen = watcher.stop()?;
        }
        self.check_answers()?;
        self.check_no_hidden_files()?;
        self.check_store()?;
        Ok(self.figures)
    }

    /// A process has been sent a signal that it may not have heard before it was at its end.
    pub(crate) fn count_kill(&mut self, exit: Exit) {
        self.figures.kills += u64::from(matches!(exit, Exit::Signal(_)));
    }

    /// No sink has left a file that it did not finish.
    pub(crate) fn check_no_hidden_files(&self) -> Result<()> {
        for output in &self.scenario.outputs {
            let files = reader::find(&self.place.join(output.directory))?;
            if let Some(hidden) = files.hidden.first() {
                return Err(
                    format!("{} hidden files are left, such as {}", files.hidden.len(), hidden.display()).into()
                );
            }
        }
        Ok(())
    }

    /// The newest decision is a commit, and it is published.
    pub(crate) fn check_last_epoch(&self) -> Result<()> {
        let newest = numbers(&self.store().join("epoch"))?.pop();
        let is_commit = newest.as_ref().is_some_and(|path| is_commit(path).unwrap_or(false));
        let name = newest.as_ref().and_then(|path| path.file_name()).unwrap_or_default();
        match is_commit && self.store().join("done").join(name).exists() {
            true => Ok(()),
            false => Err(format!("it ended well, but its last epoch is not committed: {name:?}").into()),
        }
    }

    fn check_answers(&mut self) -> Result<()> {
        let mut found: Vec<(&Output, Vec<Line>)> = Vec::new();
        for output in &self.scenario.outputs {
            let extension = output.format.extension();
            let is_mine = |path: &&PathBuf| path.extension().is_some_and(|found| found == extension);
            let mut lines = Vec::new();
            for path in reader::find(&self.place.join(output.directory))?.published.iter().filter(is_mine) {
                lines.extend(reader::read(path)?);
            }
            found.push((output, lines));
        }
        let late = found.iter().find(|(output, _)| output.what == What::Late);
        let late = late.map(|(_, lines)| lines.clone()).unwrap_or_default();
        let answers = oracle::answers(&self.scenario, &late)?;
        self.figures.late = late.len() as u64;
        for (output, lines) in found {
            self.figures.rows += lines.len() as u64;
            let expected = answers.get(&output.what).map(Vec::as_slice).unwrap_or_default();
            let difference = Difference::between(expected, &lines);
            if let Some(text) = difference.text() {
                self.figures.lost += difference.lost.len() as u64;
                self.figures.repeated += difference.repeated.len() as u64;
                let reason = format!(
                    "{output:?}: {} rows, expected {}; {} lost, {} repeated or unexplained\n{text}",
                    lines.len(),
                    expected.len(),
                    difference.lost.len(),
                    difference.repeated.len(),
                );
                return Err(Failure { reason, figures: self.figures });
            }
        }
        Ok(())
    }

    /// The lock is free, every decision is published, and no half-written file lies about.
    fn check_store(&mut self) -> Result<()> {
        let store = self.store();
        let lock = fs::File::open(store.join("LOCK"))?;
        lock.try_lock().map_err(|error| format!("the lock is held after the end: {error}"))?;
        let mut committed = numbers(&store.join("epoch"))?;
        committed.retain(|path| is_commit(path).unwrap_or(false));
        let done = numbers(&store.join("done"))?;
        if !committed.iter().map(|path| path.file_name()).eq(done.iter().map(|path| path.file_name())) {
            return Err(format!("{} checkpoints are decided, but {} published", committed.len(), done.len()).into());
        }
        let left = reader::find(&store)?.published;
        if let Some(half) = left.iter().find(|path| path.to_string_lossy().contains('#')) {
            return Err(format!("a half-written file is left: {}", half.display()).into());
        }
        self.figures.epochs += committed.len() as u64;
        Ok(())
    }
}

/// The records of a folder of the store, in order.
fn numbers(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut numbers: Vec<PathBuf> = entries.collect::<io::Result<_>>()?;
    numbers.sort();
    Ok(numbers)
}

/// Whether a decision is to commit. The record is framed JSON.
fn is_commit(path: &Path) -> io::Result<bool> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).contains("\"commit\""))
}

/// How two multisets of rows differ.
struct Difference {
    lost: Vec<Line>,
    repeated: Vec<Line>,
}

impl Difference {
    fn between(expected: &[Line], found: &[Line]) -> Self {
        let mut count: HashMap<&Line, i64> = HashMap::new();
        expected.iter().for_each(|line| *count.entry(line).or_default() += 1);
        found.iter().for_each(|line| *count.entry(line).or_default() -= 1);
        let times = |line: &Line, times: i64| std::iter::repeat_n(line.clone(), times.max(0) as usize);
        let mut lost: Vec<Line> = count.iter().flat_map(|(line, count)| times(line, *count)).collect();
        let mut repeated: Vec<Line> = count.iter().flat_map(|(line, count)| times(line, -*count)).collect();
        lost.sort();
        repeated.sort();
        Self { lost, repeated }
    }

    /// The first few rows; none without a difference.
    fn text(&self) -> Option<String> {
        if self.lost.is_empty() && self.repeated.is_empty() {
            return None;
        }
        let few = |what: &'static str, lines: &[Line]| {
            lines.iter().take(5).map(move |line| format!("    {what} {line}")).collect::<Vec<_>>()
        };
        Some([few("lost    ", &self.lost), few("repeated", &self.repeated)].concat().join("\n"))
    }
}
