//! Connections: as many as there may be, each for as long as it may take, and one request on each.
//!
//! ```text
//!   accept ──► fewer than the bound? ──no──► 503
//!                 │
//!                 ▼            a head within 10 s          an answer                 read within 30 s
//!              connection ─────────────────────► answer() ──────────► the client ───────────────────► closed
//!                                                  └ panics: 500
//! ```
//!
//! All of it is one task, and a connection one future in it: dropped with the server, counted by its length. There is no keep-alive.
//! On loopback a connection costs less than to find out which of the idle ones may be closed when there are too many.

use std::{convert::Infallible, future::poll_fn, io::Write, panic::AssertUnwindSafe, pin::pin, time::Duration};

use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
    time::{sleep, timeout},
};

use super::answer::{self, Response};

/// What clients may take.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    /// How many connections there are at once.
    pub(super) connections: usize,
    /// How long a request may take to come, up to its body.
    pub(super) head: Duration,
    /// How long an answer may take to be read.
    pub(super) read: Duration,
    /// How long answers that are under way may take at the end.
    pub(super) farewell: Duration,
}

/// The bytes of the first line of a request and its headers. Also so much is read ahead of a body.
pub(super) const HEAD_BYTES: usize = 16 << 10;
/// How many headers there may be.
const HEADERS: usize = 64;
/// What is waited for when no connection can be accepted, because all files that the process may have are open.
const OUT_OF_FILES: Duration = Duration::from_millis(100);

impl Default for Limits {
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self { connections: 64, head: secs(10), read: secs(30), farewell: secs(1) }
    }
}

/// Answers requests until `stopped` is told something, or nobody can tell it any more.
pub(super) async fn serve<F, Answer>(
    listener: TcpListener,
    limits: &Limits,
    answer: F,
    mut stopped: oneshot::Receiver<()>,
) where
    F: Fn(Request<Incoming>) -> Answer,
    Answer: Future<Output = Response>,
{
    let mut connections = FuturesUnordered::new();
    let (closing, closed) = watch::channel(());
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            Some(()) = connections.next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() < limits.connections => {
                    connections.push(connection(stream, limits, &answer, closed.clone()));
                }
                Ok((stream, _)) => refuse(stream),
                Err(_) => sleep(OUT_OF_FILES).await,
            },
        }
    }
    drop((listener, closing));
    let _ = timeout(limits.farewell, async { while connections.next().await.is_some() {} }).await;
}

/// One request, and its answer.
async fn connection<F, Answer>(stream: TcpStream, limits: &Limits, answer: &F, mut closing: watch::Receiver<()>)
where
    F: Fn(Request<Incoming>) -> Answer,
    Answer: Future<Output = Response>,
{
    let (came, mut has_come) = watch::channel(false);
    let (answered, mut has_answer) = watch::channel(false);
    let service = service_fn(|request| {
        came.send_replace(true);
        let answer = answer(request);
        let answered = &answered;
        async move {
            // A mistake of ours is an answer as well: neither the job nor the other clients are to suffer from it.
            let response = AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|_| answer::panicked());
            answered.send_replace(true);
            Ok::<_, Infallible>(response)
        }
    });
    let mut http = http1::Builder::new();
    http.keep_alive(false).max_buf_size(HEAD_BYTES).max_headers(HEADERS);
    let mut served = pin!(http.serve_connection(TokioIo::new(stream), service));
    let patience = async {
        tokio::select! {
            _ = has_come.wait_for(|come| *come) => {}
            // The server ends, and nobody has asked for anything here.
            _ = closing.changed() => return,
            () = sleep(limits.head) => return,
        }
        let _ = has_answer.wait_for(|answered| *answered).await;
        sleep(limits.read).await;
    };
    tokio::select! {
        // What a client did wrong, or that it went away, is its own affair.
        _ = poll_fn(|context| served.as_mut().poll(context)) => {}
        () = patience => {}
    }
}

/// There are too many already. It must not wait, so that what does not fit into the socket at once is lost.
fn refuse(stream: TcpStream) {
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write(answer::TOO_MANY.as_bytes());
    }
}
