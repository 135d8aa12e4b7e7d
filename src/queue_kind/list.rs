//! A Redis list that workers pop from. Its length is the backlog. The server forgets a job that a worker has popped, so
//! only the workers themselves can report whether they are busy.

use redis::{Cmd, Value};

use super::{
    Delivery, Idleness, Interpretation, Observed, Profile, QueueReader, QueueSpec, Scripts, explain,
    reply::{self, refusal},
};
use crate::model::{Demand, Reading};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct List;

impl Profile for List {
    fn name(&self) -> &'static str {
        "list"
    }

    fn redis_type(&self) -> &'static str {
        "list"
    }

    fn event_flags(&self) -> &'static str {
        "l"
    }

    fn arrival_events(&self) -> &'static [&'static str] {
        &["lpush", "rpush"]
    }

    fn delivery(&self) -> Delivery {
        Delivery::Removal
    }

    fn is_native(&self) -> bool {
        false
    }

    fn content(&self, key: &str) -> Cmd {
        redis::cmd("LLEN").arg(key).to_owned()
    }

    fn reader(&self, _: &QueueSpec) -> Box<dyn QueueReader> {
        Box::new(Self)
    }

    fn rights(&self, _: &str) -> Vec<(&'static str, Vec<String>)> {
        vec![("llen", Vec::new())]
    }
}

impl QueueReader for List {
    fn commands(&mut self, spec: &QueueSpec, _: Scripts) -> Vec<Cmd> {
        vec![self.content(&spec.key)]
    }

    fn interpret(&mut self, spec: &QueueSpec, replies: Vec<Value>, _: Scripts) -> Interpretation {
        let length = replies.into_iter().next().ok_or_else(reply::missing).and_then(length);
        Interpretation::Complete(match length {
            Ok(length) => Observed::of(demand(length, spec.idleness), Reading::Known(Vec::new())),
            Err(error) => {
                let is_foreign = error.contains("WRONGTYPE");
                Observed { is_foreign, ..Observed::failed(&explain(&spec.key, &error)) }
            }
        })
    }
}

fn length(value: Value) -> Result<u64, String> {
    match value {
        Value::Int(length) => Ok(u64::try_from(length).unwrap_or(0)),
        other => Err(refusal(&other).unwrap_or_else(|| format!("unexpected reply to LLEN: {other:?}"))),
    }
}

fn demand(length: u64, idleness: Idleness) -> Demand {
    Demand {
        lag: Reading::Known(length),
        pending: match idleness {
            // Heartbeats count the busy workers, or busy workers do not matter.
            Idleness::Stated | Idleness::EmptyQueue => Reading::Known(0),
            Idleness::Unknown => Reading::Unknown(
                "a list does not tell whether a worker took its last job; heartbeats (worker.heartbeats) would, or \
                 worker.idle = \"empty_queue\" if its workers may be stopped at any time"
                    .to_owned(),
            ),
        },
        oldest: if length == 0 {
            Reading::Known(None)
        } else {
            Reading::Unknown("a list does not tell how old its entries are".to_owned())
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue_kind::QueueKind;

    fn observed(reply: Value, idleness: Idleness) -> Observed {
        let spec = QueueSpec { idleness, ..QueueSpec::new("q", "g", QueueKind::List) };
        match List.interpret(&spec, vec![reply], Scripts::ReadOnly) {
            Interpretation::Complete(observed) => observed,
            other => panic!("a list is read at once: {other:?}"),
        }
    }

    #[test]
    fn an_emptied_list_is_idle_only_if_workers_say_so_or_may_be_stopped() {
        assert_eq!(observed(Value::Int(0), Idleness::Stated).demand.depth(), Reading::Known(0));
        assert_eq!(observed(Value::Int(0), Idleness::EmptyQueue).demand.depth(), Reading::Known(0));
        let unknown = observed(Value::Int(0), Idleness::Unknown).demand;
        assert_eq!((unknown.lag.known(), unknown.depth().known()), (Some(&0), None));
        assert!(unknown.depth().why_not().is_some_and(|why| why.contains("worker.idle")), "{unknown:?}");
        assert_eq!(observed(Value::Int(3), Idleness::Unknown).demand.at_least(), Some(3), "it still raises");
    }

    #[test]
    fn another_type_is_a_failure_that_names_the_cure() {
        let wrong = redis::parse_redis_value(b"-WRONGTYPE Operation against a key\r\n").expect("it is a reply");
        let observed = observed(wrong, Idleness::Stated);
        assert!(observed.is_foreign);
        assert!(observed.demand.lag.why_not().is_some_and(|why| why.contains("set `kind`")), "{observed:?}");
    }
}
