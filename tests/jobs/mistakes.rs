//! Mistakes that can be known before the first row are all listed before the first row.

use tests::run;
use windrow::prelude::*;

#[derive(Record)]
struct Misspelt {
    valeu: i64,
}

#[derive(Record)]
struct WrongType {
    value: String,
}

fn source(job: &Job) -> Stream<Untyped> {
    job.source(Sequence::new(10)).event_time("at", Watermarks::in_order()).fail_on_rejects()
}

/// The mistakes of a job that begins with a sequence.
fn mistakes(build: impl FnOnce(Stream<Untyped>)) -> String {
    let job = Job::new("wrong");
    build(source(&job));
    run(job).unwrap_err().to_string()
}

fn sink(stream: Stream<impl Sized + 'static>) {
    stream.sink(MemorySink::new());
}

#[test]
fn each_mistake_names_its_operator_and_what_there_is() {
    let tumbling = || Tumbling::of(secs(1));
    let cases = [
        (
            mistakes(|s| sink(s.filter_expr(col("vlaue").gt(lit(1))))),
            r#"#2 filter vlaue > Int32(1): there is no column "vlaue", did you mean "value"? (columns: value, at)"#,
        ),
        (mistakes(|s| sink(s.filter_expr(col("value") + lit(1)))), "not a condition (true or false)"),
        (
            mistakes(|s| sink(s.filter_expr(col("at").is_null().or(col("value").gt(lit("x")))))),
            r#"value > Utf8("x") compares text with a number, Int64 with Utf8: to convert"#,
        ),
        (mistakes(|s| sink(s.typed::<Misspelt>())), r#"record Misspelt: there is no column "valeu""#),
        (mistakes(|s| sink(s.typed::<WrongType>())), r#"field "value" is Utf8, but the column is Int64"#),
        (
            mistakes(|s| sink(s.key_by("who").window(tumbling()).aggregate([count()]).drop_late())),
            r#"#2 window tumbling 1s per who: there is no column "who""#,
        ),
        (mistakes(|s| sink(s.window(tumbling()).aggregate([col("value")]).drop_late())), "is not an aggregate"),
        (mistakes(|s| sink(s.window(tumbling()).aggregate([count(), count()]).drop_late())), r#"called "count""#),
        (mistakes(|s| sink(s.window(tumbling()).top(3, "price").drop_late())), r#"there is no column "price""#),
        (mistakes(|s| sink(s.window(tumbling()).top(0, "value").drop_late())), "ask for at least one"),
        (mistakes(|s| sink(s.window(tumbling()).top(3, "VALUE").drop_late())), r#"did you mean "value"?"#),
        (mistakes(|s| sink(s.clone().select([col("at")]).union(s))), "the columns differ"),
        (mistakes(|s| sink(s.window(Tumbling::of(millis(0))).top(3, "value").drop_late())), "at least one"),
        (mistakes(|s| sink(s.select([col("value"), col("value")]))), r#"called "value""#),
        (mistakes(|s| sink(s.window(tumbling()).aggregate([sum(col("at"))]).drop_late())), "sum(at)"),
    ];
    each_is_told(&cases);
}

/// The mistakes of a job that begins with a sequence without event time.
fn timeless(build: impl FnOnce(Stream<Untyped>)) -> String {
    let job = Job::new("wrong");
    build(job.source(Sequence::new(10)).fail_on_rejects());
    run(job).unwrap_err().to_string()
}

/// Says nothing of its rows.
#[derive(Clone)]
struct Silent;

impl Process for Silent {
    type Row = Value;
    type State = ();
    type Output = Value;
    type Side = NoSide;

    fn row(&mut self, _: ValueView<'_>, _: &mut Keyed<'_, Self>) {}
}

#[derive(Record)]
pub(crate) struct Value {
    value: i64,
}

/// The same columns under other names.
fn other(stream: &Stream<Untyped>) -> Stream<Untyped> {
    stream.clone().select([col("value").alias("other"), col("at").alias("since")])
}

fn each_is_told(cases: &[(String, &str)]) {
    for (found, expected) in cases {
        assert!(found.contains(expected), "expected {expected}\nin {found}");
        assert_eq!(found.lines().count(), 2, "one mistake, no echo of it:\n{found}");
    }
}

#[test]
fn joins_say_what_does_not_fit() {
    let text = |s: &Stream<Untyped>| s.clone().select([col("at").alias("since"), lit("a").alias("text")]);
    let cases = [
        (
            mistakes(|s| {
                let text = text(&s);
                sink(s.key_by("value").join(text.key_by("text")).as_of().drop_late());
            }),
            r#"#3 inner join, as of per value: joining different key types: "value" of the left side is Int64, "text" of the right"#,
        ),
        (
            mistakes(|s| {
                let other = other(&s);
                sink(
                    s.key_by("value").join(other.key_by(["other", "since"])).window(Tumbling::of(secs(1))).drop_late(),
                );
            }),
            "#3 inner join, tumbling 1s per value: the left side is keyed by value and the right side by other, since: a join needs",
        ),
        (
            mistakes(|s| {
                let same = s.clone();
                sink(s.key_by("value").join(same.key_by("value")).within(secs(1), secs(1)).drop_late());
            }),
            r#"both sides of the join have a column "at""#,
        ),
        (
            mistakes(|s| {
                let other = other(&s);
                sink(s.key_by("value").join(other.key_by("othre")).within(secs(1), secs(1)).drop_late());
            }),
            r#"right within -1s to 1s of left per value: there is no column "othre", did you mean "other"?"#,
        ),
        (
            mistakes(|s| {
                let other = other(&s);
                let join = s.key_by("value").join(other.key_by("other")).condition(col("left.value").gt(lit(1)));
                sink(join.within(secs(1), secs(1)).drop_late());
            }),
            r#"there is no column "left.value": write left("value")"#,
        ),
        (
            mistakes(|s| {
                let larger = col("value").gt(col("small.value"));
                let pattern = Pattern::begin("small", col("value").gt(lit(1))).next("large", larger).within(secs(1));
                sink(s.key_by("value").pattern(&pattern, []).drop_late());
            }),
            r#"there is no column "small.value": write col_of("small", "value")"#,
        ),
        (
            mistakes(|s| {
                let other = other(&s);
                let join = s.key_by("value").join(other.key_by("other"));
                sink(join.window(Global::every_rows(2)).drop_late());
            }),
            "a window all time, early after 2 rows: the results of a join are given once",
        ),
        (
            mistakes(|s| {
                let other = other(&s);
                sink(s.key_by("value").join(other.key_by("other")).between(Interval::between(2, 1)).drop_late());
            }),
            "an interval between 2 and 1 microseconds holds nothing",
        ),
        (
            mistakes(|s| {
                let other = other(&s);
                sink(s.key_by("value").join(other.key_by("other")).kind(JoinType::Full).as_of().drop_late());
            }),
            "#3 full join, as of per value: a temporal join of type full",
        ),
        (
            mistakes(|s| {
                let other = other(&s);
                sink(
                    s.key_by("value")
                        .join(other.key_by("other"))
                        .condition(col("valeu").gt(lit(1)))
                        .as_of()
                        .drop_late(),
                );
            }),
            r#"#3 inner join, as of per value: there is no column "valeu", did you mean "value"?"#,
        ),
        (
            mistakes(|s| {
                let other = other(&s);
                sink(s.key_by("value").join(other.key_by("other")).tables());
            }),
            "#3 inner join, tables per value: a join of changes takes changes, but this is a stream of rows: make changes of them with .key_by(…).latest()",
        ),
        (
            mistakes(|s| {
                let other = other(&s);
                let join = s.key_by("value").join(other.key_by("other")).condition(col("value") + lit(1));
                sink(join.window(Tumbling::of(secs(1))).drop_late());
            }),
            "left.value + Int32(1) is Int64, not a condition (true or false)",
        ),
    ];
    each_is_told(&cases);
}

#[test]
fn what_needs_event_time_says_so() {
    let cases = [
        (
            timeless(|s| sink(s.key_by("value").window(Session::gap(secs(1))).aggregate([count()]).drop_late())),
            "#2 window session gap 1s per value: a session needs event time: declare it at the source with .event_time(column, …)",
        ),
        (
            timeless(|s| sink(s.key_by("value").window(Count::of(2)).aggregate([count()]).drop_late())),
            "#2 window count of 2 rows per value: sorting needs event time",
        ),
        (
            timeless(|s| sink(s.typed::<Value>().key_by("value").process(Silent).drop_late())),
            "#2 process per value: it takes rows in order of event time, and there is none",
        ),
        (
            timeless(|s| {
                let other = s.clone().select([col("value").alias("other")]);
                sink(s.key_by("value").join(other.key_by("other")).within(secs(1), secs(1)).drop_late());
            }),
            "of left per value: the left side of a join needs event time",
        ),
        (
            timeless(|s| sink(s.key_by("value").deduplicate(secs(1)).drop_late())),
            "#2 first within 1s per value: sorting needs event time",
        ),
        (
            timeless(|s| sink(s.key_by("value").in_order().drop_late())),
            "#2 in order per value: sorting needs event time",
        ),
        (
            timeless(|s| sink(s.key_by("value").pattern(&odd().within(secs(1)), []).drop_late())),
            "#2 pattern per value: sorting needs event time",
        ),
        (
            timeless(|s| s.key_by("value").ttl(secs(1)).aggregate([count()]).drop_late().sink(MemoryTable::new())),
            "#2 aggregate per value: a time to live is counted in event time",
        ),
        (
            timeless(|s| s.key_by("value").ttl(secs(1)).latest().drop_late().sink(MemoryTable::new())),
            "#2 latest per value: a time to live is counted in event time",
        ),
        (
            timeless(|s| sink(s.typed::<Value>().key_by("value").ttl(secs(1)).on_arrival().process(Silent))),
            "#2 process per value: the time to live of process Silent needs event time",
        ),
    ];
    each_is_told(&cases);
}

fn odd() -> Pattern {
    Pattern::begin("odd", (col("value") % lit(2_i64)).eq(lit(1)))
}

#[test]
fn windows_and_patterns_say_what_is_wrong_with_them() {
    let cases = [
        (
            mistakes(|s| sink(s.key_by("value").window(Session::gap(secs(0))).aggregate([count()]).drop_late())),
            "#2 window session gap 0ns per value: a session with a gap of 0ns: a session gap is whole microseconds, at least one",
        ),
        (
            mistakes(|s| sink(s.window(Calendar::days("Europe/Atlantis")).aggregate([count()]).drop_late())),
            r#"#2 window days in Europe/Atlantis: there is no time zone "Europe/Atlantis", did you mean "Europe/Athens"?"#,
        ),
        (
            mistakes(|s| sink(s.window(Cumulating::of(secs(5), secs(2))).aggregate([count()]).drop_late())),
            "#2 window cumulating 5s by 2s: a window cumulating 5s by 2s: the last step would be cut off",
        ),
        (
            mistakes(|s| sink(s.window(Hopping::of(secs(1), secs(2))).aggregate([count()]).drop_late())),
            "#2 window hopping 1s every 2s: a window hopping 1s every 2s: between two windows there would be rows in no window",
        ),
        (
            mistakes(|s| sink(s.key_by("value").window(Count::of(0)).aggregate([count()]).drop_late())),
            "window count of 0 rows per value: count windows of 0 rows every 0 rows: both are at least one row",
        ),
        (
            mistakes(|s| sink(s.key_by("value").window(Session::gap(secs(1))).top(1, "value").drop_late())),
            "#2 top 1 by value of session gap 1s per value: the greatest rows are there for windows whose bounds do not depend",
        ),
        (
            mistakes(|s| sink(s.key_by("value").window(Session::gap(secs(1))).aggregate([sum(col("at"))]).drop_late())),
            "#2 window session gap 1s per value: sum(at)",
        ),
        (
            mistakes(|s| sink(s.key_by("value").window(Count::of(2)).aggregate([col("value")]).drop_late())),
            "window count of 2 rows per value: value is not an aggregate",
        ),
        (
            mistakes(|s| s.key_by("value").aggregate([sum(col("at"))]).sink(MemoryTable::new())),
            "#2 aggregate per value: sum(at)",
        ),
        (
            mistakes(|s| sink(s.key_by("value").pattern(&odd(), []).drop_late())),
            "pattern per value: a pattern needs a time: without .within(…)",
        ),
        (
            mistakes(|s| sink(s.key_by("value").pattern(&odd().within(secs(1)), [first("even", "value")]).drop_late())),
            r#"pattern per value: there is no step "even" (steps: odd)"#,
        ),
        (
            mistakes(|s| sink(s.key_by("value").pattern(&odd().times(0).within(secs(1)), []).drop_late())),
            r#"pattern per value: step "odd" of a pattern takes from 0 to 0 rows: that is none"#,
        ),
    ];
    each_is_told(&cases);
}

#[test]
fn changes_are_not_rows() {
    let changes = |s: Stream<Untyped>| s.key_by("value").latest();
    let cases = [
        (
            mistakes(|s| sink(changes(s))),
            "#3 sink memory: memory appends rows and cannot take changes: write .changelog() to it",
        ),
        (
            mistakes(|s| sink(changes(s).window(Tumbling::of(secs(1))).aggregate([count()]).drop_late())),
            "#3 window tumbling 1s: a window takes rows, but this is a stream of changes: make rows of them with .changelog()",
        ),
        (
            mistakes(|s| {
                sink(changes(s).key_by("value").window(Session::gap(secs(1))).aggregate([count()]).drop_late())
            }),
            "#3 window session gap 1s per value: a session takes rows, but this is a stream of changes",
        ),
        (
            mistakes(|s| sink(changes(s.clone()).union(changes(s)))),
            "#4 union: a union takes rows, but this is a stream of changes",
        ),
        (
            mistakes(|s| sink(changes(s).key_by("value").aggregate([count()]))),
            "#3 aggregate per value: an aggregation takes rows, but this is a stream of changes",
        ),
        (
            mistakes(|s| sink(changes(s).typed::<Value>().filter(|_| true))),
            "#2 latest per value, .typed::<Value>(): a closure over records takes rows, but this is a stream of changes: make rows of them with .changelog()",
        ),
        (
            mistakes(|s| sink(changes(s).typed::<Value>().key_by("value").process(Silent).drop_late())),
            "#2 latest per value, .typed::<Value>(): a closure over records takes rows, but this is a stream of changes: make rows of them with .changelog()",
        ),
        (
            mistakes(|s| sink(changes(s).key_by("value").in_order().drop_late())),
            "#3 in order per value: sorting takes rows, but this is a stream of changes",
        ),
        (
            mistakes(|s| {
                let other = other(&s);
                sink(changes(s).key_by("value").join(other.key_by("other")).within(secs(1), secs(1)).drop_late());
            }),
            "of left per value: the left side of a join takes rows, but this is a stream of changes",
        ),
        (
            mistakes(|s| changes(s).select([col("at")]).sink(MemoryTable::new())),
            r#"#3 select: the projection drops "value", a column of the key of the changes"#,
        ),
        (
            mistakes(|s| s.sink(MemoryTable::new())),
            "#2 sink memory table: a memory table keeps the newest row of each key and takes changes, not rows: write .key_by(…).latest() to it",
        ),
        (
            mistakes(|s| sink(s.changelog())),
            "#2 changelog: a changelog takes changes, but this is a stream of rows: make changes of them with .key_by(…).latest()",
        ),
        (
            mistakes(|s| {
                let same = s.clone().select([col("value"), col("at").alias("since")]);
                let other = same.key_by("value").latest();
                let join = changes(s).key_by("value").join(other.key_by("value")).kind(JoinType::Full);
                sink(join.condition(col("at").lt(col("since"))).tables());
            }),
            r#"full join, tables per value: a full join of tables with a condition: where the condition is not met there is a row of each side, and both would have the key "value": give it another name"#,
        ),
    ];
    each_is_told(&cases);
}

#[test]
fn late_rows_are_asked_of_what_has_some() {
    let cases = [
        (
            timeless(|s| {
                let (newest, late) = s.key_by("value").latest_unless(col("value").gt(lit(3))).with_late();
                newest.sink(MemoryTable::new());
                late.sink(MemorySink::new());
            }),
            "#2 latest per value: no row is too late for it: say .drop_late()",
        ),
        (
            mistakes(|s| {
                let (totals, late) = s.key_by("value").window(Global::every_rows(2)).aggregate([count()]).with_late();
                sink(totals);
                late.sink(MemorySink::new());
            }),
            "no row is too late for it: say .drop_late()",
        ),
    ];
    each_is_told(&cases);
}

#[test]
fn a_time_to_live_that_would_do_nothing_is_told() {
    let cases = [
        (
            mistakes(|s| {
                let other = other(&s).key_by("other").ttl(secs(1));
                sink(s.key_by("value").join(other).window(Tumbling::of(secs(1))).drop_late());
            }),
            "inner join, tumbling 1s per value: .ttl(…) says nothing here: a window forgets its rows by itself",
        ),
        (
            mistakes(|s| {
                let other = other(&s).key_by("other");
                sink(s.key_by("value").ttl(secs(1)).join(other).within(secs(1), secs(1)).drop_late());
            }),
            "per value: .ttl(…) says nothing here: rows are forgotten when the interval is over",
        ),
        (
            mistakes(|s| {
                let other = other(&s).key_by("other");
                sink(s.key_by("value").ttl(secs(1)).join(other).as_of().drop_late());
            }),
            "as of per value: .ttl(…) says nothing here: rows of the left side are forgotten as they leave",
        ),
        (
            mistakes(|s| {
                let other = other(&s).key_by("other").latest().key_by("other").ttl(secs(1));
                s.key_by("value").latest().key_by("value").join(other).tables().sink(MemoryTable::new());
            }),
            "tables per value: .ttl(…) says nothing here: say it of the left side, and it counts for both",
        ),
    ];
    each_is_told(&cases);
}

#[test]
fn all_mistakes_are_listed_at_once() {
    let job = Job::new("many");
    sink(source(&job).filter_expr(col("a").gt(lit(1))));
    sink(source(&job).key_by("b").window(Tumbling::of(secs(1))).aggregate([count()]).drop_late());
    let _ = source(&job).filter_expr(col("value").gt(lit(1)));
    let error = run(job).unwrap_err().to_string();
    assert_eq!(error.lines().count(), 4, "{error}");
    assert!(error.contains("go nowhere: give the stream a .sink(…), or .discard() it"), "{error}");
}

#[test]
fn a_window_needs_event_time() {
    let job = Job::new("timeless");
    sink(job.source(Sequence::new(1)).window(Tumbling::of(secs(1))).aggregate([count()]).drop_late());
    let error = run(job).unwrap_err().to_string();
    assert!(error.contains("declare it at the source with .event_time(column, …)"), "{error}");
}

#[test]
fn streams_that_go_nowhere_are_found() {
    let job = Job::new("loose");
    let (counts, late) = source(&job).window(Tumbling::of(secs(1))).aggregate([count()]).with_late();
    sink(counts);
    drop(late);
    let error = run(job).unwrap_err().to_string();
    assert!(error.contains("#2 window tumbling 1s: its late rows go nowhere: say .drop_late(), or"), "{error}");

    let job = Job::new("loose");
    let (rows, rejected) = job.source(Sequence::new(1)).with_rejects();
    sink(rows);
    drop(rejected);
    let error = run(job).unwrap_err().to_string();
    assert!(error.contains("its rejected records go nowhere"), "{error}");

    let job = Job::new("said");
    source(&job).discard();
    assert_eq!(run(job).unwrap().metrics.operators[0].rows_in, 10, "discarded rows are counted");
}

#[test]
fn a_job_without_a_source_and_a_parallelism_of_nothing_are_refused() {
    let error = run(Job::new("empty")).unwrap_err().to_string();
    assert!(error.contains("begin with job.source(…)"), "{error}");
    for tasks in [0, 257] {
        let job = Job::new("parallel").parallelism(tasks);
        sink(source(&job));
        let error = run(job).unwrap_err().to_string();
        assert!(error.contains("is not between 1 and 256"), "{error}");
    }
}

#[test]
fn unions_are_of_the_same_columns_of_the_same_job() {
    let found = mistakes(|s| sink(s.clone().select([col("at")]).union(s)));
    assert!(found.contains("#3 union: the columns differ: at time and value Int64, at time"), "{found}");
    let (one, other) = (Job::new("one"), Job::new("other"));
    sink(source(&one).union(source(&other)));
    assert!(run(one).unwrap_err().to_string().contains("belongs to another job"));
}

#[test]
fn late_and_rejected_rows_are_not_united_with_rows_that_keep_time() {
    let parts = || {
        let job = Job::new("late");
        let (counts, late) = source(&job).window(Tumbling::of(secs(1))).aggregate([count()]).with_late();
        counts.sink(MemorySink::new());
        (job, late)
    };
    let refused = |job: Job| run(job).unwrap_err().to_string().contains("late or rejected rows, which promise nothing");
    let (job, late) = parts();
    sink(source(&job).union(late));
    assert!(refused(job));
    let (job, late) = parts();
    sink(late.filter_expr(col("value").gt(lit(1))).union(source(&job)));
    assert!(refused(job), "nor what is made of them");
    let (job, late) = parts();
    let (counts, other) = source(&job).window(Tumbling::of(secs(2))).aggregate([count()]).with_late();
    counts.sink(MemorySink::new());
    sink(late.union(other));
    run(job).unwrap();
}

#[test]
fn a_job_prints_itself_and_its_physical_plan() {
    let job = Job::new("print").parallelism(2);
    let stream = job.source(Sequence::new(10).splits(2)).event_time("at", Watermarks::in_order()).drop_rejects();
    stream
        .clone()
        .key_by("value")
        .window(Tumbling::of(secs(1)))
        .aggregate([count()])
        .drop_late()
        .sink(MemorySink::new());
    stream.filter_expr(col("value").gt(lit(5))).sink(MemorySink::new());
    let printed = job.to_string();
    for part in [
        "job print",
        "#1 source sequence",
        "├─ #2 window tumbling 1s per value",
        "late: value Int64, at time (counted",
        "watermarks: in order",
    ] {
        assert!(printed.contains(part), "{part} in\n{printed}");
    }
    let plan = tests::on_two_threads(job.explain()).unwrap();
    let expected = "\
chain 0, 2 tasks: #1 source sequence → #2 window tumbling 1s per value (first phase) → #4 filter value > Int32(5)
  ══ by key group ══► chain 1
  ══ forward ══► chain 3
chain 1, 2 tasks: #2 window tumbling 1s per value
  ══ forward ══► chain 2
chain 2, 2 tasks: #3 sink memory
chain 3, 2 tasks: #5 sink memory
";
    assert_eq!(plan, expected);
}
