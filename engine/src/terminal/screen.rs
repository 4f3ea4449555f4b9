//! The terminal as a whole: taken for the view, and given back whatever happens.
//!
//! A panic would be written onto the view and go with it, so it gives the terminal back first; so does whoever drops the screen.

use std::{
    io::{self, IsTerminal, Stderr},
    panic,
    sync::{
        Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use crossterm::{
    cursor::Show,
    execute,
    terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
};
use ratatui::{Frame, Terminal, backend::CrosstermBackend};

/// Whether somebody draws on the terminal, be it a line or all of it.
static CLAIMED: AtomicBool = AtomicBool::new(false);

/// Two who draw would draw over each other: who has this is the one that does, until it is dropped.
pub(super) struct Claim(());

impl Claim {
    /// `None` while another has it.
    pub(super) fn take() -> Option<Self> {
        (!CLAIMED.swap(true, SeqCst)).then_some(Self(()))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        CLAIMED.store(false, SeqCst);
    }
}

/// Whether the whole terminal is taken. Held while keys change, so that it is true whenever there is no line mode; never while something
/// is drawn, which may take for ever.
static TAKEN: Mutex<bool> = Mutex::new(false);
static HOOK: Once = Once::new();

fn taken() -> MutexGuard<'static, bool> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The terminal behind stderr, so that rows may go from stdout to a file. While it lives there is no line mode: Ctrl-C is a key.
pub(super) struct Screen(Terminal<CrosstermBackend<Stderr>>);

impl Screen {
    /// Takes the terminal; `None` where stderr or stdin is none, and when it is too late: before [`line_mode`] this says that nobody waits
    /// until the terminal is given back.
    pub(super) fn take(too_late: &AtomicBool) -> io::Result<Option<Self>> {
        if !io::stderr().is_terminal() || !io::stdin().is_terminal() {
            return Ok(None);
        }
        HOOK.call_once(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |panic| {
                give_back();
                before(panic);
            }));
        });
        let mut taken = taken();
        if too_late.load(SeqCst) {
            return Ok(None);
        }
        enable_raw_mode()?;
        *taken = true;
        drop(taken);
        // From here on dropping it gives the terminal back, also when the rest fails.
        let entered = execute!(io::stderr(), EnterAlternateScreen);
        let terminal = entered.and_then(|()| Terminal::new(CrosstermBackend::new(io::stderr())));
        terminal.map(|terminal| Some(Self(terminal))).inspect_err(|_| give_back())
    }

    /// Fails when the terminal is not ours any more: a panic has given it back, of a task perhaps whose job goes on.
    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        if !*taken() {
            return Err(io::Error::other("something panicked"));
        }
        self.0.draw(draw).map(|_| ())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Makes keys what they were before a view took the terminal, and draws nothing: for a program that has to end now, and cannot wait until
/// a terminal that is stopped takes what is drawn. Does nothing where no view is shown.
///
/// ```no_run
/// # fn main_is_stuck() -> bool { true }
/// // A signal has asked the program to end, and the thread that has the view does not.
/// if main_is_stuck() {
///     windrow::terminal::line_mode();
///     std::process::exit(143);
/// }
/// ```
pub fn line_mode() {
    if *taken() {
        let _ = disable_raw_mode();
    }
}

fn give_back() {
    let was_taken = {
        let mut taken = taken();
        if *taken {
            // Nobody is left to tell if this fails.
            let _ = disable_raw_mode();
        }
        std::mem::replace(&mut *taken, false)
    };
    if was_taken {
        let _ = execute!(io::stderr(), LeaveAlternateScreen, Show);
    }
}
