//! Crashes at the named points of the checkpoint protocol, at every one of them.
//!
//! The points are those in the source: every `crash_point("…")` of the engine and of the connectors of these tests. A
//! point that no run passes is a failure, so a new point is covered from the day it is written.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use clap::ValueEnum;

use tests::process::{Ended, Exit};

use crate::{
    figures::Figures,
    run::{Result, Run},
    scenario::{Answer, Scenario},
};

/// Between two checkpoints, in milliseconds: a run has some ten of them.
const INTERVAL: u64 = 8;
/// SIGABRT.
const ABORTED: i32 = 6;
/// Where a crash leaves a start something to recover.
const BEFORE_RECOVERY: [&str; 5] = ["K5 prepared", "K8 decided", "K10 file", "K2 segments written", "K11 done"];

/// At which pass the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Pass {
    First,
    Second,
    Later,
}

impl Pass {
    pub(crate) const ALL: [Self; 3] = [Self::First, Self::Second, Self::Later];

    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_string()).unwrap_or_default()
    }
}

/// The points that a crash happened at, and in which pass.
pub(crate) type Hits = BTreeMap<(String, Pass), u64>;

/// What only jobs pass that have a witness; those here write files. `tests/recovery` ends them there.
const WITNESSED: [&str; 3] = ["K13 R2 fenced", "K6 undecided", "K8 witnessed"];

/// The names of all points in the source that these jobs pass.
pub(crate) fn points() -> io::Result<BTreeSet<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut points = BTreeSet::new();
    for folder in [root.join("../engine/src"), root.join("crash")] {
        for file in rust_files(&folder)? {
            let text = fs::read_to_string(&file)?;
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            // A call, wherever the formatter breaks it.
            let code: String = code.map(str::trim).collect();
            let calls = code.split(concat!("crash", "_point(\"")).skip(1);
            points.extend(calls.filter_map(|rest| rest.split_once('"')).map(|(name, _)| name.to_string()));
        }
    }
    points.retain(|point| !WITNESSED.contains(&point.as_str()));
    Ok(points)
}

fn rust_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

/// One run: the process ends at `point`. Returns how often it did.
pub(crate) fn run(seed: u64, place: &Path, point: &str, pass: Pass) -> Result<(Figures, u64)> {
    let mut run = Run::begin(with_state(seed), place)?;
    let mut hits = 0;
    let nth = match pass {
        Pass::First => 1,
        Pass::Second => 2,
        Pass::Later => run.random.usize(3..=4),
    };
    match is_of_recovery(point) {
        // One start passes it once: it takes as many starts, each with something to recover.
        true => {
            for number in 1..=nth {
                let before = BEFORE_RECOVERY[match point {
                    "K13 R4 claimed" => 0,
                    "K13 R5 published" => run.random.usize(1..3),
                    _ => run.random.usize(..BEFORE_RECOVERY.len()),
                }];
                crash(&mut run, before, 1, &format!("before-{number}"))?;
                hits += u64::from(crash(&mut run, point, 1, &format!("recovery-{number}"))?);
            }
        }
        false => hits += u64::from(crash(&mut run, point, nth, "start-1")?),
    }
    Ok((run.finish()?, hits))
}

fn is_of_recovery(point: &str) -> bool {
    point.starts_with("K13 ")
}

/// The first seed from `seed` on, in large steps, whose job keeps state.
pub(crate) fn with_state(seed: u64) -> u64 {
    let mut seeds = (0..).map(|step| seed.wrapping_add(step * 1_000_000_007));
    seeds.find(|seed| !matches!(Scenario::new(*seed).answer, Answer::Rows)).unwrap_or(seed)
}

/// Starts the job, which ends at the `nth` pass of a point. Returns whether it did, rather than reach its end.
fn crash(run: &mut Run, point: &str, nth: usize, name: &str) -> Result<bool> {
    let start = run.start().with("interval", INTERVAL).variable("WINDROW_CRASH_POINT", format!("{point}:{nth}"));
    let mut process = start.start(name)?;
    let exit = process.wait()?;
    run.count_kill(exit);
    match exit {
        Exit::Signal(ABORTED) => Ok(true),
        Exit::Ended(Ended::Complete) => Ok(false),
        exit => Err(process.unexpected(exit).into()),
    }
}

/// What no crash happened at, although there is such a point.
pub(crate) fn missing(points: &BTreeSet<String>, passes: &[Pass], hits: &Hits) -> Vec<String> {
    let wanted = points.iter().flat_map(|point| passes.iter().map(|pass| (point.clone(), *pass)));
    wanted.filter(|wanted| !hits.contains_key(wanted)).map(|(point, pass)| format!("{point:?} ({pass:?})")).collect()
}
