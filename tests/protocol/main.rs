//! The checkpoint protocol, checked exhaustively (row 6 of the fault matrix; `checkpoint-protocol.md` 6.3 to 6.8).
//!
//! ```text
//!   state.rs       durable facts, and the memory of each process     invariants.rs  I1 to I5, what a reader sees,
//!   model.rs       bounds, and all that can happen next                             a lone restart; sights
//!   recovery.rs    R1 to R8                                          mutants.rs     seeded errors (row 7)
//!   epoch.rs       C1 to C9, publishing, GC
//!   kafka.rs       transactions, as the broker sees them
//! ```
//!
//! Every access to the store or to Kafka is a step of its own; between any two of them every process may crash, pause for
//! ever or wake again, start beside another, lose the reply of its Create, and see its transaction timed out.
//!
//! # A hole in the protocol as written: a slow older start passes a newer one
//!
//! R4 answers the undecided manifest and creates the fence record without asking whether a newer generation has started
//! meanwhile. "The later start wins" is not true then: a slow *older* recovery can pass a newer one. All traces are two
//! starts at once, without a crash; a is generation 1, b is generation 2. `NoGenerationReadInRecovery` is this protocol.
//!
//! Mode S, committed output is deleted:
//!
//! ```text
//!   a: R1 gen/1.  b: R1 gen/2, R3, fence record epoch/1, R5; before R6, b pauses.
//!   a: R3 reads epoch/1, fence record epoch/2, R5 to R8; stages tmp files of epoch 3, writes MANIFEST 3.
//!   b: R6 deletes the tmp files of generations < 2: those of epoch 3.
//!   a: Creates epoch/3 = commit. Or a crashes before, and the next start claims it. Committed, and its output is gone.
//! ```
//!
//! Mode K, Kafka says commit and the store says fence:
//!
//! ```text
//!   a: R1 gen/1, R2 both ids.  b: R1 gen/2, R2 both ids, R3, marker, fence record epoch/1.
//!   a: R3 reads epoch/1, marker, fence record epoch/2 (fenced in Kafka, it does not know it).
//!   b: epoch 2: MANIFEST, marker, EndTxn: committed, b still owns both ids. C7 finds fence(1) in epoch/2.
//!   From here every start refuses (a marker that no undecided manifest explains). If b's MANIFEST 2 is there before
//!   a's R3, a writes epoch/2 = abort instead, and Kafka commits it all the same.
//! ```
//!
//! Mode K, output is repeated (R2 is two calls, and "the later start wins" each of them by itself):
//!
//! ```text
//!   a: R1 gen/1, R2 id 0.  b: R1 gen/2, R2 id 0 and id 1.  a: R2 id 1: now b owns id 0, and a owns id 1.
//!   b: R3, marker, fence record epoch/1.  a: R3, marker, fence record epoch/2.  Both begin at record 0:
//!   b commits epoch 2 with id 0, a commits epoch 3 with id 1.
//! ```
//!
//! **The mend is one read.** R4, after its last read (records, manifests, in mode K the marker) and before its first
//! Create: re-read the highest `gen/*`; newer than mine -> stop. Again whenever R3 is repeated.
//! So whatever a run answers it has read before any newer run existed, and any number that a newer run has taken since
//! makes its Create fail. The place matters: before R3 it does not help in either mode (`GenerationReadFirst`); after the
//! fence record, as in C6, it helps in mode S, not in mode K, where the harm is done by then (`GenerationReadLast`).
//!
//! # A second hole: R3 is not atomic
//!
//! Mode S, three at once, a false alarm (`MissingManifestRefused`); K = 2:
//!
//! ```text
//!   a: epoch 2 committed and done, MANIFEST 3; its GC re-reads gen/* and pauses.   b: R1, R3, R4 re-reads gen/*.
//!   c: R1, R3 reads the records: the last committed is 2.
//!   b: claims epoch 3, fence record epoch/4, publishes; decides epoch 5.  a: GC keeps 5 and 3, deletes MANIFEST 2.
//!   c: R3 reads MANIFEST 2: "decided and invalid -> refuse".
//! ```
//!
//! With more starts at once no K is enough. **The mend:** when R3 finds the manifest of c missing or invalid, it lists
//! `epoch/*` again; more records than before -> R3 again; refuse only when there are none. With it K = 1 and C6 without its
//! re-read are safe, too (`Defence`); without it two runs need K >= 2 *and* the re-read of C6. Keep both.
//!
//! And before *any* refusal: re-read `gen/*`; newer -> stop. An overtaken run may find anything missing. The model does so.
//!
//! # What the text leaves open, and must not
//!
//! * 6.7: `link` first; only when the tmp name turns out absent look at the final name. The other order reports a lost
//!   file when two runs publish the same epoch (`LooksBeforeLink`).
//! * 6.6 R4: a fence record that is there already and carries the own nonce is created, its reply was lost; not back to R3.
//! * 6.6 R4: "newest marker" is the last in the log. EndTxn returns before the broker completes a commit, so the one of e+1
//!   may be completed first.
//!
//! # What is not in the model
//!
//! Barriers and alignment, several subtasks (staging an epoch is one step), the LOCK file (so two starts at once are
//! always possible), sources and their offsets (R7), plan fingerprints, checkpoint 0 (the first start begins from nothing,
//! at record 0), the contents of files and their checksums, multipart uploads, fsync as such (a torn manifest stands for
//! it), savepoints, faults of Kafka beyond fencing, timeout, slow completion and lost replies (K15, K16: data that humans
//! or brokers remove), a deletion that arrives late. The topic is one partition, and epochs of a run are of one length.
//! Crashed tmp files that are half written, and a sweep that deletes half of them, are states with less harm than the
//! model's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod epoch;
mod invariants;
mod kafka;
mod model;
mod mutants;
mod recovery;
mod state;

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use model::{Mode, Protocol};
use mutants::{Defence, Mutation};
use stateright::{Checker, Expectation, HasDiscoveries, Model};

/// One check at a time: each takes both cores, and its time means something.
static MACHINE: Mutex<()> = Mutex::new(());

/// A zombie and its successor, three epochs each.
const PAIR: Protocol = Protocol {
    mode: Mode::Store,
    incarnations: 2,
    together: 2,
    epochs: 3,
    files: 2,
    keep: 2,
    sights: false,
    mutation: None,
    without: None,
};
/// Three at once, one epoch each.
const TRIO: Protocol = Protocol { incarnations: 3, together: 3, epochs: 1, ..PAIR };
/// Three, two of them alive at once, two epochs each.
const RELAY: Protocol = Protocol { incarnations: 3, together: 2, epochs: 2, ..PAIR };

/// The steps to a state, and the law that it breaks.
struct Violation {
    law: &'static str,
    steps: Vec<String>,
}

/// Explores every reachable state, or stops at the first that breaks a law. Prints its figures.
fn explore(name: &str, protocol: Protocol) -> Option<Violation> {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let start = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    let checker = protocol.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let violation = violation(&protocol, &checker);
    println!(
        "{name}: {} states, {} steps, depth {}, {}, {:.1} s",
        grouped(checker.unique_state_count()),
        grouped(checker.state_count()),
        checker.max_depth(),
        violation.as_ref().map_or("exhaustive, 0 violations", |violation| violation.law),
        start.elapsed().as_secs_f64()
    );
    let found = checker.discoveries();
    for property in protocol.properties() {
        let missing = property.expectation == Expectation::Sometimes && !found.contains_key(property.name);
        assert!(!missing, "{name}: never seen: {}", property.name);
    }
    violation
}

fn violation(protocol: &Protocol, checker: &impl Checker<Protocol>) -> Option<Violation> {
    let path = checker.discovery(protocol.laws().name)?;
    let law = protocol.broken(path.last_state()).expect("the last state of the path breaks a law");
    let step = |(state, action): &(state::State, Option<model::Action>)| {
        let action = action.as_ref().map(|action| format!("{action:?}")).unwrap_or_default();
        format!("{action:<12} {:?}", state.runs.map(|run| run.at))
    };
    Some(Violation { law, steps: path.into_vec().iter().map(step).collect() })
}

fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

fn holds(name: &str, protocol: Protocol) {
    if let Some(Violation { law, steps }) = explore(name, protocol) {
        panic!("{name}: {law}\n{}", steps.join("\n"));
    }
}

#[test]
fn mode_s_holds() {
    holds("mode S, 2 incarnations, 3 epochs", PAIR);
    holds("mode S, 3 incarnations at once, 1 epoch", TRIO);
    holds("mode S, 3 incarnations, 2 at once, 2 epochs", RELAY);
}

#[test]
fn mode_k_holds() {
    holds("mode K, 2 incarnations, 3 epochs", Protocol { mode: Mode::Kafka, ..PAIR });
    holds("mode K, 3 incarnations at once, 1 epoch", Protocol { mode: Mode::Kafka, ..TRIO });
}

#[test]
fn the_interesting_states_are_reached() {
    let sights = Protocol { sights: true, epochs: 2, ..PAIR };
    holds("mode S, sights", sights);
    holds("mode K, sights", Protocol { mode: Mode::Kafka, ..sights });
}

#[test]
fn a_second_line_of_defence_is_not_the_first() {
    for (defence, mode) in Defence::ALL {
        holds(
            &format!("without {defence:?} in {mode:?}"),
            Protocol { mode, without: Some(defence), epochs: 2, ..PAIR },
        );
    }
}

#[test]
fn every_mutant_is_caught() {
    let mut missed = Vec::new();
    for mutation in Mutation::ALL {
        for &mode in mutation.modes() {
            let bounds = match mutation {
                Mutation::MissingManifestRefused => Protocol { epochs: 2, files: 1, ..TRIO },
                _ => PAIR,
            };
            let mutant = Protocol { mode, mutation: Some(mutation), ..bounds };
            if explore(&format!("{mutation:?} in {mode:?}"), mutant).is_none() {
                missed.push((mutation, mode));
            }
        }
    }
    let caught = Mutation::ALL.iter().filter(|mutation| missed.iter().all(|(missed, _)| missed != *mutation));
    println!("mutants: {}/{} caught", caught.count(), Mutation::ALL.len());
    assert_eq!(missed, []);
}
