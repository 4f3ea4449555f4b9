//! How the state of former tasks is dealt to the tasks of now, when they stood at different times.
//!
//! ```text
//!   former   0..128, stood at 40 │ 128..256, stood at 20
//!   now      0..64 │ 64..128     │ 128..192 │ 192..256      none hears of a time that is of none of its keys
//! ```

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt8Array},
    datatypes::{Int64Type, Schema},
};
use windrow_operators::state::{KEY_GROUP, Reading, StateForm};

use super::{
    super::{
        archive::encode,
        layout::{ChainLayout, Layout, OperatorLayout},
        manifest::Form,
        restore,
    },
    *,
};
use crate::runtime::report::TaskId;

/// A row for each of these key groups, whose value is the group.
fn segment(groups: std::ops::Range<u8>) -> RecordBatch {
    let values = Int64Array::from_iter_values(groups.clone().map(i64::from));
    let groups: ArrayRef = Arc::new(UInt8Array::from_iter_values(groups));
    RecordBatch::try_from_iter([(KEY_GROUP, groups), ("value", Arc::new(values) as ArrayRef)]).unwrap()
}

fn form(columns: Arc<Schema>) -> StateForm {
    StateForm { columns, identity: 1, meaning: "values".into(), reading: Reading::default() }
}

fn layout(tasks: usize, first_phase: bool) -> Layout {
    let saved = Some(("window_1".into(), form(segment(0..1).schema())));
    let operators = vec![OperatorLayout { name: "#2 window".into(), saved, first_phase }];
    Layout { chains: vec![ChainLayout { tasks, name: "#2 window".into(), source: None, operators, sink: None }] }
}

/// Of each former task that the operator of a task hears of: how far it had come, and which values it left.
async fn dealt(store: &CheckpointStore, manifest: &Manifest, tasks: usize, first: bool) -> Vec<Vec<(i64, Vec<i64>)>> {
    let layout = layout(tasks, first);
    let mut restored = restore::restore(store, manifest, &layout, &BTreeMap::new()).await.unwrap();
    let parts = |task: usize| {
        let state = restored.operator(&layout, TaskId { chain: 0, task }, 0);
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
