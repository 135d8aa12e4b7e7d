//! Formats the jobs of a framework: what waits, runs, is due and comes later.

use super::words::{NONE, duration, printable, reading};
use crate::model::{Timestamp, snapshot::TypeSnapshot};

/// Headings of [`row`].
pub(super) const HEADINGS: [&str; 8] =
    ["TYPE", "FRAMEWORK", "WAITING", "RUNNING", "DUE", "LATER", "NEXT DUE", "PAUSED"];

/// Returns the jobs of a worker type; `None` if its queues are not those of a framework.
pub(super) fn row(of: &TypeSnapshot, now: Timestamp) -> Option<[String; 8]> {
    let work = of.work.as_deref()?;
    let next_due = work.next_due.map_or_else(|| NONE.to_owned(), |at| format!("in {}", duration(at.since(now))));
    let paused = if work.paused.is_empty() { NONE.to_owned() } else { printable(&work.paused.join(", ")) };
    Some([
        of.worker_type.to_string(),
        work.framework.clone(),
        work.waiting.to_string(),
        reading(&work.running),
        work.due.to_string(),
        work.later.to_string(),
        next_due,
        paused,
    ])
}

/// Formats the same in a line: `3 waiting + 1 running + 0 due; 2 later, the next in 40 s; paused: mail`.
pub(super) fn line(of: &TypeSnapshot, now: Timestamp) -> Option<String> {
    let work = of.work.as_deref()?;
    let mut parts = vec![format!("{} waiting + {} running + {} due", work.waiting, reading(&work.running), work.due)];
    if work.later > 0 {
        parts.push(format!("; {} later", work.later));
    }
    if let Some(at) = work.next_due {
        parts.push(format!(", the next in {}", duration(at.since(now))));
    }
    if let Some(limit) = work.limit {
        parts.push(format!("; the framework runs at most {limit}"));
    }
    if !work.paused.is_empty() {
        parts.push(format!("; paused: {}", printable(&work.paused.join(", "))));
    }
    Some(parts.concat())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        model::{Reading, Work},
        operations::view::fleet,
    };

    #[test]
    fn every_part_of_the_work_is_shown_and_what_is_unknown_is_not_zero() {
        let mut of = TypeSnapshot::clone(&fleet::made_up().worker_types[0]);
        assert_eq!((row(&of, Timestamp(0)), line(&of, Timestamp(0))), (None, None));
        of.work = Some(Arc::new(Work {
            framework: "rq".to_owned(),
            waiting: 3,
            running: Reading::Unknown("why".to_owned()),
            due: 1,
            later: 2,
            next_due: Some(Timestamp(40_000)),
            paused: vec!["mail".to_owned()],
            limit: Some(4),
        }));
        let expected =
            "3 waiting + ? running + 1 due; 2 later, the next in 40 s; the framework runs at most 4; paused: mail";
        assert_eq!(line(&of, Timestamp(0)).as_deref(), Some(expected));
        let row = row(&of, Timestamp(0)).expect("it is a framework's");
        assert_eq!(row[1..], ["rq", "3", "?", "1", "2", "in 40 s", "mail"]);
    }
}
