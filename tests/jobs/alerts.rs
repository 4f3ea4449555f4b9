//! The alerts of the book: each fires when it should, and none does when all is well.
//!
//! ```text
//!   the table of docs/src/operating.md ──► rules ──┐
//!                                                  ├──► promtool test rules
//!   what a job says, a quarter of a minute apart ──┘
//! ```
//!
//! Where the program `promtool`, which comes with Prometheus, is not installed the test is skipped, and says so; `WINDROW_NO_SKIP=1` makes
//! that a failure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::ErrorKind,
    process::Command,
};

use serde_json::{Value, json};
use tests::skip;

use super::prometheus::BOOK;

/// An alert of the book: its name, what it asks, and for how long that must be so, as rules have it.
pub(crate) struct Alert {
    name: &'static str,
    pub(crate) asks: &'static str,
    lasts: String,
}

/// The rows of the table of alerts.
pub(crate) fn alerts() -> Vec<Alert> {
    let (_, alerts) = BOOK.split_once("| alert | when | why |").unwrap();
    let alert = |row: &'static str| {
        let columns: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, asks, more] = columns[2].splitn(3, '`').collect::<Vec<_>>()[..] else { panic!("{row}") };
        let lasts = match more.strip_prefix(", for ") {
            Some(lasts) => lasts.strip_suffix(" min").unwrap().to_owned() + "m",
            None => {
                assert_eq!(more, "", "{row}");
                "0m".into()
            }
        };
        Alert { name: columns[1], asks, lasts }
    };
    alerts.lines().skip(2).take_while(|line| line.starts_with('|')).map(alert).collect()
}

/// What a job says that is well, for an hour.
const WELL: &[(&str, &str)] = &[
    ("up{job='windrow'}", "1x240"),
    ("windrow_up{job_name='j'}", "1x240"),
    // It did fail, some time ago.
    ("windrow_restarts_total{job_name='j'}", "3x240"),
    ("windrow_checkpoint_due_seconds{job_name='j'}", "9x240"),
    ("windrow_checkpoint_interval_seconds{job_name='j'}", "10x240"),
    ("windrow_checkpoint_underway_seconds{job_name='j'}", "0x240"),
    ("windrow_checkpoints_not_collected_total{job_name='j'}", "2x240"),
    ("windrow_operator_watermark_timestamp_seconds{job_name='j',operator='source'}", "1000+15x240"),
    ("windrow_operator_watermark_timestamp_seconds{job_name='j',operator='window'}", "1000+15x240"),
    ("windrow_operator_watermark_lag_seconds{job_name='j',operator='source'}", "7x240"),
    ("windrow_operator_watermark_lag_seconds{job_name='j',operator='window'}", "8x240"),
    ("windrow_task_idle{job_name='j',operator='source',task='0'}", "0x240"),
    ("windrow_task_idle{job_name='j',operator='window',task='0'}", "0x240"),
    ("windrow_task_idle{job_name='j',operator='window',task='1'}", "1x240"),
    ("windrow_task_rows_in_total{job_name='j',operator='source',task='0'}", "0+1500x240"),
    ("windrow_task_rows_in_total{job_name='j',operator='window',task='0'}", "0+1500x240"),
    ("windrow_task_rows_in_total{job_name='j',operator='window',task='1'}", "0x240"),
    ("windrow_task_blocked_seconds_total{job_name='j',operator='source',task='0'}", "0+3x240"),
    ("windrow_task_blocked_seconds_total{job_name='j',operator='window',task='0'}", "0x240"),
    ("windrow_operator_event_time_latency_seconds_bucket{job_name='j',operator='sink',le='10.0'}", "0+99x240"),
    ("windrow_operator_event_time_latency_seconds_bucket{job_name='j',operator='sink',le='100.0'}", "0+99x240"),
    ("windrow_operator_event_time_latency_seconds_bucket{job_name='j',operator='sink',le='+Inf'}", "0+99x240"),
    ("windrow_operator_behind_records{job_name='j',operator='source'}", "0+100x120 12000-100x119"),
    ("windrow_operator_late_rows_total{job_name='j',operator='window'}", "5x240"),
    ("windrow_operator_rejected_rows_total{job_name='j',operator='window'}", "0x240"),
    ("windrow_operator_late_rows_total{job_name='j',operator='source'}", "0x240"),
    ("windrow_operator_rejected_rows_total{job_name='j',operator='source'}", "7x240"),
    ("windrow_memory_held_bytes{job_name='j'}", "800x240"),
    ("windrow_memory_budget_bytes{job_name='j'}", "1000x240"),
    ("windrow_warnings{job_name='j'}", "0x240"),
];

/// What happens, what the job says otherwise then (nothing: there is no such series), and what fires after so many seconds.
type Case = (&'static str, &'static [(&'static str, &'static str)], &'static [(u32, &'static [&'static str])]);

const CASES: &[Case] = &[
    ("all is well", &[], &[(60, &[]), (600, &[]), (1_800, &[]), (3_600, &[])]),
    (
        "it takes no checkpoints and has no budget, no event time, and no side of its source that is known",
        &[
            ("windrow_checkpoint_due_seconds{job_name='j'}", ""),
            ("windrow_checkpoint_interval_seconds{job_name='j'}", ""),
            ("windrow_checkpoint_underway_seconds{job_name='j'}", ""),
            ("windrow_checkpoints_not_collected_total{job_name='j'}", ""),
            ("windrow_memory_held_bytes{job_name='j'}", ""),
            ("windrow_memory_budget_bytes{job_name='j'}", ""),
            ("windrow_operator_behind_records{job_name='j',operator='source'}", ""),
            ("windrow_operator_watermark_timestamp_seconds{job_name='j',operator='source'}", ""),
            ("windrow_operator_watermark_timestamp_seconds{job_name='j',operator='window'}", ""),
            ("windrow_operator_watermark_lag_seconds{job_name='j',operator='source'}", ""),
            ("windrow_operator_watermark_lag_seconds{job_name='j',operator='window'}", ""),
            ("windrow_task_idle{job_name='j',operator='source',task='0'}", ""),
            ("windrow_task_idle{job_name='j',operator='window',task='0'}", ""),
            ("windrow_task_idle{job_name='j',operator='window',task='1'}", ""),
        ],
        &[(600, &[]), (3_600, &[])],
    ),
    (
        "a job that has ended with its program is down",
        &[("up{job='windrow'}", "1x40 0x200")],
        &[(660, &[]), (780, &["it is down"])],
    ),
    (
        "a job that ended in a program that goes on",
        &[("windrow_up{job_name='j'}", "1x40 0x200")],
        &[(780, &["it is down"])],
    ),
    (
        "a restart takes a minute",
        &[("windrow_up{job_name='j'}", "1x40 0x3 1x196"), ("windrow_restarts_total{job_name='j'}", "3x43 4x196")],
        &[(615, &[]), (660, &[]), (900, &[])],
    ),
    (
        "it fails every other minute",
        &[("windrow_restarts_total{job_name='j'}", "3x40 4x7 5x7 6x7 7x200")],
        &[(600, &[]), (1_080, &["it fails again and again"]), (3_600, &[])],
    ),
    (
        "the program was started anew",
        &[("windrow_restarts_total{job_name='j'}", "3x40 0x200")],
        &[(660, &[]), (900, &[])],
    ),
    (
        "no checkpoint is ever complete",
        &[("windrow_checkpoint_due_seconds{job_name='j'}", "0+15x240")],
        &[(120, &[]), (240, &["no checkpoint"])],
    ),
    (
        "one does not end",
        &[("windrow_checkpoint_underway_seconds{job_name='j'}", "0x40 0+15x200")],
        &[(630, &[]), (720, &["a checkpoint hangs"])],
    ),
    (
        "old ones stay",
        &[("windrow_checkpoints_not_collected_total{job_name='j'}", "2x40 3+1x200")],
        &[(600, &[]), (900, &["the store fills up"])],
    ),
    (
        "one was not removed at once",
        &[("windrow_checkpoints_not_collected_total{job_name='j'}", "2x40 3x200")],
        &[(900, &[])],
    ),
    (
        "event time stands still",
        &[("windrow_operator_watermark_lag_seconds{job_name='j',operator='window'}", "8+15x240")],
        &[(240, &[]), (600, &["results are behind"])],
    ),
    (
        "nothing comes, and nobody waits for it",
        &[
            ("windrow_operator_watermark_lag_seconds{job_name='j',operator='window'}", "8+15x240"),
            ("windrow_operator_watermark_lag_seconds{job_name='j',operator='source'}", "7+15x240"),
            ("windrow_task_idle{job_name='j',operator='source',task='0'}", "1x240"),
            ("windrow_task_idle{job_name='j',operator='window',task='0'}", "1x240"),
        ],
        &[(600, &[]), (3_600, &[])],
    ),
    (
        "a split has never delivered anything",
        &[
            ("windrow_operator_watermark_timestamp_seconds{job_name='j',operator='window'}", ""),
            ("windrow_operator_watermark_lag_seconds{job_name='j',operator='window'}", ""),
        ],
        &[(240, &[]), (600, &["event time does not begin"])],
    ),
    (
        "event time begins a little later than rows",
        &[
            ("windrow_operator_watermark_timestamp_seconds{job_name='j',operator='window'}", "_x12 1000+15x227"),
            ("windrow_operator_watermark_lag_seconds{job_name='j',operator='window'}", "_x12 8x227"),
        ],
        &[(120, &[]), (600, &[])],
    ),
    (
        "results are written late",
        &[
            ("windrow_operator_event_time_latency_seconds_bucket{job_name='j',operator='sink',le='10.0'}", "0+9x240"),
            ("windrow_operator_event_time_latency_seconds_bucket{job_name='j',operator='sink',le='100.0'}", "0+99x240"),
        ],
        &[(600, &["results are old"])],
    ),
    (
        "none are written",
        &[
            ("windrow_operator_event_time_latency_seconds_bucket{job_name='j',operator='sink',le='10.0'}", "9x240"),
            ("windrow_operator_event_time_latency_seconds_bucket{job_name='j',operator='sink',le='100.0'}", "99x240"),
            ("windrow_operator_event_time_latency_seconds_bucket{job_name='j',operator='sink',le='+Inf'}", "99x240"),
        ],
        &[(600, &[])],
    ),
    (
        "more comes than is read",
        &[("windrow_operator_behind_records{job_name='j',operator='source'}", "0+2000x240")],
        &[(600, &[]), (1_200, &["it does not keep up"])],
    ),
    (
        "it catches up",
        &[("windrow_operator_behind_records{job_name='j',operator='source'}", "9000000-2000x240")],
        &[(600, &[]), (1_200, &[])],
    ),
    (
        "the sink is slow",
        &[("windrow_task_blocked_seconds_total{job_name='j',operator='source',task='0'}", "0+14x240")],
        &[(600, &["back-pressure"])],
    ),
    (
        "rows are late",
        &[("windrow_operator_late_rows_total{job_name='j',operator='window'}", "5x40 6+1x200")],
        &[(600, &[]), (900, &["rows are lost to the results"])],
    ),
    (
        "a format has changed",
        &[("windrow_operator_rejected_rows_total{job_name='j',operator='source'}", "7x40 8+1x200")],
        &[(600, &[]), (900, &["rows are lost to the results"])],
    ),
    (
        "memory is full",
        &[("windrow_memory_held_bytes{job_name='j'}", "800x40 950x200")],
        &[(600, &[]), (900, &["memory"])],
    ),
    ("it warns", &[("windrow_warnings{job_name='j'}", "0x40 1x200")], &[(600, &[]), (900, &["a person should look"])]),
];

/// A case as promtool has it: all that fires then, and nothing else.
fn test_of((what, otherwise, looks): &Case) -> Value {
    let mut said: BTreeMap<&str, &str> = WELL.iter().copied().collect();
    for (series, values) in *otherwise {
        assert!(said.insert(series, values).is_some(), "{what}: {series}");
    }
    let series = said.into_iter().filter(|(_, values)| !values.is_empty());
    let series: Vec<Value> = series.map(|(series, values)| json!({ "series": series, "values": values })).collect();
    let look = |(seconds, fires): &(u32, &[&str])| {
        let labels = |alert: &&str| format!("{{alertname=\"{alert}\"}}");
        let samples: Vec<Value> = fires.iter().map(|alert| json!({ "labels": labels(alert), "value": 1 })).collect();
        let expr = "count by (alertname) (ALERTS{alertstate='firing'})";
        json!({ "expr": expr, "eval_time": format!("{seconds}s"), "exp_samples": samples })
    };
    let looks: Vec<Value> = looks.iter().map(look).collect();
    json!({ "name": what, "interval": "15s", "input_series": series, "promql_expr_test": looks })
}

#[test]
fn each_fires_when_it_should_and_none_when_all_is_well() {
    let alerts = alerts();
    let named: BTreeSet<&str> = alerts.iter().map(|alert| alert.name).collect();
    let fire: BTreeSet<&str> =
        CASES.iter().flat_map(|(.., looks)| looks.iter().flat_map(|(_, fires)| fires.iter().copied())).collect();
    assert_eq!(named, fire, "each alert of the book has a case in which it fires");

    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, value: &Value| fs::write(directory.path().join(name), value.to_string()).unwrap();
    let rule = |own: &Alert| json!({ "alert": own.name, "expr": own.asks, "for": own.lasts });
    let rules: Vec<Value> = alerts.iter().map(rule).collect();
    // JSON is YAML.
    write("rules.yml", &json!({ "groups": [{ "name": "windrow", "interval": "15s", "rules": rules }] }));
    let tests: Vec<Value> = CASES.iter().map(test_of).collect();
    write("tests.yml", &json!({ "rule_files": ["rules.yml"], "evaluation_interval": "15s", "tests": tests }));
    let ran = match Command::new("promtool").args(["test", "rules", "tests.yml"]).current_dir(&directory).output() {
        Ok(ran) => ran,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return skip("there is no program `promtool` (Debian: apt-get install prometheus)").unwrap_or_default();
        }
        Err(error) => panic!("promtool: {error}"),
    };
    let said = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned();
    assert!(ran.status.success() && said.contains("SUCCESS"), "{said}");
}
