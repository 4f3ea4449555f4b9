//! The harness bites: every mistake that is switched on in the protocol is found by the same scenarios that find nothing
//! wrong with the engine as it is.
//!
//! Mistakes that only a power cut would show (a flush left out) are not here: nothing in a living process sees them.

use std::{panic, time::Duration};

use windrow::{Faults, MUTANTS};

use super::{
    aged, backpressure, crashes, ends, growing, lives,
    lives::{End, Life, POINTS, Trial, place},
    quiet::{self, Silence},
    rescale,
    scenario::{Ending, Fork, Scenario},
    witness_jobs, zombies,
};

/// Seeds within which a mistake must be found.
const SEEDS: u64 = 100;

/// One scenario of every kind in turn; what is wrong is said in words.
fn attack(seed: u64, faults: Faults) -> Result<(), String> {
    let at = (seed / 6) as usize;
    match seed % 6 {
        0 => attack_lives(&Scenario::new(seed), &crashes::draw(seed), faults),
        1 => {
            // With rows on their way to a sink in every epoch.
            let mut scenario = Scenario::new(seed);
            scenario.fork = Fork::Raw;
            attack_lives(&scenario, &crashes::draw_points(seed, POINTS[at % POINTS.len()]), faults)
        }
        2 => {
            let mut golden = rescale::golden();
            let (_, scenario) = golden.swap_remove(at % golden.len());
            let [savepoint, crash] = rescale::ends(scenario.records());
            let end = if at.is_multiple_of(2) { savepoint } else { crash };
            attack_lives(&scenario, &[Life { parallelism: 1 + at % 4, end }], faults)
        }
        3 if at % 3 == 1 => growing::run(seed, faults),
        3 => {
            let silence = [Silence::Ahead, Silence::Calls, Silence::Idle][(at + at / 3) % 3];
            quiet::run(silence, 1 + at % 3, 1 + at % 2, faults)
        }
        4 => {
            // Rows that reach the sink in every epoch, a state that is large and old, a checkpoint that is held up.
            let point = ["K11 done", "K5 prepared", "K8 decided"][at / 3 % 3];
            match at % 3 {
                0 => {
                    let scenario = Scenario::with(seed, Ending::Rows).plain().one_split(6_000);
                    let end = End::Point(point, 5);
                    attack_lives(&scenario, &[Life { parallelism: 1 + at % 4, end }], faults)
                }
                1 => aged::run(1 + at % 4, 1 + at % 3, faults),
                _ => tests::on_two_threads(faults.during(backpressure::held_up())),
            }
        }
        _ => zombies::run(seed, zombies::SLEEPS[at % zombies::SLEEPS.len()], faults).map(|_| ()),
    }
}

fn attack_lives(scenario: &Scenario, lives: &[Life], faults: Faults) -> Result<(), String> {
    let directory = place();
    let trial =
        Trial { faults, patience: Duration::from_secs(5), ..Trial::new(scenario, directory.path().to_str().unwrap()) };
    tests::on_two_threads(trial.live(lives, scenario.parallelism)).map(|_: lives::Lived| ())
}

/// The first seed that finds the mistake, and what it finds.
fn caught(mutant: &'static str) -> Option<(u64, String)> {
    (0..SEEDS).find_map(|seed| {
        // A mistake may also end in an assertion.
        let attack = match mutant {
            mutant if witness_jobs::MUTANTS.contains(&mutant) => witness_jobs::attack,
            mutant if ends::MUTANTS.contains(&mutant) => ends::attack,
            _ => attack,
        };
        let found = panic::catch_unwind(|| attack(seed, Faults::mutant(mutant)));
        let wrong = found.unwrap_or_else(|_| Err("a panic".into())).err()?;
        Some((seed + 1, wrong))
    })
}

#[test]
fn every_mistake_in_the_protocol_is_found() {
    let mut missed = Vec::new();
    let mut most = 0;
    for mutant in MUTANTS {
        match caught(mutant) {
            Some((seeds, wrong)) => {
                let wrong: String = wrong.chars().take(160).collect();
                println!("{seeds:>3} seeds: {mutant}\n           {wrong}");
                most = most.max(seeds);
            }
            None => missed.push(mutant),
        }
    }
    println!("{}/{} caught within {SEEDS} seeds, the last after {most}", MUTANTS.len() - missed.len(), MUTANTS.len());
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn the_engine_as_it_is_passes_the_same_seeds() {
    for seed in 0..SEEDS {
        attack(seed, Faults::default()).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    }
    for seed in 0..SEEDS / 5 {
        witness_jobs::attack(seed, Faults::default()).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    }
}
