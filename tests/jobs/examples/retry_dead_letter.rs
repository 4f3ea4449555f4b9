//! Each payment is charged once or is a dead letter, over both runs.

use tests::{rows, run};
use windrow::prelude::*;

use super::{numbers, sorted};
use crate::retry_dead_letter::{ATTEMPTS, Payment, Service, charge, payments};

#[test]
fn dead_letters_are_driven_again() {
    let directory = tempfile::tempdir().unwrap();
    let (mut charged, mut dead, mut calls) = (Vec::new(), Vec::new(), 0);
    for Payment { id, cents, .. } in payments() {
        let fails = cents <= 0 || id % 5 == 0;
        calls += if fails || id % 3 == 0 { ATTEMPTS } else { 1 };
        if fails { dead.push(id) } else { charged.push(id) }
    }

    let (job, receipts, service) = (Job::new("run-1"), MemorySink::new(), Service::half_down());
    let (ok, failed) = charge(&job, MemorySource::records(payments()), &service);
    ok.sink(receipts.clone());
    failed.sink(File::directory(directory.path()).json());
    let report = run(job).unwrap();
    assert_eq!(numbers(&receipts.batches(), "id"), charged);
    assert_eq!(service.calls(), calls);
    assert!(report.metrics.named("async map").all(|calls| calls.failed as usize == dead.len() && calls.balances()));

    let (job, again, left) = (Job::new("run-2"), receipts.clone(), MemorySink::new());
    let letters = File::pattern(directory.path().join("*.jsonl").to_str().unwrap()).json::<Payment>();
    let (ok, failed) = charge(&job, letters, &Service::default());
    ok.sink(again);
    failed.select(["id", "error", "attempts"].map(col)).sink(left.clone());
    run(job).unwrap();
    let good: Vec<i64> = payments().iter().filter(|payment| payment.cents > 0).map(|payment| payment.id).collect();
    assert_eq!(numbers(&receipts.batches(), "id"), good, "each once");
    let bad = payments().into_iter().filter(|payment| payment.cents <= 0);
    let bad = bad.map(|payment| format!("{}|0 cents cannot be charged|{ATTEMPTS}", payment.id)).collect();
    assert_eq!(rows(&left.batches()), sorted(bad));
}
