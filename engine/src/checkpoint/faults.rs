//! Faults that a test puts into the jobs it runs: a mistake in the protocol, or something that happens at its named points.
//!
//! A test that has never failed may be blind. So the engine carries, at the places where a checkpoint can be got wrong, the
//! mistake itself, switched off: `if mutated("no fence is written")`. The tests of recovery switch them on one by one and
//! must find a wrong answer each time. Faults belong to the task that awaits [`Faults::during`] and to the tasks of the
//! jobs started there, not to the process: tests run side by side.
//!
//! Only with the feature `faults`; without it `mutated` is `false` and nothing of this is in the program.

#[cfg(not(feature = "faults"))]
pub(crate) use without::{inherit, mutated};

#[cfg(feature = "faults")]
pub(crate) use with::{inherit, mutated, pass};

#[cfg(feature = "faults")]
pub use with::{Faults, MUTANTS};

#[cfg(not(feature = "faults"))]
mod without {
    #[inline(always)]
    pub(crate) fn mutated(_name: &'static str) -> bool {
        false
    }

    pub(crate) fn inherit<F: Future>(future: F) -> F {
        future
    }
}

#[cfg(feature = "faults")]
mod with {
    use std::sync::Arc;

    /// The mistakes that can be switched on. Those that only a power cut would show are not among them.
    pub const MUTANTS: [&str; 34] = [
        "operators are not flushed before a barrier",
        "a barrier overtakes the rows before it",
        "a gate passes a barrier at its first input",
        "a checkpoint is decided before it is prepared",
        "done is written before the sinks have published",
        "the sinks publish before the decision",
        "what was decided is not published after a crash",
        "only the first receipt of a sink is published",
        "only the first sink is published",
        "the receipts of ended tasks are dropped",
        "what a task staged between its barrier and its end is dropped",
        "a position is saved one too far",
        "a position is saved one too little",
        "the positions of idle splits are not saved",
        "the watermarks of splits are not restored",
        "the idleness of splits is not restored",
        "restored splits are idle at once",
        "ended splits are read again",
        "where splits begin is not noted",
        "where splits end is not saved",
        "what was not there when the ends were fixed is read",
        "splits that have appeared begin as if they had been there",
        "splits that have appeared are not saved",
        "the state of one of several former tasks is not loaded",
        "key groups are off by one at a restore",
        "kept segments are forgotten in the manifest",
        "no fence is written",
        "a newer generation is not noticed",
        "the newest checkpoint is removed",
        "segments that kept checkpoints name are removed",
        "the manifest is written after the decision of the witness",
        "the marker is read before the fence",
        "an unknown marker is taken for an abort",
        "what a witness did not decide is claimed",
    ];

    tokio::task_local! {
        static FAULTS: Faults;
    }

    /// What goes wrong in the jobs of a test.
    #[derive(Clone, Default)]
    pub struct Faults {
        mutant: Option<&'static str>,
        at_points: Option<Arc<dyn Fn(&'static str) + Send + Sync>>,
    }

    impl Faults {
        /// Switches on one of [`MUTANTS`].
        pub fn mutant(name: &'static str) -> Self {
            Self { mutant: Some(name), at_points: None }
        }

        /// Calls `hook` with the name of every point of the protocol that is passed. A hook that unwinds is a crash there;
        /// one that blocks makes a process that sleeps while others go on.
        #[must_use]
        pub fn at_points(self, hook: impl Fn(&'static str) + Send + Sync + 'static) -> Self {
            Self { at_points: Some(Arc::new(hook)), ..self }
        }

        /// Lets them happen to the jobs that `future` starts.
        pub async fn during<F: Future>(self, future: F) -> F::Output {
            FAULTS.scope(self, future).await
        }
    }

    /// Whether the mistake `name` is to be made.
    pub(crate) fn mutated(name: &'static str) -> bool {
        debug_assert!(MUTANTS.contains(&name), "no mutant is called {name:?}");
        FAULTS.try_with(|faults| faults.mutant == Some(name)).unwrap_or(false)
    }

    /// A point of the protocol is passed.
    pub(crate) fn pass(point: &'static str) {
        let hook = FAULTS.try_with(|faults| faults.at_points.clone());
        if let Ok(Some(hook)) = hook {
            hook(point);
        }
    }

    /// A task of a job has the faults of who started the job.
    pub(crate) fn inherit<F: Future>(future: F) -> impl Future<Output = F::Output> {
        FAULTS.scope(FAULTS.try_with(Clone::clone).unwrap_or_default(), future)
    }
}
