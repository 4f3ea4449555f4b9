//! What holds the book together: every chapter is in the summary and is tested, and every link leads somewhere.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::CHAPTERS;

const SUMMARY: &str = include_str!("src/SUMMARY.md");

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The text without blocks of code and without what stands between backticks.
fn prose(text: &str) -> String {
    let mut prose = String::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            let plain: Vec<&str> = line.split('`').step_by(2).collect();
            prose.extend([&plain.join("`"), "\n"]);
        }
    }
    prose
}

/// Where the links of a text lead.
fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.map(str::to_owned).collect()
}

/// The anchors of a text, as mdbook and GitHub make them of headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut in_block = false;
    let headings = text.lines().filter(|line| {
        in_block ^= line.trim_start().starts_with("```");
        !in_block && line.starts_with('#')
    });
    let anchor = |heading: &str| {
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        heading.trim_start_matches('#').trim().to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

/// Pages outside of the book, some of which lead into it, relative to the root.
const FRONT: &[&str] =
    &["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "examples/README.md", "benches/README.md"];

/// The links of a page, which is a path relative to `src`, that lead nowhere.
fn broken(page: &str) -> Vec<String> {
    let page = src().join(page);
    let text = fs::read_to_string(&page).unwrap();
    let leads = |link: &str| {
        let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
        let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
        match anchor {
            "" => target.exists(),
            anchor => fs::read_to_string(target).is_ok_and(|text| anchors(&text).contains(anchor)),
        }
    };
    let inside = links(&text).into_iter().filter(|link| !link.contains("://"));
    inside.filter(|link| !leads(link)).map(|link| format!("{}: {link}", page.display())).collect()
}

#[test]
fn every_chapter_is_in_the_summary_in_order_and_is_tested() {
    let named: Vec<String> = links(SUMMARY);
    assert_eq!(named, CHAPTERS, "src/SUMMARY.md has the first, lib.rs the second");
    let files = fs::read_dir(src()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let files: BTreeSet<String> = files.filter(|name| name.ends_with(".md") && name != "SUMMARY.md").collect();
    assert_eq!(files, named.into_iter().collect(), "the files of src are the first, the summary names the second");
}

#[test]
fn every_link_leads_somewhere() {
    let chapters = CHAPTERS.iter().map(|file| file.to_string());
    let front = FRONT.iter().map(|page| format!("../../{page}"));
    let broken: Vec<String> = chapters.chain(front).flat_map(|page| broken(&page)).collect();
    assert_eq!(broken, Vec::<String>::new());
}

#[test]
fn a_link_in_code_is_none_and_an_anchor_is_made_as_readers_make_it() {
    let text = "# Dead letters, and re-drive\n`[a](b)` [c](d.md#e)\n```text\n# not a heading\n[f](g)\n```\n[h](i)";
    assert_eq!(links(text), ["d.md#e", "i"]);
    assert_eq!(anchors(text), BTreeSet::from(["dead-letters-and-re-drive".to_owned()]));
}
