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
    for (found, expected) in cases {
        assert!(found.contains(expected), "expected {expected}\nin {found}");
        assert_eq!(found.lines().count(), 2, "one mistake, no echo of it:\n{found}");
    }
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
    assert!(error.contains("#2 window tumbling 1s: its late rows go nowhere"), "{error}");

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
