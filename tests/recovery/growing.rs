//! Splits that appear around a crash, a stop, a change of parallelism, and "from now on" that means the same record in every
//! life. D21 to D24 are bugs that others had; see the list of known bugs. On a clock that stands still unless everything waits.

use std::time::Duration;

use tests::{
    rows,
    topic::{Mood, Topic, batch, right},
};
use windrow::{Error, Faults, JobHandle, Restarts, RunningJob, prelude::*};

use super::lives::{balanced, place, start};

const EVERY: Duration = Duration::from_millis(50);
const BOUND: i64 = 5;

/// What outlives a job.
struct Growing {
    directory: tempfile::TempDir,
    topic: Topic,
    out: MemorySink,
    /// How often there is a checkpoint.
    every: Duration,
    may_idle: bool,
    /// The rows that the job is to count.
    pushed: Vec<i64>,
}

impl Growing {
    fn new(partitions: usize) -> Self {
        Self {
            directory: place(),
            topic: Topic::new(batch(&[]).schema(), partitions, EVERY),
            out: MemorySink::new(),
            every: hours(100),
            may_idle: false,
            pushed: Vec::new(),
        }
    }

    fn latest(self) -> Self {
        Self { topic: self.topic.latest(), ..self }
    }

    fn job(&self, parallelism: usize) -> Job {
        let job = Job::new("growing").parallelism(parallelism).restarts(Restarts::never());
        let watermarks = Watermarks::out_of_order(secs(BOUND as u64));
        let watermarks = if self.may_idle { watermarks.idle_after(millis(120)) } else { watermarks };
        let rows = job.source(self.topic.clone()).event_time("at", watermarks);
        let windows = rows.key_by("n").window(Tumbling::of(secs(10)));
        let counts = windows.aggregate([count()]).drop_late();
        counts.select(["window_start", "n", "count"].map(col)).sink(self.out.clone());
        job.checkpoint(self.directory.path().to_str().unwrap(), self.every)
    }

    async fn start(&self, parallelism: usize) -> Result<RunningJob, String> {
        start(|| self.job(parallelism)).await.map_err(|error| error.to_string())
    }

    /// Starts it, and waits for the checkpoint that says where it begins.
    async fn begin(&self, parallelism: usize) -> Result<RunningJob, String> {
        let running = self.start(parallelism).await?;
        let begun = async {
            while completed(&running.handle()) == 0 {
                settle().await;
            }
        };
        tokio::time::timeout(hours(1), begun).await.map_err(|_| "there is no first checkpoint")?;
        Ok(running)
    }

    fn push(&mut self, partition: usize, seconds: &[i64]) {
        self.topic.push(partition, batch(seconds));
        self.pushed.extend(seconds);
    }

    /// Runs it to the end of its input.
    async fn finish(&self, parallelism: usize) -> Result<(), String> {
        let running = self.start(parallelism).await?;
        // What has appeared is found, and everything is read.
        found().await;
        self.topic.end_all();
        let report = tokio::time::timeout(hours(1), running.wait()).await.map_err(|_| "it hangs")?;
        let report = report.map_err(|error| error.to_string())?;
        balanced(&report)?;
        let late: u64 = report.metrics.operators.iter().map(|operator| operator.late).sum();
        let (found, right) = (rows(&self.out.batches()), right(&self.pushed));
        match late == 0 && found == right {
            true => Ok(()),
            false => Err(format!("{late} rows late; {found:?} instead of {right:?}")),
        }
    }

    async fn lives(mut self, random: &mut fastrand::Rng) -> Result<(), String> {
        let mut now = 0;
        let mut running = self.begin(random.usize(1..5)).await?;
        for life in 0..4 {
            // A life may end before the first row.
            let steps = if random.bool() { 0 } else { random.usize(0..30) };
            for _ in 0..steps {
                now += 1;
                let is_new = random.u8(0..6) == 0;
                let into = if is_new { self.topic.add() } else { random.usize(0..self.topic.partitions()) };
                let seconds: Vec<i64> = (0..random.usize(1..4)).map(|_| now + random.i64(0..=BOUND)).collect();
                self.push(into, &seconds);
                settle().await;
                if is_new {
                    // Before the watermark passes its rows.
                    found().await;
                }
            }
            let handle = running.handle();
            match random.u8(0..4) {
                0 => drop(handle.savepoint(format!("life-{life}")).await.map_err(|error| error.to_string())?),
                1 => {
                    handle.stop();
                    running.wait().await.map_err(|error| error.to_string())?;
                    running = self.pause(&mut now, random).await?;
                    continue;
                }
                _ => tokio::time::sleep(millis(random.u64(0..150))).await,
            }
            drop(running);
            running = self.pause(&mut now, random).await?;
        }
        drop(running);
        self.finish(random.usize(1..5)).await
    }

    /// Partitions appear, and rows, while nothing runs.
    async fn pause(&mut self, now: &mut i64, random: &mut fastrand::Rng) -> Result<RunningJob, String> {
        for _ in 0..random.usize(1..4) {
            *now += 1;
            let into = if random.bool() { self.topic.add() } else { random.usize(0..self.topic.partitions()) };
            self.push(into, &[*now]);
        }
        self.start(random.usize(1..5)).await
    }
}

fn completed(job: &JobHandle) -> u64 {
    job.metrics().checkpoints.completed
}

fn read(job: &JobHandle) -> u64 {
    job.metrics().named("source").map(|source| source.rows_in).sum()
}

async fn settle() {
    tokio::time::sleep(millis(1)).await;
}

/// Waits until a question for new splits has been answered, and what was found is read.
async fn found() {
    tokio::time::sleep(2 * EVERY).await;
}

/// One job of many lives, drawn from a seed.
pub fn run(seed: u64, faults: Faults) -> Result<(), String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut growing = Growing::new(random.usize(1..4));
    if random.bool() {
        (0..growing.topic.partitions()).for_each(|partition| growing.topic.push(partition, batch(&[1, 2, 3])));
        growing = growing.latest();
    }
    growing.every = millis(random.u64(10..200));
    growing.may_idle = random.bool();
    on_a_still_clock(faults.during(growing.lives(&mut random)))
}

fn on_a_still_clock<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(future)
}

#[test]
fn splits_that_appear_are_counted_once_in_whichever_life() {
    for seed in 0..120 {
        run(seed, Faults::default()).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    }
}

#[tokio::test(start_paused = true)]
async fn d21_latest_is_a_number_before_the_first_row_and_stays_that_over_a_crash() {
    for parallelism in [1, 3] {
        let mut growing = Growing::new(3).latest();
        (0..3).for_each(|partition| growing.topic.push(partition, batch(&[1, 2])));
        let running = growing.begin(1).await.unwrap();
        assert_eq!(read(&running.handle()), 0);
        drop(running);
        // While it is down: "now" was before.
        growing.push(0, &[3]);
        growing.push(2, &[4]);
        growing.finish(parallelism).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn d22_what_comes_between_the_start_and_the_first_fetch_is_read() {
    let mut growing = Growing::new(2).latest();
    growing.topic.push(1, batch(&[1]));
    let running = growing.start(2).await.unwrap();
    // No task has run yet.
    growing.push(1, &[2]);
    found().await;
    assert_eq!(read(&running.handle()), 1);
    drop(running);
    growing.finish(1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn d23_a_partition_that_is_silent_at_a_checkpoint_goes_on_from_where_it_was() {
    for (before, after) in [(1, 2), (2, 1), (3, 3)] {
        let mut growing = Growing::new(3).latest();
        (0..3).for_each(|partition| growing.topic.push(partition, batch(&[1])));
        let running = growing.begin(before).await.unwrap();
        growing.push(0, &[2]);
        settle().await;
        running.handle().savepoint("silent").await.unwrap();
        drop(running);
        let running = growing.start(after).await.unwrap();
        running.handle().savepoint("silent-still").await.unwrap();
        drop(running);
        growing.push(1, &[3]);
        growing.finish(before).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn d24_only_what_is_new_is_read_from_its_first_record() {
    for (before, after) in [(1, 2), (2, 1), (3, 3)] {
        let mut growing = Growing::new(2).latest();
        (0..2).for_each(|partition| growing.topic.push(partition, batch(&[1])));
        let running = growing.begin(before).await.unwrap();
        // One appears while it runs and is empty at the checkpoint, one while it is down.
        let first = growing.topic.add();
        found().await;
        running.handle().savepoint("with-it").await.unwrap();
        drop(running);
        let second = growing.topic.add();
        growing.push(first, &[2]);
        growing.push(second, &[3, 4]);
        // They are not in a checkpoint of this life either, and yet they are new in the next.
        drop(growing.start(after).await.unwrap());
        growing.push(second, &[5]);
        growing.finish(before).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_split_that_nobody_knows_the_beginning_of_is_new_in_the_next_life_too() {
    let mut growing = Growing::new(1).latest();
    growing.topic = growing.topic.clone().mute();
    let running = growing.begin(1).await.unwrap();
    let new = growing.topic.add();
    found().await;
    running.handle().savepoint("without-it").await.unwrap();
    drop(running);
    growing.push(new, &[1, 2]);
    growing.finish(2).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_new_to_the_checkpoint_begins_once() {
    let (mut growing, other) = (Growing::new(1), Topic::new(batch(&[]).schema(), 1, EVERY).latest());
    let running = growing.begin(1).await.unwrap();
    growing.push(0, &[1]);
    found().await;
    running.handle().stop_with_savepoint("first").await.unwrap();
    running.wait().await.unwrap();
    let seen = MemorySink::new();
    let both = || {
        let job = growing.job(1);
        job.source(other.clone()).sink(seen.clone());
        job
    };
    other.push(0, batch(&[7]));
    let running = start(both).await.unwrap();
    found().await;
    assert_eq!(completed(&running.handle()), 1, "it says where the new source begins");
    other.push(0, batch(&[8]));
    found().await;
    drop(running);
    let running = start(both).await.unwrap();
    found().await;
    assert_eq!(completed(&running.handle()), 0, "nothing is new any more");
    other.end_all();
    growing.topic.end_all();
    running.wait().await.unwrap();
    assert_eq!(tests::rows(&seen.batches()).len(), 1, "what came after the first start with it");
    assert_eq!(rows(&growing.out.batches()), right(&growing.pushed));
}

#[tokio::test(start_paused = true)]
async fn a_split_that_was_found_and_has_vanished_is_refused_unless_it_had_ended() {
    let mut growing = Growing::new(1);
    let running = growing.begin(1).await.unwrap();
    let new = growing.topic.add();
    growing.push(new, &[1]);
    found().await;
    running.handle().savepoint("found").await.unwrap();
    drop(running);
    growing.topic.mood(Mood::Lists(1));
    let refused = start(|| growing.job(1)).await.err();
    let Some(Error::Misfit { reasons, .. }) = refused else { panic!("{refused:?}") };
    assert!(reasons.len() == 1 && reasons[0].contains("p1 was read up to position 1"), "{reasons:?}");

    growing.topic.mood(Mood::Well);
    growing.topic.end(new);
    let running = growing.start(1).await.unwrap();
    found().await;
    running.handle().savepoint("ended").await.unwrap();
    drop(running);
    growing.topic.mood(Mood::Lists(1));
    let running = growing.start(1).await.unwrap();
    found().await;
    growing.topic.mood(Mood::Well);
    found().await;
    assert_eq!(read(&running.handle()), 0, "it is back, and has been read");
    drop(running);
    growing.finish(2).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_source_that_does_not_look_for_splits_begins_new_ones_where_it_is_told_to() {
    let mut growing = Growing::new(1).latest();
    growing.topic = growing.topic.clone().fixed();
    let running = growing.begin(1).await.unwrap();
    growing.push(0, &[1]);
    let new = growing.topic.add();
    growing.topic.push(new, batch(&[2]));
    found().await;
    assert_eq!(read(&running.handle()), 1);
    drop(running);
    // And that is written down as well.
    drop(growing.begin(2).await.unwrap());
    growing.push(new, &[3]);
    growing.finish(1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_appeared_while_nobody_looked_is_read_from_its_first_record() {
    for (before, after) in [(1, 1), (2, 3), (3, 1)] {
        let mut growing = Growing::new(1).latest();
        growing.topic = growing.topic.clone().unwatched();
        growing.topic.push(0, batch(&[1]));
        let running = growing.begin(before).await.unwrap();
        growing.push(0, &[2]);
        let (first, second) = (growing.topic.add(), growing.topic.add());
        growing.push(first, &[3, 4]);
        growing.push(second, &[5]);
        found().await;
        assert_eq!(read(&running.handle()), 1, "nobody looks");
        drop(running);
        // In the first life that has them, and in the next.
        drop(growing.begin(after).await.unwrap());
        growing.push(second, &[6]);
        growing.finish(before).await.unwrap();
    }
}
