//! Threads beside those of the job: what a client asks for is computed there, and what a terminal shows is drawn there. So the tasks of
//! the job lose no worker to it: a page answers also while they all are busy, and a terminal that is stopped stops nobody else.
//!
//! ```text
//!   run(future) ──► thread, with a runtime of its own ──► the receiver: what the future gave; nothing when it panicked
//! ```

use std::{io, thread};

use tokio::{runtime::Builder, sync::oneshot};

/// Drives a future on a thread of its own until it ends, or nobody waits for what it gives. `stack` is the size of its stack in bytes, if
/// that matters.
pub(crate) fn run<T: Send + 'static>(
    name: &str,
    stack: Option<usize>,
    future: impl Future<Output = T> + Send + 'static,
) -> io::Result<oneshot::Receiver<T>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (mut give, given) = oneshot::channel();
    let thread = thread::Builder::new().name(name.into());
    let thread = stack.into_iter().fold(thread, |thread, bytes| thread.stack_size(bytes));
    thread.spawn(move || {
        let ended = runtime.block_on(async {
            tokio::select! {
                ended = future => Some(ended),
                () = give.closed() => None,
            }
        });
        // A read of a file that hangs is not waited for.
        runtime.shutdown_background();
        if let Some(ended) = ended {
            // Who asked may have gone in this moment.
            let _ = give.send(ended);
        }
    })?;
    Ok(given)
}
