//! What the command sees of checkpoints, without a job.

use serde_json::Value;

use super::{failed, printed, run, stopped_job};

#[test]
fn checkpoints_are_listed_and_looked_into_and_their_state_is_shown() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().to_str().unwrap();
    stopped_job(store, "numbers");

    let listed = printed(&["checkpoints", store]);
    let header: Vec<&str> = listed.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header, ["JOB", "CHECKPOINT", "AGE", "STATE", "SAVEPOINTS"]);
    assert!(listed.lines().any(|line| line.starts_with("numbers") && line.ends_with("before-upgrade")), "{listed}");
    let job = format!("{store}/numbers");
    assert_eq!(printed(&["checkpoints", &job]).lines().count(), listed.lines().count(), "the folder of a job will do");
    let json: Value = serde_json::from_str(&printed(&["checkpoints", store, "--json"])).unwrap();
    let newest = json[0]["checkpoints"].as_array().unwrap().last().unwrap();
    assert_eq!(newest["savepoints"][0], "before-upgrade");
    let epoch = newest["epoch"].to_string();

    // One job only: its name can be left out.
    for place in [store, &job] {
        let inside = printed(&["inspect", place]);
        assert!(
            inside.contains(&format!("checkpoint {epoch} of job \"numbers\", savepoint before-upgrade, taken")),
            "{inside}"
        );
        assert!(inside.contains("window_1") && inside.contains("tumbling") && inside.contains("numbers"), "{inside}");
        assert!(inside.contains("POSITION") && inside.lines().any(|line| line.starts_with("source_1")), "{inside}");
    }
    let inside: Value =
        serde_json::from_str(&printed(&["inspect", &job, "--savepoint", "before-upgrade", "--json"])).unwrap();
    assert_eq!(inside["epoch"].to_string(), epoch);
    assert!(inside["sources"][0]["splits"][0]["position"].as_u64().unwrap() >= 10, "{inside}");
    assert_eq!(inside["operators"][0]["id"], "window_1");

    let tables = printed(&["state", "list", &job, "--epoch", &epoch]);
    assert!(tables.lines().any(|line| line.starts_with("window_1  ") && line.contains("numbers")), "{tables}");
    let tables: Value = serde_json::from_str(&printed(&["state", "list", store, "--json"])).unwrap();
    assert_eq!(tables["tables"].as_array().unwrap().len(), 2, "{tables}");
}

#[test]
fn what_is_not_there_is_told_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().to_str().unwrap();
    let (code, said) = failed(&["checkpoints", store]);
    assert!(code == 1 && said.contains("there are no checkpoints below"), "{said}");
    let (code, said) = failed(&["inspect", "/no/such/directory/numbers"]);
    assert!(code == 1 && said.contains("there is no directory /no/such/directory/numbers"), "{said}");
    let (code, said) = failed(&["checkpoints", "s3://me:canary-77@bucket/x"]);
    assert!(code == 1 && said.contains("give keys by the environment") && !said.contains("canary"), "{said}");

    stopped_job(store, "one");
    let (code, said) = failed(&["inspect", store, "--epoch", "4000"]);
    assert!(code == 1 && said.contains("checkpoint 4000 does not exist below"), "{said}");
    let (code, said) = failed(&["state", "list", store, "--savepoint", "other"]);
    assert!(code == 1 && said.contains("savepoint \"other\" does not exist below"), "{said}");
    stopped_job(store, "two");
    let (code, said) = failed(&["inspect", store]);
    assert!(
        code == 2 && said.contains("has several jobs, say which") && said.contains(&format!("{store}/two")),
        "{said}"
    );
    assert!(!directory.path().join("three").exists() && run(&["inspect", &format!("{store}/three")]).code == 1);
    assert!(!directory.path().join("three").exists(), "who looks makes nothing");
}

#[cfg(feature = "sql")]
#[test]
fn state_is_asked_in_sql_and_printed_in_three_ways() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().to_str().unwrap();
    stopped_job(store, "numbers");
    let sql = "select odd, numbers > 0 as some from window_1 order by odd";
    let table = printed(&["state", "query", store, sql]);
    assert!(table.contains("| odd | some |") && table.contains("| 1   | true |"), "{table}");
    assert_eq!(printed(&["state", "query", store, sql, "--format", "csv"]), "odd,some\n0,true\n1,true\n");
    let json: Value = serde_json::from_str(&printed(&["state", "query", store, sql, "--json"])).unwrap();
    assert_eq!(json, serde_json::json!([{"odd": 0, "some": true}, {"odd": 1, "some": true}]));
    let none = ["state", "query", store, "select odd from window_1 where odd > 5"];
    assert_eq!(printed(&[&none[..], &["--json"]].concat()), "[]\n");
    assert_eq!(printed(&[&none[..], &["--format", "csv"]].concat()), "odd\n");

    let (code, said) = failed(&["state", "query", store, "select nmbers from window_1"]);
    assert!(code == 1 && said.contains("nmbers") && said.contains("the tables are: source_1, window_1"), "{said}");
    let made = directory.path().join("made.csv");
    let copy = format!("copy window_1 to '{}'", made.display());
    for writes in [copy.as_str(), "create table x as select 1", "set datafusion.execution.batch_size = 1"] {
        let (code, said) = failed(&["state", "query", store, writes]);
        assert!(code == 1 && said.contains("not supported"), "{said}");
    }
    assert!(!made.exists(), "to ask is not to write");
}

#[cfg(not(feature = "sql"))]
#[test]
fn without_sql_it_says_how_to_get_it() {
    let (code, said) = failed(&["state", "query", ".", "select 1"]);
    assert!(code == 1 && said.contains("cargo install windrow --features cli,sql"), "{said}");
}

#[test]
fn a_pipe_that_closes_early_is_no_failure() {
    let directory = tempfile::tempdir().unwrap();
    stopped_job(directory.path().to_str().unwrap(), "numbers");
    let mut command = super::windrow(&["checkpoints", directory.path().to_str().unwrap()]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended =
        command.stdout(writer).stderr(std::process::Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert_eq!((ended.status.code(), ended.stderr.len()), (Some(0), 0));
}
