//! The operators of a job and the streams between them, as the user wrote them.

use std::{collections::BTreeSet, fmt, sync::Arc};

use windrow_connectors::{Sink, Source};
use windrow_operators::{Plan, Port, StreamSchema, plan::Factory};

use crate::{
    Watermarks,
    runtime::{
        EventTimeReader,
        async_task::{AsyncPlan, FAILED, call::Policy},
    },
};

/// A stream: an output of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct StreamId {
    pub(crate) node: usize,
    pub(crate) port: Port,
}

/// The rejected records of a source leave by this port.
pub(crate) const REJECTS: Port = Port(2);

/// What a job does with records that do not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RejectPolicy {
    Fail,
    Drop,
    Stream,
}

#[derive(Clone)]
pub(crate) enum Kind {
    Source {
        source: Arc<dyn Source>,
        time: Option<(EventTimeReader, Watermarks)>,
        rejects: RejectPolicy,
    },
    /// Work on one row at a time, wherever the row is; and which column that comes each column that leaves is, if it is one.
    Stateless(Factory, Vec<Option<usize>>),
    /// Work that remembers, on rows that an exchange has brought together.
    Stateful(Arc<dyn Plan>),
    /// Work that calls something outside, in a task of its own.
    Async(Arc<dyn AsyncPlan>, Policy),
    Union,
    Sink(Arc<dyn Sink>),
}

impl Kind {
    /// What operators of this kind are called in checkpoints, if they have anything to remember.
    fn noun(&self) -> Option<&'static str> {
        match self {
            Self::Source { .. } => Some("source"),
            Self::Stateful(plan) => Some(plan.noun()),
            Self::Async(..) => Some("async"),
            Self::Sink(_) => Some("sink"),
            Self::Stateless(..) | Self::Union => None,
        }
    }
}

/// An operator with state, and the streams that leave it.
pub(crate) fn stateful(plan: impl Plan + 'static) -> (Kind, Vec<(Port, StreamSchema)>) {
    let outputs = plan.outputs();
    (Kind::Stateful(Arc::new(plan)), outputs)
}

pub(crate) struct Node {
    /// `#3 window tumbling 10s`: its number and name everywhere, in errors, metrics and the printed job.
    pub(crate) name: String,
    /// What it is called in checkpoints, `window_1` unless the user said otherwise. Only what has something to remember
    /// has one: sources, windows, sinks. Counted by kind, so that it stays when stateless operators come and go.
    pub(crate) id: Option<String>,
    pub(crate) kind: Kind,
    pub(crate) inputs: Vec<StreamId>,
    pub(crate) outputs: Vec<(Port, StreamSchema)>,
    /// The sort in front of it that is part of it: its id follows from the one here.
    pub(crate) sort: Option<usize>,
    /// Outputs that the user said to drop.
    pub(crate) dropped: Vec<Port>,
}

/// A job as it was written, with the mistakes that were found on the way.
#[derive(Default)]
pub(crate) struct Graph {
    pub(crate) job: String,
    pub(crate) nodes: Vec<Node>,
    pub(crate) mistakes: Vec<String>,
}

impl Graph {
    /// Adds an operator; returns its number.
    pub(crate) fn add(
        &mut self,
        name: &str,
        kind: Kind,
        inputs: Vec<StreamId>,
        outputs: Vec<(Port, StreamSchema)>,
    ) -> usize {
        let node = self.nodes.len();
        let id = kind.noun().map(|noun| {
            let is_part = |node: usize| self.nodes.iter().any(|other| other.sort == Some(node));
            let same = self.nodes.iter().enumerate().filter(|(_, node)| node.kind.noun() == Some(noun));
            format!("{noun}_{}", same.filter(|(node, _)| !is_part(*node)).count() + 1)
        });
        let (name, dropped) = (self.next_name(name), Vec::new());
        self.nodes.push(Node { name, id, kind, inputs, outputs, sort: None, dropped });
        node
    }

    /// Names an operator that has something to remember, and the sort that is part of it; says whether it has.
    pub(crate) fn set_id(&mut self, node: usize, id: String) -> bool {
        let node = &mut self.nodes[node];
        if node.id.is_none() {
            return false;
        }
        let sort = node.sort.map(|sort| (sort, format!("{id}_in_order")));
        node.id = Some(id);
        if let Some((sort, id)) = sort {
            self.nodes[sort].id = Some(id);
        }
        true
    }

    /// Makes a sort part of the operator that it stands in front of: what waits in it is found again with that one.
    pub(crate) fn sort_for(&mut self, node: usize, sort: usize) {
        self.nodes[node].sort = Some(sort);
        if let Some(id) = self.nodes[node].id.clone() {
            self.set_id(node, id);
        }
    }

    /// Operators that are called the same in checkpoints.
    pub(crate) fn repeated_ids(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let Some(id) = &node.id else { continue };
            if let Some(other) = self.nodes[..index].iter().find(|other| other.id.as_ref() == Some(id)) {
                mistakes.push(format!("{}: its id {id:?} is also that of {}", node.name, other.name));
            }
        }
        mistakes
    }

    /// What the next operator will be called.
    pub(crate) fn next_name(&self, name: &str) -> String {
        format!("#{} {name}", self.nodes.len() + 1)
    }

    pub(crate) fn schema(&self, stream: StreamId) -> Option<&StreamSchema> {
        self.nodes.get(stream.node)?.outputs.iter().find(|(port, _)| *port == stream.port).map(|(_, schema)| schema)
    }

    /// Says that nobody reads a stream, on purpose or because what reads it is a mistake already.
    pub(crate) fn drop_stream(&mut self, stream: StreamId) {
        if let Some(node) = self.nodes.get_mut(stream.node) {
            node.dropped.push(stream.port);
        }
    }

    /// Whether a source of `stream` may fall idle: then a watermark can run ahead of rows that are still to come.
    pub(crate) fn may_idle(&self, stream: StreamId) -> bool {
        let node = &self.nodes[stream.node];
        match &node.kind {
            Kind::Source { time, .. } => time.as_ref().is_some_and(|(_, watermarks)| watermarks.idle_after.is_some()),
            _ => node.inputs.iter().any(|input| self.may_idle(*input)),
        }
    }

    /// The sources whose rows come to an operator.
    pub(crate) fn sources_of(&self, node: usize) -> BTreeSet<usize> {
        let (mut seen, mut next) = (BTreeSet::from([node]), vec![node]);
        while let Some(node) = next.pop() {
            next.extend(self.nodes[node].inputs.iter().map(|input| input.node).filter(|input| seen.insert(*input)));
        }
        seen.retain(|node| self.nodes[*node].inputs.is_empty());
        seen
    }

    /// Whether watermarks come with the rows of `stream`; late and rejected rows, and what is made of them, have none.
    pub(crate) fn is_timed(&self, stream: StreamId) -> bool {
        stream.port.is_timed() && self.nodes[stream.node].inputs.iter().all(|input| self.is_timed(*input))
    }

    fn consumers(&self, stream: StreamId) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(move |&node| self.nodes[node].inputs.contains(&stream))
    }

    /// The streams that go nowhere: their rows would vanish without a word.
    pub(crate) fn dead_ends(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        if self.nodes.is_empty() && self.mistakes.is_empty() {
            mistakes.push("it has no source: begin with job.source(…)".into());
        }
        for (index, node) in self.nodes.iter().enumerate() {
            for (port, _) in &node.outputs {
                let stream = StreamId { node: index, port: *port };
                if node.dropped.contains(port) || self.consumers(stream).next().is_some() {
                    continue;
                }
                let what = match *port {
                    Port::LATE => "its late rows go",
                    Port::LATE_RIGHT => "its late rows of the right side go",
                    REJECTS => "its rejected records go",
                    Port::MAIN => "its rows go",
                    FAILED if matches!(node.kind, Kind::Async(..)) => "its failed rows go",
                    _ => "the rows of its side output go",
                };
                // Late rows have a stream only when somebody asks for it.
                let first = if matches!(*port, Port::LATE | Port::LATE_RIGHT) { "say .drop_late(), or " } else { "" };
                mistakes.push(format!(
                    "{}: {what} nowhere: {first}give the stream a .sink(…), or .discard() it",
                    node.name
                ));
            }
        }
        mistakes
    }

    fn print(
        &self,
        f: &mut fmt::Formatter<'_>,
        node: usize,
        bars: &str,
        last: bool,
        shown: &mut [bool],
    ) -> fmt::Result {
        let (branch, below) = if last { ("└─", "   ") } else { ("├─", "│  ") };
        if shown[node] {
            return writeln!(f, "{bars}{branch} {} (above)", self.nodes[node].name);
        }
        shown[node] = true;
        writeln!(f, "{bars}{branch} {}", self.nodes[node].name)?;
        let bars = format!("{bars}{below}");
        let stream = |port: &Port| StreamId { node, port: *port };
        let outputs = &self.nodes[node].outputs;
        let children: Vec<usize> = outputs.iter().flat_map(|(port, _)| self.consumers(stream(port))).collect();
        let bar = if children.is_empty() { " " } else { "│" };
        if let Kind::Source { time: Some((_, watermarks)), .. } = &self.nodes[node].kind {
            writeln!(f, "{bars}{bar}    watermarks: {watermarks}")?;
        }
        for (port, schema) in outputs {
            let label = match *port {
                Port::LATE => "late: ",
                Port::LATE_RIGHT => "late on the right: ",
                REJECTS => "rejected: ",
                Port::MAIN => "",
                FAILED if matches!(self.nodes[node].kind, Kind::Async(..)) => "failed: ",
                _ => "side: ",
            };
            let dropped = if self.nodes[node].dropped.contains(port) { " (counted and dropped)" } else { "" };
            writeln!(f, "{bars}{bar}    {label}{schema}{dropped}")?;
        }
        for (i, child) in children.iter().enumerate() {
            self.print(f, *child, &bars, i + 1 == children.len(), shown)?;
        }
        Ok(())
    }
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "job {}", self.job)?;
        let mut shown = vec![false; self.nodes.len()];
        let sources: Vec<usize> = (0..self.nodes.len()).filter(|&n| self.nodes[n].inputs.is_empty()).collect();
        for (i, source) in sources.iter().enumerate() {
            self.print(f, *source, "", i + 1 == sources.len(), &mut shown)?;
        }
        Ok(())
    }
}
