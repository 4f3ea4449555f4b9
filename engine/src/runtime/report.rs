//! What tasks tell the coordinator of checkpoints: what they are made of at a barrier, and at their end.

use tokio::sync::mpsc::UnboundedSender;
use windrow_connectors::{Epoch, Receipt};
use windrow_operators::state::TaskState;

use crate::checkpoint::SplitState;

/// A task of the physical plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TaskId {
    pub(crate) chain: usize,
    pub(crate) task: usize,
}

/// What a task is made of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// The state of each operator of its chain, in order.
    pub(crate) operators: Vec<TaskState>,
    /// Of a source task: where its splits stand.
    pub(crate) splits: Vec<SplitState>,
    /// Of a sink task: what it has staged since its last report.
    pub(crate) receipts: Vec<Receipt>,
}

/// One report.
#[derive(Debug)]
pub(crate) struct TaskReport {
    pub(crate) task: TaskId,
    /// The barrier that has passed; `None` when the task has ended and this is its last word.
    pub(crate) epoch: Option<Epoch>,
    pub(crate) snapshot: Snapshot,
}

/// A task's line to the coordinator. It never waits: a task has at most two reports under way.
#[derive(Clone, Debug)]
pub(crate) struct Reporter {
    pub(crate) task: TaskId,
    pub(crate) line: UnboundedSender<TaskReport>,
}

impl Reporter {
    /// The barrier of `epoch` has passed; nobody listens only when the job is being ended.
    pub(crate) fn barrier(&self, epoch: Epoch, snapshot: Snapshot) {
        let _ = self.line.send(TaskReport { task: self.task, epoch: Some(epoch), snapshot });
    }

    /// The task has ended.
    pub(crate) fn ended(&self, snapshot: Snapshot) {
        let _ = self.line.send(TaskReport { task: self.task, epoch: None, snapshot });
    }
}
