//! Connections: as many as there may be, each for as long as it may take, and one request on each.
//!
//! ```text
//!   accept ──► fewer than the bound? ──no──► the oldest without a head goes; all have one: 503
//!                 │
//!                 ▼            a head within 10 s          an answer                 read within 30 s
//!              connection ─────────────────────► answer() ──────────► the client ───────────────────► closed
//!                                                  └ panics: 500
//! ```
//!
//! All of it is one task, and a connection one future in it: dropped with the server, counted by its length. There is no keep-alive.
//! On loopback a connection costs less than to find out which of the idle ones may be closed when there are too many.

use std::{
    collections::VecDeque, convert::Infallible, future::poll_fn, io::Write, panic::AssertUnwindSafe, pin::pin,
    time::Duration,
};

use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
    task::yield_now,
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
    let mut silent = Silent::default();
    let (closing, closed) = watch::channel(());
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            Some(()) = connections.next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    if connections.len() >= limits.connections {
                        // Whose head has come meanwhile is not silent, and who is over has no place: that is seen first.
                        yield_now().await;
                        while connections.next().now_or_never().flatten().is_some() {}
                    }
                    if connections.len() >= limits.connections && silent.oldest_leaves() {
                        // It is over as soon as it is looked at.
                        connections.next().await;
                    }
                    match connections.len() < limits.connections {
                        true => connections.push(connection(stream, limits, &answer, silent.newest(), closed.clone())),
                        false => refuse(stream),
                    }
                }
                Err(_) => sleep(OUT_OF_FILES).await,
            },
        }
    }
    drop((listener, closing));
    let _ = timeout(limits.farewell, async { while connections.next().await.is_some() {} }).await;
}

/// The connections on which no head has come yet, the oldest first: who only holds a place gives it to who comes.
#[derive(Default)]
struct Silent(VecDeque<(watch::Receiver<bool>, oneshot::Sender<()>)>);

/// What a connection tells, and is told, while it is silent.
struct Place {
    came: watch::Sender<bool>,
    leaves: oneshot::Receiver<()>,
}

impl Silent {
    /// A connection more.
    fn newest(&mut self) -> Place {
        self.forget();
        let (came, has_come) = watch::channel(false);
        let (leave, leaves) = oneshot::channel();
        self.0.push_back((has_come, leave));
        Place { came, leaves }
    }

    /// Tells the oldest to leave, if there is any.
    fn oldest_leaves(&mut self) -> bool {
        self.forget();
        self.0.pop_front().is_some_and(|(_, leave)| leave.send(()).is_ok())
    }

    /// Those that are over, or that have said what they want.
    fn forget(&mut self) {
        self.0.retain(|(has_come, leave)| !*has_come.borrow() && !leave.is_closed());
    }
}

/// One request, and its answer.
async fn connection<F, Answer>(
    stream: TcpStream,
    limits: &Limits,
    answer: &F,
    place: Place,
    mut closing: watch::Receiver<()>,
) where
    F: Fn(Request<Incoming>) -> Answer,
    Answer: Future<Output = Response>,
{
    let Place { came, leaves } = place;
    let mut has_come = came.subscribe();
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
        biased;
        // Before it is looked whether its head has come after all, so that no request is begun and left.
        Ok(()) = leaves => {}
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
