//! Ctrl-C and SIGTERM, for a command that has taken the terminal: they would end it where it is, and leave the terminal without echo
//! and lines.

use std::{io, thread};

use tokio::runtime::Builder;

/// Calls `tell` when a signal asks the command to end. From now on signals do not end it by themselves.
pub(crate) fn heed(tell: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let asked = {
        let _inside = runtime.enter();
        asked()?
    };
    thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(asked);
        tell();
    })?;
    Ok(())
}

/// Hears signals from now on, and ends with the first.
#[cfg(unix)]
fn asked() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// There is no SIGTERM here.
#[cfg(windows)]
fn asked() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = tokio::signal::windows::ctrl_c()?;
    Ok(async move {
        interrupt.recv().await;
    })
}
