//! Tests of the Nexmark sources: the public definitions, and that events depend on nothing but seed and number.

use std::{collections::HashMap, time::Duration};

use arrow::array::{Array, AsArray};
use proptest::prelude::*;
use tokio::time::Instant;

use super::{
    super::testing::{drain, int64, micros, open, read_all, read_rest, sorted_rows},
    *,
};
use crate::Fetch;

const START: i64 = 1_436_918_400_000_000;

fn site() -> Nexmark {
    Nexmark::new().events(20_000)
}

fn text<'a>(batch: &'a RecordBatch, column: &str) -> Vec<&'a str> {
    batch.column_by_name(column).unwrap().as_string::<i32>().iter().map(|value| value.unwrap()).collect()
}

/// The number of events by which a bid or an auction at in-order time `at` was preceded, itself included.
fn events_until(at: i64) -> i64 {
    (at - START) / 10 + 1
}

#[tokio::test]
async fn one_person_three_auctions_and_46_bids_in_fifty() {
    for (events, expected) in [(0, [0, 0, 0]), (1, [1, 0, 0]), (7, [1, 3, 3]), (10_000, [200, 600, 9_200])] {
        let site = Nexmark::new().events(events);
        let counts = [site.persons(), site.auctions(), site.bids()]
            .map(|source| async move { read_all(&source).await.num_rows() });
        for (count, expected) in counts.into_iter().zip(expected) {
            assert_eq!(count.await, expected, "of {events} events");
        }
    }
}

#[tokio::test]
async fn columns_and_types() {
    let names = |source: NexmarkSource| -> Vec<String> {
        source.schema().unwrap().fields().iter().map(|field| field.name().clone()).collect()
    };
    assert_eq!(names(site().bids()), ["auction", "bidder", "price", "channel", "url", "at", "extra"]);
    assert_eq!(names(site().persons()), ["id", "name", "email", "credit_card", "city", "state", "at", "extra"]);
    assert_eq!(names(site().auctions())[5..], ["at", "expires", "seller", "category", "extra"]);
    assert_eq!(names(site().bids().columns(["at", "price"])), ["at", "price"]);
    assert_eq!(*site().bids().schema().unwrap().field(5).data_type(), super::super::event_time());
    for source in [site().bids(), site().auctions(), site().persons()] {
        let all = read_all(&source).await;
        assert_eq!(all.schema(), source.schema().unwrap());
        assert!(all.columns().iter().all(|column| column.null_count() == 0));
    }
}

#[tokio::test]
async fn ids_count_from_a_thousand_and_refer_to_what_exists_or_soon_will() {
    let all = read_all(&site().auctions()).await;
    assert_eq!(int64(&all, "id"), (1_000..1_000 + 1_200).collect::<Vec<_>>());
    for (seller, at) in int64(&all, "seller").into_iter().zip(micros(&all, "at")) {
        let persons = (events_until(at) - 1) / 50 + 1;
        assert!((1_000..1_000 + persons + 10).contains(&seller), "seller {seller} of {persons}");
    }
    assert!(int64(&all, "category").iter().all(|category| (10..15).contains(category)));
    assert_eq!(int64(&read_all(&site().persons()).await, "id"), (1_000..1_400).collect::<Vec<_>>());

    let bids = read_all(&site().bids()).await;
    let (auctions, bidders) = (int64(&bids, "auction"), int64(&bids, "bidder"));
    for ((auction, bidder), at) in auctions.into_iter().zip(bidders).zip(micros(&bids, "at")) {
        let rounds = (events_until(at) - 1) / 50 + 1;
        assert!((1_000..1_000 + rounds * 3 + 10).contains(&auction), "auction {auction} of {}", rounds * 3);
        assert!(auction >= 1_000 + rounds * 3 - 1 - 100, "auction {auction} is no longer in flight");
        assert!((1_000..1_000 + rounds + 10).contains(&bidder), "bidder {bidder} of {rounds}");
    }
}

#[tokio::test]
async fn hot_auctions_bidders_and_sellers_get_their_shares() {
    let share = |values: &[i64], is_hot: &dyn Fn(i64) -> bool| {
        values.iter().filter(|value| is_hot(**value)).count() as f64 / values.len() as f64
    };
    let site = Nexmark::new().events(500_000);
    let bids = read_all(&site.bids().columns(["auction", "bidder"])).await;
    // A cold bid may hit a hot auction too: about one in a hundred.
    let auctions = share(&int64(&bids, "auction"), &|id| id % 100 == 0);
    assert!((0.49..0.52).contains(&auctions), "{auctions}");
    let bidders = share(&int64(&bids, "bidder"), &|id| id % 100 == 1);
    assert!((0.74..0.77).contains(&bidders), "{bidders}");
    let sellers = share(&int64(&read_all(&site.auctions()).await, "seller"), &|id| id % 100 == 0);
    assert!((0.74..0.77).contains(&sellers), "{sellers}");
}

#[tokio::test]
async fn prices_and_expiries() {
    let all = read_all(&site().auctions()).await;
    let (initial, reserve) = (int64(&all, "initial_bid"), int64(&all, "reserve"));
    assert!(initial.iter().zip(&reserve).all(|(initial, reserve)| *initial >= 100 && reserve - initial >= 100));
    // 100 auctions take 1,666 events of 10 us; lengths are uniform up to twice that.
    let lengths: Vec<i64> = micros(&all, "expires").iter().zip(micros(&all, "at")).map(|(end, at)| end - at).collect();
    assert!(lengths.iter().all(|length| (1..=33_320).contains(length)));
    let mean = lengths.iter().sum::<i64>() / lengths.len() as i64;
    assert!((15_500..17_800).contains(&mean), "{mean}");

    let mut prices = int64(&read_all(&site().bids().columns(["price"])).await, "price");
    prices.sort_unstable();
    assert!(prices[0] >= 100 && prices[prices.len() - 1] <= 100_000_000);
    let median = prices[prices.len() / 2];
    assert!((90_000..110_000).contains(&median), "half of the prices lie below 10^3: {median}");
}

#[tokio::test]
async fn strings_look_like_the_suites() {
    let bids = read_all(&site().bids()).await;
    let (channels, urls) = (text(&bids, "channel"), text(&bids, "url"));
    let hot = channels.iter().filter(|channel| ["Google", "Facebook", "Baidu", "Apple"].contains(channel)).count();
    assert!((8_800..9_600).contains(&hot), "{hot} of 18,400");
    let mut address: HashMap<&str, &str> = HashMap::new();
    for (channel, url) in channels.iter().zip(&urls) {
        assert!(url.starts_with("https://www.nexmark.com/") && url.contains("/item.htm?query=1"), "{url}");
        assert_eq!(address.entry(channel).or_insert(url), url, "a channel has one address");
    }

    let persons = read_all(&site().persons()).await;
    for row in 0..persons.num_rows() {
        let value = |column| text(&persons, column)[row];
        assert!(value("name").contains(' '));
        assert!(value("email").contains('@') && value("email").ends_with(".com"));
        assert!(value("credit_card").split(' ').all(|part| part.len() == 4 && part.parse::<u16>().is_ok()));
        assert_eq!(value("state").len(), 2);
        if row > 20 {
            break;
        }
    }
}

#[tokio::test]
async fn rows_have_about_the_size_of_the_suites() {
    for (source, expected) in [(site().bids(), 100), (site().auctions(), 500), (site().persons(), 200)] {
        let all = read_all(&source).await;
        let bytes: usize = (0..all.num_columns())
            .map(|i| match all.column(i).as_string_opt::<i32>() {
                Some(strings) => strings.value_data().len(),
                None => all.num_rows() * 8,
            })
            .sum();
        let mean = bytes / all.num_rows();
        assert!(mean.abs_diff(expected) <= expected / 10, "{}: {mean} bytes", source.name());
    }
}

#[tokio::test]
async fn columns_do_not_depend_on_each_other() {
    for source in [site().bids(), site().auctions(), site().persons()] {
        let all = read_all(&source).await;
        for field in all.schema().fields() {
            let alone = read_all(&source.clone().columns([field.name()])).await;
            assert_eq!(alone.column(0), all.column_by_name(field.name()).unwrap(), "{}", field.name());
        }
    }
}

#[tokio::test]
async fn the_seed_decides() {
    for (a, b) in [
        (site().bids(), site().seed(1).bids()),
        (site().auctions(), site().seed(1).auctions()),
        (site().persons(), site().seed(1).persons()),
    ] {
        let (first, second, other) = (read_all(&a).await, read_all(&a).await, read_all(&b).await);
        assert_eq!(first, second);
        assert_ne!(first, other);
    }
}

/// The sums of the first hundred thousand events. They pin the generator: a change of it changes everybody's figures
/// and invalidates the positions of checkpoints.
#[tokio::test]
async fn the_events_of_a_seed_never_change() {
    let site = Nexmark::new().events(100_000);
    let bids = read_all(&site.bids()).await;
    let sum = |column| int64(&bids, column).iter().sum::<i64>();
    let letters: usize = text(&bids, "url").iter().map(|url| url.len()).sum();
    assert_eq!([sum("auction"), sum("bidder"), sum("price")], PINNED_SUMS);
    assert_eq!(letters, PINNED_LETTERS);
}

const PINNED_SUMS: [i64; 3] = [363_725_337, 172_136_574, 663_020_366_030];
const PINNED_LETTERS: usize = 5_806_789;

#[tokio::test]
async fn in_order_times_grow_and_late_ones_stay_below_the_bound() {
    let bound = Duration::from_millis(40);
    let ordered = read_all(&site().bids().columns(["auction", "at"])).await;
    let late = read_all(&site().out_of_order(bound).bids().columns(["auction", "at"])).await;
    let ordered_at = micros(&ordered, "at");
    assert_eq!(ordered_at[0], START + 40);
    assert!(ordered_at.is_sorted());
    assert_eq!(int64(&ordered, "auction"), int64(&late, "auction"), "only the times change");
    let delays: Vec<i64> = ordered_at.iter().zip(micros(&late, "at")).map(|(on_time, at)| on_time - at).collect();
    assert!(delays.iter().all(|delay| (0..40_000).contains(delay)));
    let mean = delays.iter().sum::<i64>() / delays.len() as i64;
    assert!((19_000..21_000).contains(&mean), "{mean}");
}

#[tokio::test(start_paused = true)]
async fn a_rate_counts_the_events_of_all_kinds() {
    let site = Nexmark::new().events(100_000).rate(20_000);
    for source in [site.bids(), site.auctions(), site.persons()] {
        let start = Instant::now();
        drain(&mut *open(&source).await).await;
        let elapsed = start.elapsed();
        assert!((Duration::from_millis(4_990)..Duration::from_millis(5_020)).contains(&elapsed), "{elapsed:?}");
    }
    // The first auction is event 1, the first bid event 4.
    let slow = Nexmark::new().rate(1).bids();
    let start = Instant::now();
    assert!(matches!(open(&slow).await.fetch().await.unwrap(), Fetch::Rows(_)));
    assert_eq!(start.elapsed().as_secs(), 4);
}

#[tokio::test]
async fn wrong_settings_say_what_to_do() {
    let error = site().event_rate(0).bids().schema().unwrap_err().to_string();
    assert!(error.contains("source nexmark.bids") && error.contains("event_rate(1)"), "{error}");
    assert!(site().event_rate(0).bids().reader(Vec::new()).await.is_err());
    let error = site().bids().columns(["acution"]).schema().unwrap_err().to_string();
    assert!(error.contains("did you mean `auction`?"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_set_of_events_does_not_depend_on_splits_batches_or_restarts(
        seed: u64,
        events in 0_u64..700,
        splits in 1_usize..9,
        batch_rows in 1_usize..100,
        cut in 0_u64..300,
        disorder in 0_u64..1_000,
    ) {
        let site = Nexmark::new().seed(seed).events(events).out_of_order(Duration::from_millis(disorder));
        let dealt = site.clone().splits(splits).batch_rows(batch_rows);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            for (whole, dealt) in [
                (site.bids(), dealt.bids()),
                (site.auctions(), dealt.auctions()),
                (site.persons(), dealt.persons()),
            ] {
                let expected = sorted_rows(&read_all(&whole).await);
                prop_assert_eq!(&sorted_rows(&read_all(&dealt).await), &expected);
                for split in dealt.splits().await.unwrap() {
                    let all = read_rest(&dealt, &split, None).await;
                    let cut = (cut as usize).min(all.num_rows());
                    let rest = read_rest(&dealt, &split, Some(Position(cut as u64))).await;
                    prop_assert_eq!(rest, all.slice(cut, all.num_rows() - cut));
                }
            }
            Ok(())
        })?;
    }
}
