//! `windrow inspect`: what is in a checkpoint.

use std::fmt::Write;

use windrow::{
    state::{self, Contents, SplitContents},
    terminal::bytes,
};

use crate::{
    failure::Failure,
    output::{self, age, table},
    place::Place,
};

const EXAMPLES: &str = "\
Examples:
  windrow inspect /var/lib/jobs/hot-items                            the newest checkpoint
  windrow inspect /var/lib/jobs/hot-items --savepoint before-upgrade
  windrow inspect /var/lib/jobs/hot-items --epoch 7 --json

Only the manifest is read, so it costs nothing to look into a large checkpoint. The rows: windrow state query.";

/// Shows what is in a checkpoint: operators, tables, splits and positions
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
    /// JSON for programs
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let contents = state::inspect(args.place.url().await?, args.place.wanted()).await?;
    if args.json { output::json(&contents) } else { output::print(&shown(&contents)) }
}

fn shown(contents: &Contents) -> String {
    let Contents { job, epoch, taken_ms, why, operators, sources, sinks } = contents;
    let mut text = format!("checkpoint {epoch} of job {job:?}, {why}, taken {} ago\n", age(*taken_ms));
    if !operators.is_empty() {
        let rows = operators.iter().map(|one| {
            let columns: Vec<&str> = one.columns.iter().map(|(name, _)| name.as_str()).collect();
            let (tasks, segments, rows) = (one.tasks.to_string(), one.segments.to_string(), one.rows.to_string());
            let meaning = if one.meaning.is_empty() { "-".into() } else { one.meaning.clone() };
            vec![one.id.clone(), tasks, segments, rows, bytes(one.bytes), meaning, columns.join(", ")]
        });
        let header = ["OPERATOR", "TASKS", "SEGMENTS", "ROWS", "STATE", "WHAT", "COLUMNS"];
        let _ = write!(text, "\n{}", table(&header, &rows.collect::<Vec<_>>()));
    }
    if !sources.is_empty() {
        let of = |id: &str, split: &SplitContents| {
            let number = |number: Option<u64>| number.map_or("-".into(), |number| number.to_string());
            let latest = split.latest().map_or("-".into(), |latest| latest.to_string());
            let state = if split.ended {
                "ended"
            } else if split.idle {
                "idle"
            } else {
                "reading"
            };
            vec![id.into(), split.split.clone(), number(split.position), number(split.end), latest, state.into()]
        };
        let rows = sources.iter().flat_map(|source| source.splits.iter().map(|split| of(&source.id, split)));
        let header = ["SOURCE", "SPLIT", "POSITION", "ENDS AT", "LATEST EVENT", "STATE"];
        let _ = write!(text, "\n{}", table(&header, &rows.collect::<Vec<_>>()));
    }
    if !sinks.is_empty() {
        let rows = sinks.iter().map(|sink| vec![sink.id.clone(), sink.pieces.to_string(), sink.name.clone()]);
        let _ = write!(text, "\n{}", table(&["SINK", "PIECES", "WRITES TO"], &rows.collect::<Vec<_>>()));
    }
    text
}
