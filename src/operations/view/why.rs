//! Formats the last decision about a worker type as arithmetic.

use std::fmt::Write;

use super::{
    fleet, queues,
    words::{NONE, UNKNOWN, duration, printable, reading},
    work,
};
use crate::model::{
    PoolCounts, Reading, Timestamp,
    explanation::Explanation,
    snapshot::{FleetSnapshot, TypeSnapshot},
};

/// Formats the output of `swarm why`: the observation, the rules in order, and the time of the next evaluation.
pub(crate) fn text(of: &TypeSnapshot, fleet: &FleetSnapshot, now: Timestamp) -> String {
    let Explanation { decision, rules, .. } = Explanation::of(of, fleet);
    let outcome = decision.split_once(": ").map_or(decision, |(outcome, _)| outcome);
    let ago = |at: Timestamp| format!("{} ago", duration(now.since(at)));
    let sources: Vec<_> = of.sources.iter().map(|source| source.as_str()).collect();
    let looked = of.evaluated_at.map_or_else(|| "not yet".to_owned(), ago);
    let depth = of.demand.depth();
    let oldest = match &of.demand.oldest {
        Reading::Known(Some(at)) => ago(*at),
        Reading::Known(None) => NONE.to_owned(),
        _ => UNKNOWN.to_owned(),
    };
    let mut lines = vec![
        format!("{}: {}", of.worker_type, printable(outcome)),
        String::new(),
        format!(
            "looked       {looked}, because of: {}",
            if sources.is_empty() { NONE.to_owned() } else { sources.join(", ") }
        ),
        format!("queue        {}", queues::names(of)),
        format!(
            "depth        {} = {} waiting + {} delivered and unfinished{}",
            reading(&depth),
            reading(&of.demand.lag),
            reading(&of.demand.pending),
            fleet::read_ago(of, now).map_or_else(String::new, |age| format!(", read {age} ago"))
        ),
    ];
    lines.extend(work::line(of, now).map(|line| format!("jobs         {line}")));
    lines.extend(queues::sum(of).map(|sum| format!("scaled by    {sum}")));
    lines.extend([
        format!("oldest job   {oldest}"),
        format!("workers      {}", workers(&of.pool)),
        format!("bounds       {} to {}", of.min_workers, of.max_workers),
        String::new(),
    ]);
    lines.extend(rules.iter().enumerate().map(|(index, rule)| format!("{:>3}. {}", index + 1, printable(rule))));
    lines.push(format!("  => {}", printable(outcome)));
    lines.push(String::new());
    let again = of.recheck_at.map_or_else(|| "at the next signal or sweep".to_owned(), |_| fleet::looks_again(of, now));
    lines.push(format!("looks again  {again}"));
    let change = of
        .last_change
        .map_or_else(|| NONE.to_owned(), |change| format!("{} → {}, {}", change.from, change.to, ago(change.at)));
    lines.push(format!("last change  {change}"));
    lines.push(format!("leader       {}", fleet::leader(fleet, now)));
    for (what, error) in [("queue", depth.why_not()), ("backend", of.backend_error.as_deref())] {
        if let Some(error) = error {
            lines.push(format!("{:<12} {}", format!("{what}:"), printable(error)));
        }
    }
    if let Some(failures) = fleet::start_failures(of) {
        lines.push(format!("starts:      {failures}"));
    }
    lines.join("\n")
}

fn workers(pool: &Reading<PoolCounts>) -> String {
    let Some(pool) = pool.known() else { return UNKNOWN.to_owned() };
    let mut text =
        format!("{} = {} ready ({} busy) + {} starting", pool.current(), pool.ready, pool.busy, pool.starting);
    for (count, what) in [(pool.stalled, "stalled"), (pool.draining, "draining")] {
        if count > 0 {
            // Writing to a String can't fail.
            let _ = write!(text, "; not counted: {count} {what}");
        }
    }
    if let Some(places) = fleet::places(pool) {
        let _ = write!(text, "; {places}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_decision_reads_as_arithmetic() {
        let mut fleet = fleet::made_up();
        let browser = std::sync::Arc::make_mut(&mut fleet.worker_types[0]);
        browser.reasons = [
            "held at 6: depth 37 ≥ 5 wants 8, at most 6 (max_workers)",
            "depth 37 ≥ 5 wants 8",
            "at most 6 (max_workers)",
        ]
        .map(str::to_owned)
        .to_vec();
        let shown = text(&fleet.worker_types[0], &fleet, Timestamp(60_000));
        let expected = "browser: held at 6\n\n\
            looked       1 s ago, because of: keyspace\n\
            queue        browser:jobs\n\
            depth        37 = 31 waiting + 6 delivered and unfinished, read 1 s ago\n\
            oldest job   12 s ago\n\
            workers      6 = 4 ready (4 busy) + 2 starting\n\
            bounds       1 to 6\n\n  \
              1. depth 37 ≥ 5 wants 8\n  \
              2. at most 6 (max_workers)\n  \
              => held at 6\n\n\
            looks again  in 4 s\n\
            last change  -\n\
            leader       this autoscaler, term 7, for 12 s";
        assert_eq!(shown, expected);
    }

    #[test]
    fn of_several_queues_the_sum_is_shown() {
        let mut fleet = fleet::made_up();
        let browser = std::sync::Arc::make_mut(&mut fleet.worker_types[0]);
        browser.queues = Some(std::sync::Arc::new(queues::made_up(crate::model::Combine::Max)));
        let shown = text(&fleet.worker_types[0], &fleet, Timestamp(60_000));
        let expected = "queue        browser:jobs and 1 more\n\
            depth        37 = 31 waiting + 6 delivered and unfinished, read 1 s ago\n\
            scaled by    29 = max of browser:jobs 8, urgent:jobs 29\n";
        assert!(shown.contains(expected), "{shown}");
    }

    #[test]
    fn what_failed_is_said_and_not_counted_as_nothing() {
        let fleet = fleet::made_up();
        let shown = text(&fleet.worker_types[1], &fleet, Timestamp(60_000));
        for line in [
            "depth        ? = ? waiting",
            "workers      ?",
            "queue:       redis does not answer",
            "backend:     no backend",
        ] {
            assert!(shown.contains(line), "`{line}` is missing in\n{shown}");
        }
    }
}
