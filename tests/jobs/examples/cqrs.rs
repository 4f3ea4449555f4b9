//! Events and refusals are those of one loop over the commands in order of time.

use std::collections::BTreeMap;

use tests::{rows, run};
use windrow::{arrow::array::StringArray, prelude::*};

use super::{PARALLELISM, numbers, sorted};
use crate::cqrs::{Command, accounts, commands, read_model};

/// The events, the commands that were refused, and the last event of each account.
fn decided(mut commands: Vec<Command>) -> (Vec<String>, Vec<i64>, BTreeMap<String, String>) {
    commands.sort_by_key(|command| command.at);
    let mut open: BTreeMap<String, i64> = BTreeMap::new();
    let (mut events, mut refused, mut last) = (Vec::new(), Vec::new(), BTreeMap::new());
    for Command { id, account, kind, cents, .. } in commands {
        let balance = open.get(&account).copied();
        let after = match (kind.as_str(), balance) {
            ("open", None) => Some(("opened", 0)),
            ("deposit", Some(balance)) if cents > 0 => Some(("deposited", balance + cents)),
            ("withdraw", Some(balance)) if cents > 0 && cents <= balance => Some(("withdrawn", balance - cents)),
            ("close", Some(0)) => Some(("closed", 0)),
            _ => None,
        };
        let Some((happened, balance)) = after else {
            refused.push(id);
            continue;
        };
        match happened {
            "closed" => open.remove(&account),
            _ => open.insert(account.clone(), balance),
        };
        let event = format!("{id}|{account}|{happened}|{cents}|{balance}");
        last.insert(account, event.clone());
        events.push(event);
    }
    refused.sort_unstable();
    (sorted(events), refused, last)
}

/// Commands of many accounts without much sense, up to five seconds out of order.
fn random(seed: u64) -> Vec<Command> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut arriving: Vec<(i64, Command)> = Vec::new();
    for id in 0..3_000 {
        let at = id * 100_000;
        let kind = ["open", "deposit", "deposit", "withdraw", "withdraw", "close", "dance"][random.usize(0..7)];
        let (account, cents) = (format!("account {}", random.u8(0..40)), random.i64(-1..5));
        let command = Command { id, account, kind: kind.into(), cents, at: Timestamp::from_micros(at) };
        arriving.push((at + random.i64(0..5_000_000), command));
    }
    arriving.sort_by_key(|(arrives, _)| *arrives);
    arriving.into_iter().map(|(_, command)| command).collect()
}

#[test]
fn commands_are_decided_in_order_of_time() {
    for commands in [commands(), random(1), random(2)] {
        let (events, refusals, last) = decided(commands.clone());
        assert!(!events.is_empty() && !refusals.is_empty());
        for parallelism in PARALLELISM {
            let job = Job::new("bank").parallelism(parallelism);
            let (log, refused, table) = (MemorySink::new(), MemorySink::new(), MemoryTable::new());
            let (happened, side) = accounts(&job, MemorySource::records(commands.clone()).batch_rows(50));
            happened.clone().sink(log.clone());
            read_model(happened).sink(table.clone());
            side.sink(refused.clone());
            run(job).unwrap();
            assert_eq!(rows(&log.batches()), events, "parallelism {parallelism}");
            assert_eq!(numbers(&refused.batches(), "command"), refusals, "parallelism {parallelism}");
            for (account, event) in &last {
                let row = table.get(&[&StringArray::new_scalar(account)]).unwrap().unwrap();
                assert_eq!(rows(&[row]), [event.as_str()], "parallelism {parallelism}");
            }
            assert_eq!(table.rows(), last.len());
        }
    }
}
