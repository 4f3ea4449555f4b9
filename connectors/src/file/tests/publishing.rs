//! A file is published exactly once, whatever happens between staging and committing it.

use std::{fs, os::unix::fs::symlink, path::Path, sync::Arc};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};

use super::{Place, incarnation, parquet_rows, says, staged};
use crate::{Epoch, File, Receipt, Sink, file::FileSink};

/// Rows of two countries, so that there are two directories.
fn batch(from: i64) -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + 4));
    let countries: ArrayRef = Arc::new(StringArray::from(vec!["DE", "FR", "DE", "FR"]));
    RecordBatch::try_from_iter([("n", numbers), ("country", countries)]).unwrap()
}

fn sink(place: &Place) -> FileSink {
    File::directory(place.path("out")).json().partition_by(["country"])
}

fn paths(place: &Place, receipt: &Receipt) -> (String, String) {
    let path = |field| place.path(&format!("out/{}", says(receipt, field)));
    (path("hidden"), path("published"))
}

/// Asserts that all of these are published, and nothing is hidden.
fn all_published(place: &Place, receipts: &[Receipt]) {
    let mut expected: Vec<String> = receipts.iter().map(|receipt| says(receipt, "published")).collect();
    expected.sort();
    assert_eq!(place.files("out"), expected);
}

async fn error_of(sink: &FileSink, receipts: &[Receipt]) -> String {
    sink.commit(receipts).await.unwrap_err().to_string()
}

#[tokio::test]
async fn names_and_receipts_say_whose_a_file_is() {
    let place = Place::new();
    let sink = sink(&place);
    assert_eq!(staged(&sink, 3, 1, 6, &[batch(0).slice(0, 0)]).await, [], "no rows, no receipts");
    assert_eq!(place.files("out"), Vec::<String>::new());

    let receipts = staged(&sink, 3, 1, 17, &[batch(0)]).await;
    assert_eq!(receipts.len(), 2);
    for (receipt, country) in receipts.iter().zip(["DE", "FR"]) {
        let (hidden, published) = (says(receipt, "hidden"), says(receipt, "published"));
        let nonce = format!("{:08x}", incarnation(3).nonce);
        assert!(hidden.starts_with(&format!("country={country}/.part-00c0ffee-000003-001-")), "{hidden}");
        assert!(hidden.ends_with(&format!("-{nonce}.tmp")), "{hidden}");
        let begin = format!("country={country}/part-00c0ffee-000003-0000000017-001-");
        assert!(published.starts_with(&begin) && published.ends_with(&format!("-{nonce}.jsonl")), "{published}");
        let fields: serde_json::Value = serde_json::from_str(&receipt.0).unwrap();
        let bytes = fs::read(place.path(&format!("out/{hidden}"))).unwrap();
        assert_eq!((fields["rows"].as_u64(), fields["bytes"].as_u64()), (Some(2), Some(bytes.len() as u64)));
        let checksum = twox_hash::xxhash3_128::Hasher::oneshot(&bytes);
        assert_eq!(fields["xxh3"], format!("{checksum:032x}"));
    }
    assert_eq!(place.files("out").len(), 2, "the writer is gone, what it staged is not");
    sink.commit(&receipts).await.unwrap();
    all_published(&place, &receipts);
}

/// Three receipts, and for each of them how far the commit had come: not begun, linked, linked and unlinked.
#[tokio::test]
async fn a_commit_goes_on_from_every_crash_point() {
    for crash in 0..27_usize {
        let place = Place::new();
        let mut receipts = staged(&sink(&place), 1, 0, 1, &[batch(0)]).await;
        receipts.extend(staged(&sink(&place), 1, 1, 1, &[batch(4).slice(0, 1)]).await);
        let mut contents = Vec::new();
        for (i, receipt) in receipts.iter().enumerate() {
            let (hidden, published) = paths(&place, receipt);
            contents.push(fs::read(&hidden).unwrap());
            let steps = crash / 3_usize.pow(i as u32) % 3;
            if steps > 0 {
                fs::hard_link(&hidden, &published).unwrap();
            }
            if steps > 1 {
                fs::remove_file(&hidden).unwrap();
            }
        }
        // A restart has a sink that has written none of it. And it may crash before it notes that it is done.
        for _ in 0..2 {
            sink(&place).commit(&receipts).await.unwrap();
            all_published(&place, &receipts);
        }
        for (receipt, content) in receipts.iter().zip(contents) {
            assert_eq!(fs::read(paths(&place, receipt).1).unwrap(), content, "crash point {crash}");
        }
    }
}

#[tokio::test]
async fn what_is_lost_is_an_error_and_the_others_are_published() {
    let place = Place::new();
    let sink = sink(&place);
    let mut receipts = staged(&sink, 1, 0, 1, &[batch(0)]).await;
    receipts.extend(staged(&sink, 1, 0, 2, &[batch(4)]).await);
    let (hidden, published) = paths(&place, &receipts[1]);
    fs::remove_file(&hidden).unwrap();
    let error = error_of(&sink, &receipts).await;
    assert!(error.contains("published file was removed or lost") && error.contains(&published), "{error}");
    assert!(error.contains(&hidden) && error.contains("2 rows"), "{error}");
    receipts.remove(1);
    all_published(&place, &receipts);

    // A published file that somebody moved away, then its directory too, then everything.
    let (_, published) = paths(&place, &receipts[0]);
    for gone in [published.clone(), place.path("out/country=DE"), place.path("out")] {
        let _ = fs::remove_file(&gone).or_else(|_| fs::remove_dir_all(&gone));
        let error = error_of(&sink, &receipts).await;
        assert!(error.contains("published file was removed or lost") && error.contains(&published), "{gone}: {error}");
    }
}

#[tokio::test]
async fn a_name_that_is_taken_is_an_error_and_is_not_overwritten() {
    for hidden_is_there in [true, false] {
        for what in ["longer", "as long", "a directory", "a symbolic link"] {
            let place = Place::new();
            let sink = sink(&place);
            let receipts = staged(&sink, 1, 0, 1, &[batch(0)]).await;
            let (hidden, published) = paths(&place, &receipts[0]);
            let length = fs::metadata(&hidden).unwrap().len() as usize;
            match what {
                "longer" => fs::write(&published, vec![b'x'; length + 1]).unwrap(),
                "as long" => fs::write(&published, vec![b'x'; length]).unwrap(),
                "a directory" => fs::create_dir(&published).unwrap(),
                _ => symlink(place.write("elsewhere", &fs::read(&hidden).unwrap()), &published).unwrap(),
            }
            if !hidden_is_there {
                fs::remove_file(&hidden).unwrap();
            }
            let error = error_of(&sink, &receipts).await;
            assert!(error.contains(&published) && error.contains("not overwritten"), "{what}: {error}");
            assert_eq!(Path::new(&hidden).exists(), hidden_is_there, "{what}: our rows are still there");
            let (hidden, other) = paths(&place, &receipts[1]);
            assert!(Path::new(&other).exists() && !Path::new(&hidden).exists(), "{what}: the other is published");
            if what.ends_with("long") {
                assert!(fs::read(&published).unwrap().iter().all(|byte| *byte == b'x'));
            }
        }
    }
}

#[tokio::test]
async fn a_staged_file_that_was_damaged_is_not_published() {
    for damage in ["cut", "grown", "changed", "replaced by a link"] {
        let place = Place::new();
        let receipts = staged(&sink(&place), 1, 0, 1, &[batch(0)]).await;
        let (hidden, published) = paths(&place, &receipts[0]);
        let mut bytes = fs::read(&hidden).unwrap();
        match damage {
            "cut" => bytes.truncate(bytes.len() - 1),
            "grown" => bytes.push(b'\n'),
            _ => bytes[3] ^= 1,
        }
        fs::write(&hidden, &bytes).unwrap();
        if damage.ends_with("link") {
            fs::remove_file(&hidden).unwrap();
            symlink(place.write("elsewhere", &bytes), &hidden).unwrap();
        }
        // After a restart. Within the process that wrote it, a file with the right length is taken at its word.
        let error = error_of(&sink(&place), &receipts).await;
        assert!(error.contains(&hidden) && error.contains("not published"), "{damage}: {error}");
        assert!(!Path::new(&published).exists() && Path::new(&paths(&place, &receipts[1]).1).exists(), "{damage}");
    }
}

#[tokio::test]
async fn a_receipt_names_nothing_but_parts_below_the_root() {
    let place = Place::new();
    let sink = sink(&place);
    let receipts = staged(&sink, 1, 0, 1, &[batch(0)]).await;
    let (hidden, published) = (says(&receipts[0], "hidden"), says(&receipts[0], "published"));
    let (hidden_name, name) = (hidden.rsplit_once('/').unwrap().1, published.rsplit_once('/').unwrap().1);
    place.write("outside/a.jsonl", b"precious");
    place.write("out/b.jsonl", b"precious");
    fs::copy(place.path(&format!("out/{hidden}")), place.path(&format!("outside/{hidden_name}"))).unwrap();

    let both = |directory: &str| (format!("{directory}{hidden_name}"), format!("{directory}{name}"));
    let mut evil = vec![
        both("../outside/"),
        both(&format!("{}/", place.path("outside"))),
        both("country=DE/../../outside/"),
        both("./country=DE/"),
        both("country=DE//"),
        both("..\\outside\\"),
        both("country=DE\\"),
        both("country=D\u{0}/"),
        both("/"),
        (hidden.clone(), name.to_owned()),
        (hidden.clone(), hidden.clone()),
        (published.clone(), hidden.clone()),
        (hidden.clone(), "country=DE/..".to_owned()),
        (hidden.clone(), String::new()),
        (String::new(), String::new()),
        ("b.jsonl".to_owned(), "c.jsonl".to_owned()),
        (hidden.clone(), published.replace("part-00c0ffee", "part-00c0ffef")),
        (hidden.clone(), published.replace(".jsonl", ".sh")),
        (hidden.clone(), published.replace(".jsonl", ".jsonl/x")),
    ];
    evil.push((hidden.replace("-000001-", "-+00001-"), published.clone()));
    let before = (place.files("out"), place.files("outside"));
    for (hidden, published) in evil {
        let mut fields: serde_json::Value = serde_json::from_str(&receipts[0].0).unwrap();
        fields["hidden"] = hidden.clone().into();
        fields["published"] = published.clone().into();
        let error = error_of(&sink, &[Receipt(fields.to_string())]).await;
        assert!(error.contains("a receipt of the sink to"), "{hidden} {published}: {error}");
        assert_eq!((place.files("out"), place.files("outside")), before, "{hidden} {published}");
    }
    for text in
        ["", "{}", "[]", "null", "{\"hidden\":1}", &"[".repeat(100_000), &receipts[0].0.replace('}', ",\"x\":1}")]
    {
        let error = error_of(&sink, &[Receipt(text.to_owned()), receipts[1].clone()]).await;
        assert!(error.contains("a receipt of the sink to"), "{error}");
    }
    assert!(Path::new(&paths(&place, &receipts[1]).1).exists(), "good receipts behind bad ones are committed");
}

#[tokio::test]
async fn no_symbolic_link_leads_out_of_the_root() {
    let place = Place::new();
    let sink = sink(&place);
    let receipts = staged(&sink, 1, 0, 1, &[batch(0)]).await;
    fs::rename(place.path("out/country=DE"), place.path("outside")).unwrap();
    symlink(place.path("outside"), place.path("out/country=DE")).unwrap();
    let before = place.files("outside");

    let error = error_of(&sink, &receipts).await;
    assert!(error.contains("country=DE") && error.contains("symbolic link"), "{error}");
    assert!(Path::new(&paths(&place, &receipts[1]).1).exists());
    let mut writer = sink.writer(&incarnation(2), 0, batch(0).schema()).await.unwrap();
    let error = writer.write(batch(0)).await.unwrap_err().to_string();
    assert!(error.contains("country=DE") && error.contains("symbolic link"), "{error}");
    sink.clean(&incarnation(9)).await.unwrap();
    assert_eq!(place.files("outside"), before);
}

#[tokio::test]
async fn the_root_may_be_a_link_and_the_directory_may_be_new() {
    let place = Place::new();
    fs::create_dir(place.path("real")).unwrap();
    symlink(place.path("real"), place.path("out")).unwrap();
    let receipts = staged(&sink(&place), 1, 0, 1, &[batch(0)]).await;
    sink(&place).commit(&receipts).await.unwrap();
    assert_eq!(place.files("real").len(), 2);
}

#[tokio::test]
async fn two_sinks_two_tasks_and_several_epochs_share_a_directory() {
    let place = Place::new();
    let (mut receipts, mut expected) = (Vec::new(), Vec::new());
    let sinks = [sink(&place), sink(&place), File::directory(place.path("out")).parquet()];
    let mut writers = Vec::new();
    for task in [0, 1] {
        for sink in &sinks {
            writers.push(sink.writer(&incarnation(1), task, batch(0).schema()).await.unwrap());
        }
    }
    for epoch in 1..4 {
        for (i, writer) in writers.iter_mut().enumerate() {
            let from = (epoch * 100 + i * 10) as i64;
            writer.write(batch(from)).await.unwrap();
            expected.extend(from..from + 4);
            receipts.extend(writer.stage(Epoch(epoch as u64)).await.unwrap());
        }
    }
    // Every sink is asked for all receipts here, which shows that they are the same to each.
    sinks[0].commit(&receipts).await.unwrap();
    all_published(&place, &receipts);
    let mut numbers: Vec<i64> = Vec::new();
    for name in place.files("out") {
        let path = place.path(&format!("out/{name}"));
        if name.ends_with(".parquet") {
            use arrow::{array::AsArray, datatypes::Int64Type};
            numbers.extend(
                parquet_rows(path).iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec()),
            );
        } else {
            let text = fs::read_to_string(path).unwrap();
            let rows = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            numbers.extend(rows.map(|row| row["n"].as_i64().unwrap()));
        }
    }
    numbers.sort_unstable();
    assert_eq!(numbers, expected);
}

#[tokio::test]
async fn a_commit_that_cannot_write_says_where_and_succeeds_later() {
    let place = Place::new();
    let sink = sink(&place);
    let receipts = staged(&sink, 1, 0, 1, &[batch(0)]).await;
    // A file in the place of the directory, because directories that cannot be written to are none for root.
    fs::rename(place.path("out/country=DE"), place.path("aside")).unwrap();
    place.write("out/country=DE", b"in the way");
    let error = error_of(&sink, &receipts).await;
    assert!(error.contains(&place.path("out/country=DE")) && error.contains("needs a directory"), "{error}");
    fs::remove_file(place.path("out/country=DE")).unwrap();
    fs::rename(place.path("aside"), place.path("out/country=DE")).unwrap();
    sink.commit(&receipts).await.unwrap();
    all_published(&place, &receipts);
}

/// A woken zombie and its successor, both at it: each finds everything published, whoever did it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_may_commit_the_same_receipts_at_once() {
    let place = Place::new();
    let mut writer = sink(&place).writer(&incarnation(1), 0, batch(0).schema()).await.unwrap();
    let mut receipts = Vec::new();
    for epoch in 1..60 {
        writer.write(batch(0)).await.unwrap();
        receipts.extend(writer.stage(Epoch(epoch)).await.unwrap());
    }
    let commits: Vec<_> = (0..4)
        .map(|_| {
            let (sink, receipts) = (sink(&place), receipts.clone());
            tokio::spawn(async move { sink.commit(&receipts).await })
        })
        .collect();
    for commit in commits {
        commit.await.unwrap().unwrap();
    }
    all_published(&place, &receipts);
}
