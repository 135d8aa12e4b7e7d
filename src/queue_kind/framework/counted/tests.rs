use super::*;
use crate::queue_kind::{Framework, FrameworkReading, QueueKind};

/// Reads one queue that consists of a list, a schedule and its running jobs.
fn read(waiting: i64, running: i64, meta: &[Value; 2]) -> Box<FrameworkReading> {
    let framework = Framework::BullMq;
    let spec = Arc::new(FrameworkSpec::of(framework, &["mail"]));
    let queue = QueueSpec {
        framework: Some(spec.clone()),
        ..QueueSpec::new("bull:mail:wait", "", QueueKind::Framework(framework))
    };
    let part = |rest: &str| format!("bull:mail:{rest}");
    let mut reader = CountedReader::new(
        &spec,
        |_, _| vec![Part::Waiting(part("wait")), Part::Running(part("active")), Part::Meta(part("meta"))],
        true,
    );
    let zero = || Value::BulkString(b"0".to_vec());
    let replies = [Value::Array(vec![zero(), zero()]), Value::Int(waiting), Value::Int(running)];
    let replies = replies.into_iter().chain([Value::Array(meta.to_vec())]).collect();
    match reader.interpret(&queue, replies, Scripts::ReadOnly) {
        Interpretation::Complete(observed) => observed.framework.expect("a framework tells"),
        other => panic!("counts are complete: {other:?}"),
    }
}

#[test]
fn workers_are_idle_only_while_no_job_runs() {
    assert_eq!(read(3, 0, &[Value::Nil, Value::Nil]).occupation, Occupation::AllIdle);
    assert_eq!(read(0, 1, &[Value::Nil, Value::Nil]).occupation, Occupation::Unknown);
}

/// Reads an empty list whose running jobs are hidden, at a time in seconds, with the age of the last change.
fn read_hidden(reader: &mut CountedReader, at: u64, news: Option<u64>, is_hearing: bool) -> Box<FrameworkReading> {
    let queue = QueueSpec::new("taskiq", "", QueueKind::Framework(Framework::Taskiq));
    reader.note_time(Timestamp(at * 1_000));
    reader.note_heard(Heard { workers: Vec::new(), news_age: news.map(Duration::from_secs), is_hearing });
    let time = Value::Array([at, 0].map(|part| Value::BulkString(part.to_string().into_bytes())).to_vec());
    loop {
        assert_eq!(reader.commands(&queue, Scripts::ReadOnly).len(), 2);
        match reader.interpret(&queue, vec![time.clone(), Value::Int(0)], Scripts::ReadOnly) {
            Interpretation::Complete(observed) => return observed.framework.expect("a framework tells"),
            Interpretation::Again => {}
            other => panic!("counts are complete: {other:?}"),
        }
    }
}

fn hidden(longest_job: Option<Duration>) -> CountedReader {
    let spec = FrameworkSpec { longest_job, ..FrameworkSpec::of(Framework::Taskiq, &["taskiq"]) };
    CountedReader::new(&Arc::new(spec), |_, queue| vec![Part::Waiting(queue.to_owned())], false)
}

#[test]
fn hidden_jobs_have_ended_when_nothing_has_changed_for_longer_than_the_longest() {
    let mut reader = hidden(Some(Duration::from_secs(10)));
    let reading = read_hidden(&mut reader, 100, None, true);
    assert_eq!((reading.occupation, reading.look_at), (Occupation::Unknown, Some(Timestamp(110_500))));
    assert_eq!(reading.work.running.known(), None, "unknown, not 0");
    assert_eq!(read_hidden(&mut reader, 111, Some(4), true).occupation, Occupation::Unknown, "a job was taken");
    assert_eq!(read_hidden(&mut reader, 118, Some(11), true).occupation, Occupation::AllIdle);
    assert_eq!(read_hidden(&mut reader, 119, Some(12), false).occupation, Occupation::Unknown, "it hears nothing");
    assert_eq!(read_hidden(&mut reader, 120, Some(13), true).occupation, Occupation::Unknown, "it missed a second");
    assert_eq!(read_hidden(&mut reader, 131, Some(24), true).occupation, Occupation::AllIdle);
    let reading = read_hidden(&mut hidden(None), 200, Some(1_000), true);
    assert_eq!((reading.occupation, reading.look_at), (Occupation::Unknown, None), "the longest job is not known");
}

#[test]
fn jobs_wait_in_a_list_or_in_a_sorted_set() {
    let refused = || redis::parse_redis_value(b"-WRONGTYPE no\r\n").expect("it is a reply");
    let count = |list: Value, set: Value| {
        let mut count = QueueCount::default();
        let taken = count.take(&Part::WaitingEither("huey".to_owned()), &mut Replies::new(vec![list, set]));
        taken.map(|()| count.waiting)
    };
    assert_eq!(count(Value::Int(2), refused()), Ok(2));
    assert_eq!(count(refused(), Value::Int(3)), Ok(3));
    assert_eq!(count(Value::Int(0), Value::Int(0)), Ok(0), "the key does not exist");
    assert!(count(refused(), refused()).is_err());
}

#[test]
fn a_paused_queue_waits_for_nobody_and_a_limit_is_told() {
    let limit = Value::BulkString(b"4".to_vec());
    let reading = read(3, 1, &[Value::BulkString(b"1".to_vec()), limit]);
    assert_eq!((reading.work.waiting, reading.work.limit), (0, Some(4)));
    assert_eq!(reading.work.paused, ["mail"]);
}

#[test]
fn scores_are_times_in_the_units_of_the_frameworks() {
    for (unit, score) in [(Unit::Seconds, 2.5), (Unit::Milliseconds, 2_500.0), (Unit::Bull, 2_500.0 * 4_096.0 + 7.0)] {
        assert_eq!(unit.ms(score), 2_500, "{unit:?}");
    }
    assert_eq!(Unit::Bull.due(2_500), (2_501_u64 * 4_096 - 1).to_string(), "every counter of the millisecond is due");
    assert_eq!(Unit::Seconds.due(2_500), "2.500");
}

/// Returns what one queue counts, by the numbers of its parts.
fn counters(parts: &[(Part, i64)]) -> Counters {
    let mut count = QueueCount::default();
    for (part, number) in parts {
        count.take(part, &mut Replies::new(vec![Value::Int(*number)])).expect("it is a count");
    }
    count.counters()
}

#[test]
fn what_was_added_and_what_has_ended_tell_how_many_have_begun() {
    let key = String::new;
    let (waiting, running) = ((Part::Waiting(key()), 3), (Part::Running(key()), 2));
    let both = [waiting.clone(), running.clone()];
    let with = |more: (Part, i64)| counters(&[both.as_slice(), &[more]].concat());
    let expected = |added, read| Counters { added: Some(added), read: Some(read), running: Some(2) };
    assert_eq!(with((Part::Added(key()), 10)), expected(10, 7));
    assert_eq!(with((Part::Ended(key()), 10)), expected(15, 12));
    assert_eq!(with((Part::Added(key()), 2)).read, None, "somebody has emptied the counter");
    assert_eq!(counters(&both), Counters::default());
    let paused = [both.as_slice(), &[(Part::Added(key()), 10), (Part::PausedByKey(key()), 1)]].concat();
    assert_eq!(counters(&paused), Counters::default());
    assert_eq!(plus(expected(1, 1), expected(2, 1)).added, Some(3));
    assert_eq!(plus(expected(1, 1), Counters::default()), Counters::default());
}
