//! Lookups: rows enriched from files and from tables of the user's.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use tests::{on_two_threads, rows, run};
use windrow::{
    Error, LookupKind,
    arrow::{
        array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray},
        datatypes::{DataType, Field, Int64Type, Schema, SchemaRef},
    },
    connectors::{Cached, ConnectorError, Lookup, TableFile, async_trait},
    prelude::*,
};

#[derive(Record)]
#[allow(dead_code, reason = "columns of a table")]
struct Shop {
    id: i64,
    city: Option<String>,
}

fn shops(directory: &Path, text: &str) -> String {
    let path = directory.join("shops.csv");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_string()
}

/// Rows `n` of `shop`.
fn sales(job: &Job, shops: &[Option<i64>]) -> Stream<Untyped> {
    let number: ArrayRef = Arc::new(Int64Array::from_iter_values(0..shops.len() as i64));
    let shop: ArrayRef = Arc::new(Int64Array::from(shops.to_vec()));
    let at = Timestamp::column((0..shops.len() as i64).map(|n| n * 1_000_000).collect());
    let schema = Schema::new(vec![
        Field::new("n", DataType::Int64, false),
        Field::new("shop", DataType::Int64, true),
        Field::new("at", Timestamp::data_type(), false),
    ]);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![number, shop, at]).unwrap();
    let source = job.source(MemorySource::batches(vec![batch]).batch_rows(3));
    source.event_time("at", Watermarks::in_order()).fail_on_rejects()
}

#[test]
fn rows_are_joined_to_a_file_by_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = shops(directory.path(), "id,city\n1,Rome\n2,Oslo\n1,Bari\n3,\n");
    let keys = [Some(1), None, Some(2), Some(9), Some(3), Some(1)];
    let inner = ["0|1|Bari", "0|1|Rome", "2|2|Oslo", "4|3|null", "5|1|Bari", "5|1|Rome"];
    let mut left = inner.to_vec();
    left.extend(["1|null|null", "3|9|null"]);
    left.sort_unstable();
    for (kind, right) in [(LookupKind::Inner, &inner[..]), (LookupKind::Left, &left[..])] {
        let (job, out) = (Job::new("sales"), MemorySink::new());
        sales(&job, &keys)
            .lookup(TableFile::csv::<Shop>(&path), [("shop", "id")], kind)
            .ordered()
            .fail_on_failure()
            .select(["n", "shop", "city"].map(col))
            .sink(out.clone());
        let report = run(job).unwrap();
        assert_eq!(rows(&out.batches()), right);
        let lookup = report.metrics.named("lookup").next().unwrap();
        assert_eq!((lookup.rows_in, lookup.rows_out as usize), (6, right.len()));
        assert!(lookup.balances());
    }
}

#[test]
fn event_time_stays_when_it_is_not_among_the_columns() {
    let directory = tempfile::tempdir().unwrap();
    let path = shops(directory.path(), "shop,city\n1,Rome\n2,Oslo\n");
    #[derive(Record)]
    #[allow(dead_code, reason = "columns of a table")]
    struct ByShop {
        shop: i64,
        city: Option<String>,
    }
    let (job, out) = (Job::new("hidden"), MemorySink::new());
    let keys: Vec<_> = (0..100).map(|n| Some(n % 3)).collect();
    sales(&job, &keys)
        .select([col("shop")])
        .lookup(TableFile::csv::<ByShop>(&path), "shop", LookupKind::Left)
        .fail_on_failure()
        .key_by("city")
        .window(Tumbling::of(secs(50)))
        .aggregate([count().alias("n")])
        .drop_late()
        .select(["window_start", "city", "n"].map(col))
        .sink(out.clone());
    run(job).unwrap();
    let counts: Vec<String> = rows(&out.batches()).iter().map(|row| row.split_once('|').unwrap().1.into()).collect();
    assert_eq!(counts, ["Oslo|16", "Rome|17", "null|17", "Oslo|17", "Rome|16", "null|17"]);
}

#[test]
fn a_table_that_is_not_there_fails_the_job_before_the_first_row() {
    let (job, out) = (Job::new("missing"), MemorySink::new());
    let table = TableFile::csv::<Shop>("/nowhere/shops.csv");
    sales(&job, &[Some(1)]).lookup(table, [("shop", "id")], LookupKind::Left).drop_failed().sink(out);
    let error = run(job).unwrap_err();
    assert!(matches!(error, Error::Source { .. }));
    assert_eq!(
        error.to_string(),
        "#2 lookup /nowhere/shops.csv: no such file: /nowhere/shops.csv (a file source must find its files)"
    );
}

#[test]
fn mistakes_are_told_before_the_first_row() {
    #[derive(Record)]
    #[allow(dead_code, reason = "columns of a table")]
    struct Table {
        n: i64,
        id: String,
    }
    let table = || TableFile::csv::<Table>("table.csv");
    let said = |on: (&str, &str)| {
        let job = Job::new("mistakes");
        sales(&job, &[Some(1)]).lookup(table(), [on], LookupKind::Inner).drop_failed().sink(MemorySink::new());
        run(job).unwrap_err().to_string()
    };
    for (on, words) in [
        (("shp", "id"), r#"#2 lookup table.csv: there is no column "shp", did you mean "shop"?"#),
        (("shop", "ids"), r#"#2 lookup table.csv: table table.csv: there is no column "ids", did you mean "id"?"#),
        (("shop", "id"), r#"column "shop" is Int64, but "id" of the table is Utf8"#),
    ] {
        assert!(said(on).contains(words), "{}", said(on));
    }
    let job = Job::new("twice");
    let directory = tempfile::tempdir().unwrap();
    let other = TableFile::csv::<Number>(shops(directory.path(), "shop,n\n"));
    sales(&job, &[Some(1)]).lookup(other, "shop", LookupKind::Inner).drop_failed().sink(MemorySink::new());
    let said = run(job).unwrap_err().to_string();
    assert!(said.contains(r#"the rows have a column "n" already: give it another name with .select("#), "{said}");
}

#[test]
fn a_condition_that_is_none_is_told_before_the_first_row() {
    let said = |condition: Expr| {
        let job = Job::new("mistakes");
        let result = sales(&job, &[Some(1)]).lookup(Gifts(Vec::new()), "shop", LookupKind::Left).condition(condition);
        result.drop_failed().sink(MemorySink::new());
        run(job).unwrap_err().to_string()
    };
    for (condition, words) in [
        (col("lest").lt(col("n")), r#"#2 lookup gifts: there is no column "lest", did you mean "least"?"#),
        (right("n").lt(lit(1)), r#"#2 lookup gifts: there is no column "n""#),
        (
            col("shop").lt(lit(1)),
            r#"#2 lookup gifts: the column "shop" is on both sides of the join: write left("shop") or"#,
        ),
        (col("least") + lit(1), "not a condition (true or false)"),
    ] {
        let said = said(condition);
        assert!(said.contains(words), "{said}");
    }
}

#[derive(Record)]
#[allow(dead_code, reason = "columns of a table")]
struct Number {
    shop: i64,
    n: i64,
}

/// Names numbers below a hundred; notes what it is asked, and refuses what holds a 13.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<Vec<Vec<i64>>>>);

#[async_trait]
impl Lookup for Names {
    fn name(&self) -> String {
        "names".into()
    }

    fn schema(&self) -> Result<SchemaRef, ConnectorError> {
        let columns = vec![Field::new("name", DataType::Utf8, false), Field::new("shop", DataType::Int64, false)];
        Ok(Arc::new(Schema::new(columns)))
    }

    async fn lookup(&self, keys: RecordBatch) -> Result<RecordBatch, ConnectorError> {
        let asked = keys.column(0).as_primitive::<Int64Type>().values().to_vec();
        self.0.lock().unwrap().push(asked.clone());
        tokio::task::yield_now().await;
        if asked.contains(&13) {
            return Err(ConnectorError::Config("thirteen".into()));
        }
        // In another order than it was asked.
        let known: Vec<i64> = asked.into_iter().rev().filter(|n| *n < 100).collect();
        let names = StringArray::from_iter_values(known.iter().map(|n| format!("shop {n}")));
        let columns: Vec<ArrayRef> = vec![Arc::new(names), Arc::new(Int64Array::from(known))];
        Ok(RecordBatch::try_new(self.schema()?, columns)?)
    }
}

#[test]
fn each_key_of_a_batch_is_asked_once_and_of_a_cache_once_at_all() {
    for cached in [false, true] {
        let (job, out, names) = (Job::new("distinct"), MemorySink::new(), Names::default());
        let rows_in = sales(&job, &[Some(5), Some(5), None, Some(7), Some(5), Some(500), Some(500), Some(7), None]);
        let on = "shop";
        let result = match cached {
            false => rows_in.lookup(names.clone(), on, LookupKind::Left),
            true => rows_in.lookup(Cached::new(names.clone(), 100, secs(60)), on, LookupKind::Left).capacity(1),
        };
        result.fail_on_failure().select(["n", "name"].map(col)).sink(out.clone());
        run(job).unwrap();
        let mut asked = names.0.lock().unwrap().clone();
        asked.sort();
        let right = if cached { vec![vec![5], vec![7, 500]] } else { vec![vec![5], vec![7, 5, 500], vec![500, 7]] };
        let mut right = right;
        right.sort();
        assert_eq!(asked, right, "cached: {cached}");
        let names = ["shop 5", "shop 5", "null", "shop 7", "shop 5", "null", "null", "shop 7", "null"];
        assert_eq!(
            rows(&out.batches()),
            names.iter().enumerate().map(|(n, name)| format!("{n}|{name}")).collect::<Vec<_>>()
        );
    }
}

/// A table of `shop`, `least` and `gift`, of which a shop has many rows, few or none.
#[derive(Clone)]
struct Gifts(Vec<(i64, Option<i64>, i64)>);

#[async_trait]
impl Lookup for Gifts {
    fn name(&self) -> String {
        "gifts".into()
    }

    fn schema(&self) -> Result<SchemaRef, ConnectorError> {
        let columns = ["shop", "least", "gift"].map(|name| Field::new(name, DataType::Int64, name == "least"));
        Ok(Arc::new(Schema::new(columns.to_vec())))
    }

    async fn lookup(&self, keys: RecordBatch) -> Result<RecordBatch, ConnectorError> {
        let asked = keys.column(0).as_primitive::<Int64Type>().values();
        let found: Vec<_> = self.0.iter().filter(|(shop, ..)| asked.contains(shop)).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(found.iter().map(|row| Some(row.0)).collect::<Int64Array>()),
            Arc::new(found.iter().map(|row| row.1).collect::<Int64Array>()),
            Arc::new(found.iter().map(|row| Some(row.2)).collect::<Int64Array>()),
        ];
        Ok(RecordBatch::try_new(self.schema()?, columns)?)
    }
}

#[test]
fn with_a_condition_only_those_that_meet_it_are_partners() {
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let kind = if random.bool() { LookupKind::Inner } else { LookupKind::Left };
        let sold = random.i64(1..60);
        let keys: Vec<_> = (0..sold).map(|_| (random.u8(0..5) > 0).then(|| random.i64(0..6))).collect();
        let mut gifts: Vec<_> = (0..random.i64(0..40))
            .map(|gift| (random.i64(0..8), (random.u8(0..5) > 0).then(|| random.i64(0..80)), gift))
            .collect();
        // So many partners of a row that its pairs are in several batches, of which some keep none.
        let many = if seed % 10 == 0 { 20_000 } else { 0 };
        let least = |n: i64| if (9_000..9_010).contains(&n) { sold / 2 } else { 1_000 };
        gifts.extend((0..many).map(|n| (3, Some(least(n)), 1_000 + n)));
        let mut expected = Vec::new();
        for (n, key) in (0..).zip(&keys) {
            let partners = gifts.iter().filter(|(shop, least, _)| Some(*shop) == *key && least.is_some_and(|l| n > l));
            let before = expected.len();
            expected.extend(partners.map(|(_, least, gift)| format!("{n}|{}|{gift}", least.unwrap())));
            if expected.len() == before && kind == LookupKind::Left {
                expected.push(format!("{n}|null|null"));
            }
        }
        expected.sort_unstable();
        let (job, out) = (Job::new("gifts"), MemorySink::new());
        sales(&job, &keys)
            .lookup(Gifts(gifts), "shop", kind)
            .condition(col("n").gt(col("least")).and(left("shop").eq(right("shop"))))
            .ordered()
            .fail_on_failure()
            .select(["n", "least", "gift"].map(col))
            .sink(out.clone());
        let report = run(job).unwrap();
        assert_eq!(rows(&out.batches()), expected, "seed {seed}, {kind:?}");
        let order: Vec<i64> =
            out.batches().iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
        assert!(order.is_sorted(), "seed {seed}: {order:?}");
        assert!(report.metrics.named("lookup").all(|lookup| lookup.balances()));
    }
}

#[test]
fn many_partners_leave_batch_by_batch() {
    for kind in [LookupKind::Inner, LookupKind::Left] {
        let (job, out) = (Job::new("many"), MemorySink::new());
        let gifts: Vec<_> = (0..30_000).map(|gift| (gift % 2, None, gift)).collect();
        sales(&job, &[Some(0), Some(7), Some(1), Some(0), None])
            .lookup(Gifts(gifts), "shop", kind)
            .fail_on_failure()
            .select(["n", "gift"].map(col))
            .sink(out.clone());
        run(job).unwrap();
        let alone = if kind == LookupKind::Left { 2 } else { 0 };
        assert_eq!(out.rows(), 45_000 + alone);
        assert!(out.batches().iter().all(|batch| batch.num_rows() <= 8_192));
    }
}

#[test]
fn a_null_where_the_table_has_none_is_a_failed_lookup() {
    let (job, out, dead) = (Job::new("nulls"), MemorySink::new(), MemorySink::new());
    let (good, failed) = sales(&job, &[Some(5)]).lookup(Broken, "shop", LookupKind::Inner).with_failed();
    good.sink(out.clone());
    failed.select([col("error")]).sink(dead.clone());
    run(job).unwrap();
    assert_eq!(out.rows(), 0);
    assert_eq!(rows(&dead.batches()), [r#"broken: it gave a null in "name", which has none"#]);
}

/// A table that breaks its word.
struct Broken;

#[async_trait]
impl Lookup for Broken {
    fn name(&self) -> String {
        "broken".into()
    }

    fn schema(&self) -> Result<SchemaRef, ConnectorError> {
        Names::default().schema()
    }

    async fn lookup(&self, keys: RecordBatch) -> Result<RecordBatch, ConnectorError> {
        let names: ArrayRef = Arc::new(StringArray::from(vec![None::<&str>]));
        Ok(RecordBatch::try_from_iter_with_nullable([("name", names, true), ("shop", keys.column(0).clone(), false)])?)
    }
}

#[test]
fn a_batch_whose_lookup_fails_leaves_by_the_failed_rows() {
    let (job, out, dead) = (Job::new("thirteen"), MemorySink::new(), MemorySink::new());
    let keys: Vec<_> = (0..30).map(Some).collect();
    let retry = Retry::exponential(2, millis(1));
    let (named, failed) =
        sales(&job, &keys).lookup(Names::default(), "shop", LookupKind::Inner).retry(retry).with_failed();
    named.sink(out.clone());
    failed.select(["n", "error", "attempts"].map(col)).sink(dead.clone());
    let report = run(job).unwrap();
    assert_eq!(out.rows(), 27);
    assert_eq!(rows(&dead.batches()), ["12|thirteen|2", "13|thirteen|2", "14|thirteen|2"]);
    assert!(report.metrics.named("lookup").all(|lookup| lookup.failed == 3 && lookup.balances()));
}

#[test]
fn a_broken_new_file_is_told_while_the_job_runs() {
    on_two_threads(async {
        let directory = tempfile::tempdir().unwrap();
        let path = shops(directory.path(), "id,city\n1,Rome\n");
        let job = Job::new("broken");
        let out = MemorySink::new();
        let table = TableFile::csv::<Shop>(&path).refresh(millis(1));
        job.source(Sequence::endless().rate(1_000))
            .event_time("at", Watermarks::in_order())
            .lookup(table, [("value", "id")], LookupKind::Left)
            .fail_on_failure()
            .sink(out);
        let running = job.start().await.unwrap();
        let handle = running.handle();
        assert_eq!(handle.warnings(), Vec::<String>::new());
        shops(directory.path(), "id,city\noops,Rome\n");
        while handle.warnings().is_empty() {
            tokio::task::yield_now().await;
        }
        let warning = handle.warnings().remove(0);
        assert!(warning.starts_with("#2 lookup ") && warning.contains("serve on"), "{warning}");
        handle.stop();
        running.wait().await.unwrap();
    });
}
