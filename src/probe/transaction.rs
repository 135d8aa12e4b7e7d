//! The commands of one reading that are sent as a transaction, within a pipeline of many readings.

use redis::{Cmd, Pipeline, Value};

use crate::queue_kind::reply::refusal;

/// Adds commands to a pipeline.
pub(super) fn add_commands(pipeline: &mut Pipeline, commands: Vec<Cmd>, one_transaction: bool) {
    if one_transaction {
        pipeline.cmd("MULTI");
    }
    for command in commands {
        pipeline.add_command(command);
    }
    if one_transaction {
        pipeline.cmd("EXEC");
    }
}

/// Takes the replies to `count` commands out of those to a pipeline.
pub(super) fn replies(all: &mut impl Iterator<Item = Value>, count: usize, one_transaction: bool) -> Vec<Value> {
    if !one_transaction {
        return all.by_ref().take(count).collect();
    }
    let mut told: Vec<Value> = all.by_ref().take(count + 2).collect();
    match told.pop() {
        Some(Value::Array(replies)) => replies,
        // Aborted: the command that was refused says why.
        aborted => told.into_iter().find(|reply| refusal(reply).is_some()).or(aborted).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_its_replies_or_why_it_was_refused() {
        let queued = || Value::SimpleString("QUEUED".to_owned());
        let of = |last: Value| vec![Value::Okay, queued(), queued(), last, Value::Int(9)].into_iter();
        let mut all = of(Value::Array(vec![Value::Int(1), Value::Int(2)]));
        assert_eq!(replies(&mut all, 2, true), [Value::Int(1), Value::Int(2)]);
        assert_eq!(all.next(), Some(Value::Int(9)), "what follows is another reading's");
        let error = |text: &str| redis::parse_redis_value(text.as_bytes()).expect("it is a reply");
        let refused = error("-NOPERM no\r\n");
        let aborted = [Value::Okay, queued(), refused.clone(), error("-EXECABORT discarded\r\n")];
        assert_eq!(replies(&mut aborted.into_iter(), 2, true), [refused]);
        assert_eq!(replies(&mut of(Value::Nil), 2, false), [Value::Okay, queued()]);
    }
}
