//! Jobs whose epochs are decided by a cluster and not by the checkpoint store: whatever moment they die at, and whatever
//! request or reply is lost, the answer comes once.

use std::time::Duration;

use windrow::{Faults, Restarts, prelude::*};

use super::{
    crashes::draw,
    lives::{End, Life, Lived, Trial, balanced, place, start},
    scenario::{Ending, Fork, Outputs, Scenario},
    witness::{Connection, Fate},
    witness_refusals::foreign_marker,
    zombies,
};

/// The points of the protocol that such a job passes.
const POINTS: [&str; 18] = [
    "K1 no barrier",
    "K2 segments written",
    "K3 report",
    "K4 manifest begun",
    "K5 prepared",
    "K6 undecided",
    "K8 witnessed",
    "K8 decided",
    "K10 sink",
    "K10 published",
    "K11 done",
    "K12 gc",
    "K13 R1 generation",
    "K13 R2 fenced",
    "K13 R3 read",
    "K13 R4 claimed",
    "K13 R4 fenced",
    "K13 R6 cleaned",
];

/// The mistakes that only such jobs can show.
pub const MUTANTS: [&str; 4] = [
    "the manifest is written after the decision of the witness",
    "the marker is read before the fence",
    "an unknown marker is taken for an abort",
    "what a witness did not decide is claimed",
];

/// A scenario with results that the cluster decides on, windows or rows.
fn scenario(seed: u64) -> Scenario {
    let ends_well = |scenario: &Scenario| !matches!(scenario.ending, Ending::Kind(_));
    (seed * 1_000..).map(Scenario::new).find(ends_well).expect("most scenarios are such")
}

/// The same, and rows reach the cluster in every epoch.
fn with_rows(seed: u64) -> Scenario {
    Scenario { fork: Fork::Raw, ..scenario(seed) }
}

fn to(cluster: &Connection) -> Outputs {
    Outputs { cluster: Some(cluster.clone()), ..Outputs::default() }
}

fn live(scenario: &Scenario, lives: &[Life], cluster: &Connection, faults: Faults) -> Result<Lived, String> {
    let directory = place();
    let trial = Trial {
        faults,
        patience: Duration::from_secs(10),
        to: to(cluster),
        ..Trial::new(scenario, directory.path().to_str().unwrap())
    };
    tests::on_two_threads(trial.live(lives, scenario.parallelism))
}

/// Lives that end at `point`: in the first or second epoch, or in the last.
fn ending_at(point: &'static str, at: usize, seed: u64) -> (Scenario, Vec<Life>) {
    let mut scenario = with_rows(seed);
    let in_recovery = point.starts_with("K13");
    let pass = if in_recovery { 1 } else { 1 + at.min(1) };
    if at == 2 {
        // Its second checkpoint is its last.
        scenario.interval = hours(100);
    }
    let parallelism = 1 + seed as usize % 3;
    let mut lives = Vec::new();
    if in_recovery {
        // What is to be found there.
        let left = ["K5 prepared", "K8 witnessed", "K8 decided"][at];
        lives.push(Life { parallelism, end: End::Point(left, 1 + at % 2) });
    }
    lives.push(Life { parallelism: 1 + at, end: End::Point(point, pass) });
    (scenario, lives)
}

#[test]
fn a_crash_at_any_point_is_safe_when_a_witness_decides() {
    at_points(0..3);
}

#[test]
#[ignore = "the full count"]
fn a_crash_at_any_point_is_safe_when_a_witness_decides_in_full() {
    at_points(100..140);
}

fn at_points(seeds: std::ops::Range<u64>) {
    let mut lived = Lived::default();
    for seed in seeds.clone() {
        for point in POINTS {
            for at in 0..3 {
                let (scenario, lives) = ending_at(point, at, seed);
                let done = live(&scenario, &lives, &Connection::new(), Faults::default());
                lived += done.unwrap_or_else(|wrong| panic!("{point}, {at}: {wrong}"));
            }
        }
    }
    println!("{} points x 3, {} seeds: {lived:?}", POINTS.len(), seeds.count());
    assert!(lived.crashes > POINTS.len() * 3, "{lived:?}");
}

#[test]
fn lost_requests_and_replies_between_crashes_stops_and_savepoints() {
    let lived = lost(0..25);
    assert!(lived.crashes > 10, "{lived:?}");
}

#[test]
#[ignore = "the full count"]
fn lost_requests_and_replies_between_crashes_stops_and_savepoints_in_full() {
    lost(1_000..2_000);
}

fn lost(seeds: std::ops::Range<u64>) -> Lived {
    let mut lived = Lived::default();
    for seed in seeds.clone() {
        let cluster = Connection::new();
        cluster.chaos(seed);
        let scenario = if seed % 2 == 0 { scenario(seed) } else { with_rows(seed) };
        lived += live(&scenario, &draw(seed), &cluster, Faults::default()).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
    println!("{} seeds: {lived:?}", seeds.count());
    lived
}

#[test]
fn a_job_that_starts_itself_again_after_every_lost_reply_comes_to_its_end() {
    for seed in 0..6 {
        let (cluster, directory) = (Connection::new(), place());
        let (scenario, to) = (with_rows(seed), to(&cluster));
        cluster.chaos(seed);
        scenario.speak_last();
        let report = tests::on_two_threads(async {
            let job = scenario.job(directory.path().to_str().unwrap(), 1 + seed as usize % 3, &to);
            job.restarts(Restarts::at_most(1_000).waiting(millis(1)..=millis(2))).run().await
        });
        balanced(&report.unwrap_or_else(|error| panic!("seed {seed}: {error}"))).unwrap();
        scenario.check(&to).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        cluster.check().unwrap();
    }
}

#[test]
fn an_incarnation_that_wakes_up_behind_another_decides_nothing() {
    let sleeps = [
        ("K4 manifest begun", 2),
        ("K5 prepared", 2),
        ("K6 undecided", 1),
        ("K6 undecided", 2),
        ("K8 witnessed", 1),
        ("K8 witnessed", 2),
        ("K8 decided", 2),
        ("K13 R2 fenced", 1),
        ("K13 R3 read", 1),
        ("K13 R4 fenced", 1),
    ];
    let mut slept = 0;
    for (seed, sleep) in (0..).zip(sleeps) {
        let cluster = Connection::new();
        let done = zombies::run_to(with_rows(seed), sleep, Faults::default(), to(&cluster));
        slept += usize::from(done.unwrap_or_else(|wrong| panic!("{wrong}")).is_some());
        cluster.check().unwrap();
    }
    assert!(slept > 7, "only {slept} of {} slept", sleeps.len());
}

/// A few whole lives in which one of [`MUTANTS`] shows, by turns.
pub fn attack(seed: u64, faults: Faults) -> Result<(), String> {
    let (cluster, scenario) = (Connection::new(), with_rows(seed));
    let parallelism = 1 + seed as usize % 3;
    let life = |point, pass| [Life { parallelism, end: End::Point(point, pass) }];
    match seed % 4 {
        0 => live(&scenario, &life("K8 witnessed", 2), &cluster, faults).map(|_| ()),
        1 => live(&scenario, &life("K6 undecided", 2), &cluster, faults).map(|_| ()),
        2 => {
            cluster.reply([Fate::Fine, Fate::Late]);
            let directory = place();
            let (store, to) = (directory.path().to_str().unwrap(), to(&cluster));
            tests::on_two_threads(faults.during(Box::pin(async {
                let lost = start(|| scenario.job(store, parallelism, &to)).await.map_err(|error| error.to_string())?;
                let _ = tokio::time::timeout(Duration::from_secs(5), lost.wait()).await;
                scenario.speak_last();
                let running =
                    start(|| scenario.job(store, parallelism, &to)).await.map_err(|error| error.to_string())?;
                running.wait().await.map_err(|error| error.to_string())
            })))?;
            scenario.check(&to)?;
            cluster.check()
        }
        _ => tests::on_two_threads(faults.during(Box::pin(foreign_marker()))),
    }
}
