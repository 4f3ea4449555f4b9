//! `windrow status`: what a running job does, once or as long as one looks.

use std::{
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use windrow::{
    status::{JobStatus, State},
    terminal::{Asked, Watch, summary},
};

use crate::{
    failure::Failure,
    output,
    remote::{Client, Remote},
    signals,
};

const EXAMPLES: &str = "\
Examples:
  windrow status http://127.0.0.1:8080             once: a line for each operator, and what slows the job down
  windrow status http://127.0.0.1:8080 --watch     a view of the whole terminal, once a second; ? shows its keys
  windrow status http://127.0.0.1:8080 --json | jq .checkpoints.newest

q, Ctrl-C and SIGTERM end the view, and give the terminal back. The job goes on. In a terminal that is stopped
a signal ends the command with exit code 130 or 143; what is on the terminal stays there.

The token, where the job wants one for reading too: --token-file FILE, or the variable WINDROW_TOKEN.";

/// How often a job that is watched is asked.
const EVERY: Duration = Duration::from_secs(1);
/// How long a turn waits for keys.
const TURN: Duration = Duration::from_millis(100);

/// Shows what a running job does
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    remote: Remote,
    /// Shows the job in the whole terminal until q is pressed
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    /// The whole status as JSON, for programs
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let client = args.remote.client()?;
    let status = client.status()?;
    match (args.watch, args.json) {
        (true, _) => watch(&client, status),
        (_, true) => output::json(&status),
        _ => output::print(&summary(&status)),
    }
}

/// What comes back from the job, and from the system.
enum Heard {
    Status(Box<Result<JobStatus, Failure>>),
    Saved(String),
    /// A signal asks the command to end.
    Signal,
}

/// What has been heard, in a turn.
#[derive(Default)]
struct Turn {
    /// A status was among it.
    answered: bool,
    ends: bool,
}

/// The job is asked on threads of their own, so that keys are heard while it does not answer.
fn watch(client: &Client, mut status: JobStatus) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("the terminal cannot be used: {error}"));
    let (heard, hears) = channel();
    // First of all: who is asked to end has the terminal to give back. It only looks, so nothing is asked of the job then.
    let signalled = heard.clone();
    signals::heed(move || drop(signalled.send(Heard::Signal))).map_err(failed)?;
    let Some(mut watch) = Watch::begin(client.has_token()).map_err(failed)? else {
        return Err(Failure::usage("--watch needs a terminal: without it, or with --json, the status is printed once"));
    };
    let mut asked = Instant::now();
    let (mut waits, mut silent) = (false, false);
    loop {
        watch.draw(&status).map_err(failed)?;
        match watch.keys(TURN).map_err(failed)? {
            Some(Asked::Quit | Asked::Interrupt) => return Ok(()),
            Some(Asked::Savepoint(name)) => ask(client, &heard, move |client| {
                let saved = client.post("/api/savepoint", &json!({"name": name}), None);
                Heard::Saved(match saved {
                    Ok(answer) => format!("savepoint {name:?} is checkpoint {}", answer["epoch"]),
                    Err(failure) => failure.message().to_owned(),
                })
            }),
            None => {}
        }
        if !waits && asked.elapsed() >= EVERY && status.state != State::Ended {
            (asked, waits) = (Instant::now(), true);
            ask(client, &heard, |client| Heard::Status(Box::new(client.status())));
        }
        let turn = take(&hears, &mut status, &mut silent, &mut watch);
        if turn.ends {
            return Ok(());
        }
        waits &= !turn.answered;
    }
}

fn ask(client: &Client, heard: &Sender<Heard>, call: impl FnOnce(&Client) -> Heard + Send + 'static) {
    let (client, heard) = (client.clone(), heard.clone());
    // Nobody hears it any more if the view was left meanwhile.
    thread::spawn(move || drop(heard.send(call(&client))));
}

/// Takes what has been heard. `silent`: what is shown is that the job does not answer.
fn take(hears: &Receiver<Heard>, status: &mut JobStatus, silent: &mut bool, watch: &mut Watch) -> Turn {
    let mut turn = Turn::default();
    while let Ok(heard) = hears.try_recv() {
        match heard {
            Heard::Signal => turn.ends = true,
            Heard::Saved(message) => {
                *silent = false;
                watch.say(message);
            }
            Heard::Status(asked) => {
                turn.answered = true;
                match *asked {
                    Ok(now) => {
                        *status = now;
                        if std::mem::take(silent) {
                            watch.say("");
                        }
                    }
                    Err(failure) => {
                        *silent = true;
                        watch.say(failure.message());
                    }
                }
            }
        }
    }
    turn
}
