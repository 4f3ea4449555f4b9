//! A job that goes on with another number of tasks: every pair of numbers, from a savepoint and after a crash.
//!
//! The windows of most golden jobs stay open over the whole run and there are more keys than key groups, so a key group
//! that went astray, or went to two tasks, shows in the counts.

use super::{
    kinds::Kind,
    lives::{End, Life, Trial, When, place},
    scenario::{Ending, Fork, Scenario, Step, WindowSpec},
};

pub fn window(key: &[&'static str], size: i64) -> WindowSpec {
    WindowSpec { key: key.to_vec(), size, offset: 0, lateness: 0, late: false, more: true, second: 0 }
}

fn windows() -> Vec<(&'static str, Scenario)> {
    let long = 1_000_000_000;
    let with = |ending: Ending| Scenario::with(7, ending).plain();
    let spec = |ending: WindowSpec| with(Ending::Window(ending));
    let late = WindowSpec { late: true, more: false, ..window(&["user"], 700) };
    vec![
        ("one window per key", spec(window(&["user"], long)).one_split(3_000)),
        ("many windows per two keys", Scenario::with(11, Ending::Window(window(&["user", "shop"], 900)))),
        ("windows without a key", Scenario::with(12, Ending::Window(window(&[], 2_000)))),
        (
            "windows over windows",
            Scenario::with(13, Ending::Window(WindowSpec { second: 3, ..window(&["user"], 500) })),
        ),
        ("the greatest rows", Scenario::with(14, Ending::Top { window: window(&["shop"], long), n: 20 })),
        ("late rows", spec(late).one_split(3_000)),
        (
            "a diamond of steps",
            Scenario {
                steps: vec![Step::Halve, Step::KeepShops(1), Step::Scale(3)],
                fork: Fork::Diamond,
                ..Scenario::with(16, Ending::Window(window(&["user"], 3_000)))
            },
        ),
    ]
}

/// State of every other kind: rows that wait, keys with timers, newest rows, tables.
fn kinds() -> Vec<(&'static str, Scenario)> {
    let near = |left| Kind::Near { before: 20_000, after: 9_000, left, greater: true };
    let kinds = [
        ("sessions", Kind::Sessions { gap: 4_000 }),
        ("hopping windows", Kind::Hopping { size: 9_000, slide: 2_000 }),
        ("pairs of rows that are near each other", near(false)),
        ("rows with those that are near them", near(true)),
        ("rows with the newest of another stream", Kind::AsOf { left: true, ttl: 0 }),
        ("a process in order, with timers", Kind::Streaks { gap: 4_000, late: false }),
        ("the first of each key", Kind::First { within: 9_000, late: true }),
        ("a pattern", Kind::Rise { within: 9_000, every: true }),
        ("a pattern that ends with a silence", Kind::Calm { within: 3_000 }),
        ("a table of totals", Kind::Totals),
        ("a table of the newest rows", Kind::Latest),
        ("steps by one key", Kind::ByUser { gap: 4_000, near: None }),
        ("steps by one key behind a join that waits", Kind::ByUser { gap: 4_000, near: Some(2_000) }),
    ];
    let with = |kind| Scenario::with(17, Ending::Kind(kind)).plain().one_split(3_000);
    kinds.map(|(name, kind)| (name, with(kind))).into()
}

/// What has to survive every change of parallelism.
pub fn golden() -> Vec<(&'static str, Scenario)> {
    windows().into_iter().chain(kinds()).collect()
}

fn rescale(name: &str, scenario: &Scenario, lives: &[Life], last: usize) -> usize {
    let directory = place();
    let trial = Trial::new(scenario, directory.path().to_str().unwrap());
    let lived = tests::on_two_threads(trial.live(lives, last));
    lived.unwrap_or_else(|wrong| panic!("{name}: {wrong}")).savepoints
}

pub fn ends(records: usize) -> [End; 2] {
    let when = When::Read(records as u64 / 2);
    [End::Savepoint(when, "half".into()), End::SavepointThenCrash(when, "half".into())]
}

#[test]
fn every_golden_job_goes_on_with_any_number_of_tasks() {
    let (mut runs, mut all) = (0, 0);
    let pairs: Vec<_> = (1..=4).flat_map(|p| (1..=4).map(move |q| (p, q))).chain([(8, 3)]).collect();
    for job in 0..golden().len() {
        // The other kinds go through fewer pairs, each through others.
        let step = if job < windows().len() { 1 } else { 8 };
        for (p, q) in pairs.iter().skip(job % step).step_by(step).copied() {
            for end in 0..2 {
                all += 1;
                // A fresh one: its silent sources are silent again.
                let (name, scenario) = golden().swap_remove(job);
                let life = Life { parallelism: p, end: ends(scenario.records())[end].clone() };
                runs += rescale(name, &scenario, &[life], q);
            }
        }
    }
    println!("{runs} of {all} jobs were rescaled in the middle");
    assert!(runs > all / 2, "only {runs} savepoints");
}

#[test]
fn late_rows_right_after_a_restore_are_as_late_as_before() {
    let mut savepoints = 0;
    for seed in 0..20 {
        let spec = WindowSpec { late: true, more: false, ..window(&["user"], 300 + seed * 20) };
        let ending = match seed % 4 {
            0 => Ending::Kind(Kind::Streaks { gap: 300 + seed * 20, late: true }),
            1 => Ending::Kind(Kind::First { within: 300 + seed * 20, late: true }),
            _ => Ending::Window(spec),
        };
        let scenario = Scenario::with(seed.unsigned_abs(), ending).plain().one_split(4_000);
        let life = |parallelism: usize, name: &str| {
            let end = End::Savepoint(When::Read(600 + seed.unsigned_abs() * 20), name.into());
            Life { parallelism, end }
        };
        savepoints += rescale("1 → 2 → 1", &scenario, &[life(1, "a"), life(2, "b")], 1);
    }
    assert!(savepoints > 30, "only {savepoints} savepoints");
}
