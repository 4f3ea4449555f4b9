//! FilterRows, MapRows and FlatMapRows: closures over views, with optional fields, text and times.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Schema},
};
use datafusion_expr::{col, lit};
use datafusion_functions_aggregate::expr_fn::{count, sum};
use proptest::prelude::*;
use typed_arrow::{
    prelude::*,
    schema::{BuildRows, SchemaMeta},
};
use windrow_operators::{
    Operator, Outbox, Port, StreamSchema, Timestamp,
    state::{SegmentId, StateWriter},
    testing::{Check, Pipeline},
    typed::{FilterRows, FlatMapRows, MapRows},
    window::{AggregatePlan, Tumbling},
};

use crate::bids::{Bid, bids, cases, fail, some_bids, us};

/// Fewer columns than the stream has, in another order.
#[derive(Clone, Record)]
struct Offer {
    at: Timestamp,
    price: Option<i64>,
    who: Option<String>,
}

#[derive(Clone, Record)]
struct Dear {
    who: String,
    dollars: Option<i64>,
    seen: Timestamp,
}

#[derive(Clone, Record)]
struct Copy {
    number: i64,
    of: Option<String>,
}

proptest! {
    #![proptest_config(cases(32))]

    #[test]
    fn filter_rows(rows in some_bids(any::<i64>()), seed: u64) {
        let filter = FilterRows::<Offer, _>::new(&bids(), |offer| {
            offer.at.micros() % 2 == 0 && (offer.price.is_none() || offer.who == Some("bob"))
        }).unwrap();
        let pipeline = Pipeline::new(&bids()).stage(&bids(), || Ok(filter.clone()));
        let oracle = |rows: &[Bid]| {
            let even = rows.iter().filter(|bid| bid.at.micros() % 2 == 0);
            let kept = even.filter(|bid| bid.price.is_none() || bid.who.as_deref() == Some("bob"));
            kept.map(|bid| (bid.auction, bid.who.clone(), bid.price, bid.at)).collect::<Vec<_>>()
        };
        Check::new(pipeline).out_of_order(us(30)).seed(seed).run(&rows, oracle).map_err(fail)?;
    }

    #[test]
    fn map_rows(rows in some_bids(any::<i64>()), seed: u64) {
        let map = MapRows::<Offer, Dear, _>::new(&bids(), |offer| Dear {
            who: offer.who.unwrap_or("nobody").to_uppercase(),
            dollars: offer.price.map(|price| price / 2),
            seen: offer.at,
        }).unwrap();
        let pipeline = Pipeline::new(&bids()).stage(map.output(), || Ok(map.clone()));
        let oracle = |rows: &[Bid]| {
            let who = |bid: &Bid| bid.who.clone().unwrap_or("nobody".into()).to_uppercase();
            rows.iter().map(|bid| (who(bid), bid.price.map(|price| price / 2), bid.at)).collect::<Vec<_>>()
        };
        Check::new(pipeline).out_of_order(us(30)).seed(seed).run(&rows, oracle).map_err(fail)?;
    }

    /// Records of a closure keep the event time of their row, which a window behind sees.
    #[test]
    fn flat_map_rows_into_a_window(rows in some_bids(-50i64..50), seed: u64) {
        let copies = FlatMapRows::<Bid, Copy, _>::new(&bids(), |bid| {
            let of = bid.who.map(str::to_string);
            (0..bid.auction).map(move |number| Copy { number, of: of.clone() })
        }).unwrap();
        let aggregates = [count(lit(1)).alias("copies"), sum(col("number")).alias("sum")];
        let plan = AggregatePlan::new(copies.output(), &["of"], Tumbling::of(us(10)), &aggregates).unwrap();
        let pipeline = Pipeline::new(&bids())
            .stage(copies.output(), || Ok(copies.clone()))
            .exchange([1])
            .stage(plan.output(), || plan.whole());
        let oracle = |rows: &[Bid]| {
            let mut groups: BTreeMap<_, (u64, i64)> = BTreeMap::new();
            for bid in rows {
                for number in 0..bid.auction {
                    let group = groups.entry((bid.at.micros().div_euclid(10) * 10, bid.who.clone())).or_default();
                    *group = (group.0 + 1, group.1 + number);
                }
            }
            groups.into_iter().map(|((start, of), (copies, sum))| (start, start + 10, of, copies, sum))
        };
        Check::new(pipeline).out_of_order(us(30)).seed(seed).run(&rows, oracle).map_err(fail)?;
    }
}

/// Text in views is text to a closure, alone and after rows have gone, in the rows that it lets through as it was; a column that the
/// record does not name is not looked at.
#[test]
fn text_in_views() {
    let mut rows = Bid::new_builders(0);
    let bid = |who: Option<&str>, auction| Bid {
        auction,
        who: who.map(String::from),
        price: Some(auction),
        at: Timestamp::from_micros(auction),
    };
    rows.append_rows([
        bid(Some("bob"), 0),
        bid(None, 2),
        bid(Some("a name of more than twelve bytes"), 4),
        bid(None, 5),
    ]);
    let rows = rows.finish().into_record_batch();
    let mut columns = rows.columns().to_vec();
    let text = rows.schema().index_of("who").unwrap();
    columns[text] = cast(&columns[text], &DataType::Utf8View).unwrap();
    let fields = rows.schema_ref().fields().iter().zip(&columns);
    let fields = fields.map(|(field, column)| field.as_ref().clone().with_data_type(column.data_type().clone()));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let viewed = RecordBatch::try_new(schema.clone(), columns).unwrap();
    let stream = StreamSchema::with_time(schema, "at").unwrap();

    let mut filter = FilterRows::<Offer, _>::new(&stream, |offer| offer.who.is_none_or(|who| who != "bob")).unwrap();
    let mut out = Outbox::new();
    filter.process(Port::MAIN, viewed.clone(), &mut out).unwrap();
    let kept: Vec<RecordBatch> = out.drain().map(|(_, rows)| rows).collect();
    assert_eq!(kept, [viewed.slice(1, 3)]);
    let mut map = MapRows::<Offer, Dear, _>::new(&stream, |offer| Dear {
        who: offer.who.unwrap_or("nobody").to_uppercase(),
        dollars: offer.price,
        seen: offer.at,
    })
    .unwrap();
    map.process(Port::MAIN, viewed.slice(1, 2), &mut out).unwrap();
    let made: Vec<RecordBatch> = out.drain().map(|(_, rows)| rows).collect();
    let whos: Vec<_> = made[0].column(0).as_string::<i32>().iter().collect();
    assert_eq!(whos, [Some("NOBODY"), Some("A NAME OF MORE THAN TWELVE BYTES")]);
    let mut repeat = FlatMapRows::<Bid, Copy, _>::new(&stream, |bid| {
        let of = bid.who.map(str::to_string);
        (0..5_000).map(move |number| Copy { number, of: of.clone() })
    })
    .unwrap();
    let (mut next, mut steps) = (viewed.clone(), Vec::new());
    loop {
        repeat.process(Port::MAIN, next, &mut out).unwrap();
        steps.extend(out.drain().flat_map(|(_, rows)| {
            rows.column(1).as_string::<i32>().iter().map(|who| who.map_or(0, str::len)).collect::<Vec<_>>()
        }));
        if !out.take_again() {
            break;
        }
        next = viewed.slice(0, 0);
    }
    assert_eq!(steps, [3, 0, 32, 0].map(|length| [length; 5_000]).concat());
}

/// A row that explodes does not make a batch of its own size.
#[test]
fn a_row_that_explodes() {
    let bid = |auction| Bid { auction, who: None, price: None, at: Timestamp::from_micros(auction) };
    let rows = [bid(20_000), bid(3), bid(8_192), bid(0)];
    let copies =
        FlatMapRows::<Bid, Copy, _>::new(&bids(), |bid| (0..bid.auction).map(|number| Copy { number, of: None }));
    let copies = copies.unwrap();
    let pipeline = Pipeline::new(&bids()).stage(copies.output(), || Ok(copies.clone()));
    Check::new(pipeline).rounds(6).parallelism(1..=2).assert(&rows, |rows| {
        let numbers = rows.iter().flat_map(|bid| 0..bid.auction);
        numbers.map(|number| (number, None::<i64>)).collect::<Vec<_>>()
    });
}

/// What a batch makes leaves in steps, also what one of its rows does.
#[test]
fn a_flat_map_leaves_in_steps() {
    let copies =
        FlatMapRows::<Bid, Copy, _>::new(&bids(), |bid| (0..bid.auction).map(|number| Copy { number, of: None }));
    let mut copies = copies.unwrap();
    let bid = |auction| Bid { auction, who: None, price: None, at: Timestamp::from_micros(auction) };
    let mut rows = Bid::new_builders(0);
    rows.append_rows([bid(100_000), bid(0), bid(3)].into_iter().chain((0..8_000).map(|_| bid(100))));
    let rows = rows.finish().into_record_batch();
    let (mut out, mut steps, mut next) = (Outbox::new(), Vec::new(), rows.clone());
    loop {
        copies.process(Port::MAIN, next, &mut out).unwrap();
        let sizes: Vec<usize> = out.drain().map(|(_, batch)| batch.num_rows()).collect();
        assert!(sizes.iter().all(|size| *size <= 8_192));
        steps.push(sizes.iter().sum::<usize>());
        if !out.take_again() {
            break;
        }
        let given = copies.process(Port::MAIN, rows.clone(), &mut out).unwrap_err().to_string();
        let saved = copies.save(&mut StateWriter::new(&mut SegmentId(0))).unwrap_err().to_string();
        assert!(given.contains("half-way") && saved.contains("half-way"), "{given} {saved}");
        next = rows.slice(0, 0);
    }
    assert_eq!(steps.iter().sum::<usize>(), 900_003);
    assert!(steps.iter().all(|step| *step <= 2 * 8_192) && steps.len() > 100, "{steps:?}");
    assert_eq!(out.take_counts(), (8_003, 0));
}

/// A stream without event time, as rejected rows are.
#[test]
fn without_event_time() {
    let stream = StreamSchema::without_time(Bid::schema());
    let rows: Vec<Bid> = (0..30).map(|i| Bid { auction: i, who: None, price: Some(i), at: Timestamp::MAX }).collect();
    let copies = MapRows::<Bid, Copy, _>::new(&stream, |bid| Copy { number: bid.auction + 1, of: None }).unwrap();
    let pipeline = Pipeline::new(&stream).stage(copies.output(), || Ok(copies.clone()));
    Check::new(pipeline)
        .assert(&rows, |rows| rows.iter().map(|bid| (bid.auction + 1, None::<i64>)).collect::<Vec<_>>());
}
