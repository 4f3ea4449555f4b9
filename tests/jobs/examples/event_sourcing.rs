//! Balances from a replay are those of adding up the log, as of any time.

use std::collections::BTreeMap;

use tests::{rows, run};
use windrow::prelude::*;

use super::{PARALLELISM, sorted};
use crate::event_sourcing::{balances, history, write_log};

fn added_up(until: Timestamp) -> Vec<String> {
    let mut accounts: BTreeMap<String, (i64, i64, Timestamp)> = BTreeMap::new();
    for event in history().into_iter().flatten().filter(|event| event.at <= until) {
        let (balance, events, last) = accounts.entry(event.account).or_default();
        *balance += if event.kind == "withdrawn" { -event.cents } else { event.cents };
        (*events, *last) = (*events + 1, event.at.max(*last));
    }
    sorted(accounts.iter().map(|(account, (sum, n, last))| format!("{account}|{sum}|{n}|{last}")).collect())
}

#[test]
fn a_replay_gives_the_balances_of_any_time() {
    let log = tempfile::tempdir().unwrap();
    write_log(log.path()).unwrap();
    let at: Vec<Timestamp> = history().into_iter().flatten().map(|event| event.at).collect();
    for until in [at[0], at[3], at[1_500], at[1_500].saturating_sub(millis(1)), Timestamp::MAX] {
        for parallelism in PARALLELISM {
            let (job, table) = (Job::new("balances").parallelism(parallelism), MemoryTable::new());
            balances(&job, log.path(), until).sink(table.clone());
            run(job).unwrap();
            assert_eq!(rows(&table.batches()), added_up(until), "until {until}, parallelism {parallelism}");
        }
    }
    assert_eq!(added_up(Timestamp::MAX).len(), 5);
}
