use super::*;
use crate::{model::Reading, queue_kind::QueueKind};

fn spec() -> QueueSpec {
    QueueSpec::new("q", "g", QueueKind::Stream)
}

fn bulk(text: &str) -> Value {
    Value::BulkString(text.as_bytes().to_vec())
}

fn map(fields: &[(&str, Value)]) -> Value {
    Value::Map(fields.iter().map(|(name, value)| (bulk(name), value.clone())).collect())
}

fn entry(id: &str, bytes: usize) -> Value {
    Value::Array(vec![bulk(id), Value::Array(vec![bulk("json"), bulk(&"x".repeat(bytes))])])
}

fn groups(lag: Value) -> Value {
    let fields = [
        ("name", bulk("g")),
        ("pending", Value::Int(0)),
        ("last-delivered-id", bulk("1700000000001-0")),
        ("entries-read", Value::Nil),
        ("lag", lag),
    ];
    Value::Array(vec![map(&fields)])
}

fn no_pending() -> Value {
    Value::Array(vec![Value::Int(0), Value::Nil, Value::Nil, Value::Nil])
}

fn stream_of(bytes: usize) -> Value {
    map(&[
        ("length", Value::Int(3)),
        ("last-generated-id", bulk("1700000000009-0")),
        ("entries-added", Value::Int(9)),
        ("first-entry", entry("1700000000001-0", bytes)),
        ("last-entry", entry("1700000000009-0", bytes)),
    ])
}

fn words(command: &Cmd) -> Vec<String> {
    let words = command.args_iter().map(|word| match word {
        redis::Arg::Simple(word) => String::from_utf8_lossy(word).into_owned(),
        _ => panic!("no command has a cursor"),
    });
    words.collect()
}

fn first_words(reader: &mut StreamReader, scripts: Scripts) -> Vec<String> {
    let named = |command: &Cmd| match &words(command)[..2] {
        [script, _] if script.starts_with("EVAL") => script.clone(),
        words => words.join(" "),
    };
    reader.commands(&spec(), scripts).iter().map(named).collect()
}

#[test]
fn large_entries_are_read_once_and_then_summed_up_by_a_script() {
    let mut reader = StreamReader::default();
    assert_eq!(first_words(&mut reader, Scripts::ReadOnly), ["XINFO GROUPS", "XINFO STREAM", "XPENDING q"]);
    let replies = vec![groups(Value::Int(0)), stream_of(100_000), no_pending()];
    reader.interpret(&spec(), replies, Scripts::ReadOnly);
    assert_eq!(first_words(&mut reader, Scripts::ReadOnly), ["XINFO GROUPS", "EVAL_RO", "XPENDING q"]);
    assert_eq!(first_words(&mut reader, Scripts::Eval), ["XINFO GROUPS", "EVAL", "XPENDING q"]);
    assert_eq!(first_words(&mut reader, Scripts::Refused), ["XINFO GROUPS", "XINFO STREAM", "XPENDING q"]);

    let replies = vec![groups(Value::Nil), summary(10, Some(10)), no_pending()];
    let Interpretation::Ask(ask) = reader.interpret(&spec(), replies, Scripts::ReadOnly) else { panic!("nil lag") };
    assert_eq!(words(&ask.commands[0])[2..], ["1", "q", "(1700000000001-0", "1000", "1048576", "10"]);
    assert_eq!(
        first_words(&mut reader, Scripts::ReadOnly),
        ["XINFO GROUPS", "XINFO STREAM", "XPENDING q"],
        "they are small again"
    );
}

/// Returns the reply of the script to the stream of [`stream_of`].
fn summary(first_bytes: i64, last_bytes: Option<i64>) -> Value {
    let mut parts = vec![Value::Int(3)];
    parts.extend(["1700000000009-0", "1700000000001-0", "1700000000009-0"].map(bulk));
    parts.extend([Value::Int(9), bulk("1700000000005-0"), Value::Int(first_bytes)]);
    parts.push(last_bytes.map_or(Value::Nil, Value::Int));
    Value::Array(parts)
}

/// The last entry is read again when the first one is small.
#[test]
fn the_last_entry_is_left_out_while_the_first_one_is_large_for_so_many_consumers() {
    let with = |consumers: i64| match groups(Value::Int(0)) {
        Value::Array(mut groups) => {
            let Value::Map(fields) = &mut groups[0] else { panic!("a group is a map") };
            fields.push((bulk("consumers"), Value::Int(consumers)));
            Value::Array(groups)
        }
        _ => panic!("it is a list of groups"),
    };
    let mut reader = StreamReader::default();
    let mut after = |consumers, stream| {
        reader.interpret(&spec(), vec![with(consumers), stream, no_pending()], Scripts::ReadOnly);
        words(&reader.commands(&spec(), Scripts::ReadOnly)[1]).pop()
    };
    assert_eq!(after(50, stream_of(100_000)).as_deref(), Some("both"));
    assert_eq!(after(48, stream_of(100_000)).as_deref(), Some("first"));
    assert_eq!(after(3, summary(100_000, None)).as_deref(), Some("first"));
    assert_eq!(after(3, summary(10, None)).as_deref(), Some("both"), "the last one was large");
    assert_eq!(after(3, summary(10, Some(10))).as_deref(), Some("q"), "all are small");
}

#[test]
fn where_scripts_are_refused_a_count_is_bounded_by_the_bytes_of_an_entry() {
    let mut reader = StreamReader::default();
    let replies = || vec![groups(Value::Nil), stream_of(65_000), no_pending()];
    let Interpretation::Ask(ask) = reader.interpret(&spec(), replies(), Scripts::Refused) else { panic!("nil lag") };
    assert_eq!(words(&ask.commands[0]), ["XRANGE", "q", "(1700000000001-0", "+", "COUNT", "4"]);
    let all = Value::Array(vec![entry("1700000000008-0", 1), entry("1700000000009-0", 1)]);
    let Interpretation::Complete(observed) = reader.complete(&spec(), *ask, Ok(all)) else { panic!() };
    assert_eq!(observed.demand.lag, Reading::Known(2));
}

#[test]
fn a_refused_script_is_told_apart_from_a_failed_one() {
    let refused = |reply: &str| {
        let mut reader = StreamReader::default();
        reader.memory.first_bytes = LARGE_ENTRY_BYTES;
        let reply = redis::parse_redis_value(format!("-{reply}\r\n").as_bytes()).expect("it is a reply");
        let replies = vec![groups(Value::Nil), reply, no_pending()];
        matches!(reader.interpret(&spec(), replies, Scripts::ReadOnly), Interpretation::ScriptRefused)
    };
    assert!(refused("ERR unknown command 'EVAL_RO', with args beginning with: "));
    assert!(refused("NOPERM this user has no permissions to run the 'eval_ro' command"));
    assert!(!refused("WRONGTYPE Operation against a key holding the wrong kind of value"));
}

#[test]
fn ids_that_are_not_times_are_warned_of_once() {
    let mut reader = StreamReader::default();
    let mut warnings = Vec::new();
    for _ in 0..2 {
        let stream = map(&[
            ("length", Value::Int(1)),
            ("last-generated-id", bulk("7-1")),
            ("first-entry", entry("7-1", 1)),
            ("last-entry", entry("7-1", 1)),
        ]);
        let replies = vec![Value::Array(Vec::new()), stream, no_pending()];
        let Interpretation::Complete(observed) = reader.interpret(&spec(), replies, Scripts::ReadOnly) else {
            panic!()
        };
        warnings.extend(observed.warning);
    }
    assert_eq!(warnings.len(), 1);
}
