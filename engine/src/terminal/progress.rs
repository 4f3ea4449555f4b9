//! One line on stderr, rewritten in place: what other programs print covers it, and the next time it stands below.

use std::io::{IsTerminal, Stderr, Write};

use super::line;
use crate::status::JobStatus;

/// The line, and where it goes.
pub(super) struct Progress<W> {
    out: W,
    /// Whether there is a line that has no end yet.
    open: bool,
}

impl Progress<Stderr> {
    /// On stderr; `None` where that is no terminal.
    pub(super) fn on_terminal() -> Option<Self> {
        let out = std::io::stderr();
        out.is_terminal().then(|| Self::to(out))
    }
}

impl<W: Write> Progress<W> {
    pub(super) fn to(out: W) -> Self {
        Self { out, open: false }
    }

    /// Puts the line of now in place of the former.
    pub(super) fn show(&mut self, status: &JobStatus, columns: u16) {
        // The last column stays free: a line that fills it is wrapped by some terminals.
        let line = line(status, usize::from(columns.saturating_sub(1)));
        // A line that cannot be written is not worth failing for.
        let _ = write!(self.out, "\r{line}\x1b[K").and_then(|()| self.out.flush());
        self.open = true;
    }

    /// Shows the last one, and ends the line.
    pub(super) fn end(&mut self, status: &JobStatus, columns: u16) {
        self.show(status, columns);
        let _ = writeln!(self.out).and_then(|()| self.out.flush());
        self.open = false;
    }
}

impl<W> Drop for Progress<W> {
    fn drop(&mut self) {
        if self.open {
            // What comes next, an error perhaps, begins on a line of its own.
            let _ = writeln!(std::io::stderr());
        }
    }
}
