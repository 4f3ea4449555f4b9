//! Who may interrupt a job that somebody waits for: the system, by a signal, or a person at a terminal where keys are no signals,
//! because the whole of it shows the job.

use super::attempt::Blueprint;
use crate::{JobHandle, runtime::signals::Signals};

pub(super) struct Interrupts {
    signals: Signals,
    /// What the job shows of itself meanwhile, drawn by a thread of its own.
    #[cfg(feature = "terminal")]
    show: crate::terminal::show::Show,
    heard: bool,
}

impl Interrupts {
    /// Hears what comes from now on, and begins to show the job if it is to be shown.
    #[cfg_attr(not(feature = "terminal"), allow(unused_variables, reason = "nothing is shown"))]
    pub(super) fn new(blueprint: &Blueprint, job: JobHandle) -> Self {
        Self {
            signals: Signals::new(),
            #[cfg(feature = "terminal")]
            show: crate::terminal::show::Show::begin(blueprint.shows, job),
            heard: false,
        }
    }

    /// Waits for the next one; none is lost between two waits.
    pub(super) async fn next(&mut self) {
        #[cfg(feature = "terminal")]
        tokio::select! {
            () = self.signals.next() => {}
            () = self.show.interrupted() => {}
        }
        #[cfg(not(feature = "terminal"))]
        self.signals.next().await;
    }

    /// Whether the one that has come is the first, which stops the job; the next aborts.
    pub(super) fn is_first(&mut self) -> bool {
        !std::mem::replace(&mut self.heard, true)
    }

    /// Shows how the job has ended, and gives the terminal back.
    pub(super) async fn end(&mut self) {
        #[cfg(feature = "terminal")]
        self.show.end().await;
    }

    /// Gives the terminal back: the job has failed.
    pub(super) async fn leave(&mut self) {
        #[cfg(feature = "terminal")]
        self.show.leave().await;
    }
}
