//! The right answer of a scenario, computed over all rows at once with maps and loops: it shares nothing with the engine
//! but the text of a time.
//!
//! Where rows come beyond the bound, which of them are late may depend on who was faster. Then the answer is checked
//! instead of compared: what is in a window's result and what left as late are together exactly its rows, no window gives
//! two results, and no row leaves as late that came within the bound. With a single split it is known exactly.

use std::collections::{BTreeMap, BTreeSet};

use windrow::prelude::*;

use super::scenario::{Click, Ending, Fork, Outputs, Scenario, Step, WindowSpec};

/// Rows as comparable text, sorted.
pub type Rows = Vec<String>;

/// The values of a key and the start of the window.
type Group = (i64, Vec<i64>);

impl Scenario {
    /// Whether everything that was published is right; otherwise what is wrong.
    pub fn check(&self, published: &Outputs) -> Result<(), String> {
        let rejects: Rows = tests::rows(&published.rejects.batches());
        same("rejected records", rejected(&rejects), self.bad())?;
        let rows = self.rows();
        if self.fork == Fork::Raw {
            same("raw rows", tests::rows(&published.raw.batches()), texts(&rows))?;
        }
        let results = tests::rows(&published.results.batches());
        let late = tests::rows(&published.late.batches());
        match &self.ending {
            Ending::Rows => same("rows", results, texts(&rows)),
            Ending::Kind(kind) if kind.has_late() => {
                // What stands behind a sort takes no row that is earlier than the watermark.
                let known = self.late(|click, watermark| click.time() < watermark);
                let (late_rows, on_time) = known.ok_or("late rows of more than one split are not known")?;
                same("late rows", late, late_rows)?;
                same(&format!("{kind:?} without late rows"), results, kind.right(&on_time))
            }
            Ending::Kind(kind) => {
                let found = if kind.is_table() { tests::rows(&published.table.batches()) } else { results };
                same(&format!("{kind:?}"), found, kind.right(&rows))
            }
            Ending::Top { window, n } => same("top rows", results, top(window, *n, &rows)),
            Ending::Window(window) if window.late => {
                match self.late(|click, watermark| window.is_late(click, watermark)) {
                    Some((late_rows, on_time)) => {
                        same("late rows", late, late_rows)?;
                        same("windows without late rows", results, sorted(windows(window, &on_time)))
                    }
                    None => self.check_split_up(window, &rows, &results, &late),
                }
            }
            Ending::Window(window) if window.second > 0 => same("second windows", results, second(window, &rows)),
            Ending::Window(window) => same("windows", results, sorted(windows(window, &rows))),
        }
    }

    /// How many records there are.
    pub fn records(&self) -> usize {
        self.inputs.iter().flat_map(|input| input.rows()).count()
    }

    fn bad(&self) -> Rows {
        let bad = self.inputs.iter().flat_map(|input| input.rows()).filter(|click| click.is_bad());
        sorted(bad.map(|click| format!("user={} shop={} amount={}", click.user, click.shop, click.amount)))
    }

    /// The rows that reach the ending, of all inputs.
    fn rows(&self) -> Vec<Click> {
        let good = self.inputs.iter().flat_map(|input| input.rows()).filter(|click| !click.is_bad());
        self.through_steps(good.cloned().collect())
    }

    fn through_steps(&self, rows: Vec<Click>) -> Vec<Click> {
        let rows = self.steps.iter().fold(rows, |rows, step| match *step {
            Step::Call { .. } => rows,
            Step::KeepShops(but) => rows.into_iter().filter(|click| click.shop % 3 != but).collect(),
            Step::Scale(by) => {
                rows.into_iter().map(|click| Click { amount: click.amount * by, ..click }).collect::<Vec<_>>()
            }
            Step::Halve => {
                let halves = |click: Click| {
                    let half = click.amount / 2;
                    [Click { amount: half, ..click.clone() }, Click { amount: click.amount - half, ..click }]
                };
                rows.into_iter().flat_map(halves).collect()
            }
        });
        match self.fork {
            Fork::Twice => [rows.clone(), rows].concat(),
            _ => rows,
        }
    }

    /// The late rows and those on time, when that does not depend on who was faster: with one split, batch by batch.
    fn late(&self, is_late: impl Fn(&Click, i64) -> bool) -> Option<(Rows, Vec<Click>)> {
        let [input] = self.inputs.as_slice() else { return None };
        let mut busy = input.splits.iter().filter(|split| !split.is_empty());
        let (split, None) = (busy.next()?, busy.next()) else { return None };
        // In a diamond one side can be ahead of the other. Silent sources and empty splits of one task hold it.
        if matches!(self.fork, Fork::Diamond | Fork::Twice) || input.splits.len() > 1 {
            return None;
        }
        let (mut latest, mut late, mut on_time) = (None, Vec::new(), Vec::new());
        for batch in split {
            let good: Vec<Click> = batch.iter().filter(|click| !click.is_bad()).cloned().collect();
            let watermark = latest.map(|latest: i64| latest - self.disorder);
            for click in self.through_steps(good.clone()) {
                let is_late = watermark.is_some_and(|watermark| is_late(&click, watermark));
                if is_late { late.push(click) } else { on_time.push(click) }
            }
            latest = latest.max(good.iter().map(Click::time).max());
        }
        Some((texts(&late), on_time))
    }

    fn check_split_up(&self, window: &WindowSpec, rows: &[Click], results: &Rows, late: &Rows) -> Result<(), String> {
        let mut sums: BTreeMap<String, (i64, i64)> = BTreeMap::new();
        for row in results {
            let mut values = row.rsplitn(3, '|');
            let (total, clicks) = (number(values.next()), number(values.next()));
            if sums.insert(values.next().unwrap_or_default().to_string(), (clicks, total)).is_some() {
                return Err(format!("a window gave two results: {row}"));
            }
        }
        let known: BTreeMap<String, &Click> = rows.iter().map(|click| (text(click), click)).collect();
        let beyond = self.beyond_the_bound();
        let add = |sums: &mut BTreeMap<String, (i64, i64)>, click: &Click| {
            let sum = sums.entry(window.group_text(&window.group(click))).or_default();
            *sum = (sum.0 + 1, sum.1 + click.amount);
        };
        for row in late {
            let click = known.get(row).ok_or_else(|| format!("a late row that never was: {row}"))?;
            if !beyond.contains(&(click.user, click.shop, click.at)) {
                return Err(format!("a row left as late that came within the bound: {row}"));
            }
            add(&mut sums, click);
        }
        let mut right = BTreeMap::new();
        rows.iter().for_each(|click| add(&mut right, click));
        let texts = |sums: BTreeMap<String, (i64, i64)>| sums.iter().map(|sum| format!("{sum:?}")).collect();
        same("windows and their late rows", texts(sums), texts(right))
    }

    /// The rows that are further behind the latest of their split than was declared.
    fn beyond_the_bound(&self) -> BTreeSet<(i64, i64, Timestamp)> {
        let mut beyond = BTreeSet::new();
        for split in self.inputs.iter().flat_map(|input| &input.splits) {
            let mut latest = i64::MIN;
            for click in split.iter().flatten().filter(|click| !click.is_bad()) {
                if click.time() < latest.saturating_sub(self.disorder) {
                    beyond.insert((click.user, click.shop, click.at));
                }
                latest = latest.max(click.time());
            }
        }
        beyond
    }
}

impl WindowSpec {
    fn start(&self, click: &Click) -> i64 {
        (click.time() - self.offset).div_euclid(self.size) * self.size + self.offset
    }

    fn is_late(&self, click: &Click, watermark: i64) -> bool {
        self.start(click) + self.size + self.lateness <= watermark
    }

    fn group(&self, click: &Click) -> Group {
        let key = self.key.iter().map(|name| if *name == "user" { click.user } else { click.shop });
        (self.start(click), key.collect())
    }

    fn group_text(&self, (start, key): &Group) -> String {
        let mut values = vec![Timestamp::from_micros(*start).to_string()];
        values.extend(key.iter().map(i64::to_string));
        values.join("|")
    }

    fn groups<'a>(&self, rows: &'a [Click]) -> BTreeMap<Group, Vec<&'a Click>> {
        let mut groups: BTreeMap<Group, Vec<&Click>> = BTreeMap::new();
        for click in rows {
            groups.entry(self.group(click)).or_default().push(click);
        }
        groups
    }
}

fn windows(window: &WindowSpec, rows: &[Click]) -> Rows {
    let row = |(group, clicks): (Group, Vec<&Click>)| {
        let total: i64 = clicks.iter().map(|click| click.amount).sum();
        let mut values = vec![window.group_text(&group), clicks.len().to_string(), total.to_string()];
        if window.more {
            let mut shops: Vec<i64> = clicks.iter().map(|click| click.shop).collect();
            shops.sort_unstable();
            shops.dedup();
            let least = clicks.iter().map(|click| click.amount).min().unwrap_or_default();
            values.extend([least.to_string(), shops[shops.len() - 1].to_string()]);
            values.extend([format!("{:?}", total as f64 / clicks.len() as f64), shops.len().to_string()]);
        }
        values.join("|")
    };
    window.groups(rows).into_iter().map(row).collect()
}

fn second(window: &WindowSpec, rows: &[Click]) -> Rows {
    let size = window.size * window.second;
    let mut sums: BTreeMap<i64, (usize, i64)> = BTreeMap::new();
    for ((start, _), clicks) in window.groups(rows) {
        // The event time of a window's result is the last instant in it.
        let at = start + window.size - 1;
        let sum = sums.entry(at.div_euclid(size) * size).or_default();
        *sum = (sum.0 + 1, sum.1 + clicks.iter().map(|click| click.amount).sum::<i64>());
    }
    let row = |(start, (n, grand))| format!("{}|{n}|{grand}", Timestamp::from_micros(start));
    sorted(sums.into_iter().map(row))
}

fn top(window: &WindowSpec, n: usize, rows: &[Click]) -> Rows {
    let mut top = Vec::new();
    for ((start, _), mut clicks) in window.groups(rows) {
        clicks.sort_by_key(|click| (-click.amount, click.user, click.shop, click.at));
        for (rank, click) in clicks.iter().take(n).enumerate() {
            top.push(format!("{}|{}|{}", Timestamp::from_micros(start), rank + 1, text(click)));
        }
    }
    sorted(top)
}

pub fn text(click: &Click) -> String {
    format!("{}|{}|{}|{}", click.user, click.shop, click.amount, click.at)
}

fn texts(clicks: &[Click]) -> Rows {
    sorted(clicks.iter().map(text))
}

pub fn sorted(rows: impl IntoIterator<Item = String>) -> Rows {
    let mut rows: Rows = rows.into_iter().collect();
    rows.sort_unstable();
    rows
}

/// Rejected records, as hexadecimal digits, without their time, which cannot be written down.
fn rejected(rows: &Rows) -> Rows {
    let byte = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).unwrap_or("?"), 16).unwrap_or(b'?');
    let text = |row: &String| row.as_bytes().chunks(2).map(byte).map(char::from).collect::<String>();
    sorted(rows.iter().map(text).map(|text| text.split(" at=").next().unwrap_or_default().to_string()))
}

fn number(text: Option<&str>) -> i64 {
    text.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{text:?} is not a number"))
}

/// Whether two lists of rows are the same; otherwise what differs.
fn same(what: &str, found: Rows, right: Rows) -> Result<(), String> {
    if found == right {
        return Ok(());
    }
    let missing = less(&right, &found);
    let extra = less(&found, &right);
    let some = |rows: &[String]| rows.iter().take(3).cloned().collect::<Vec<_>>().join("   ");
    let (lost, more) = (some(&missing), some(&extra));
    Err(format!(
        "{what}: {} instead of {}; {} missing: {lost}; {} too many: {more}",
        found.len(),
        right.len(),
        missing.len(),
        extra.len()
    ))
}

/// The rows of one sorted list that the other has not.
fn less(one: &Rows, other: &Rows) -> Rows {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    other.iter().for_each(|row| *counts.entry(row.as_str()).or_default() += 1);
    let is_extra = |row: &&String| match counts.get_mut(row.as_str()) {
        Some(count) if *count > 0 => {
            *count -= 1;
            false
        }
        _ => true,
    };
    one.iter().filter(is_extra).cloned().collect()
}
