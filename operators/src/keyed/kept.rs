//! What is kept by ids, and what of it a save writes: of keys for `store.rs`, of entries of maps and lists for `entries.rs`.
//!
//! ```text
//!   the owner's look-up: id ──► place ──► slots: { id, what is held, or nothing: a tombstone; its run }
//!                                           ▲
//!   runs: the slots that last changed   … before save 3 │ since save 3 │ since the last save
//!                                              │              │                └─ save ──► a new segment, and a run of it
//!                                           segment        segment
//! ```
//!
//! Each slot stands in one run, so a save walks what it writes and nothing else, however much is kept. What is kept stays at
//! its place, so nothing is looked up by its id but by its owner, who knows the place of each.
//!
//! The newest row of an id counts. One that is removed leaves a *tombstone*, because an older segment still has a row of it;
//! without one it would come back at the next restore. A tombstone in the oldest segment hides nothing but what goes with that
//! segment, so it is forgotten. As segments absorb one another (see `state/segments.rs`) every tombstone comes there, and when
//! nothing lives in the oldest segment any more that one goes too: the state falls to nothing when its ids do.

use std::{collections::BTreeMap, mem::size_of};

use arrow::array::RecordBatch;

use crate::{
    Result,
    state::{
        StateReader, StateWriter,
        bounded::{SEGMENT_ROWS, cut},
        segments::{Changes, Segments},
    },
};

/// A `V` for each of the ids that its owner has added.
#[derive(Debug)]
pub(super) struct Kept<Id, V> {
    slots: Vec<Option<Slot<Id, V>>>,
    /// Slots without anything.
    free: Vec<u32>,
    runs: BTreeMap<u32, Run>,
    /// How many hold something.
    living: usize,
    segments: Segments,
}

#[derive(Debug)]
struct Slot<Id, V> {
    id: Id,
    /// `None`: a tombstone.
    held: Option<V>,
    /// The run that has the slot, and its place there.
    run: u32,
    place: u32,
    /// Whether a segment may have a row of it.
    sealed: bool,
}

/// The run of slots that have changed since the last save. The others have the number of the last save of their segment.
const NEW: u32 = u32::MAX;

/// Slots that last changed in the same stretch of saves.
#[derive(Debug, Default)]
struct Run {
    living: Vec<u32>,
    tombs: Vec<u32>,
}

impl Run {
    fn slots(&mut self, living: bool) -> &mut Vec<u32> {
        if living { &mut self.living } else { &mut self.tombs }
    }

    fn add(&mut self, at: u32, living: bool) -> u32 {
        let slots = self.slots(living);
        slots.push(at);
        slots.len() as u32 - 1
    }

    fn len(&self) -> usize {
        self.living.len() + self.tombs.len()
    }
}

/// Whether room for `most` is much more than `now` need. Not each time that one comes and goes.
pub(super) fn is_slack(most: usize, now: usize) -> bool {
    most > 1024 && now < most / 8
}

impl<Id, V> Default for Kept<Id, V> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), runs: BTreeMap::new(), living: 0, segments: Segments::default() }
    }
}

impl<Id, V> Kept<Id, V> {
    /// Keeps `held` for an id that has no place yet. Returns its place.
    pub(super) fn add(&mut self, id: Id, held: V) -> u32 {
        self.insert(id, Some(held), NEW, false)
    }

    fn insert(&mut self, id: Id, held: Option<V>, run: u32, sealed: bool) -> u32 {
        let living = held.is_some();
        self.living += usize::from(living);
        let at = self.free.pop().unwrap_or(self.slots.len() as u32);
        let place = self.runs.entry(run).or_default().add(at, living);
        let slot = Some(Slot { id, held, run, place, sealed });
        match self.slots.get_mut(at as usize) {
            Some(free) => *free = slot,
            None => self.slots.push(slot),
        }
        at
    }

    fn slot_mut(&mut self, at: u32) -> Option<&mut Slot<Id, V>> {
        self.slots.get_mut(at as usize)?.as_mut()
    }

    /// What is kept at a place.
    pub(super) fn get(&self, at: u32) -> Option<(&Id, &V)> {
        let slot = self.slots.get(at as usize)?.as_ref()?;
        Some((&slot.id, slot.held.as_ref()?))
    }

    /// The same, to be looked at. Who changes it says so: [`Kept::changed`].
    pub(super) fn get_mut(&mut self, at: u32) -> Option<(&Id, &mut V)> {
        let slot = self.slot_mut(at)?;
        Some((&slot.id, slot.held.as_mut()?))
    }

    /// What is kept at a place has changed.
    pub(super) fn changed(&mut self, at: u32) {
        self.renew(at, true);
    }

    /// Keeps something in place of a tombstone. It may be in an older segment: removed again, it must leave a tombstone again.
    pub(super) fn revive(&mut self, at: u32, held: V) {
        if let Some(slot @ Slot { held: None, .. }) = self.slot_mut(at) {
            slot.held = Some(held);
            self.living += 1;
            self.renew(at, false);
        }
    }

    /// Removes what is kept at a place. A tombstone stays there, or nothing: then its owner has to forget the id, which is
    /// returned.
    pub(super) fn remove(&mut self, at: u32) -> Option<Id> {
        let slot = self.slot_mut(at)?;
        slot.held.take()?;
        let (run, place, sealed) = (slot.run, slot.place, slot.sealed);
        self.living -= 1;
        if sealed {
            self.renew(at, true);
            return None;
        }
        self.leave(run, place, true);
        self.vacate(at)
    }

    fn vacate(&mut self, at: u32) -> Option<Id> {
        let slot = self.slots.get_mut(at as usize)?.take()?;
        self.free.push(at);
        Some(slot.id)
    }

    /// A slot has changed since the last save; `was_living` says which list of its run it stands in.
    fn renew(&mut self, at: u32, was_living: bool) {
        let Some(Some(slot)) = self.slots.get_mut(at as usize) else { return };
        let (run, place, living) = (slot.run, slot.place, slot.held.is_some());
        if run == NEW && living == was_living {
            return;
        }
        (slot.run, slot.place) = (NEW, self.runs.entry(NEW).or_default().add(at, living));
        self.leave(run, place, was_living);
    }

    /// Takes a slot out of its run; the last one gets its place.
    fn leave(&mut self, run: u32, place: u32, living: bool) {
        let Some(slots) = self.runs.get_mut(&run).map(|run| run.slots(living)) else { return };
        slots.swap_remove(place as usize);
        let moved = slots.get(place as usize).copied();
        if is_slack(slots.capacity(), slots.len()) {
            slots.shrink_to(2 * slots.len());
        }
        if let Some(slot) = moved.and_then(|moved| self.slot_mut(moved)) {
            slot.place = place;
        }
    }

    /// Gives back the room of what has gone, if that is most. Then every place is another: returns the new place of each. It is
    /// to be called now and then when things have gone, and while no other place is known than those that the owner renews.
    pub(super) fn shrink(&mut self) -> Option<Vec<u32>> {
        let used = self.used();
        if !is_slack(self.slots.len(), used) {
            return None;
        }
        let mut places = vec![0; self.slots.len()];
        let mut slots = Vec::with_capacity(2 * used);
        for (at, slot) in std::mem::take(&mut self.slots).into_iter().enumerate().filter(|(_, slot)| slot.is_some()) {
            places[at] = slots.len() as u32;
            slots.push(slot);
        }
        for run in self.runs.values_mut() {
            run.living.iter_mut().chain(&mut run.tombs).for_each(|at| *at = places[*at as usize]);
        }
        (self.slots, self.free) = (slots, Vec::new());
        Some(places)
    }

    /// All that is kept. What changes here is not saved for it.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&Id, &mut V)> {
        self.slots.iter_mut().flatten().filter_map(|slot| Some((&slot.id, slot.held.as_mut()?)))
    }

    /// How many are kept.
    pub(super) fn len(&self) -> usize {
        self.living
    }

    /// How many places there are, with those of tombstones.
    fn used(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// About how many bytes it takes, without what ids and values point to.
    pub(super) fn size(&self) -> usize {
        (size_of::<Option<Slot<Id, V>>>() + size_of::<u32>()) * self.used()
    }

    /// Saves what has changed. `batch` makes rows of ids and what is kept for them, nothing for a tombstone; it is called once
    /// for each segment. A row has about so many `bytes`. Returns the ids whose tombstones are gone: their owner has to forget
    /// them.
    pub(super) fn save(
        &mut self,
        state: &mut StateWriter<'_>,
        bytes: impl Fn(&Id, Option<&V>) -> usize,
        batch: impl FnMut(&[(&Id, Option<&V>)]) -> Result<RecordBatch>,
    ) -> Result<Vec<Id>> {
        let now = self.segments.begin();
        let mut gone = self.forget_tombs();
        self.runs.retain(|_, run| run.len() > 0);
        let save_of = |run: u32| if run == NEW { now } else { run };
        let changes: Changes = self.runs.iter().map(|(number, run)| (save_of(*number), run.len())).collect();
        let mut segments = std::mem::take(&mut self.segments);
        let oldest = segments.start();
        let mut sealed = None;
        let saved = segments.finish(state, &changes, |since| {
            sealed = Some(since);
            self.batches(since, since <= oldest, bytes, batch)
        });
        self.segments = segments;
        if let Some(since) = sealed {
            gone.extend(self.join_runs(since, since <= oldest, now));
        }
        saved.map(|()| gone)
    }

    /// Forgets the tombstones that hide nothing: those in the oldest segment, and when nothing else is there those in the
    /// next.
    fn forget_tombs(&mut self) -> Vec<Id> {
        let mut gone = Vec::new();
        for end in self.segments.ends().chain([NEW]) {
            gone.extend(self.runs.range_mut(..=end).flat_map(|(_, run)| std::mem::take(&mut run.tombs)));
            if self.runs.range(..=end).any(|(_, run)| !run.living.is_empty()) {
                break;
            }
        }
        gone.into_iter().filter_map(|at| self.vacate(at)).collect()
    }

    /// The rows that changed after the save `since`. In the oldest segment tombstones are left out.
    fn batches(
        &self,
        since: u32,
        is_oldest: bool,
        bytes: impl Fn(&Id, Option<&V>) -> usize,
        mut batch: impl FnMut(&[(&Id, Option<&V>)]) -> Result<RecordBatch>,
    ) -> Result<Vec<RecordBatch>> {
        let runs = || self.runs.range(since + 1..).map(|(_, run)| run);
        let living = runs().flat_map(|run| &run.living);
        let tombs = runs().flat_map(|run| &run.tombs).filter(|_| !is_oldest);
        let slots = living.chain(tombs).filter_map(|at| self.slots[*at as usize].as_ref());
        let rows: Vec<(&Id, Option<&V>)> = slots.map(|slot| (&slot.id, slot.held.as_ref())).collect();
        let sizes = rows.iter().map(|(id, held)| bytes(id, *held));
        cut(sizes, SEGMENT_ROWS).into_iter().map(|range| batch(&rows[range])).collect()
    }

    /// What changed after the save `since` is in one segment, that of the save `now`. Returns what is gone.
    fn join_runs(&mut self, since: u32, is_oldest: bool, now: u32) -> Vec<Id> {
        let (mut joined, mut gone) = (Run::default(), Vec::new());
        for (_, run) in self.runs.split_off(&(since + 1)) {
            for at in run.living.into_iter().chain(run.tombs) {
                let Some(Some(slot)) = self.slots.get_mut(at as usize) else { continue };
                let living = slot.held.is_some();
                if is_oldest && !living {
                    gone.extend(self.vacate(at));
                    continue;
                }
                (slot.run, slot.place, slot.sealed) = (now, joined.add(at, living), true);
            }
        }
        self.runs.insert(now, joined);
        gone
    }

    /// Goes on with the segments that former tasks left. Returns them newest first, each with the number of its save: of the rows
    /// of an id the first counts.
    pub(super) fn load<'a>(&mut self, state: &'a StateReader) -> Vec<(u32, &'a RecordBatch)> {
        let (segments, parts) = Segments::load(state);
        self.segments = segments;
        parts.into_iter().flat_map(|former| former.segments).collect()
    }

    /// Keeps what a row of a segment of the save `save` has of an id without a place, `None` for a tombstone. Returns its place.
    pub(super) fn restore(&mut self, id: Id, held: Option<V>, save: u32) -> u32 {
        self.insert(id, held, save, true)
    }
}

#[cfg(test)]
impl<Id, V> Kept<Id, V> {
    /// How many slots there are in all runs; checks that every slot stands in one run, at its place.
    pub(super) fn check(&self) -> usize {
        let mut count = 0;
        for (number, run) in &self.runs {
            for (slots, living) in [(&run.living, true), (&run.tombs, false)] {
                for (place, at) in slots.iter().enumerate() {
                    let slot = self.slots[*at as usize].as_ref().unwrap();
                    assert_eq!((slot.run, slot.place as usize, slot.held.is_some()), (*number, place, living));
                    count += 1;
                }
            }
        }
        assert_eq!(count, self.used());
        count
    }

    /// How many runs there are, and room for how many slots.
    pub(super) fn room(&self) -> (usize, usize) {
        let in_runs = self.runs.values().map(|run| run.living.capacity() + run.tombs.capacity()).sum::<usize>();
        (self.runs.len(), self.slots.capacity() + self.free.capacity() + in_runs)
    }
}
