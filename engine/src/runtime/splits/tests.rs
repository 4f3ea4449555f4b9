//! Who holds the watermark, who does not, and what is said after a restore.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn at(t: i64) -> Watermark {
    Watermark::At(Timestamp::from_micros(t))
}

/// One batch of `split` with these times; its watermark is what may be `most`.
fn batch(splits: &mut SplitWatermarks, split: &SplitId, times: &[i64], most: Option<i64>) -> Option<Watermark> {
    let rows = RecordBatch::try_from_iter([("at", Timestamp::column(times.to_vec()))]).unwrap();
    let latest = times.iter().copied().max().unwrap();
    let (promised, _) = splits.judge(split, &rows, times, latest, most);
    splits.after_rows(split, promised)
}

fn read(splits: &mut SplitWatermarks, split: &SplitId, time: i64) -> Option<Watermark> {
    batch(splits, split, &[time], None)
}

fn state(split: &str, latest: Option<i64>, idle: bool, ended: bool) -> SplitState {
    SplitState { split: split.into(), position: None, ended, end: None, latest, idle, promised: None }
}

fn saved(splits: &SplitWatermarks, split: &SplitId) -> (Option<i64>, Option<i64>, bool) {
    let mut state = state(split.as_str(), None, false, false);
    splits.save(&mut state);
    (state.latest, state.promised, state.idle)
}

#[tokio::test(start_paused = true)]
async fn the_slowest_split_holds_until_it_is_idle_or_ended() {
    let [a, b] = [SplitId::new("a"), SplitId::new("b")];
    let start = Moment::now();
    let strategy = Watermarks::out_of_order(Duration::from_micros(10)).idle_after(SECOND);
    let mut splits = SplitWatermarks::new(strategy, &[a.clone(), b.clone()], start);
    assert_eq!(read(&mut splits, &a, 100), None, "b has said nothing");
    assert_eq!(read(&mut splits, &b, 50), Some(at(40)));
    assert_eq!(read(&mut splits, &b, 30), None, "an older row does not pull it back");
    assert_eq!(splits.before_rows(&a, start.after(SECOND / 2)), None);
    assert_eq!(splits.next_idle(), Some(start.after(SECOND)));
    assert_eq!(splits.mark_idle(start.after(SECOND)), [at(90)], "b is idle, a decides");
    assert_eq!(splits.mark_idle(start.after(2 * SECOND)), [Watermark::Idle]);
    assert_eq!(splits.next_idle(), None);
    assert_eq!(splits.before_rows(&b, start.after(3 * SECOND)), Some(at(90)), "awake, and not back in time");
}

#[tokio::test(start_paused = true)]
async fn what_is_restored_says_what_had_been_said() {
    let names = ["a", "b", "c"].map(SplitId::new);
    let fresh = || SplitWatermarks::new(Watermarks::in_order().idle_after(SECOND), &names, Moment::now());
    let mut splits = fresh();
    let states =
        [state("a", Some(70), false, false), state("b", Some(50), true, false), state("c", Some(9), false, true)];
    assert_eq!(splits.restore(&states, None).last(), Some(&at(70)), "b was idle and c has ended: a decided");
    assert_eq!(saved(&splits, &names[1]), (Some(50), None, false), "it is waited for again");
    assert_eq!(read(&mut splits, &names[0], 90), None, "b holds");
    assert_eq!(read(&mut splits, &names[1], 60), None, "and nothing goes back");
    assert_eq!(read(&mut splits, &names[1], 80), Some(at(80)));
    let states = [state("a", Some(70), true, false), state("b", Some(50), true, false), state("c", None, true, false)];
    assert_eq!(fresh().restore(&states, None), [at(70)], "all were idle and are awake, also for those behind");
    let states = [state("a", Some(70), false, false), state("b", None, false, false), state("c", None, true, false)];
    assert_eq!(fresh().restore(&states, None), [], "b has said nothing yet");
    assert_eq!(SplitWatermarks::new(Watermarks::in_order(), &[], Moment::now()).restore(&[], None), [Watermark::Idle]);
}

#[tokio::test(start_paused = true)]
async fn a_restored_split_is_idle_only_after_another_silence() {
    let [a, b] = [SplitId::new("a"), SplitId::new("b")];
    let start = Moment::now();
    let strategy = Watermarks::in_order().idle_after(SECOND);
    let mut splits = SplitWatermarks::new(strategy, &[a.clone(), b.clone()], start);
    splits.restore(&[state("a", Some(70), false, false), state("b", None, true, false)], None);
    assert_eq!(splits.slowest(), Some(Slowest { time: Timestamp::from_micros(70), split: Some(a.clone()) }));
    splits.begin(start.after(5 * SECOND));
    assert_eq!(read(&mut splits, &a, 90), None, "b holds, though it has never said anything");
    assert_eq!(splits.next_idle(), Some(start.after(6 * SECOND)));
    assert_eq!(splits.mark_idle(start.after(6 * SECOND)), [at(90), Watermark::Idle]);
}

#[test]
fn each_task_says_again_what_all_had_said_together() {
    let watermarks = Watermarks::out_of_order(Duration::from_micros(10)).idle_after(SECOND);
    let said = |states: &[SplitState]| said(&watermarks, states).map(Timestamp::micros);
    let [a, b] = [state("a", Some(70), false, false), state("b", Some(50), true, false)];
    assert_eq!(said(&[a.clone(), b.clone()]), Some(60), "b was idle");
    assert_eq!(said(&[a.clone(), b.clone(), state("c", Some(9), false, true)]), Some(60), "c has ended");
    assert_eq!(said(&[a.clone(), b.clone(), state("c", None, false, false)]), None, "c has said nothing");
    assert_eq!(said(&[b.clone(), state("a", Some(70), true, false)]), Some(60), "all were idle");
    assert_eq!(said(&[state("a", Some(70), false, true)]), None, "all have ended, and that says itself");
    assert_eq!(said(&[]), None);
    let without = super::said(&Watermarks::in_order(), &[a, b.clone()]);
    assert_eq!(without, Some(Timestamp::from_micros(50)), "there is no idleness any more");

    let mut splits = SplitWatermarks::new(watermarks.clone(), &[SplitId::new("b")], Moment::now());
    assert_eq!(splits.restore(&[b], Some(Timestamp::from_micros(60))), [at(60)], "not 40, for a moment, and idle");
    assert_eq!(read(&mut splits, &SplitId::new("b"), 65), None);
    assert_eq!(read(&mut splits, &SplitId::new("b"), 75), Some(at(65)));
}

#[tokio::test(start_paused = true)]
async fn the_silence_of_one_that_is_put_off_counts_from_when_it_can_be_read() {
    let [a, b] = [SplitId::new("a"), SplitId::new("b")];
    let start = Moment::now();
    let seconds = |seconds: u32| start.after(seconds * SECOND);
    let strategy = Watermarks::in_order().idle_after(SECOND);
    let mut splits = SplitWatermarks::new(strategy, &[a.clone(), b.clone()], start);
    splits.put_off(std::slice::from_ref(&b), start);
    assert_eq!(read(&mut splits, &a, 90), None);
    assert_eq!(splits.next_idle(), Some(seconds(1)), "that of a");
    assert_eq!(splits.mark_idle(seconds(5)), [], "b holds");
    splits.put_off(std::slice::from_ref(&b), seconds(6));
    assert_eq!(splits.lag(&[(a.clone(), 0)], seconds(7)), [], "what is known of others says nothing of it");
    assert_eq!((splits.next_idle(), splits.mark_idle(seconds(8))), (None, vec![]));
    splits.put_off(&[], seconds(9));
    assert_eq!(splits.next_idle(), Some(seconds(10)));
    assert_eq!(splits.mark_idle(seconds(10)).last(), Some(&Watermark::Idle));
}

#[tokio::test(start_paused = true)]
async fn a_split_with_records_waiting_is_behind_and_not_idle() {
    let [a, b] = [SplitId::new("a"), SplitId::new("b")];
    let start = Moment::now();
    let seconds = |seconds: u32| start.after(seconds * SECOND);
    let mut splits = SplitWatermarks::new(Watermarks::in_order().idle_after(SECOND), &[a.clone(), b.clone()], start);
    read(&mut splits, &a, 100);
    read(&mut splits, &b, 50);
    let lag = |waiting| [(a.clone(), 0), (b.clone(), waiting), (SplitId::new("unknown"), 1)];
    assert_eq!(splits.lag(&lag(3), start), []);
    assert_eq!(splits.next_idle(), Some(seconds(1)), "a's");
    assert_eq!(splits.mark_idle(seconds(1)), [], "b holds");
    assert_eq!(splits.next_idle(), None);
    assert_eq!(splits.lag(&lag(2), seconds(7)), []);
    assert_eq!(splits.lag(&[], seconds(8)), [], "nothing is known any more");
    assert_eq!(splits.mark_idle(seconds(8)), [at(100), Watermark::Idle], "its silence counts from when it was behind");
    assert_eq!(splits.lag(&lag(0), seconds(9)), []);
    assert_eq!(splits.lag(&lag(1), seconds(9)), [at(100)], "awake before its rows are there");
    assert_eq!(splits.before_rows(&b, seconds(9)), None);
    assert_eq!(splits.before_rows(&a, seconds(9)), None);
    assert_eq!(read(&mut splits, &a, 120), None, "b holds");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_knows_no_idleness_any_more_waits_for_a_split_that_was_idle() {
    let [a, b] = [SplitId::new("a"), SplitId::new("b")];
    let mut splits = SplitWatermarks::new(Watermarks::in_order(), &[a, b], Moment::now());
    let states = [state("a", Some(70), false, false), state("b", Some(50), true, false)];
    assert_eq!(splits.restore(&states, None), [at(50)]);
}

#[tokio::test(start_paused = true)]
async fn what_was_before_the_reading_is_not_silence() {
    let a = SplitId::new("a");
    let start = Moment::now();
    let strategy = Watermarks::in_order().idle_after(SECOND);
    let mut splits = SplitWatermarks::new(strategy, std::slice::from_ref(&a), start);
    splits.begin(start.after(5 * SECOND));
    assert_eq!(splits.next_idle(), Some(start.after(6 * SECOND)));
}

#[tokio::test(start_paused = true)]
async fn waiting_for_others_is_not_silence() {
    let a = SplitId::new("a");
    let start = Moment::now();
    let strategy = Watermarks::in_order().idle_after(SECOND);
    let mut splits = SplitWatermarks::new(strategy, std::slice::from_ref(&a), start);
    splits.excuse(5 * SECOND);
    assert_eq!(splits.mark_idle(start.after(5 * SECOND)), []);
    assert_eq!(splits.next_idle(), Some(start.after(6 * SECOND)));
}

#[tokio::test(start_paused = true)]
async fn an_ended_split_holds_nobody_and_the_last_leaves_the_end_to_say() {
    let [a, b] = [SplitId::new("a"), SplitId::new("b")];
    let mut splits = SplitWatermarks::new(Watermarks::in_order(), &[a.clone(), b.clone()], Moment::now());
    read(&mut splits, &a, 7);
    assert_eq!(splits.ended(&b), Some(at(7)));
    assert_eq!(splits.ended(&a), None);
}

#[tokio::test(start_paused = true)]
async fn a_split_that_appears_holds_until_it_speaks_is_idle_or_ends() {
    let [a, b, c] = ["a", "b", "c"].map(SplitId::new);
    let start = Moment::now();
    let mut splits = SplitWatermarks::new(Watermarks::in_order().idle_after(SECOND), std::slice::from_ref(&a), start);
    assert_eq!(read(&mut splits, &a, 70), Some(at(70)));
    assert_eq!(splits.add(std::slice::from_ref(&b), start.after(SECOND / 2)), None);
    assert_eq!(read(&mut splits, &a, 80), None, "b has promised nothing");
    assert_eq!(read(&mut splits, &b, 60), None, "nothing goes back");
    assert_eq!(read(&mut splits, &b, 75), Some(at(75)));
    assert_eq!(saved(&splits, &b), (Some(75), None, false));
    splits.before_rows(&a, start.after(3 * SECOND));
    assert_eq!(splits.mark_idle(start.after(3 * SECOND)), [at(80)], "b is silent");
    assert_eq!(splits.mark_idle(start.after(4 * SECOND)), [Watermark::Idle]);
    assert_eq!(splits.add(std::slice::from_ref(&c), start.after(4 * SECOND)), Some(at(80)), "awake");
    assert_eq!(splits.next_idle(), Some(start.after(5 * SECOND)), "counted from then");
    assert_eq!(splits.mark_idle(start.after(5 * SECOND)), [Watermark::Idle]);
}

#[tokio::test(start_paused = true)]
async fn a_split_that_appears_when_all_have_ended_goes_on_alone() {
    let [a, b, c] = ["a", "b", "c"].map(SplitId::new);
    let mut splits = SplitWatermarks::new(Watermarks::in_order(), &[a.clone(), b.clone()], Moment::now());
    read(&mut splits, &b, 7);
    assert_eq!((splits.ended(&a), splits.ended(&b)), (Some(at(7)), None));
    assert_eq!(splits.add(&[], Moment::now()), None, "that is not the end");
    assert_eq!(splits.add(std::slice::from_ref(&c), Moment::now()), None);
    assert_eq!(read(&mut splits, &c, 9), Some(at(9)));
}

#[tokio::test(start_paused = true)]
async fn a_row_from_the_future_moves_nothing_unless_all_are() {
    let a = SplitId::new("a");
    let strategy = Watermarks::out_of_order(Duration::from_micros(10)).max_future(SECOND);
    let mut splits = SplitWatermarks::new(strategy, std::slice::from_ref(&a), Moment::now());
    let most = Some(1_000);
    assert_eq!(batch(&mut splits, &a, &[500, i64::MAX >> 2, 400], most), Some(at(490)));
    assert_eq!(saved(&splits, &a), (Some(500), None, false), "nor after a restore");
    assert_eq!(batch(&mut splits, &a, &[1_000], most), Some(at(990)), "that far it may be");
    assert_eq!(batch(&mut splits, &a, &[2_000, 3_000], Some(1_500)), Some(at(1_490)), "all are: as far as that");
    assert_eq!(batch(&mut splits, &a, &[5_000], Some(1_400)), None, "never backwards");
    let rows = RecordBatch::try_from_iter([("at", Timestamp::column(vec![1, 7, 8, 9]))]).unwrap();
    assert_eq!(splits.judge(&a, &rows, &[1, 7, 8, 9], 9, Some(7)).1, 2, "they are counted");
}

/// Says the times it is told, whatever they are, and remembers what it was restored with.
struct Parrot(Vec<i64>);

impl WatermarkGenerator for Parrot {
    fn after_rows(&mut self, _: &RecordBatch, times: &[i64]) -> Option<Timestamp> {
        self.0.extend(times);
        times.last().filter(|time| **time != 0).map(|time| Timestamp::from_micros(*time))
    }

    fn restore(&mut self, latest: Timestamp) {
        self.0 = vec![latest.micros()];
    }
}

#[tokio::test(start_paused = true)]
async fn a_generator_neither_goes_backwards_nor_ends_time() {
    let [a, b] = [SplitId::new("a"), SplitId::new("b")];
    let fresh = || {
        let strategy = Watermarks::custom(|| Parrot(Vec::new()));
        SplitWatermarks::new(strategy, &[a.clone(), b.clone()], Moment::now())
    };
    let mut splits = fresh();
    assert_eq!(batch(&mut splits, &a, &[9, 7], None), None, "b has said nothing");
    assert_eq!(batch(&mut splits, &b, &[90, 50], None), Some(at(7)), "each split has its own");
    assert_eq!(batch(&mut splits, &a, &[60, 0], None), None, "it has nothing to say");
    assert_eq!(batch(&mut splits, &a, &[1], None), None, "not backwards");
    assert_eq!(saved(&splits, &a), (Some(60), Some(7), false));
    assert_eq!(batch(&mut splits, &a, &[i64::MAX], None), Some(at(50)), "that is not the end of a");
    assert_eq!(batch(&mut splits, &b, &[i64::MAX], None), Some(Watermark::At(LATEST)));
    assert_eq!(batch(&mut splits, &b, &[i64::MIN], None), None);

    let mut splits = fresh();
    let states = [SplitState { promised: Some(7), ..state("a", Some(60), false, false) }, {
        SplitState { promised: Some(50), ..state("b", Some(90), false, false) }
    }];
    assert_eq!(splits.restore(&states, None), [at(7)], "what it had said, and not what its rows say");
    assert_eq!(batch(&mut splits, &a, &[6], None), None, "not backwards after a restore either");
    assert_eq!(batch(&mut splits, &a, &[8], None), Some(at(8)));
}

#[tokio::test(start_paused = true)]
async fn splits_follow_the_clock_and_do_not_go_back_with_it() {
    let [a, b] = [SplitId::new("a"), SplitId::new("b")];
    let mut splits = SplitWatermarks::new(Watermarks::clock(), &[a.clone(), b.clone()], Moment::now());
    assert_eq!(splits.follow(Timestamp::from_micros(5)), Some(at(5)));
    assert_eq!(splits.follow(Timestamp::from_micros(3)), None);
    assert_eq!(read(&mut splits, &a, 6), None, "rows say nothing that the clock does not");
    assert_eq!((saved(&splits, &a), saved(&splits, &b)), ((Some(6), None, false), (Some(5), None, false)));
    splits.ended(&a);
    assert_eq!(splits.follow(Timestamp::from_micros(9)), Some(at(9)));
    let mut splits = SplitWatermarks::new(Watermarks::clock(), &[a, b], Moment::now());
    let states = [state("a", Some(9), false, false), state("b", Some(7), false, false)];
    assert_eq!(splits.restore(&states, None), [at(7)]);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_far_ahead_is_paused_and_not_idle() {
    let [a, b, c] = ["a", "b", "c"].map(SplitId::new);
    let start = Moment::now();
    let strategy = || Watermarks::in_order().idle_after(SECOND).align_within(SECOND);
    let mut splits = SplitWatermarks::new(strategy(), &[a.clone(), b.clone(), c.clone()], start);
    let slowest = |time: i64, split: Option<&SplitId>| {
        Some(Slowest { time: Timestamp::from_micros(time), split: split.cloned() })
    };
    assert_eq!(splits.slowest(), slowest(i64::MIN, None), "nobody has promised anything");
    read(&mut splits, &a, 100);
    assert_eq!(splits.slowest(), slowest(100, Some(&a)), "b and c may be read after it");
    read(&mut splits, &b, 20);
    let limit = |time| Some(Timestamp::from_micros(time));
    assert!(splits.pause_beyond(limit(30), false, start));
    assert!(!splits.pause_beyond(limit(40), false, start), "nothing new");
    assert_eq!((splits.paused(), splits.resumes_at()), (vec![a.clone()], limit(100)));
    // a is paused; b and c are silent.
    splits.mark_idle(start.after(SECOND));
    assert_eq!([&a, &b, &c].map(|split| saved(&splits, split).2), [false, true, true]);
    assert_eq!(splits.next_idle(), None);
    assert_eq!(splits.slowest(), slowest(100, Some(&a)), "idle ones hold nobody");
    assert!(splits.pause_beyond(None, false, start.after(2 * SECOND)));
    assert_eq!(splits.next_idle(), Some(start.after(3 * SECOND)), "its silence begins when it can speak again");

    let mut splits = SplitWatermarks::new(strategy(), &[a.clone(), b.clone(), c.clone()], start);
    read(&mut splits, &a, 100);
    read(&mut splits, &b, 20);
    assert!(!splits.pause_beyond(limit(30), true, start), "b is not ahead, and only all can be paused");
    assert!(splits.pause_beyond(limit(10), true, start));
    assert_eq!((splits.paused(), splits.resumes_at()), (vec![a.clone(), b.clone(), c], limit(20)));
    splits.ended(&b);
    assert_eq!(splits.slowest(), slowest(100, Some(&a)));
}
