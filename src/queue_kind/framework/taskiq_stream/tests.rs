use super::*;
use crate::queue_kind::Framework;

const NOW: u64 = 1_700_000_000_000;

fn bulk(text: &str) -> Value {
    Value::BulkString(text.as_bytes().to_vec())
}

fn map(fields: &[(&str, Value)]) -> Value {
    Value::Map(fields.iter().map(|(name, value)| (bulk(name), value.clone())).collect())
}

/// Reads a stream of 3 entries whose group has `pending` of them, on the first consumer. The server does not tell the
/// lag, and a count finds `counted` entries.
fn read(pending: i64, counted: Option<usize>) -> Observed {
    let framework = FrameworkSpec::of(Framework::TaskiqStream, &["taskiq"]);
    let kind = QueueKind::Framework(Framework::TaskiqStream);
    let spec = QueueSpec { framework: Some(Arc::new(framework)), ..QueueSpec::new("taskiq", "", kind) };
    let mut reader = spec.kind.reader(&spec);
    reader.note_time(Timestamp(NOW));
    let id = |offset: u64| bulk(&format!("{}-0", NOW - offset));
    let last_delivered = if counted.is_some() { id(3_000) } else { id(1_000) };
    let group = map(&[
        ("name", bulk("taskiq")),
        ("pending", Value::Int(pending)),
        ("last-delivered-id", last_delivered),
        ("entries-read", Value::Nil),
        ("lag", Value::Nil),
    ]);
    let entry = |offset: u64| Value::Array(vec![id(offset), Value::Array(vec![bulk("data"), bulk("x")])]);
    let stream = map(&[
        ("length", Value::Int(3)),
        ("last-generated-id", id(1_000)),
        ("entries-added", Value::Int(7)),
        ("first-entry", entry(5_000)),
        ("last-entry", entry(1_000)),
    ]);
    let held = if pending == 0 {
        Value::Array(vec![Value::Int(0), Value::Nil, Value::Nil, Value::Nil])
    } else {
        let by = Value::Array(vec![Value::Array(vec![bulk("a"), bulk(&pending.to_string())])]);
        Value::Array(vec![Value::Int(pending), id(5_000), id(3_000), by])
    };
    let consumer = |name: &str, pending: i64| map(&[("name", bulk(name)), ("pending", Value::Int(pending))]);
    let consumers = Value::Array(vec![consumer("a", pending), consumer("b", 0)]);
    let time = Value::Array(vec![bulk(&(NOW / 1_000).to_string()), bulk("0")]);
    let replies = vec![time, Value::Array(vec![group]), stream, held, consumers];
    let ask = loop {
        assert_eq!(reader.commands(&spec, Scripts::ReadOnly).len(), replies.len());
        match reader.interpret(&spec, replies.clone(), Scripts::ReadOnly) {
            Interpretation::Ask(ask) => break ask,
            Interpretation::Again => {}
            Interpretation::Complete(observed) => return observed,
            Interpretation::ScriptRefused => panic!("there is no script"),
        }
    };
    let names: Vec<_> = ask.commands.iter().map(|command| command.args_iter().count()).collect();
    assert_eq!(names.len(), 1, "one stream is counted");
    let entries = (0..counted.expect("a count was expected")).map(|_| entry(1_000)).collect();
    match reader.complete(&spec, *ask, Ok(Value::Array(vec![Value::Array(entries)]))) {
        Interpretation::Complete(observed) => observed,
        other => panic!("the second request is the last: {other:?}"),
    }
}

#[test]
fn a_consumer_is_busy_while_tasks_are_pending_on_it() {
    let reading = read(2, None).framework.expect("a framework tells");
    let is_busy = ["a", "b", "c"].map(|name| reading.occupation.is_busy(name));
    assert_eq!(is_busy, [Some(true), Some(false), None]);
    assert_eq!((reading.work.waiting, reading.work.running), (0, Reading::Known(2)));
    assert_eq!(reading.look_at, Some(Timestamp(NOW + 2_000)), "an acknowledgement is not an event");
}

#[test]
fn without_pending_tasks_every_worker_is_idle_whatever_its_name() {
    let reading = read(0, None).framework.expect("a framework tells");
    assert_eq!((reading.occupation, reading.look_at), (Occupation::AllIdle, None));
}

#[test]
fn tasks_are_counted_if_the_server_does_not_know_the_lag() {
    let reading = read(0, Some(1)).framework.expect("a framework tells");
    assert_eq!(reading.work.waiting, 1);
}
