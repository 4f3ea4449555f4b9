//! What is repeated within an hour of the first does nothing; what comes later counts anew.

use std::collections::{BTreeMap, HashMap};

use tests::{rows, run};
use windrow::prelude::*;

use super::{PARALLELISM, sorted};
use crate::idempotent_consumer::{Transfer, balances, once, sendings};

const SECOND: i64 = 1_000_000;

/// The balances, and how many sendings counted.
fn by_hand(mut sendings: Vec<Transfer>) -> (Vec<String>, usize) {
    sendings.sort_by_key(|transfer| transfer.sent);
    let mut first: HashMap<i64, i64> = HashMap::new();
    let mut accounts: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for Transfer { id, account, cents, sent } in sendings {
        let sent = sent.micros();
        if first.get(&id).is_some_and(|first| sent - first <= 3_600 * SECOND) {
            continue;
        }
        first.insert(id, sent);
        let (balance, transfers) = accounts.entry(account).or_default();
        (*balance, *transfers) = (*balance + cents, *transfers + 1);
    }
    let counted = accounts.values().map(|(_, transfers)| *transfers as usize).sum();
    let text = accounts.iter().map(|(account, (balance, n))| format!("{account}|{balance}|{n}"));
    (sorted(text.collect()), counted)
}

/// Sendings over four hours of ids that come again and again, also after more than an hour.
fn random(seed: u64) -> Vec<Transfer> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut arriving = Vec::new();
    for n in 0..5_000 {
        let sent = n * 3 * SECOND;
        let (id, account) = (random.i64(0..800), format!("account {}", random.u8(0..9)));
        let transfer = Transfer { id, account, cents: random.i64(1..100), sent: Timestamp::from_micros(sent) };
        arriving.push((sent + random.i64(0..60 * SECOND), transfer));
    }
    arriving.sort_by_key(|(arrives, _)| *arrives);
    arriving.into_iter().map(|(_, transfer)| transfer).collect()
}

#[test]
fn a_transfer_counts_once_however_often_it_comes() {
    let example = sendings();
    let (_, counted) = by_hand(example.clone());
    assert_eq!((counted, example.len()), (20_000, 26_000), "each of the example once");
    for sendings in [example, random(1), random(2)] {
        let (expected, counted) = by_hand(sendings.clone());
        for parallelism in PARALLELISM {
            let job = Job::new("transfers").parallelism(parallelism);
            let (table, late) = (MemoryTable::new(), MemorySink::new());
            let (transfers, too_late) = once(&job, MemorySource::records(sendings.clone()).batch_rows(100));
            balances(transfers).sink(table.clone());
            too_late.sink(late.clone());
            let report = run(job).unwrap();
            assert_eq!(rows(&table.batches()), expected, "parallelism {parallelism}");
            assert_eq!(late.rows(), 0);
            let first = report.metrics.named("first within").next().unwrap();
            assert_eq!((first.rows_in as usize, first.rows_out as usize), (sendings.len(), counted));
        }
    }
}
