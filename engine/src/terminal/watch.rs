//! The full view at work: draws what a status says, and takes keys.

use std::{io, sync::atomic::AtomicBool, time::Duration};

use crossterm::event::{Event, KeyEventKind, poll, read};

use super::{
    keys::Looking,
    screen::{Claim, Screen},
    view,
};
use crate::status::JobStatus;

/// What the user wants of who shows the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// To leave the view.
    Quit,
    /// Ctrl-C. In the view it is a key and no signal, so it is for you to act on.
    Interrupt,
    /// A savepoint of this name. Tell with [`Watch::say`] what came of it.
    Savepoint(String),
}

/// A view of a job that takes the whole terminal, on stderr; dropping it gives the terminal back, and so does a panic.
///
/// [`Job::watch`](crate::Job::watch) shows it for a job of this process; this is for who has its [`JobStatus`] from elsewhere.
///
/// ```no_run
/// use std::time::Duration;
/// use windrow::{status::JobStatus, terminal::{Asked, Watch}};
///
/// # fn asked_somewhere() -> JobStatus { JobStatus::default() }
/// # fn main() -> std::io::Result<()> {
/// let Some(mut watch) = Watch::begin(false)? else { return Ok(()) };      // no terminal
/// loop {
///     watch.draw(&asked_somewhere())?;
///     if let Some(Asked::Quit | Asked::Interrupt) = watch.keys(Duration::from_millis(250))? {
///         return Ok(());
///     }
/// }
/// # }
/// ```
pub struct Watch {
    screen: Screen,
    looking: Looking,
    operators: usize,
    /// Given back behind the screen; somebody else has it for a job of this process.
    _claim: Option<Claim>,
}

impl Watch {
    /// Takes the terminal; `None` where stderr or stdin is none, and while something else of this process is shown there. `saves`: whether
    /// the user may ask for savepoints.
    pub fn begin(saves: bool) -> io::Result<Option<Self>> {
        let Some(claim) = Claim::take() else { return Ok(None) };
        Ok(Self::claimed(saves, &AtomicBool::new(false))?.map(|watch| Self { _claim: Some(claim), ..watch }))
    }

    /// The same for who has the claim; `None` also when it is too late.
    pub(super) fn claimed(saves: bool, too_late: &AtomicBool) -> io::Result<Option<Self>> {
        let looking = Looking { saves, ..Looking::default() };
        Ok(Screen::take(too_late)?.map(|screen| Self { screen, looking, operators: 0, _claim: None }))
    }

    /// Shows this.
    pub fn draw(&mut self, status: &JobStatus) -> io::Result<()> {
        self.operators = status.operators.len();
        let looking = &self.looking;
        self.screen.draw(|frame| view::draw(frame, status, looking))
    }

    /// Waits for so long for keys, and takes those that come. Returns early when the view has to be drawn again.
    pub fn keys(&mut self, patience: Duration) -> io::Result<Option<Asked>> {
        if !poll(patience)? {
            return Ok(None);
        }
        match read()? {
            // Some terminals tell when a key is let go, too.
            Event::Key(key) if key.kind != KeyEventKind::Release => Ok(self.looking.key(key, self.operators)),
            _ => Ok(None),
        }
    }

    /// Whether something waits that [`Watch::keys`] would take at once.
    pub(super) fn has_keys() -> bool {
        poll(Duration::ZERO).unwrap_or(false)
    }

    /// Shows a line below, until the next one or the next key; an empty one takes it away.
    pub fn say(&mut self, message: impl Into<String>) {
        self.looking.message = Some(message.into()).filter(|message| !message.is_empty());
    }
}
