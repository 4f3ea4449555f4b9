//! A network in front of the broker that loses requests and replies, delays them, and answers in the broker's place.
//!
//! ```text
//!            requests ──> [header: what is it? a rule for it?] ─┬─> broker
//! client                                                        ├─ DropRequest: connection closed, broker never knows
//!   ^                                                           └─ Answer: an error, broker never knows
//!   └── replies, in order <── [the fault of its request] <── broker
//!                              ├─ DropReply: the broker has done it, the client never knows
//!                              └─ DelayReply
//! ```
//!
//! The broker names the proxy's port on the listener behind it, so that clients of the proxy stay with the proxy. One
//! thread per direction and connection; delays are plain sleeps.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

pub use kafka_protocol::{error::ResponseError, messages::ApiKey as Api};
use kafka_protocol::{
    messages::{
        AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, ApiKey, EndTxnResponse, FindCoordinatorRequest,
        FindCoordinatorResponse, InitProducerIdResponse, RequestHeader, ResponseHeader,
        add_partitions_to_txn_response::{AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult},
        find_coordinator_response::Coordinator,
    },
    protocol::{Decodable, Encodable, HeaderVersion, decode_request_header_from_buffer},
};

use super::Result;

/// No frame of a test is nearly so long.
const LONGEST: usize = 200 << 20;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// The connection is closed before the broker sees the request.
    DropRequest,
    /// The broker sees it a while later.
    DelayRequest(Duration),
    /// The broker does it, and the connection is closed before the client sees the reply.
    DropReply,
    /// The client sees the reply a while later.
    DelayReply(Duration),
    /// The broker never sees it; the client gets this error. For EndTxn, AddPartitionsToTxn, InitProducerId and
    /// FindCoordinator.
    Answer(ResponseError),
}

/// Which requests meet a fault. `Rule::of(Api::EndTxn, Fault::DropReply).times(1)`.
#[derive(Clone, Debug)]
pub struct Rule {
    api: Api,
    fault: Fault,
    chance: f64,
    skip: u64,
    times: u64,
}

impl Rule {
    /// Every request of this kind.
    pub fn of(api: Api, fault: Fault) -> Self {
        Self { api, fault, chance: 1.0, skip: 0, times: u64::MAX }
    }

    /// Each with this chance, from 0 to 1, drawn by the proxy's seed.
    #[must_use]
    pub fn chance(mut self, chance: f64) -> Self {
        self.chance = chance;
        self
    }

    /// Lets the first few pass.
    #[must_use]
    pub fn after(mut self, requests: u64) -> Self {
        self.skip = requests;
        self
    }

    /// At most so often.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }
}

/// What the proxy has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections of clients.
    pub connections: u64,
    /// Requests by kind, such as `EndTxn`, whatever became of them.
    pub requests: BTreeMap<String, u64>,
    /// Faults by kind of request.
    pub faults: BTreeMap<String, u64>,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    random: fastrand::Rng,
    counts: Counts,
    /// To be closed with the proxy.
    open: Vec<TcpStream>,
}

/// The proxy in front of a broker; see [`Options::proxied`](super::Options::proxied).
pub struct Proxy {
    address: String,
    state: Arc<Mutex<State>>,
    closed: Arc<AtomicBool>,
}

/// The proxy's port, before the broker behind it has one.
pub(super) struct Door(TcpListener);

impl Door {
    pub(super) fn open() -> Result<Self> {
        Ok(Self(TcpListener::bind("127.0.0.1:0")?))
    }

    pub(super) fn port(&self) -> u16 {
        self.0.local_addr().map(|address| address.port()).unwrap_or_default()
    }

    pub(super) fn serve(self, broker: u16) -> Result<Proxy> {
        let proxy =
            Proxy { address: format!("127.0.0.1:{}", self.port()), state: Arc::default(), closed: Arc::default() };
        let (state, closed) = (proxy.state.clone(), proxy.closed.clone());
        thread::spawn(move || {
            for client in self.0.incoming().flatten() {
                if closed.load(Ordering::Acquire) {
                    break;
                }
                // A broker that is down refuses: the client sees its connection closed.
                let _ = connect(client, broker, &state);
            }
        });
        Ok(proxy)
    }
}

impl Proxy {
    /// Where clients reach the broker through it: `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// From now on these rules, and no others; a request meets the first that fits. The same seed draws the same numbers,
    /// request by request.
    ///
    /// # Errors
    ///
    /// When a rule answers a kind of request that the proxy cannot answer.
    pub fn inject(&self, seed: u64, rules: impl IntoIterator<Item = Rule>) -> Result<()> {
        let rules: Vec<Rule> = rules.into_iter().collect();
        let can = [Api::EndTxn, Api::AddPartitionsToTxn, Api::InitProducerId, Api::FindCoordinator];
        if let Some(rule) = rules.iter().find(|rule| matches!(rule.fault, Fault::Answer(_)) && !can.contains(&rule.api))
        {
            return Err(format!("the proxy cannot answer {:?}", rule.api).into());
        }
        let mut state = lock(&self.state);
        state.rules = rules;
        state.random = fastrand::Rng::with_seed(seed);
        Ok(())
    }

    /// No more faults.
    pub fn heal(&self) {
        lock(&self.state).rules.clear();
    }

    /// What it has done so far.
    pub fn counts(&self) -> Counts {
        lock(&self.state).counts.clone()
    }

    /// How many requests of this kind have met a fault.
    pub fn faults(&self, api: Api) -> u64 {
        lock(&self.state).counts.faults.get(&format!("{api:?}")).copied().unwrap_or_default()
    }

    /// Closes every connection, as a network does that goes away for a moment.
    pub fn cut(&self) {
        for stream in lock(&self.state).open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Release);
        self.cut();
        // Wakes the thread that waits for clients.
        let _ = TcpStream::connect(&self.address);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request under way: what comes back to the client in its turn.
struct Pending {
    correlation: i32,
    reply: Reply,
}

enum Reply {
    OfBroker(Option<Fault>),
    Made(Vec<u8>),
}

/// The requests of one connection under way, in order; and whether it is still open.
#[derive(Default)]
struct Line {
    pending: Mutex<(VecDeque<Pending>, bool)>,
    changed: Condvar,
}

impl Line {
    fn push(&self, pending: Pending) {
        lock(&self.pending).0.push_back(pending);
        self.changed.notify_all();
    }

    fn close(&self) {
        lock(&self.pending).1 = true;
        self.changed.notify_all();
    }

    /// The next in turn; none when the connection is closed.
    fn next(&self) -> Option<Pending> {
        let mut pending = lock(&self.pending);
        loop {
            if pending.1 {
                return None;
            }
            if let Some(next) = pending.0.pop_front() {
                return Some(next);
            }
            pending = self.changed.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The two sides of a connection.
struct Pair {
    client: TcpStream,
    broker: TcpStream,
    line: Line,
}

impl Pair {
    fn close(&self) {
        self.line.close();
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.broker.shutdown(Shutdown::Both);
    }
}

fn connect(client: TcpStream, broker: u16, state: &Arc<Mutex<State>>) -> io::Result<()> {
    let broker = TcpStream::connect(("127.0.0.1", broker))?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    {
        let mut state = lock(state);
        state.counts.connections += 1;
        state.open.retain(|stream| stream.peer_addr().is_ok());
        state.open.extend([client.try_clone()?, broker.try_clone()?]);
    }
    let pair = Arc::new(Pair { client, broker, line: Line::default() });
    let (forward, back, state) = (pair.clone(), pair, state.clone());
    thread::spawn(move || {
        // Whatever ends one direction ends the other.
        let _ = requests(&forward, &state);
        forward.close();
    });
    thread::spawn(move || {
        let _ = replies(&back);
        back.close();
    });
    Ok(())
}

/// Client to broker, until a fault or either side closes the connection.
fn requests(pair: &Pair, state: &Mutex<State>) -> Result<()> {
    loop {
        let frame = read(&pair.client)?;
        let mut body = frame.as_slice();
        let header = decode_request_header_from_buffer(&mut body)?;
        let api = ApiKey::try_from(header.request_api_key).map_err(|()| "a request of an unknown kind")?;
        let fault = fault(&mut lock(state), api);
        let pending = |reply| Pending { correlation: header.correlation_id, reply };
        match fault {
            Some(Fault::DropRequest) => return Ok(()),
            Some(Fault::Answer(error)) => {
                pair.line.push(pending(Reply::Made(answer(&header, api, error, body)?)));
                continue;
            }
            Some(Fault::DelayRequest(delay)) => thread::sleep(delay),
            Some(Fault::DropReply | Fault::DelayReply(_)) | None => {}
        }
        pair.line.push(pending(Reply::OfBroker(fault)));
        write(&pair.broker, &frame)?;
    }
}

/// Broker to client.
fn replies(pair: &Pair) -> Result<()> {
    while let Some(next) = pair.line.next() {
        let fault = match next.reply {
            Reply::Made(frame) => {
                write(&pair.client, &frame)?;
                continue;
            }
            Reply::OfBroker(fault) => fault,
        };
        let frame = read(&pair.broker)?;
        let correlation = frame.first_chunk().map(|bytes| i32::from_be_bytes(*bytes));
        if correlation != Some(next.correlation) {
            return Err("a reply to another request: was one produced that asks for none (acks=0)?".into());
        }
        match fault {
            Some(Fault::DropReply) => return Ok(()),
            Some(Fault::DelayReply(delay)) => thread::sleep(delay),
            _ => {}
        }
        write(&pair.client, &frame)?;
    }
    Ok(())
}

/// Counts a request and draws its fault.
fn fault(state: &mut State, api: Api) -> Option<Fault> {
    *state.counts.requests.entry(format!("{api:?}")).or_default() += 1;
    let mut found = None;
    for rule in state.rules.iter_mut().filter(|rule| rule.api == api) {
        if rule.skip > 0 {
            rule.skip -= 1;
        } else if rule.times > 0 && state.random.f64() < rule.chance {
            rule.times -= 1;
            found = Some(rule.fault);
            break;
        }
    }
    if found.is_some() {
        *state.counts.faults.entry(format!("{api:?}")).or_default() += 1;
    }
    found
}

/// An error as the broker would say it.
fn answer(header: &RequestHeader, api: Api, error: ResponseError, mut body: &[u8]) -> Result<Vec<u8>> {
    let (version, code) = (header.request_api_version, error.code());
    match api {
        Api::EndTxn => encode(header, &EndTxnResponse::default().with_error_code(code)),
        Api::InitProducerId => encode(header, &InitProducerIdResponse::default().with_error_code(code)),
        Api::FindCoordinator => {
            let request = FindCoordinatorRequest::decode(&mut body, version)?;
            let all = request.coordinator_keys.into_iter();
            let all = all.map(|key| Coordinator::default().with_key(key).with_error_code(code));
            // Either is left out where the version has the other.
            let response = FindCoordinatorResponse::default();
            let many = version >= 4;
            encode(
                header,
                &if many { response.with_coordinators(all.collect()) } else { response.with_error_code(code) },
            )
        }
        Api::AddPartitionsToTxn => {
            let request = AddPartitionsToTxnRequest::decode(&mut body, version)?;
            let topics = request.v3_and_below_topics.into_iter().map(|topic| {
                let partition = |index| {
                    let result = AddPartitionsToTxnPartitionResult::default();
                    result.with_partition_index(index).with_partition_error_code(code)
                };
                let results = topic.partitions.into_iter().map(partition).collect();
                let result = AddPartitionsToTxnTopicResult::default().with_name(topic.name);
                result.with_results_by_partition(results)
            });
            let response = AddPartitionsToTxnResponse::default().with_error_code(if version >= 4 { code } else { 0 });
            encode(header, &response.with_results_by_topic_v3_and_below(topics.collect()))
        }
        other => Err(format!("the proxy cannot answer {other:?}").into()),
    }
}

fn encode<R: Encodable + HeaderVersion>(request: &RequestHeader, response: &R) -> Result<Vec<u8>> {
    let version = request.request_api_version;
    let mut frame = Vec::new();
    let header = ResponseHeader::default().with_correlation_id(request.correlation_id);
    header.encode(&mut frame, R::header_version(version))?;
    response.encode(&mut frame, version)?;
    Ok(frame)
}

/// A frame without its length.
fn read(mut stream: &TcpStream) -> Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(i32::from_be_bytes(length))?;
    if length > LONGEST {
        return Err(format!("a frame of {length} bytes").into());
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame)?;
    Ok(frame)
}

fn write(mut stream: &TcpStream, frame: &[u8]) -> Result<()> {
    let length = i32::try_from(frame.len())?;
    stream.write_all(&[&length.to_be_bytes(), frame].concat())?;
    Ok(())
}
