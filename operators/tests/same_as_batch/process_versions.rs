//! State of keyed processes over versions of the program: which is read, which is brought up to date, which refused.

use arrow::{
    array::{Array, AsArray},
    compute::concat_batches,
    datatypes::DataType,
};
use serde::{Deserialize, Serialize};
use windrow_operators::{
    Operator, Plan,
    keyed::{Keyed, NoSide, Process, ProcessPlan, Saved as SavedState, State},
    state::StateReader,
};

use crate::{
    process_state::{Order, OrderView, Said, orders, process},
    restored::Saved,
};

/// The program of yesterday, today and tomorrow.
mod versions {
    use super::*;

    macro_rules! program {
        ($name:ident, $state:ty) => {
            pub(super) mod $name {
                use super::*;

                #[derive(Clone)]
                pub(crate) struct Total;

                impl Process for Total {
                    type Row = Order;
                    type State = $state;
                    type Output = Said;
                    type Side = NoSide;

                    fn row(&mut self, order: OrderView<'_>, key: &mut Keyed<'_, Self>) {
                        let total = key.state_mut().add(order.value);
                        key.emit(Said { what: total, at: key.time() });
                    }
                }

                pub(crate) fn plan() -> ProcessPlan<Total> {
                    ProcessPlan::new(&orders(), &["key"], Total, None).unwrap()
                }
            }
        };
    }

    #[derive(Default, Serialize, Deserialize)]
    pub(crate) struct Dollars {
        dollars: i64,
    }
    impl State for Dollars {}

    /// One field more, with a default.
    #[derive(Default, Serialize, Deserialize)]
    pub(crate) struct Counted {
        #[serde(default)]
        rows: u64,
        dollars: i64,
    }
    impl State for Counted {}

    #[derive(Default, Serialize, Deserialize)]
    pub(crate) struct Cents {
        cents: i64,
    }
    impl State for Cents {
        const VERSION: u32 = 2;

        fn upcast(version: u32, saved: SavedState<'_>) -> windrow_operators::Result<Self> {
            match version {
                1 => Ok(Self { cents: 100 * saved.read::<Dollars>()?.dollars }),
                _ => Err(saved.unknown_version()),
            }
        }
    }

    #[derive(Default, Serialize, Deserialize)]
    pub(crate) struct Careless {
        cents: i64,
    }
    impl State for Careless {
        const VERSION: u32 = 2;
    }

    #[derive(Default, Serialize, Deserialize)]
    pub(crate) struct Renamed {
        cents: i64,
    }
    impl State for Renamed {}

    impl Dollars {
        fn add(&mut self, value: i64) -> i64 {
            self.dollars += value;
            self.dollars
        }
    }
    impl Counted {
        fn add(&mut self, value: i64) -> i64 {
            self.rows += 1;
            self.dollars += value;
            self.dollars
        }
    }
    impl Cents {
        fn add(&mut self, value: i64) -> i64 {
            self.cents += value;
            self.cents
        }
    }
    impl Careless {
        fn add(&mut self, value: i64) -> i64 {
            self.cents += value;
            self.cents
        }
    }
    impl Renamed {
        fn add(&mut self, value: i64) -> i64 {
            self.cents += value;
            self.cents
        }
    }

    program!(first, Dollars);
    program!(counted, Counted);
    program!(second, Cents);
    program!(careless, Careless);
    program!(renamed, Renamed);
}

fn saved_by<P: Process>(plan: &ProcessPlan<P>, value: i64) -> Saved {
    let mut operator = plan.whole().unwrap();
    process(&mut operator, [(7, value, 0), (8, value, 0)]);
    let mut saved = Saved::new();
    saved.save(&mut operator);
    saved
}

#[track_caller]
fn refused<P: Process>(plan: &ProcessPlan<P>, saved: &Saved) -> String {
    let reader = StateReader { key_groups: 0..256, parts: vec![saved.part()] };
    plan.whole().unwrap().load(&reader).unwrap_err().to_string()
}

#[test]
fn an_older_state_is_brought_up_to_date() {
    let saved = saved_by(&versions::first::plan(), 5);
    let second = versions::second::plan();
    assert_eq!(second.state_form().accepts(&versions::first::plan().state_form()), Ok(()));
    let mut operator = second.whole().unwrap();
    saved.load(&mut operator);
    assert_eq!(process(&mut operator, [(7, 1, 1), (9, 1, 1)]), [(501, 1, 1), (1, 1, 1)]);
    let mut counted = versions::counted::plan().whole().unwrap();
    saved.load(&mut counted);
    assert_eq!(process(&mut counted, [(8, 1, 1)]), [(6, 1, 1)], "a new field with a default needs no version");

    // Key 8 is still in a segment of version 1, and key 7 in one of version 2.
    let mut saved = saved;
    saved.save(&mut operator);
    let mut again = second.whole().unwrap();
    saved.load(&mut again);
    assert_eq!(process(&mut again, [(7, 1, 2), (8, 1, 2)]), [(502, 2, 2), (501, 2, 2)]);
}

#[test]
fn a_state_that_cannot_be_read_is_refused_with_its_name_key_and_version() {
    let first = saved_by(&versions::first::plan(), 5);
    let error = refused(&versions::careless::plan(), &first);
    let key = if error.contains("(7)") { 7 } else { 8 };
    let what = format!("process Total per key: the state of key ({key}), of version 1 (now 2), cannot be read: ");
    assert!(error.starts_with(&what), "{error}");
    assert!(error.contains("write State::upcast for version 1"), "{error}");
    let error = refused(&versions::renamed::plan(), &first);
    assert!(error.contains("missing field `cents`") && error.contains("#[serde(default)]"), "{error}");
    let error = refused(&versions::first::plan(), &saved_by(&versions::second::plan(), 5));
    assert!(error.contains("newer than version 1 of this program"), "{error}");
}

/// What others read in a checkpoint.
#[test]
fn the_state_is_a_table() {
    let saved = saved_by(&versions::first::plan(), 5);
    let part = saved.part();
    let rows: Vec<_> = part.segments.iter().map(|(_, rows)| rows.clone()).collect();
    let rows = concat_batches(&rows[0].schema(), &rows).unwrap();
    assert_eq!(rows.column_by_name("state").unwrap().data_type(), &DataType::LargeBinary);
    assert_eq!(rows.column_by_name("state").unwrap().as_binary::<i64>().value(0), b"\x81\xa7dollars\x05");
    assert!(rows.column_by_name("time").unwrap().is_valid(0));
    assert_eq!(part.numbers.keys().collect::<Vec<_>>(), ["promised"]);
}
