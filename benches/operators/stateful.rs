//! Operators with state, each with the loop that does the same.

use std::time::Duration;

use windrow::{
    operators::{
        Plan, Result, StreamSchema,
        changes::{UpdatingPlan, UpsertPlan},
        count::CountPlan,
        keyed::{DedupPlan, ProcessPlan, fold},
        pattern::PatternPlan,
        session::SessionPlan,
        sort::SortPlan,
        window::{AggregatePlan, TopPlan},
    },
    prelude::*,
};

use crate::{Case, Checksum, RecordBatch, Rows, by_hand};

#[derive(Record)]
struct Bid {
    auction: i64,
    price: i64,
}

#[derive(Record)]
struct Milestone {
    auction: i64,
    total: i64,
}

#[derive(Record)]
struct Sold {
    auction: i64,
    total: i64,
}

/// The session of an auction, as one would write it with a timer: what was bid, when nobody has bid for a while.
#[derive(Clone)]
struct Silence;

impl Process for Silence {
    type Row = Bid;
    /// The time of the last bid, in microseconds, and the total; `None` before the first.
    type State = Option<(i64, i64)>;
    type Output = Sold;
    type Side = NoSide;

    fn row(&mut self, bid: BidView<'_>, key: &mut Keyed<'_, Self>) {
        let time = key.time();
        match key.state_mut() {
            Some((latest, total)) => (*latest, *total) = (time.micros(), *total + bid.price),
            none => {
                *none = Some((time.micros(), bid.price));
                key.set_timer(Timestamp::from_micros(time.micros() + by_hand::GAP));
            }
        }
    }

    fn timer(&mut self, timer: Timer, key: &mut Keyed<'_, Self>) {
        let (Timer::Event(now), Some((latest, total))) = (timer, *key.state()) else { return };
        let over = Timestamp::from_micros(latest + by_hand::GAP);
        if over <= now {
            key.emit(Sold { auction: key.key(), total });
            key.clear();
        } else {
            key.set_timer(over);
        }
    }
}

type Plans = Vec<Box<dyn Plan>>;

/// Over bids in order.
fn case(name: &'static str, column: usize, by_hand: fn(&[RecordBatch]) -> Checksum, plans: Plans) -> Case {
    let operators = move || plans.iter().map(|plan| plan.whole()).collect();
    Case { name, rows: Rows::InOrder, operators: Box::new(operators), column, by_hand }
}

fn one(plan: impl Plan + 'static) -> Plans {
    vec![Box::new(plan)]
}

/// All of them, over rows of `input`: auction, price, at.
pub(crate) fn cases(input: &StreamSchema) -> Result<Vec<Case>> {
    let key = &["auction"];
    let totals = [count(), sum(col("price")), max(col("price"))];
    let micros = |micros: i64| Duration::from_micros(micros.unsigned_abs());
    let sort = SortPlan::new(input, key)?;
    let sorted = |plan: Box<dyn Plan>| -> Plans { vec![Box::new(sort.clone()), plan] };
    let session = Session::gap(micros(by_hand::GAP));
    let milestones = fold::<Bid, (i64, i64), Milestone, _>(|(bids, total), bid, out| {
        (*bids, *total) = (*bids + 1, *total + bid.price);
        if *bids % 16 == 0 {
            out.emit(Milestone { auction: bid.auction, total: *total });
        }
    });
    let in_order = ProcessPlan::new(input, key, milestones.clone(), None)?.in_order();
    let silence = ProcessPlan::new(input, key, Silence, None)?.in_order();
    let rise = Pattern::begin("low", col("price").lt(lit(by_hand::LOW)))
        .followed_by("high", col("price").gt(lit(by_hand::HIGH)))
        .within(secs(1))
        .skip(Skip::PastLast);
    let high = [last("high", "price")];
    let ten = || Tumbling::of(secs(10));
    let hopping = AggregatePlan::new(input, key, Hopping::of(secs(10), secs(2)), &totals)?;
    let counting = CountPlan::new(input, key, Count::of(by_hand::COUNT), &totals)?;
    let first = DedupPlan::new(input, key, micros(by_hand::WITHIN))?;
    Ok(vec![
        case("hopping", 4, by_hand::hopping, one(hopping)),
        case("session", 4, by_hand::session, one(SessionPlan::new(input, key, session, &totals)?)),
        case("count window", 4, by_hand::count_window, sorted(Box::new(counting))),
        case("top 10", 4, by_hand::top, one(TopPlan::new(input, &[], ten(), by_hand::TOP, "price")?)),
        case(
            "top 3 per key",
            4,
            by_hand::top_per_key,
            one(TopPlan::new(input, key, ten(), by_hand::TOP_PER_KEY, "price")?),
        ),
        Case { rows: Rows::Disordered, ..case("sort", 1, by_hand::sort, one(sort.clone())) },
        case("fold in order", 1, by_hand::fold, sorted(Box::new(in_order))),
        case("fold on arrival", 1, by_hand::fold, one(ProcessPlan::new(input, key, milestones, None)?)),
        case("process with timers", 1, by_hand::session, sorted(Box::new(silence))),
        case("deduplicate", 1, by_hand::deduplicate, sorted(Box::new(first))),
        case("pattern", 3, by_hand::pattern, sorted(Box::new(PatternPlan::new(input, key, &rise, &high)?))),
        case("totals", 2, by_hand::totals, one(UpdatingPlan::new(input, key, &totals, None)?)),
        case("latest", 1, by_hand::latest, one(UpsertPlan::new(input, key, None, None)?)),
    ])
}
