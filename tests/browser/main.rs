//! The page of a job in a real browser: what a person sees of it, does with it, and is told when something is wrong.
//!
//! Each test has a job and a browser of its own, waits for what it wants to see, and at the end looks at what the browser noted: no error in
//! the console, so none of its policy, and no request to another host. Screenshots of a test that failed are under
//! `target/browser`; `WINDROW_SCREENSHOTS=directory` keeps all of them.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod driver;
mod jobs;

use std::process::Command;

use tests::{TOO_LONG, skip};
use tokio::runtime::Runtime;
use windrow::{
    prelude::*,
    serve::{ExposeSecret, Serve},
    status::State,
};

use driver::Browser;
use jobs::{Sluggish, numbers, second, served, split_rows, stop, whole};

/// The keys of a keyboard, as WebDriver calls them.
const TAB: char = '\u{e004}';
const ENTER: char = '\u{e007}';
const ESCAPE: char = '\u{e00c}';
const RIGHT: char = '\u{e014}';
const LEFT: char = '\u{e012}';
const HOME: char = '\u{e011}';
/// What the browser complains of when a job that it looks at is over, and not before.
const OVER: &[&str] = &["net::ERR_CONNECTION_REFUSED", "net::ERR_CONNECTION_RESET"];

/// A runtime for a job; the browser is waited for by the thread of the test.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// The operator of the dataflow whose name begins so.
fn node(name: &str) -> String {
    format!("#graph .node[aria-label^='{name}']")
}

#[test]
fn the_dataflow_moves_and_a_slow_sink_is_named() {
    let Some(browser) = Browser::start("dataflow") else { return };
    let runtime = runtime();
    let sink = Sluggish::called("slow");
    let job = Job::new("orders").parallelism(2).channel_bytes(64 << 10).serve("127.0.0.1:0");
    job.source(Sequence::endless().splits(2).rate(20_000))
        .event_time("at", Watermarks::in_order())
        .filter_expr(col("value").gt_eq(lit(0)))
        .key_by("value")
        .deduplicate(secs(1))
        .drop_late()
        .sink(sink.clone());
    let (running, host, url) = served(&runtime, job);
    let handle = running.handle();
    let ended = runtime.spawn(running.wait());
    browser.open(&url);

    browser.reads("#state", "running");
    browser.reads("h1", "orders");
    assert_eq!(browser.script("return location.hash"), "", "the token does not stay in the address bar");
    let source = node("#1 source");
    browser.click(&source);
    browser.reads("#details h2", "#1 source");
    let read = || whole(&browser.reads("#details .fact", "Records read"));
    let first = browser.until("records are read", || Some(read()).filter(|read| *read > 0));
    browser.script(&format!("document.querySelector(\"{source}\").was = 'here'"));
    browser.until("more of them", || Some(read()).filter(|read| *read > first));
    browser.reads(&source, "rows/s");
    browser.reads(".facts .fact", "Reads");
    let same = browser.script(&format!("return document.querySelector(\"{source}\").was"));
    assert_eq!(same, "here", "a node is changed in place, and not made anew");
    assert_eq!(browser.texts("#graph .card .tasks"), ["chain, 2 tasks", "chain, 2 tasks", "2 tasks"]);
    browser.screenshot("fast");

    sink.takes(millis(500));
    browser.reads(".notice.slow", "sink slow is the bottleneck");
    browser.reads("#graph .node.bottleneck", "sink slow");
    browser.reads("#graph .label.blocked", "waits");
    browser.click("#graph .node.sink");
    for fact in ["Latency when written", "Time of a call"] {
        let said = browser.reads("#details .fact", fact);
        assert!(said.contains("p50 ") && said.contains("p99 ") && said.contains("max "), "{said}");
    }
    browser.reads(&source, "blocked");
    browser.screenshot("slow");
    browser.prefers("dark");
    let ground = "return getComputedStyle(document.body).backgroundColor";
    let dark = browser.script(ground);
    browser.screenshot("slow-dark");
    browser.prefers("light");
    assert_ne!(browser.script(ground), dark);
    browser.resize(400, 800);
    assert_eq!(browser.script("return document.documentElement.scrollWidth <= innerWidth"), true, "it fits a phone");
    browser.screenshot("slow-narrow");

    sink.takes(millis(0));
    browser.complains_only_of(&[]);
    stop(&runtime, &handle, ended);
    browser.reads("#gone", "does not answer");
    browser.finish(&[host], OVER);
}

#[test]
fn a_split_that_holds_time_back_is_explained_to_who_has_a_keyboard_only() {
    let Some(browser) = Browser::start("held-back") else { return };
    let runtime = runtime();
    let (input, source) = MemorySource::by_hand(split_rows(&[]).schema(), 3);
    let job = Job::new("held-back").parallelism(2).serve("127.0.0.1:0");
    job.source(source)
        .event_time("at", Watermarks::out_of_order(secs(1)))
        .key_by("n")
        .window(Tumbling::of(secs(10)))
        .aggregate([count()])
        .drop_late()
        .id("per-10s")
        .sink(MemorySink::new());
    let (running, host, url) = served(&runtime, job);
    let ended = runtime.spawn(running.wait());
    input.push(1, split_rows(&[second(3), second(4)]));
    for split in [0, 2] {
        input.push(split, split_rows(&[second(100)]));
    }
    browser.open(&url);
    browser.reads("#state", "running");
    let has_focus = |selector: &str| browser.script(&format!("return document.activeElement.matches(\"{selector}\")"));

    browser.until("the tab key comes to the dataflow", || {
        browser.press(TAB);
        (has_focus("#graph .node") == true).then_some(())
    });
    browser.press(HOME);
    assert_eq!(has_focus(&node("#1 source")), true);
    let outline = browser.script("return getComputedStyle(document.activeElement).outlineStyle");
    assert_eq!(outline, "solid", "one sees where the focus is");
    browser.press(RIGHT);
    browser.press(ENTER);
    browser.reads("#details h2", "window tumbling 10s");
    // Only after some seconds a split is called silent.
    let why = browser.reads("#details .why", "does not say .idle_after");
    assert!(why.contains("It waits for split 1 of #1 source"), "{why}");
    assert!(why.contains("so it stands at 1970-01-01T00:00:03Z"), "{why}");
    browser.screenshot("window");
    browser.press(LEFT);
    browser.until("back at the source", || (has_focus(&node("#1 source")) == true).then_some(()));
    browser.press(ENTER);
    browser.reads("#details tbody tr", "◀ holds back");
    let splits = browser.texts("#details > .table tbody tr");
    let held: Vec<&String> = splits.iter().filter(|split| split.contains("holds back")).collect();
    assert_eq!((splits.len(), held.len()), (3, 1), "{splits:?}");
    assert!(held[0].starts_with('1') && held[0].contains("1970-01-01 00:00:03.000"), "{held:?}");
    browser.screenshot("source");

    // It speaks again, and event time goes on.
    input.push(1, split_rows(&[second(90)]));
    browser.reads(&node("#1 source"), "1970-01-01 00:01:29");
    browser.complains_only_of(&[]);
    input.end_all();
    runtime.block_on(ended).unwrap().unwrap();
    browser.reads("#gone", "does not answer");
    browser.finish(&[host], OVER);
}

#[test]
fn a_job_is_saved_and_stopped_from_the_page_and_goes_on_from_there() {
    let Some(browser) = Browser::start("savepoints") else { return };
    let runtime = runtime();
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().to_str().unwrap();
    let (running, host, url) = served(&runtime, numbers(store));
    let ended = runtime.spawn(running.wait());
    // Without the fragment there is no token, and the page says so.
    let (page, fragment) = url.split_once('#').unwrap();
    browser.open(page);
    browser.reads("#do-token", "No token");
    browser.reads("footer a", "metrics");
    browser.click("#sql button[type=submit]");
    browser.reads("#sql [role=status]", "needs the token of the job");
    browser.script("scrollTo(0, 0)");
    browser.click("#do-savepoint");
    browser.reads("#ask .notice.warning", "This page has no token");
    browser.write("#ask input:not([type=password])", "before-upgrade");
    browser.write("#ask input[type=password]", "not-the-right-one");
    browser.click("#ask button[type=submit]");
    browser.reads("#ask .came.bad", "token");
    browser.screenshot("refused");
    browser.write("#ask input[type=password]", fragment.strip_prefix("token=").unwrap());
    browser.click("#ask button[type=submit]");
    browser.reads("#ask .came.good", "Savepoint before-upgrade is complete");
    browser.press(ENTER);
    browser.reads("#checkpoints tbody tr", "savepoint before-upgrade");
    browser.reads("#do-token", "Token…");
    browser.screenshot("saved");

    // Who closes the dialog while it is being taken is told on the page what came of it.
    browser.script(
        "const send = fetch;
         window.fetch = (path, options) => path !== 'api/savepoint' ? send(path, options)
           : new Promise((go) => { window.sendNow = () => go(send(path, options)); })",
    );
    browser.click("#do-savepoint");
    browser.write("#ask input", "in-between");
    browser.click("#ask button[type=submit]");
    browser.reads("#ask .came", "Taking it");
    browser.press(ESCAPE);
    browser.until("the dialog is closed", || browser.texts("#ask").is_empty().then_some(()));
    browser.script("sendNow()");
    browser.reads("#outcome.good", "Savepoint in-between is complete");

    browser.click(&node("#1 source"));
    let position = || Some(browser.texts("#details > .table tbody td:nth-child(9)").first()?.replace(',', ""));
    let before: u64 = browser.until("a position", || position()?.parse().ok());
    browser.click("#do-stop-savepoint");
    browser.write("#ask input", "the-end");
    // A token that was not the right one is an answer that a browser complains of, as SQL that is not there is below.
    browser.complains_only_of(&["status of 401"]);
    browser.click("#ask button[type=submit]");
    let said = browser.reads("#ask .came.good", "Savepoint the-end is complete");
    let epoch = whole(said.rsplit(' ').next().unwrap());
    assert!(runtime.block_on(ended).unwrap().unwrap().stopped);
    browser.reads("#gone", "It was ended from this page");
    assert_eq!(browser.script("return document.body.classList.contains('gone')"), true);
    browser.screenshot("gone");

    let (running, second_host, url) = served(&runtime, numbers(store).restore(Restore::savepoint("the-end")));
    let handle = running.handle();
    let ended = runtime.spawn(running.wait());
    browser.open(&url);
    browser.reads("#checkpoints p", &format!("went on from #{epoch}"));
    browser.click(&node("#1 source"));
    browser.until("it goes on behind where it was", || position()?.parse().ok().filter(|now: &u64| *now > before));
    browser.reads("#checkpoints tbody tr", "periodic");
    browser.complains_only_of(OVER);

    // SQL over the state: rows, or in words that this program was built without it.
    browser.click("#sql button[type=submit]");
    browser.until("an answer", || {
        let said = browser.texts("#sql [role=status]").concat();
        ["as of checkpoint", "This job cannot be asked in SQL"].iter().find(|words| said.contains(**words)).copied()
    });
    browser.click("#do-cancel");
    browser.reads("#ask", "Cancel the job?");
    browser.click("#ask button[type=button]");
    assert_eq!(handle.status().state, State::Running, "who goes back has changed nothing");
    browser.complains_only_of(&["status of 501"]);
    stop(&runtime, &handle, ended);
    browser.finish(&[host, second_host], OVER);
}

#[test]
fn what_the_job_says_stays_text() {
    let Some(browser) = Browser::start("text") else { return };
    let runtime = runtime();
    let evil = "<img src=x onerror=document.title='caught'>";
    let (input, source) = MemorySource::by_hand(split_rows(&[]).schema(), 1);
    let job = Job::new(evil).serve("127.0.0.1:0");
    job.source(source)
        .event_time("at", Watermarks::in_order())
        .window(Tumbling::of(secs(10)))
        .aggregate([count()])
        .drop_late()
        .sink(Sluggish::called(evil));
    let (running, host, url) = served(&runtime, job);
    let ended = runtime.spawn(running.wait());
    browser.open(&url);
    input.push(0, split_rows(&[(500, "later")]));
    browser.reads(&node("#1 source"), "00:08:20");
    input.push(0, split_rows(&[(1, evil)]));
    browser.reads("#details .samples", evil);
    browser.reads("h1", evil);
    browser.reads("#graph .name", "<img");
    assert_eq!(browser.script("return document.images.length"), 0);
    browser.screenshot("text");
    browser.complains_only_of(&[]);
    input.end_all();
    runtime.block_on(ended).unwrap().unwrap();
    browser.finish(&[host], OVER);
}

#[test]
fn a_job_with_a_token_shows_nothing_without_it() {
    let Some(browser) = Browser::start("token") else { return };
    let runtime = runtime();
    let job = Job::new("closed").serve(Serve::at("127.0.0.1:0").token(Secret::new("open-sesame")));
    job.source(Sequence::endless().rate(1_000)).sink(MemorySink::new());
    let (running, host, url) = served(&runtime, job);
    assert_eq!(running.served().unwrap().token().expose_secret(), "open-sesame");
    let handle = running.handle();
    let ended = runtime.spawn(running.wait());
    browser.open(url.split('#').next().unwrap());
    browser.reads("#ask", "This job answers only who has its token");
    assert_eq!(browser.texts("#main"), Vec::<String>::new());
    browser.write("#ask input", "open-sesame");
    browser.click("#ask button[type=submit]");
    browser.reads("#state", "running");
    browser.press(ENTER);
    browser.reads("h1", "closed");
    assert_eq!(browser.texts("#gone"), Vec::<String>::new());
    assert_eq!(browser.texts("footer a"), Vec::<String>::new(), "a link sends no token");
    browser.complains_only_of(&["status of 401"]);
    stop(&runtime, &handle, ended);
    browser.finish(&[host], OVER);
}

/// Runs one test of this file in a process of its own, without a browser: whether it passes, and what it says.
fn without_a_browser(no_skip: &str) -> (bool, String) {
    let mut inner = Command::new(std::env::current_exe().unwrap());
    inner.args(["--exact", "what_the_job_says_stays_text"]).env("PATH", "/nowhere").env("WINDROW_NO_SKIP", no_skip);
    let output = inner.output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn without_a_browser_tests_say_that_they_are_skipped() {
    let skipped =
        "skipped: no chromium, or no chromedriver to drive it (Debian: apt-get install chromium chromium-driver)";
    let (passes, said) = without_a_browser("");
    assert!(passes && said.contains(skipped), "{said}");
    let (passes, said) = without_a_browser("1");
    assert!(!passes && said.contains(skipped), "{said}");
}
