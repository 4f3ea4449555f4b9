//! Endings of drawn jobs that are not windows of one size: sessions, joins, what follows the order of rows, tables.
//!
//! ```text
//!   rows ─┬─► sessions | hopping windows ──────────────────────────────────► results
//!         ├─► the rows and a clone of them ─► interval join | as-of join ──► results
//!         ├─► in order of event time ─► process | first of each | pattern ─► results
//!         └─► totals | latest: changes ────────────────────────────────────► a table
//! ```
//!
//! What is right is computed in [`kinds_oracle`](super::kinds_oracle).

use windrow::prelude::*;

use super::scenario::{Click, ClickView, Outputs, micros};

/// What becomes of the rows.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Of a user.
    Sessions { gap: i64 },
    /// Of a user.
    Hopping { size: i64, slide: i64 },
    /// Of the stream with itself, by user and shop; with a condition only with rows of a greater amount.
    Near { before: i64, after: i64, left: bool, greater: bool },
    /// Of the stream with those of its rows that are of an even shop, by user; `ttl` is 0 for none.
    AsOf { left: bool, ttl: i64 },
    /// What [`Streaks`] makes of the rows of a user; `late` when rows beyond the bound leave by a sink of their own.
    Streaks { gap: i64, late: bool },
    /// Of a user and a shop.
    First { within: i64, late: bool },
    /// A low amount and then a high one.
    Rise { within: i64, every: bool },
    /// A low amount and then no high one.
    Calm { within: i64 },
    /// Aggregates of a user, as a table.
    Totals,
    /// The newest row of a user and a shop, as a table.
    Latest,
    /// Several steps of which each is by the user, under one name or another: a join, a filter, sessions of what is left, a join
    /// of these, a sort. Then one by the user and a number, that depends on the order. The first join is of a row with the newest of an even shop, or with those
    /// that are `near` it.
    ByUser { gap: i64, near: Option<i64> },
}

/// Amounts that are low, and those that are high.
pub const LOW: i64 = -700;
pub const HIGH: i64 = 400;

impl Kind {
    pub fn draw(random: &mut fastrand::Rng) -> Self {
        match random.u8(0..10) {
            0 => Self::Sessions { gap: random.i64(20..1_500) },
            1 => {
                let slide = random.i64(100..1_500);
                Self::Hopping {
                    slide,
                    size: slide * random.i64(1..6) + if random.bool() { random.i64(0..slide) } else { 0 },
                }
            }
            2 => {
                let (before, after) = (random.i64(0..700), random.i64(0..700));
                Self::Near { before, after, left: random.bool(), greater: random.bool() }
            }
            3 => Self::AsOf { left: random.bool(), ttl: if random.bool() { random.i64(1..3_000) } else { 0 } },
            4 => Self::Streaks { gap: random.i64(20..1_500), late: false },
            5 => Self::First { within: random.i64(0..4_000), late: false },
            6 => Self::Rise { within: random.i64(1..4_000), every: random.bool() },
            7 => Self::Calm { within: random.i64(1..2_000) },
            8 => Self::Totals,
            _ => Self::Latest,
        }
    }

    /// Whether there are rows beyond the bound.
    pub fn has_late(&self) -> bool {
        matches!(self, Self::Streaks { late: true, .. } | Self::First { late: true, .. })
    }

    pub fn is_table(&self) -> bool {
        matches!(self, Self::Totals | Self::Latest)
    }

    pub fn build(&self, rows: Stream<Click>, to: &Outputs) {
        let columns = || ["user", "shop", "amount", "at"].map(col);
        let results = match *self {
            Self::Sessions { gap } => {
                let sessions = rows.key_by("user").window(Session::gap(micros(gap)));
                sessions.aggregate(aggregates()).drop_late().select(WINDOW.map(col))
            }
            Self::Hopping { size, slide } => {
                let hopping = rows.key_by("user").window(Hopping::of(micros(size), micros(slide)));
                hopping.aggregate(aggregates()).drop_late().select(WINDOW.map(col))
            }
            Self::Near { before, after, left, greater } => {
                let join = rows.clone().key_by(["user", "shop"]).join(other(rows).key_by(["other", "place"]));
                let join = if greater { join.condition(col("amount").lt(col("paid"))) } else { join };
                let joined = join.kind(join_type(left)).within(micros(before), micros(after)).drop_late();
                joined.select(columns().into_iter().chain(["paid", "since"].map(col)))
            }
            Self::AsOf { left, ttl } => {
                let even = other(rows.clone().filter(|click| click.shop % 2 == 0)).key_by("other");
                let rows = rows.key_by("user");
                let join = if ttl > 0 { rows.join(even.ttl(micros(ttl))) } else { rows.join(even) };
                let joined = join.kind(join_type(left)).as_of().drop_late();
                joined.select(columns().into_iter().chain(["place", "paid", "since"].map(col)))
            }
            Self::Streaks { gap, late } => {
                let streaks = rows.key_by("user").process(Streaks { gap });
                let streaks = match late {
                    true => {
                        let (streaks, late) = streaks.with_late();
                        late.sink(to.late.clone());
                        streaks
                    }
                    false => streaks.drop_late(),
                };
                streaks.select(["user", "start", "rows", "chain"].map(col))
            }
            Self::First { within, late } => {
                let first = rows.key_by(["user", "shop"]).deduplicate(micros(within));
                let first = match late {
                    true => {
                        let (first, late) = first.with_late();
                        late.sink(to.late.clone());
                        first
                    }
                    false => first.drop_late(),
                };
                first.select(columns())
            }
            Self::Rise { within, every } => {
                let rise = Pattern::begin("low", col("amount").lt(lit(LOW)))
                    .followed_by("high", col("amount").gt(lit(HIGH)))
                    .within(micros(within))
                    .skip(if every { Skip::ToNext } else { Skip::PastLast });
                let measures = [first("low", "amount").alias("low"), last("high", "amount").alias("high")];
                let found = rows.key_by("user").pattern(&rise, measures).drop_late();
                found.select(["user", "match_start", "match_end", "low", "high"].map(col))
            }
            Self::Calm { within } => {
                let calm = Pattern::begin("low", col("amount").lt(lit(LOW)))
                    .not_followed_by("high", Condition::by::<Click, _>(|click| click.amount > HIGH))
                    .within(micros(within));
                let found = rows.key_by("user").pattern(&calm, [first("low", "amount").alias("low")]);
                found.drop_late().select(["user", "match_start", "low"].map(col))
            }
            Self::Totals => {
                let aggregates = [
                    count().alias("clicks"),
                    sum(col("amount")).alias("total"),
                    max(col("shop")).alias("most"),
                    min(col("at")).alias("since"),
                ];
                return rows.key_by("user").aggregate(aggregates).sink(to.table.clone());
            }
            Self::ByUser { gap, near } => {
                let even = other(rows.clone().filter(|click| click.shop % 2 == 0));
                let join = rows.key_by("user").join(even.clone().key_by("other")).kind(JoinType::Left);
                let joined = match near {
                    Some(near) => join.within(micros(near), micros(near)).drop_late(),
                    None => join.as_of().drop_late(),
                };
                let left = joined.filter_expr(col("amount").gt(lit(LOW)));
                let sessions = left
                    .select([col("amount"), col("user").alias("who"), col("paid").alias("had")])
                    .key_by("who")
                    .window(Session::gap(micros(gap)))
                    .aggregate([
                        sum(col("amount")).alias("total"),
                        filtered(count(), col("had").is_not_null()).alias("had"),
                    ])
                    .drop_late();
                let again = sessions.key_by("who").join(even.key_by("other")).kind(JoinType::Left).as_of().drop_late();
                let again = again.select([col("total"), col("had"), col("who").alias("of"), col("paid")]);
                // By more than the user: what is remembered is with another task.
                let in_order = again.key_by("of").in_order().drop_late();
                in_order
                    .typed::<Part>()
                    .key_by(["of", "had"])
                    .fold::<i64, Link, _>(|chain, session, out| {
                        *chain = link(*chain, session.total.unwrap_or(0), session.had, session.paid);
                        out.emit(Link { of: session.of, chain: *chain });
                    })
                    .drop_late()
                    .select(["of", "chain"].map(col))
            }
            Self::Latest => {
                return rows.key_by(["user", "shop"]).latest().sink(to.table.clone());
            }
        };
        results.sink(to.results.clone());
    }
}

fn join_type(left: bool) -> JoinType {
    if left { JoinType::Left } else { JoinType::Inner }
}

/// What is written of a window.
const WINDOW: [&str; 6] = ["window_start", "window_end", "user", "clicks", "total", "most"];

fn aggregates() -> [Expr; 3] {
    [count().alias("clicks"), sum(col("amount")).alias("total"), max(col("shop")).alias("most")]
}

/// The same rows with other names.
fn other(rows: Stream<Click>) -> Stream<Untyped> {
    let names = [("user", "other"), ("shop", "place"), ("amount", "paid"), ("at", "since")];
    rows.select(names.map(|(from, to)| col(from).alias(to)))
}

/// Of each stretch of a user without a pause, what a chain over the amounts comes to: it depends on the order of rows.
#[derive(Clone)]
struct Streaks {
    gap: i64,
}

#[derive(Record)]
pub struct Streak {
    user: i64,
    start: Timestamp,
    rows: i64,
    chain: i64,
}

/// What a chain of sessions is made of.
#[derive(Record)]
pub struct Part {
    of: i64,
    total: Option<i64>,
    had: i64,
    paid: Option<i64>,
}

#[derive(Record)]
pub struct Link {
    of: i64,
    chain: i64,
}

/// One session more.
pub fn link(chain: i64, total: i64, had: i64, paid: Option<i64>) -> i64 {
    chained(chained(chained(chain, total), had), paid.unwrap_or(-1))
}

/// One link of the chain.
pub fn chained(chain: i64, amount: i64) -> i64 {
    chain.wrapping_mul(31).wrapping_add(amount)
}

/// What a streak is made of.
const AMOUNTS: ListState<i64> = ListState::new("amounts");

impl Process for Streaks {
    type Row = Click;
    /// The first and the latest time.
    type State = (i64, i64);
    type Output = Streak;
    type Side = NoSide;

    fn row(&mut self, click: ClickView<'_>, key: &mut Keyed<'_, Self>) {
        let now = key.time();
        key.set_timer(now + micros(self.gap));
        let is_first = key.list(&AMOUNTS).is_empty();
        let (start, latest) = key.state_mut();
        if is_first {
            *start = now.micros();
        }
        *latest = now.micros();
        key.list(&AMOUNTS).push(click.amount);
    }

    fn timer(&mut self, _: Timer, key: &mut Keyed<'_, Self>) {
        let (start, latest) = *key.state();
        if key.time().micros() == latest + self.gap {
            let amounts = key.list(&AMOUNTS);
            let (rows, chain) = (amounts.len() as i64, amounts.iter().fold(0, chained));
            key.emit(Streak { user: key.key(), start: Timestamp::from_micros(start), rows, chain });
            key.clear();
        }
    }
}
