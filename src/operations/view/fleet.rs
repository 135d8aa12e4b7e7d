//! Formats a fleet snapshot for people: its rows, and the tables of `swarm status`.

use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, Row, Table, presets::NOTHING};

use super::{
    queues,
    words::{NONE, UNKNOWN, date_time, duration, milliseconds, printable, reading},
    work,
};
use crate::model::{
    PoolCounts, Timestamp,
    snapshot::{FleetSnapshot, ReloadOutcome, Role, SourceState, TypeSnapshot, WorkerSnapshot},
};

/// Headings of [`counts`].
pub(crate) const COUNTS: [&str; 12] = [
    "TYPE",
    "LAG",
    "PENDING",
    "OLDEST",
    "READ AGO",
    "DESIRED",
    "READY",
    "STARTING",
    "BUSY",
    "DRAINING",
    "MIN–MAX",
    "REACTION",
];

/// Returns the queue and the pool of one worker type, with the age of the reading: between two signals a queue may have
/// emptied without a trace.
pub(crate) fn counts(of: &TypeSnapshot, now: Timestamp) -> [String; 12] {
    let oldest = match of.demand.oldest.known() {
        Some(Some(at)) => duration(now.since(*at)),
        Some(None) => NONE.to_owned(),
        None => UNKNOWN.to_owned(),
    };
    let pool = |count: fn(&PoolCounts) -> u32| {
        of.pool.known().map_or_else(|| UNKNOWN.to_owned(), |pool| count(pool).to_string())
    };
    [
        of.worker_type.to_string(),
        reading(&of.demand.lag),
        reading(&of.demand.pending),
        oldest,
        read_ago(of, now).unwrap_or_else(|| NONE.to_owned()),
        of.desired.to_string(),
        pool(|pool| pool.ready),
        pool(|pool| pool.starting),
        pool(|pool| pool.busy),
        pool(|pool| pool.draining),
        format!("{}–{}", of.min_workers, of.max_workers),
        of.reaction.and_then(|reaction| reaction.requested_ms).map_or_else(|| NONE.to_owned(), milliseconds),
    ]
}

/// Formats the last decision's headline, and any trouble.
pub(crate) fn decision(of: &TypeSnapshot) -> String {
    let headline = of.reasons.first().map_or(NONE, String::as_str);
    let mut words = printable(headline);
    // The headline says who and for how long. An override may also have a reason.
    if let Some(control) = of.control.as_deref().filter(|control| !control.why.is_empty()) {
        words = format!("{words} (\u{201c}{}\u{201d})", printable(&control.why));
    }
    for error in of.backend_error.iter().map(String::as_str).chain(of.demand.lag.why_not()) {
        // The headline may contain it already.
        if !headline.contains(error) {
            words = format!("{words}; {}", printable(error));
        }
    }
    if let Some(places) = of.pool.known().and_then(places) {
        words = format!("{words}; {places}");
    }
    match start_failures(of) {
        Some(failures) => format!("{failures}; {words}"),
        None => words,
    }
}

/// Formats how many sessions the workers hold, and what waits for a place; `None` if they don't limit their sessions.
pub(super) fn places(pool: &PoolCounts) -> Option<String> {
    let PoolCounts { places, places_taken, waiting_for_place, .. } = *pool;
    let waiting = match waiting_for_place {
        0 => String::new(),
        1 => ", 1 job waits for one".to_owned(),
        jobs => format!(", {jobs} jobs wait for one"),
    };
    (places > 0).then(|| format!("{places_taken} of {places} session places taken{waiting}"))
}

/// `FAILS TO START (3 in a row): exit code 1`; `None` while workers start.
pub(crate) fn start_failures(of: &TypeSnapshot) -> Option<String> {
    let failures = of.start_failures.as_ref()?;
    Some(format!("FAILS TO START ({} in a row): {}", failures.count, printable(&failures.message)))
}

/// Returns the age of the last reading of the queue and the pool, `12 s`; `None` before the first one.
pub(crate) fn read_ago(of: &TypeSnapshot, now: Timestamp) -> Option<String> {
    of.evaluated_at.map(|at| duration(now.since(at)))
}

/// Formats the time of the next evaluation without a signal: `in 4 s`.
pub(crate) fn looks_again(of: &TypeSnapshot, now: Timestamp) -> String {
    of.recheck_at.map_or_else(|| NONE.to_owned(), |at| format!("in {}", duration(at.since(now))))
}

/// Formats name and version, uptime, orchestrator.
pub(crate) fn title(fleet: &FleetSnapshot, now: Timestamp) -> String {
    let dry_run = if fleet.dry_run { ", dry run: changes nothing" } else { "" };
    format!(
        "swarm {} on {}, up {} since {}, orchestrator {}{dry_run}",
        fleet.version,
        printable(&fleet.instance),
        duration(now.since(fleet.started_at)),
        date_time(fleet.started_at),
        fleet.orchestrator,
    )
}

/// Formats whether Redis answers.
pub(crate) fn redis(fleet: &FleetSnapshot) -> String {
    match (&fleet.redis_error, &fleet.redis_refuses_writes) {
        (Some(why), _) => format!("DOWN: {}", printable(why)),
        (None, Some(why)) => format!("REFUSES WRITES: {}", printable(why)),
        (None, None) => "answers".to_owned(),
    }
}

/// Formats the Redis servers that worker types have of their own: `cache:6379/1 answers (mail, news)`. `None` if there
/// is none.
pub(crate) fn queue_servers(fleet: &FleetSnapshot) -> Option<String> {
    let of = |of: &crate::model::snapshot::QueueServerSnapshot| {
        let (server, types) = (printable(&of.server), printable(&of.type_names()));
        match &of.redis_error {
            Some(why) => format!("{server} ({types}) DOWN: {}", printable(why)),
            None => format!("{server} ({types}) answers, {}", source_states(&of.sources)),
        }
    };
    let all: Vec<_> = fleet.queue_servers.iter().map(of).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// Formats leadership: `this autoscaler, term 7, for 12 s`, `there-1, term 8; this one stands by`.
pub(crate) fn leader(fleet: &FleetSnapshot, now: Timestamp) -> String {
    let of = &fleet.leadership;
    let term = of.token.map_or_else(String::new, |token| format!(", term {token}"));
    let since = of.since.map_or_else(String::new, |since| format!(", for {}", duration(now.since(since))));
    let this = match of.role {
        Role::Leader => return format!("this autoscaler{term}{since}"),
        Role::Standby => "this one stands by",
        Role::Observer => "this one observes and never acts",
    };
    let leader = of.leader.as_deref().map_or_else(|| "NOBODY KNOWN".to_owned(), |name| printable(name) + &term);
    let problem = of.problem.as_deref().map_or_else(String::new, |why| format!(" ({})", printable(why)));
    format!("{leader}{problem}; {this}")
}

/// Formats the signal sources: `keyspace up, channel up, tracking off`.
pub(crate) fn sources(fleet: &FleetSnapshot) -> String {
    source_states(&fleet.sources)
}

fn source_states(sources: &[crate::model::snapshot::SourceSnapshot]) -> String {
    let of = |source: &crate::model::snapshot::SourceSnapshot| {
        let name = source.source.as_str();
        match source.state {
            SourceState::Up => format!("{name} up"),
            SourceState::Off => format!("{name} off"),
            SourceState::Connecting => format!("{name} connecting"),
            SourceState::Down => format!("{name} DOWN ({})", printable(&source.detail)),
        }
    };
    let all: Vec<_> = sources.iter().map(of).collect();
    if all.is_empty() { NONE.to_owned() } else { all.join(", ") }
}

/// Formats the budget of all worker types: `3 of 20 workers; holds back browser, mail`. `None` without a budget.
pub(crate) fn budget(fleet: &FleetSnapshot) -> Option<String> {
    const NAMED: usize = 5;
    let total = fleet.max_total_workers?;
    let exist = |pool: &PoolCounts| pool.current() + pool.stalled + pool.draining;
    let workers: u32 = fleet.worker_types.iter().filter_map(|of| of.pool.known()).map(exist).sum();
    let unknown = fleet.worker_types.iter().filter(|of| of.pool.known().is_none()).count();
    let held: Vec<&str> =
        fleet.worker_types.iter().filter(|of| of.allowance.is_some()).map(|of| of.worker_type.as_str()).collect();
    let unknown = if unknown > 0 { format!(", and those of {unknown} unreadable pools") } else { String::new() };
    let named = held.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    let held = match held.len() {
        0 => String::new(),
        count if count > NAMED => format!("; holds back {named} and {} more", count - NAMED),
        _ => format!("; holds back {named}"),
    };
    Some(format!("{workers} of {total} workers{unknown}{held}"))
}

/// Formats jobs that are not due yet: `browser:jobs 3`. `None` if there are none.
pub(crate) fn delayed(fleet: &FleetSnapshot) -> Option<String> {
    let of = |(queue, jobs): (&String, &u64)| format!("{} {jobs}", printable(queue));
    let all: Vec<_> = fleet.delayed.iter().map(of).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

/// Formats the last reload: `REFUSED 12 s ago, the one before goes on: swarm.toml:3: …`. `None` before the first.
pub(crate) fn config(fleet: &FleetSnapshot, now: Timestamp) -> Option<String> {
    let reload = fleet.reload.as_ref()?;
    let ago = duration(now.since(reload.at));
    let what = match reload.outcome {
        ReloadOutcome::Applied => format!("loaded again {ago} ago: {}", printable(&reload.changes)),
        ReloadOutcome::Unchanged => format!("loaded again {ago} ago: nothing changed"),
        ReloadOutcome::Refused => {
            format!("REFUSED {ago} ago, the one before goes on: {}", printable(&reload.errors.join("; ")))
        }
    };
    if reload.need_restart.is_empty() {
        return Some(what);
    }
    Some(format!("{what}; NEEDS A RESTART for {}", printable(&reload.need_restart.join(", "))))
}

/// Formats the workers of a type, each with its age: `w1 BUSY 12 s, w2 starting 400 ms`.
pub(crate) fn workers(of: &TypeSnapshot, now: Timestamp) -> String {
    let one = |worker: &WorkerSnapshot| {
        let state = match worker.state {
            _ if worker.draining => "DRAINING",
            Some(state) => state.as_str(),
            None if worker.busy => "BUSY",
            None => "no heartbeat",
        };
        format!("{} {state} {}", printable(worker.id.as_str()), duration(now.since(worker.started_at)))
    };
    of.workers.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Formats the whole output of `swarm status`.
pub(crate) fn text(fleet: &FleetSnapshot, now: Timestamp) -> String {
    let mut numbers = table();
    numbers.set_header(COUNTS);
    let mut decisions = table();
    decisions.set_header(["TYPE", "QUEUE", "LAST DECISION", "LOOKS AGAIN"]);
    for of in &fleet.worker_types {
        let decided = [of.worker_type.to_string(), queues::names(of), decision(of), looks_again(of, now)];
        numbers.add_row(painted(of, counts(of, now)));
        decisions.add_row(painted(of, decided));
    }
    align_right(&mut numbers, 1..COUNTS.len());
    let mut tables = vec![trimmed(&numbers)];
    let parts: Vec<_> = fleet.worker_types.iter().flat_map(|of| queues::rows(of, now)).collect();
    if !parts.is_empty() {
        let mut several = table();
        several.set_header(queues::HEADINGS).add_rows(parts);
        align_right(&mut several, 2..5);
        tables.push(trimmed(&several));
    }
    let jobs: Vec<_> = fleet.worker_types.iter().filter_map(|of| work::row(of, now)).collect();
    if !jobs.is_empty() {
        let mut works = table();
        works.set_header(work::HEADINGS).add_rows(jobs);
        align_right(&mut works, 2..7);
        tables.push(trimmed(&works));
    }
    tables.push(trimmed(&decisions));
    format!(
        "{}\nleader   {}\nredis    {}\nsignals  {}{}{}{}{}\n\n{}",
        title(fleet, now),
        leader(fleet, now),
        redis(fleet),
        sources(fleet),
        queue_servers(fleet).map(|servers| format!("\nqueues   {servers}")).unwrap_or_default(),
        budget(fleet).map(|budget| format!("\nbudget   {budget}")).unwrap_or_default(),
        delayed(fleet).map(|delayed| format!("\ndelayed  {delayed}")).unwrap_or_default(),
        config(fleet, now).map(|config| format!("\nconfig   {config}")).unwrap_or_default(),
        tables.join("\n\n")
    )
}

/// The row of a worker type in trouble is red; a table drops colours unless it goes to a terminal.
fn painted<const N: usize>(of: &TypeSnapshot, row: [String; N]) -> Row {
    let paint = |text: String| if of.is_troubled() { Cell::new(text).fg(Color::Red) } else { Cell::new(text) };
    Row::from(row.map(paint))
}

fn align_right(table: &mut Table, columns: std::ops::Range<usize>) {
    for column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table
}

/// Removes trailing blanks from each line.
pub(crate) fn trimmed(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Returns a snapshot for tests of views.
#[cfg(test)]
pub(crate) fn made_up() -> FleetSnapshot {
    use std::sync::Arc;

    use crate::model::{
        Demand, PoolCounts, Reading, Source, WorkerType,
        snapshot::{LeadershipSnapshot, Reaction, ReloadSnapshot, SourceSnapshot},
    };
    let source = |source, state, detail: &str| SourceSnapshot { source, state, detail: detail.to_owned() };
    let browser = TypeSnapshot {
        min_workers: 1,
        max_workers: 6,
        evaluated_at: Some(Timestamp(59_000)),
        demand: Demand {
            lag: Reading::Known(31),
            pending: Reading::Known(6),
            oldest: Reading::Known(Some(Timestamp(48_000))),
        },
        pool: Reading::Known(PoolCounts { ready: 4, starting: 2, busy: 4, ..PoolCounts::default() }),
        desired: 6,
        reasons: vec!["held at 6: max_workers 6".to_owned()],
        recheck_at: Some(Timestamp(64_000)),
        sources: vec![Source::Keyspace],
        reaction: Some(Reaction { decided_ms: 0.6, requested_ms: Some(0.9), running_ms: None }),
        evaluations: 17,
        ..TypeSnapshot::at_rest("browser")
    };
    let lost = TypeSnapshot {
        worker_type: WorkerType::new("tankpit"),
        queue: "tankpit:jobs".to_owned(),
        min_workers: 0,
        demand: Demand::failed("redis does not answer"),
        pool: Reading::Failed("no backend".to_owned()),
        backend_error: Some("no backend".to_owned()),
        recheck_at: None,
        reaction: None,
        ..browser.clone()
    };
    FleetSnapshot {
        version: "1.2.3".to_owned(),
        instance: "here-1".to_owned(),
        orchestrator: "process".to_owned(),
        started_at: Timestamp(0),
        dry_run: false,
        leadership: LeadershipSnapshot {
            role: Role::Leader,
            leader: Some("here-1".to_owned()),
            token: Some(7),
            since: Some(Timestamp(48_000)),
            problem: None,
        },
        redis_error: None,
        redis_refuses_writes: None,
        queue_servers: Vec::new(),
        max_total_workers: None,
        sources: vec![
            source(Source::Keyspace, SourceState::Up, ""),
            source(Source::Tracking, SourceState::Down, "refused"),
        ],
        worker_types: vec![Arc::new(browser), Arc::new(lost)],
        reload: Some(ReloadSnapshot {
            at: Timestamp(48_000),
            outcome: ReloadOutcome::Refused,
            changes: String::new(),
            errors: vec!["swarm.toml:3: wrong".to_owned(), "swarm.toml:4: worse".to_owned()],
            need_restart: Vec::new(),
        }),
        delayed: Arc::new([("browser:jobs".to_owned(), 3)].into()),
        dead_letters: Arc::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_queues_are_shown_one_by_one() {
        let mut fleet = made_up();
        let queues = queues::made_up(crate::model::Combine::Max);
        std::sync::Arc::make_mut(&mut fleet.worker_types[0]).queues = Some(std::sync::Arc::new(queues));
        let shown = text(&fleet, Timestamp(60_000));
        for line in [
            "TYPE     QUEUE         LAG  PENDING  OLDEST",
            "browser  browser:jobs    2        6    12 s",
            "browser  urgent:jobs    29        0    12 s  the longest: workers are scaled by it",
            "browser:jobs and 1 more",
        ] {
            assert!(shown.contains(line), "`{line}` is missing in\n{shown}");
        }
        assert!(!text(&made_up(), Timestamp(60_000)).contains("TYPE     QUEUE         LAG"));
    }

    #[test]
    fn the_budget_is_shown_with_those_it_holds_back() {
        let mut fleet = made_up();
        assert_eq!(budget(&fleet), None);
        fleet.max_total_workers = Some(8);
        assert_eq!(budget(&fleet).as_deref(), Some("6 of 8 workers, and those of 1 unreadable pools"));
        for of in &mut fleet.worker_types {
            let of = std::sync::Arc::make_mut(of);
            of.pool = crate::model::Reading::Known(PoolCounts { ready: 3, draining: 1, ..PoolCounts::default() });
            of.allowance = Some(crate::model::Allowance { workers: 3, total: 8, others: 4, ..Default::default() });
        }
        let shown = text(&fleet, Timestamp(60_000));
        assert!(shown.contains("\nbudget   8 of 8 workers; holds back browser, tankpit\n"), "{shown}");
    }

    #[test]
    fn a_redis_that_refuses_writes_is_told_from_one_that_is_down() {
        let mut fleet = made_up();
        fleet.redis_refuses_writes = Some("OOM: command not allowed".to_owned());
        assert_eq!(redis(&fleet), "REFUSES WRITES: OOM: command not allowed");
        fleet.redis_error = Some("refused".to_owned());
        assert_eq!(redis(&fleet), "DOWN: refused");
    }

    #[test]
    fn servers_of_worker_types_are_shown_with_their_types() {
        use crate::model::{Source, WorkerType, snapshot::QueueServerSnapshot, snapshot::SourceSnapshot};
        let mut fleet = made_up();
        assert_eq!(queue_servers(&fleet), None);
        let (source, state, detail) = (Source::Keyspace, SourceState::Up, String::new());
        fleet.queue_servers.push(QueueServerSnapshot {
            server: "cache:6379/1".to_owned(),
            worker_types: ["mail", "news"].map(WorkerType::new).to_vec(),
            redis_error: None,
            sources: vec![SourceSnapshot { source, state, detail }],
        });
        let shown = text(&fleet, Timestamp(60_000));
        assert!(shown.contains("\nqueues   cache:6379/1 (mail, news) answers, keyspace up\n"), "{shown}");
        fleet.queue_servers[0].redis_error = Some("refused".to_owned());
        assert_eq!(queue_servers(&fleet).as_deref(), Some("cache:6379/1 (mail, news) DOWN: refused"));
    }

    #[test]
    fn a_pool_whose_workers_fail_to_start_says_so_with_the_platforms_words() {
        let mut fleet = made_up();
        let of = std::sync::Arc::make_mut(&mut fleet.worker_types[0]);
        assert!(!of.is_troubled());
        let (count, last_at, message) = (3, Timestamp(58_000), "exit status: 3".to_owned());
        of.start_failures = Some(crate::model::snapshot::StartFailures { count, last_at, message });
        assert!(of.is_troubled());
        assert!(decision(of).starts_with("FAILS TO START (3 in a row): exit status: 3; held at 6"), "{}", decision(of));
        assert!(painted(of, ["x".to_owned()]).cell_iter().all(|cell| *cell == Cell::new("x").fg(Color::Red)));
    }

    #[test]
    fn the_tables_show_numbers_decisions_and_what_is_wrong() {
        let shown = text(&made_up(), Timestamp(60_000));
        for line in [
            "swarm 1.2.3 on here-1, up 60 s since",
            "leader   this autoscaler, term 7, for 12 s",
            "redis    answers",
            "signals  keyspace up, tracking DOWN (refused)",
            "delayed  browser:jobs 3",
            "config   REFUSED 12 s ago, the one before goes on: swarm.toml:3: wrong; swarm.toml:4: worse",
            "TYPE     LAG  PENDING  OLDEST  READ AGO",
            "browser   31        6    12 s       1 s",
            "held at 6: max_workers 6",
            "in 4 s",
            "redis does not answer",
            "no backend",
            "12 s",
            "0.90 ms",
        ] {
            assert!(shown.contains(line), "`{line}` is missing in\n{shown}");
        }
        let mut standby = made_up();
        standby.leadership.role = Role::Standby;
        assert_eq!(leader(&standby, Timestamp(60_000)), "here-1, term 7; this one stands by");
        standby.leadership.leader = None;
        standby.leadership.problem = Some("redis is away".to_owned());
        assert_eq!(leader(&standby, Timestamp(60_000)), "NOBODY KNOWN (redis is away); this one stands by");
        let lost: Vec<_> = counts(&made_up().worker_types[1], Timestamp(60_000)).to_vec();
        assert_eq!(lost[1..4], ["?", "?", "?"], "what failed is not 0");
    }
}
