use super::*;
use crate::{
    model::Reading,
    queue_kind::{FrameworkReading, QueueKind},
};

fn spec(queues: &[&str]) -> QueueSpec {
    let framework = FrameworkSpec::of(Framework::Rq, queues);
    let kind = QueueKind::Framework(Framework::Rq);
    QueueSpec { framework: Some(Arc::new(framework)), ..QueueSpec::new("rq:queue:mail", "", kind) }
}

fn bulk(text: &str) -> Value {
    Value::BulkString(text.as_bytes().to_vec())
}

fn texts(texts: &[&str]) -> Value {
    Value::Array(texts.iter().map(|text| bulk(text)).collect())
}

/// Returns a time of the server's clock, which equals the local clock.
fn time(ms: u64) -> Value {
    texts(&[&(ms / 1_000).to_string(), &(ms % 1_000 * 1_000).to_string()])
}

/// Counts of one queue.
#[derive(Clone, Copy, Default)]
struct Queue<'a> {
    waiting: i64,
    intermediate: i64,
    running: i64,
    lost: i64,
    due: i64,
    later: Option<&'a str>,
    workers: &'a [&'a str],
}

impl Queue<'_> {
    fn replies(self) -> Vec<Value> {
        let next = self.later.map_or_else(Vec::new, |score| vec![bulk("job"), bulk(score)]);
        vec![
            Value::Int(self.waiting),
            Value::Int(self.intermediate),
            if self.waiting > 0 { bulk("head") } else { Value::Nil },
            Value::Int(self.running),
            Value::Int(self.running + self.lost),
            Value::Int(self.due),
            Value::Int(self.due + i64::from(self.later.is_some())),
            Value::Array(next),
            Value::Int(0),
            Value::Array(self.workers.iter().map(|name| bulk(&format!("rq:worker:{name}"))).collect()),
        ]
    }
}

const NOW: u64 = 1_700_000_000_000;

/// Reads queues with these replies about their workers and heads.
fn read(suspended: i64, queues: &[Queue<'_>], second: &[Value]) -> Observed {
    let names: Vec<&str> = ["mail", "news"][..queues.len()].to_vec();
    let spec = spec(&names);
    let mut reader = spec.kind.reader(&spec);
    reader.note_time(Timestamp(NOW));
    let mut replies = vec![time(NOW), Value::Int(suspended)];
    replies.extend(queues.iter().flat_map(|queue| queue.replies()));
    let mut again = false;
    loop {
        let commands = reader.commands(&spec, Scripts::ReadOnly);
        assert_eq!(commands.len(), replies.len(), "one reply for each command");
        match reader.interpret(&spec, replies.clone(), Scripts::ReadOnly) {
            Interpretation::Complete(observed) => return observed,
            Interpretation::Again if !again => again = true,
            Interpretation::Ask(ask) => {
                assert_eq!(ask.commands.len(), second.len());
                match reader.complete(&spec, *ask, Ok(Value::Array(second.to_vec()))) {
                    Interpretation::Complete(observed) => return observed,
                    other => panic!("the second request is the last: {other:?}"),
                }
            }
            other => panic!("not expected: {other:?}"),
        }
    }
}

fn reading(observed: &Observed) -> &FrameworkReading {
    observed.framework.as_deref().expect("a framework tells")
}

fn said(state: &str) -> Value {
    Value::Array(vec![bulk(state), Value::Nil, bulk("2023-11-14T22:00:00.000000Z")])
}

#[test]
fn depth_is_what_waits_runs_and_is_due_in_all_queues() {
    let mail = Queue { waiting: 3, running: 2, lost: 1, ..Queue::default() };
    let news = Queue { due: 4, later: Some("1700000060"), ..Queue::default() };
    let observed = read(0, &[mail, news], &[bulk("2023-11-14T22:13:10.000000Z")]);
    assert_eq!((&observed.demand.lag, &observed.demand.pending), (&Reading::Known(8), &Reading::Known(2)));
    assert_eq!(observed.demand.oldest, Reading::Known(Some(Timestamp(NOW - 10_000))));
    let FrameworkReading { work, look_at, .. } = reading(&observed);
    assert_eq!((work.waiting, work.due, work.later), (3, 5, 1), "a lost job is due: a worker that starts frees it");
    assert_eq!(work.next_due, Some(Timestamp(NOW + 60_000)));
    assert!(look_at.is_some_and(|at| at > Timestamp(NOW + 60_000) && at < Timestamp(NOW + 60_040)));
}

#[test]
fn a_worker_is_what_it_says_and_one_that_says_nothing_may_be_busy() {
    let queue = Queue { workers: &["a", "b", "dead", "gone"], running: 1, ..Queue::default() };
    let dead = Value::Array(vec![bulk("idle"), bulk("2023-11-14T22:13:10Z"), Value::Nil]);
    let second = vec![said("busy"), said("idle"), dead, Value::Array(vec![Value::Nil, Value::Nil, Value::Nil])];
    let observed = read(0, &[queue], &second);
    let occupation = &reading(&observed).occupation;
    let is_busy = ["a", "b", "dead", "gone", "never-heard"].map(|name| occupation.is_busy(name));
    assert_eq!(is_busy, [Some(true), Some(false), None, None, None]);
}

#[test]
fn a_worker_that_has_just_started_is_not_let_go() {
    let queue = Queue { workers: &["a"], ..Queue::default() };
    // The worker is one second old.
    let new = Value::Array(vec![bulk("idle"), Value::Nil, bulk("2023-11-14T22:13:19.000000Z")]);
    let observed = read(0, &[queue], &[new]);
    assert_eq!(reading(&observed).occupation.is_busy("a"), Some(true));
    assert_eq!(reading(&observed).look_at, Some(Timestamp(NOW + 2_000)));
}

#[test]
fn a_job_between_queue_and_worker_makes_every_worker_busy() {
    let queue = Queue { workers: &["a"], intermediate: 1, ..Queue::default() };
    let observed = read(0, &[queue], &[said("idle")]);
    assert_eq!(observed.demand.pending, Reading::Known(1));
    assert_eq!(reading(&observed).occupation.is_busy("a"), Some(true));
}

#[test]
fn suspended_workers_take_nothing_and_go_on_with_what_they_have() {
    let queue = Queue { waiting: 3, running: 1, due: 1, later: Some("1700000060"), ..Queue::default() };
    let observed = read(1, &[queue], &[Value::Nil]);
    assert_eq!((&observed.demand.lag, &observed.demand.pending), (&Reading::Known(0), &Reading::Known(1)));
    assert_eq!((&reading(&observed).work.paused[..], reading(&observed).look_at), (&["mail".to_owned()][..], None));
}

#[test]
fn an_empty_queue_needs_one_request_and_another_type_is_a_failure() {
    let observed = read(0, &[Queue::default()], &[]);
    assert_eq!(observed.demand.depth(), Reading::Known(0));
    assert_eq!(observed.demand.oldest, Reading::Known(None));
    let spec = spec(&["mail"]);
    let mut reader = spec.kind.reader(&spec);
    reader.note_time(Timestamp(NOW));
    let wrong = redis::parse_redis_value(b"-WRONGTYPE no list\r\n").expect("it is a reply");
    match reader.interpret(&spec, vec![wrong], Scripts::ReadOnly) {
        Interpretation::Complete(failed) => assert!(failed.is_foreign && failed.demand.lag.known().is_none()),
        other => panic!("a refusal is final: {other:?}"),
    }
}
