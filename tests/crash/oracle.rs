//! The answer of a scenario, computed naively: all rows in memory, a map per key and window. It shares no code with the
//! engine.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{
    input::Row,
    scenario::{Answer, Scenario, Second, Step, What},
};

/// A row of output: its columns by name, as comparable text.
pub(crate) type Line = String;

/// What the columns of a row look like when they are compared: `amount=5 at=17 …`, in the order of names.
pub(crate) fn line(columns: BTreeMap<String, Value>) -> Line {
    let column = |(name, value): (String, Value)| match value {
        Value::Whole(value) => format!("{name}={value}"),
        // Far more digits than a lost row would leave unchanged.
        Value::Fraction(value) => format!("{name}={value:.6}"),
        Value::Text(value) => format!("{name}={value:?}"),
    };
    columns.into_iter().map(column).collect::<Vec<_>>().join(" ")
}

/// What stands in a column. A time counts microseconds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Whole(i64),
    Fraction(f64),
    Text(String),
}

/// The rows as they reach the window, or the sink where there is none.
fn stepped(scenario: &Scenario) -> Vec<Row> {
    let mut rows: Vec<Row> = scenario.rows().cloned().collect();
    for step in &scenario.steps {
        rows = match *step {
            Step::KeepAmounts { divisor, but } => rows.into_iter().filter(|row| row.amount % divisor != but).collect(),
            Step::KeepUsers { divisor, but } => rows.into_iter().filter(|row| row.user % divisor != but).collect(),
            Step::Multiply { by } => rows.into_iter().map(|row| Row { amount: row.amount * by, ..row }).collect(),
            Step::Add { term } => rows.into_iter().map(|row| Row { amount: row.amount + term, ..row }).collect(),
            Step::Copy { copies } => {
                let copied = |row: Row| {
                    let count = if row.user % copies == 0 { 0 } else { copies };
                    (0..count).map(move |copy| Row { id: row.id * 4 + copy, user: row.user + copy, ..row.clone() })
                };
                rows.into_iter().flat_map(copied).collect()
            }
        };
    }
    rows
}

/// What each kind of sink must hold, given the late rows that were found.
pub(crate) fn answers(scenario: &Scenario, late: &[Line]) -> Result<HashMap<What, Vec<Line>>, String> {
    let rows = stepped(scenario);
    let late_set: HashSet<&Line> = late.iter().collect();
    if late_set.len() != late.len() {
        return Err(format!("{} late rows are repeated", late.len() - late_set.len()));
    }
    let all: HashMap<Line, &Row> = rows.iter().map(|row| (line(columns(row)), row)).collect();
    for line in late {
        match all.get(line) {
            None => return Err(format!("a late row that never was: {line}")),
            Some(row) if !row.is_beyond => return Err(format!("late although within the bound: {line}")),
            Some(_) => {}
        }
    }
    let kept = rows.iter().filter(|row| late.is_empty() || !late_set.contains(&line(columns(row)))).cloned().collect();
    let lines = |all: Vec<BTreeMap<String, Value>>| all.into_iter().map(line).collect::<Vec<_>>();
    let answers = [
        (What::Answer, lines(answer(&scenario.answer, kept))),
        (What::Rows, lines(rows.iter().map(columns).collect())),
        (What::Late, late.to_vec()),
    ];
    Ok(answers.into())
}

fn columns(row: &Row) -> BTreeMap<String, Value> {
    [
        ("id", Value::Whole(row.id)),
        ("user", Value::Whole(row.user)),
        ("country", Value::Text(row.country.clone())),
        ("amount", Value::Whole(row.amount)),
        ("at", Value::Whole(row.at)),
    ]
    .map(|(name, value)| (name.to_string(), value))
    .into()
}

fn key_of(columns: &BTreeMap<String, Value>, key: &[&str]) -> String {
    key.iter().map(|name| format!("{:?} ", columns[*name])).collect()
}

type Columns = BTreeMap<String, Value>;

fn answer(answer: &Answer, rows: Vec<Row>) -> Vec<Columns> {
    match answer {
        Answer::Rows => rows.iter().map(columns).collect(),
        Answer::Groups { key, size, then } => {
            let groups = groups(&rows, key, *size);
            match then {
                None => groups,
                Some(Second::Sums { key, size }) => sums(groups, key, *size),
                Some(Second::Greatest { key, size, n }) => {
                    let at = |columns: &Columns| whole(columns, "window_start");
                    let mut greatest = greatest(groups, at, "top_id", key, *size, *n);
                    for columns in &mut greatest {
                        columns.remove("window_start");
                        rename(columns, "start_of_window", "window_start");
                    }
                    greatest
                }
            }
        }
        Answer::Greatest { key, size, n } => {
            let all = rows.iter().map(columns).collect();
            let mut greatest = greatest(all, |columns| whole(columns, "at"), "id", key, *size, *n);
            greatest.iter_mut().for_each(|columns| rename(columns, "start_of_window", "window_start"));
            greatest
        }
    }
}

fn rename(columns: &mut Columns, from: &str, to: &str) {
    if let Some(value) = columns.remove(from) {
        columns.insert(to.into(), value);
    }
}

fn whole(columns: &Columns, name: &str) -> i64 {
    match columns[name] {
        Value::Whole(value) => value,
        _ => 0,
    }
}

fn start_of(at: i64, size: i64) -> i64 {
    at.div_euclid(size) * size
}

/// Count, sum, greatest id and mean per key and window.
fn groups(rows: &[Row], key: &[&str], size: i64) -> Vec<Columns> {
    let mut groups: HashMap<(i64, String), Vec<&Row>> = HashMap::new();
    for row in rows {
        groups.entry((start_of(row.at, size), key_of(&columns(row), key))).or_default().push(row);
    }
    let group = |((start, _), rows): ((i64, String), Vec<&Row>)| {
        let all = columns(rows[0]);
        let mut group: Columns = key.iter().map(|name| (name.to_string(), all[*name].clone())).collect();
        let total: i64 = rows.iter().map(|row| row.amount).sum();
        group.insert("window_start".into(), Value::Whole(start));
        group.insert("n".into(), Value::Whole(rows.len() as i64));
        group.insert("total".into(), Value::Whole(total));
        group.insert("top_id".into(), Value::Whole(rows.iter().map(|row| row.id).max().unwrap_or_default()));
        group.insert("mean".into(), Value::Fraction(total as f64 / rows.len() as f64));
        group
    };
    groups.into_iter().map(group).collect()
}

/// The sums of groups per key and wider window.
fn sums(groups: Vec<Columns>, key: &[&str], size: i64) -> Vec<Columns> {
    let mut sums: HashMap<(i64, String), Vec<Columns>> = HashMap::new();
    for group in groups {
        let start = start_of(whole(&group, "window_start"), size);
        sums.entry((start, key_of(&group, key))).or_default().push(group);
    }
    let sum = |((start, _), groups): ((i64, String), Vec<Columns>)| {
        let mut sum: Columns = key.iter().map(|name| (name.to_string(), groups[0][*name].clone())).collect();
        let of = |name| Value::Whole(groups.iter().map(|group| whole(group, name)).sum());
        sum.insert("window_start".into(), Value::Whole(start));
        sum.insert("groups".into(), Value::Whole(groups.len() as i64));
        sum.insert("n".into(), of("n"));
        sum.insert("total".into(), of("total"));
        sum
    };
    sums.into_iter().map(sum).collect()
}

/// The `n` rows with the greatest value of `by` per key and window, with their rank.
fn greatest(
    rows: Vec<Columns>,
    at: impl Fn(&Columns) -> i64,
    by: &str,
    key: &[&str],
    size: i64,
    n: usize,
) -> Vec<Columns> {
    let mut groups: HashMap<(i64, String), Vec<Columns>> = HashMap::new();
    for row in rows {
        groups.entry((start_of(at(&row), size), key_of(&row, key))).or_default().push(row);
    }
    let mut greatest = Vec::new();
    for ((start, _), mut rows) in groups {
        rows.sort_by_key(|row| -whole(row, by));
        for (rank, mut row) in rows.into_iter().take(n).enumerate() {
            row.insert("rank".into(), Value::Whole(rank as i64 + 1));
            row.insert("start_of_window".into(), Value::Whole(start));
            greatest.push(row);
        }
    }
    greatest
}
