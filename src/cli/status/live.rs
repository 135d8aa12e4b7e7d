//! `swarm status --watch` on a terminal: the content of the status page, in characters. Reads the status again and
//! again, and keeps the curves of the last minutes itself.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize},
    text::Line,
    widgets::{Block, Paragraph, Row, Table, Wrap},
};

use super::{Duration, REFRESH};
use crate::{
    cli::view::{
        events, fleet, queues,
        screen::{Screen, ScreenCommand},
    },
    model::{
        Timestamp, WorkerType,
        history::ScalingEvent,
        snapshot::{FleetSnapshot, ReloadOutcome, TypeSnapshot},
    },
    operations::status_client::{StatusError, StatusServer},
};

/// Interval between two reads of the keyboard: shorter than a person notices.
const KEYS: Duration = Duration::from_millis(50);

/// Time between two points of a curve, and number of points: the last two minutes.
const POINT: Duration = Duration::from_secs(5);
const POINTS: u16 = 24;

/// Minimum columns for curves, and for two panels beside each other.
const WIDE: u16 = 80 + 1 + POINTS;

/// Minimum rows of a panel, including its frame.
const PANEL: u16 = 5;

/// The watched server, and what was read from it.
struct Watch {
    server: StatusServer,
    seen: Result<FleetSnapshot, StatusError>,
    /// Last snapshot that was received.
    last: Option<FleetSnapshot>,
    events: Vec<ScalingEvent>,
    curves: BTreeMap<WorkerType, VecDeque<u64>>,
    next_point: Instant,
}

/// Shows the fleet until the user quits.
pub(super) async fn watch(server: StatusServer, fleet: FleetSnapshot) -> anyhow::Result<()> {
    let mut screen = Screen::take()?;
    let mut watch = Watch::new(server, fleet);
    loop {
        watch.note();
        // An autoscaler of a version without history has no events.
        watch.events = watch.server.events().await.unwrap_or_default();
        screen.draw(|frame| watch.draw(frame))?;
        let asked_at = Instant::now();
        while asked_at.elapsed() < REFRESH {
            match screen.command()? {
                Some(ScreenCommand::Quit | ScreenCommand::Interrupt) => return Ok(()),
                Some(ScreenCommand::Redraw) => screen.draw(|frame| watch.draw(frame))?,
                None => tokio::time::sleep(KEYS).await,
            }
        }
        let seen = watch.server.status().await;
        watch.see(seen);
    }
}

impl Watch {
    fn new(server: StatusServer, fleet: FleetSnapshot) -> Self {
        let (last, events, curves) = Default::default();
        Self { server, seen: Ok(fleet), last, events, curves, next_point: Instant::now() }
    }

    fn see(&mut self, seen: Result<FleetSnapshot, StatusError>) {
        if let Ok(fleet) = std::mem::replace(&mut self.seen, seen) {
            self.last = Some(fleet);
        }
    }

    /// Adds a point to each curve, if one is due.
    fn note(&mut self) {
        let Ok(fleet) = &self.seen else { return };
        if Instant::now() < self.next_point {
            return;
        }
        self.next_point = Instant::now() + POINT;
        for of in &fleet.worker_types {
            let curve = self.curves.entry(of.worker_type.clone()).or_default();
            curve.push_back(of.demand.depth().known().copied().unwrap_or_default());
            if curve.len() > usize::from(POINTS) {
                curve.pop_front();
            }
        }
    }

    /// Draws the whole frame. Without an answer, shows the last snapshot and a message about that.
    fn draw(&self, frame: &mut Frame<'_>) {
        let now = Timestamp::wall();
        let (fleet, error) = match &self.seen {
            Ok(fleet) => (Some(fleet), None),
            Err(error) => (self.last.as_ref(), Some(error.to_string())),
        };
        let Some(fleet) = fleet else { return };
        let heading = heading(fleet, error.as_deref(), now);
        let types = u16::try_from(fleet.worker_types.len()).unwrap_or(u16::MAX);
        let head = u16::try_from(heading.len()).unwrap_or(u16::MAX);
        let taken = head.saturating_add(types).saturating_add(3);
        let left = frame.area().height.saturating_sub(taken);
        // A decision takes two lines in a narrow window; the remaining lines are for the panels.
        let decisions = types.saturating_mul(2).saturating_add(2).max(4);
        let panels = left.saturating_sub(decisions.min(left.saturating_sub(PANEL).max(4)));
        let panels = if panels < PANEL { 0 } else { panels };
        let [head, numbers, decided, panels, foot] = Layout::vertical([
            Constraint::Length(head),
            Constraint::Length(types.saturating_add(2)),
            Constraint::Min(0),
            Constraint::Length(panels),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        frame.render_widget(Paragraph::new(heading), head);
        frame.render_widget(self.numbers(fleet, numbers.width, now), numbers);
        frame.render_widget(
            panel(" last decisions ", fleet.worker_types.iter().flat_map(|of| decision(of, now))),
            decided,
        );
        self.draw_panels(frame, panels, fleet, now);
        let foot_line = Line::from(format!("q leaves · {}", self.server.url())).dim().alignment(Alignment::Right);
        frame.render_widget(foot_line, foot);
    }

    /// Draws the changes and the workers, as far as there is room.
    fn draw_panels(&self, frame: &mut Frame<'_>, area: Rect, fleet: &FleetSnapshot, now: Timestamp) {
        if area.height < PANEL {
            return;
        }
        let changes = self.events.iter().rev().map(|event| Line::from(events::line(event)));
        let with_workers = fleet.worker_types.iter().filter(|of| !of.workers.is_empty());
        let crews = with_workers
            .map(|of| Line::from(vec![format!("{} ", of.worker_type).bold(), fleet::workers(of, now).into()]));
        let halves = [Constraint::Percentage(60), Constraint::Percentage(40)];
        let layout = if area.width >= WIDE { Layout::horizontal(halves) } else { Layout::vertical(halves) };
        let [left, right] =
            if area.width >= WIDE || area.height >= 2 * PANEL { layout.areas(area) } else { [area, Rect::ZERO] };
        frame.render_widget(panel(" changes ", changes), left);
        if right.height > 0 {
            frame.render_widget(panel(" workers ", crews), right);
        }
    }

    fn numbers(&self, fleet: &FleetSnapshot, width: u16, now: Timestamp) -> Table<'static> {
        let right = |text: String| Line::from(text).alignment(Alignment::Right);
        let cells = |row: [String; 12], curve: Option<String>| {
            let mut cells = row.into_iter();
            let name = cells.next().map(Line::from);
            Row::new(name.into_iter().chain(cells.map(right)).chain(curve.map(Line::from)))
        };
        let curves = width >= WIDE;
        let rows = fleet.worker_types.iter().map(|of| {
            let style = if of.is_troubled() { Style::new().fg(Color::Red) } else { Style::new() };
            let curve = curves.then(|| self.curves.get(&of.worker_type).map(bars).unwrap_or_default());
            cells(fleet::counts(of, now), curve).style(style)
        });
        // Wide enough for the headings and usual values; 80 columns hold all of them.
        let mut widths = [7_u16, 5, 5, 6, 6, 4, 5, 5, 4, 5, 7, 8].map(Constraint::Length).to_vec();
        let names =
            ["TYPE", "LAG", "PEND", "OLDEST", "READ", "WANT", "READY", "START", "BUSY", "DRAIN", "MIN–MAX", "REACTION"];
        let longest = fleet.worker_types.iter().map(|of| of.worker_type.as_str().len()).max().unwrap_or(0).max(7);
        widths[0] = Constraint::Max(u16::try_from(longest).unwrap_or(7));
        if curves {
            widths.push(Constraint::Length(POINTS));
        }
        let header = cells(names.map(str::to_owned), curves.then(|| "LAST 2 MIN".to_owned()));
        Table::new(rows, widths).header(header.style(Style::new().add_modifier(Modifier::DIM))).column_spacing(1)
    }
}

fn panel<'a>(title: &'static str, lines: impl Iterator<Item = Line<'a>>) -> Paragraph<'a> {
    let block = Block::bordered().title(title).border_style(Style::new().dim());
    Paragraph::new(lines.collect::<Vec<_>>()).wrap(Wrap { trim: true }).block(block)
}

/// Returns the lines of a worker type's decision. For several queues, a second line says which depth sizes the pool.
fn decision(of: &TypeSnapshot, now: Timestamp) -> impl Iterator<Item = Line<'static>> {
    let again = of.recheck_at.map_or_else(String::new, |_| format!(", looks again {}", fleet::looks_again(of, now)));
    let decision = vec![format!("{} ", of.worker_type).bold(), format!("{}{again}", fleet::decision(of)).into()];
    let queues = queues::sum(of).map(|sum| Line::from(format!("  {sum}")));
    std::iter::once(Line::from(decision)).chain(queues)
}

/// Draws a curve as blocks; the highest point fills its line.
fn bars(curve: &VecDeque<u64>) -> String {
    const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let highest = curve.iter().copied().max().unwrap_or_default().max(1);
    let block = |depth: &u64| {
        let eighths = (u128::from(*depth) * 8).div_ceil(u128::from(highest));
        BLOCKS[usize::try_from(eighths).unwrap_or_default().min(8)]
    };
    curve.iter().map(block).collect()
}

fn heading<'a>(fleet: &FleetSnapshot, error: Option<&str>, now: Timestamp) -> Vec<Line<'a>> {
    let redis = Line::from(format!("redis    {}", fleet::redis(fleet)));
    let redis =
        if fleet.redis_error.is_some() || fleet.redis_refuses_writes.is_some() { redis.fg(Color::Red) } else { redis };
    let title = match error {
        Some(error) => Line::from(format!("no answer, this is old: {error}")).fg(Color::Red),
        None => Line::from(fleet::title(fleet, now)).bold(),
    };
    let leader = Line::from(format!("leader   {}", fleet::leader(fleet, now)));
    let mut lines = vec![title, leader, redis, Line::from(format!("signals  {}", fleet::sources(fleet)))];
    lines.extend(fleet::queue_servers(fleet).map(|servers| {
        let line = Line::from(format!("queues   {servers}"));
        if fleet.queue_servers.iter().any(|server| server.redis_error.is_some()) { line.fg(Color::Red) } else { line }
    }));
    lines.extend(fleet::delayed(fleet).map(|delayed| Line::from(format!("delayed  {delayed}"))));
    let refused = fleet.reload.as_ref().is_some_and(|reload| reload.outcome == ReloadOutcome::Refused);
    lines.extend(fleet::config(fleet, now).map(|config| {
        let line = Line::from(format!("config   {config}"));
        if refused { line.fg(Color::Red) } else { line }
    }));
    lines
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::model::{
        WorkerId, WorkerState,
        snapshot::{WorkerSnapshot, WorkerStatus},
    };

    fn shown(width: u16, height: u16) -> String {
        let mut fleet = fleet::made_up();
        Arc::make_mut(&mut fleet.worker_types[0]).workers = vec![WorkerSnapshot {
            id: WorkerId::new("browser-1"),
            state: Some(WorkerState::Busy),
            busy: true,
            draining: false,
            status: WorkerStatus::Busy,
            reason: None,
            started_at: Timestamp::wall(),
        }];
        let mut watch = Watch::new(StatusServer::new("http://127.0.0.1:9000", None), fleet);
        watch.note();
        let reason = "scale up 1 → 6: depth 40 ≥ 5".to_owned();
        let (from_count, to_count, decision) = (Some(1), Some(6), "scale_up".to_owned());
        watch.events = vec![ScalingEvent { decision, from_count, to_count, reason, ..ScalingEvent::default() }];
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| watch.draw(frame)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn the_live_view_fits_eighty_columns() {
        let shown = shown(80, 24);
        let texts = [
            "swarm 1.2.3",
            "READ",
            "REACTION",
            "0.90 ms",
            "1–6",
            "tankpit",
            "held at 6: max_workers 6",
            "delayed  browser:jobs 3",
            "1 → 6  depth 40 ≥ 5",
            "q leaves",
        ];
        for text in texts {
            assert!(shown.contains(text), "`{text}` is missing in\n{shown}");
        }
    }

    #[test]
    fn with_more_room_it_shows_workers_and_curves_too() {
        let shown = shown(140, 40);
        for text in ["LAST 2 MIN", "█", "browser-1 BUSY", "1 → 6  depth 40 ≥ 5"] {
            assert!(shown.contains(text), "`{text}` is missing in\n{shown}");
        }
    }

    #[test]
    fn a_small_window_shows_what_it_can() {
        let shown = shown(80, 14);
        for text in ["held at 6", "q leaves"] {
            assert!(shown.contains(text) && !shown.contains("changes"), "`{text}` is missing in\n{shown}");
        }
    }

    #[test]
    fn a_curve_is_as_high_as_its_highest_point() {
        assert_eq!(bars(&VecDeque::from([0, 1, 50, 100])), " ▁▄█");
        assert_eq!(bars(&VecDeque::from([0, 0])), "  ");
    }
}
