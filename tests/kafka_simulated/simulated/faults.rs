//! What happens to a request on its way, drawn from a seed or said by a test.
//!
//! ```text
//!   client ──► there ──► broker: handled 0, 1 or 2 times, or refused ──► back ──► client
//!               ✕ lost                                                    ✕ lost: it waits for its time-out, and asks again
//! ```
//!
//! No request is under way for longer than half of what its client waits for. So what comes late is late in the eyes of
//! others, and a client that asks again asks behind its former request: on a connection of its own it could not but do so. A copy
//! of EndTxn that came later than the next transaction's begin would end that one too early; no client can do anything about that,
//! and brokers have an answer of their own (KIP-890).

use std::collections::VecDeque;

use super::broker::Code;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Init,
    Add,
    Produce,
    End,
    Look,
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fate {
    /// How long it is under way, in milliseconds.
    pub there: u64,
    /// It never comes to the broker.
    pub lost_there: bool,
    /// The broker handles it a second time, at once, and that is the reply.
    pub twice: bool,
    /// The broker does nothing but say so.
    pub refused: Option<Code>,
    /// The coordinator is nowhere, for so long from when the request comes.
    pub away: Option<u64>,
    pub back: u64,
    pub lost_back: bool,
    /// When it or its reply is lost, its client does not even hear that the time is over: the call never returns.
    pub never: bool,
}

impl Fate {
    pub fn lost_there() -> Self {
        Self { lost_there: true, ..Self::default() }
    }

    pub fn lost_back() -> Self {
        Self { lost_back: true, ..Self::default() }
    }

    /// The request is lost, or the reply, and the call never returns.
    pub fn never(handled: bool) -> Self {
        Self { lost_there: !handled, lost_back: handled, never: true, ..Self::default() }
    }

    pub fn refused(code: Code) -> Self {
        Self { refused: Some(code), ..Self::default() }
    }

    pub fn twice() -> Self {
        Self { twice: true, ..Self::default() }
    }

    pub fn away(millis: u64) -> Self {
        Self { away: Some(millis), ..Self::default() }
    }

    pub fn late(millis: u64) -> Self {
        Self { there: millis, ..Self::default() }
    }
}

/// Decides what happens.
#[derive(Debug)]
pub struct Plan {
    random: fastrand::Rng,
    /// Of a hundred requests, to so many something happens.
    percent: u32,
    /// What a test has said happens to the next request of a kind.
    said: VecDeque<(Kind, Fate)>,
    said_markers: VecDeque<u64>,
    /// The longest that a request may be under way, one way.
    longest: u64,
    /// How often something happened.
    pub happened: u64,
}

impl Plan {
    pub fn new(seed: u64, percent: u32, request_timeout: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed ^ 0xfa07),
            percent,
            said: VecDeque::new(),
            said_markers: VecDeque::new(),
            longest: request_timeout / 2,
            happened: 0,
        }
    }

    /// Lets `fate` happen to the next request of a kind to which nothing was said yet.
    pub fn say(&mut self, kind: Kind, fate: Fate) {
        assert!(fate.there <= self.longest && fate.back <= self.longest, "a request is not under way for so long");
        self.said.push_back((kind, fate));
    }

    /// The next control record is written so many milliseconds after its transaction was decided.
    pub fn say_marker(&mut self, millis: u64) {
        self.said_markers.push_back(millis);
    }

    /// No more faults from now on.
    pub fn calm(&mut self) {
        self.percent = 0;
    }

    pub fn fate(&mut self, kind: Kind) -> Fate {
        if let Some(at) = self.said.iter().position(|(of, _)| *of == kind) {
            self.happened += 1;
            return self.said.remove(at).map(|(_, fate)| fate).unwrap_or_default();
        }
        let fate = Fate { there: self.random.u64(0..3), back: self.random.u64(0..3), ..Fate::default() };
        if self.random.u32(0..100) >= self.percent {
            return fate;
        }
        self.happened += 1;
        match self.random.u32(0..12) {
            0 | 1 => Fate { lost_there: true, ..fate },
            2..5 => Fate { lost_back: true, ..fate },
            5 => Fate { twice: true, ..fate },
            6 => Fate { there: self.under_way(), ..fate },
            7 => Fate { back: self.under_way(), ..fate },
            8 if kind != Kind::Produce => Fate { away: Some(self.slow()), ..fate },
            8 | 9 => Fate { twice: true, lost_back: true, ..fate },
            // What cannot be written is rare, and nothing that a client may try again.
            10 if kind == Kind::Produce && self.random.u32(0..40) == 0 => {
                Fate { refused: Some(Code::RecordRefused), ..fate }
            }
            _ => Fate { refused: Some(Self::passing(kind)), ..fate },
        }
    }

    /// How long it takes until a control record is written.
    pub fn marker(&mut self) -> u64 {
        if let Some(said) = self.said_markers.pop_front() {
            return said;
        }
        if self.random.u32(0..100) < self.percent { self.slow() } else { self.random.u64(0..4) }
    }

    /// How much later than at its end a transaction that lasts too long is thrown away: brokers look now and then.
    pub fn expiry(&mut self) -> u64 {
        if self.percent == 0 { 0 } else { self.random.u64(0..1_000) }
    }

    pub fn backoff(&mut self) -> u64 {
        self.random.u64(20..100)
    }

    fn passing(kind: Kind) -> Code {
        match kind {
            Kind::Init | Kind::Add | Kind::End => Code::NotCoordinator,
            Kind::Produce | Kind::Look => Code::NotLeader,
        }
    }

    /// Mostly somewhat slow, seldom very.
    fn slow(&mut self) -> u64 {
        let most = [50, 50, 50, 50, 500, 500, 5_000, 30_000][self.random.usize(0..8)];
        self.random.u64(0..most)
    }

    /// A request or a reply that takes its time.
    fn under_way(&mut self) -> u64 {
        self.slow().min(self.longest)
    }
}
