//! How the state of former tasks is dealt to the tasks of now, when they stood at different times.
//!
//! ```text
//!   former   0..128, stood at 40 │ 128..256, stood at 20
//!   now      0..64 │ 64..128     │ 128..192 │ 192..256      none hears of a time that is of none of its keys
//! ```

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, DictionaryArray, Int64Array, RecordBatch, UInt8Array},
    compute::cast,
    datatypes::{DataType, Int32Type, Int64Type, Schema, UInt8Type},
};
use arrow_ipc::writer::FileWriter;
use windrow_operators::{
    spill::read_all,
    state::{KEY_GROUP, Reading, StateForm},
};

use super::{
    super::{
        archive::encode,
        fetched::Aside,
        layout::{ChainLayout, Layout, OperatorLayout},
        manifest::Form,
        restore,
    },
    served::{Gives, Served},
    *,
};
use crate::{
    metrics::Counters,
    runtime::{
        report::TaskId,
        spill::{Directory, Shelf},
    },
};

/// A row for each of these key groups, whose value is the group.
fn segment(groups: std::ops::Range<u8>) -> RecordBatch {
    let values = Int64Array::from_iter_values(groups.clone().map(i64::from));
    let groups: ArrayRef = Arc::new(UInt8Array::from_iter_values(groups));
    RecordBatch::try_from_iter([(KEY_GROUP, groups), ("value", Arc::new(values) as ArrayRef)]).unwrap()
}

fn form(columns: Arc<Schema>) -> StateForm {
    StateForm { columns, identity: 1, meaning: "values".into(), reading: Reading::default() }
}

fn layout(tasks: usize, first_phase: bool, spills: bool) -> Layout {
    let saved = Some(("window_1".into(), form(segment(0..1).schema())));
    let operators = vec![OperatorLayout { name: "#2 window".into(), saved, first_phase, spills }];
    Layout { chains: vec![ChainLayout { tasks, name: "#2 window".into(), source: None, operators, sink: None }] }
}

/// Of each former task that the operator of a task hears of: how far it had come, and which values it left.
async fn dealt(store: &CheckpointStore, manifest: &Manifest, tasks: usize, first: bool) -> Vec<Vec<(i64, Vec<i64>)>> {
    let here = dealt_by(store, manifest, tasks, first, None).await;
    let all: u64 = manifest.segments().map(|file| file.length).sum();
    for (spills, whole) in [(true, 0), (true, all - 1), (true, all), (false, 0)] {
        let below = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(Directory::below(Some(below.path())), Counters::new("restore".into(), 1));
        let aside = Aside { room: &shelf, whole };
        let with = dealt_by(store, manifest, tasks, first, Some((aside, spills))).await;
        assert_eq!(with, here, "whole are {whole} of {all}, to an operator that spills: {spills}");
        // Tasks of a first phase get no rows.
        let used = std::fs::read_dir(below.path()).unwrap().next().is_some();
        assert_eq!(used, spills && whole < all && !first, "what needs no place on disk asks for none");
    }
    here
}

async fn dealt_by(
    store: &CheckpointStore,
    manifest: &Manifest,
    tasks: usize,
    first: bool,
    aside: Option<(Aside<'_>, bool)>,
) -> Vec<Vec<(i64, Vec<i64>)>> {
    let spills = aside.is_some_and(|(_, spills)| spills);
    let layout = layout(tasks, first, spills);
    let aside = aside.map(|(aside, _)| aside);
    let mut restored = restore::restore(store, manifest, &layout, &BTreeMap::new(), aside).await.unwrap();
    let all: u64 = manifest.segments().map(|file| file.length).sum();
    let on_disk = spills && aside.is_some_and(|aside| all > aside.whole);
    let parts = |task: usize| {
        let mut state = restored.operator(&layout, TaskId { chain: 0, task }, 0, spills).unwrap();
        for part in &mut state.parts {
            // What is small stays in memory, as does all of an operator that would take it there at once.
            assert!(if on_disk { part.segments.is_empty() } else { part.stored.is_empty() });
            for segment in &part.stored {
                let groups: Vec<u8> = segment.key_groups.iter().copied().collect();
                let rows = read_all(segment.rows.as_ref()).unwrap();
                assert_eq!((rows.num_rows(), segment.bytes > 0), (segment.count, true));
                let mut own = rows.column(0).as_primitive::<UInt8Type>().values().to_vec();
                own.sort_unstable();
                own.dedup();
                assert_eq!(own, groups);
            }
        }
        let parts = state.parts.into_iter().map(|part| part.in_memory().unwrap()).collect();
        let state = windrow_operators::state::StateReader { parts, ..state };
        let part = |part: &windrow_operators::state::Part| {
            let rows =
                part.segments.iter().flat_map(|(_, rows)| rows.column(1).as_primitive::<Int64Type>().values().to_vec());
            (part.numbers["closed"], rows.collect())
        };
        state.parts.iter().map(part).collect()
    };
    (0..tasks).map(parts).collect()
}

#[tokio::test]
async fn a_task_hears_of_the_former_tasks_of_its_own_keys_only() {
    let store = store(memory());
    let mut process = Process::start(&store, &Log::default(), 1).await.unwrap();
    let mut manifest = process.segments(Kind::Periodic).await.unwrap();
    let mut tasks = Vec::new();
    // The second has kept a segment of a former task, in which rows of key groups that went elsewhere are outdated.
    let former = [(0..128, 40, [0..60, 60..100]), (128..256, 20, [90..200, 150..250])];
    for (groups, closed, segments) in former {
        let mut files = Vec::new();
        for rows in segments.into_iter().map(segment) {
            let bytes = encode(&rows).unwrap();
            files.push(store.put_segment(manifest.epoch, 1, "window_1", tasks.len(), 0, bytes).await.unwrap());
        }
        let numbers = BTreeMap::from([("closed".to_owned(), closed)]);
        let key_groups = (groups.start, groups.end);
        tasks.push(SavedTask { first_phase: false, key_groups, numbers, segments: files });
    }
    let flushed = |closed| {
        let numbers = BTreeMap::from([("closed".to_owned(), closed)]);
        SavedTask { first_phase: true, numbers, ..SavedTask::default() }
    };
    let form = Some(Form::from(&form(segment(0..1).schema())));
    manifest.operators = [("window_1".to_owned(), OperatorState { form, tasks: tasks.clone() })].into();

    let values = |of: &[std::ops::Range<i64>]| of.iter().cloned().flatten().collect::<Vec<i64>>();
    let one = [vec![(40, values(&[0..60, 60..100])), (20, values(&[128..200, 150..250]))]];
    assert_eq!(dealt(&store, &manifest, 1, false).await, one);
    let two = [vec![(40, values(&[0..60, 60..100]))], vec![(20, values(&[128..200, 150..250]))]];
    assert_eq!(dealt(&store, &manifest, 2, false).await, two);
    let four = [
        vec![(40, values(&[0..60, 60..64]))],
        vec![(40, values(&[64..80, 80..100]))],
        vec![(20, values(&[128..192, 150..192]))],
        vec![(20, values(&[192..200, 192..250]))],
    ];
    assert_eq!(dealt(&store, &manifest, 4, false).await, four);

    // Tasks of a first phase have all keys mixed: each of now hears of all of them.
    manifest.operators.get_mut("window_1").unwrap().tasks.extend([flushed(35), flushed(30)]);
    let first: Vec<i64> = dealt(&store, &manifest, 2, true).await[1].iter().map(|(closed, _)| *closed).collect();
    assert_eq!(first, [40, 20, 35, 30]);
    let whole: Vec<i64> = dealt(&store, &manifest, 4, false).await[3].iter().map(|(closed, _)| *closed).collect();
    assert_eq!(whole, [20, 35, 30]);
}

/// A segment that is too large for the budget comes in pieces, all of it; and one that has been damaged does not.
#[tokio::test]
async fn a_large_segment_goes_to_disk_in_pieces() {
    let local = tempfile::tempdir().unwrap();
    large_in_pieces(store(memory())).await;
    large_in_pieces(CheckpointStore::open(local.path().to_str().unwrap(), JOB).unwrap()).await;
}

async fn large_in_pieces(store: CheckpointStore) {
    let mut process = Process::start(&store, &Log::default(), 1).await.unwrap();
    let mut manifest = process.segments(Kind::Periodic).await.unwrap();
    let groups = |i: i64| u8::try_from(i % 256).unwrap();
    let values: Vec<i64> = (0..150_000).collect();
    let columns: [(&str, ArrayRef); 2] = [
        (KEY_GROUP, Arc::new(UInt8Array::from_iter_values(values.iter().map(|i| groups(*i))))),
        ("value", Arc::new(Int64Array::from(values.clone()))),
    ];
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let file = store.put_segment(manifest.epoch, 1, "window_1", 0, 150_000, encode(&rows).unwrap()).await.unwrap();
    assert!(file.length > 5 << 18);
    manifest.operators = of_one_task(vec![file]);
    assert_eq!(dealt(&store, &manifest, 1, false).await, [vec![(7, values.clone())]]);
    let own = |tasks: std::ops::Range<u8>| values.iter().copied().filter(|i| tasks.contains(&groups(*i))).collect();
    let (first, second): (Vec<i64>, Vec<i64>) =
        (own(0..128), values.iter().copied().filter(|i| groups(*i) >= 128).collect());
    assert_eq!(dealt(&store, &manifest, 2, false).await, [vec![(7, first)], vec![(7, second)]]);

    let saved = &mut manifest.operators.get_mut("window_1").unwrap().tasks[0].segments[0];
    saved.checksum = "0".repeat(32);
    let error = refused(&store, &manifest).await;
    assert!(error.contains("its checksum does not match"), "{error}");
}

/// The state of an operator that had one task, with these segments.
fn of_one_task(segments: Vec<SegmentFile>) -> BTreeMap<String, OperatorState> {
    let numbers = BTreeMap::from([("closed".to_owned(), 7)]);
    let task = SavedTask { first_phase: false, key_groups: (0, 256), numbers, segments };
    let of = Some(Form::from(&form(segment(0..1).schema())));
    [("window_1".to_owned(), OperatorState { form: of, tasks: vec![task] })].into()
}

/// Why a checkpoint cannot be restored in pieces. Nothing of it stays on disk.
async fn refused(store: &CheckpointStore, manifest: &Manifest) -> String {
    let below = tempfile::tempdir().unwrap();
    let error = {
        let shelf = Shelf::new(Directory::below(Some(below.path())), Counters::new("restore".into(), 1));
        let aside = Some(Aside { room: &shelf, whole: 0 });
        let restored = restore::restore(store, manifest, &layout(1, false, true), &BTreeMap::new(), aside).await;
        restored.map(|_| ()).unwrap_err().to_string()
    };
    assert!(std::fs::read_dir(below.path()).unwrap().next().is_none(), "nothing of it was believed");
    error
}

const NAMES: [&str; 5] = ["anna", "bert", "", "carla with a longer name", "dora"];

/// Rows with texts that a dictionary has.
fn with_names(rows: i64) -> RecordBatch {
    let groups = (0..rows).map(|i| u8::try_from(i % 256).unwrap());
    let names = (0..rows).map(|i| (i % 11 > 0).then(|| NAMES[(i % 5) as usize]));
    let columns: [(&str, ArrayRef); 3] = [
        (KEY_GROUP, Arc::new(UInt8Array::from_iter_values(groups))),
        ("value", Arc::new(Int64Array::from_iter_values(0..rows))),
        ("name", Arc::new(names.collect::<DictionaryArray<Int32Type>>())),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// A file with these rows in batches of so many.
fn file_of(rows: &RecordBatch, each: usize) -> Bytes {
    let mut writer = FileWriter::try_new(Vec::new(), rows.schema_ref()).unwrap();
    let starts = (0..rows.num_rows()).step_by(each);
    starts.for_each(|from| writer.write(&rows.slice(from, each.min(rows.num_rows() - from))).unwrap());
    writer.finish().unwrap();
    writer.into_inner().unwrap().into()
}

/// However the store cuts a file, and whoever wrote it: with dictionaries, in many batches, or as older versions did in one.
#[tokio::test]
async fn a_file_comes_whole_in_pieces_of_every_size() {
    let objects = memory();
    let names = with_names(6_000);
    let plain = names.project(&[0, 1]).unwrap();
    for piece in [1, 7, 4_096] {
        let store = store(Arc::new(Served::in_pieces(&objects, piece)));
        let mut process = Process::start(&store, &Log::default(), 1).await.unwrap();
        let mut manifest = process.segments(Kind::Periodic).await.unwrap();
        for (rows, each) in [(&plain, 6_000), (&plain, 500), (&names, 6_000), (&names, 500)] {
            let bytes = file_of(rows, each);
            let file = store.put_segment(manifest.epoch, 1, "window_1", 0, 6_000, bytes).await.unwrap();
            manifest.operators = of_one_task(vec![file]);
            let below = tempfile::tempdir().unwrap();
            let shelf = Shelf::new(Directory::below(Some(below.path())), Counters::new("restore".into(), 1));
            let (aside, layout) = (Some(Aside { room: &shelf, whole: 0 }), layout(1, false, true));
            let restored = restore::restore(&store, &manifest, &layout, &BTreeMap::new(), aside).await;
            let state = restored.unwrap().operator(&layout, TaskId { chain: 0, task: 0 }, 0, true).unwrap();
            let [segment] = &state.parts[0].stored[..] else { panic!("{:?}", state.parts) };
            let found = read_all(segment.rows.as_ref()).unwrap();
            assert_eq!(texts(&found), texts(rows), "pieces of {piece} bytes, batches of {each} rows");
        }
    }
}

/// Each column without dictionaries: of those, several may say the same.
fn texts(rows: &RecordBatch) -> Vec<ArrayRef> {
    rows.columns().iter().map(|column| cast(column, &DataType::Utf8).unwrap()).collect()
}

/// A store that gives the right bytes to be checked, and others to be used: fewer, more, or damaged.
#[tokio::test]
async fn what_is_used_is_checked_as_well() {
    let objects = memory();
    let plain = store(objects.clone());
    let mut process = Process::start(&plain, &Log::default(), 1).await.unwrap();
    let mut manifest = process.segments(Kind::Periodic).await.unwrap();
    let bytes = file_of(&with_names(3_000).project(&[0, 1]).unwrap(), 500);
    let file = plain.put_segment(manifest.epoch, 1, "window_1", 0, 3_000, bytes.clone()).await.unwrap();
    manifest.operators = of_one_task(vec![file]);
    let gives = async |change: Gives| {
        let served = Served::in_pieces(&objects, 4_096).then(1, change);
        refused(&store(Arc::new(served)), &manifest).await
    };
    // Also exactly between two messages, which begin with ones.
    let begins = bytes.windows(4).enumerate().filter(|(_, bytes)| *bytes == [0xff; 4]).map(|(at, _)| at);
    let cuts: Vec<usize> = begins.chain([1, 100, 10_000, bytes.len() - 1]).collect();
    assert!(cuts.len() > 8, "{cuts:?}");
    for cut in cuts {
        let error = gives(Box::new(move |bytes| bytes.slice(..cut))).await;
        let words = format!("it has {cut} bytes where {} were written", bytes.len());
        assert!(error.contains(&words), "{words:?} in {error}");
    }
    let error = gives(Box::new(|bytes| [&bytes[..], &[0]].concat().into())).await;
    assert!(error.contains(&format!("it has {} bytes where", bytes.len() + 1)), "{error}");
    // The last value of the last batch; and its first message, which cannot be read.
    let value = 2_999_i64.to_le_bytes();
    let at = bytes.windows(8).rposition(|bytes| bytes == value).unwrap();
    let message = 8 + bytes.iter().position(|byte| *byte == 0xff).unwrap();
    for (at, words) in [(at, "its checksum does not match"), (message + 1, "cannot be read as a segment of state")] {
        let flip = move |bytes: Bytes| {
            let mut bytes = bytes.to_vec();
            bytes[at] ^= 0x55;
            bytes.into()
        };
        let error = gives(Box::new(flip)).await;
        assert!(error.contains(words), "{words:?} in {error}");
    }
}
