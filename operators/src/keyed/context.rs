//! What a user's function sees of its key, and what the key holds.

use std::{cell::OnceCell, collections::BTreeSet};

use super::{
    FromKey, KeyedList, KeyedMap, ListState, MapKey, MapState, Process, State,
    entries::Entries,
    handles::Access,
    key_reader::KeyReader,
    outputs::Collector,
    store::{Fate, Key},
    timers::{Kind, Timers},
};
use crate::{OperatorError, Outbox, Port, Result, StreamSchema, Timestamp};

/// What a key holds.
#[derive(Debug, Default)]
pub(super) struct Held<S> {
    pub(super) state: S,
    /// The event time of its last row.
    pub(super) time: Option<i64>,
    /// Instants of event time. They are saved with the key, all of them when one changes.
    pub(super) timers: BTreeSet<i64>,
    /// Instants of processing time.
    pub(super) processing: BTreeSet<i64>,
    /// When the expiry queue looks at it.
    pub(super) due: Option<i64>,
    /// Whether there is anything to keep. A key whose state nobody has touched takes no room.
    pub(super) live: bool,
}

impl<S> Held<S> {
    fn timers(&mut self, kind: Kind) -> &mut BTreeSet<i64> {
        match kind {
            Kind::Event => &mut self.timers,
            Kind::Processing => &mut self.processing,
        }
    }

    /// A timer fires: it is set no more.
    pub(super) fn fired(&mut self, kind: Kind, at: i64) {
        self.timers(kind).remove(&at);
    }

    /// Removes everything outside it that leads to it, and the entries of its maps and lists.
    pub(super) fn detach(&mut self, key: &Key, queues: &mut Timers, entries: &mut Entries) {
        entries.forget(key);
        queues.unset(Kind::Event, self.timers.iter().copied(), key);
        queues.unset(Kind::Processing, self.processing.iter().copied(), key);
        if let Some(due) = self.due.take() {
            queues.expiry.forget(due, key);
        }
    }
}

/// The outputs of a process during one call of its operator.
pub(super) struct Outputs<P: Process> {
    pub(super) main: Collector<P::Output>,
    side: Option<Collector<P::Side>>,
    /// What went wrong in a call that cannot say so itself.
    pub(super) failed: OnceCell<OperatorError>,
}

impl<P: Process> Outputs<P> {
    pub(super) fn new(main: &StreamSchema, side: Option<&StreamSchema>) -> Self {
        Self {
            main: Collector::new(Port::MAIN, main),
            side: side.map(|schema| Collector::new(Port::side(0), schema)),
            failed: OnceCell::new(),
        }
    }

    /// How many records have been emitted.
    pub(super) fn emitted(&self) -> usize {
        self.main.emitted + self.side.as_ref().map_or(0, |side| side.emitted)
    }

    /// Whether the operator can go on.
    pub(super) fn check(&mut self) -> Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }

    pub(super) fn finish(&mut self, out: &mut Outbox) -> Result<()> {
        self.main.finish(out)?;
        self.side.as_mut().map_or(Ok(()), |side| side.finish(out))
    }
}

/// One key, as [`Process::row`] and [`Process::timer`] see it.
pub struct Keyed<'a, P: Process> {
    pub(super) key: &'a Key,
    pub(super) held: &'a mut Held<P::State>,
    pub(super) entries: &'a mut Entries,
    pub(super) keys: &'a KeyReader,
    pub(super) queues: &'a mut Timers,
    pub(super) outputs: &'a mut Outputs<P>,
    pub(super) out: &'a mut Outbox,
    /// Event time of the row or the timer.
    pub(super) time: i64,
    /// Event time of what is emitted.
    pub(super) emit_time: i64,
    pub(super) has_time: bool,
    pub(super) changed: bool,
}

impl<P: Process> Keyed<'_, P> {
    /// The state of the key: what it was left as, or a default.
    pub fn state(&self) -> &P::State {
        &self.held.state
    }

    /// The same to be changed. From then on the key takes room, until [`Keyed::clear`] or the end of its time to live.
    pub fn state_mut(&mut self) -> &mut P::State {
        (self.held.live, self.changed) = (true, true);
        &mut self.held.state
    }

    /// The map of the key that is called so: see [`MapState`].
    pub fn map<K: MapKey, V: State>(&mut self, map: &MapState<K, V>) -> KeyedMap<'_, K, V> {
        KeyedMap::new(map, self.access())
    }

    /// The list of the key that is called so: see [`ListState`].
    pub fn list<T: State>(&mut self, list: &ListState<T>) -> KeyedList<'_, T> {
        KeyedList::new(list, self.access())
    }

    fn access(&mut self) -> Access<'_> {
        Access {
            key: self.key,
            live: &mut self.held.live,
            changed: &mut self.changed,
            entries: self.entries,
            keys: self.keys,
            failed: &self.outputs.failed,
            process: P::name,
        }
    }

    /// The key as a Rust value, which a timer has no row to read from: `let user: i64 = key.key();`. Of several key columns it
    /// is a tuple, of one that may be null an `Option`. (A row has its key among its fields, at less cost.)
    ///
    /// If the key is of another type the job fails when this call is over, and this is a default.
    pub fn key<T: FromKey>(&self) -> T {
        self.keys.read(self.key).unwrap_or_else(|error| {
            self.fail(OperatorError::Plan(format!("process {} asks for its key: {error}", P::name())));
            T::default()
        })
    }

    /// The event time of the row, or the instant of the event-time timer. In a processing-time timer it is the event time of
    /// what is emitted. [`Timestamp::MIN`] on a stream without event time.
    pub fn time(&self) -> Timestamp {
        Timestamp::from_micros(self.time)
    }

    /// The processing time of this call.
    pub fn now(&self) -> Timestamp {
        self.out.now()
    }

    /// Asks for [`Process::timer`] when the watermark has come to `time`, which is when no row of the job earlier than `time`
    /// is expected any more. Asked for twice it comes once. One that has passed comes at the next watermark, and all that are
    /// left come at the end of the input. A key with a timer takes room like one with a state, also when the timer has fired.
    ///
    /// On a stream without event time this fails the job.
    pub fn set_timer(&mut self, time: Timestamp) {
        if self.has_time {
            self.set(Kind::Event, time);
        } else {
            let name = P::name();
            self.fail(OperatorError::Plan(format!(
                "process {name} has set an event-time timer, but its stream has no event time: declare it at the source \
                 with .event_time(column, …), or use set_processing_timer"
            )));
        }
    }

    /// Asks for [`Process::timer`] when processing time has come to `time` or soon after; asked for twice it comes once.
    /// What is left at the end of the input does not come: it stays in the state.
    pub fn set_processing_timer(&mut self, time: Timestamp) {
        self.set(Kind::Processing, time);
        self.out.wake_at(time);
    }

    fn set(&mut self, kind: Kind, time: Timestamp) {
        if self.held.timers(kind).insert(time.micros()) {
            self.queues.set(kind, time.micros(), self.key);
            (self.held.live, self.changed) = (true, true);
        }
    }

    /// Emits a record. Its event time is that of the row or the timer, or the watermark if that is later.
    pub fn emit(&mut self, record: P::Output) {
        let emitted = self.outputs.main.push(record, self.emit_time, self.out);
        self.note(emitted);
    }

    /// Emits a record on the side output.
    pub fn emit_side(&mut self, record: P::Side) {
        if let Some(side) = &mut self.outputs.side {
            let emitted = side.push(record, self.emit_time, self.out);
            self.note(emitted);
        }
    }

    /// The state to be changed, beside what emits a record.
    pub(super) fn with_state(&mut self, change: impl FnOnce(&mut P::State, &mut dyn FnMut(P::Output))) {
        (self.held.live, self.changed) = (true, true);
        let Self { held, outputs, out, emit_time, .. } = self;
        let mut emitted = Ok(());
        change(&mut held.state, &mut |record| {
            let result = outputs.main.push(record, *emit_time, out);
            emitted = std::mem::replace(&mut emitted, Ok(())).and(result);
        });
        self.note(emitted);
    }

    fn note(&mut self, result: Result<()>) {
        if let Err(error) = result {
            self.fail(error);
        }
    }

    /// Fails the job when this call is over.
    pub(super) fn fail(&self, error: OperatorError) {
        // The first error counts.
        let _ = self.outputs.failed.set(error);
    }

    /// Forgets the key: its state, its maps and lists, its timers. What is set afterwards begins with a default.
    pub fn clear(&mut self) {
        self.held.detach(self.key, self.queues, self.entries);
        *self.held = Held { time: self.held.time, ..Held::default() };
        self.changed = true;
    }

    /// What becomes of the key after the call.
    pub(super) fn fate(self) -> Fate {
        match (self.held.live, self.changed) {
            (false, _) => Fate::Removed,
            (true, true) => Fate::Changed,
            (true, false) => Fate::Same,
        }
    }
}
