//! What happens, in the order in which it happens: requests that arrive, replies, control records, expiries.
//!
//! ```text
//!   events, by time:  3 arrives: Produce   5 answered   9 control record   60,000 expires
//!                     └── handled by whoever looks at the world when the clock has come so far ──►
//! ```
//!
//! Nothing is spawned: a request that was sent arrives also when its sender is gone, as in the world outside, and the same calls at
//! the same times give the same events.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{
    broker::{Broker, Code, Partition, Reply, Request},
    client::Client,
    coordinator::Next,
    faults::{Fate, Plan},
};

/// How the cluster and its clients are set up; times in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub seed: u64,
    /// To so many of a hundred requests something happens.
    pub percent: u32,
    pub transaction_timeout: u64,
    pub request_timeout: u64,
    /// How long a client tries to deliver a record.
    pub message_timeout: u64,
    /// How long a client tries to commit, to abort, to take over and to read before it gives up.
    pub patience: u64,
    /// Bytes that a producer holds; one record may be larger.
    pub queue_bytes: usize,
    /// Records of one request.
    pub batch: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 0,
            percent: 0,
            transaction_timeout: 60_000,
            request_timeout: 10_000,
            message_timeout: 50_000,
            patience: 300_000,
            queue_bytes: 10_000,
            batch: 50,
        }
    }
}

/// Whom a reply is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// One that waits for it.
    Waiting(u64),
    /// The thread of a producer.
    Client(u64),
}

#[derive(Debug)]
enum Event {
    Arrives {
        caller: Caller,
        request: Request,
        fate: Fate,
    },
    Answered {
        caller: Caller,
        reply: Reply,
    },
    /// The thread of a producer looks at its queue.
    Drain(u64),
    Outcome {
        id: String,
        partition: Partition,
    },
    Expires {
        id: String,
        number: u64,
    },
}

/// The operating system's process that a client belongs to.
pub type Process = u64;

#[derive(Debug)]
pub struct World {
    pub now: u64,
    pub settings: Settings,
    pub plan: Plan,
    pub broker: Broker,
    pub clients: BTreeMap<u64, Client>,
    /// Those that do not get on: nothing of them happens.
    pub asleep: BTreeSet<Process>,
    events: BTreeMap<(u64, u64), Event>,
    answers: BTreeMap<u64, Reply>,
    numbers: u64,
    trace: DefaultHasher,
    /// What has happened, in words, if a test wants to read it.
    pub story: Option<Vec<String>>,
    changed: bool,
}

impl World {
    fn new(settings: Settings) -> Self {
        Self {
            now: 0,
            settings,
            plan: Plan::new(settings.seed, settings.percent, settings.request_timeout),
            broker: Broker::default(),
            clients: BTreeMap::new(),
            asleep: BTreeSet::new(),
            events: BTreeMap::new(),
            answers: BTreeMap::new(),
            numbers: 0,
            trace: DefaultHasher::new(),
            story: None,
            changed: false,
        }
    }

    pub fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn schedule(&mut self, after: u64, event: Event) {
        let key = (self.now.saturating_add(after), self.number());
        self.events.insert(key, event);
        self.changed = true;
    }

    /// Whoever waits for something looks again.
    pub fn stir(&mut self) {
        self.changed = true;
    }

    pub fn drain_after(&mut self, client: u64, after: u64) {
        self.schedule(after, Event::Drain(client));
    }

    /// Something worth remembering has happened.
    pub fn tell(&mut self, what: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(story) = &mut self.story {
            story.push(format!("{now:>8} {}", what()));
        }
    }

    /// A number for what has happened up to now and when. What records hold does not count.
    pub fn trace(&self) -> u64 {
        self.trace.finish()
    }

    /// Sends a request. The reply comes, or that there was none.
    pub fn ask(&mut self, caller: Caller, request: Request) {
        let fate = self.plan.fate(request.kind());
        self.tell(|| format!("{caller:?} asks {}: {fate:?}", in_short(&request)));
        let give_up = self.settings.request_timeout;
        if fate.lost_there {
            if !fate.never {
                self.schedule(give_up, Event::Answered { caller, reply: Reply::TimedOut });
            }
            return;
        }
        if fate.lost_back && !fate.never {
            self.schedule(give_up, Event::Answered { caller: caller.clone(), reply: Reply::TimedOut });
        }
        self.schedule(fate.there, Event::Arrives { caller, request, fate });
    }

    /// Does everything that has happened up to `now`.
    fn catch_up(&mut self, now: u64) {
        while let Some(first) = self.events.first_entry() {
            let at = first.key().0;
            if at > now {
                break;
            }
            let event = first.remove();
            self.now = at;
            self.changed = true;
            self.handle(event);
        }
        self.now = now;
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrives { caller, request, fate } => self.arrives(caller, &request, fate),
            Event::Answered { caller: Caller::Waiting(call), reply } => {
                (self.now, call, "answered").hash(&mut self.trace);
                self.answers.insert(call, reply);
            }
            Event::Answered { caller: Caller::Client(client), reply } => {
                (self.now, client, "answered").hash(&mut self.trace);
                self.with_client(client, |client, world| client.answered(&reply, world));
            }
            Event::Drain(client) => {
                self.with_client(client, Client::drain);
            }
            Event::Outcome { id, partition } => {
                let Some((who, commit)) = self.broker.coordinator.written(&id, &partition) else { return };
                (self.now, who, &partition, commit, "outcome").hash(&mut self.trace);
                self.tell(|| format!("{id} {who:?}: commit {commit} written to {partition:?}"));
                if let Some(log) = self.broker.log(&partition) {
                    log.control(who, commit);
                }
            }
            Event::Expires { id, number } => {
                if self.broker.coordinator.expire(&id, number) {
                    (self.now, &id, number, "expired").hash(&mut self.trace);
                    self.tell(|| format!("{id}: transaction {number} expired"));
                    self.write_outcome(&id);
                }
            }
        }
    }

    /// Lets a producer's thread do something, unless it is gone.
    pub fn with_client<T>(&mut self, id: u64, act: impl FnOnce(&mut Client, &mut Self) -> T) -> Option<T> {
        let mut client = self.clients.remove(&id)?;
        let done = act(&mut client, self);
        self.clients.insert(id, client);
        Some(done)
    }

    fn arrives(&mut self, caller: Caller, request: &Request, fate: Fate) {
        if let Some(away) = fate.away {
            let until = &mut self.broker.coordinator.away_until;
            *until = (*until).max(self.now + away);
        }
        let mut reply = Reply::Error(fate.refused.unwrap_or(Code::NotCoordinator));
        if fate.refused.is_none() {
            for _ in 0..=u8::from(fate.twice) {
                reply = self.handled(request);
            }
        }
        (self.now, request.kind(), std::mem::discriminant(&reply)).hash(&mut self.trace);
        self.tell(|| format!("    {caller:?} {}: {}", in_short(request), reply_in_short(&reply)));
        if !fate.lost_back {
            self.schedule(fate.back, Event::Answered { caller, reply });
        }
    }

    fn handled(&mut self, request: &Request) -> Reply {
        let (reply, next) = self.broker.handle(self.now, request);
        let (Request::Init { id, .. } | Request::Add { id, .. } | Request::End { id, .. }) = request else {
            return reply;
        };
        match next {
            Next::Nothing => {}
            Next::WriteOutcome => self.write_outcome(id),
            Next::Watch => {
                if let Some(owned) = self.broker.coordinator.get(id) {
                    let (number, timeout) = (owned.number, owned.timeout);
                    let late = self.plan.expiry();
                    self.schedule(timeout + late, Event::Expires { id: id.clone(), number });
                }
            }
        }
        reply
    }

    fn write_outcome(&mut self, id: &str) {
        let partitions = self.broker.coordinator.get(id).map(|owned| owned.partitions.clone());
        for partition in partitions.unwrap_or_default() {
            let after = self.plan.marker();
            self.schedule(after, Event::Outcome { id: id.to_owned(), partition });
        }
    }
}

fn in_short(request: &Request) -> String {
    match request {
        Request::Produce { who, partition, first, records, .. } => {
            format!("Produce {who:?} {partition:?} from {first} {} records", records.len())
        }
        other => format!("{other:?}"),
    }
}

fn reply_in_short(reply: &Reply) -> String {
    match reply {
        Reply::Fetched { last_stable_offset, .. } => format!("fetched up to {last_stable_offset}"),
        other => format!("{other:?}"),
    }
}

/// The world, for all who live in it.
#[derive(Debug)]
pub struct Shared {
    world: Mutex<World>,
    changed: Notify,
    began: Instant,
}

impl Shared {
    pub fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self { world: Mutex::new(World::new(settings)), changed: Notify::new(), began: Instant::now() })
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the world as it is now, or changes it.
    pub fn look<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut world = self.lock();
        world.catch_up(now);
        let seen = look(&mut world);
        world.catch_up(now);
        let changed = std::mem::take(&mut world.changed);
        drop(world);
        if changed {
            self.changed.notify_waiters();
        }
        seen
    }

    /// Waits until `is` is something, and as long as the process is asleep.
    pub async fn until<T>(&self, process: Process, mut is: impl FnMut(&mut World) -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let seen = self.look(|world| {
                let awake = !world.asleep.contains(&process);
                let seen = if awake { is(world) } else { None };
                seen.ok_or_else(|| world.events.first_key_value().map(|(key, _)| key.0))
            });
            match seen {
                Ok(seen) => return seen,
                Err(Some(next)) => tokio::select! {
                    () = sleep_until(self.began + Duration::from_millis(next)) => {}
                    () = changed => {}
                },
                Err(None) => changed.await,
            }
        }
    }

    /// Asks the cluster for something once.
    pub async fn ask(&self, process: Process, request: Request) -> Reply {
        let call = self.until(process, |world| Some(world.number())).await;
        self.look(|world| world.ask(Caller::Waiting(call), request));
        self.until(process, |world| world.answers.remove(&call)).await
    }

    /// Asks again, after a pause, as long as that makes sense.
    pub async fn ask_until_known(&self, process: Process, request: Request) -> Reply {
        let began = self.look(|world| world.now);
        loop {
            let reply = self.ask(process, request.clone()).await;
            let again = match &reply {
                Reply::TimedOut => true,
                Reply::Error(code) => code.passes(),
                _ => false,
            };
            let (now, patience) = self.look(|world| (world.now, world.settings.patience));
            if !again || now >= began + patience {
                return reply;
            }
            self.pause().await;
        }
    }

    /// What a client waits before it asks again.
    pub async fn pause(&self) {
        let pause = self.look(|world| world.plan.backoff());
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}
