//! The bottleneck of jobs of many shapes.

use super::*;

/// How much each operator was at work and waited, and how much senders waited on each edge.
fn with(operators: &[&[(f64, f64)]], edges: &[f64]) -> JobStatus {
    let mut status = job();
    status.operators.iter_mut().zip(operators).for_each(|(operator, shares)| operator.tasks = tasks(shares));
    status.edges.iter_mut().zip(edges).for_each(|(edge, blocked)| edge.blocked = *blocked);
    status
}

#[test]
fn without_load_there_is_none() {
    assert_eq!(JobStatus::default().bottleneck(), None);
    assert_eq!(job().bottleneck(), None);
    assert_eq!(with(&[&[(0.4, 0.0)], &[(0.6, 0.02)], &[(0.5, 0.0)]], &[0.0, 0.02]).bottleneck(), None);
}

#[test]
fn a_slow_sink_is_named_through_everybody_who_waits() {
    let said = with(&[&[(0.05, 0.95)], &[(0.1, 0.9)], &[(0.98, 0.0)]], &[0.95, 0.9]).bottleneck().unwrap();
    says(&said, &["#3 sink out is the bottleneck: it was at work for 98% of the last 5 s"]);
    says(&said, &["waits for it: #1 source topic (for 95%), #2 window tumbling 10s (for 90%)", "takes no more"]);
}

#[test]
fn a_slow_operator_in_the_middle_is_named_and_not_the_sink() {
    let said = with(&[&[(0.05, 0.95)], &[(0.99, 0.01)], &[(0.3, 0.0)]], &[0.95, 0.01]).bottleneck().unwrap();
    says(&said, &["#2 window tumbling 10s is the bottleneck", "#1 source topic (for 95%)", "more tasks"]);
}

#[test]
fn of_a_chain_the_operator_that_has_most_to_do_is_named() {
    let mut status = with(&[&[(0.05, 0.95)], &[(0.2, 0.0)], &[(0.1, 0.0)]], &[0.95, 0.0]);
    let slow = OperatorStatus { tasks: tasks(&[(0.75, 0.0)]), ..operator("#4 map", OperatorKind::Stateless, 1) };
    status.operators.push(slow);
    status.edges.push(edge(1, 3, Exchange::Chained));
    says(&status.bottleneck().unwrap(), &["#4 map is the bottleneck: it was at work for 75%", "closures"]);
}

#[test]
fn of_two_branches_it_is_the_one_whose_channel_is_full() {
    let mut status = with(&[&[(0.05, 0.95)], &[(0.3, 0.0)], &[(0.3, 0.0)]], &[0.03, 0.0]);
    status
        .operators
        .push(OperatorStatus { tasks: tasks(&[(0.97, 0.0)]), ..operator("#4 sink slow", OperatorKind::Sink, 3) });
    status.edges.push(EdgeStatus { blocked: 0.92, ..edge(0, 3, Exchange::Forward) });
    says(&status.bottleneck().unwrap(), &["#4 sink slow is the bottleneck", "#1 source topic (for 95%)"]);
}

#[test]
fn a_task_that_has_most_of_the_work_is_told() {
    let window = [(0.1, 0.0), (0.99, 0.0), (0.12, 0.0), (0.08, 0.0)];
    let said = with(&[&[(0.05, 0.6)], &window, &[(0.3, 0.0)]], &[0.6, 0.0]).bottleneck().unwrap();
    says(&said, &["Task 1 of 4 has most of it (at work for 99%, the others for 10%)"]);
    let even = [(0.9, 0.0), (0.99, 0.0)];
    let said = with(&[&[(0.05, 0.6)], &even, &[(0.3, 0.0)]], &[0.6, 0.0]).bottleneck().unwrap();
    assert!(!said.contains("Task"), "{said}");
}

#[test]
fn a_source_that_is_braked_leads_to_the_calls_that_brake_it() {
    let mut status = with(&[&[(0.05, 0.9)], &[(0.99, 0.0)], &[(0.1, 0.0)]], &[0.0, 0.0]);
    status.operators[1] =
        OperatorStatus { tasks: tasks(&[(0.99, 0.0)]), ..operator("#2 async map", OperatorKind::Async, 1) };
    says(&status.bottleneck().unwrap(), &["#2 async map is the bottleneck", "Its calls take too long"]);
}

#[test]
fn when_nobody_waits_a_chain_that_is_at_work_all_the_time_is_the_limit() {
    let mut status = with(&[&[(0.3, 0.0)], &[(0.4, 0.0)], &[(0.1, 0.0)]], &[0.0, 0.0]);
    status
        .operators
        .push(OperatorStatus { tasks: tasks(&[(0.65, 0.0)]), ..operator("#4 filter", OperatorKind::Stateless, 0) });
    says(&status.bottleneck().unwrap(), &["#4 filter is the bottleneck", "nobody waits for it"]);
    status.operators[0].tasks = tasks(&[(0.93, 0.0)]);
    status.operators[3].tasks = tasks(&[(0.05, 0.0)]);
    says(&status.bottleneck().unwrap(), &["#1 source topic is the bottleneck", "more splits"]);
}

#[test]
fn nonsense_ends() {
    let mut status = with(&[&[(0.5, 0.95)], &[(0.5, 0.9)], &[(0.5, 0.9)]], &[0.95, 0.9]);
    status.edges.push(EdgeStatus { blocked: 1.0, ..edge(2, 0, Exchange::Forward) });
    status.edges.push(EdgeStatus { blocked: 1.0, ..edge(2, 77, Exchange::Forward) });
    status.edges.push(EdgeStatus { blocked: f64::NAN, ..edge(77, 78, Exchange::Forward) });
    assert!(status.bottleneck().is_some());
    status.operators[1].watermark_us = at(0);
    assert!(!status.why_open("2").is_empty());
}
