//! A topic in memory: partitions that appear while a job reads it, a start at the end, a lag, and a broker that is moody. And rows for
//! it, with the answer that a batch computation gives.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::Notify;
use windrow::{
    arrow::{
        array::{ArrayRef, Int64Array, RecordBatch},
        datatypes::SchemaRef,
    },
    connectors::{ConnectorError, Fetch, Position, PutOff, Rows, Source, SourceReader, SplitId, TypedSource, Untyped},
    prelude::Timestamp,
};

/// The keys of [`batch`], and the seconds of a window of [`right`].
const KEYS: i64 = 5;
const SIZE: i64 = 10;

/// How long a reader waits at its start for a leader that does not answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Rows of these seconds, in `at`; `n` is their key.
#[allow(clippy::expect_used, reason = "it is for tests")]
pub fn batch(seconds: &[i64]) -> RecordBatch {
    let n: ArrayRef = Arc::new(Int64Array::from_iter_values(seconds.iter().map(|second| second % KEYS)));
    let at = Timestamp::column(seconds.iter().map(|second| second * 1_000_000).collect());
    RecordBatch::try_from_iter([("n", n), ("at", at)]).expect("columns of one length")
}

/// What a batch computation says of rows of these seconds: how many there are by key in windows of ten seconds, as
/// `window_start|n|count`, sorted.
pub fn right(seconds: &[i64]) -> Vec<String> {
    let mut counts = BTreeMap::<(i64, i64), usize>::new();
    for second in seconds {
        *counts.entry((second.div_euclid(SIZE) * SIZE, second % KEYS)).or_default() += 1;
    }
    let text = |((start, n), count): (&(i64, i64), &usize)| {
        format!("{}|{n}|{count}", Timestamp::from_micros(start * 1_000_000))
    };
    let mut rows: Vec<String> = counts.iter().map(text).collect();
    rows.sort_unstable();
    rows
}

type Outcome<T> = Result<T, ConnectorError>;

/// What becomes of a question for the partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// It is answered.
    Well,
    /// It is answered with so many of them.
    Lists(usize),
    /// It is answered, but for this one.
    AllBut(usize),
    /// It fails.
    Fails,
    /// Nobody answers.
    Hangs,
}

/// A topic; a clone is another handle to it.
#[derive(Clone)]
pub struct Topic {
    log: Arc<Log>,
    latest: bool,
    mute: bool,
    bounded: bool,
    every: Option<Duration>,
    adds: bool,
}

struct Log {
    schema: SchemaRef,
    partitions: Mutex<Vec<Partition>>,
    changed: Notify,
    mood: Mutex<Mood>,
    /// What becomes of a reader's question where a new partition begins.
    adding: Mutex<Mood>,
}

#[derive(Default)]
struct Partition {
    batches: Vec<RecordBatch>,
    ended: bool,
    away: bool,
    leaderless: bool,
    hangs: bool,
}

impl Topic {
    /// A topic of so many partitions, for new ones of which the engine looks so often. A position is a number of batches.
    pub fn new(schema: SchemaRef, partitions: usize, every: Duration) -> Self {
        let partitions = std::iter::repeat_with(Partition::default).take(partitions).collect();
        let (mood, adding) = (Mutex::new(Mood::Well), Mutex::new(Mood::Well));
        let log = Log { schema, partitions: Mutex::new(partitions), changed: Notify::new(), mood, adding };
        Self { log: Arc::new(log), latest: false, mute: false, bounded: false, every: Some(every), adds: true }
    }

    /// Read from what comes after the first start of the job.
    #[must_use]
    pub fn latest(self) -> Self {
        Self { latest: true, ..self }
    }

    /// Its readers do not say where partitions begin.
    #[must_use]
    pub fn mute(self) -> Self {
        Self { mute: true, ..self }
    }

    /// There are no new partitions.
    #[must_use]
    pub fn fixed(self) -> Self {
        Self { every: None, adds: false, ..self }
    }

    /// There are new partitions, and nobody looks for them while a job runs.
    #[must_use]
    pub fn unwatched(self) -> Self {
        Self { every: None, bounded: false, adds: true, ..self }
    }

    /// Read up to where it ends at the first start of the job.
    #[must_use]
    pub fn bounded(self) -> Self {
        Self { bounded: true, every: None, adds: false, ..self }
    }

    /// Adds a batch to a partition.
    pub fn push(&self, partition: usize, batch: RecordBatch) {
        self.log.change(|partitions| partitions[partition].batches.push(batch));
    }

    /// Adds a partition, and says which it is.
    pub fn add(&self) -> usize {
        self.log.change(|partitions| partitions.push(Partition::default()));
        self.partitions() - 1
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> usize {
        self.log.lock().len()
    }

    /// The broker of this partition is away, or back: its records are known of, and cannot be read.
    pub fn away(&self, partition: usize, away: bool) {
        self.log.change(|partitions| partitions[partition].away = away);
    }

    /// Nobody leads this partition, and new readers put it off; or somebody does again.
    pub fn leaderless(&self, partition: usize, leaderless: bool) {
        self.log.change(|partitions| partitions[partition].leaderless = leaderless);
    }

    /// The leader of this partition does not answer new readers, which then put it off; or it does again.
    pub fn hangs(&self, partition: usize, hangs: bool) {
        self.log.change(|partitions| partitions[partition].hangs = hangs);
    }

    /// No more will come for this partition.
    pub fn end(&self, partition: usize) {
        self.log.change(|partitions| partitions[partition].ended = true);
    }

    /// No more will come.
    pub fn end_all(&self) {
        self.log.change(|partitions| partitions.iter_mut().for_each(|partition| partition.ended = true));
    }

    /// What becomes of readers that are to read a new partition from now on.
    pub fn adding(&self, mood: Mood) {
        *self.log.adding.lock().unwrap_or_else(PoisonError::into_inner) = mood;
        self.log.changed.notify_waiters();
    }

    /// What becomes of questions for the partitions from now on.
    pub fn mood(&self, mood: Mood) {
        *self.log.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
        self.log.changed.notify_waiters();
    }
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Vec<Partition>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Partition>)) {
        change(&mut self.lock());
        self.changed.notify_waiters();
    }
}

impl Log {
    /// Whether somebody says where a partition begins.
    fn answers(&self, partition: usize) -> bool {
        let of = &self.lock()[partition];
        !of.leaderless && !of.hangs
    }
}

fn in_a_bad_mood() -> ConnectorError {
    ConnectorError::Remote { system: "the broker".into(), reason: "it is in a bad mood".into(), passes: true }
}

fn id(partition: usize) -> SplitId {
    SplitId::new(format!("p{partition}"))
}

fn number(split: &SplitId) -> Outcome<usize> {
    let number = split.as_str().strip_prefix('p').and_then(|number| number.parse().ok());
    number.ok_or_else(|| ConnectorError::Config(format!("there is no partition {split}")))
}

#[async_trait]
impl Source for Topic {
    fn name(&self) -> String {
        "topic".into()
    }

    fn schema(&self) -> Outcome<SchemaRef> {
        Ok(self.log.schema.clone())
    }

    async fn splits(&self) -> Outcome<Vec<SplitId>> {
        loop {
            let changed = self.log.changed.notified();
            let mood = *self.log.mood.lock().unwrap_or_else(PoisonError::into_inner);
            match mood {
                Mood::Well => return Ok((0..self.partitions()).map(id).collect()),
                Mood::AllBut(one) => return Ok((0..self.partitions()).filter(|other| *other != one).map(id).collect()),
                Mood::Lists(partitions) => return Ok((0..partitions).map(id).collect()),
                Mood::Fails => return Err(in_a_bad_mood()),
                Mood::Hangs => changed.await,
            }
        }
    }

    async fn reader(&self, assigned: Vec<(SplitId, Option<Position>)>) -> Outcome<Box<dyn SourceReader>> {
        self.reader_until(assigned, Vec::new()).await
    }

    async fn reader_until(
        &self,
        assigned: Vec<(SplitId, Option<Position>)>,
        ends: Vec<(SplitId, Position)>,
    ) -> Outcome<Box<dyn SourceReader>> {
        let (mut cursors, mut put_off) = (Vec::new(), Vec::new());
        for (split, position) in assigned {
            let partition = number(&split)?;
            let end = ends.iter().find(|(other, _)| *other == split).map(|(_, end)| end.0 as usize);
            let later = Later { split, partition, position: position.map(|position| position.0 as usize), end };
            let hangs = self.log.lock()[partition].hangs;
            if hangs {
                tokio::time::sleep(PATIENCE).await;
            }
            match self.log.answers(partition) {
                false => put_off.push(later),
                true => cursors.push(later.begin(&self.log, self.latest, self.bounded)),
            }
        }
        let (log, waits) = (self.log.clone(), cursors.is_empty() && self.every.is_some());
        let Self { mute, latest, bounded, .. } = *self;
        Ok(Box::new(TopicReader { log, mute, latest, bounded, waits, cursors, put_off, turn: 0 }))
    }

    fn discover_every(&self) -> Option<Duration> {
        self.every
    }

    fn adds_splits(&self) -> bool {
        self.adds
    }
}

impl TypedSource for Topic {
    type Row = Untyped;
}

/// What is to be read when it can be.
struct Later {
    split: SplitId,
    partition: usize,
    position: Option<usize>,
    end: Option<usize>,
}

impl Later {
    /// Decides where it begins and ends.
    fn begin(self, log: &Log, latest: bool, bounded: bool) -> Cursor {
        let Self { split, partition, position, end } = self;
        let last = log.lock()[partition].batches.len();
        let next = position.unwrap_or(if latest { last } else { 0 });
        let end = bounded.then(|| end.unwrap_or(last));
        Cursor { split, partition, next, end, paused: false }
    }
}

struct Cursor {
    split: SplitId,
    partition: usize,
    next: usize,
    end: Option<usize>,
    paused: bool,
}

struct TopicReader {
    log: Arc<Log>,
    cursors: Vec<Cursor>,
    put_off: Vec<Later>,
    turn: usize,
    /// It has never had a partition, so it cannot have come to their end.
    waits: bool,
    mute: bool,
    latest: bool,
    bounded: bool,
}

#[async_trait]
impl SourceReader for TopicReader {
    async fn fetch(&mut self) -> Outcome<Fetch> {
        let log = self.log.clone();
        loop {
            let changed = log.changed.notified();
            if let Some(fetch) = self.ready() {
                return Ok(fetch);
            }
            changed.await;
        }
    }

    fn positions(&self) -> Vec<(SplitId, Position)> {
        let cursors = self.cursors.iter().filter(|_| !self.mute);
        cursors.map(|cursor| (cursor.split.clone(), Position(cursor.next as u64))).collect()
    }

    fn ends(&self) -> Vec<(SplitId, Position)> {
        let end = |cursor: &Cursor| Some((cursor.split.clone(), Position(cursor.end? as u64)));
        self.cursors.iter().filter_map(end).collect()
    }

    fn put_off(&self) -> Vec<PutOff> {
        let put_off = |later: &Later| PutOff {
            split: later.split.clone(),
            reason: in_a_bad_mood().to_string(),
            behind: later.position.is_some() || !self.latest,
            unanswered: self.log.lock()[later.partition].hangs,
        };
        self.put_off.iter().map(put_off).collect()
    }

    async fn add(&mut self, splits: Vec<SplitId>) -> Outcome<()> {
        let mood = loop {
            let changed = self.log.changed.notified();
            match *self.log.adding.lock().unwrap_or_else(PoisonError::into_inner) {
                Mood::Hangs => {}
                mood => break mood,
            }
            changed.await;
        };
        for split in splits {
            let partition = number(&split)?;
            let former = self.put_off.iter().position(|later| later.split == split);
            let later = former.map(|former| self.put_off.remove(former));
            let later = later.unwrap_or(Later { split, partition, position: Some(0), end: None });
            if mood == Mood::Fails || mood == Mood::AllBut(partition) || !self.log.answers(partition) {
                self.put_off.push(later);
                continue;
            }
            self.waits = false;
            self.cursors.push(later.begin(&self.log, self.latest, self.bounded));
        }
        Ok(())
    }

    fn lag(&self) -> Vec<(SplitId, u64)> {
        let partitions = self.log.lock();
        let rows = |cursor: &Cursor| {
            let waiting = &partitions[cursor.partition].batches[cursor.next..];
            (cursor.split.clone(), waiting.iter().map(RecordBatch::num_rows).sum::<usize>() as u64)
        };
        self.cursors.iter().map(rows).collect()
    }

    fn pause(&mut self, splits: &[SplitId]) -> bool {
        self.cursors.iter_mut().for_each(|cursor| cursor.paused = splits.contains(&cursor.split));
        true
    }
}

impl TopicReader {
    fn ready(&mut self) -> Option<Fetch> {
        let count = self.cursors.len();
        let partitions = self.log.lock();
        if count == 0 && !self.put_off.is_empty() {
            return None;
        }
        if count == 0 {
            let all_ended = !partitions.is_empty() && partitions.iter().all(|partition| partition.ended);
            return (!self.waits || all_ended).then_some(Fetch::End);
        }
        for index in (self.turn..self.turn + count).map(|turn| turn % count) {
            let cursor = &mut self.cursors[index];
            let partition = &partitions[cursor.partition];
            let batch = partition.batches.get(cursor.next).filter(|_| cursor.end.is_none_or(|end| cursor.next < end));
            let ended = partition.ended || cursor.end.is_some_and(|end| cursor.next >= end);
            match batch {
                Some(_) if cursor.paused || partition.away => {}
                Some(batch) => {
                    cursor.next += 1;
                    self.turn = index + 1;
                    let (split, next) = (cursor.split.clone(), Position(cursor.next as u64));
                    return Some(Fetch::Rows(Rows {
                        split,
                        batch: batch.clone(),
                        rejected: Vec::new(),
                        passed_over: 0,
                        next,
                        origins: None,
                    }));
                }
                None if ended => return Some(Fetch::SplitEnd(self.cursors.remove(index).split)),
                None => {}
            }
        }
        None
    }
}
