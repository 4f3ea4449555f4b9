//! A restart removes what earlier generations of its own job left hidden, and nothing else.

use std::{fs, os::unix::fs::symlink, sync::Arc};

use arrow::array::{ArrayRef, RecordBatch, StringArray};

use super::{Place, incarnation, staged};
use crate::{File, Incarnation, Sink, file::FileSink};

fn batch() -> RecordBatch {
    let countries: ArrayRef = Arc::new(StringArray::from(vec!["DE", "FR"]));
    RecordBatch::try_from_iter([("country", countries)]).unwrap()
}

fn sink(place: &Place) -> FileSink {
    File::directory(place.path("out")).csv().partition_by(["country"])
}

#[tokio::test]
async fn only_hidden_parts_of_earlier_generations_of_the_job_are_removed() {
    let place = Place::new();
    let flat = File::directory(place.path("out")).json();
    for generation in [1, 2, 3] {
        staged(&sink(&place), generation, 0, 1, &[batch()]).await;
        let published = staged(&flat, generation, 0, 1, &[batch()]).await;
        flat.commit(&published).await.unwrap();
        staged(&flat, generation, 0, 2, &[batch()]).await;
    }
    let other = Incarnation { job: "deadbeef".to_owned(), ..incarnation(1) };
    let mut writer = sink(&place).writer(&other, 0, batch().schema()).await.unwrap();
    writer.write(batch()).await.unwrap();
    let of_others = [
        ".part-00c0ffee-000001-000-000001-89abcdef.tmp.bak",
        ".part-00c0ffee-1-000-000001-89abcdef.tmp",
        ".part-00c0ffee-000001-000-89abcdef.tmp",
        ".part-00c0ffee-000001-000-000001-89ABCDEF.tmp",
        "part-00c0ffee-000001-000-000001-89abcdef.tmp",
        ".notes.tmp",
        "notes/.part-00c0ffee-000001-000-000001-89abcdef.tmp",
    ];
    for name in of_others {
        place.write(&format!("out/{name}"), b"not a part");
    }
    let before = place.files("out");

    sink(&place).clean(&incarnation(1)).await.unwrap();
    assert_eq!(place.files("out"), before, "there is no earlier generation");
    for _ in 0..2 {
        sink(&place).clean(&incarnation(3)).await.unwrap();
    }
    let is_mine = |path: &str| {
        let name = path.rsplit('/').next().unwrap();
        (name.starts_with(".part-00c0ffee-000001-000-") || name.starts_with(".part-00c0ffee-000002-000-"))
            && !of_others.contains(&path)
    };
    let expected: Vec<String> = before.iter().filter(|path| !is_mine(path)).cloned().collect();
    assert_eq!(before.len() - expected.len(), 6, "two generations, each with three hidden parts");
    assert_eq!(place.files("out"), expected);
}

#[tokio::test]
async fn links_are_not_followed_and_what_is_missing_is_clean() {
    let place = Place::new();
    sink(&place).clean(&incarnation(5)).await.unwrap();
    assert_eq!(place.names(), Vec::<String>::new(), "cleaning creates nothing");

    let part = ".part-00c0ffee-000001-000-000001-89abcdef.tmp";
    place.write(&format!("outside/{part}"), b"precious");
    place.write("out/country=DE/part-x.csv", b"published");
    symlink(place.path("outside"), place.path("out/country=FR")).unwrap();
    symlink(place.path(&format!("outside/{part}")), place.path(&format!("out/{part}"))).unwrap();
    let before = place.files("out");
    sink(&place).clean(&incarnation(5)).await.unwrap();
    assert_eq!((place.files("out"), place.files("outside").len()), (before, 1));
}

#[tokio::test]
async fn an_error_names_the_path_and_does_not_end_the_cleaning() {
    let place = Place::new();
    place.write("out", b"a file");
    let error = sink(&place).clean(&incarnation(5)).await.unwrap_err().to_string();
    assert!(error.starts_with("cannot read ") && error.contains(&place.path("out")), "{error}");
    let error = sink(&place).writer(&incarnation(5), 0, batch().schema()).await.err().unwrap().to_string();
    assert!(error.contains(&place.path("out")), "{error}");
}

#[tokio::test]
async fn a_zombie_whose_files_were_removed_publishes_nothing() {
    let place = Place::new();
    let old = sink(&place);
    let mut zombie = old.writer(&incarnation(1), 0, batch().schema()).await.unwrap();
    zombie.write(batch()).await.unwrap();
    sink(&place).clean(&incarnation(2)).await.unwrap();
    if let Ok(receipts) = zombie.stage(crate::Epoch(1)).await {
        assert!(old.commit(&receipts).await.is_err());
    }
    assert_eq!(place.files("out"), Vec::<String>::new());
    assert!(fs::exists(place.path("out/country=DE")).unwrap(), "directories stay");
}
