//! Notices a partition of which nothing comes any more.
//!
//! librdkafka goes on by itself after whatever happens to brokers. When it does not (it waits for an answer that was lost, or has
//! forgotten its brokers), it says nothing, and the job would wait for ever.
//!
//! ```text
//!   look, once a second:  something came ─────────────────────────────► all is well
//!                         its end came last ── once a minute, all ────► ask the cluster where it ends ── further on ──┐
//!                         a record came last, or nothing yet                                                          │ 12 s
//!                                  └── silence for 20 s, then 40, 80 … ──► take it up again, and ask ◄────────────────┘
//!                                                                             └── further on ── 12 s ──► with a new client, and ask
//!                                                                                                └── the fifth time ──► fail
//!                         the client knows of no broker ──► a new client
//! ```
//!
//! It is the cluster that says whether there is more, to a client that is made for the question: of what is decided, where only that is
//! read, so an open transaction is no reason. While it does not answer nothing fails, however long it takes. The counts are of looks and
//! not of time, because while the job takes nothing nobody looks.

/// So many looks without a sign of life are silence. librdkafka waits for up to ten seconds before it connects again.
const SILENT: u32 = 20;

/// The silence before the next time is twice as long, so many times.
const DOUBLED: u32 = 4;

/// Every so many looks it is asked of all that are silent at their ends whether these are where they were: each time a client has to
/// log in for it.
pub(super) const ASKED: u32 = 60;

/// When the cluster has said that there is more, it may just have been written. It comes within so many looks, if it comes,
/// also when librdkafka has to connect first.
const ON_ITS_WAY: u32 = 12;

/// When it was taken up again so often, and the cluster has said each time that there is more, another start may help.
pub(super) const GIVEN_UP: u32 = 5;

/// The eye on one partition.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Something came of it since the last look.
    alive: bool,
    /// What came last was its end, or the cluster says that it is there.
    at_end: bool,
    /// Looks since something came or was done.
    silent: u32,
    /// How often it was taken up again since something came.
    taken_up: u32,
    /// How often the cluster has said then that there is more.
    behind: u32,
    /// How far librdkafka has fetched, at most.
    fetched: u64,
}

impl Watch {
    /// A record came, or it was read further in another way.
    pub(super) fn record(&mut self) {
        (self.alive, self.at_end) = (true, false);
    }

    /// Its end came.
    pub(super) fn end(&mut self) {
        (self.alive, self.at_end) = (true, true);
    }

    /// It is paused: then silence means nothing.
    pub(super) fn rest(&mut self) {
        self.alive = true;
    }

    /// One look: whether to take it up again. `fetched` is how far librdkafka has fetched: through what is no record it goes without
    /// a word.
    pub(super) fn look(&mut self, fetched: Option<u64>) -> bool {
        let further = fetched.filter(|&fetched| fetched > self.fetched);
        self.fetched = further.unwrap_or(self.fetched);
        if std::mem::take(&mut self.alive) || further.is_some() {
            (self.silent, self.taken_up, self.behind) = (0, 0, 0);
            return false;
        }
        self.silent = self.silent.saturating_add(1);
        if self.at_end || self.silent < self.patience() {
            return false;
        }
        self.silent = 0;
        self.taken_up = self.taken_up.saturating_add(1);
        true
    }

    /// So many looks without a sign of life are too many.
    fn patience(&self) -> u32 {
        SILENT << self.taken_up.min(DOUBLED)
    }

    /// Whether it is silent because it is at its end, or was.
    pub(super) fn is_idle(&self) -> bool {
        self.at_end && self.silent >= SILENT
    }

    /// Whether the cluster has said that there is more since it was taken up.
    pub(super) fn is_behind(&self) -> bool {
        self.behind > 0
    }

    /// It begins anew because of another one: its silence was none of its own, unless the cluster has said that it is behind.
    pub(super) fn renewed(&mut self) {
        self.silent = 0;
        if self.behind == 0 {
            self.fetched = 0;
        }
    }

    /// The cluster's answer: whether there is more. True when it is time to give up.
    pub(super) fn answer(&mut self, more: bool) -> bool {
        // What came meanwhile is newer than the answer.
        if self.alive {
            return false;
        }
        match (more, self.at_end) {
            (false, _) => self.at_end = true,
            (true, true) => (self.at_end, self.silent) = (false, self.patience() - ON_ITS_WAY),
            (true, false) => {
                self.behind += 1;
                if self.behind == 1 {
                    self.silent = self.patience() - ON_ITS_WAY;
                }
            }
        }
        self.behind >= GIVEN_UP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The looks among so many at which it is to be taken up again.
    fn taken_up(watch: &mut Watch, looks: u32) -> Vec<u32> {
        (1..=looks).filter(|_| watch.look(None)).collect()
    }

    #[test]
    fn what_is_silent_is_taken_up_again_after_pauses_that_grow() {
        let mut watch = Watch::default();
        assert_eq!(taken_up(&mut watch, 1_000), [20, 60, 140, 300, 620, 940]);
        assert!(!watch.is_idle());
        watch.record();
        assert_eq!(taken_up(&mut watch, 22), [21]);
    }

    #[test]
    fn at_its_end_it_is_only_asked_whether_that_is_still_so() {
        let mut watch = Watch::default();
        watch.end();
        assert!(taken_up(&mut watch, 20).is_empty());
        assert!(!watch.is_idle());
        assert!(taken_up(&mut watch, 1_000).is_empty());
        assert!(watch.is_idle() && !watch.answer(false) && watch.is_idle());
        // It is not, and librdkafka does not notice for as long as it may take.
        assert!(!watch.answer(true) && !watch.is_idle());
        assert_eq!(taken_up(&mut watch, 20), [12], "silent for long, and there is more: soon");
        // Nothing but its end is there after all.
        assert!(!watch.answer(false));
        assert!(taken_up(&mut watch, 1_000).is_empty());
    }

    #[test]
    fn only_what_the_cluster_says_is_a_reason_to_give_up() {
        let mut watch = Watch::default();
        // It does not answer for an hour.
        taken_up(&mut watch, 3_600);
        for time in 1..=GIVEN_UP {
            assert_eq!(taken_up(&mut watch, 320).len(), 1);
            assert_eq!(watch.answer(true), time == GIVEN_UP);
        }
    }

    #[test]
    fn when_there_is_more_and_it_does_not_come_it_is_soon_tried_in_another_way() {
        let mut watch = Watch::default();
        assert_eq!(taken_up(&mut watch, 20), [20]);
        assert!(!watch.is_behind() && !watch.answer(true) && watch.is_behind());
        assert_eq!(taken_up(&mut watch, 20), [12]);
        assert!(!watch.answer(true));
        assert_eq!(taken_up(&mut watch, 100), [72], "80 after that, of which 8 are over");
        watch.record();
        watch.look(None);
        assert!(!watch.is_behind(), "it begins anew");
    }

    #[test]
    fn what_is_at_its_end_again_is_soon_taken_up_however_often_it_was_before() {
        let mut watch = Watch::default();
        assert_eq!(taken_up(&mut watch, 350), [20, 60, 140, 300]);
        assert!(!watch.answer(false));
        taken_up(&mut watch, 100);
        assert!(!watch.answer(true));
        assert_eq!(taken_up(&mut watch, 20), [12]);
    }

    #[test]
    fn what_begins_anew_because_of_another_is_not_behind_for_it() {
        // It skips what was aborted, from where its last record was.
        let mut watch = Watch::default();
        watch.record();
        assert!(!watch.look(Some(900)));
        assert!(taken_up(&mut watch, 19).is_empty());
        watch.renewed();
        assert!((0..900).step_by(60).all(|fetched| !watch.look(Some(fetched + 1))));
        // One that is behind is still so.
        assert_eq!(taken_up(&mut watch, 20), [20]);
        watch.answer(true);
        watch.renewed();
        assert!(watch.is_behind());
    }

    #[test]
    fn an_answer_older_than_a_record_counts_for_nothing() {
        let mut watch = Watch { behind: GIVEN_UP - 1, ..Watch::default() };
        watch.record();
        assert!(!watch.answer(true));
        watch.look(None);
        assert!(!watch.answer(true), "it begins anew");
    }

    #[test]
    fn neither_what_is_paused_nor_what_only_skips_is_silent() {
        let mut watch = Watch::default();
        for _ in 0..1_000 {
            watch.rest();
            assert!(!watch.look(None));
        }
        // Through what was aborted.
        assert!((0..1_000).all(|fetched| !watch.look(Some(fetched / 15))));
        // It begins anew and comes to the same place: that is nothing new.
        assert!((0..1_000).filter(|look| watch.look(Some(look % 50))).count() > 3);
    }
}
