//! A job over HTTP: a page to look at it, an API to ask, save and stop it by, and what Prometheus reads.
//!
//! ```text
//!                      thread of its own: no client takes time from the tasks of the job
//!   browser, CLI,   ┌───────────────────────────────────────────────────────────────┐
//!   Prometheus ───► │ server ──► access ──► routes ──► JobHandle: status, savepoint │ ──► the job
//!                   │ (bounds)   (who may)     │  └──► assets: the page             │
//!                   │                          └─────► state ──► checkpoint store   │
//!                   └───────────────────────────────────────────────┬───────────────┘
//!                                                                   └─ SQL: one more thread, one query at a time
//! ```
//!
//! [`Job::serve`](crate::Job::serve) switches it on, [`RunningJob::served`](crate::RunningJob::served) tells where it is. The
//! chapter `docs/src/http.md` of the book has every route with its answer.
//!
//! # Who may what
//!
//! | | without a token of yours (loopback only) | with [`Serve::token`] |
//! |---|---|---|
//! | the page itself: `/`, `/assets/…` | everybody on the machine | everybody who reaches the address |
//! | reading: `GET` | everybody on the machine, not by way of a proxy | who has the token |
//! | the state in SQL: `/state/…` | who has the token, which is drawn at the start | who has the token |
//! | changing: `POST` | who has the token | who has the token |
//!
//! Who has the token can exhaust the process with a query: DataFusion does not keep account of all memory that it takes. The limits are
//! against accidents.
//!
//! A token goes in the header `Authorization: Bearer …`, never in a path or a query, which are logged. A request must name a host
//! that is this one (against a foreign name that is made to point here), must not come from a page of elsewhere (`Origin`,
//! `Sec-Fetch-Site`), and one that changes something must be JSON. Everything is bounded: the head and the body of a request, how long
//! it may take to come, how many come at once, what an answer may cost. TLS is for a proxy in front: see [`Serve::host`].

mod access;
mod answer;
mod assets;
mod routes;
mod server;
mod state;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

/// For who wants to hand on [`Served::token`].
pub use secrecy::ExposeSecret;
use secrecy::SecretString;
use tokio::sync::oneshot;
use windrow_connectors::Secret;

use self::{access::Access, routes::Routes, server::Limits};
use crate::{Error, JobHandle, Result, thread};

/// How many random bytes a token has that nobody has given.
const TOKEN_BYTES: usize = 32;
/// How much longer than the server itself a job that has ended waits for its last answers.
const FAREWELL: Duration = Duration::from_secs(2);
/// The same of one that was aborted: who did that wants it to be over, and gets an answer of a few bytes.
const CURT_FAREWELL: Duration = Duration::from_millis(500);

/// Where a job is served, and to whom. An address alone is enough on this machine: see [`Job::serve`](crate::Job::serve).
///
/// ```
/// use windrow::{prelude::*, serve::Serve};
///
/// // For other machines: with a token, and the name that they know this one by.
/// let serve = Serve::at("0.0.0.0:8080").token(Secret::file("/run/secrets/windrow")).host("jobs.example.com");
/// let job = Job::new("hot-items").serve(serve);
/// ```
#[derive(Clone, Debug)]
pub struct Serve {
    address: String,
    token: Option<Secret>,
    hosts: Vec<String>,
}

impl Serve {
    /// At this address of this machine: an IP address or `localhost`, a colon, and a port, of which 0 is any that is free.
    pub fn at(address: impl Into<String>) -> Self {
        Self { address: address.into(), token: None, hosts: Vec::new() }
    }

    /// At another address, with the token and the names that it has.
    pub(crate) fn moved(self, address: impl Into<String>) -> Self {
        Self { address: address.into(), ..self }
    }

    /// With this token, which everything but the files of the page then needs. It consists of visible characters of ASCII; long
    /// random ones are good: who tries is not slowed down. Unless told one is drawn at each start, for changes and queries of the state;
    /// that is enough on loopback, and refused elsewhere and behind a proxy. [`Serve`] has an example.
    #[must_use]
    pub fn token(self, token: Secret) -> Self {
        Self { token: Some(token), ..self }
    }

    /// Also for requests to this name, without a port: that of the machine, or of a proxy in front of it that does TLS. IP addresses, if
    /// served on more than loopback, and `localhost` need not be named. Whom others know by a name they can reach, so that it needs a
    /// token too. [`Serve`] has an example.
    #[must_use]
    pub fn host(mut self, name: impl Into<String>) -> Self {
        self.hosts.push(name.into());
        self
    }

    /// The address to listen at; what is wrong, in words, when the job cannot be served so.
    pub(crate) fn check(&self) -> Result<SocketAddr, String> {
        let Self { address, token, hosts } = self;
        let local = |rest: &str| rest.parse().ok().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let parsed = address.parse().ok().or_else(|| address.strip_prefix("localhost:").and_then(local));
        let Some(parsed) = parsed else {
            return Err(format!(
                "it is to be served at {address:?}, which is no address: write an IP address of this machine and a port, such as \
                 127.0.0.1:8080"
            ));
        };
        if !parsed.ip().is_loopback() && token.is_none() {
            return Err(format!(
                "it is to be served at {parsed}, and others can reach it there: give it a token, \
                 Serve::at({address:?}).token(Secret::env(\"WINDROW_TOKEN\")), or an address of this machine alone, such as \
                 127.0.0.1:{}",
                parsed.port()
            ));
        }
        let is_name = |name: &&String| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
        };
        if let Some(name) = hosts.iter().find(|name| !is_name(name)) {
            return Err(format!(
                "it is to be served to {name:?}, which is no name of a host: write it without a scheme, a port and a path, such as \
                 jobs.example.com"
            ));
        }
        match hosts.first().filter(|_| token.is_none()) {
            Some(name) => Err(format!(
                "it is to be served as {name:?}, so that others can reach it, as through a proxy, and without a token everybody who does \
                 reads what it does: give it one, Serve::at({address:?}).host({name:?}).token(Secret::env(\"WINDROW_TOKEN\")), or leave \
                 the name out"
            )),
            None => Ok(parsed),
        }
    }

    /// Takes the address, and begins to serve when it is told which job.
    pub(crate) async fn listen(&self, job: &str) -> Result<Listening> {
        let failed = |reason: String| Error::Serve { job: job.into(), address: self.address.clone(), reason };
        let at = self.check().map_err(failed)?;
        let (this, (tell, told), (begin, begun), (stop, stopped)) =
            (self.clone(), oneshot::channel(), oneshot::channel(), oneshot::channel());
        // A secret may be in a file, and is read there too, not on a worker of the runtime.
        let ended = thread::run("windrow-serve", None, async move {
            match this.open(at) {
                Ok((listener, access, address)) => {
                    let _ = tell.send(Ok((address, access.token.clone())));
                    // Unless the job could not be started.
                    if let Ok(job) = begun.await {
                        work(listener, access, job, stopped).await;
                    }
                }
                Err(reason) => {
                    let _ = tell.send(Err(reason));
                }
            }
        });
        let ended = ended.map_err(|error| failed(format!("no thread can be had for it: {error}")))?;
        let told = told.await.unwrap_or_else(|_| Err("its thread has ended".into()));
        let (address, token) = told.map_err(failed)?;
        Ok(Listening { served: Served { address, token, drawn: self.token.is_none(), _stop: stop, ended }, begin })
    }

    /// A socket, and who may use it.
    fn open(&self, at: SocketAddr) -> Result<(TcpListener, Access, SocketAddr), String> {
        let token = match &self.token {
            Some(token) => token.reveal().map_err(|error| error.to_string())?,
            None => drawn().map_err(|error| format!("no random token can be drawn: {error}"))?,
        };
        if !token.expose_secret().chars().all(|c| c.is_ascii_graphic()) {
            return Err(
                "its token has other characters than visible ones of ASCII, and cannot be sent in a header".into()
            );
        }
        let taken = |error: std::io::Error| {
            match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "the address is in use: by this job, if it runs already. Stop who uses it, or take another port, or 0 for any that \
                 is free"
                    .into()
            }
            std::io::ErrorKind::AddrNotAvailable => format!("{} is no address of this machine", at.ip()),
            _ => format!("the address cannot be had: {error}"),
        }
        };
        let listener = TcpListener::bind(at).map_err(taken)?;
        listener.set_nonblocking(true).map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let access = Access::new(address.ip(), &self.hosts, Arc::new(token), self.token.is_some());
        Ok((listener, access, address))
    }
}

impl From<&str> for Serve {
    fn from(address: &str) -> Self {
        Self::at(address)
    }
}

impl From<String> for Serve {
    fn from(address: String) -> Self {
        Self::at(address)
    }
}

impl From<SocketAddr> for Serve {
    fn from(address: SocketAddr) -> Self {
        Self::at(address.to_string())
    }
}

/// Serves a job until it is told to stop, or nobody is there any more who could.
async fn work(listener: TcpListener, access: Access, job: JobHandle, stopped: oneshot::Receiver<()>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let routes = Arc::new(Routes::new(access, job));
    let answer = |request| {
        let routes = routes.clone();
        async move { routes.answer(request).await }
    };
    server::serve(listener, &Limits::default(), answer, stopped).await;
}

/// A token that nobody guesses, in hexadecimal digits.
fn drawn() -> Result<SecretString, getrandom::Error> {
    let mut bytes = [0; TOKEN_BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into())
}

/// An address that is taken. Dropped, it is free again.
pub(crate) struct Listening {
    served: Served,
    begin: oneshot::Sender<JobHandle>,
}

impl Listening {
    /// Serves this job there.
    pub(crate) fn serve(self, job: JobHandle) -> Served {
        // A thread that has ended serves nobody, and stops nobody.
        let _ = self.begin.send(job);
        self.served
    }

    /// Gives the address back, and waits until it is free.
    pub(crate) async fn close(self) {
        let Self { served: Served { ended, .. }, begin } = self;
        drop(begin);
        // Nothing is sent by a thread that panicked, and its socket is closed too.
        let _ = ended.await;
    }
}

/// Where a running job is served: [`RunningJob::served`](crate::RunningJob::served). It ends with the job.
///
/// ```
/// use windrow::{prelude::*, serve::ExposeSecret};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> windrow::Result<()> {
/// let job = Job::new("numbers").serve("127.0.0.1:0");
/// job.source(Sequence::endless().rate(1_000)).sink(MemorySink::new());
/// let running = job.start().await?;
/// let served = running.served().unwrap();
/// assert_ne!(served.address().port(), 0);
/// assert_eq!(served.url(), format!("http://{}/#token={}", served.address(), served.token().expose_secret()));
/// assert!(!format!("{served:?}").contains(served.token().expose_secret()));
/// # running.handle().stop();
/// running.wait().await?;
/// # Ok(())
/// # }
/// ```
pub struct Served {
    address: SocketAddr,
    token: Arc<SecretString>,
    /// Whether nobody has given the token.
    drawn: bool,
    /// Dropped, the server stops.
    _stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl Served {
    /// The address, with the port that was free if any was wanted.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What to open in a browser of this machine. A token that was drawn is in it, behind `#token=`, a part that browsers send to nobody:
    /// so it is for the person who may stop the job. A token of yours ([`Serve::token`]) is not, because this is often printed: paste it
    /// into the page.
    pub fn url(&self) -> String {
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let page = format!("http://{}/", SocketAddr::new(ip, self.address.port()));
        match self.drawn {
            // In hexadecimal digits, of which none is to be escaped.
            true => format!("{page}#token={}", self.token.expose_secret()),
            false => page,
        }
    }

    /// The token that changes and queries of the state need, and everything, if it was configured.
    pub fn token(&self) -> &SecretString {
        &self.token
    }

    /// Takes no more requests, and waits until those that were being answered are, for about a second at most; after an abort hardly.
    pub(crate) async fn end(self, aborted: bool) {
        let Self { _stop: stop, ended, .. } = self;
        drop(stop);
        let _ = tokio::time::timeout(if aborted { CURT_FAREWELL } else { FAREWELL }, ended).await;
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served").field("address", &self.address).finish_non_exhaustive()
    }
}
