//! Ctrl-C and SIGTERM, for a command that has taken the terminal: they would end it where it is, and leave the terminal without echo
//! and lines.
//!
//! ```text
//!   first signal ──► the command is told, leaves the view and ends
//!        └── it does not within [`PATIENCE`], or a second one comes ──► keys as they were, and the process is ended
//! ```
//!
//! It does not where the terminal is stopped: whoever writes to it waits.

use std::{io, process, thread, time::Duration};

use tokio::{runtime::Builder, time::timeout};
use windrow::terminal::line_mode;

/// How long the command may take to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// Calls `tell` when a signal asks the command to end; it is ended if it does not. From now on signals do not end it by themselves.
pub(crate) fn heed(tell: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _inside = runtime.enter();
        Signals::new()?
    };
    thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            let first = signals.next().await;
            tell();
            let last = timeout(PATIENCE, signals.next()).await.unwrap_or(first);
            line_mode();
            // As a shell tells that a signal has ended a program.
            process::exit(128 + last)
        })
    })?;
    Ok(())
}

/// Hears signals from when it is made, and tells their numbers.
#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};

        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
        }
    }
}

/// There is no SIGTERM here.
#[cfg(windows)]
struct Signals(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl Signals {
    fn new() -> io::Result<Self> {
        tokio::signal::windows::ctrl_c().map(Self)
    }

    async fn next(&mut self) -> i32 {
        self.0.recv().await;
        2
    }
}
