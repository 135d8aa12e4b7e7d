//! Results of simulations, for people.

use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets::NOTHING};

use super::race::Run;
use crate::{
    cli::view::fleet::trimmed,
    simulation::{Report, Setup, Trace, spell},
    suggestion::Outcome,
};

/// Formats a number: `12,345`
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|group| str::from_utf8(group).ok()).collect();
    groups.join(",")
}

/// Formats a wait: `0 s`, `120 ms`, `3.4 s`, `2.1 min`. Three digits are enough to compare.
pub(super) fn wait(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 0.0005 => "0 s".to_owned(),
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        seconds if seconds < 100.0 => format!("{seconds:.1} s"),
        seconds if seconds < 6_000.0 => format!("{:.1} min", seconds / 60.0),
        seconds => format!("{:.1} h", seconds / 3_600.0),
    }
}

/// Returns the assumptions, in a line.
pub(super) fn details(setups: &[Setup], trace: &Trace) -> String {
    let startup: Vec<String> = setups.iter().map(|setup| setup.startup.to_string()).collect();
    let same = startup.windows(2).all(|pair| pair[0] == pair[1]);
    let startup = if same { startup.first().cloned().unwrap_or_default() } else { startup.join(" / ") };
    let tail = setups.first().map_or(Duration::ZERO, |setup| setup.tail);
    format!(
        "service times: {}; start-up: {startup}; work for {:.1} workers on average; goes on for {} after the last job",
        trace.services,
        trace.offered_load(),
        spell(tail),
    )
}

/// Returns a table with one row for each simulation.
pub(super) fn of(runs: &[Run]) -> String {
    let mut table = new(&[
        "CONFIGURATION",
        "WAIT P50",
        "P95",
        "P99",
        "MAX",
        "WORKER-HOURS",
        "USED",
        "MOST",
        "STARTED",
        "UP",
        "DOWN",
        "DEPTH",
        "UNFINISHED",
    ]);
    for Run { name, report, .. } in runs {
        let waits = report.wait_seconds;
        table.add_row([
            name.clone(),
            wait(waits.p50),
            wait(waits.p95),
            wait(waits.p99),
            wait(waits.max),
            format!("{:.2}", report.worker_hours),
            format!("{:.0} %", report.utilisation * 100.0),
            report.workers_max.to_string(),
            thousands(report.workers_started as u64),
            thousands(report.scaled_up as u64),
            thousands(report.scaled_down as u64),
            thousands(report.depth_max),
            thousands(report.unfinished as u64),
        ]);
    }
    finished(table)
}

fn new(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
    table
}

/// Returns a table of which all but the first column are numbers.
fn finished(mut table: Table) -> String {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    trimmed(&table)
}

/// Returns a table with one row for each named outcome.
pub(super) fn outcomes(rows: impl IntoIterator<Item = (String, Outcome)>) -> String {
    let mut table = new(&["SETTINGS", "WAIT P50", "P95", "P99", "MAX", "WORKER-HOURS", "USED", "MOST", "STARTED"]);
    for (name, of) in rows {
        let waits = of.wait_seconds;
        table.add_row([
            name,
            wait(waits.p50),
            wait(waits.p95),
            wait(waits.p99),
            wait(waits.max),
            format!("{:.2}", of.worker_hours),
            format!("{:.0} %", of.utilisation * 100.0),
            of.workers_max.to_string(),
            thousands(of.workers_started as u64),
        ]);
    }
    finished(table)
}

/// Returns the results of one simulation in a few words, for a picture.
pub(super) fn note(report: &Report) -> String {
    let waits = report.wait_seconds;
    let unfinished = match report.unfinished {
        0 => String::new(),
        jobs => format!(", {} jobs unfinished", thousands(jobs as u64)),
    };
    format!(
        "wait p50 {}, p95 {}, max {}; {:.2} worker-hours, {:.0} % used{unfinished}",
        wait(waits.p50),
        wait(waits.p95),
        wait(waits.max),
        report.worker_hours,
        report.utilisation * 100.0,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_have_units() {
        for (seconds, shown) in
            [(0.0, "0 s"), (0.05, "50 ms"), (1.0, "1.0 s"), (99.0, "99.0 s"), (120.0, "2.0 min"), (7_200.0, "2.0 h")]
        {
            assert_eq!(wait(seconds), shown);
        }
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }
}
