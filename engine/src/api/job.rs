//! A job: from its name to its report.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use windrow_connectors::TypedSource;
use windrow_operators::{Port, StreamSchema};

use super::{
    Report, RunningJob, Stream,
    attempt::{Blueprint, sinks, sources, splits},
    stream::{FromSource, SharedGraph, lock},
};
use crate::{
    Error, Restarts, Restore, Result,
    checkpoint::{KEPT_CHECKPOINTS, Settings, timeout},
    config::{Chosen, Config},
    error::said,
    plan::{
        graph::{Graph, Kind, RejectPolicy, StreamId},
        physical::{Explained, plan},
    },
    runtime::memory::{LEAST_BYTES, check_budget},
};

/// A dataflow job. It is inert until it runs; printing it shows its graph.
///
/// ```
/// use windrow::prelude::*;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> windrow::Result<()> {
/// let job = Job::new("evens");
/// let out = MemorySink::new();
/// job.source(Sequence::new(10))
///     .event_time("at", Watermarks::in_order())
///     .filter_expr((col("value") % lit(2)).eq(lit(0)))
///     .sink(out.clone());
/// let report = job.run().await?;
/// assert_eq!(out.rows(), 5);
/// assert!(!report.stopped);
/// # Ok(())
/// # }
/// ```
#[must_use = "a job does nothing until it runs"]
pub struct Job {
    graph: SharedGraph,
    /// What its code says.
    chosen: Chosen,
    /// What goes before that.
    config: Config,
    #[cfg(feature = "serve")]
    serve: Option<crate::serve::Serve>,
    #[cfg(feature = "terminal")]
    shows: crate::terminal::show::Shows,
}

impl Job {
    /// A job called `name`, with one task per operator. Its checkpoints are kept under this name. [`Job`] has an
    /// example.
    pub fn new(name: impl Into<String>) -> Self {
        let graph = Graph { job: name.into(), ..Graph::default() };
        Self {
            graph: Arc::new(std::sync::Mutex::new(graph)),
            #[cfg(feature = "serve")]
            serve: None,
            chosen: Chosen::default(),
            config: Config::default(),
            #[cfg(feature = "terminal")]
            shows: Default::default(),
        }
    }

    /// Shows a line about the job on stderr while somebody waits for it ([`Job::run`], [`RunningJob::wait`]): its state, rows per
    /// second, how far event time is behind, its newest checkpoint, what slows it down. It is rewritten twice a second, and stays at
    /// the end. Where stderr is no terminal nothing is shown. One job of a process is shown at a time, the first that is waited for; the
    /// others are not. A terminal that is stopped (Ctrl-S) does not stop the job.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let job = Job::new("numbers").progress();
    /// job.source(Sequence::new(10_000)).sink(MemorySink::new());
    /// job.run().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "terminal")]
    pub fn progress(self) -> Self {
        Self { shows: crate::terminal::show::Shows::Line, ..self }
    }

    /// Shows the job in the whole terminal while somebody waits for it: its operators, how busy they are, event time, why windows are
    /// open, its checkpoints. `?` shows the keys; `q` leaves the view, and the job goes on with the line of [`Job::progress`]; Ctrl-C
    /// stops it as always. The terminal is given back at the end, and on a panic. It is drawn on stderr: rows for stdout belong into a
    /// file or a pipe meanwhile. Where stderr or stdin is no terminal it is as with [`Job::progress`], which also says what becomes of a
    /// second job.
    ///
    /// ```no_run
    /// use windrow::prelude::*;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let job = Job::new("numbers").watch();
    /// job.source(Sequence::endless().rate(10_000)).sink(MemorySink::new());
    /// job.run().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "terminal")]
    pub fn watch(self) -> Self {
        Self { shows: crate::terminal::show::Shows::View, ..self }
    }

    /// Lets a file and the environment say what the code says, or does not: `windrow.toml`, and variables `WINDROW_…`. They go before
    /// the code, whether that speaks before or after this; [`config`](crate::config) has the order and the book all the names.
    /// Mistakes in them are errors of [`Job::run`]; a table for a job with nearly its name, when it has none, is one of the
    /// [warnings](crate::JobHandle::warnings).
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// // WINDROW_PARALLELISM=8 gives it eight tasks, and so does `parallelism = 8` in windrow.toml.
    /// let job = Job::new("hot-items").parallelism(4).configured();
    /// ```
    pub fn configured(self) -> Self {
        match Config::load() {
            Ok(config) => self.configured_by(config),
            Err(Error::Config { mistakes }) => {
                lock(&self.graph).mistakes.extend(mistakes);
                self
            }
            Err(other) => {
                lock(&self.graph).mistakes.push(other.to_string());
                self
            }
        }
    }

    /// As [`Job::configured`], with a configuration that was read before. [`Config`] has an example.
    pub fn configured_by(self, config: Config) -> Self {
        Self { config, ..self }
    }

    /// `with` is told to what the code says.
    fn told(mut self, with: impl FnOnce(&mut Chosen)) -> Self {
        with(&mut self.chosen);
        self
    }

    /// Where it is served: what the code says, and what goes before it.
    #[cfg(feature = "serve")]
    fn serves(&self, chosen: &Chosen) -> Option<crate::serve::Serve> {
        let at = chosen.serve_address.clone();
        let mut serve = match (self.serve.clone(), at) {
            (Some(code), Some(address)) => code.moved(address),
            (code, at) => code.or(at.map(crate::serve::Serve::at))?,
        };
        if let Some(secret) = chosen.serve_token() {
            serve = serve.token(secret);
        }
        Some(chosen.serve_host.iter().fold(serve, |serve, host| serve.host(host)))
    }

    /// What holds: what the code says, and what goes before it.
    fn effective(&self) -> Chosen {
        self.config.over(&lock(&self.graph).job, self.chosen.clone())
    }

    /// How many tasks a keyed operator has, and a source at the most (one per split). At least 1, at most 256, the
    /// number of key groups.
    ///
    /// ```
    /// use windrow::prelude::*;
    /// let job = Job::new("hot-items").parallelism(4).channel_bytes(8 << 20);
    /// ```
    pub fn parallelism(self, tasks: usize) -> Self {
        self.told(|chosen| chosen.parallelism = Some(tasks))
    }

    /// How many bytes may wait in the channel between two tasks; 2 MiB unless told. A full channel slows down who writes to it.
    /// [`Job::parallelism`] has an example.
    pub fn channel_bytes(self, bytes: usize) -> Self {
        self.told(|chosen| chosen.channel_bytes = Some(bytes))
    }

    /// How many bytes of state the job may hold in memory, all operators and tasks together; at least 1 MiB, and 256 KiB for
    /// every operator with state in every task. Unless told there is no limit.
    ///
    /// Windows of aggregates (tumbling, hopping, cumulating and of the calendar, with one result each) put what is too much into
    /// files, and give the same answer: see [`Job::spill_to`]. What other operators hold, which keep all their state in memory,
    /// is taken off the budget first; when that alone is more than the budget, the job fails with an error that names
    /// one of them. The budget is about state: rows on their way are bounded by [`Job::channel_bytes`], and what connectors hold,
    /// the program itself, and the state of a checkpoint while it is being restored come on top.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let directory = directory.path(); // "/mnt/fast-disk"
    /// let job = Job::new("squares").memory_budget(1 << 20).spill_to(directory);
    /// let out = MemorySink::new();
    /// job.source(Sequence::new(60_000))
    ///     .event_time("at", Watermarks::in_order())
    ///     .key_by("value")
    ///     .window(Tumbling::of(hours(24)))
    ///     .aggregate([sum(col("value") * col("value")).alias("square")])
    ///     .drop_late()
    ///     .sink(out.clone());
    /// let report = job.run().await?;
    /// assert_eq!(out.rows(), 60_000);
    /// assert!(report.metrics.named("window").all(|window| window.spilled_segments > 0));
    /// # Ok(())
    /// # }
    /// ```
    pub fn memory_budget(self, bytes: usize) -> Self {
        self.told(|chosen| chosen.memory_budget = Some(bytes))
    }

    /// Below which directory state goes that is too much for the [`Job::memory_budget`]; where the system has temporary files
    /// unless told, which is not always a disk. The job makes a directory of its own there when it needs one, and removes it at
    /// its end; what a killed process left is removed when the next job with a budget begins there. A restart does not need it.
    pub fn spill_to(self, directory: impl Into<PathBuf>) -> Self {
        self.told(|chosen| chosen.spill_to = Some(directory.into()))
    }

    /// Takes a checkpoint every so often, in the store at `url`: a directory (`/var/lib/jobs` or `file:///var/lib/jobs`),
    /// or with the feature `s3` a bucket (`s3://bucket/path`). Several jobs may share a store; they are told apart by name.
    ///
    /// With checkpoints a job that was killed goes on where it was when it is started again, and its output is exactly
    /// what it would have been: what the sinks wrote becomes visible checkpoint by checkpoint. A job that fails is started
    /// again by itself, see [`Job::restarts`].
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let store = directory.path().to_str().unwrap(); // "/var/lib/jobs"
    /// let out = MemorySink::new();
    /// let evens = || {
    ///     let job = Job::new("evens")
    ///         .parallelism(2)
    ///         .checkpoint(store, secs(10))
    ///         .checkpoint_timeout(mins(1))
    ///         .keep_checkpoints(5)
    ///         .restarts(Restarts::at_most(3).waiting(millis(100)..=secs(5)));
    ///     job.source(Sequence::new(10)).filter_expr((col("value") % lit(2)).eq(lit(0))).sink(out.clone());
    ///     job
    /// };
    /// let report = evens().run().await?;
    /// assert!(report.metrics.checkpoints.completed > 0);
    /// evens().run().await?; // again: it goes on where it was, which is at the end
    /// assert_eq!(out.rows(), 5);
    /// # Ok(())
    /// # }
    /// ```
    pub fn checkpoint(self, url: impl Into<String>, every: Duration) -> Self {
        self.told(|chosen| {
            chosen.checkpoint_url = Some(url.into());
            chosen.checkpoint_every = Some(every);
        })
    }

    /// How many checkpoints are kept besides savepoints: at least the two newest, which is so too when nothing is said. Those that are
    /// kept can be [looked into](crate::state), and shared state is stored once. [`Job::checkpoint`] has an example.
    pub fn keep_checkpoints(self, newest: usize) -> Self {
        self.told(|chosen| chosen.checkpoint_keep = Some(newest))
    }

    /// How long a checkpoint may take, from asking for it until every task has answered. After that the job fails, with an
    /// error that names the tasks that did not answer, and is started again like after any failure. Ten minutes unless
    /// told, or less when a sink commits in transactions: the interval and this must fit three times into what a transaction
    /// may take. [`Job::checkpoint`] has an example.
    pub fn checkpoint_timeout(self, timeout: Duration) -> Self {
        self.told(|chosen| chosen.checkpoint_timeout = Some(timeout))
    }

    /// Which checkpoint the job begins from; the newest unless told. [`RunningJob`] has an example.
    pub fn restore(self, from: Restore) -> Self {
        self.told(|chosen| chosen.restore_is(from))
    }

    /// Gives up the state of operators that a checkpoint has and the job does not have any more. Without this such a
    /// job is refused, because an operator that has only changed its name would begin empty.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let store = directory.path().to_str().unwrap(); // "/var/lib/jobs"
    /// let counts = |size, id| {
    ///     let job = Job::new("counts").checkpoint(store, secs(10));
    ///     job.source(Sequence::new(10))
    ///         .event_time("at", Watermarks::in_order())
    ///         .window(Tumbling::of(size))
    ///         .aggregate([count()])
    ///         .drop_late()
    ///         .id(id)
    ///         .sink(MemorySink::new());
    ///     job
    /// };
    /// counts(secs(10), "per-10-s").run().await?;
    /// let refused = counts(mins(1), "per-minute").run().await.unwrap_err().to_string();
    /// assert!(refused.contains("or drop the state with .drop_state()"), "{refused}");
    /// counts(mins(1), "per-minute").drop_state().run().await?; // the source goes on, the windows begin empty
    /// # Ok(())
    /// # }
    /// ```
    pub fn drop_state(self) -> Self {
        self.told(|chosen| chosen.drop_state = Some(true))
    }

    /// How often the job is started again after a failure, with checkpoints: without them a job that fails stays down.
    /// [`Job::checkpoint`] has an example.
    pub fn restarts(self, restarts: Restarts) -> Self {
        self.told(|chosen| chosen.restarts_are(restarts))
    }

    /// Serves the job over HTTP while it runs: a page to look at it with, an API to ask, save and stop it by, and what Prometheus
    /// reads. It is served from before its first row until it ends, also over restarts after failures, by a thread of its own; who asks
    /// cannot slow it down or make it fail. The module [`serve`](crate::serve) says what there is, and who may what.
    ///
    /// The address is one of this machine: `127.0.0.1:8080`, or with port 0 a free one, which [`RunningJob::served`] tells. Any
    /// address that others can reach is a mistake of the job unless it has a token: see [`Serve::token`](crate::serve::Serve::token).
    /// One that is in use fails the start, with [`Error::Serve`].
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let job = Job::new("numbers").serve("127.0.0.1:0");
    /// job.source(Sequence::new(1_000)).sink(MemorySink::new());
    /// let running = job.start().await?;
    /// if let Some(served) = running.served() {
    ///     eprintln!("look at {}", served.url());
    /// }
    /// running.wait().await?;
    ///
    /// let job = Job::new("numbers").serve("0.0.0.0:8080");
    /// job.source(Sequence::new(1_000)).sink(MemorySink::new());
    /// let refused = job.run().await.unwrap_err().to_string();
    /// assert!(refused.contains("others can reach it") && refused.contains(".token("), "{refused}");
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "serve")]
    pub fn serve(self, at: impl Into<crate::serve::Serve>) -> Self {
        Self { serve: Some(at.into()), ..self }
    }

    /// Reads from a source. A job may have several. [`Job`] has an example.
    pub fn source<S: TypedSource>(&self, source: S) -> Stream<S::Row, FromSource> {
        let mut graph = lock(&self.graph);
        let name = format!("source {}", source.name());
        let called = graph.next_name(&name);
        let mistaken = |error| format!("{called}: {}", said(&called, &error));
        let at = match source.schema() {
            Ok(schema) => {
                graph.mistakes.extend(source.check().map_err(mistaken).err());
                let kind = Kind::Source { source: Arc::new(source), time: None, rejects: RejectPolicy::Fail };
                let node = graph.add(&name, kind, vec![], vec![(Port::MAIN, StreamSchema::without_time(schema))]);
                Some(StreamId { node, port: Port::MAIN })
            }
            Err(error) => {
                graph.mistakes.push(mistaken(error));
                None
            }
        };
        drop(graph);
        Stream::new(self.graph.clone(), at)
    }

    /// Runs the job to its end, or until Ctrl-C or SIGTERM: see [`RunningJob::wait`]. Must be called on a tokio runtime.
    ///
    /// Fails with [`Error::Plan`] before the first row, with all mistakes that can be known then; and with what went wrong when
    /// a task fails, if the job is not started again.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let job = Job::new("mistakes");
    /// job.source(Sequence::new(10)).filter_expr(col("valeu").gt(lit(3))).sink(MemorySink::new());
    /// let error = job.run().await.unwrap_err().to_string();
    /// assert!(error.contains("did you mean \"value\"?"), "{error}");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn run(self) -> Result<Report> {
        self.start().await?.wait().await
    }

    /// Starts the job and returns while it runs. Must be called on a tokio runtime. [`RunningJob`] has an example; what
    /// fails is as with [`Job::run`].
    pub async fn start(self) -> Result<RunningJob> {
        let chosen = self.effective();
        let settings = self.check(&chosen)?;
        #[cfg(feature = "serve")]
        let serve = self.serves(&chosen);
        // The job is complete: from here on nobody adds to the graph.
        let graph = std::mem::take(&mut *lock(&self.graph));
        RunningJob::start(Blueprint {
            warning: self.config.warning(&graph.job),
            graph: Arc::new(graph),
            parallelism: chosen.parallelism(),
            channel_bytes: chosen.channel_bytes(),
            settings,
            restarts: chosen.restarts(),
            memory: chosen.memory_budget.map(|bytes| (bytes, chosen.spill_to)),
            #[cfg(feature = "serve")]
            serve,
            #[cfg(feature = "terminal")]
            shows: self.shows,
        })
        .await
    }

    /// The physical plan in words: which operators share a task, how many tasks there are, where rows are exchanged. Asks the
    /// sources for their splits. Fails with the mistakes that [`Job::run`] would tell.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let job = Job::new("explained").parallelism(2);
    /// job.source(Nexmark::new().splits(2).bids())
    ///     .event_time("at", Watermarks::in_order())
    ///     .key_by("auction")
    ///     .window(Tumbling::of(secs(10)))
    ///     .aggregate([count()])
    ///     .drop_late()
    ///     .sink(MemorySink::new());
    /// let plan = job.explain().await?;
    /// assert!(plan.contains("chain 1, 2 tasks: #2 window tumbling 10s per auction"), "{plan}");
    /// assert!(plan.contains("by key group"), "{plan}");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn explain(&self) -> Result<String> {
        let chosen = self.effective();
        self.check(&chosen)?;
        let sources = sources(&lock(&self.graph));
        let splits = splits(&sources).await?;
        let graph = lock(&self.graph);
        let plan = plan(&graph, chosen.parallelism(), &splits);
        check_budget(chosen.memory_budget, &graph, &plan)?;
        Ok(Explained(&plan, &graph).to_string())
    }

    /// All mistakes that can be known before the first row; without one, how checkpoints are taken.
    fn check(&self, chosen: &Chosen) -> Result<Option<Settings>> {
        let graph = lock(&self.graph);
        let mut mistakes = graph.mistakes.clone();
        mistakes.extend(graph.dead_ends());
        mistakes.extend(graph.repeated_ids());
        let parallelism = chosen.parallelism();
        if parallelism == 0 || parallelism > windrow_operators::key::KEY_GROUPS {
            mistakes.push(format!("parallelism {parallelism} is not between 1 and 256"));
        }
        let settings = chosen.settings().unwrap_or_else(|mistake| {
            mistakes.push(mistake);
            None
        });
        let is_half_said = chosen.checkpoint_url.is_some() != chosen.checkpoint_every.is_some();
        let without = settings.is_none() && !is_half_said;
        if chosen.restore() != Restore::newest() && without {
            mistakes.push("it is to be restored, but has no checkpoints: say .checkpoint(url, every)".into());
        }
        if chosen.drops_state() && without {
            mistakes.push("its state is to be dropped, but it has no checkpoints: say .checkpoint(url, every)".into());
        }
        if let Some(bytes) = chosen.memory_budget.filter(|bytes| *bytes < LEAST_BYTES) {
            mistakes.push(format!("a memory budget of {bytes} bytes is too little: at least {LEAST_BYTES} (1 MiB)"));
        }
        if chosen.spill_to.is_some() && chosen.memory_budget.is_none() {
            let mistake = "it is told where state goes that is too much for memory, but not how much that is: say \
                           .memory_budget(bytes)";
            mistakes.push(mistake.into());
        }
        #[cfg(feature = "serve")]
        mistakes.extend(self.serves(chosen).and_then(|serve| serve.check().err()));
        mistakes.extend(chosen.serve_mistake());
        mistakes.extend(chosen.restarts_mistake());
        if chosen.checkpoint_keep.is_some_and(|keep| keep < KEPT_CHECKPOINTS) {
            mistakes.push(format!("fewer than {KEPT_CHECKPOINTS} checkpoints are not kept: say .keep_checkpoints(2)"));
        }
        if settings.as_ref().is_some_and(|settings| settings.every.is_zero()) {
            mistakes.push("a checkpoint every 0 s would be one after the other: say how often".into());
        }
        let timeout = timeout(&sinks(&graph), &graph.job, settings.as_ref(), chosen.checkpoint_timeout);
        let timeout = timeout.unwrap_or_else(|more| {
            mistakes.extend(more);
            Default::default()
        });
        if !mistakes.is_empty() {
            return Err(Error::Plan { job: graph.job.clone(), mistakes });
        }
        Ok(settings.map(|settings| Settings { timeout, ..settings }))
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        lock(&self.graph).fmt(f)
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
