//! Which value holds, what is refused and how, and that the book has every knob.

use std::{path::Path, time::Duration};

use super::{
    Chosen, Config, Knob,
    knobs::KNOBS,
    value::{Found, Value},
};
use crate::{Job, Restarts, checkpoint::Settings};

const FILE: &str = r#"
parallelism = 2
channel_bytes = 4096

[checkpoint]
url = "/var/lib/jobs"
every = "10s"

[job.hot-items]
parallelism = 8
checkpoint.every = "500ms"

[job.other]
restore.savepoint = "before"
"#;

fn config(file: &str, variables: &[(&str, &str)]) -> crate::Result<Config> {
    let variables = variables.iter().map(|(name, value)| (name.to_string(), value.into()));
    Config::new(Some((Path::new("windrow.toml"), file)), variables)
}

/// The mistakes of a configuration, one a line.
fn mistakes(file: &str, variables: &[(&str, &str)]) -> String {
    config(file, variables).expect_err("a mistake").to_string()
}

#[test]
fn the_environment_goes_before_the_job_before_the_file_before_the_code() {
    let code = || Chosen { parallelism: Some(3), memory_budget: Some(1 << 20), ..Chosen::default() };
    let said = config(FILE, &[("WINDROW_CHECKPOINT_EVERY", "1min"), ("WINDROW_SPILL_TO", "/tmp/x")]).unwrap();
    let hot = said.over("hot-items", code());
    assert_eq!((hot.parallelism, hot.memory_budget, hot.channel_bytes), (Some(8), Some(1 << 20), Some(4096)));
    assert_eq!((hot.checkpoint_every, hot.spill_to), (Some(Duration::from_secs(60)), Some("/tmp/x".into())));
    let plain = config(FILE, &[]).unwrap();
    assert_eq!(plain.over("hot-items", code()).checkpoint_every, Some(Duration::from_millis(500)));
    let other = plain.over("other", code());
    assert_eq!((other.parallelism, other.savepoint.as_deref()), (Some(2), Some("before")));
    assert_eq!(Config::default().over("other", code()), code());
    assert_eq!(plain.jobs().collect::<Vec<_>>(), ["hot-items", "other"]);

    // Nothing is as if it were not set.
    assert_eq!(config(FILE, &[("WINDROW_PARALLELISM", "")]).unwrap().over("x", code()).parallelism, Some(2));
}

#[test]
fn what_is_told_becomes_what_the_job_does() {
    let file = "memory_budget = \"1GiB\"\n[restarts]\nat_most = 9\nfirst_wait = \"2s\"\n[checkpoint]\nkeep = 7\nurl = \"u\"\nevery = \"1s\"\n\
                [restore]\nsavepoint = \"s\"\nrepeat_output = true\ndrop_state = true\n";
    let chosen = config(file, &[]).unwrap().over("x", Chosen::default());
    assert_eq!(chosen.memory_budget, Some(1 << 30));
    assert_eq!(chosen.restarts(), Restarts::at_most(9).waiting(Duration::from_secs(2)..=Duration::from_secs(60)));
    let settings = chosen.settings().unwrap().unwrap();
    let Settings { url, every, keep, restore, drop_state, .. } = settings;
    assert_eq!((url.as_str(), every, keep, drop_state), ("u", Duration::from_secs(1), 7, true));
    assert_eq!((restore.savepoint.as_deref(), restore.repeat_output), (Some("s"), true));
    assert_eq!(Chosen::default().restarts(), Restarts::default());
    assert!(Chosen::default().settings().unwrap().is_none());
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_what_was_probably_meant() {
    let said = mistakes("parallelism = 1\n\n[checkpoint]\nevry = \"1s\"\n", &[]);
    assert!(
        said.contains("windrow.toml:4: there is no setting \"checkpoint.evry\", did you mean \"checkpoint.every\"?"),
        "{said}"
    );
    let said = mistakes("[checkpont]\nevery = \"1s\"\n", &[]);
    assert!(said.contains("windrow.toml:1: there is no setting \"checkpont\", did you mean \"checkpoint\"?"), "{said}");
    let said = mistakes("x = 1\n[job.a]\npar = 2\n", &[]);
    assert!(said.contains("windrow.toml:1: there is no setting \"x\"; there are parallelism, channel_bytes"), "{said}");
    assert!(said.contains("windrow.toml:3: there is no setting \"par\""), "every mistake is told: {said}");
    let said = mistakes("job = 3\ncheckpoint = 4\n", &[]);
    assert!(said.contains("windrow.toml:1: job is a table of settings: write [job.NAME]"), "{said}");
    assert!(said.contains("windrow.toml:2: checkpoint is a table of settings: write [checkpoint]"), "{said}");
    let said = mistakes("[job]\na = 3\n", &[]);
    assert!(said.contains("windrow.toml:2: a is a table of settings: write [job.a]"), "{said}");
    let said = mistakes("", &[("WINDROW_PARALELISM", "4")]);
    assert!(said.contains("there is no variable WINDROW_PARALELISM, did you mean WINDROW_PARALLELISM?"), "{said}");
    // What others set is theirs: Kubernetes makes such names of a service that is called windrow.
    let others = ["SERVICE_HOST", "SERVICE_PORT", "PORT", "PORT_8080_TCP_ADDR", "KAFKA", "TOKEN", "CONFIG", "NO_SKIP"];
    let others = others.map(|name| (format!("WINDROW_{name}"), "10.0.0.1".into()));
    Config::new(None, others).unwrap();
    let said = mistakes("", &[("WINDROW_SERVE_TOKEN", "canary-55")]);
    assert!(said.contains("WINDROW_SERVE_TOKEN_ENV or WINDROW_SERVE_TOKEN_FILE") && !said.contains("canary"), "{said}");
}

/// A table that no job of this program has may be another program's.
#[test]
fn a_table_with_nearly_the_name_of_a_job_is_a_warning() {
    let file = "parallelism = 2\n\n[job.hot-itmes]\nparallelism = 8\n[job.fraud.checkpoint]\nkeep = 3\n";
    let said = config(file, &[]).unwrap();
    let warning = said.warning("hot-items").unwrap();
    assert!(
        warning.starts_with(
            "windrow.toml:3: the table for job \"hot-itmes\" does not count for this job, which is called \"hot-items\""
        ),
        "{warning}"
    );
    assert_eq!(said.shown("hot-items").warning, Some(warning.clone()));
    assert_eq!(said.shown("hot-items").jobs, ["fraud", "hot-itmes"]);
    assert!(said.warning("Fraud").unwrap().starts_with("windrow.toml:5: "), "names are compared as they are");
    for own_or_far in ["hot-itmes", "fraud", "payments", ""] {
        assert_eq!(said.warning(own_or_far), None, "{own_or_far}");
    }
    let both = config(&format!("{file}[job.hot-items]\nparallelism = 4\n"), &[]).unwrap();
    assert_eq!(both.warning("hot-items"), None, "it has its own, so the other one is another's");
    assert!(warning.ends_with("an empty table [job.hot-items] says so"), "{warning}");
    let silent = config(&format!("{file}[job.hot-items]\n"), &[]).unwrap();
    assert_eq!(silent.warning("hot-items"), None, "an empty table counts");

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let job = Job::new("hot-items").configured_by(said);
    job.source(windrow_connectors::Sequence::new(1)).sink(windrow_connectors::MemorySink::new());
    let report = runtime.block_on(job.run()).unwrap();
    assert_eq!(report.warnings, [warning]);
}

/// Jobs of one file have names that are near to each other on purpose.
#[test]
fn names_that_differ_on_purpose_are_no_slips() {
    let apart = [
        ("orders-eu", "orders-us"),
        ("orders_east", "orders_west"),
        ("orders.a", "orders.b"),
        ("orders-2024", "orders-2025"),
        ("orders1", "orders12"),
        ("orders", "orders-2"),
        ("orders-eu", "returns-eu"),
        ("orders-eu-main", "orders-us-main"),
        ("shard7-of-9", "shard8-of-9"),
        ("eu", "us"),
    ];
    for (job, other) in apart.into_iter().flat_map(|(one, other)| [(one, other), (other, one)]) {
        let said = config(&format!("[job.{other:?}]\nparallelism = 2\n"), &[]).unwrap();
        assert_eq!(said.warning(job), None);
    }
    let slips = [
        ("orders-eu", "order-eu"),
        ("orders-eu", "orders-EU"),
        ("orders.payments", "orders.paymets"),
        ("fraud-alerts", "fruad-alerts"),
        ("fraud", "fruad"),
        ("hotitems", "hot-items"),
    ];
    for (job, other) in slips.into_iter().flat_map(|(one, other)| [(one, other), (other, one)]) {
        let said = config(&format!("[job.{other:?}]\nparallelism = 2\n"), &[]).unwrap();
        assert!(said.warning(job).is_some(), "{job} {other}");
    }
    let said = config("[job.\"orders.paymets\"]\nparallelism = 2\n", &[]).unwrap();
    let warning = said.warning("orders.payments").unwrap();
    assert!(warning.ends_with("[job.\"orders.payments\"] says so"), "a dot needs quotes: {warning}");
}

#[test]
fn a_value_that_cannot_be_is_named_with_its_place_and_an_example() {
    let said = mistakes(
        "parallelism = 0\nchannel_bytes = \"2 melons\"\n[checkpoint]\nevery = 10\n",
        &[("WINDROW_RESTORE_DROP_STATE", "yes")],
    );
    for expected in [
        "windrow.toml:1: parallelism is 0, which is not a whole number from 1 to 256, such as 4",
        "windrow.toml:2: channel_bytes is \"2 melons\", which is not a size with its unit, such as \"8MiB\"",
        "windrow.toml:4: checkpoint.every is 10, which is not a time with its unit, such as \"10s\"",
        "WINDROW_RESTORE_DROP_STATE: restore.drop_state is \"yes\", which is not true or false",
    ] {
        assert!(said.contains(expected), "{said}");
    }
    let said = mistakes("parallelism = 2.5\nspill_to = [1]\n", &[("WINDROW_MEMORY_BUDGET", "-1")]);
    for expected in
        ["parallelism is a number with a point", "spill_to is a list", "WINDROW_MEMORY_BUDGET: memory_budget is \"-1\""]
    {
        assert!(said.contains(expected), "{said}");
    }
    let said = mistakes("a = \n", &[]);
    assert!(said.contains("windrow.toml:1: this is not TOML"), "{said}");
}

#[test]
fn half_of_what_checkpoints_need_is_a_mistake_of_the_job() {
    let half = config("checkpoint.url = \"/tmp/x\"", &[]).unwrap();
    let job = Job::new("half").configured_by(half);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let error = runtime.block_on(job.explain()).unwrap_err().to_string();
    assert!(error.contains("set checkpoint.every = \"10s\", or WINDROW_CHECKPOINT_EVERY=10s"), "{error}");
    assert!(!error.contains("say .checkpoint"), "one mistake, told once: {error}");
}

/// Whoever is deployed with a token of their own does not get that of the file as well, or none at all.
#[test]
fn a_higher_layer_says_where_the_token_is_whichever_way_a_lower_one_says_it() {
    let file = "serve.token_file = \"/all\"\n[job.own]\nserve.token_env = \"OWN\"\n";
    let tokens = |job, variables: &[(&str, &str)]| {
        let said = config(file, variables).unwrap();
        let chosen = said.over(job, Chosen::default());
        let shown = said.shown(job).to_string();
        assert_eq!(shown.lines().filter(|line| line.starts_with("serve.token")).count(), 1, "{shown}");
        (chosen.serve_token_file.map(|path| path.display().to_string()), chosen.serve_token_env)
    };
    assert_eq!(tokens("x", &[]), (Some("/all".into()), None));
    assert_eq!(tokens("own", &[]), (None, Some("OWN".into())));
    assert_eq!(tokens("x", &[("WINDROW_SERVE_TOKEN_ENV", "MINE")]), (None, Some("MINE".into())));
    assert_eq!(tokens("own", &[("WINDROW_SERVE_TOKEN_FILE", "/mine")]), (Some("/mine".into()), None));
    let both = "say one of them";
    let said = mistakes("[serve]\ntoken_file = \"a\"\ntoken_env = \"B\"\n", &[]);
    assert!(said.contains("windrow.toml:2 and windrow.toml:3: both") && said.contains(both), "{said}");
    assert!(mistakes("[job.x.serve]\ntoken_file = \"a\"\ntoken_env = \"B\"\n", &[]).contains(both));
    assert!(mistakes("", &[("WINDROW_SERVE_TOKEN_ENV", "B"), ("WINDROW_SERVE_TOKEN_FILE", "a")]).contains(both));
}

#[test]
fn a_token_in_the_place_of_the_name_of_its_variable_is_refused_and_not_shown() {
    for token in ["birdy-55", "5birdy", "birdy 5", "birdyä"] {
        let said = mistakes("", &[("WINDROW_SERVE_TOKEN_ENV", token)]);
        assert!(said.contains("WINDROW_SERVE_TOKEN_ENV: serve.token_env is not the name of a variable"), "{said}");
        assert!(!said.contains("birdy"), "{said}");
        let said = mistakes(&format!("serve.token_env = {token:?}"), &[]);
        assert!(said.contains("windrow.toml:1: serve.token_env is not") && !said.contains("birdy"), "{said}");
    }
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf_8_is_a_mistake_and_no_other_directory() {
    use std::os::unix::ffi::OsStringExt;
    let value = std::ffi::OsString::from_vec(b"/var/lib/\xff".to_vec());
    let said = Config::new(None, [("WINDROW_CHECKPOINT_URL".into(), value)]).expect_err("a mistake").to_string();
    assert!(said.contains("WINDROW_CHECKPOINT_URL: checkpoint.url is not UTF-8"), "{said}");
}

#[test]
fn a_first_wait_that_is_longer_than_the_longest_is_a_mistake_of_the_job() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let explained = |file| {
        let job = Job::new("waits").configured_by(config(file, &[]).unwrap());
        job.source(crate::prelude::Sequence::new(1)).sink(crate::prelude::MemorySink::new());
        runtime.block_on(job.explain())
    };
    let error = explained("restarts.first_wait = \"5m\"").unwrap_err().to_string();
    assert!(error.contains("5m, is longer than the longest, 1m: set restarts.longest_wait too"), "{error}");
    explained("restarts.first_wait = \"5m\"\nrestarts.longest_wait = \"5m\"").unwrap();
}

#[test]
fn what_is_shown_says_where_it_is_from_and_holds_no_password() {
    let variables = [("WINDROW_CHECKPOINT_URL", "s3://me:canary-55@bucket/path")];
    let said = config(FILE, &variables).unwrap();
    let shown = said.shown("hot-items").to_string();
    let line = |key: &str| {
        shown.lines().find(|line| line.contains(key)).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("parallelism"), "parallelism = 8 # windrow.toml:10");
    assert_eq!(line("checkpoint.every"), "checkpoint.every = \"500ms\" # windrow.toml:11");
    assert_eq!(line("channel_bytes"), "channel_bytes = \"4KiB\" # windrow.toml:3");
    assert_eq!(line("checkpoint.url"), "checkpoint.url = \"s3://…@bucket/path\" # WINDROW_CHECKPOINT_URL");
    assert_eq!(line("restarts.at_most"), "# restarts.at_most # default: 5");
    assert!(!shown.contains("canary"), "{shown}");
    let refused = mistakes("[serve]\ntoken = \"canary-55\"\n", &[]);
    assert!(refused.contains("did you mean \"serve.token_") && !refused.contains("canary"), "{refused}");
    let refused = mistakes("[checkpoint]\npassword = \"canary-55\"\n", &[]);
    assert!(
        refused.contains("\"checkpoint.password\" would hold a secret") && !refused.contains("canary"),
        "{refused}"
    );
}

#[test]
fn every_example_of_the_table_is_read_and_is_shown_as_it_was_written() {
    for Knob { key, kind, example, set, .. } in KNOBS {
        let found = match example.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
            Some(text) => Found::Text(text),
            None if *example == "true" => Found::Flag(true),
            None => Found::Number(example),
        };
        let value = kind.read(&found).unwrap_or_else(|| panic!("{key} = {example}"));
        let again: Value = match value.to_string().strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
            Some(text) => kind.read(&Found::Text(text)).unwrap(),
            None => value.clone(),
        };
        assert_eq!(again, value, "{key}: what is shown means the same");
        let mut chosen = Chosen::default();
        set(&mut chosen, &value);
        assert_ne!(chosen, Chosen::default(), "{key} turns something");
    }
}

/// The table of the book is made from the table of the code: on a failure, paste what is shown here.
#[test]
fn the_book_has_every_knob() {
    let row = |knob: &Knob| {
        let (key, variable, code) = (knob.key, knob.variable(), knob.code);
        let default = match knob.default {
            words if words.contains(' ') => words.to_owned(),
            value => format!("`{value}`"),
        };
        format!("| `{key}` | `{variable}` | `{code}` | {} | `{}` | {default} |\n", knob.meaning, knob.example)
    };
    let table: String = KNOBS.iter().map(row).collect();
    let chapter = include_str!("../../../docs/src/configuration.md");
    assert!(chapter.contains(&table), "docs/src/configuration.md has not this table:\n{table}");
}
