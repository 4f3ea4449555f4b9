//! What is said of a stream straight from its source: event time, and what becomes of bad records.

use windrow_connectors::Untyped;
use windrow_operators::{OperatorError, Port, StreamSchema};

use super::{FromSource, Stream, stream::lock};
use crate::{
    EventTime, Watermarks,
    plan::graph::{Kind, REJECTS, RejectPolicy, StreamId},
    runtime::{EventTimeReader, rejects::rejects_schema},
};

impl<T: 'static> Stream<T, FromSource> {
    /// Says which column holds event time, and how far out of order its rows may come. Windows need it.
    ///
    /// A timestamp column of microseconds in UTC is used as it is. Of any other column the values are converted, and
    /// the column itself stays as it was. Rows without a usable time are rejected. The job does not run when there is no such
    /// column, it is a number and the unit is not said, or its type is none that has a time.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// #[derive(Record)]
    /// struct Reading { celsius: f64, unix: i64 }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let readings = [(20.5, 60), (19.0, 0), (21.0, 65)].map(|(celsius, unix)| Reading { celsius, unix });
    /// let job = Job::new("per-minute");
    /// let out = MemorySink::new();
    /// job.source(MemorySource::records(readings.into()))
    ///     .event_time(EventTime::column("unix").seconds(), Watermarks::out_of_order(mins(1)))
    ///     .window(Tumbling::of(mins(1)))
    ///     .aggregate([avg(col("celsius"))])
    ///     .drop_late()
    ///     .sink(out.clone());
    /// job.run().await?;
    /// assert_eq!(out.rows(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn event_time(self, column: impl Into<EventTime>, watermarks: Watermarks) -> Self {
        let spec = column.into();
        self.with_time(watermarks, |schema| EventTimeReader::new(schema.columns(), &spec))
    }

    /// The time of a row is when it arrives, and the watermark follows the clock, whether rows come or not: windows end
    /// when the clock says so, and no row is late. What is in which window then depends on when the job runs. A job that
    /// goes on from a checkpoint does not go back in time, also if the clock does.
    ///
    /// ```
    /// # use windrow::prelude::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let job = Job::new("arrivals");
    /// let out = MemorySink::new();
    /// job.source(Sequence::new(100))
    ///     .processing_time()
    ///     .window(Tumbling::of(secs(10)))
    ///     .aggregate([count()])
    ///     .drop_late()
    ///     .sink(out.clone());
    /// job.run().await?;
    /// assert!(out.rows() > 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn processing_time(self) -> Self {
        self.with_time(Watermarks::clock(), |schema| EventTimeReader::arrival(schema.columns()))
    }

    fn with_time(
        self,
        watermarks: Watermarks,
        read: impl FnOnce(&StreamSchema) -> windrow_operators::Result<EventTimeReader>,
    ) -> Self {
        self.with_source(|time, schema, _| {
            if time.is_some() {
                let mistake = "its event time has been declared already: say .event_time(…) or .processing_time() once";
                return Err(OperatorError::Plan(mistake.into()));
            }
            let reader = read(schema)?;
            let schema = reader.output().clone();
            *time = Some((reader, watermarks));
            Ok(Some((Port::MAIN, schema)))
        })
    }

    /// Records that do not decode, or have no usable event time, become a stream of their own, with the columns `source`,
    /// `split`, `position`, `line`, `reason`, `bytes` and `key`, and `truncated`, `headers`, `timestamp` and `partition`. The
    /// others go on. `bytes` is the record as it was read, of files and topics also when it is its event time that cannot be
    /// used; other sources have no bytes of such rows, and show their columns as text, without a `position`. Of a record that is too
    /// long it is only the beginning, and `truncated` says how many bytes the record has. The last three are of records of
    /// topics. See also [`drop_rejects`](Self::drop_rejects) and
    /// [`fail_on_rejects`](Self::fail_on_rejects).
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// #[derive(Record)]
    /// struct Bid { auction: i64, price: i64 }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("bids.csv");
    /// # std::fs::write(&path, "auction,price\n7,100\n8,cheap\n9,300\n").unwrap();
    /// let job = Job::new("read");
    /// let (out, bad) = (MemorySink::new(), MemorySink::new());
    /// let bids = File::pattern(path.to_str().unwrap()).csv::<Bid>(); // "bids.csv"
    /// let (bids, rejected) = job.source(bids).with_rejects();
    /// bids.sink(out.clone());
    /// rejected.select(["line", "reason"].map(col)).sink(bad.clone());
    /// job.run().await?;
    /// assert_eq!((out.rows(), bad.rows()), (2, 1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_rejects(self) -> (Stream<T>, Stream<Untyped>) {
        let stream = self.with_source(|_, _, rejects| {
            *rejects = RejectPolicy::Stream;
            Ok(Some((REJECTS, StreamSchema::without_time(rejects_schema()))))
        });
        let rejected = stream.at.map(|at| StreamId { port: REJECTS, ..at });
        (stream.retyped(), Stream::new(stream.graph, rejected))
    }

    /// Records that do not decode are counted ([`OperatorMetrics::rejected`](crate::metrics::OperatorMetrics::rejected)) and
    /// dropped.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// #[derive(Record)]
    /// struct Bid { auction: i64, price: i64 }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("bids.csv");
    /// # std::fs::write(&path, "auction,price\n7,100\n8,cheap\n9,300\n").unwrap();
    /// let bids = || File::pattern(path.to_str().unwrap()).csv::<Bid>(); // "bids.csv"
    /// let job = Job::new("lenient");
    /// job.source(bids()).drop_rejects().sink(MemorySink::new());
    /// let report = job.run().await?;
    /// assert_eq!(report.metrics.operators[0].rejected, 1);
    ///
    /// let job = Job::new("strict");
    /// job.source(bids()).fail_on_rejects().sink(MemorySink::new());
    /// let error = job.run().await.unwrap_err().to_string();
    /// assert!(error.contains("line 3"), "{error}");
    /// # Ok(())
    /// # }
    /// ```
    pub fn drop_rejects(self) -> Stream<T> {
        let stream = self.with_source(|_, _, rejects| {
            *rejects = RejectPolicy::Drop;
            Ok(None)
        });
        stream.retyped()
    }

    /// The first record that does not decode fails the job. This is so too when nothing is said.
    /// [`drop_rejects`](Self::drop_rejects) has an example.
    pub fn fail_on_rejects(self) -> Stream<T> {
        self.retyped()
    }

    fn with_source(
        mut self,
        change: impl FnOnce(
            &mut Option<(EventTimeReader, Watermarks)>,
            &StreamSchema,
            &mut RejectPolicy,
        ) -> windrow_operators::Result<Option<(Port, StreamSchema)>>,
    ) -> Self {
        let Some(at) = self.at else { return self };
        let mut graph = lock(&self.graph);
        let Some(node) = graph.nodes.get_mut(at.node) else { return self.retyped() };
        let schema = node.outputs[0].1.clone();
        let Kind::Source { time, rejects, .. } = &mut node.kind else { return self.retyped() };
        let mistake = match change(time, &schema, rejects) {
            Ok(Some((Port::MAIN, schema))) => {
                node.outputs[0].1 = schema;
                None
            }
            Ok(Some(output)) => {
                node.outputs.push(output);
                None
            }
            Ok(None) => None,
            Err(error) => Some(format!("{}: {error}", node.name)),
        };
        if let Some(mistake) = mistake {
            graph.mistakes.push(mistake);
            // The source itself is not to blame for going nowhere.
            graph.drop_stream(at);
            drop(graph);
            self.at = None;
            return self;
        }
        drop(graph);
        self
    }
}
