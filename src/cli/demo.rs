//! `swarm demo`: a whole system on one machine: a private Redis, the autoscaler, real workers, jobs in bursts, and the
//! result, live. Leaves nothing behind, however it ends.

mod jobs;
mod log;
mod redis;
mod screen;
mod script;
mod stage;
mod summary;
mod timeline;

use std::{
    io::IsTerminal,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;
use futures_util::{Stream, StreamExt, stream};
use tokio_util::sync::CancellationToken;

use self::{
    jobs::Producer,
    log::Log,
    screen::Scene,
    script::{Act, Script},
    stage::Stage,
    summary::{Ending, Summary, next_steps},
    timeline::{Kind, Timeline},
};
use super::{
    output,
    stop::stop_on_signal,
    view::screen::{Screen, ScreenCommand},
};
use crate::{
    model::snapshot::FleetSnapshot,
    scaler::{EventTail, ScalingEvent},
};

/// Time between two looks, and two frames: smooth to the eye, cheap for the machine.
const TICK: Duration = Duration::from_millis(50);
/// How long the last frame stays on the screen before the terminal is given back: long enough to read it.
const LAST_FRAME: Duration = Duration::from_secs(3);
/// Time beyond the script's length until all jobs must be finished, and time for the pools to come up; after that the
/// demo fails.
const GRACE: Duration = Duration::from_secs(45);
/// Exit code after Ctrl-C, as shells report it.
const INTERRUPTED: u8 = 130;

/// Run a demonstration with a private Redis and real workers, under a minute
///
/// Starts everything on free ports of this machine, publishes jobs in bursts, shows how the pools follow, ends with a
/// summary and leaves nothing behind. Needs only the program redis-server.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  swarm demo
  swarm demo --duration 15
  swarm demo --no-tui            plain lines, as in CI
  swarm demo --json | jq .jobs   the summary for programs

Exits with 0 if every job was answered and no process is left, with 130 after Ctrl-C, else with 1.")]
pub struct DemoArgs {
    /// Approximate duration; a shorter demonstration has fewer jobs
    #[arg(long, value_name = "SECONDS", default_value_t = 40, value_parser = clap::value_parser!(u64).range(5..=3_600))]
    duration: u64,
    /// Print plain lines, even on a terminal
    #[arg(long)]
    no_tui: bool,
    /// Print the summary as JSON, and progress to standard error
    #[arg(long)]
    json: bool,
}

/// Runs `swarm demo`.
///
/// # Errors
/// If the demo can't be set up.
pub async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let stop = stop_on_signal("workers finish their jobs")?;
    let directory =
        tempfile::Builder::new().prefix("swarm-demo-").tempdir().context("can't make a temporary directory")?;
    let log_file = directory.path().join("swarm.log");
    let log = Log::capture(&log_file)?;
    let result = Demo::play(&args, directory.path(), log, stop).await;
    let failed = !matches!(result, Ok(Ending::Complete | Ending::Interrupted));
    if failed {
        let kept = directory.keep();
        output::error_line(&format!("the whole log, and that of redis, are kept in {}", kept.display()))?;
    }
    Ok(match result? {
        Ending::Complete => ExitCode::SUCCESS,
        Ending::Interrupted => ExitCode::from(INTERRUPTED),
        Ending::Failed(_) => ExitCode::FAILURE,
    })
}

/// A running demo.
struct Demo {
    script: Script,
    begun: usize,
    started: Instant,
    /// When the pools were up; the script's times count from here.
    pools_up_at: Option<Duration>,
    /// When everything was finished and drawn; a screen shows its last frame from then on for [`LAST_FRAME`].
    rested: Option<Duration>,
    timeline: Timeline,
    stop: CancellationToken,
    log: Log,
    view: View,
}

/// How the demo is shown.
enum View {
    Screen(Screen),
    Lines { to_stderr: bool, colour: bool },
}

impl Demo {
    /// Plays the demo, from the set-up to the summary.
    async fn play(
        args: &DemoArgs,
        directory: &std::path::Path,
        log: Log,
        stop: CancellationToken,
    ) -> anyhow::Result<Ending> {
        let script = Script::lasting(Duration::from_secs(args.duration));
        let started = Instant::now();
        let stage = Stage::set(&script, directory).await?;
        let producer = Producer::start(stage.target.clone(), &stage.settings);
        let mut demo = Self {
            script,
            begun: 0,
            started,
            pools_up_at: None,
            rested: None,
            timeline: Timeline::default(),
            stop,
            log,
            view: View::lines(args),
        };
        demo.introduce(&stage);
        let mut producer = producer;
        let mut ending = match demo.perform(args, &stage, &mut producer).await {
            Ok(ending) => ending,
            Err(error) => Ending::Failed(format!("{error:#}")),
        };
        // The terminal is given back first: plain lines follow, and a second Ctrl-C is a signal again.
        demo.view = View::lines(args);
        demo.timeline.take_unread();
        let job_counts = producer.stop().await;
        if ending == Ending::Interrupted {
            output::error_line("stopping: workers finish their jobs")?;
        }
        if let Err(error) = stage.tear_down().await {
            ending = Ending::Failed(format!("{error:#}"));
        }
        let took = demo.started.elapsed();
        let summary = Summary { timeline: &demo.timeline, job_counts, ending: &ending, took };
        let next = next_steps(&program());
        if args.json {
            output::json(&summary.json())?;
        } else {
            output::line(&format!("\n{}", summary.text()))?;
            if ending == Ending::Complete {
                output::line(&format!("\n{next}"))?;
            }
        }
        Ok(ending)
    }

    fn introduce(&mut self, stage: &Stage) {
        let at = self.started.elapsed();
        self.timeline.tell(at, Kind::Act, format!("redis   {} (private, nothing on disk)", stage.redis_url()));
        if let Some(http) = stage.http {
            self.timeline.tell(at, Kind::Act, format!("swarm   http://{http}/status, http://{http}/metrics"));
        }
    }

    /// Runs until the script is played and the pools are at rest, or until something ends the demo.
    async fn perform(&mut self, args: &DemoArgs, stage: &Stage, producer: &mut Producer) -> anyhow::Result<Ending> {
        if !args.no_tui && !args.json && Screen::is_available() {
            self.view = View::Screen(Screen::take()?);
        }
        let mut events = std::pin::pin!(follow(EventTail::new(stage.target.clone(), "0-0".to_owned())));
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                Some(event) = events.next() => {
                    self.timeline.note_event(self.started.elapsed(), &event);
                    continue;
                }
                () = self.stop.cancelled() => return Ok(Ending::Interrupted),
            }
            let at = self.started.elapsed();
            let fleet = stage.status.fleet();
            self.timeline.note_fleet(at, &fleet);
            self.timeline.note_job_counts(at, producer.job_counts());
            if self.show(&fleet, producer)? {
                return Ok(Ending::Interrupted);
            }
            if stage.has_collapsed() {
                return Ok(Ending::Failed("the autoscaler has stopped".to_owned()));
            }
            if let Some(act) = self.due(at, &fleet) {
                for batch in &act.batches {
                    producer.publish(batch).await?;
                }
            } else if let Some(ending) = self.ending(at, &fleet, producer) {
                self.show(&fleet, producer)?;
                return Ok(ending);
            }
        }
    }

    /// Returns the next act, if it is due. The script's clock starts when all pools are at rest.
    fn due(&mut self, at: Duration, fleet: &FleetSnapshot) -> Option<Act> {
        let pools_up_at = match self.pools_up_at {
            Some(pools_up_at) => pools_up_at,
            None if is_at_rest(fleet) => *self.pools_up_at.insert(at),
            None => return None,
        };
        let act = self.script.acts.get(self.begun).filter(|act| at >= pools_up_at + act.at)?.clone();
        self.begun += 1;
        self.timeline.tell(at, Kind::Act, format!("act {} of {}: {}", self.begun, self.script.acts.len(), act.title));
        Some(act)
    }

    /// Returns how the demo ends, if it ends now.
    ///
    /// The history arrives after the snapshots: the end waits until the history contains every scale-down, so that the
    /// last frame and the last lines show the pools at rest.
    fn ending(&mut self, at: Duration, fleet: &FleetSnapshot, producer: &Producer) -> Option<Ending> {
        let job_counts = producer.job_counts();
        let played = self.begun == self.script.acts.len();
        if played && job_counts.open() == 0 && is_at_rest(fleet) && self.timeline.has_told_rest(fleet) {
            let rested = if let Some(rested) = self.rested {
                rested
            } else {
                self.timeline.tell_rest(at, fleet);
                *self.rested.insert(at)
            };
            if matches!(self.view, View::Screen(_)) && at < rested + LAST_FRAME {
                return None;
            }
            return Some(match job_counts.failed {
                0 => Ending::Complete,
                failed => Ending::Failed(format!("{failed} of {} jobs failed", job_counts.published)),
            });
        }
        (at > self.script.length + GRACE).then(|| {
            let open = job_counts.open();
            Ending::Failed(match (self.pools_up_at, open) {
                (None, _) => "the pools did not come up".to_owned(),
                (_, 0) => "the pools did not come back to their minimum".to_owned(),
                _ => format!("{open} of {} jobs were not answered", job_counts.published),
            })
        })
    }

    /// Shows what is new; returns whether the user wants to leave.
    fn show(&mut self, fleet: &FleetSnapshot, producer: &Producer) -> anyhow::Result<bool> {
        match &mut self.view {
            View::Screen(screen) => {
                let scene = Scene {
                    script: &self.script,
                    begun: self.begun,
                    at: self.started.elapsed(),
                    fleet,
                    timeline: &self.timeline,
                    job_counts: producer.job_counts(),
                    log: self.log.newest(usize::from(u8::MAX)),
                };
                screen.draw(|frame| scene.draw(frame))?;
                Ok(matches!(screen.command()?, Some(ScreenCommand::Quit | ScreenCommand::Interrupt)))
            }
            View::Lines { to_stderr, colour } => {
                for line in self.timeline.take_unread() {
                    let text = format!("{:>6.1} s  {}", line.at.as_secs_f64(), line.text);
                    let text = if *colour { painted(&text, line.kind) } else { text };
                    if *to_stderr { output::error_line(&text)? } else { output::line(&text)? }
                }
                Ok(false)
            }
        }
    }
}

impl View {
    fn lines(args: &DemoArgs) -> Self {
        let colour = if args.json { std::io::stderr().is_terminal() } else { std::io::stdout().is_terminal() };
        Self::Lines { to_stderr: args.json, colour }
    }
}

fn painted(text: &str, kind: Kind) -> String {
    let code = match kind {
        Kind::Act => "1;36",
        Kind::Up => "32",
        Kind::Down => "33",
        Kind::Measure => "0",
        Kind::Trouble => "31",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// Returns how to call this program from here: by its name if the PATH contains it, else by its path.
fn program() -> String {
    let Ok(this) = std::env::current_exe() else { return "swarm".to_owned() };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|directory| directory.join("swarm")).find(|file| file.is_file());
    if found.and_then(|file| file.canonicalize().ok()).is_some_and(|file| file == this) {
        return "swarm".to_owned();
    }
    let here = std::env::current_dir().ok();
    let relative = here.and_then(|here| Some(this.strip_prefix(here).ok()?.to_owned()));
    let path = relative.unwrap_or(this).display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+');
    if path.chars().all(plain) { path } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

/// Returns whether every pool has its minimum size, with all workers ready and none draining.
fn is_at_rest(fleet: &FleetSnapshot) -> bool {
    fleet.worker_types.iter().all(|of| {
        of.pool.known().is_some_and(|pool| {
            pool.ready == of.min_workers && pool.starting == 0 && pool.draining == 0 && of.desired == of.min_workers
        })
    })
}

/// Returns the events as they are written. A failed read is retried: the next read misses nothing.
fn follow(tail: EventTail) -> impl Stream<Item = ScalingEvent> {
    stream::unfold(tail, |mut tail| async {
        loop {
            match tail.next().await {
                Ok(events) => return Some((stream::iter(events), tail)),
                Err(error) => {
                    tracing::warn!("following the history: {error}");
                    tokio::time::sleep(TICK).await;
                }
            }
        }
    })
    .flatten()
}
