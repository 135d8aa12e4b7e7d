//! Formats the queues of a worker type with several: as a sum, and as rows of a table.

use super::words::{NONE, UNKNOWN, duration, printable, reading};
#[cfg(test)]
use crate::model::QueueDemands;
use crate::model::{Combine, QueueDemand, Reading, Timestamp, snapshot::TypeSnapshot};

/// Maximum queues that a sum names. It combines the others.
const NAMED: usize = 8;

/// Formats the names of queues: `browser:jobs and 3 more`.
pub(crate) fn names(of: &TypeSnapshot) -> String {
    let own = printable(&of.queue);
    match of.queues.as_deref().map_or(0, |queues| queues.count.saturating_sub(1)) {
        0 => own,
        more => format!("{own} and {more} more"),
    }
}

/// Formats the depth: `12 = browser:jobs 3 + urgent:jobs 9 (sum)`, `9 = max of browser:jobs 3, urgent:jobs 9`. `None`
/// for a single queue.
pub(crate) fn sum(of: &TypeSnapshot) -> Option<String> {
    let at_least = if of.demand.depth().known().is_some() { "" } else { "at least " };
    let of = of.queues.as_deref()?;
    let jobs = |jobs: Option<u64>| jobs.map_or_else(|| UNKNOWN.to_owned(), |jobs| jobs.to_string());
    let named = &of.shown[..of.shown.len().min(NAMED)];
    let one = |of: &QueueDemand| format!("{} {}", printable(&of.queue), reading(&of.demand.depth()));
    let mut parts: Vec<String> = named.iter().map(one).collect();
    let others = of.count.saturating_sub(named.len());
    if others > 0 {
        let theirs = named.iter().filter_map(|of| of.demand.at_least()).fold(0, u64::saturating_add);
        let theirs = of.unfinished.map(|all| all.saturating_sub(theirs));
        parts.push(format!("{others} {} {}", if others == 1 { "other" } else { "others" }, jobs(theirs)));
    }
    let sized_by = jobs(of.sized_by());
    Some(match of.combine {
        Combine::Sum => format!("{at_least}{sized_by} = {} (sum)", parts.join(" + ")),
        Combine::Max => format!("{at_least}{sized_by} = max of {}", parts.join(", ")),
    })
}

/// Headings of [`rows`].
pub(super) const HEADINGS: [&str; 6] = ["TYPE", "QUEUE", "LAG", "PENDING", "OLDEST", ""];

/// Returns a row for each shown queue of a worker type, one for the others together, and one for the depth.
pub(super) fn rows(of: &TypeSnapshot, now: Timestamp) -> Vec<[String; 6]> {
    let Some(queues) = of.queues.as_deref() else { return Vec::new() };
    let one = |queue: &QueueDemand| {
        let oldest = match &queue.demand.oldest {
            Reading::Known(Some(at)) => duration(now.since(*at)),
            Reading::Known(None) => NONE.to_owned(),
            _ => UNKNOWN.to_owned(),
        };
        let is_longest =
            queues.longest.as_ref().is_some_and(|longest| longest.queue == queue.queue && longest.jobs > 0);
        let note = match queue.demand.depth().why_not() {
            Some(why) => printable(why),
            None if queues.combine == Combine::Max && is_longest => "the longest: workers are scaled by it".to_owned(),
            None => String::new(),
        };
        let [lag, pending] = [&queue.demand.lag, &queue.demand.pending].map(reading);
        [of.worker_type.to_string(), printable(&queue.queue), lag, pending, oldest, note]
    };
    let mut rows: Vec<_> = queues.shown.iter().map(one).collect();
    if queues.left_out() > 0 {
        let more = format!("and {} more", queues.left_out());
        let [lag, pending, oldest, note] = [(); 4].map(|()| String::new());
        rows.push([of.worker_type.to_string(), more, lag, pending, oldest, note]);
    }
    rows
}

/// Returns queues for tests of views.
#[cfg(test)]
pub(crate) fn made_up(combine: Combine) -> QueueDemands {
    use crate::model::{Demand, LongestQueue};

    let known = |queue: &str, lag, pending| QueueDemand {
        queue: queue.into(),
        demand: Demand {
            lag: Reading::Known(lag),
            pending: Reading::Known(pending),
            oldest: Reading::Known((lag + pending > 0).then_some(Timestamp(48_000))),
        },
    };
    QueueDemands {
        combine,
        count: 2,
        waiting: 31,
        unfinished: Some(37),
        longest: Some(LongestQueue { queue: "urgent:jobs".into(), jobs: 29 }),
        shown: vec![known("browser:jobs", 2, 6), known("urgent:jobs", 29, 0)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Demand, operations::view::fleet};

    #[test]
    fn a_sum_names_the_queues_and_what_it_does_not_name_it_counts() {
        let mut of = TypeSnapshot::clone(&fleet::made_up().worker_types[0]);
        let mut told = |queues: QueueDemands| {
            of.demand.lag =
                if queues.count > 2 { Reading::Failed("no".to_owned()) } else { Reading::Known(queues.waiting) };
            of.queues = Some(queues.into());
            sum(&of).expect("there are several")
        };
        assert_eq!(told(made_up(Combine::Sum)), "37 = browser:jobs 8 + urgent:jobs 29 (sum)");
        assert_eq!(told(made_up(Combine::Max)), "29 = max of browser:jobs 8, urgent:jobs 29");
        let mut many = made_up(Combine::Sum);
        (many.count, many.unfinished) = (40, Some(50));
        many.shown.push(QueueDemand { queue: "bad\u{7}".into(), demand: Demand::failed("no") });
        assert_eq!(
            told(many),
            "at least 50 = browser:jobs 8 + urgent:jobs 29 + bad\u{fffd} ? + 37 others 13 (sum)",
            "what may be in the one that can't be read is not counted"
        );
    }
}
