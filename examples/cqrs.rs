//! Commands in, events out: each account decides for itself, and what is read is another table.
//!
//! ```text
//!                    per account: state = open?, balance
//!   commands ─────► validate ──main──► events ──┬─► log (JSON lines)
//!   open, deposit,      │                       └─► per account: last event ─► read model, asked by key
//!   withdraw, close     └─side──► refusals, with the reason ─► console
//! ```
//!
//! The write side has no other view of the world than the state of its key, so it needs no lock and no transaction: the
//! commands of one account come one after the other, in the order of event time. The read side follows from the events
//! alone; another read model is another branch. The state of the write side can be looked at in the checkpoints.

#![allow(missing_docs, reason = "derive(Record) makes public types")]

use std::error::Error;

use serde::{Deserialize, Serialize};
use windrow::{
    arrow::{array::StringArray, util::pretty::pretty_format_batches},
    prelude::*,
};

/// What somebody wants.
#[derive(Record, Clone, Debug)]
pub struct Command {
    pub id: i64,
    pub account: String,
    /// `open`, `deposit`, `withdraw` or `close`.
    pub kind: String,
    pub cents: i64,
    pub at: Timestamp,
}

/// What has happened.
#[derive(Record)]
pub struct Event {
    command: i64,
    account: String,
    kind: String,
    cents: i64,
    balance: i64,
}

/// What has not, and why.
#[derive(Record)]
pub struct Refusal {
    command: i64,
    account: String,
    reason: String,
}

/// What an account knows of itself.
#[derive(Default, Serialize, Deserialize)]
pub struct Account {
    open: bool,
    balance: i64,
}

impl State for Account {}

impl Account {
    /// Does what a command says, or refuses and stays as it is.
    fn handle(&mut self, kind: &str, cents: i64) -> Result<&'static str, String> {
        let balance = self.balance;
        match kind {
            "open" if self.open => return Err("it is open already".into()),
            "open" => self.open = true,
            _ if !self.open => return Err("there is no such account".into()),
            "deposit" if cents > 0 => self.balance += cents,
            "withdraw" if cents > balance => return Err(format!("{cents} is more than the balance of {balance}")),
            "withdraw" if cents > 0 => self.balance -= cents,
            "close" if balance > 0 => return Err(format!("{balance} is left on it")),
            "close" => self.open = false,
            other => return Err(format!("{other} of {cents} makes no sense")),
        }
        Ok(match kind {
            "open" => "opened",
            "deposit" => "deposited",
            "withdraw" => "withdrawn",
            _ => "closed",
        })
    }
}

/// Validates the commands of an account.
#[derive(Clone)]
pub struct Accounts;

impl Process for Accounts {
    type Row = Command;
    type State = Account;
    type Output = Event;
    type Side = Refusal;

    fn row(&mut self, command: CommandView<'_>, key: &mut Keyed<'_, Self>) {
        let (id, account) = (command.id, command.account.to_string());
        match key.state_mut().handle(command.kind, command.cents) {
            Ok(kind) => {
                let balance = key.state().balance;
                key.emit(Event { command: id, account, kind: kind.into(), cents: command.cents, balance });
            }
            Err(reason) => key.emit_side(Refusal { command: id, account, reason }),
        }
    }
}

/// The events and the refusals.
pub fn accounts<S>(job: &Job, commands: S) -> (Stream<Event>, Stream<Refusal>)
where
    S: TypedSource<Row = Command>,
{
    let (events, refusals) = job
        .source(commands)
        .event_time("at", Watermarks::out_of_order(secs(5)))
        .fail_on_rejects()
        .key_by("account")
        .process_with_side(Accounts);
    (events.drop_late(), refusals)
}

/// The read model: of each account its last event, and so its balance.
pub fn read_model(events: Stream<Event>) -> Stream<Untyped> {
    events.key_by("account").latest()
}

/// Commands of three accounts, not quite in order.
pub fn commands() -> Vec<Command> {
    let command = |n: i64| Command {
        id: n,
        account: ["ada", "bob", "cleo"][(n % 3) as usize].into(),
        kind: match n {
            0..3 => "open",
            297.. => "close",
            n if n * 5 % 7 < 3 => "withdraw",
            _ => "deposit",
        }
        .into(),
        cents: if n < 3 { 0 } else { n * 7_919 % 1_000 },
        at: Timestamp::from_micros(1_767_225_600_000_000 + n * 1_000_000),
    };
    (0..300).map(|n| command(n - n % 4 + (3 - n % 4))).collect()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let store = directory.path().join("checkpoints").to_string_lossy().into_owned();
    let job = Job::new("bank").parallelism(2).checkpoint(&store, secs(10));
    let (table, refused) = (MemoryTable::new(), MemorySink::new());

    let (events, refusals) = accounts(&job, MemorySource::records(commands()));
    events.clone().sink(File::directory(directory.path().join("events")).json());
    read_model(events).sink(table.clone());
    refusals.sink(refused.clone());
    job.run().await?;

    println!("refused: {} commands", refused.rows());
    println!("{refused}");
    for account in ["ada", "bob", "nobody"] {
        match table.get(&[&StringArray::new_scalar(account)])? {
            Some(row) => println!("{account}:\n{}", pretty_format_batches(&[row])?),
            None => println!("{account}: no such account"),
        }
    }
    let state = windrow::state::open(format!("{store}/bank")).await?;
    println!("{state}");
    Ok(())
}
