//! What is on disk: manifests survive the round trip, and nothing that is not one is taken for one.

use std::{collections::BTreeMap, sync::Arc};

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use fastrand::Rng;
use windrow_connectors::sink::{Epoch, Receipt};
use windrow_operators::state::{Reading, StateForm};

use super::super::{
    frame::{self, Unreadable},
    manifest::{Form, Kind, Manifest, OperatorState, Parent, SavedTask, SegmentFile, SinkState, SplitState},
    names::{self, Folder},
};

/// A manifest in which everything is said. The golden directory holds it too: it must not change.
pub(super) fn full() -> Manifest {
    let fields = vec![
        Field::new("__key_group", DataType::UInt8, false),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), false),
        Field::new("tags", DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))), true),
    ];
    let columns = Schema::new(fields);
    let segment = |path: String, bytes: &[u8]| SegmentFile {
        path,
        length: bytes.len() as u64,
        checksum: frame::checksum(bytes),
        rows: 3,
    };
    let segments = vec![
        segment("ckpt/00000000000000000001-1/s/op-window_3/000-0123456789abcdef".into(), b"first segment"),
        segment("ckpt/00000000000000000003-2/s/op-window_3/001-fedcba9876543210".into(), b"second"),
    ];
    let task = SavedTask {
        first_phase: true,
        key_groups: (0, 128),
        numbers: BTreeMap::from([("closed".into(), -5), ("watermark".into(), i64::MAX)]),
        segments,
    };
    let other = SavedTask { key_groups: (128, 256), ..SavedTask::default() };
    let form = Form { meaning: "tumbling 10s; count(*)".into(), columns, identity: 1, reading: Reading::default() };
    let split = SplitState {
        split: "bids-0".into(),
        position: Some(u64::MAX),
        ended: true,
        end: None,
        latest: Some(i64::MIN),
        idle: false,
        promised: None,
    };
    let fresh = SplitState {
        split: "bids-1 ü".into(),
        position: None,
        ended: false,
        idle: true,
        latest: None,
        ..split.clone()
    };
    Manifest {
        job: "golden".into(),
        job_id: "0badcafe".into(),
        epoch: Epoch(3),
        generation: 2,
        nonce: 77,
        parent: Some(Parent { epoch: Epoch(1), nonce: 66 }),
        origin: Some(Epoch(1)),
        kind: Kind::Savepoint("golden".into()),
        witness: None,
        created_ms: 1_700_000_000_000,
        operators: BTreeMap::from([("3 window".into(), OperatorState { form: Some(form), tasks: vec![task, other] })]),
        sources: BTreeMap::from([("0 source".into(), vec![split, fresh])]),
        sinks: BTreeMap::from([(
            "4 sink".into(),
            SinkState { name: "file out/".into(), receipts: vec![Receipt("part-1 {\"a\":1}".into())] },
        )]),
    }
}

#[test]
fn a_manifest_survives_the_round_trip() {
    let manifest = full();
    assert_eq!(Manifest::decode(&manifest.encode().unwrap()).unwrap(), manifest);
    let form = manifest.operators["3 window"].form.as_ref().unwrap();
    assert_eq!(&Form::from(&StateForm::from(form)), form);
}

#[test]
fn a_manifest_says_who_decides_it_unless_it_is_the_store() {
    assert!(!String::from_utf8_lossy(&full().encode().unwrap()).contains("witness"), "as before there were witnesses");
    let decided = Manifest { witness: Some("kafka localhost:9092, topic markers".into()), ..full() };
    assert_eq!(Manifest::decode(&decided.encode().unwrap()).unwrap(), decided);
}

#[test]
fn a_manifest_says_where_splits_end_if_that_was_fixed() {
    assert!(!String::from_utf8_lossy(&full().encode().unwrap()).contains("\"end\""), "as before ends were fixed");
    let mut bounded = full();
    bounded.sources.get_mut("0 source").unwrap()[0].end = Some(7);
    assert_eq!(Manifest::decode(&bounded.encode().unwrap()).unwrap(), bounded);
}

#[test]
fn a_manifest_names_files_of_its_own_job_only() {
    let evil = [
        "/etc/passwd",
        "../other/ckpt/00000000000000000001-1/s/op/000",
        "ckpt/../../x",
        "ckpt/00000000000000000001-1/s/op/../../../../x",
        "ckpt/00000000000000000001-1/s/op\\..\\x",
        "ckpt//s/op/x",
        "ckpt/00000000000000000001-1/s/op/./x",
        "ckpt/00000000000000000001-1/s/op/",
        "ckpt/00000000000000000001-1/MANIFEST",
        "ckpt/1-1/s/op/x",
        "ckpt/00000000000000000001-01/s/op/x",
        "ckpt/00000000000000000001-+1/s/op/x",
        "ckpt/00000000000000000001-1/s/op/%2e%2e",
        "ckpt/00000000000000000001-1/s/op/\0",
        "epoch/00000000000000000001",
        "LOCK",
        "",
        "ckpt/00000000000000000009-1/s/op/000-later",
        "ckpt/00000000000000000001-9/s/op/000-later",
        &format!("ckpt/00000000000000000001-1/s/op/{}", "x".repeat(1024)),
    ];
    for path in evil {
        let mut manifest = full();
        manifest.operators.get_mut("3 window").unwrap().tasks[0].segments[0].path = path.into();
        assert!(manifest.encode().is_err(), "{path:?} was written");
        // Somebody may have written it with another program.
        let error = Manifest::decode(&frame::encode(&manifest).unwrap()).unwrap_err();
        assert!(matches!(&error, Unreadable::Damaged(reason) if reason.contains("segment")), "{path:?}: {error:?}");
    }
}

#[test]
fn a_manifest_says_nothing_that_cannot_be() {
    type Change = fn(&mut Manifest);
    let wrong: [(&str, Change); 6] = [
        ("job id", |manifest| manifest.job_id = "0badcaf/".into()),
        ("parent", |manifest| manifest.parent = Some(Parent { epoch: Epoch(3), nonce: 0 })),
        ("savepoint", |manifest| manifest.kind = Kind::Savepoint("../x".into())),
        ("key groups", |manifest| manifest.operators.get_mut("3 window").unwrap().tasks[0].key_groups = (0, 257)),
        ("range", |manifest| manifest.operators.get_mut("3 window").unwrap().tasks[0].key_groups = (9, 8)),
        ("checksum", |manifest| {
            manifest.operators.get_mut("3 window").unwrap().tasks[0].segments[0].checksum = "no".into();
        }),
    ];
    for (what, change) in wrong {
        let mut manifest = full();
        change(&mut manifest);
        assert!(Manifest::decode(&frame::encode(&manifest).unwrap()).is_err(), "{what}");
    }
}

#[test]
fn what_is_not_a_manifest_is_not_read_as_one() {
    let whole = full().encode().unwrap();
    for length in 0..whole.len() {
        assert!(Manifest::decode(&whole[..length]).is_err(), "cut after {length} bytes");
    }
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(Manifest::decode(&bytes).is_err(), "bit {bit}");
    }
    let mut longer = whole.to_vec();
    longer.push(0);
    assert!(Manifest::decode(&longer).is_err());
    let mut newer = whole.to_vec();
    newer[8] = 2;
    assert_eq!(Manifest::decode(&newer), Err(Unreadable::Version(2)));
    let mut rng = Rng::with_seed(1);
    for _ in 0..10_000 {
        let bytes: Vec<u8> = (0..rng.usize(0..200)).map(|_| rng.u8(..)).collect();
        assert!(Manifest::decode(&bytes).is_err());
    }
}

/// A right checksum over a wrong body: the shape is checked, and depth does not overflow the stack.
#[test]
fn a_frame_around_nonsense_is_refused() {
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    for body in ["", "{}", "null", "[]", &deep, "{\"job\":\"a\"}", "\u{1}"] {
        let mut bytes = b"WINDROW\x01\x01\0\0\0".to_vec();
        bytes.extend((body.len() as u64).to_le_bytes());
        bytes.extend(body.as_bytes());
        bytes.extend(twox_hash::XxHash3_128::oneshot(body.as_bytes()).to_le_bytes());
        assert!(matches!(Manifest::decode(&bytes), Err(Unreadable::Damaged(_))));
    }
    // A mutated body under a right checksum never panics, and what is accepted keeps the rules.
    let whole = serde_json::to_vec(&full()).unwrap();
    let mut rng = Rng::with_seed(2);
    for _ in 0..10_000 {
        let mut body = whole.clone();
        for _ in 0..rng.usize(1..4) {
            let at = rng.usize(..body.len());
            body[at] = b"\"{}[]:,0919-./a"[rng.usize(..15)];
        }
        let mut bytes = b"WINDROW\x01\x01\0\0\0".to_vec();
        bytes.extend((body.len() as u64).to_le_bytes());
        bytes.extend(&body);
        bytes.extend(twox_hash::XxHash3_128::oneshot(&body).to_le_bytes());
        if let Ok(manifest) = Manifest::decode(&bytes) {
            assert!(manifest.segments().all(|segment| names::segment_folder(&segment.path).is_ok()));
        }
    }
}

#[test]
fn a_length_that_is_a_lie_allocates_nothing() {
    let mut bytes = full().encode().unwrap().to_vec();
    bytes[12..20].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(Manifest::decode(&bytes), Err(Unreadable::Damaged(_))));
}

#[test]
fn names_are_fixed() {
    let folder = Folder { epoch: Epoch(8), generation: 4 };
    assert_eq!(folder.to_string(), "ckpt/00000000000000000008-4");
    assert_eq!(Folder::parse("00000000000000000008-4"), Some(folder));
    assert_eq!(names::numbered("gen", u64::MAX), "gen/18446744073709551615");
    assert_eq!(names::number("18446744073709551615"), Some(u64::MAX));
    assert_eq!(names::number("18446744073709551616"), None);
    let path = names::segment(folder, "../ü/window 3", 12, 255);
    assert_eq!(path, "ckpt/00000000000000000008-4/s/op-..___window_3/012-00000000000000ff");
    assert_eq!(names::segment_folder(&path), Ok(folder));
    let long = names::segment(folder, &"x".repeat(5_000), usize::MAX, u64::MAX);
    assert_eq!(names::segment_folder(&long), Ok(folder));
}
