//! Every branch has what it should, at every parallelism, from one reading of the source.

use std::collections::{BTreeMap, HashMap};

use tests::{on_two_threads, rows, run};
use windrow::{
    arrow::{
        array::AsArray,
        datatypes::{Int64Type, TimestampMicrosecondType},
    },
    connectors::{Fetch, Source},
    prelude::*,
};

use super::{PARALLELISM, numbers, sorted};
use crate::fan_out::{Branches, fan_out, nexmark};

const EVENTS: u64 = 60_000;
const WINDOW: i64 = 6 * 3_600 * 1_000_000;

/// All bids (auction, bidder, price, at), read without the engine.
fn bids() -> Vec<[i64; 4]> {
    on_two_threads(async {
        let source = nexmark(1).events(EVENTS).bids().columns(["auction", "bidder", "price", "at"]);
        let splits = Source::splits(&source).await.unwrap().into_iter().map(|split| (split, None)).collect();
        let mut reader = source.reader(splits).await.unwrap();
        let mut bids = Vec::new();
        loop {
            match reader.fetch().await.unwrap() {
                Fetch::Rows(rows) => {
                    let [auction, bidder, price] = [0, 1, 2].map(|i| rows.batch.column(i).as_primitive::<Int64Type>());
                    let at = rows.batch.column(3).as_primitive::<TimestampMicrosecondType>();
                    let bid = |i| [auction.value(i), bidder.value(i), price.value(i), at.value(i)];
                    bids.extend((0..at.len()).map(bid));
                }
                Fetch::SplitEnd(_) => {}
                Fetch::End => return bids,
            }
        }
    })
}

fn busiest(bids: &[[i64; 4]]) -> Vec<String> {
    let mut windows: BTreeMap<i64, HashMap<i64, (i64, i64)>> = BTreeMap::new();
    for [auction, _, price, at] in bids {
        let (bids, highest) = windows.entry(at.div_euclid(WINDOW)).or_default().entry(*auction).or_default();
        (*bids, *highest) = (*bids + 1, (*highest).max(*price));
    }
    let mut busiest = Vec::new();
    for (window, auctions) in windows {
        let mut auctions: Vec<_> = auctions.into_iter().collect();
        auctions.sort_by_key(|(auction, (bids, _))| (-bids, *auction));
        let [start, end] = [window, window + 1].map(|n| Timestamp::from_micros(n * WINDOW));
        for (rank, (auction, (bids, highest))) in (1..=3).zip(auctions) {
            busiest.push(format!("{start}|{end}|{rank}|{auction}|{bids}|{highest}"));
        }
    }
    sorted(busiest)
}

#[test]
fn each_branch_has_its_rows() {
    let bids = bids();
    let dear: Vec<_> = bids.iter().filter(|[_, _, price, _]| *price > 99_500_000).collect();
    assert!(!dear.is_empty() && dear.len() < bids.len() / 100);
    let alerts = dear
        .iter()
        .map(|[auction, bidder, price, at]| format!("{}|{bidder}|{auction}|{price}", Timestamp::from_micros(*at)));
    let (alerts, busiest) = (sorted(alerts.collect()), busiest(&bids));
    let mut prices: Vec<i64> = bids.iter().map(|bid| bid[2]).collect();
    prices.sort_unstable();
    for parallelism in PARALLELISM {
        let job = Job::new("fan-out").parallelism(parallelism);
        let (all, dear, table) = (MemorySink::new(), MemorySink::new(), MemoryTable::new());
        let branches: Branches = fan_out(&job, &nexmark(parallelism).events(EVENTS));
        branches.all.sink(all.clone());
        branches.alerts.sink(dear.clone());
        branches.top.sink(table.clone());
        let report = run(job).unwrap();
        assert_eq!(numbers(&all.batches(), "price"), prices, "parallelism {parallelism}");
        assert_eq!(rows(&dear.batches()), alerts, "parallelism {parallelism}");
        assert_eq!(rows(&table.batches()), busiest, "parallelism {parallelism}");
        assert!(report.metrics.operators.iter().all(|operator| operator.balances() && operator.late == 0));
        let read: u64 = report.metrics.named("source").map(|source| source.rows_in).sum();
        assert_eq!(read as usize, bids.len(), "the source is read once");
    }
}
