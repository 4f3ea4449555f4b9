//! A job that is dropped or stopped at any moment and started again, at any parallelism: the answer comes once.

use std::time::Duration;

use super::{
    kinds::Kind,
    lives::{End, Life, Lived, POINTS, Trial, When, place},
    scenario::{Ending, Scenario},
};

/// Lives drawn from a seed.
pub fn draw(seed: u64) -> Vec<Life> {
    let mut random = fastrand::Rng::with_seed(seed ^ 0xc4a5);
    let lives = (0..random.usize(1..5)).map(|at| {
        let after = match random.bool() {
            true => When::After(Duration::from_micros(random.u64(0..40_000))),
            false => When::Read(random.u64(0..2_000)),
        };
        let end = match random.u8(0..10) {
            0..6 => End::Crash(after),
            6..8 => End::Stop(after),
            8 => End::Savepoint(after, format!("s{at}")),
            _ => End::SavepointThenCrash(after, format!("s{at}")),
        };
        Life { parallelism: random.usize(1..5), end }
    });
    lives.collect()
}

/// Lives that end at points of the protocol drawn from a seed, the first at `point`.
pub fn draw_points(seed: u64, point: &'static str) -> Vec<Life> {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x901_4755);
    let mut lives = Vec::new();
    for at in 0..random.usize(1..4) {
        // A point of a restart is passed once a life, the others once a checkpoint or more often.
        let (point, pass) = match at {
            0 => (point, if point.starts_with("K13") { 1 } else { random.usize(1..5) }),
            _ => (POINTS[random.usize(0..POINTS.len())], random.usize(1..4)),
        };
        // What is found on a restart is worth a look only behind a life that left something.
        if point.starts_with("K13") {
            let end = End::Point("K5 prepared", random.usize(2..5));
            lives.push(Life { parallelism: random.usize(1..5), end });
        }
        lives.push(Life { parallelism: random.usize(1..5), end: End::Point(point, pass) });
    }
    lives
}

/// Runs the scenarios of some seeds, each on a store of its own; panics with what is wrong.
fn all(seeds: std::ops::Range<u64>, lives: impl Fn(u64) -> Vec<Life>) -> Lived {
    all_of(seeds, Scenario::new, lives)
}

fn all_of(seeds: std::ops::Range<u64>, scenario: impl Fn(u64) -> Scenario, lives: impl Fn(u64) -> Vec<Life>) -> Lived {
    let mut lived = Lived::default();
    for seed in seeds {
        let scenario = scenario(seed);
        let directory = place();
        let trial = Trial::new(&scenario, directory.path().to_str().unwrap());
        match tests::on_two_threads(trial.live(&lives(seed), scenario.parallelism)) {
            Ok(more) => lived += more,
            Err(wrong) => panic!("{wrong}"),
        }
    }
    lived
}

#[test]
fn a_job_that_ends_anywhere_and_is_started_again_gives_the_answer_once() {
    let lived = all(0..80, draw);
    println!("80 seeds: {lived:?}");
    assert!(lived.crashes > 30 && lived.stops > 5 && lived.savepoints > 5, "{lived:?}");
}

/// Most of these jobs have three exchanges for six operators that have each a key.
#[test]
fn what_stays_with_the_task_of_its_key_is_found_there_again() {
    let kind = |seed: u64| {
        let mut random = fastrand::Rng::with_seed(seed ^ 0x0b_1e55);
        let near = random.bool().then(|| random.i64(0..3_000));
        Kind::ByUser { gap: random.i64(20..1_500), near }
    };
    let scenario = |seed| Scenario::with(seed, Ending::Kind(kind(seed)));
    let lived = all_of(0..40, scenario, draw);
    println!("40 seeds: {lived:?}");
    assert!(lived.crashes > 15 && lived.stops > 3 && lived.savepoints > 3, "{lived:?}");
}

#[test]
#[ignore = "the full count"]
fn a_job_that_ends_anywhere_and_is_started_again_gives_the_answer_once_in_full() {
    println!("2,000 seeds: {:?}", all(1_000..3_000, draw));
}

#[test]
fn a_crash_at_any_point_of_the_protocol_is_safe() {
    let lived = at_points(0..5);
    assert!(lived.crashes > 11 * 5 / 2, "{lived:?}");
}

#[test]
#[ignore = "the full count"]
fn a_crash_at_any_point_of_the_protocol_is_safe_in_full() {
    at_points(100..160);
}

fn at_points(seeds: std::ops::Range<u64>) -> Lived {
    let mut lived = Lived::default();
    for point in POINTS {
        lived += all(seeds.clone(), |seed| draw_points(seed, point));
    }
    println!("{} points, {} seeds each: {lived:?}", POINTS.len(), seeds.count());
    lived
}

#[test]
fn without_a_disturbance_every_scenario_is_right() {
    all(0..60, |_| Vec::new());
}
