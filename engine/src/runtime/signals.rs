//! What asks a process to end: Ctrl-C, and SIGTERM, which is how service managers and containers stop what they run.

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Hears both from when it is made on, and none is lost between two waits. What cannot be heard has the effect that it has without
/// a job: it ends the process.
#[cfg(unix)]
pub(crate) struct Signals {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
}

#[cfg(unix)]
impl Signals {
    pub(crate) fn new() -> Self {
        Self { interrupt: signal(SignalKind::interrupt()).ok(), terminate: signal(SignalKind::terminate()).ok() }
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            () = heard(self.interrupt.as_mut()) => {}
            () = heard(self.terminate.as_mut()) => {}
        }
    }
}

#[cfg(unix)]
async fn heard(signal: Option<&mut Signal>) {
    if let Some(signal) = signal
        && signal.recv().await.is_some()
    {
        return;
    }
    std::future::pending().await
}

/// Hears Ctrl-C; there is no SIGTERM here.
#[cfg(not(unix))]
pub(crate) struct Signals;

#[cfg(not(unix))]
impl Signals {
    pub(crate) fn new() -> Self {
        Self
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}
