//! Two versions of an event in one stream, and a program whose state has changed its form.
//!
//! ```text
//!   {"version":1,"user":7,"dollars":12,…}     upcast to the     per user: what was spent
//!   {"version":2,"user":7,"cents":1250,…} ──► newest record ──► state of version 1: dollars ─┐ upcast when it is
//!        │ no JSON, no number                 │ unknown         state of version 2: cents  ◄─┘ first read again
//!        └───────► dead letters ◄─────────────┘
//! ```
//!
//! Behind the upcast the program knows one version only. The state is another matter: it was written by the program of
//! yesterday. Here the older program runs, and ends; more files come; the newer program goes on from its checkpoint,
//! which [`State::upcast`] reads. Both processes are called `Spending`, and so the checkpoint knows them for the same; one
//! that is renamed says in [`Process::name`] what it was called.

#![allow(missing_docs, reason = "derive(Record) makes public types")]

use std::{error::Error, path::Path};

use serde::{Deserialize, Serialize};
use windrow::prelude::*;

/// What a line of any version may hold.
#[derive(Record)]
pub struct AnyOrder {
    version: i64,
    user: i64,
    /// Of version 1.
    dollars: Option<i64>,
    /// Of version 2.
    cents: Option<i64>,
    at: Timestamp,
}

/// The newest version: all that the rest of the program knows.
#[derive(Record)]
pub struct Order {
    user: i64,
    cents: i64,
}

/// Why a line means nothing to this program.
#[derive(Record)]
pub struct Unknown {
    reason: String,
}

fn upcast(order: &AnyOrderView<'_>) -> Result<Order, Unknown> {
    let cents = match (order.version, order.dollars, order.cents) {
        (1, Some(dollars), _) => dollars.checked_mul(100).ok_or_else(|| format!("{dollars} dollars are too many")),
        (2, _, Some(cents)) => Ok(cents),
        (version @ (1 | 2), _, _) => Err(format!("version {version} without its amount")),
        (version, _, _) => Err(format!("version {version} is not known")),
    };
    cents.map(|cents| Order { user: order.user, cents }).map_err(|reason| Unknown { reason })
}

/// The orders, the lines of unknown versions, and the lines that did not decode.
pub fn orders(job: &Job, directory: &Path) -> (Stream<Order>, Stream<Unknown>, Stream<Untyped>) {
    let (lines, rejects) = job
        .source(File::pattern(directory.join("orders-*.jsonl").to_string_lossy()).json::<AnyOrder>())
        .event_time("at", Watermarks::out_of_order(mins(1)))
        .with_rejects();
    let unknown = lines.clone().flat_map(|line| upcast(&line).err());
    (lines.flat_map(|line| upcast(&line).ok()), unknown, rejects)
}

/// What a user has spent, each time it changes.
#[derive(Record)]
pub struct Spent {
    user: i64,
    cents: i64,
}

/// The program of yesterday.
pub mod before {
    use super::*;

    /// Whole dollars, as nobody thought of cents.
    #[derive(Default, Serialize, Deserialize)]
    pub struct Total {
        dollars: i64,
    }

    impl State for Total {}

    #[derive(Clone)]
    pub struct Spending;

    impl Process for Spending {
        type Row = Order;
        type State = Total;
        type Output = Spent;
        type Side = NoSide;

        fn row(&mut self, order: OrderView<'_>, key: &mut Keyed<'_, Self>) {
            let total = key.state_mut();
            total.dollars += order.cents / 100;
            let cents = total.dollars * 100;
            key.emit(Spent { user: order.user, cents });
        }
    }
}

/// Now in cents.
#[derive(Default, Serialize, Deserialize)]
pub struct Total {
    cents: i64,
}

impl State for Total {
    const VERSION: u32 = 2;

    fn upcast(version: u32, saved: Saved<'_>) -> windrow::operators::Result<Self> {
        #[derive(Deserialize)]
        struct InDollars {
            dollars: i64,
        }
        match version {
            1 => Ok(Self { cents: saved.read::<InDollars>()?.dollars * 100 }),
            _ => Err(saved.unknown_version()),
        }
    }
}

/// The program of today.
#[derive(Clone)]
pub struct Spending;

impl Process for Spending {
    type Row = Order;
    type State = Total;
    type Output = Spent;
    type Side = NoSide;

    fn row(&mut self, order: OrderView<'_>, key: &mut Keyed<'_, Self>) {
        key.state_mut().cents += order.cents;
        let cents = key.state().cents;
        key.emit(Spent { user: order.user, cents });
    }
}

/// What each user has spent according to a program, from the orders in a directory and its checkpoints there.
pub async fn run<P>(program: P, directory: &Path, table: &MemoryTable, dead: &MemorySink) -> windrow::Result<()>
where
    P: Process<Row = Order, Output = Spent, Side = NoSide>,
{
    let checkpoints = directory.join("checkpoints");
    let job = Job::new("spending").checkpoint(checkpoints.to_string_lossy(), secs(10));
    let (orders, unknown, rejects) = orders(&job, directory);
    let spent = orders.key_by("user").process(program).drop_late();
    spent.key_by("user").latest().sink(table.clone());
    unknown.sink(dead.clone());
    rejects.select([col("reason")]).sink(dead.clone());
    job.run().await?;
    Ok(())
}

/// Orders of one day of three users: of version 1 before noon, of version 2 after, and some of neither.
pub fn write_day(directory: &Path, day: i64) -> std::io::Result<()> {
    let line = |n: i64| {
        let user = n % 3;
        let at = Timestamp::from_micros((1_767_225_600 + day * 86_400 + n * 864) * 1_000_000);
        match n {
            13 => "{\"version\":1,\"user\":\n".into(),
            57 => format!("{{\"version\":3,\"user\":{user},\"price\":\"1.00\",\"at\":\"{at}\"}}\n"),
            71 => format!("{{\"version\":2,\"user\":{user},\"at\":\"{at}\"}}\n"),
            n if n < 50 => format!("{{\"version\":1,\"user\":{user},\"dollars\":{n},\"at\":\"{at}\"}}\n"),
            n => format!("{{\"version\":2,\"user\":{user},\"cents\":{},\"at\":\"{at}\"}}\n", n * 101),
        }
    };
    std::fs::write(directory.join(format!("orders-{day}.jsonl")), (0..100).map(line).collect::<String>())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let (table, dead) = (MemoryTable::new(), MemorySink::new());

    write_day(directory.path(), 0)?;
    run(before::Spending, directory.path(), &table, &dead).await?;
    println!("yesterday, by the older program:\n{table}");

    write_day(directory.path(), 1)?;
    run(Spending, directory.path(), &table, &dead).await?;
    println!("today, by the newer one, from the checkpoint of the older:\n{table}");
    println!("dead letters of both days:\n{dead}");
    Ok(())
}
