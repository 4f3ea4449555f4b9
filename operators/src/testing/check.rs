//! The check of law 1: what users of the harness call.

use std::{collections::HashMap, ops::RangeInclusive, time::Duration};

use arrow::array::RecordBatch;

use super::{
    Pipeline, Record, Row,
    arrivals::{Limits, Scenario},
    guard::Late,
    restarts::Restarts,
    rows::{batch_of, difference, rows_of},
    run::{Outcome, run},
};
use crate::{Port, Timestamp};

/// Holds a [`Pipeline`] against an oracle, in many scenarios.
///
/// A scenario draws from its seed how many tasks there are, which task reads which rows in which order, where batches
/// begin and end, when watermarks are sent, and who is served next. Twelve rounds, the default, meet parallelism 1 to 4
/// with single rows, one batch for everything, and something between. They also restore operators after their calls, and
/// the job with every number of tasks after every other.
pub struct Check<'a> {
    pipeline: Pipeline<'a>,
    one_task: Option<Pipeline<'a>>,
    limits: Limits,
    seed: u64,
    rounds: u8,
    replay: Option<u64>,
    reduce: Option<Reduce<'a>>,
}

/// What makes of the rows that came out what is compared.
type Reduce<'a> = Box<dyn Fn(Vec<Row>) -> Result<Vec<Row>, String> + 'a>;

impl<'a> Check<'a> {
    /// Checks `pipeline` on rows in order of event time within each source task, until [`Check::out_of_order`] says more.
    pub fn new(pipeline: Pipeline<'a>) -> Self {
        let (bound, batch_rows) = (Duration::ZERO, 1..=usize::MAX);
        let limits = Limits { bound, parallelism: 1..=4, batch_rows, beyond_bound: false, idle: false };
        Self { pipeline, one_task: None, limits, seed: 0, rounds: 12, replay: None, reduce: None }
    }

    /// With one task another pipeline runs: the same operators, in one phase instead of two. So a job that was saved in
    /// one shape is restored in the other.
    #[must_use]
    pub fn one_task(self, pipeline: Pipeline<'a>) -> Self {
        Self { one_task: Some(pipeline), ..self }
    }

    /// Rows arrive out of order by up to `bound`, and watermarks stay as far behind.
    #[must_use]
    pub fn out_of_order(mut self, bound: Duration) -> Self {
        self.limits.bound = bound;
        self
    }

    /// Draws other scenarios: let proptest choose the number.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// How many scenarios to try; 12 unless told.
    #[must_use]
    pub fn rounds(self, rounds: u8) -> Self {
        Self { rounds, ..self }
    }

    /// Compares what `reduce` makes of the rows that came out: of operators whose rows depend on how the batches were cut, but
    /// what they add up to does not. It gets them in the order in which they came. Those of a stream of changes begin with a
    /// value that says what the change does; [`final_table`](super::final_table) makes a table of them.
    #[must_use]
    pub fn reduced(self, reduce: impl Fn(Vec<Row>) -> Result<Vec<Row>, String> + 'a) -> Self {
        Self { reduce: Some(Box::new(reduce)), ..self }
    }

    /// The number of tasks of each stage; 1 to 4 unless told.
    #[must_use]
    pub fn parallelism(mut self, tasks: RangeInclusive<usize>) -> Self {
        self.limits.parallelism = tasks;
        self
    }

    /// The number of rows in a batch of a source; 1 to all unless told. Many rows in batches of one are slow.
    #[must_use]
    pub fn batch_rows(mut self, rows: RangeInclusive<usize>) -> Self {
        self.limits.batch_rows = rows;
        self
    }

    /// Source tasks fall idle for a while, although they still have rows. The others do not wait for them, so rows come
    /// late: for [`Check::run_beyond_bound`]. (Tasks without any more rows fall idle in every check.)
    #[must_use]
    pub fn fall_idle(mut self) -> Self {
        self.limits.idle = true;
        self
    }

    /// Runs the one scenario that a failure named.
    #[must_use]
    pub fn replay(self, seed: u64) -> Self {
        Self { replay: Some(seed), ..self }
    }

    /// Checks with rows within the bound: none may be late, and the pipeline's results are what `oracle` makes of the
    /// rows, in any order. Fails with the difference and the scenario.
    pub fn run<T, I>(&self, rows: &[T], oracle: impl Fn(&[T]) -> I) -> Result<(), String>
    where
        T: Record + Clone,
        I: IntoIterator<Item: Into<Row>>,
    {
        let expected: Vec<Row> = oracle(rows).into_iter().map(Into::into).collect();
        self.run_within_bound(&[batch_of(rows)], &expected)
    }

    /// Checks that no row of the inputs is late and that the results are as expected.
    pub(super) fn run_within_bound(&self, inputs: &[RecordBatch], expected: &[Row]) -> Result<(), String> {
        self.scenarios(&self.limits, inputs, |outcome| {
            if let Some(late) = outcome.late.first() {
                let row = rows_of(&late.rows)?.into_iter().next();
                let row = row.map(|row| row.to_string()).unwrap_or_default();
                return Err(format!(
                    "{} called {row} late at {}, but all rows are within the bound",
                    late.stage, late.time
                ));
            }
            self.compare(expected.to_vec(), &outcome.results)
        })
    }

    /// Checks with some rows beyond the bound. A row may only be called late when
    /// `is_late` says so for the row and the time that the operator had been given; results are what `oracle` makes of
    /// the rows that were *not* called late. So no row is lost. Returns how many rows were late over all scenarios.
    ///
    /// Late rows are recognised by their values: whatever stands before the operator that calls them late may drop rows,
    /// but not change them.
    pub fn run_beyond_bound<T, I>(
        &self,
        rows: &[T],
        is_late: impl Fn(&T, Timestamp) -> bool,
        oracle: impl Fn(&[T]) -> I,
    ) -> Result<usize, String>
    where
        T: Record + Clone,
        I: IntoIterator<Item: Into<Row>>,
    {
        let batch = batch_of(rows);
        let input = Input::new(Port::MAIN, rows, &batch)?;
        let mut total = 0;
        self.scenarios(&self.beyond_bound(), &[batch], |outcome| {
            let kept = input.kept(&outcome.late, &is_late)?;
            total += rows.len() - kept.len();
            self.compare(oracle(&kept).into_iter().map(Into::into).collect(), &outcome.results)
        })?;
        Ok(total)
    }

    pub(super) fn beyond_bound(&self) -> Limits {
        Limits { beyond_bound: true, ..self.limits.clone() }
    }

    /// Like [`Check::run`], but panics when the check fails.
    #[track_caller]
    #[allow(clippy::panic, reason = "a failed assertion of a test is a panic")]
    pub fn assert<T, I>(&self, rows: &[T], oracle: impl Fn(&[T]) -> I)
    where
        T: Record + Clone,
        I: IntoIterator<Item: Into<Row>>,
    {
        if let Err(failure) = self.run(rows, oracle) {
            panic!("{failure}");
        }
    }

    fn validate(&self, inputs: &[RecordBatch]) -> Result<(), String> {
        self.pipeline.validate()?;
        self.one_task.as_ref().map_or(Ok(()), |other| self.pipeline.validate_shape(other))?;
        if self.pipeline.inputs().count() != inputs.len() {
            return Err(format!("rows of {} inputs, but the pipeline has another number", inputs.len()));
        }
        for (stream, batch) in self.pipeline.inputs().zip(inputs) {
            if batch.schema_ref() != stream.columns() {
                let (given, taken) = (batch.schema_ref().fields(), stream.columns().fields());
                return Err(format!("the rows have the columns {given:?}, but the pipeline takes {taken:?}"));
            }
        }
        Ok(())
    }

    /// Runs every scenario on the rows of the inputs and judges what came out.
    pub(super) fn scenarios(
        &self,
        limits: &Limits,
        inputs: &[RecordBatch],
        mut judge: impl FnMut(Outcome) -> Result<(), String>,
    ) -> Result<(), String> {
        self.validate(inputs)?;
        let most = inputs.iter().map(RecordBatch::num_rows).max().unwrap_or(0);
        let drawn = (0..self.rounds).map(|round| (self.seed << 8) | u64::from(round));
        let seeds: Vec<u64> = self.replay.map_or_else(|| drawn.collect(), |seed| vec![seed]);
        for seed in seeds {
            let scenario = Scenario::new(seed, limits, most);
            for restarts in Restarts::of_round(&scenario, self.rounds) {
                let outcome = run(|tasks| self.shape(tasks), &scenario, restarts, inputs);
                outcome.and_then(&mut judge).map_err(|failure| {
                    let rows: Vec<String> = inputs.iter().map(|rows| rows.num_rows().to_string()).collect();
                    let legs = restarts.legs(&scenario);
                    let legs = if legs.len() > 1 { format!(" {legs:?}") } else { String::new() };
                    let text = format!("{} rows, {scenario}, {restarts}{legs}", rows.join(" and "));
                    format!("{failure}\n  in this scenario: {text}\n  again with: .replay({seed:#x})")
                })?;
            }
        }
        Ok(())
    }

    /// The pipeline for so many tasks.
    fn shape(&self, tasks: usize) -> &Pipeline<'a> {
        self.one_task.as_ref().filter(|_| tasks == 1).unwrap_or(&self.pipeline)
    }

    pub(super) fn compare(&self, expected: Vec<Row>, results: &[RecordBatch]) -> Result<(), String> {
        let mut actual = Vec::new();
        for batch in results {
            let output = self.pipeline.output();
            let visible = match output.op() {
                Some(op) => {
                    let columns: Vec<usize> = [op].into_iter().chain(0..op).collect();
                    batch.project(&columns).map_err(|error| error.to_string())?
                }
                None => output.show(batch).map_err(|error| error.to_string())?,
            };
            actual.extend(rows_of(&visible)?);
        }
        if let Some(reduce) = &self.reduce {
            actual = reduce(actual)?;
        }
        match difference(expected, actual) {
            None => Ok(()),
            Some(difference) => Err(format!("not the answer of the oracle (law 1): {difference}")),
        }
    }
}

/// The rows of one input, to tell which of them were called late.
pub(super) struct Input<'r, T> {
    port: Port,
    rows: &'r [T],
    places: HashMap<Row, Vec<usize>>,
}

impl<'r, T: Clone> Input<'r, T> {
    pub(super) fn new(port: Port, rows: &'r [T], batch: &RecordBatch) -> Result<Self, String> {
        let mut places: HashMap<Row, Vec<usize>> = HashMap::new();
        for (place, row) in rows_of(batch)?.into_iter().enumerate() {
            places.entry(row).or_default().push(place);
        }
        Ok(Self { port, rows, places })
    }

    /// The rows that were not called late. Fails on a late row that is not one of the input's, came out twice, or was not
    /// late.
    pub(super) fn kept(&self, late: &[Late], is_late: impl Fn(&T, Timestamp) -> bool) -> Result<Vec<T>, String> {
        let mut found = vec![false; self.rows.len()];
        for Late { stage, time, rows: batch, .. } in late.iter().filter(|late| late.input == self.port) {
            for row in rows_of(batch)? {
                let place = self.places.get(&row).and_then(|places| places.iter().find(|&&place| !found[place]));
                let Some(&place) = place else {
                    return Err(format!(
                        "{stage} called {row} late, which is not a row of the input, or more often than it came"
                    ));
                };
                if !is_late(&self.rows[place], *time) {
                    return Err(format!("{stage} called {row} late at {time}, but it was not"));
                }
                found[place] = true;
            }
        }
        Ok(self.rows.iter().zip(found).filter(|(_, late)| !late).map(|(row, _)| row.clone()).collect())
    }
}
