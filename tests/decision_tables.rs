//! Runs the tables in `tests/testdata/decisions` through the policy. Their format is described beside them.

use std::{fs, path::Path, time::Duration};

use swarm::{
    config::ScalingSettings,
    model::{Counters, Demand, PoolCounts, Reading, Timestamp, snapshot::Change},
    policy::{ByDirection, Failures, History, Observation, decide},
};

/// Two days after the epoch, so that a default past of one day fits before it: a Saturday, at midnight UTC.
const NOW: Timestamp = Timestamp(2 * 86_400_000);
const COLUMNS: usize = 6;

type Outcome<T> = Result<T, String>;

#[test]
fn every_table_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testdata/decisions");
    let mut tables: Vec<_> = fs::read_dir(&folder)
        .expect("the folder of tables is part of the repository")
        .map(|entry| entry.expect("a listed entry can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    tables.sort();
    let failures: Vec<String> = tables
        .iter()
        .filter_map(|path| {
            let text = fs::read_to_string(path).expect("a table is a text file");
            run(&text).err().map(|why| format!("{}\n{why}", path.display()))
        })
        .collect();
    assert!(tables.len() >= 6, "tables are missing from {}", folder.display());
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn a_table_without_cases_fails() {
    let empty = run("strategy = \"step\"\n---\n# nothing\n");
    assert_eq!(empty, Err("no cases".to_owned()));
    assert_eq!(run(""), Err("no line `---` between settings and cases".to_owned()));
}

#[test]
fn a_wrong_cell_fails_and_shows_what_it_should_be() {
    let right = "0 | 1 | - | 0 | - | scale down 1 → 0: depth 0 ≤ 0 wants 0";
    assert_eq!(run(&format!("---\n{right}")), Ok(()));
    for (cell, wrong) in [("| 0 | - |", "| 1 | - |"), ("- | scale", "1 s | scale"), ("down 1", "down 2")] {
        let why = run(&format!("---\n{}", right.replace(cell, wrong))).expect_err("the table is wrong");
        assert!(why.contains(right), "{why}");
    }
}

#[test]
fn what_can_not_be_read_fails() {
    for (table, part) in [
        ("min_wrokers = 1\n---\n0 | 1 | - | 1 | - | x", "min_wrokers"),
        ("---\n0 | 1 | - | 1 | x", "columns"),
        ("---\nmany | 1 | - | 1 | - | x", "many"),
        ("---\n0 | 1, 1 asleep | - | 1 | - | x", "asleep"),
        ("---\n0 | 1 | yesterday | 1 | - | x", "yesterday"),
    ] {
        let why = run(table).expect_err("the table can't be read");
        assert!(why.contains(part), "{why}");
    }
}

/// Whether a table holds; else all that does not.
fn run(table: &str) -> Outcome<()> {
    let (settings, cases) = table.split_once("---\n").ok_or("no line `---` between settings and cases")?;
    let settings: ScalingSettings = toml::from_str(settings).map_err(|error| error.to_string())?;
    let cases: Vec<&str> = cases.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')).collect();
    if cases.is_empty() {
        return Err("no cases".to_owned());
    }
    let wrong: Vec<String> = cases.iter().filter_map(|case| check(&settings, case).err()).collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

fn check(settings: &ScalingSettings, case: &str) -> Outcome<()> {
    let cells: Vec<&str> = case.split('|').map(str::trim).collect();
    let &[depth, workers, past, _, _, _] = cells.as_slice() else {
        return Err(format!("  {COLUMNS} columns expected, found {}: {case}", cells.len()));
    };
    let observation = Observation { demand: demand(depth)?, queues: None, allowance: None, pool: pool(workers)? };
    let (now, past_events) = time_of_day(past)?;
    let decision = decide(settings, &observation, &history(settings, past_events, now)?, now);
    let recheck = match decision.recheck_at {
        Some(at) => format!("{} s", at.since(now).as_secs_f64()),
        None => "-".to_owned(),
    };
    let found = [depth, workers, past, &decision.target.to_string(), &recheck, &decision.headline()].join(" | ");
    let expected = cells.join(" | ");
    if found == expected { Ok(()) } else { Err(format!("  expected {expected}\n  found    {found}")) }
}

fn demand(cell: &str) -> Outcome<Demand> {
    let (lag, pending) = match (cell.strip_prefix('?'), cell.split_once(" + ?")) {
        (Some(why), _) => (unknown(why), unknown(why)),
        (None, Some((lag, why))) => (Reading::Known(number(lag)?), unknown(why)),
        (None, None) => (Reading::Known(number(cell)?), Reading::Known(0)),
    };
    Ok(Demand { lag, pending, oldest: Reading::Known(None) })
}

fn pool(cell: &str) -> Outcome<Reading<PoolCounts>> {
    if let Some(why) = cell.strip_prefix('?') {
        return Ok(unknown(why));
    }
    let mut parts = cell.split(", ");
    let mut counts = PoolCounts { ready: number(parts.next().unwrap_or_default())?, ..PoolCounts::default() };
    for part in parts {
        match part.split_once(' ') {
            Some((count, "busy")) => counts.busy = number(count)?,
            Some((count, "stalled")) => counts.stalled = number(count)?,
            Some((count, "possibly busy")) => counts.possibly_busy = number(count)?,
            Some((count, "must stay")) => counts.must_stay = number(count)?,
            Some((count, "lingering")) => counts.lingering = number(count)?,
            Some((count, "full")) => counts.full = number(count)?,
            Some((count, "waiting for a place")) => counts.waiting_for_place = number(count)?,
            Some((count, "starting")) => {
                counts.starting = number(count)?;
                counts.ready = counts.ready.checked_sub(counts.starting).ok_or("more start than there are")?;
            }
            _ => return Err(format!("  can't read the workers `{part}`")),
        }
    }
    Ok(Reading::Known(counts))
}

/// A leading `at 08:30:00`, else midnight; and the rest.
fn time_of_day(cell: &str) -> Outcome<(Timestamp, &str)> {
    let Some(said) = cell.strip_prefix("at ") else { return Ok((NOW, cell)) };
    let (time, rest) = said.split_once("; ").unwrap_or((said, "-"));
    let mut seconds = 0;
    for part in time.split(':') {
        seconds = seconds * 60 + number::<u64>(part)?;
    }
    Ok((NOW.after(Duration::from_secs(seconds)), rest))
}

fn history(settings: &ScalingSettings, cell: &str, now: Timestamp) -> Outcome<History> {
    let mut history = History::new(Timestamp(now.0 - 86_400_000));
    for event in cell.split("; ").filter(|event| *event != "-") {
        if event == "uncounted" {
            let nothing = Observation { demand: demand("0")?, queues: None, allowance: None, pool: pool("1")? };
            history.note_flow(settings, now, &nothing, Counters::default());
            continue;
        }
        if let Some(rates) = event.strip_prefix("learned ") {
            learn(settings, &mut history, rates, now)?;
            continue;
        }
        let unreadable = || format!("  can't read the past `{event}`");
        let words: Vec<&str> = event.split([' ', ',']).filter(|word| !word.is_empty()).collect();
        let [what @ .., seconds, "s", "ago"] = words.as_slice() else { return Err(unreadable()) };
        let ago = Duration::from_secs(number(seconds)?);
        let at = Timestamp(now.0 - u64::try_from(ago.as_millis()).map_err(|_| unreadable())?);
        match what {
            ["started"] => history.started_at = at,
            ["unreadable"] => history.unreadable_since = Some(at),
            [from, "to", to] => history.note_change(Change { at, from: number(from)?, to: number(to)? }),
            ["wished", recommendation] => history.note_recommendation(settings, at, number(recommendation)?),
            ["early", "exits", count] => history.start_failures = Some(failures(count, at, "exit code 1")?),
            ["backend", "failures", count] => {
                let failures = Some(failures(count, at, "no route to host")?);
                history.backend_failures = ByDirection { up: failures.clone(), down: failures };
            }
            ["refused", "scale-ins", count] => {
                history.backend_failures.down = Some(failures(count, at, "no route to host")?);
            }
            _ => return Err(unreadable()),
        }
    }
    Ok(history)
}

/// `0.8 s a job and 3.1 jobs/s`: one worker was seen at it all day, behind a queue that never emptied.
fn learn(settings: &ScalingSettings, history: &mut History, rates: &str, now: Timestamp) -> Outcome<()> {
    const DAY: u32 = 80_000;
    /// Number of jobs that have waited all day.
    const QUEUE: u64 = 1_000_000_000;
    let unreadable = || format!("  can't read what was learned: `{rates}`");
    let (job, arriving) = rates.split_once(" s a job and ").ok_or_else(unreadable)?;
    let (job, arriving) =
        (number::<f64>(job)?, number::<f64>(arriving.strip_suffix(" jobs/s").ok_or_else(unreadable)?)?);
    let whole = |count: f64| number::<u64>(&count.round().to_string());
    let (finished, came) = (whole(f64::from(DAY) / job)?, whole(f64::from(DAY) * arriving)?);
    let mut look = |at: Timestamp, came: u64, finished: u64| {
        let counters = Counters { added: Some(QUEUE + came), read: Some(finished + 1), ..Counters::default() };
        let demand = Demand {
            lag: Reading::Known(QUEUE + came - finished - 1),
            pending: Reading::Known(1),
            oldest: Reading::Known(None),
        };
        let pool = Reading::Known(PoolCounts { ready: 1, busy: 1, ..PoolCounts::default() });
        history.note_flow(settings, at, &Observation { demand, queues: None, allowance: None, pool }, counters);
    };
    look(Timestamp(now.0 - u64::from(DAY) * 1_000), 0, 0);
    look(now, came, finished);
    Ok(())
}

fn failures(count: &str, last_at: Timestamp, message: &str) -> Outcome<Failures> {
    Ok(Failures { count: number(count)?, last_at, message: message.to_owned() })
}

fn unknown<T>(why: &str) -> Reading<T> {
    Reading::Unknown(why.trim().to_owned())
}

fn number<T: std::str::FromStr>(text: &str) -> Outcome<T> {
    text.trim().parse().map_err(|_| format!("  not a number: `{text}`"))
}
