//! `swarm simulate`: what the autoscaler would have done about a trace of jobs, under one configuration or several.

mod arrivals;
mod race;
mod suggest;
mod table;
mod variants;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;

use self::{
    arrivals::{ArrivalArgs, Source},
    race::Run,
    variants::{Variant, VariantArgs, Variants},
};
use super::output;
use crate::{
    config::Orchestrator,
    model::WorkerType,
    plot::{Format, Panel, Picture},
    simulation::{Setup, Times, Trace, parse_duration, spell},
    suggestion::SuggestionInput,
};

/// The tail of a trace is a tenth of it, and at least this.
const SHORTEST_TAIL: Duration = Duration::from_secs(60);

/// Simulate the autoscaler on a trace of jobs
///
/// Runs the autoscaler's own decision code on a simulated clock, queue and pool, and shows how long jobs would have
/// waited and what the workers would have cost. A day of a million jobs takes seconds. To compare several
/// configurations on the same jobs, name several files, or settings to change.
///
/// TRACE is a CSV file, as `swarm record` writes it (`-` for standard input), or a pattern: `steady` (random arrivals
/// at a constant rate), `burst` (the same, with occasional bursts) or `daily` (a peak in the afternoon). A file has a
/// header and the columns arrival_ms, worker_type (optional) and service_ms (optional). The command connects to
/// nothing.
///
/// With --suggest it searches for settings that need fewer worker-hours without longer waits, or that shorten the waits
/// without more worker-hours, and prints them as TOML: thresholds, cooldown, min_workers and, from three days on, a
/// schedule. It learns from all but the last week if there are two weeks or more, and checks on that week.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  swarm simulate burst --type browser
  swarm simulate daily --rate 1000000/d --service lognormal:p50=400ms,p95=2s --plot day.png
  swarm simulate trace.csv --set scaling.scale_up_threshold=2 --set scaling.scale_up_threshold=10
  swarm simulate trace.csv --config today.toml --config tomorrow.toml --startup 8s --plot both.svg
  swarm simulate trace.csv --suggest
  swarm simulate trace.csv --json | jq '.runs[].wait_seconds.p95'

WAIT is the time from publishing a job until a worker starts it. WORKER-HOURS count each worker
from the request to start it until it is gone. docs/simulation.md works through an example, and
lists what the simulation leaves out.")]
pub struct SimulateArgs {
    #[command(flatten)]
    arrivals: ArrivalArgs,
    #[command(flatten)]
    variants: VariantArgs,
    /// The worker type [default: the only one]
    #[arg(long = "type", value_name = "TYPE")]
    worker_type: Option<String>,
    /// Time from the request of a worker until it takes its first job; forms as for --service [default: by
    /// orchestrator: 500ms for processes, 1500ms for docker, 10s for kubernetes and command, 3s for fly]
    #[arg(long, value_name = "TIMES", help_heading = "Workers")]
    startup: Option<Times>,
    /// Number of workers at the beginning [default: min_workers]
    #[arg(long, value_name = "N", help_heading = "Workers")]
    initial: Option<u32>,
    /// Time to simulate after the last arrival [default: a tenth of the trace, at least 1m]
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "Workers")]
    tail: Option<Duration>,
    /// Search for better settings of the worker type, and print them as TOML with the waits and worker-hours that they
    /// would have given
    #[arg(long, conflicts_with_all = ["set", "plot"], help_heading = "Output")]
    suggest: bool,
    /// Draw a picture to this file, whose name ends in .svg or .png
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    plot: Vec<PathBuf>,
    /// Print JSON, with every change of the number of workers and a timeline
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// All that was simulated, for programs.
#[derive(Serialize)]
struct SimulationOutput<'a> {
    worker_type: &'a str,
    trace: TraceFacts<'a>,
    runs: &'a [Run],
}

/// The jobs.
#[derive(Serialize)]
struct TraceFacts<'a> {
    /// Where they are from.
    name: &'a str,
    jobs: usize,
    /// For how long they come.
    seconds: f64,
    /// How long they take, in words.
    services: &'a str,
    /// Workers that would be busy all the time.
    offered_load: f64,
    /// Under which all of this comes again.
    seed: u64,
}

/// Runs it.
///
/// # Errors
/// If the configuration, the trace or an option is wrong, or the picture can't be written.
pub fn run(args: &SimulateArgs) -> anyhow::Result<ExitCode> {
    let formats = args.plot.iter().map(|file| Format::of(file)).collect::<Result<Vec<_>, _>>()?;
    let source = args.arrivals.source()?;
    let variants = args.variants.load(args.worker_type.as_deref())?;
    for warning in &variants.warnings {
        output::error_line(&format!("warning: {warning}"))?;
    }
    let name = variants.worker_type.as_str();
    let trace = args.arrivals.trace(&source, name)?;
    let setups = variants.all.iter().map(|variant| args.setup(name, variant, &trace)).collect::<Result<Vec<_>, _>>()?;
    if args.suggest {
        return args.suggest(name, &source, &variants, &setups, trace);
    }
    let runs = race::run(&variants.all, &setups, &trace)?;
    for (file, format) in args.plot.iter().zip(formats) {
        let picture = Picture { title: &title(name, &source, &trace), panels: &panels(&runs) }.draw(format)?;
        std::fs::write(file, picture).with_context(|| format!("can't write {}", file.display()))?;
    }
    if args.json {
        output::json(&outcome(name, &source, &trace, &runs, args.arrivals.seed))?;
    } else {
        output::line(&title(name, &source, &trace))?;
        output::line(&table::details(&setups, &trace))?;
        output::line(&table::of(&runs))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl SimulateArgs {
    fn suggest(
        &self,
        name: &str,
        source: &Source,
        variants: &Variants,
        setups: &[Setup],
        trace: Trace,
    ) -> anyhow::Result<ExitCode> {
        let ([variant], [setup]) = (variants.all.as_slice(), setups) else {
            bail!("--suggest improves one configuration; name one --config")
        };
        let is_recorded = matches!(source, Source::File(_));
        suggest::check(&trace, is_recorded)?;
        let tail = if self.tail.is_some() { setup.tail } else { setup.tail.min(suggest::LONGEST_TAIL) };
        let setup = Setup { tail, ..setup.clone() };
        if !self.json {
            output::line(&title(name, source, &trace))?;
            output::line(&table::details(std::slice::from_ref(&setup), &trace))?;
        }
        let has_clock = !is_recorded || self.arrivals.has_start() || !trace.has_assumed_start();
        let input = SuggestionInput { setup, trace, has_clock, initial_is_fixed: self.initial.is_some() };
        suggest::run(name, &variant.label, &input, self.json)?;
        Ok(ExitCode::SUCCESS)
    }

    fn setup(&self, name: &str, variant: &Variant, trace: &Trace) -> anyhow::Result<Setup> {
        let Some(settings) = variant.settings.worker_types.get(name) else {
            bail!("no worker type `{name}` in {}; every configuration must have it", variant.label)
        };
        Ok(Setup {
            worker_type: WorkerType::new(name),
            settings: settings.clone(),
            scaler: variant.settings.scaler.clone(),
            startup: self.startup.clone().unwrap_or_else(|| usual_startup(variant.settings.orchestrator)),
            initial: self.initial.unwrap_or(settings.scaling.min_workers),
            tail: self.tail.unwrap_or((trace.lasts / 10).max(SHORTEST_TAIL)),
            seed: self.arrivals.seed,
        })
    }
}

/// Typical start times if the image is pulled and nodes have room: a first guess, to be replaced by measured times.
fn usual_startup(orchestrator: Orchestrator) -> Times {
    Times::Fixed(Duration::from_millis(match orchestrator {
        Orchestrator::Process => 500,
        Orchestrator::Docker => 1_500,
        Orchestrator::Kubernetes | Orchestrator::Command | Orchestrator::Keda => 10_000,
        Orchestrator::Fly => 3_000,
    }))
}

/// `browser: 3,600 jobs in 1h (steady, 1/s)`
fn title(worker_type: &str, source: &Source, trace: &Trace) -> String {
    let (jobs, lasts) = (table::thousands(trace.jobs.len() as u64), spell(trace.lasts));
    format!("{worker_type}: {jobs} jobs in {lasts} ({source})")
}

fn panels(runs: &[Run]) -> Vec<Panel<'_>> {
    runs.iter().map(|run| Panel { label: &run.name, note: table::note(&run.report), report: &run.report }).collect()
}

fn outcome<'a>(
    name: &'a str,
    source: &'a Source,
    trace: &'a Trace,
    runs: &'a [Run],
    seed: u64,
) -> SimulationOutput<'a> {
    let facts = TraceFacts {
        name: source.name(),
        jobs: trace.jobs.len(),
        seconds: trace.lasts.as_secs_f64(),
        services: &trace.services,
        offered_load: trace.offered_load(),
        seed,
    };
    SimulationOutput { worker_type: name, trace: facts, runs }
}
