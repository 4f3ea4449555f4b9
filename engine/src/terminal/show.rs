//! Shows a job of this process while somebody waits for it: what [`Job::progress`](crate::Job::progress) and
//! [`Job::watch`](crate::Job::watch) asked for.
//!
//! ```text
//!   wait() ─── the job is over ──► Show ───────► a thread of its own ──► line or view ──► stderr
//!     ▲                             └◄── Ctrl-C, where it is a key ──┘
//! ```
//!
//! A terminal that somebody has stopped (Ctrl-S), or behind which nobody reads, takes nothing more, and whoever writes to it waits. That
//! is a thread that has nothing else to do: the job goes on, and its end does not wait for the last line for longer than [`FAREWELL`]. Whatever
//! the thread comes to only then, it leaves the terminal as it is.
//!
//! There is one terminal, so one job at a time is shown in it: the first that is waited for.

use std::{
    io::{self, IsTerminal, Stderr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

use futures::FutureExt;
use tokio::{
    sync::{
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
        oneshot::{self, error::TryRecvError},
    },
    time::timeout,
};
use windrow_connectors::Epoch;

use super::{
    progress::Progress,
    screen::{self, Claim},
    watch::{Asked, Watch},
};
use crate::{
    JobHandle, Result,
    clock::{Moment, sleep_until},
    status::{JobStatus, State},
    thread,
};

/// How often the line is rewritten, and the view drawn.
const LINE: Duration = Duration::from_millis(500);
const VIEW: Duration = Duration::from_millis(250);
/// How often keys are looked for.
const KEYS: Duration = Duration::from_millis(25);
/// How long a job that has ended waits for what is drawn last, and for the terminal to be as it was.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long one that has failed, or was given up, waits for the terminal to be as it was. Nothing is drawn any more.
const LEAVING: Duration = Duration::from_millis(500);

/// What a job shows while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shows {
    #[default]
    Nothing,
    Line,
    View,
}

/// What the job shows, for who waits for it; nothing where nothing is to be shown or can be.
pub(crate) struct Show(Option<Shown>);

/// The thread that draws.
struct Shown {
    interrupts: UnboundedReceiver<()>,
    /// Takes the word that the job has ended. Dropped without it nothing more is drawn.
    over: Option<oneshot::Sender<()>>,
    /// The thread is through.
    gone: oneshot::Receiver<()>,
    /// The same, for who cannot await it.
    left: mpsc::Receiver<()>,
    /// How long that is still waited for.
    patience: Duration,
    /// It is not waited for any more.
    too_late: Arc<AtomicBool>,
}

/// How long somebody wants to see something.
struct Wanted {
    over: oneshot::Receiver<()>,
    too_late: Arc<AtomicBool>,
}

impl Show {
    /// Begins to show what was asked for. Where there is no terminal, or another job is shown in it, that is nothing.
    pub(crate) fn begin(shows: Shows, handle: JobHandle) -> Self {
        let is_shown = shows != Shows::Nothing && io::stderr().is_terminal();
        let claim = if is_shown { Claim::take() } else { None };
        // Without a thread the job works all the same.
        Self(claim.and_then(|claim| Shown::begin(claim, |wanted, press| draw(shows, handle, wanted, press)).ok()))
    }

    /// Ctrl-C was pressed where it is no signal. May be dropped and called again at any time.
    pub(crate) async fn interrupted(&mut self) {
        let pressed = match &mut self.0 {
            Some(shown) => shown.interrupts.recv().await,
            None => None,
        };
        if pressed.is_none() {
            std::future::pending().await
        }
    }

    /// The job has ended: leaves a last line, and gives the terminal back.
    pub(crate) async fn end(&mut self) {
        let Some(mut shown) = self.0.take() else { return };
        if let Some(over) = shown.over.take() {
            // The thread may have ended with its terminal.
            let _ = over.send(());
        }
        shown.wait_until_gone(FAREWELL).await;
    }

    /// The job has failed, which somebody else says: gives the terminal back. Who drops this instead blocks meanwhile.
    pub(crate) async fn leave(&mut self) {
        let Some(mut shown) = self.0.take() else { return };
        drop(shown.over.take());
        shown.wait_until_gone(LEAVING).await;
    }
}

impl Shown {
    fn begin<D>(claim: Claim, draw: impl FnOnce(Wanted, UnboundedSender<()>) -> D) -> io::Result<Self>
    where
        D: Future<Output = ()> + Send + 'static,
    {
        let ((press, interrupts), (over, ended), (leaves, left)) =
            (unbounded_channel(), oneshot::channel(), mpsc::channel());
        let too_late = Arc::new(AtomicBool::new(false));
        let drawing = draw(Wanted { over: ended, too_late: too_late.clone() }, press);
        let gone = thread::run("windrow-terminal", None, async move {
            // What draws goes first, then the claim, and with this it is told that both are gone.
            let _leaves: mpsc::Sender<()> = leaves;
            let _claim = claim;
            drawing.await;
        })?;
        Ok(Self { interrupts, over: Some(over), gone, left, patience: LEAVING, too_late })
    }

    async fn wait_until_gone(mut self, patience: Duration) {
        if timeout(patience, &mut self.gone).await.is_err() {
            self.patience = Duration::ZERO;
        }
    }
}

impl Drop for Shown {
    /// Whoever waited for the job says what it says when the terminal is as it was, also when the wait was given up.
    fn drop(&mut self) {
        drop(self.over.take());
        if let Err(RecvTimeoutError::Timeout) = self.left.recv_timeout(self.patience) {
            // A program that ends now leaves at least keys as they were.
            self.too_late.store(true, SeqCst);
            screen::line_mode();
        }
    }
}

/// A savepoint that the user has asked for.
type Saving = Pin<Box<dyn Future<Output = Result<Epoch>> + Send>>;

/// What is drawn, on the thread that draws.
struct Drawing {
    handle: JobHandle,
    mode: Mode,
    /// When to draw again.
    next: Moment,
    saving: Option<Saving>,
    too_late: Arc<AtomicBool>,
}

/// Draws what is wanted, if it still is when the thread gets that far.
async fn draw(shows: Shows, handle: JobHandle, wanted: Wanted, press: UnboundedSender<()>) {
    let Wanted { mut over, too_late } = wanted;
    match over.try_recv() {
        Err(TryRecvError::Empty) => Drawing::begin(shows, handle, too_late).until(over, press).await,
        Err(TryRecvError::Closed) => {}
        // All that is left to be seen is how it ended.
        Ok(()) => Drawing::begin(Shows::Line, handle, too_late).end(),
    }
}

enum Mode {
    Nothing,
    Line(Progress<Stderr>),
    View(Box<Watch>),
}

impl Mode {
    /// The line, if there is a terminal.
    fn line() -> Self {
        Progress::on_terminal().map_or(Self::Nothing, Self::Line)
    }
}

impl Drawing {
    /// Where the view cannot be had it is the line.
    fn begin(shows: Shows, handle: JobHandle, too_late: Arc<AtomicBool>) -> Self {
        let mode = match shows {
            Shows::Nothing => Mode::Nothing,
            Shows::Line => Mode::line(),
            Shows::View => match Watch::claimed(true, &too_late) {
                Ok(Some(watch)) => Mode::View(Box::new(watch)),
                Ok(None) | Err(_) => Mode::line(),
            },
        };
        Self { handle, mode, next: Moment::now(), saving: None, too_late }
    }

    /// Draws until the job is over, or nobody waits for it any more; says when Ctrl-C is pressed where it is no signal.
    async fn until(mut self, mut over: oneshot::Receiver<()>, interrupts: UnboundedSender<()>) {
        loop {
            tokio::select! {
                biased;
                ended = &mut over => {
                    if ended.is_ok() {
                        self.end();
                    }
                    return;
                }
                is_pressed = self.turn() => if is_pressed && interrupts.send(()).is_err() {
                    return;
                }
            }
        }
    }

    /// Draws once. Returns whether the job is to be interrupted.
    async fn turn(&mut self) -> bool {
        match &mut self.mode {
            Mode::Nothing => std::future::pending().await,
            Mode::Line(line) => {
                sleep_until(Some(self.next)).await;
                line.show(&self.handle.status(), columns());
                self.next = Moment::now().after(LINE);
            }
            Mode::View(_) => match self.view().await {
                Some(Asked::Interrupt) => {
                    // The next Ctrl-C is a signal again.
                    self.mode = Mode::line();
                    return true;
                }
                Some(Asked::Quit) => self.mode = Mode::line(),
                Some(Asked::Savepoint(name)) => self.save(name),
                None => {}
            },
        }
        false
    }

    /// Asks for a savepoint at once: who leaves the view the next moment has asked for it all the same.
    fn save(&mut self, name: String) {
        let Mode::View(watch) = &mut self.mode else { return };
        if self.saving.is_some() {
            return watch.say("a savepoint is being taken: ask for another one when it is complete");
        }
        let handle = self.handle.clone();
        let mut saving: Saving = Box::pin(async move { handle.savepoint(name).await });
        match saving.as_mut().now_or_never() {
            Some(saved) => watch.say(told(saved)),
            None => self.saving = Some(saving),
        }
    }

    /// A turn of the view: draws it if it is time, and takes a key if there is one.
    async fn view(&mut self) -> Option<Asked> {
        let Mode::View(watch) = &mut self.mode else { return None };
        let now = Moment::now();
        if now >= self.next {
            self.next = now.after(VIEW);
            if watch.draw(&self.handle.status()).is_err() {
                // The terminal is gone.
                return Some(Asked::Quit);
            }
        }
        if Watch::has_keys() {
            self.next = now;
            return watch.keys(Duration::ZERO).unwrap_or(Some(Asked::Quit));
        }
        let pause = sleep_until(Some(now.after(KEYS)));
        match &mut self.saving {
            None => pause.await,
            Some(saving) => tokio::select! {
                saved = saving => {
                    watch.say(told(saved));
                    self.saving = None;
                }
                () = pause => {}
            },
        }
        None
    }

    /// The job has ended: gives the terminal back, and leaves a last line.
    fn end(&mut self) {
        if matches!(self.mode, Mode::View(_)) {
            self.mode = Mode::line();
        }
        // What comes from elsewhere meanwhile stands where the line would.
        let is_late = self.too_late.load(SeqCst);
        if let Mode::Line(line) = &mut self.mode
            && !is_late
        {
            // Who waits is about to be told that it is over.
            let status = JobStatus { state: State::Ended, ..self.handle.status() };
            line.end(&status, columns());
        }
        self.mode = Mode::Nothing;
    }
}

/// What came of a savepoint.
fn told(saved: Result<Epoch>) -> String {
    match saved {
        Ok(epoch) => format!("the savepoint is checkpoint {epoch}"),
        Err(error) => error.to_string(),
    }
}

/// How wide the terminal is.
fn columns() -> u16 {
    crossterm::terminal::size().map_or(80, |(columns, _)| columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only one thing is shown at a time, also by the tests beside this one.
    async fn claim() -> Claim {
        loop {
            match Claim::take() {
                Some(claim) => return claim,
                None => tokio::task::yield_now().await,
            }
        }
    }

    /// As in a terminal that is stopped, and goes on only when something else on this thread does.
    #[tokio::test]
    async fn leaving_a_terminal_blocks_nobody() {
        let ((go_on, goes_on), (through, is_through)) = (mpsc::channel::<()>(), mpsc::channel());
        let shown = Shown::begin(claim().await, |wanted, _| async move {
            assert!(wanted.over.await.is_err());
            goes_on.recv().unwrap();
            through.send(()).unwrap();
        });
        let mut show = Show(Some(shown.unwrap()));
        tokio::join!(show.leave(), async { go_on.send(()).unwrap() });
        assert!(is_through.try_recv().is_ok(), "it was given up");
    }

    /// Time passes at once where it is all that is waited for.
    #[tokio::test(start_paused = true)]
    async fn who_comes_to_it_too_late_knows() {
        let ((go_on, goes_on), (begins, begun)) = (mpsc::channel::<()>(), mpsc::channel());
        let (knows, knew) = mpsc::channel();
        let shown = Shown::begin(claim().await, |mut wanted, _| async move {
            begins.send(()).unwrap();
            goes_on.recv().unwrap();
            knows.send((wanted.over.try_recv().is_ok(), wanted.too_late.load(SeqCst))).unwrap();
        });
        let mut show = Show(Some(shown.unwrap()));
        begun.recv().unwrap();
        show.end().await;
        go_on.send(()).unwrap();
        assert_eq!(knew.recv().unwrap(), (true, true), "the job is over, and nobody waits any more");
    }
}
