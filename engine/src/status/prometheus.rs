//! A [`JobStatus`] as Prometheus reads it: the text of OpenMetrics.
//!
//! ```text
//!   JobStatus ──► families: a name, a help, a unit, and the samples ──► prometheus-client ──► windrow_…{job_name="…",…} 5
//! ```
//!
//! Names stay; they are listed in `docs/src/operating.md`, and a test compares the two. What is counted for each task is not given for
//! the operator once more: `sum by (operator)` does that. A label has as many values as the job has operators, tasks and edges; of
//! splits, of which there may be any number, [`SPLITS`] of a source are given, and the one more that holds event time back.

use prometheus_client::{
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::{Registry, Unit},
    {collector::Collector, metrics::MetricType::*},
};

use super::{
    EdgeStatus, Exchange, Histogram, JobStatus, OperatorKind, OperatorStatus, SplitState, SplitStatus, State,
    TaskStatus, explain::END,
};

/// What [`prometheus`] returns, as the `Content-Type` of an answer.
pub const PROMETHEUS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Of so many splits of a source there are series: the first by name, so that series stay.
const SPLITS: usize = 100;

/// A job as Prometheus reads it: the text of OpenMetrics, with `# EOF` at its end, of the type [`PROMETHEUS_CONTENT_TYPE`]. The metrics
/// are listed in the chapter `docs/src/operating.md` of the book, with alerts to set.
///
/// ```
/// use windrow::{prelude::*, status::prometheus};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> windrow::Result<()> {
/// let job = Job::new("numbers");
/// job.source(Sequence::new(1_000)).sink(MemorySink::new());
/// let running = job.start().await?;
/// let handle = running.handle();
/// running.wait().await?;
///
/// let text = prometheus(&handle.status());
/// assert!(text.contains(r##"windrow_task_rows_out_total{job_name="numbers",operator="#1 source sequence",task="0"} 1000"##), "{text}");
/// # Ok(())
/// # }
/// ```
pub fn prometheus(status: &JobStatus) -> String {
    let mut page = Page { status, families: Vec::new() };
    page.job();
    page.operators();
    page.tasks();
    page.splits();
    page.edges();
    page.checkpoints();
    // Prometheus calls what it scrapes `job`.
    let labels = [("job_name".into(), status.job.clone().into())];
    let mut registry = Registry::with_prefix_and_labels("windrow", labels.into_iter());
    registry.register_collector(Box::new(Families(page.families)));
    let mut page = String::new();
    // Nothing fails that is written to a string.
    let _ = text::encode(&mut page, &registry);
    page
}

type Labels = Vec<(&'static str, String)>;

/// Of an operator and of its tasks.
const RECEIVED: &str = "Bytes of rows from other tasks; of a source those read, as they lie in memory";

/// A name, a unit, a help, and what an operator has counted.
type Counted = (&'static str, Option<Unit>, &'static str, fn(&OperatorStatus) -> Option<u64>);

#[derive(Debug)]
struct Families(Vec<Family>);

#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    kind: MetricType,
    samples: Vec<(Labels, Value)>,
}

#[derive(Clone, Debug)]
enum Value {
    Whole(u64),
    Real(f64),
    Spread(Histogram),
}

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for Family { name, help, unit, kind, samples } in &self.0 {
            let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), *kind)?;
            for (labels, value) in samples {
                match kind {
                    Info => family.encode_info(labels)?,
                    kind => value.encode(*kind, family.encode_family(labels)?)?,
                }
            }
        }
        Ok(())
    }
}

impl Value {
    fn encode(&self, kind: MetricType, mut to: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        match (kind, self) {
            (Counter, Self::Whole(value)) => to.encode_counter::<NoLabelSet, _, u64>(value, None),
            (Counter, Self::Real(value)) => to.encode_counter::<NoLabelSet, _, f64>(value, None),
            (_, Self::Whole(value)) => to.encode_gauge(value),
            (_, Self::Real(value)) => to.encode_gauge(value),
            (_, Self::Spread(times)) => {
                to.encode_histogram::<NoLabelSet>(seconds(times.sum_us), times.count, &buckets(times), None)
            }
        }
    }
}

/// One, two and five of each power of ten: the bounds of a histogram must always be the same.
fn buckets(times: &Histogram) -> Vec<(f64, u64)> {
    let bounds = (1..11).flat_map(|power| [1, 2, 5].map(|step| step * 10_u64.pow(power)));
    let mut below = 0;
    let mut buckets: Vec<(f64, u64)> = bounds
        .chain([10_u64.pow(11)])
        .map(|bound| {
            let within = |bucket: &&super::Bucket| below < bucket.le_us && bucket.le_us <= bound;
            let count = times.buckets.iter().filter(within).map(|bucket| bucket.count).sum();
            below = bound;
            (seconds(bound), count)
        })
        .collect();
    let counted: u64 = buckets.iter().map(|(_, count)| count).sum();
    buckets.push((f64::INFINITY, times.count.saturating_sub(counted)));
    buckets
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

fn of_millis(millis: u64) -> Value {
    Value::Real(millis as f64 / 1e3)
}

fn flag(is: bool) -> Value {
    Value::Whole(u64::from(is))
}

/// An instant of event time, unless it is the end.
fn instant(micros: Option<i64>) -> Option<Value> {
    micros.filter(|micros| *micros != END).map(|micros| Value::Real(micros as f64 / 1e6))
}

struct Page<'a> {
    status: &'a JobStatus,
    families: Vec<Family>,
}

impl<'a> Page<'a> {
    fn add(
        &mut self,
        kind: MetricType,
        name: &'static str,
        unit: Option<Unit>,
        help: &'static str,
        samples: Vec<(Labels, Value)>,
    ) {
        self.families.push(Family { name, help, unit, kind, samples });
    }

    /// How far behind the wall an instant of event time is, unless it is the end.
    fn behind(&self, micros: Option<i64>) -> Option<Value> {
        let micros = micros.filter(|micros| *micros != END)?;
        Some(Value::Real(self.status.now_ms as f64 / 1e3 - micros as f64 / 1e6))
    }

    fn job(&mut self) {
        let status = self.status;
        let one = |value: Value| vec![(Labels::new(), value)];
        let maybe = |value: Option<Value>| value.map(one).unwrap_or_default();
        let version = vec![("version", status.version.clone())];
        self.add(Info, "job", None, "What runs it", vec![(version, Value::Whole(1))]);
        let up = !matches!(status.state, State::Ended | State::Restarting);
        self.add(
            Gauge,
            "up",
            None,
            "Whether it is at work: 0 between a failure and the restart, and after the end",
            one(flag(up)),
        );
        let states = [
            (State::Running, "running"),
            (State::Stopping, "stopping"),
            (State::Restarting, "restarting"),
            (State::Ended, "ended"),
        ];
        let states = states.map(|(state, name)| (vec![("state", name.to_owned())], flag(state == status.state)));
        self.add(Gauge, "state", None, "1 for the state that it is in, 0 for the others", states.into());
        self.add(
            Gauge,
            "started_timestamp",
            Some(Unit::Seconds),
            "When it was started",
            one(of_millis(status.started_ms)),
        );
        self.add(
            Gauge,
            "elapsed",
            Some(Unit::Seconds),
            "How long it has been running",
            one(of_millis(status.elapsed_ms)),
        );
        self.add(Counter, "restarts", None, "Restarts after a failure", one(Value::Whole(u64::from(status.restarts))));
        let failed = status.last_failure.as_ref().map(|failure| of_millis(failure.at_ms));
        self.add(Gauge, "last_failure_timestamp", Some(Unit::Seconds), "When it failed last", maybe(failed));
        self.add(Gauge, "parallelism", None, "Tasks of a keyed operator", one(Value::Whole(status.parallelism as u64)));
        self.add(
            Gauge,
            "warnings",
            None,
            "Sentences for a person to read",
            one(Value::Whole(status.warnings.len() as u64)),
        );
        let memory = status.memory;
        let bytes = |value: Option<u64>| maybe(value.map(Value::Whole));
        let (budget, held) = (memory.map(|memory| memory.budget_bytes), memory.map(|memory| memory.held_bytes));
        self.add(Gauge, "memory_budget", Some(Unit::Bytes), "State that may be in memory", bytes(budget));
        self.add(Gauge, "memory_held", Some(Unit::Bytes), "State that is in memory, with a budget", bytes(held));
    }

    fn of_operators(&self, value: impl Fn(&'a OperatorStatus) -> Option<Value>) -> Vec<(Labels, Value)> {
        let sample = |own: &'a OperatorStatus| Some((vec![("operator", own.name.clone())], value(own)?));
        self.status.operators.iter().filter_map(sample).collect()
    }

    fn operators(&mut self) {
        let info = self.status.operators.iter().map(|own| {
            let labels = vec![
                ("operator", own.name.clone()),
                ("id", own.id.clone().unwrap_or_default()),
                ("kind", snake(&own.kind)),
                ("chain", own.chain.to_string()),
            ];
            (labels, Value::Whole(1))
        });
        self.add(
            Info,
            "operator",
            None,
            "Its id in checkpoints, what it is, and with whom it shares tasks",
            info.collect(),
        );
        let counters: [Counted; 10] = [
            ("operator_received", Some(Unit::Bytes), RECEIVED, |own| own.bytes_in),
            ("operator_sent", Some(Unit::Bytes), "Bytes of rows that left for other tasks", |own| own.bytes_out),
            ("operator_processed_rows", None, "Rows that were processed", |own| Some(own.processed)),
            ("operator_late_rows", None, "Rows that came too late", |own| Some(own.late)),
            ("operator_rejected_rows", None, "Records that did not decode or had no event time", |own| {
                Some(own.rejected)
            }),
            ("operator_future_rows", None, "Rows too far in the future to move the watermark", |own| Some(own.future)),
            ("operator_failed_rows", None, "Rows whose call failed", |own| Some(own.failed)),
            ("operator_retries", None, "Attempts after the first of calls", |own| Some(own.retries)),
            ("operator_spilled", Some(Unit::Bytes), "State put on disk", |own| Some(own.spilled_bytes)),
            ("operator_spilled_segments", None, "Segments of state put on disk", |own| Some(own.spilled_segments)),
        ];
        for (name, unit, help, value) in counters {
            let samples = self.of_operators(|own| value(own).map(Value::Whole));
            self.add(Counter, name, unit, help, samples);
        }
        let samples = self.of_operators(|own| Some(Value::Whole(own.in_flight)));
        self.add(Gauge, "operator_in_flight_rows", None, "Rows that wait for the answer to a call", samples);
        let samples = self.of_operators(|own| instant(own.watermark_us));
        self.add(Gauge, "operator_watermark_timestamp", Some(Unit::Seconds), "Its watermark, over all tasks", samples);
        let samples = self.of_operators(|own| self.behind(own.watermark_us));
        self.add(Gauge, "operator_watermark_lag", Some(Unit::Seconds), "The wall clock less its watermark", samples);
        let samples = self.of_operators(|own| own.lag.map(Value::Whole));
        self.add(Gauge, "operator_behind_records", None, "Records of a source that wait to be read", samples);
        let samples =
            self.of_operators(|own| (own.kind == OperatorKind::Source).then_some(Value::Whole(own.splits_left_out)));
        self.add(Gauge, "operator_splits_left_out", None, "Splits of a source that nothing is told of", samples);
        let samples = self.of_operators(|own| own.latency.clone().map(Value::Spread));
        let help = "Of each batch that a sink has written, the wall clock less its latest event time";
        self.add(Histogram, "operator_event_time_latency", Some(Unit::Seconds), help, samples);
        let samples = self.of_operators(|own| own.call_time.clone().map(Value::Spread));
        self.add(
            Histogram,
            "operator_call",
            Some(Unit::Seconds),
            "Of each call of an operator, how long it took",
            samples,
        );
    }

    fn of_tasks(&self, value: impl Fn(&'a TaskStatus) -> Option<Value>) -> Vec<(Labels, Value)> {
        self.of_tasks_that(|_| true, value)
    }

    /// Of the operators that are meant.
    fn of_tasks_that(
        &self,
        is_meant: impl Fn(usize) -> bool,
        value: impl Fn(&'a TaskStatus) -> Option<Value>,
    ) -> Vec<(Labels, Value)> {
        let mut samples = Vec::new();
        for (_, own) in self.status.operators.iter().enumerate().filter(|(operator, _)| is_meant(*operator)) {
            for (task, value) in own.tasks.iter().enumerate().filter_map(|(task, own)| Some((task, value(own)?))) {
                samples.push((vec![("operator", own.name.clone()), ("task", task.to_string())], value));
            }
        }
        samples
    }

    fn tasks(&mut self) {
        let status = self.status;
        let samples = self.of_tasks(|task| Some(Value::Whole(task.rows_in)));
        self.add(Counter, "task_rows_in", None, "Rows that came in; of a source records read", samples);
        let samples = self.of_tasks(|task| Some(Value::Whole(task.rows_out)));
        self.add(Counter, "task_rows_out", None, "Rows that left by the main output; of a sink rows written", samples);
        let samples = self.of_tasks(|task| task.bytes_in.map(Value::Whole));
        self.add(Counter, "task_received", Some(Unit::Bytes), RECEIVED, samples);
        let samples = self.of_tasks(|task| task.bytes_out.map(Value::Whole));
        self.add(Counter, "task_sent", Some(Unit::Bytes), "Bytes of rows that left for other tasks", samples);
        let samples = self.of_tasks(|task| Some(Value::Real(seconds(task.busy_us))));
        self.add(Counter, "task_busy", Some(Unit::Seconds), "Time at work", samples);
        let samples = self.of_tasks(|task| Some(Value::Real(seconds(task.blocked_us))));
        let help = "Time waiting for room downstream, of its chain";
        self.add(Counter, "task_blocked", Some(Unit::Seconds), help, samples);
        let samples = self.of_tasks(|task| instant(task.watermark_us));
        self.add(Gauge, "task_watermark_timestamp", Some(Unit::Seconds), "Its watermark", samples);
        let samples =
            self.of_tasks_that(|operator| !status.timed_sources(operator).is_empty(), |task| Some(flag(task.idle)));
        self.add(Gauge, "task_idle", None, "Whether nobody is to wait for its event time", samples);
        let samples = self.of_tasks(|task| Some(Value::Whole(task.state_bytes)));
        self.add(Gauge, "task_state", Some(Unit::Bytes), "State in memory", samples);
    }

    fn of_splits(&self, value: impl Fn(&'a SplitStatus) -> Option<(Labels, Value)>) -> Vec<(Labels, Value)> {
        self.of_splits_and(|_| false, value)
    }

    /// Also of the first that is `one_more`, wherever it is by name.
    fn of_splits_and(
        &self,
        one_more: impl Fn(&SplitStatus) -> bool,
        value: impl Fn(&'a SplitStatus) -> Option<(Labels, Value)>,
    ) -> Vec<(Labels, Value)> {
        let mut samples = Vec::new();
        for own in &self.status.operators {
            let mut active: Vec<_> = own.splits.iter().filter(|split| split.state != SplitState::Ended).collect();
            active.sort_by(|one, other| one.split.cmp(&other.split));
            let given = active.iter().take(SPLITS);
            // When one of those that are given is it, no other has to be.
            let found = active.iter().position(|split| one_more(split)).filter(|place| *place >= SPLITS);
            let given = given.chain(found.and_then(|place| active.get(place)));
            for (split, (more, value)) in given.filter_map(|split| Some((split, value(split)?))) {
                let mut labels = vec![("operator", own.name.clone()), ("split", split.split.clone())];
                labels.extend(more);
                samples.push((labels, value));
            }
        }
        samples
    }

    fn splits(&mut self) {
        let only = |value: Option<Value>| value.map(|value| (Labels::new(), value));
        let samples = self.of_splits(|split| {
            let labels = vec![("task", split.task.to_string()), ("state", snake(&split.state))];
            Some((labels, Value::Whole(1)))
        });
        self.add(Gauge, "split_state", None, "1, with the state that it is in and the task that reads it", samples);
        let samples = self.of_splits(|split| only(Some(Value::Whole(split.rows))));
        self.add(Counter, "split_rows", None, "Records read, decoded or not", samples);
        let samples = self.of_splits(|split| only(Some(Value::Whole(split.bytes))));
        self.add(Counter, "split_read", Some(Unit::Bytes), "Bytes of the records read", samples);
        let samples = self.of_splits(|split| only(split.position.map(Value::Whole)));
        self.add(Gauge, "split_position", None, "Where it is read next: an offset, a byte, a count", samples);
        let samples = self.of_splits(|split| only(split.lag.map(Value::Whole)));
        self.add(Gauge, "split_behind_records", None, "Records that wait to be read", samples);
        let samples = self.of_splits(|split| only(instant(split.watermark_us)));
        self.add(Gauge, "split_watermark_timestamp", Some(Unit::Seconds), "Its watermark", samples);
        let samples = self.of_splits_and(|split| split.holds_back, |split| only(self.behind(split.watermark_us)));
        self.add(Gauge, "split_watermark_lag", Some(Unit::Seconds), "The wall clock less its watermark", samples);
        let samples = self.of_splits_and(|split| split.holds_back, |split| only(Some(flag(split.holds_back))));
        self.add(Gauge, "split_holds_back", None, "Whether the event time of its source waits for it", samples);
    }

    fn of_edges(&self, value: impl Fn(&'a EdgeStatus) -> Value) -> Vec<(Labels, Value)> {
        let name =
            |operator: usize| self.status.operators.get(operator).map(|own| own.name.clone()).unwrap_or_default();
        let sample = |(index, edge): (usize, &'a EdgeStatus)| {
            let labels = vec![
                // Two edges may lead from one operator to another.
                ("edge", index.to_string()),
                ("from", name(edge.from)),
                ("to", name(edge.to)),
                ("output", edge.label.clone()),
            ];
            (labels, value(edge))
        };
        let channels = self.status.edges.iter().enumerate().filter(|(_, edge)| edge.exchange != Exchange::Chained);
        channels.map(sample).collect()
    }

    fn edges(&mut self) {
        let samples = self.of_edges(|edge| Value::Whole(edge.rows));
        self.add(Counter, "edge_rows", None, "Rows that have gone this way", samples);
        let samples = self.of_edges(|edge| Value::Whole(edge.bytes));
        self.add(Counter, "edge_sent", Some(Unit::Bytes), "Bytes that have gone this way", samples);
        let samples = self.of_edges(|edge| Value::Whole(edge.queued_bytes));
        self.add(Gauge, "edge_queued", Some(Unit::Bytes), "Bytes that wait in its channels", samples);
        let samples = self.of_edges(|edge| Value::Whole(edge.capacity_bytes));
        self.add(Gauge, "edge_capacity", Some(Unit::Bytes), "Bytes that may wait in its channels", samples);
        let samples = self.of_edges(|edge| Value::Real(seconds(edge.blocked_us)));
        self.add(Counter, "edge_blocked", Some(Unit::Seconds), "Time that its senders have waited for room", samples);
    }

    fn checkpoints(&mut self) {
        let status = self.status;
        let own = &status.checkpoints;
        let has = own.every_ms.is_some();
        let maybe = |value: Option<Value>| value.map(|value| vec![(Labels::new(), value)]).unwrap_or_default();
        let count = |value: u64| maybe(Some(Value::Whole(value)).filter(|_| has));
        let ago = |since_ms: u64| of_millis(status.now_ms.saturating_sub(since_ms));
        self.add(Counter, "checkpoints_completed", None, "Checkpoints that are complete", count(own.completed));
        let help = "How many times old checkpoints could not be removed";
        self.add(Counter, "checkpoints_not_collected", None, help, count(own.not_collected));
        let every = own.every_ms.map(of_millis);
        self.add(
            Gauge,
            "checkpoint_interval",
            Some(Unit::Seconds),
            "How often one is taken, when rows move",
            maybe(every),
        );
        let is_over = status.state == State::Ended;
        let due = own.held_until_ms.map(ago).filter(|_| !is_over);
        let help = "For how long there may have been rows that no checkpoint holds";
        self.add(Gauge, "checkpoint_due", Some(Unit::Seconds), help, maybe(due));
        let last = own.last.first();
        let at = |value: Option<Value>| maybe(value);
        let done = last.map(|last| last.began_ms + last.took_ms);
        self.add(
            Gauge,
            "checkpoint_epoch",
            None,
            "The number of the newest",
            at(last.map(|last| Value::Whole(last.epoch))),
        );
        self.add(
            Gauge,
            "checkpoint_timestamp",
            Some(Unit::Seconds),
            "When the newest was complete",
            at(done.map(of_millis)),
        );
        self.add(
            Gauge,
            "checkpoint_age",
            Some(Unit::Seconds),
            "How long ago the newest was complete",
            at(done.map(ago)),
        );
        let took = last.map(|last| of_millis(last.took_ms));
        self.add(Gauge, "checkpoint_duration", Some(Unit::Seconds), "How long the newest took", at(took));
        let answered = last.map(|last| of_millis(last.answered_ms));
        let help = "How long it took until every task had answered, of the newest";
        self.add(Gauge, "checkpoint_answered", Some(Unit::Seconds), help, at(answered));
        let written = last.map(|last| Value::Whole(last.bytes));
        self.add(Gauge, "checkpoint_written", Some(Unit::Bytes), "State written for the newest", at(written));
        let segments = last.map(|last| Value::Whole(last.segments));
        self.add(Gauge, "checkpoint_written_segments", None, "Segments written for the newest", at(segments));
        let total = last.map(|last| Value::Whole(last.total_bytes));
        self.add(Gauge, "checkpoint_state", Some(Unit::Bytes), "State that a restart from the newest reads", at(total));
        let segments = last.map(|last| Value::Whole(last.total_segments));
        self.add(
            Gauge,
            "checkpoint_state_segments",
            None,
            "Segments that a restart from the newest reads",
            at(segments),
        );
        let going = own.underway.as_ref();
        let since = going.map_or_else(|| Value::Real(0.0), |going| ago(going.since_ms));
        let help = "How long the one that is under way has been; 0 without one";
        self.add(Gauge, "checkpoint_underway", Some(Unit::Seconds), help, maybe(Some(since).filter(|_| has)));
        let missing = going.map_or(0, |going| going.missing.len() as u64);
        self.add(Gauge, "checkpoint_underway_missing_tasks", None, "Tasks that have not answered it", count(missing));
    }
}

/// The name of an enum as JSON has it.
fn snake(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
