//! Reads a [`JobStatus`] from a running attempt: the only place that looks into what the tasks count.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::{
    CheckpointStatus, CheckpointUnderway, EdgeStatus, JobStatus, MemoryStatus, OperatorKind, OperatorStatus,
    SplitState, SplitStatus, TaskStatus,
    shape::{EdgeShape, OperatorShape, Shape, shape},
};
use crate::{
    checkpoint::{Layout, Settings},
    clock::{Moment, wall_millis, whole_millis},
    metrics::{
        CheckpointCounters, Counters, TaskCounters,
        histogram::together,
        log::CheckpointLog,
        splits::{SplitGauge, Told},
    },
    plan::{graph::Graph, physical::PhysicalPlan},
    runtime::{
        channel::Lane,
        supervisor::{Joint, Lanes},
    },
};

/// How many splits of a source are told of.
const SPLITS: usize = 1_000;
/// How many tasks are named that have not answered.
const MISSING: usize = 100;

/// What is settled before an attempt runs.
pub(crate) struct Settled {
    shape: Shape,
    layout: Arc<Layout>,
    parallelism: usize,
    budget: Option<u64>,
    checkpoints: CheckpointStatus,
}

impl Settled {
    pub(crate) fn new(graph: &Graph, plan: &PhysicalPlan, layout: Arc<Layout>, parallelism: usize) -> Self {
        let (budget, checkpoints) = (None, CheckpointStatus::default());
        Self { shape: shape(graph, plan), layout, parallelism, budget, checkpoints }
    }

    /// It has a memory budget, of so many bytes.
    pub(crate) fn budget(self, bytes: Option<usize>) -> Self {
        Self { budget: bytes.map(|bytes| bytes as u64), ..self }
    }

    /// It takes checkpoints there, and went on from this one.
    pub(crate) fn checkpoints(self, settings: Option<&Settings>, store: Option<&str>, from: Option<u64>) -> Self {
        let checkpoints = CheckpointStatus {
            every_ms: settings.map(|settings| whole_millis(settings.every)),
            timeout_ms: settings.map(|settings| whole_millis(settings.timeout.after)),
            store: store.map(String::from),
            restored_from: from,
            ..CheckpointStatus::default()
        };
        Self { checkpoints, ..self }
    }
}

/// An attempt that can be looked at.
pub(crate) struct Live {
    settled: Settled,
    /// Of each operator.
    counters: Vec<Arc<Counters>>,
    lanes: Lanes,
    /// How many tasks send on each edge.
    senders: Vec<usize>,
    checkpoints: Arc<CheckpointCounters>,
    log: Arc<CheckpointLog>,
}

/// What its tasks and channels have counted, without what is behind that: rates and shares are taken from it.
#[derive(Debug)]
pub(crate) struct Counts {
    /// Of each operator.
    pub(crate) tasks: Vec<Vec<TaskStatus>>,
    /// In the order of [`JobStatus::edges`].
    pub(crate) edges: Vec<EdgeStatus>,
}

/// When it is looked at.
#[derive(Clone, Copy)]
pub(crate) struct Now {
    pub(crate) moment: Moment,
    /// The same on the wall, in milliseconds since 1970.
    pub(crate) wall_ms: u64,
}

impl Now {
    pub(crate) fn look() -> Self {
        Self { moment: Moment::now(), wall_ms: wall_millis() }
    }

    /// The time on the wall of a moment.
    pub(crate) fn wall(&self, of: Moment) -> u64 {
        self.wall_ms.saturating_sub(whole_millis(self.moment.since(of)))
    }
}

impl Live {
    pub(crate) fn new(
        settled: Settled,
        counters: &[Arc<Counters>],
        lanes: Lanes,
        checkpoints: Arc<CheckpointCounters>,
        log: Arc<CheckpointLog>,
    ) -> Self {
        let by_name: HashMap<&str, &Arc<Counters>> = counters.iter().map(|own| (own.name(), own)).collect();
        let of = |shape: &OperatorShape| match by_name.get(shape.name.as_str()) {
            Some(counters) => Arc::clone(counters),
            None => Counters::new(shape.name.clone(), settled.shape.chains.get(shape.chain).copied().unwrap_or(1)),
        };
        let counters = settled.shape.operators.iter().map(of).collect();
        let tasks = |edge: &EdgeShape| settled.shape.chains[settled.shape.operators[edge.from].chain];
        let senders = settled.shape.edges.iter().map(tasks).collect();
        Self { settled, counters, lanes, senders, checkpoints, log }
    }

    pub(crate) fn senders(&self) -> &[usize] {
        &self.senders
    }

    /// What the attempt has counted. What is about the job as a whole is left as it is by default, and so are rates.
    pub(crate) fn read(&self, now: Now) -> JobStatus {
        let Settled { shape, parallelism, budget, .. } = &self.settled;
        let Counts { tasks, edges } = self.counts(now.moment);
        let operators = shape.operators.iter().zip(&self.counters).zip(tasks);
        let operators: Vec<OperatorStatus> =
            operators.map(|((shape, counters), tasks)| operator(shape, counters, tasks, now)).collect();
        let memory = budget.map(|budget_bytes| MemoryStatus {
            budget_bytes,
            held_bytes: operators.iter().map(|operator| operator.state_bytes).sum(),
            spilled_bytes: operators.iter().map(|operator| operator.spilled_bytes).sum(),
        });
        let (checkpoints, parallelism) = (self.checkpoints(now), *parallelism);
        JobStatus { parallelism, operators, edges, checkpoints, memory, ..JobStatus::default() }
    }

    /// What tasks and channels have counted.
    pub(crate) fn counts(&self, now: Moment) -> Counts {
        let Shape { operators, edges, .. } = &self.settled.shape;
        let blocked = self.blocked(now);
        let of = |(shape, counters): (&OperatorShape, &Arc<Counters>)| tasks(counters, &blocked[shape.chain], now);
        let mut tasks: Vec<Vec<TaskStatus>> = operators.iter().zip(&self.counters).map(of).collect();
        self.add_bytes(&mut tasks);
        let edges = edges.iter().map(|edge| self.edge(edge, &tasks, now)).collect();
        Counts { tasks, edges }
    }

    /// The bytes that tasks have read, and those of their channels.
    fn add_bytes(&self, tasks: &mut [Vec<TaskStatus>]) {
        let Shape { operators, edges, .. } = &self.settled.shape;
        for (place, _) in operators.iter().enumerate().filter(|(_, own)| own.kind == OperatorKind::Source) {
            let read = self.counters[place].tasks().iter().map(|task| task.bytes_read.load(Relaxed));
            tasks[place].iter_mut().zip(read).for_each(|(task, read)| task.bytes_in = Some(read));
        }
        for edge in edges {
            for Joint { from, to, lane } in edge.edge.and_then(|edge| self.lanes.get(edge)).into_iter().flatten() {
                let (_, bytes) = lane.sent();
                *tasks[edge.from][*from].bytes_out.get_or_insert(0) += bytes;
                *tasks[edge.to][*to].bytes_in.get_or_insert(0) += bytes;
            }
        }
    }

    /// How long each task of each chain has waited for room, in microseconds.
    fn blocked(&self, now: Moment) -> Vec<Vec<u64>> {
        let chain = |(tasks, leaving): (&usize, &Vec<usize>)| {
            let mut blocked = vec![0; *tasks];
            let lanes = leaving.iter().filter_map(|edge| self.lanes.get(*edge)).flatten();
            lanes.for_each(|joint| blocked[joint.from] += joint.lane.blocked.micros(now));
            blocked
        };
        self.settled.shape.chains.iter().zip(&self.settled.shape.leaving).map(chain).collect()
    }

    fn edge(&self, shape: &EdgeShape, tasks: &[Vec<TaskStatus>], now: Moment) -> EdgeStatus {
        let EdgeShape { from, to, label, exchange, edge, all_late } = shape;
        let mut status =
            EdgeStatus { from: *from, to: *to, label: (*label).into(), exchange: *exchange, ..EdgeStatus::default() };
        match edge.and_then(|edge| self.lanes.get(edge)) {
            Some(lanes) => {
                for joint in lanes {
                    add(&mut status, &joint.lane, now);
                }
            }
            None if label.is_empty() => status.rows = tasks[*from].iter().map(|task| task.rows_out).sum(),
            None if *all_late => status.rows = self.counters[*from].late(),
            None => {}
        }
        status
    }

    fn checkpoints(&self, now: Now) -> CheckpointStatus {
        let entries = self.log.read();
        let underway = entries.underway.map(|going| CheckpointUnderway {
            epoch: going.epoch,
            since_ms: now.wall(going.began),
            missing: going.missing.iter().take(MISSING).map(|task| self.settled.layout.name(*task)).collect(),
        });
        CheckpointStatus {
            completed: entries.completed,
            held_until_ms: self.settled.checkpoints.every_ms.map(|_| now.wall(entries.held_until)),
            newest: entries.last.front().map(|newest| newest.epoch),
            last: entries.last.into(),
            underway,
            not_collected: self.checkpoints.read().not_collected,
            ..self.settled.checkpoints.clone()
        }
    }
}

fn add(status: &mut EdgeStatus, lane: &Lane, now: Moment) {
    let (rows, bytes) = lane.sent();
    status.rows += rows;
    status.bytes += bytes;
    status.queued_bytes += lane.queued() as u64;
    status.capacity_bytes += lane.capacity() as u64;
    status.blocked_us += lane.blocked.micros(now);
}

fn tasks(counters: &Counters, blocked: &[u64], now: Moment) -> Vec<TaskStatus> {
    let task = |(task, own): (usize, &TaskCounters)| TaskStatus {
        rows_in: own.rows_in.load(Relaxed),
        rows_out: own.rows_out.load(Relaxed),
        busy_us: own.busy.micros(now),
        blocked_us: blocked.get(task).copied().unwrap_or(0) + own.braked.micros(now),
        watermark_us: own.watermark(),
        idle: own.is_idle(),
        state_bytes: own.held_bytes(),
        ..TaskStatus::default()
    };
    counters.tasks().iter().enumerate().map(task).collect()
}

fn operator(shape: &OperatorShape, counters: &Counters, tasks: Vec<TaskStatus>, now: Now) -> OperatorStatus {
    let OperatorShape { name, id, kind, first_phase, chain, event_time } = shape;
    let read = counters.read();
    let promises = *kind != OperatorKind::Sink;
    let watermark_us = read.watermark.map(|watermark| watermark.micros());
    let promised_us = match kind {
        // What it has heard and has not passed on waits behind rows.
        OperatorKind::Async => watermark_us,
        _ => counters.promised().filter(|_| promises),
    };
    let (splits, splits_left_out) = splits(counters, event_time.is_some(), promised_us, now);
    let bytes = |of: fn(&TaskStatus) -> Option<u64>| tasks.iter().filter_map(of).reduce(|sum, own| sum + own);
    OperatorStatus {
        name: name.clone(),
        id: id.clone(),
        kind: *kind,
        first_phase: *first_phase,
        chain: *chain,
        rows_in: read.rows_in,
        rows_out: read.rows_out,
        bytes_in: bytes(|task| task.bytes_in),
        bytes_out: bytes(|task| task.bytes_out),
        processed: read.processed,
        late: read.late,
        rejected: read.rejected,
        future: read.future,
        failed: read.failed,
        in_flight: read.in_flight,
        retries: read.retries,
        watermark_us,
        promised_us,
        latest_us: read.latest.map(|latest| latest.micros()),
        event_time: event_time.clone(),
        lag: read.lag,
        state_bytes: read.state_bytes,
        spilled_bytes: read.spilled_bytes,
        spilled_segments: read.spilled_segments,
        tasks,
        splits,
        splits_left_out,
        call_time: together(counters.tasks().iter().map(|task| &task.calls)),
        latency: together(counters.tasks().iter().map(|task| &task.latency)),
        warnings: counters.warnings().into_iter().collect(),
        samples: counters.samples.read(),
        ..OperatorStatus::default()
    }
}

/// The splits of a source, those first that matter most, and how many are left out. `promised`: what the source has said of event
/// time, if it has any.
fn splits(counters: &Counters, timed: bool, promised: Option<i64>, now: Now) -> (Vec<SplitStatus>, u64) {
    let (gauges, untold) = counters.splits.read();
    let mut told: Vec<(Arc<SplitGauge>, Told)> = gauges
        .into_iter()
        .map(|gauge| {
            let told = gauge.told().clone();
            (gauge, told)
        })
        .collect();
    let is_active = |told: &Told| !matches!(told.state, SplitState::Idle | SplitState::Ended);
    let least = told.iter().filter(|(_, told)| timed && is_active(told)).map(|(_, told)| told.watermark).min();
    // If all that are told of are further than the source has promised, it is one that is not told of.
    let is_told = untold == 0 || least.is_some_and(|least| least <= promised);
    let holds = |told: &Told| is_told && is_active(told) && least == Some(told.watermark);
    let rank = |told: &Told| match told.state {
        _ if holds(told) => 0,
        SplitState::PutOff => 1,
        SplitState::Paused => 2,
        SplitState::Reading => 3,
        SplitState::Idle => 4,
        SplitState::Ended => 5,
    };
    told.sort_by(|(one, own), (other, its)| (rank(own), &one.split).cmp(&(rank(its), &other.split)));
    let left_out = untold + told.len().saturating_sub(SPLITS) as u64;
    let status = |(gauge, told): &(Arc<SplitGauge>, Told)| SplitStatus {
        split: gauge.split.as_str().into(),
        task: gauge.task,
        state: told.state,
        why: told.hold.as_ref().map(ToString::to_string).or_else(|| told.why.clone()),
        since_ms: now.wall(told.since),
        watermark_us: told.watermark,
        latest_us: told.latest,
        position: told.position,
        lag: told.lag,
        rows: told.rows,
        bytes: told.bytes,
        rows_at_ms: told.rows_at.map(|at| now.wall(at)),
        holds_back: holds(told),
    };
    (told.iter().take(SPLITS).map(status).collect(), left_out)
}
