//! How segments whose rows are not in memory come into the store: side by side, few enough to be in memory together.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, UInt8Array},
    datatypes::Schema,
};
use windrow_connectors::Epoch;
use windrow_operators::{
    spill::{Room, Stored, read_all},
    state::{KEY_GROUP, Reading, SegmentId, StateForm, TaskState},
};

use super::{
    super::{
        archive::Archive,
        layout::{ChainLayout, Layout, OperatorLayout},
        restore::Segments,
        settings::Timeout,
    },
    memory,
    served::Served,
    store,
};
use crate::{
    clock::Moment,
    metrics::Counters,
    runtime::{
        report::{Snapshot, TaskId},
        spill::{Directory, Shelf},
    },
};

const KIB: usize = 1 << 10;
const TASKS: usize = 4;

fn rows(from: i64, kib: usize) -> RecordBatch {
    let rows = kib * KIB / (8 + 1);
    let groups: ArrayRef = Arc::new(UInt8Array::from(vec![0; rows]));
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + rows as i64));
    RecordBatch::try_from_iter([(KEY_GROUP, groups), ("value", values)]).unwrap()
}

fn layout() -> Layout {
    let columns = Arc::new(Schema::clone(&rows(0, 1).schema()));
    let form = StateForm { columns, identity: 1, meaning: "values".into(), reading: Reading::default() };
    let saved = Some(("window_1".into(), form));
    let operators = vec![OperatorLayout { name: "#2 window".into(), saved, first_phase: false, spills: true }];
    Layout { chains: vec![ChainLayout { tasks: TASKS, name: "#2 window".into(), source: None, operators, sink: None }] }
}

/// Four tasks with thirty segments of 64 KiB each, and one with one of 3 MiB: a store that takes 50 ms for each would take 6 s for
/// one after the other. Of one MiB in memory it takes one.
#[tokio::test(start_paused = true)]
async fn segments_from_disk_are_uploaded_side_by_side_within_the_memory_for_it() {
    let below = tempfile::tempdir().unwrap();
    let shelf = Shelf::new(Directory::below(Some(below.path())), Counters::new("window".into(), 1));
    let stored = |from: i64, kib: usize| {
        let rows = rows(from, kib);
        let half = rows.num_rows() / 2;
        let parts = [rows.slice(0, half), rows.slice(half, rows.num_rows() - half)];
        let stored = shelf.store(&rows.schema(), &mut parts.into_iter().map(Ok)).unwrap();
        assert!(stored.bytes().abs_diff(kib * KIB) < KIB, "{} bytes", stored.bytes());
        stored
    };
    let mut reports = BTreeMap::new();
    for task in 0..TASKS {
        let mut state = TaskState::default();
        for id in 0..30 {
            state.stored.insert(SegmentId(id), stored((task as i64) << 32 | (id as i64) << 16, 64));
        }
        if task == 0 {
            state.stored.insert(SegmentId(30), stored(7, 3 * KIB));
        }
        state.segments = state.stored.keys().map(|id| (*id, None)).collect();
        reports.insert(TaskId { chain: 0, task }, Snapshot { operators: vec![state], ..Snapshot::default() });
    }
    let served = Arc::new(Served::in_pieces(&memory(), usize::MAX).taking(Duration::from_millis(50)));
    let store = store(served.clone());
    let claim = store.claim().await.unwrap();
    let mut archive = Archive {
        store: store.clone(),
        claim,
        witnessed: None,
        every: Duration::from_secs(1),
        keep: 2,
        timeout: Timeout::default(),
        parent: None,
        origin: None,
        files: HashMap::new(),
        absent: BTreeMap::new(),
        counters: Arc::default(),
        collect_at: None,
        at_once: 1 << 20,
    };
    let began = Moment::now();
    archive.upload(&layout(), Epoch(1), &reports).await.unwrap();
    let took = began.elapsed();
    assert!(took < Duration::from_millis(750), "{took:?}");
    // The large one is alone, and is more than there is room for; the others fit, but for what a file has beside its rows.
    assert!((3 << 20..7 << 19).contains(&served.most()), "{} bytes", served.most());

    assert_eq!(archive.files.len(), TASKS * 30 + 1);
    for (task, snapshot) in &reports {
        for (id, stored) in &snapshot.operators[0].stored {
            let file = &archive.files[&(*task, 0, *id)];
            let uploaded = Segments::new(&store).rows(file, &(0..256)).await.unwrap();
            assert_eq!((file.rows, uploaded), (stored_rows(stored), read_all(stored.as_ref()).unwrap()));
        }
    }
}

fn stored_rows(stored: &Arc<dyn Stored>) -> u64 {
    (0..stored.batches()).map(|batch| stored.read(batch).unwrap().num_rows() as u64).sum()
}
