//! What is no Parquet file, or not any more.

use std::fs;

use ::parquet::file::reader::{FileReader, SerializedFileReader};

use super::super::{Place, error_of, read_all};
use super::{Bid, bids, numbers, write};
use crate::{File, Source};

#[tokio::test]
async fn what_is_no_parquet_file_is_named() {
    let place = Place::new();
    let whole = fs::read(write(&place, "whole.parquet", &bids(100), 30)).unwrap();
    for (name, bytes) in [
        ("empty.parquet", &b""[..]),
        ("text.parquet", b"{\"price\": 1}\n{\"price\": 2}\n"),
        ("cut.parquet", &whole[..whole.len() / 2]),
        ("end.parquet", &whole[whole.len() - 100..]),
    ] {
        let path = place.path(name);
        fs::write(&path, bytes).unwrap();
        let source = File::pattern(&path).parquet::<Bid>();
        let error = error_of(&source).await;
        assert!(error.starts_with(&format!("{path}: it cannot be read as Parquet: ")), "{error}");
        assert_eq!(source.check().unwrap_err().to_string(), error);
    }
    fs::create_dir(place.path("dir.parquet")).unwrap();
    assert!(error_of(&File::pattern(place.path("dir.parquet")).parquet::<Bid>()).await.contains("is a directory"));
}

/// Bytes that are not what they were give an error that names the file, or as many rows, and never a panic; an error stays one.
#[tokio::test]
async fn damage_anywhere_is_an_error_or_other_values_and_never_fewer_rows() {
    let place = Place::new();
    let whole = fs::read(write(&place, "whole.parquet", &bids(60), 30)).unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    let path = place.path("damaged.parquet");
    let (mut errors, mut rows) = (0, 0);
    for at in 4..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] = if random.bool() { random.u8(..) } else { damaged[at] ^ (1 << random.u8(..8)) };
        fs::write(&path, damaged).unwrap();
        let source = File::pattern(&path).parquet::<Bid>();
        let (delivered, end) = read_all(&source).await;
        rows += delivered.rows();
        match end {
            Ok(()) => assert_eq!(delivered.rows() + delivered.rejected.len(), 60, "byte {at}"),
            Err(error) => {
                assert!(error.to_string().starts_with(&path), "{error}");
                errors += 1;
            }
        }
    }
    assert!(errors > 100 && rows > 1_000, "{errors} {rows}");
}

#[tokio::test]
async fn rows_before_damage_come_before_its_error() {
    let place = Place::new();
    let path = write(&place, "a.parquet", &numbers(&(0..90).map(Some).collect::<Vec<_>>()), 30);
    let mut bytes = fs::read(&path).unwrap();
    let metadata = SerializedFileReader::new(fs::File::open(&path).unwrap()).unwrap();
    let start = metadata.metadata().row_group(1).column(0).byte_range().0 as usize;
    bytes[start..start + 20].fill(0xff);
    fs::write(&path, bytes).unwrap();
    for batch_rows in [7, 8192] {
        let source = File::pattern(&path).batch_rows(batch_rows).infer_parquet().unwrap();
        let (delivered, end) = read_all(&source).await;
        assert_eq!(delivered.rows(), 30);
        let error = end.unwrap_err().to_string();
        assert!(error.starts_with(&format!("{path}: it cannot be read as Parquet: ")), "{error}");
        assert!(error.ends_with("(from row 30 on, counted from 0)"), "{error}");
    }
}
