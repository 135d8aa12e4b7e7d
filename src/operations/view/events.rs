//! Formats entries of `scaling:events` for people: as a table, and as aligned lines.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets::NOTHING};

use super::words::{NONE, UNKNOWN, date_time, milliseconds, printable, time_of_day};
use crate::scaler::ScalingEvent;

/// Formats a change: `1 → 6`, `paused`.
pub(crate) fn change(event: &ScalingEvent) -> String {
    // An override changes no number by itself.
    if let (None, None, "paused" | "paused_in" | "paused_out" | "observe" | "pinned" | "resumed") =
        (event.from_count, event.to_count, event.decision.as_str())
    {
        return event.decision.clone();
    }
    let count = |count: Option<u32>| count.map_or_else(|| UNKNOWN.to_owned(), |count| count.to_string());
    format!("{} → {}", count(event.from_count), count(event.to_count))
}

/// Formats the reason, and the error of a failed change. Drops the change from the start of a headline.
pub(crate) fn reason(event: &ScalingEvent) -> String {
    let headline = format!("{} {}: ", event.decision.replace('_', " "), change(event));
    let reason = printable(event.reason.strip_prefix(&headline).unwrap_or(&event.reason));
    match &event.error {
        Some(error) => format!("{reason}; failed: {}", printable(error)),
        None => reason,
    }
}

fn reaction(event: &ScalingEvent) -> String {
    event.reaction_ms.map_or_else(|| NONE.to_owned(), milliseconds)
}

fn or_none(text: &str) -> String {
    if text.is_empty() { NONE.to_owned() } else { printable(text) }
}

/// Formats all entries, oldest first.
pub(crate) fn table(events: &[ScalingEvent]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["TIME", "TYPE", "CHANGE", "REASON", "TRIGGER", "REACTION", "OUTCOME"]);
    for event in events {
        table.add_row([
            date_time(event.at),
            or_none(&event.worker_type),
            change(event),
            reason(event),
            or_none(&event.trigger.join(", ")),
            reaction(event),
            or_none(&event.outcome),
        ]);
    }
    if let Some(column) = table.column_mut(5) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Formats one entry, for `--follow`.
pub(crate) fn line(event: &ScalingEvent) -> String {
    format!(
        "{}  {:<12} {:>9}  {} ({}, {}, {})",
        time_of_day(event.at),
        or_none(&event.worker_type),
        change(event),
        reason(event),
        or_none(&event.trigger.join(", ")),
        reaction(event),
        or_none(&event.outcome),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn a_line_shows_what_happened_and_why() {
        let event = ScalingEvent {
            at: Timestamp(1_700_000_000_000),
            worker_type: "browser".to_owned(),
            from_count: Some(1),
            to_count: Some(6),
            decision: "scale_up".to_owned(),
            reason: "scale up 1 → 6: depth 40 ≥ 5".to_owned(),
            trigger: vec!["keyspace".to_owned(), "channel".to_owned()],
            outcome: "done".to_owned(),
            reaction_ms: Some(1.25),
            ..ScalingEvent::default()
        };
        assert!(line(&event).ends_with("browser          1 → 6  depth 40 ≥ 5 (keyspace, channel, 1.25 ms, done)"));
        let shown = table(&[event, ScalingEvent::default()]).to_string();
        assert!(shown.contains("? → ?"), "{shown}");
    }
}
