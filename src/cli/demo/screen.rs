//! The demo on a full screen: a card for each worker type, the events, the log. Draws, decides nothing.

use std::time::Duration;

use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color, Style, Stylize},
    text::{Line, Span},
    widgets::{Block, Gauge, Paragraph, Sparkline, Wrap},
};

use super::{
    jobs::JobCounts,
    script::{Act, Script},
    timeline::{Kind, Timeline},
};
use crate::{
    cli::view::{fleet, words},
    model::{
        PoolCounts, Timestamp, WorkerState,
        snapshot::{FleetSnapshot, TypeSnapshot},
    },
};

/// Height from which on there is room for log lines.
const LOG_FROM: u16 = 34;
/// Rows of a card: frame, curve, and four lines of text.
const CARD: u16 = 11;

/// Input of a frame.
pub(super) struct Scene<'a> {
    pub(super) script: &'a Script,
    /// Number of acts that have begun.
    pub(super) begun: usize,
    pub(super) at: Duration,
    pub(super) fleet: &'a FleetSnapshot,
    pub(super) timeline: &'a Timeline,
    pub(super) job_counts: JobCounts,
    pub(super) log: Vec<String>,
}

impl Scene<'_> {
    /// Draws the whole frame.
    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let log = if frame.area().height >= LOG_FROM { frame.area().height / 5 } else { 0 };
        let [head, cards, happened, log, foot] = Layout::vertical([
            Constraint::Length(3),
            Constraint::Length(CARD),
            Constraint::Min(3),
            Constraint::Length(log),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        frame.render_widget(Paragraph::new(self.heading()), head);
        let columns = Layout::horizontal(vec![Constraint::Fill(1); self.fleet.worker_types.len()]).split(cards);
        for (of, area) in self.fleet.worker_types.iter().zip(columns.iter()) {
            self.draw_card(frame, of, *area);
        }
        self.draw_happened(frame, happened);
        if log.height > 2 {
            let lines: Vec<Line<'_>> = self
                .log
                .iter()
                .rev()
                .take(usize::from(log.height - 2))
                .rev()
                .map(|line| Line::from(words::printable(message_of(line))).dim())
                .collect();
            frame.render_widget(Paragraph::new(lines).block(block(" log ")), log);
        }
        self.draw_foot(frame, foot);
    }

    fn heading(&self) -> Vec<Line<'static>> {
        let clock = format!(" {:.1} s of about {} s", self.at.as_secs_f64(), self.script.length.as_secs());
        let (title, expect) = match self.begun.checked_sub(1).and_then(|last| self.script.acts.get(last)) {
            Some(Act { title, expect, .. }) => (title.clone(), *expect),
            None => ("the pools come up".to_owned(), "`browser` keeps one worker at least, `tankpit` none"),
        };
        let act = format!("  act {} of {}", self.begun, self.script.acts.len());
        vec![
            Line::from(vec![" swarm demo ".bold().reversed(), Span::from(clock).dim(), Span::from(act).bold()]),
            Line::from(format!(" {title}")).bold(),
            Line::from(format!(" → {expect}")).italic().fg(Color::Cyan),
        ]
    }

    fn draw_card(&self, frame: &mut Frame<'_>, of: &TypeSnapshot, area: Rect) {
        let title = Line::from(vec![
            Span::from(format!(" {} ", of.worker_type)).bold(),
            Span::from(format!("{} ", of.queue)).dim(),
        ]);
        let frame_of_card = Block::bordered().title(title).border_style(Style::new().dim());
        let inside = frame_of_card.inner(area);
        frame.render_widget(frame_of_card, area);
        let [curve, queue, workers, states, reaction, decision] = Layout::vertical([
            Constraint::Length(3),
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Min(1),
        ])
        .areas(inside);

        let points = self.timeline.curve(&of.worker_type);
        let visible = points.len().saturating_sub(usize::from(curve.width));
        frame.render_widget(Sparkline::default().data(&points[visible..]).style(Style::new().fg(Color::Yellow)), curve);
        frame.render_widget(queue_line(of), queue);
        frame.render_widget(worker_dots(of), workers);
        frame.render_widget(state_line(of), states);
        frame.render_widget(reaction_line(of), reaction);
        let again = of
            .recheck_at
            .map_or_else(String::new, |_| format!(", looks again {}", fleet::looks_again(of, Timestamp::wall())));
        let words = Paragraph::new(format!("{}{again}", fleet::decision(of))).wrap(Wrap { trim: true });
        frame.render_widget(words.dim(), decision);
    }

    fn draw_happened(&self, frame: &mut Frame<'_>, area: Rect) {
        let room = usize::from(area.height.saturating_sub(2));
        let width = usize::from(area.width.saturating_sub(2));
        let lines: Vec<Line<'_>> = self
            .timeline
            .newest(room)
            .map(|line| {
                let text = format!("{:>5.1} s  {}", line.at.as_secs_f64(), line.text);
                Line::from(words::cut(&text, width)).fg(colour(line.kind))
            })
            .collect();
        frame.render_widget(Paragraph::new(lines).block(block(" what happened ")), area);
    }

    fn draw_foot(&self, frame: &mut Frame<'_>, area: Rect) {
        let [jobs, gauge, keys] =
            Layout::horizontal([Constraint::Length(44), Constraint::Fill(1), Constraint::Length(9)]).areas(area);
        let JobCounts { published, done, failed } = self.job_counts;
        let text = format!(" jobs: {published} published, {done} done, {failed} failed ");
        let text = if failed > 0 { text.fg(Color::Red) } else { text.into() };
        frame.render_widget(Line::from(text), jobs);
        #[expect(clippy::cast_precision_loss, reason = "job counts of a demo are small")]
        let share = if published == 0 { 0.0 } else { (done + failed) as f64 / published as f64 };
        let answered = Gauge::default().ratio(share.clamp(0.0, 1.0)).gauge_style(Style::new().fg(Color::Green));
        frame.render_widget(answered, gauge);
        frame.render_widget(Line::from("q stops ").dim().alignment(Alignment::Right), keys);
    }
}

/// Returns a log line without its time. For a worker's own line, which is the message of one of ours, returns that
/// line.
fn message_of(line: &str) -> &str {
    line.rsplit_once("Z ").map_or(line, |(_, message)| message.trim_start())
}

fn block(title: &'static str) -> Block<'static> {
    Block::bordered().title(title).border_style(Style::new().dim())
}

/// Returns the colour of an event.
pub(super) fn colour(kind: Kind) -> Color {
    match kind {
        Kind::Act => Color::Cyan,
        Kind::Up => Color::Green,
        Kind::Down => Color::Yellow,
        Kind::Measure => Color::Gray,
        Kind::Trouble => Color::Red,
    }
}

fn queue_line(of: &TypeSnapshot) -> Line<'static> {
    let demand = &of.demand;
    let depth = Span::from(format!("queue {:>3}", words::reading(&demand.depth()))).bold().fg(Color::Yellow);
    let parts = format!("  lag {}, pending {}", words::reading(&demand.lag), words::reading(&demand.pending));
    Line::from(vec![depth, Span::from(parts)])
}

/// Draws one symbol for each worker, and a faint one for each that may still be added.
fn worker_dots(of: &TypeSnapshot) -> Line<'static> {
    let mut spans = vec![Span::from(format!("{} of {}–{}  ", of.desired, of.min_workers, of.max_workers)).bold()];
    for worker in &of.workers {
        spans.push(match (worker.draining, worker.busy, worker.state) {
            (true, ..) => Span::from("▽ ").fg(Color::Yellow),
            (_, true, _) => Span::from("● ").fg(Color::Green),
            (_, _, None) => Span::from("◌ ").fg(Color::Cyan),
            (_, _, Some(WorkerState::Error)) => Span::from("✗ ").fg(Color::Red),
            _ => Span::from("○ ").fg(Color::Green),
        });
    }
    let live = of.workers.iter().filter(|worker| !worker.draining).count();
    let free = usize::try_from(of.max_workers).unwrap_or_default().saturating_sub(live);
    spans.push(Span::from("· ".repeat(free)).dim());
    Line::from(spans)
}

fn state_line(of: &TypeSnapshot) -> Line<'static> {
    let Some(PoolCounts { ready, starting, busy, draining, .. }) = of.pool.known() else {
        return Line::from("workers unknown").fg(Color::Red);
    };
    let idle = ready.saturating_sub(*busy);
    Line::from(vec![
        Span::from(format!("● {busy} busy  ○ {idle} idle")).fg(Color::Green),
        Span::from(format!("  ◌ {starting} new")).fg(Color::Cyan),
        Span::from(format!("  ▽ {draining} off")).fg(Color::Yellow),
    ])
}

fn reaction_line(of: &TypeSnapshot) -> Line<'static> {
    let Some(reaction) = of.reaction else { return Line::from("no reaction yet").dim() };
    let or_none = |ms: Option<f64>| ms.map_or_else(|| words::NONE.to_owned(), words::milliseconds);
    // Decided, requested, ready: the longer line under "what happened" spells them out.
    Line::from(format!(
        "⚡ {} → {} → {}",
        words::milliseconds(reaction.decided_ms),
        or_none(reaction.requested_ms),
        or_none(reaction.running_ms)
    ))
    .fg(Color::Magenta)
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;

    #[test]
    fn it_fits_the_usual_terminals_and_survives_tiny_ones() {
        let script = Script::lasting(Duration::from_secs(40));
        let mut timeline = Timeline::default();
        timeline.tell(Duration::from_secs(1), Kind::Up, "browser 1 → 6  depth 40 ≥ 5");
        let fleet = fleet::made_up();
        timeline.note_fleet(Duration::ZERO, &fleet);
        for (width, height) in [(80, 24), (120, 40), (20, 5), (1, 1)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            let job_counts = JobCounts { published: 9, done: 4, failed: 0 };
            let log = vec!["a log line".to_owned()];
            let scene = Scene {
                script: &script,
                begun: 2,
                at: Duration::ZERO,
                fleet: &fleet,
                timeline: &timeline,
                job_counts,
                log,
            };
            terminal.draw(|frame| scene.draw(frame)).unwrap();
            let shown = terminal.backend().to_string();
            let wanted = [
                "act 2 of 4",
                "browser:jobs",
                "queue  37",
                "● 4 busy",
                "0.60 ms → 0.90 ms",
                "browser 1 → 6",
                "9 published",
            ];
            for text in wanted.iter().filter(|_| width >= 80) {
                assert!(shown.contains(text), "`{text}` is missing in\n{shown}");
            }
            assert_eq!(shown.contains("a log line"), height >= 40, "{shown}");
        }
    }
}
