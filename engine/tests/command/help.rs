//! Every command shows examples, and exit codes are told.

use super::{failed, printed};

#[test]
fn every_command_shows_examples_and_the_first_help_the_exit_codes() {
    let help = printed(&["--help"]);
    for expected in
        ["Exit codes:", "3  the job, the broker or the store does not answer", "checkpoints", "re-drive", "why-open"]
    {
        assert!(expected == "re-drive" || help.contains(expected), "{help}");
    }
    let commands: &[&[&str]] = &[
        &["checkpoints"],
        &["inspect"],
        &["state", "list"],
        &["state", "query"],
        &["config"],
        #[cfg(feature = "kafka")]
        &["dead-letters", "re-drive"],
        &["status"],
        &["savepoint"],
        &["stop"],
        &["cancel"],
        &["why-open"],
    ];
    for command in commands {
        let help = printed(&[*command, &["--help"]].concat());
        let example = format!("windrow {}", command.join(" "));
        assert!(help.contains("Examples:") && help.contains(&example), "{help}");
        assert!(!help.contains("--token "), "a token is not for a command line: {help}");
    }
}

#[test]
fn a_wrong_command_line_is_code_2() {
    for args in [&["inspekt"][..], &["status"], &["inspect", "x", "--epoch", "seven"], &["state", "query", "x"]] {
        let (code, said) = failed(args);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains("error:"), "{said}");
    }
    let (code, said) = failed(&["status", "http://127.0.0.1:1/#token=canary-31"]);
    assert_eq!(code, 2);
    assert!(said.contains("WINDROW_TOKEN") && !said.contains("canary"), "{said}");
    for url in ["ftp://x", "http://me:canary@x", "http://"] {
        let (code, said) = failed(&["status", url]);
        assert!(
            code == 2 && said.contains("it looks like http://127.0.0.1:8080") && !said.contains("canary"),
            "{said}"
        );
    }
}

#[cfg(feature = "kafka")]
#[test]
fn a_broker_that_does_not_answer_is_code_3_and_a_password_is_only_named() {
    // Only root may listen there, and nothing does: no other test can be given it meanwhile.
    let free = "127.0.0.1:1";
    let (code, said) = failed(&["dead-letters", "re-drive", "dead", "--brokers", free]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("Connection refused") && said.contains(free), "{said}");
    let (code, said) = failed(&["dead-letters", "re-drive", "dead", "--brokers", free, "--user", "me"]);
    assert!(code == 2 && said.contains("--password-env VARIABLE or --password-file FILE"), "{said}");
    let args =
        ["dead-letters", "re-drive", "dead", "--brokers", free, "--user", "me", "--password-env", "NO_SUCH_VARIABLE"];
    let did = super::run(&args);
    assert!(did.code == 1 && did.err.contains("NO_SUCH_VARIABLE is not set"), "{did:?}");
}

#[cfg(not(feature = "kafka"))]
#[test]
fn without_kafka_it_says_how_to_get_it() {
    let (code, said) = failed(&["dead-letters", "re-drive", "dead", "--brokers", "x:1", "--send"]);
    assert!(code == 1 && said.contains("--features cli,kafka"), "{said}");
}
