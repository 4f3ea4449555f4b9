//! The harness bites: a mistake in the protocol of jobs whose topics decide is found by the scenarios that find nothing wrong with
//! the engine as it is.

use std::panic;

use windrow::Faults;

use super::{lives::run_with, mode_k::ExactlyOnce, scenario::Scenario};

/// Within so many seeds.
const SEEDS: u64 = 100;

/// The seeds that find a mistake, and what they find.
fn caught(mutant: &'static str) -> Vec<(u64, String)> {
    let found = (0..SEEDS).filter_map(|seed| {
        let found = panic::catch_unwind(|| run_with(&Scenario::new(seed), &ExactlyOnce, Faults::mutant(mutant)));
        let wrong = found.unwrap_or_else(|_| Err("a panic".into())).err()?;
        Some((seed, wrong))
    });
    found.collect()
}

#[test]
fn mistakes_in_the_protocol_of_topics_are_found() {
    let mutants =
        ["the manifest is written after the decision of the witness", "what a witness did not decide is claimed"];
    for mutant in mutants {
        let found = caught(mutant);
        let (seed, wrong) = found.first().unwrap_or_else(|| panic!("not found: {mutant}"));
        let wrong: String = wrong.chars().take(200).collect();
        println!("{} of {SEEDS} seeds, the first {seed}: {mutant}\n    {wrong}", found.len());
        // A wrong answer or a refusal, in time; no job waits for ever, whatever was done to it.
        let hangs: Vec<_> =
            found.iter().filter(|(_, wrong)| wrong.contains("hangs") || wrong.contains("does not")).collect();
        assert!(hangs.is_empty(), "{mutant}: {hangs:?}");
    }
}
