//! Shows a job of this process while somebody waits for it: what [`Job::progress`](crate::Job::progress) and
//! [`Job::watch`](crate::Job::watch) asked for.
//!
//! It is polled by who waits, beside the tasks; so it needs no task and no thread of its own, and ends with the wait.

use std::{io::Stderr, pin::Pin, time::Duration};

use futures::FutureExt;
use windrow_connectors::Epoch;

use super::{
    progress::Progress,
    watch::{Asked, Watch},
};
use crate::{
    JobHandle, Result,
    clock::{Moment, sleep_until},
    status::{JobStatus, State},
};

/// How often the line is rewritten, and the view drawn.
const LINE: Duration = Duration::from_millis(500);
const VIEW: Duration = Duration::from_millis(250);
/// How often keys are looked for.
const KEYS: Duration = Duration::from_millis(25);

/// What a job shows while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shows {
    #[default]
    Nothing,
    Line,
    View,
}

/// A savepoint that the user has asked for.
type Saving = Pin<Box<dyn Future<Output = Result<Epoch>> + Send>>;

pub(crate) struct Show {
    handle: JobHandle,
    mode: Mode,
    /// When to draw again.
    next: Moment,
    saving: Option<Saving>,
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

impl Show {
    /// Begins to show what was asked for. Where the view cannot be had it is the line, and where there is no terminal nothing.
    pub(crate) fn begin(shows: Shows, handle: JobHandle) -> Self {
        let mode = match shows {
            Shows::Nothing => Mode::Nothing,
            Shows::Line => Mode::line(),
            Shows::View => match Watch::begin(true) {
                Ok(Some(watch)) => Mode::View(Box::new(watch)),
                Ok(None) | Err(_) => Mode::line(),
            },
        };
        Self { handle, mode, next: Moment::now(), saving: None }
    }

    /// Shows the job, until Ctrl-C is pressed where it is no signal. May be dropped and called again at any time.
    pub(crate) async fn interrupted(&mut self) {
        loop {
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
                        return;
                    }
                    Some(Asked::Quit) => self.mode = Mode::line(),
                    Some(Asked::Savepoint(name)) => self.save(name),
                    None => {}
                },
            }
        }
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
    pub(crate) fn end(&mut self) {
        if matches!(self.mode, Mode::View(_)) {
            self.mode = Mode::line();
        }
        if let Mode::Line(line) = &mut self.mode {
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
