//! Tests of the sequence, and through it of what all generators share: splits, positions, pace.

use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::{
    super::testing::{drain, int64, micros, open, read_all, read_rest},
    *,
};
use crate::{ConnectorError, Fetch};

async fn rows(reader: &mut dyn SourceReader) -> crate::Rows {
    match reader.fetch().await.unwrap() {
        Fetch::Rows(rows) => rows,
        other => panic!("rows expected, not {other:?}"),
    }
}

fn message<T>(result: Result<T, ConnectorError>) -> String {
    result.err().unwrap().to_string()
}

#[tokio::test]
async fn values_and_times() {
    let all = read_all(&Sequence::new(4).start(1_000).step(-10)).await;
    assert_eq!(int64(&all, "value"), [0, 1, 2, 3]);
    assert_eq!(micros(&all, "at"), [1_000, 990, 980, 970]);
    assert_eq!(*all.schema().field(1).data_type(), event_time());
}

#[tokio::test]
async fn an_empty_sequence_and_more_splits_than_rows() {
    let mut reader = open(&Sequence::new(0)).await;
    assert!(matches!(reader.fetch().await.unwrap(), Fetch::SplitEnd(_)));
    assert!(matches!(reader.fetch().await.unwrap(), Fetch::End));
    assert!(matches!(reader.fetch().await.unwrap(), Fetch::End));

    let few = Sequence::new(3).splits(5);
    let mut ends = 0;
    let mut values = Vec::new();
    let mut reader = open(&few).await;
    loop {
        match reader.fetch().await.unwrap() {
            Fetch::Rows(rows) => values.extend(int64(&rows.batch, "value")),
            Fetch::SplitEnd(_) => ends += 1,
            Fetch::End => break,
        }
    }
    assert_eq!((values, ends), (vec![0, 1, 2], 5));
}

#[tokio::test]
async fn a_reader_without_splits_ends_at_once() {
    let mut reader = Sequence::new(9).reader(Vec::new()).await.unwrap();
    assert!(matches!(reader.fetch().await.unwrap(), Fetch::End));
}

#[tokio::test]
async fn splits_advance_together() {
    let source = Sequence::new(10_000).splits(3).batch_rows(100);
    let fetched = drain(&mut *open(&source).await).await;
    let mut latest = 0;
    for rows in fetched {
        let values = int64(&rows.batch, "value");
        assert!(values[0] + 300 >= latest, "split {} lags: {} after {latest}", rows.split, values[0]);
        latest = latest.max(values[values.len() - 1]);
    }
}

#[tokio::test]
async fn an_endless_sequence_goes_on_at_the_far_end_of_event_time() {
    let source = Sequence::endless().step(i64::MAX).batch_rows(3);
    let mut reader = open(&source).await;
    assert_eq!(micros(&rows(&mut *reader).await.batch, "at"), [0, i64::MAX, i64::MAX]);
    let far = Position(1 << 57);
    let mut reader = source.reader(vec![(SplitId::new("0/1"), Some(far))]).await.unwrap();
    assert_eq!(int64(&rows(&mut *reader).await.batch, "value")[0], 1 << 57);
}

#[tokio::test]
async fn wrong_settings_say_what_to_do() {
    assert!(message(Sequence::new(1).splits(0).schema()).contains("splits(1)"));
    assert!(message(Sequence::new(1).rate(0).schema()).contains("rate(1)"));
    assert!(message(Sequence::new(1).batch_rows(0).schema()).contains("use 1 to"));
    assert!(message(Source::splits(&Sequence::new(1).splits(0)).await).contains("sequence"));

    let source = Sequence::new(10).splits(2);
    for name in ["0/3", "2/2", "x", "00/2", "+0/2"] {
        assert!(message(source.reader(vec![(SplitId::new(name), None)]).await).contains("no split"), "{name}");
    }
    let behind = source.reader(vec![(SplitId::new("0/2"), Some(Position(6)))]).await;
    assert!(message(behind).contains("which has 5 rows"));
}

#[tokio::test(start_paused = true)]
async fn a_slow_rate_delivers_row_by_row() {
    let start = Instant::now();
    let mut reader = open(&Sequence::endless().rate(2).splits(2)).await;
    for value in 0..6 {
        let rows = rows(&mut *reader).await;
        assert_eq!(int64(&rows.batch, "value"), [value]);
        let due = Duration::from_millis(500 * value as u64);
        assert!((due..due + Duration::from_millis(2)).contains(&start.elapsed()), "{value}: {:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_fast_rate_delivers_portions_of_ten_milliseconds() {
    let start = Instant::now();
    let mut reader = open(&Sequence::new(100_000).rate(50_000)).await;
    let fetched = drain(&mut *reader).await;
    assert!(fetched.len() <= 201, "{} batches", fetched.len());
    assert_eq!(fetched.iter().map(|rows| rows.batch.num_rows()).sum::<usize>(), 100_000);
    let elapsed = start.elapsed();
    assert!((Duration::from_millis(1_999)..Duration::from_millis(2_020)).contains(&elapsed), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_was_held_up_catches_up_in_full_batches() {
    let mut reader = open(&Sequence::endless().rate(1_000).batch_rows(300)).await;
    tokio::time::advance(Duration::from_secs(1)).await;
    let mut sizes = Vec::new();
    for _ in 0..4 {
        sizes.push(rows(&mut *reader).await.batch.num_rows());
    }
    assert_eq!(sizes, [300, 300, 300, 101]);
}

#[tokio::test(start_paused = true)]
async fn a_restart_does_not_burst() {
    let source = Sequence::endless().rate(100).splits(4);
    let start = Instant::now();
    let mut reader = source.reader(vec![(SplitId::new("2/4"), Some(Position(1_000_000)))]).await.unwrap();
    let mut total = 0;
    while start.elapsed() < Duration::from_secs(2) {
        total += rows(&mut *reader).await.batch.num_rows();
    }
    assert!((49..=52).contains(&total), "{total} rows of one split in four in two seconds, at 100 a second");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_fetch_loses_nothing() {
    let mut reader = open(&Sequence::new(50).rate(10)).await;
    let mut values = Vec::new();
    loop {
        match tokio::time::timeout(Duration::from_millis(30), reader.fetch()).await {
            Err(_) => {}
            Ok(Ok(Fetch::Rows(rows))) => values.extend(int64(&rows.batch, "value")),
            Ok(Ok(Fetch::SplitEnd(_))) => {}
            Ok(Ok(Fetch::End)) => break,
            Ok(Err(error)) => panic!("{error}"),
        }
    }
    assert_eq!(values, (0..50).collect::<Vec<_>>());
}

proptest! {
    #[test]
    fn splits_hold_every_value_once_and_resume_anywhere(
        count in 0_u64..200,
        splits in 1_usize..9,
        batch_rows in 1_usize..50,
        cut in 0_u64..200,
    ) {
        let source = Sequence::new(count).splits(splits).batch_rows(batch_rows);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut all = Vec::new();
            for (index, split) in Source::splits(&source).await.unwrap().iter().enumerate() {
                let values = int64(&read_rest(&source, split, None).await, "value");
                prop_assert!(values.iter().all(|value| *value as usize % splits == index));
                let cut = cut.min(values.len() as u64);
                let rest = int64(&read_rest(&source, split, Some(Position(cut))).await, "value");
                prop_assert_eq!(&rest, &values[cut as usize..]);
                all.extend(values);
            }
            all.sort_unstable();
            prop_assert_eq!(all, (0..count as i64).collect::<Vec<_>>());
            Ok(())
        })?;
    }
}

#[tokio::test(start_paused = true)]
async fn paused_splits_are_left_out_at_any_rate() {
    for source in [Sequence::new(40).splits(3).batch_rows(5), Sequence::new(40).splits(3).batch_rows(5).rate(10)] {
        let mut reader = open(&source).await;
        let splits = Source::splits(&source).await.unwrap();
        assert!(reader.pause(&splits[..2]));
        let mut values = Vec::new();
        loop {
            match reader.fetch().await.unwrap() {
                Fetch::Rows(rows) => values.extend(int64(&rows.batch, "value")),
                Fetch::SplitEnd(split) => break assert_eq!(split, splits[2]),
                Fetch::End => panic!("two splits are paused"),
            }
        }
        assert_eq!(values, (0..40).filter(|value| value % 3 == 2).collect::<Vec<_>>());
        assert!(tokio::time::timeout(Duration::from_secs(60), reader.fetch()).await.is_err(), "nothing else to read");
        assert!(reader.pause(&[]));
        assert_eq!(drain(&mut *reader).await.iter().map(|rows| rows.batch.num_rows()).sum::<usize>(), 27);
    }
}
