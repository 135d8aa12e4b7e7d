//! Runs simulations in parallel, and reports their progress if they take a while.

use std::{
    io::{IsTerminal, Write, stderr},
    sync::atomic::{AtomicU32, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use serde::Serialize;

use super::variants::Variant;
use crate::simulation::{Report, Setup, Trace, simulate};

/// Time after which progress is reported.
const PROGRESS_AFTER: Duration = Duration::from_secs(1);
/// Time between two looks at the progress.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// One finished simulation.
#[derive(Debug, Serialize)]
pub(super) struct Run {
    /// Name of the variant.
    pub(super) name: String,
    /// Start-up time, in words.
    startup: String,
    #[serde(flatten)]
    pub(super) report: Report,
}

/// Runs one simulation for each variant. Returns the results in the order of the variants.
///
/// # Errors
/// If standard error can't be written to.
pub(super) fn run(variants: &[Variant], setups: &[Setup], trace: &Trace) -> anyhow::Result<Vec<Run>> {
    let reports = each("simulating", setups, trace, |report| report)?;
    let named = reports.into_iter().zip(variants).zip(setups);
    let named = named.map(|((report, variant), setup)| Run {
        name: variant.label.clone(),
        startup: setup.startup.to_string(),
        report,
    });
    Ok(named.collect())
}

/// Runs one simulation for each setup, as many at a time as there are processors, and keeps what `keep` makes of each
/// report. Returns that in the order of the setups. `what` is the name of the work in the progress line.
///
/// # Errors
/// If standard error can't be written to.
pub(super) fn each<T: Send>(
    what: &str,
    setups: &[Setup],
    trace: &Trace,
    keep: impl Fn(Report) -> T + Sync,
) -> anyhow::Result<Vec<T>> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(setups.len());
    let next = AtomicUsize::new(0);
    let done: Vec<AtomicU32> = setups.iter().map(|_| AtomicU32::new(0)).collect();
    let take_turns = || {
        let mut kept = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(setup) = setups.get(number) else { return kept };
            let mut progress = |part: f64| done[number].store(percent(part), Ordering::Relaxed);
            kept.push((number, keep(simulate(setup, trace, &mut progress))));
            done[number].store(100, Ordering::Relaxed);
        }
    };
    let mut kept = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(take_turns)).collect();
        watch(what, &done, || running.iter().all(thread::ScopedJoinHandle::is_finished))?;
        let joined = running.into_iter().map(|thread| thread.join().expect("a simulation does not panic"));
        anyhow::Ok(joined.flatten().collect::<Vec<_>>())
    })?;
    kept.sort_by_key(|(number, _)| *number);
    Ok(kept.into_iter().map(|(_, kept)| kept).collect())
}

/// Waits until all simulations have finished; on a terminal it shows the progress.
fn watch(what: &str, done: &[AtomicU32], finished: impl Fn() -> bool) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut told = false;
    while !finished() {
        thread::sleep(if started.elapsed() < PROGRESS_AFTER { Duration::from_millis(2) } else { POLL_INTERVAL });
        if started.elapsed() >= PROGRESS_AFTER && stderr().is_terminal() {
            let sum: u32 = done.iter().map(|part| part.load(Ordering::Relaxed)).sum();
            let percent = sum as usize / done.len();
            write!(stderr(), "\r{what}: {percent} %").context("can't write to standard error")?;
            told = true;
        }
    }
    if told {
        write!(stderr(), "\r\u{1b}[K").context("can't write to standard error")?;
    }
    Ok(())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1")]
fn percent(part: f64) -> u32 {
    (part.clamp(0.0, 1.0) * 100.0) as u32
}
