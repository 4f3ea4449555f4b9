//! What is wanted of a task while it does not read: a barrier, or the end.

use tokio::sync::watch;
use windrow_connectors::Epoch;

pub(crate) struct Asked {
    /// The newest epoch whose barrier is wanted.
    barrier: watch::Receiver<Option<Epoch>>,
    /// The newest whose barrier has passed.
    passed: Option<Epoch>,
    stop: watch::Receiver<bool>,
    /// Without checkpoints there are no barriers, and rows in flight have no other place than the output.
    checkpointed: bool,
}

impl Asked {
    pub(crate) fn new(
        barrier: watch::Receiver<Option<Epoch>>,
        stop: watch::Receiver<bool>,
        checkpointed: bool,
    ) -> Self {
        Self { barrier, passed: None, stop, checkpointed }
    }

    pub(super) fn checkpointed(&self) -> bool {
        self.checkpointed
    }

    /// The epoch whose barrier is wanted and has not passed.
    pub(super) fn barrier(&self) -> Option<Epoch> {
        (*self.barrier.borrow()).filter(|wanted| Some(*wanted) > self.passed)
    }

    pub(super) fn passed(&mut self, epoch: Epoch) {
        self.passed = Some(epoch);
    }

    /// Whether the job is to stop, with the rows in flight in its last checkpoint.
    pub(super) fn stop(&self) -> bool {
        self.checkpointed && *self.stop.borrow()
    }

    /// Waits until something else is wanted. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        tokio::select! {
            Ok(()) = self.barrier.changed() => {}
            Ok(()) = self.stop.changed() => {}
            // Nobody is left who could want something.
            else => std::future::pending().await,
        }
    }
}
