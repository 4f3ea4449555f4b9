//! What visitors of a shop do: their sessions, and the carts they leave behind.
//!
//! ```text
//!   clicks ──┬─► per user: sessions, which end after 30 min of silence ─► from, to, clicks
//!            └─► per user and product: view ─► cart ─► no purchase within 30 min of the view ─► reminder
//! ```
//!
//! The reminder is for something that did *not* happen. It comes when the watermark says that it cannot happen any more:
//! neither too early, because a purchase may still be on its way, nor never, because no further click is needed.

#![allow(missing_docs, reason = "derive(Record) makes public types")]

use std::error::Error;

use windrow::prelude::*;

/// How far out of order clicks arrive.
const DISORDER: std::time::Duration = secs(90);

#[derive(Record, Clone, Debug)]
pub struct Click {
    pub user: i64,
    pub product: String,
    /// `view`, `cart` or `purchase`.
    pub action: String,
    pub at: Timestamp,
}

pub fn clicks<S: TypedSource<Row = Click>>(job: &Job, source: S) -> Stream<Click> {
    job.source(source).event_time("at", Watermarks::out_of_order(DISORDER)).fail_on_rejects()
}

/// Per session: `user`, `from`, `to` (of the last click), `clicks`.
pub fn sessions(clicks: Stream<Click>) -> Stream<Untyped> {
    clicks
        .key_by("user")
        .window(Session::gap(mins(30)))
        .aggregate([min(col("at")).alias("from"), max(col("at")).alias("to"), count().alias("clicks")])
        .drop_late()
        .select(["user", "from", "to", "clicks"].map(col))
}

/// Carts that were left: `user`, `product`, when it was first `seen`, and when `carted`.
pub fn reminders(clicks: Stream<Click>) -> Stream<Untyped> {
    let is = |action: &str| col("action").eq(lit(action));
    let left = Pattern::begin("view", is("view"))
        .followed_by("cart", is("cart"))
        .not_followed_by("purchase", is("purchase"))
        .within(mins(30));
    clicks
        .key_by(["user", "product"])
        .pattern(&left, [first("view", "at").alias("seen"), last("cart", "at").alias("carted")])
        .drop_late()
        .select(["user", "product", "seen", "carted"].map(col))
}

/// A day of clicks of fifty users, as they arrive.
pub fn day() -> Vec<Click> {
    const SECOND: i64 = 1_000_000;
    let products = ["kettle", "lamp", "teapot"];
    let mut arriving = Vec::new();
    for n in 0..3_000_i64 {
        let (user, product) = (n * 37 % 50, products[(n / 50 % 3) as usize]);
        let start = 1_767_225_600 * SECOND + n * 7_919 % 86_400 * SECOND + n;
        // One in three puts it into the cart some minutes later, and of those two in three buy it, some of them too late.
        let cart = (n % 3 == 0).then_some(("cart", n % 11 * 60 + 20));
        let purchase = (n % 9 < 6).then_some(("purchase", n % 17 * 120 + 700));
        let purchase = cart.and(purchase);
        for (action, after) in [Some(("view", 0)), cart, purchase].into_iter().flatten() {
            let at = start + after * SECOND;
            let click = Click { user, product: product.into(), action: action.into(), at: Timestamp::from_micros(at) };
            arriving.push((at + (n + after) * 104_729 % 90 * SECOND, click));
        }
    }
    arriving.sort_by_key(|(arrives, _)| *arrives);
    arriving.into_iter().map(|(_, click)| click).collect()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let job = Job::new("shop").parallelism(2);
    let (found, longest) = (MemorySink::new(), MemorySink::new());
    let clicks = clicks(&job, MemorySource::records(day()).batch_rows(200));

    reminders(clicks.clone()).sink(Console::new());
    let sessions = sessions(clicks);
    sessions.clone().sink(found.clone());
    // A session is a row like any other: here the longest five of every six hours.
    sessions.window(Tumbling::of(hours(6))).top(5, "clicks").drop_late().sink(longest.clone());
    let report = job.run().await?;

    println!("\n{} sessions; the longest of every six hours:", found.rows());
    println!("{longest}");
    println!("\n{}", report.metrics);
    Ok(())
}
