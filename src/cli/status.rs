//! `swarm status`: what a running autoscaler shows of itself, once or live.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::bail;
use clap::Args;
use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Layout},
    style::{Color, Modifier, Style, Stylize},
    text::Line,
    widgets::{Block, Paragraph, Row, Table, Wrap},
};

use super::{
    ConfigFlags, output,
    status_client::{StatusError, fetch_status},
    view::{
        fleet,
        screen::{Screen, Wish},
        words,
    },
};
use crate::model::{
    Reading, Timestamp,
    snapshot::{FleetSnapshot, ReloadOutcome},
};

/// How often a live view asks.
const REFRESH: Duration = Duration::from_millis(500);

/// How often a live view looks for keys: below what a hand notices.
const KEYS: Duration = Duration::from_millis(50);

/// Show what a running autoscaler sees and does
///
/// Queues, workers, the last decision of each worker type with its reason, and when it looks again. Asks the
/// autoscaler's HTTP server, by default at `http.listen` of the configuration.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  swarm status
  swarm status --watch
  swarm status --json | jq '.worker_types[] | {worker_type, desired}'
  swarm status --url http://10.0.0.7:9000

`?` stands for what could not be read: it is never taken for 0. Exits with 1 if no autoscaler answers.")]
pub struct StatusArgs {
    #[command(flatten)]
    config: ConfigFlags,
    /// Where the autoscaler's HTTP server is [default: from http.listen of the configuration]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Stay and show changes: full screen on a terminal (q leaves), else one table for each change of state
    #[arg(long, short)]
    watch: bool,
    /// Print the whole snapshot as JSON; with --watch, one line for each change of state
    #[arg(long)]
    json: bool,
}

/// Runs it.
///
/// # Errors
/// If no autoscaler answers.
pub async fn run(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let url = match &args.url {
        Some(url) => url.clone(),
        None => url_of(&args.config.load()?.settings.http.listen)?,
    };
    let fleet = fetch_status(&url).await?;
    if !args.watch {
        if args.json {
            output::json(&fleet)?;
        } else {
            output::line(&fleet::text(&fleet, Timestamp::wall()))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if Screen::is_available() && !args.json {
        watch_on_screen(&url, fleet).await?;
    } else {
        watch_in_lines(&url, fleet, args.json).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Where to ask a server that listens on `listen`: an address that stands for all interfaces is asked on this machine.
pub(super) fn url_of(listen: &str) -> anyhow::Result<String> {
    if listen.is_empty() {
        bail!("the configuration turns the HTTP server off; set `listen` in `[http]`, or name one with --url");
    }
    let mut address: std::net::SocketAddr = listen.parse()?;
    if address.port() == 0 {
        bail!("`listen` in `[http]` takes any free port; give the one in the autoscaler's log with --url");
    }
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    Ok(format!("http://{address}"))
}

/// One table for each change of state, until Ctrl-C or until the autoscaler is gone.
async fn watch_in_lines(url: &str, mut fleet: FleetSnapshot, json: bool) -> anyhow::Result<()> {
    let mut shown = None;
    loop {
        let state = state_of(&fleet);
        if shown.as_ref() != Some(&state) {
            if json {
                output::line(&serde_json::to_string(&fleet)?)?;
            } else {
                let now = Timestamp::wall();
                output::line(&format!("── {}\n{}\n", words::time_of_day(now), fleet::text(&fleet, now)))?;
            }
            shown = Some(state);
        }
        tokio::time::sleep(REFRESH).await;
        fleet = fetch_status(url).await?;
    }
}

/// The part of a snapshot that is news when it changes: no clocks, counters or words with seconds in them.
fn state_of(fleet: &FleetSnapshot) -> FleetSnapshot {
    let mut state = fleet.clone();
    for of in &mut state.worker_types {
        let of = std::sync::Arc::make_mut(of);
        of.evaluated_at = None;
        of.evaluations = 0;
        of.recheck_at = None;
        of.reasons.clear();
        of.sources.clear();
        of.demand.oldest = Reading::Known(None);
    }
    state
}

async fn watch_on_screen(url: &str, fleet: FleetSnapshot) -> anyhow::Result<()> {
    let mut screen = Screen::take()?;
    let mut seen = Ok(fleet);
    let mut last = None;
    loop {
        screen.draw(|frame| draw(frame, &seen, last.as_ref(), url))?;
        let asked_at = Instant::now();
        while asked_at.elapsed() < REFRESH {
            match screen.wish()? {
                Some(Wish::Quit | Wish::Interrupt) => return Ok(()),
                Some(Wish::Redraw) => screen.draw(|frame| draw(frame, &seen, last.as_ref(), url))?,
                None => tokio::time::sleep(KEYS).await,
            }
        }
        if let Ok(fleet) = seen {
            last = Some(fleet);
        }
        seen = fetch_status(url).await;
    }
}

/// The live view. Without an answer it shows the last one, and says so.
fn draw(frame: &mut Frame<'_>, seen: &Result<FleetSnapshot, StatusError>, last: Option<&FleetSnapshot>, url: &str) {
    let now = Timestamp::wall();
    let (fleet, error) = match seen {
        Ok(fleet) => (Some(fleet), None),
        Err(error) => (last, Some(error.to_string())),
    };
    let Some(fleet) = fleet else { return };
    let types = u16::try_from(fleet.worker_types.len()).unwrap_or(u16::MAX);
    let heading = heading(fleet, error.as_deref(), now);
    let [head, numbers, decisions, foot] = Layout::vertical([
        Constraint::Length(u16::try_from(heading.len()).unwrap_or(4)),
        Constraint::Length(types.saturating_add(2)),
        Constraint::Min(4),
        Constraint::Length(1),
    ])
    .areas(frame.area());

    frame.render_widget(Paragraph::new(heading), head);
    frame.render_widget(numbers_table(fleet, now), numbers);
    let reasons: Vec<Line<'_>> = fleet
        .worker_types
        .iter()
        .map(|of| {
            let again =
                of.recheck_at.map_or_else(String::new, |_| format!(", looks again {}", fleet::looks_again(of, now)));
            Line::from(vec![format!("{} ", of.worker_type).bold(), format!("{}{again}", fleet::decision(of)).into()])
        })
        .collect();
    let block = Block::bordered().title(" last decisions ").border_style(Style::new().dim());
    frame.render_widget(Paragraph::new(reasons).wrap(Wrap { trim: true }).block(block), decisions);
    frame.render_widget(Line::from(format!("q leaves · {url}")).dim().alignment(Alignment::Right), foot);
}

fn heading<'a>(fleet: &FleetSnapshot, error: Option<&str>, now: Timestamp) -> Vec<Line<'a>> {
    let redis = Line::from(format!("redis    {}", fleet::redis(fleet)));
    let redis = if fleet.redis_error.is_some() { redis.fg(Color::Red) } else { redis };
    let title = match error {
        Some(error) => Line::from(format!("no answer, this is old: {error}")).fg(Color::Red),
        None => Line::from(fleet::title(fleet, now)).bold(),
    };
    let leader = Line::from(format!("leader   {}", fleet::leader(fleet, now)));
    let mut lines = vec![title, leader, redis, Line::from(format!("signals  {}", fleet::sources(fleet)))];
    if let Some(config) = fleet::config(fleet, now) {
        let refused = fleet.reload.as_ref().is_some_and(|reload| reload.outcome == ReloadOutcome::Refused);
        let line = Line::from(format!("config   {config}"));
        lines.push(if refused { line.fg(Color::Red) } else { line });
    }
    lines
}

fn numbers_table(fleet: &FleetSnapshot, now: Timestamp) -> Table<'static> {
    let right = |text: String| Line::from(text).alignment(Alignment::Right);
    let cells = |row: [String; 11]| {
        let mut cells = row.into_iter();
        let name = cells.next().map(Line::from);
        Row::new(name.into_iter().chain(cells.map(right)))
    };
    let rows = fleet.worker_types.iter().map(|of| {
        let troubled = of.backend_error.is_some() || of.demand.lag.why_not().is_some();
        let style = if troubled { Style::new().fg(Color::Red) } else { Style::new() };
        cells(fleet::counts(of, now)).style(style)
    });
    // Wide enough for the heading and what is usual below it; 80 columns hold all of them.
    let widths = [7_u16, 5, 5, 6, 4, 5, 5, 4, 5, 7, 8].map(Constraint::Length);
    let names = ["TYPE", "LAG", "PEND", "OLDEST", "WANT", "READY", "START", "BUSY", "DRAIN", "MIN–MAX", "REACTION"];
    let mut widths = widths.to_vec();
    let longest = fleet.worker_types.iter().map(|of| of.worker_type.as_str().len()).max().unwrap_or(0).max(7);
    widths[0] = Constraint::Max(u16::try_from(longest).unwrap_or(7));
    let header = cells(names.map(str::to_owned)).style(Style::new().add_modifier(Modifier::DIM));
    Table::new(rows, widths).header(header).column_spacing(1)
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;

    #[test]
    fn the_url_is_where_a_server_that_listens_there_can_be_asked() {
        assert_eq!(url_of("127.0.0.1:9000").unwrap(), "http://127.0.0.1:9000");
        assert_eq!(url_of("0.0.0.0:80").unwrap(), "http://127.0.0.1:80");
        assert_eq!(url_of("[::]:80").unwrap(), "http://[::1]:80");
        assert!(url_of("").unwrap_err().to_string().contains("--url"));
        assert!(url_of("127.0.0.1:0").unwrap_err().to_string().contains("--url"));
    }

    #[test]
    fn clocks_and_counters_are_no_change_of_state_and_numbers_are() {
        let fleet = fleet::made_up();
        let mut later = fleet.clone();
        let of = std::sync::Arc::make_mut(&mut later.worker_types[0]);
        of.evaluations += 1;
        of.reasons = vec!["cooldown ends in 3 s".to_owned()];
        assert_eq!(state_of(&fleet), state_of(&later));
        std::sync::Arc::make_mut(&mut later.worker_types[0]).desired += 1;
        assert_ne!(state_of(&fleet), state_of(&later));
    }

    #[test]
    fn the_live_view_fits_eighty_columns() {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| draw(frame, &Ok(fleet::made_up()), None, "http://127.0.0.1:9000")).unwrap();
        let shown = terminal.backend().to_string();
        for text in [
            "swarm 1.2.3",
            "REACTION",
            "0.90 ms",
            "1–6",
            "tankpit",
            "held at 6: max_workers 6",
            "config   REFUSED",
            "q leaves",
        ] {
            assert!(shown.contains(text), "`{text}` is missing in\n{shown}");
        }
    }
}
