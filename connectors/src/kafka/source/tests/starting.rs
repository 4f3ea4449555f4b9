//! Where reading begins: as numbers, at once, or not at all.

use super::{fake::Written, *};
use crate::kafka::Start;

fn with(start: Start) -> Plan {
    plan(&input().from(start).group("g").json_with(numbers()))
}

/// Two partitions, `a/0` with offsets 10 to 19 and `a/1` empty behind 5.
fn world() -> World {
    let world = World::new(&[2]);
    world.log(at(0, 0), |log| {
        for offset in 0..20 {
            let payload = Some(format!(r#"{{"v": {offset}}}"#).into_bytes());
            log.append(Written { payload, millis: Some(1_000 + offset), ..Written::default() });
        }
        log.remove_before(10);
    });
    world.log(at(0, 1), |log| {
        log.skip(5);
        log.remove_before(5);
    });
    world
}

async fn positions(plan: &Plan, world: &World, given: Option<u64>) -> Result<Vec<u64>> {
    let reader = open(plan, world.feed(1, false), &[(at(0, 0), given), (at(0, 1), None)]).await?;
    Ok(reader.positions().into_iter().map(|(_, position)| position.0).collect())
}

#[tokio::test]
async fn every_start_is_a_number_before_the_first_record() {
    let world = world();
    for (start, expected) in [
        (Start::Earliest, [10, 5]),
        (Start::Latest, [20, 5]),
        (Start::Millis(0), [10, 5]),
        (Start::Millis(1_015), [15, 5]),
        (Start::Millis(9_999), [20, 5]),
        (Start::Offsets([(("a".into(), 1), 5), (("a".into(), 0), 12)].into()), [12, 5]),
    ] {
        assert_eq!(positions(&with(start.clone()), &world, None).await.unwrap(), expected, "{start:?}");
        // What a checkpoint says goes before what the user says.
        assert_eq!(positions(&with(start), &world, Some(17)).await.unwrap(), [17, 5]);
    }
}

#[tokio::test]
async fn from_latest_means_the_end_at_the_start_and_not_at_the_first_record() {
    let world = world();
    let mut reader = open(&with(Start::Latest), world.feed(1, false), &[(at(0, 0), None)]).await.unwrap();
    world.log(at(0, 0), |log| log.append_number());
    assert_eq!(values(&rows(&mut reader).await), [20]);
}

#[tokio::test]
async fn what_is_written_between_the_questions_is_read() {
    let world = world();
    let young = Written { payload: Some(br#"{"v": 77}"#.to_vec()), millis: Some(9_999), ..Written::default() };
    world.lock().behind_answer = Some((at(0, 0), young));
    let mut reader = open(&with(Start::Millis(5_000)), world.feed(1, false), &[(at(0, 0), None)]).await.unwrap();
    assert_eq!(values(&rows(&mut reader).await), [77]);
}

#[tokio::test]
async fn a_group_is_followed_only_as_far_as_it_has_committed() {
    let world = world();
    let group = with(Start::Group);
    let nothing = positions(&group, &world, None).await.unwrap_err();
    assert!(matches!(nothing, ConnectorError::Config(_)), "{nothing:?}");
    assert!(nothing.to_string().contains("the group g has committed nothing for a/0"), "{nothing}");
    world.lock().committed.insert(at(0, 0), 13);
    // The empty partition has nothing that could be lost or read twice.
    assert_eq!(positions(&group, &world, None).await.unwrap(), [13, 5]);
}

#[tokio::test]
async fn a_partition_without_an_offset_is_named() {
    let error = positions(&with(Start::Offsets([(("a".into(), 0), 12)].into())), &world(), None).await.unwrap_err();
    assert!(error.to_string().contains("no offset for a/1"), "{error}");
}

#[tokio::test]
async fn a_position_that_the_log_does_not_have_is_never_skipped() {
    let world = world();
    let plan = with(Start::Latest);
    for (given, said) in [
        (3, "7 records of a/0 were removed before they were read, by retention or by hand: the offsets 3 to 9"),
        (9, "1 records of a/0"),
        (21, "the next offset to read is 21, and a/0 ends at 20: the topic was deleted and made again"),
    ] {
        let error = positions(&plan, &world, Some(given)).await.unwrap_err();
        assert!(matches!(error, ConnectorError::Data { .. }), "{error:?}");
        assert!(error.to_string().contains(said), "{error}");
    }
    // The end is a position: that of the record to come.
    assert_eq!(positions(&plan, &world, Some(20)).await.unwrap(), [20, 5]);
    // What was read without regard to an open transaction can be ahead of what is decided.
    world.lock().open.insert(at(0, 0), 30);
    assert_eq!(positions(&plan, &world, Some(25)).await.unwrap(), [25, 5]);
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let world = world();
    let gone =
        open(&with(Start::Earliest), world.feed(1, false), &[(at(0, 2), Some(4))]).await.map(|_| ()).unwrap_err();
    assert!(gone.to_string().contains("a/2, offset 4: the partition is not there any more"), "{gone}");
    world.lock().topics[0] = None;
    let missing = positions(&with(Start::Earliest), &world, None).await.unwrap_err();
    assert!(matches!(missing, ConnectorError::Config(_)), "{missing:?}");
    assert!(missing.to_string().contains("there is no topic a"), "{missing}");
}

#[test]
fn a_split_of_another_source_is_named() {
    let topics = ["a".to_string(), "b.c".to_string()];
    assert_eq!(Partition::of(&split("b.c/12"), &topics).unwrap(), at(1, 12));
    assert_eq!(at(1, 12).split(&topics), split("b.c/12"));
    for other in ["x/1", "a", "a/", "a/x", ""] {
        let error = Partition::of(&split(other), &topics).unwrap_err().to_string();
        assert!(error.contains("belongs to another source"), "{error}");
    }
}
