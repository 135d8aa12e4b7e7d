//! The search: thresholds first, then minimums for the best of them, then the choice, and its check on jobs that the
//! search has not seen.

use std::time::Duration;

use serde::Serialize;

use super::{
    Aim, Candidate, Outcome,
    choice::front,
    grid,
    hours::{HourlyNeeds, has_a_week, time_zone},
};
use crate::{
    config::ScalingSettings,
    simulation::{Setup, Trace},
};

const DAY: Duration = Duration::from_secs(86_400);
/// Jobs over this time show what repeats daily.
const SCHEDULE_NEEDS: Duration = Duration::from_secs(3 * 86_400);
/// From this time on, the last week is kept for the check.
const CHECK_NEEDS: Duration = Duration::from_secs(14 * 86_400);
/// Time that is kept for the check: a week has all days.
const CHECKED: Duration = Duration::from_secs(7 * 86_400);
/// Thresholds with which other minimums are tried.
const FRONT: usize = 5;

/// What a search needs.
#[derive(Clone, Debug)]
pub struct SuggestionInput {
    /// The simulation of the present settings.
    pub setup: Setup,
    /// The jobs.
    pub trace: Trace,
    /// Whether the trace tells the time of day.
    pub has_clock: bool,
    /// Whether the setup's number of initial workers is the same for all settings, instead of their `min_workers`.
    pub initial_is_fixed: bool,
}

/// A part of the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Other thresholds and cooldowns.
    Thresholds,
    /// Other minimums of workers, by the clock if the trace allows.
    Minimums,
    /// The choice on the jobs that were kept for the check.
    Check,
}

/// A part of the jobs.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// Its jobs.
    pub jobs: usize,
    /// Its time.
    pub seconds: f64,
}

impl Part {
    fn of(trace: &Trace) -> Self {
        Self { jobs: trace.jobs.len(), seconds: trace.lasts.as_secs_f64() }
    }
}

/// Settings that are better than the present ones.
#[derive(Clone, Debug)]
pub struct Choice {
    /// What is better.
    pub aim: Aim,
    /// The settings.
    pub candidate: Candidate,
    /// Result on the jobs that the settings were chosen on.
    pub learned: Outcome,
    /// Result on the jobs that were kept for the check.
    pub checked: Option<Outcome>,
    /// Whether the check confirms the choice. Without a check, yes.
    pub is_confirmed: bool,
}

/// Result of a search.
#[derive(Clone, Debug)]
pub struct Suggestion {
    /// Jobs on which the settings were chosen.
    pub learned: Part,
    /// Jobs on which the choice was checked; `None` if there are too few days.
    pub checked: Option<Part>,
    /// Why no schedule was tried; `None` if one was.
    pub no_schedule: Option<String>,
    /// Time zone of the windows.
    pub time_zone: String,
    /// Settings that were tried.
    pub tried: usize,
    /// Result of the present settings on the jobs for the choice.
    pub present: Outcome,
    /// Result of the present settings on the jobs for the check.
    pub present_checked: Option<Outcome>,
    /// What is better than the present settings; cheaper ones first.
    pub choices: Vec<Choice>,
}

impl Suggestion {
    /// Returns the settings to use: the first choice that the check confirms.
    pub fn best(&self) -> Option<&Choice> {
        self.choices.iter().find(|choice| choice.is_confirmed)
    }
}

/// Searches for better settings. `simulate` runs simulations, in any order, and returns their results in the order of
/// the setups.
///
/// # Errors
/// Those of `simulate`.
pub fn suggest<E>(
    input: &SuggestionInput,
    mut simulate: impl FnMut(Stage, &[Setup], &Trace) -> Result<Vec<Outcome>, E>,
) -> Result<Suggestion, E> {
    let (learn, check) = parts(&input.trace);
    let present = &input.setup.settings.scaling;
    let concurrency = input.setup.settings.worker.concurrency;
    let mut tried = Tried { input, tried: Vec::new() };

    let mut first = vec![present.clone()];
    first.extend(grid::thresholds(present, concurrency));
    tried.run(first, |setups| simulate(Stage::Thresholds, setups, &learn))?;

    let no_schedule = no_schedule(input, &learn);
    let (said_zone, zone) = time_zone(&present.schedule);
    let needs = HourlyNeeds::of(&learn, &zone, has_a_week(learn.lasts));
    let bases: Vec<_> = front(&tried.tried, FRONT).into_iter().map(|index| tried.scaling(index)).collect();
    let minimums = grid::minimums(&bases, present, &needs, concurrency, no_schedule.is_none().then_some(&said_zone));
    tried.run(minimums, |setups| simulate(Stage::Minimums, setups, &learn))?;

    let Tried { tried, .. } = tried;
    let present_outcome = tried[0].1;
    let mut choices = choices(&tried, &present_outcome);
    let mut present_checked = None;
    if let Some(check) = &check {
        let mut setups = vec![setup(input, present)];
        setups.extend(choices.iter().map(|choice| setup(input, &choice.candidate.scaling)));
        let mut checked = simulate(Stage::Check, &setups, check)?.into_iter();
        if let Some(before) = checked.next() {
            present_checked = Some(before);
            for (choice, outcome) in choices.iter_mut().zip(checked) {
                choice.is_confirmed = choice.aim.is_confirmed(&outcome, &before);
                choice.checked = Some(outcome);
            }
        }
    }
    Ok(Suggestion {
        learned: Part::of(&learn),
        checked: check.as_ref().map(Part::of),
        no_schedule,
        time_zone: zone.iana_name().unwrap_or("UTC").to_owned(),
        tried: tried.len() - 1,
        present: present_outcome,
        present_checked,
        choices,
    })
}

/// Returns the jobs for the choice, and those for its check.
fn parts(trace: &Trace) -> (Trace, Option<Trace>) {
    if trace.lasts < CHECK_NEEDS {
        return (trace.clone(), None);
    }
    let (learn, check) = trace.split(trace.lasts.saturating_sub(CHECKED));
    (learn, Some(check))
}

fn no_schedule(input: &SuggestionInput, learn: &Trace) -> Option<String> {
    let days = |of: Duration| of.as_secs() / DAY.as_secs();
    if learn.lasts < SCHEDULE_NEEDS {
        Some(format!("a schedule needs jobs over {} days or more", days(SCHEDULE_NEEDS)))
    } else if !input.has_clock {
        Some("its times are not dates; say with --start when it begins".to_owned())
    } else {
        None
    }
}

fn setup(input: &SuggestionInput, scaling: &ScalingSettings) -> Setup {
    let mut setup = input.setup.clone();
    if !input.initial_is_fixed {
        setup.initial = scaling.min_workers;
    }
    setup.settings.scaling = scaling.clone();
    setup
}

/// The settings tried so far, the present ones first.
struct Tried<'a> {
    input: &'a SuggestionInput,
    tried: Vec<(Candidate, Outcome)>,
}

impl Tried<'_> {
    fn scaling(&self, index: usize) -> ScalingSettings {
        self.tried[index].0.scaling.clone()
    }

    fn run<E>(
        &mut self,
        mut all: Vec<ScalingSettings>,
        simulate: impl FnOnce(&[Setup]) -> Result<Vec<Outcome>, E>,
    ) -> Result<(), E> {
        all.retain(|scaling| self.tried.iter().all(|(candidate, _)| candidate.scaling != *scaling));
        let setups: Vec<_> = all.iter().map(|scaling| setup(self.input, scaling)).collect();
        let present = &self.input.setup.settings.scaling;
        let candidates = all.into_iter().map(|scaling| Candidate::new(scaling, present));
        self.tried.extend(candidates.zip(simulate(&setups)?));
        Ok(())
    }
}

/// Returns the best settings for each aim, and those without new windows if that makes a difference.
fn choices(tried: &[(Candidate, Outcome)], present: &Outcome) -> Vec<Choice> {
    let mut found = Vec::new();
    for aim in [Aim::Cheaper, Aim::Quicker] {
        let without_windows = aim.best(tried, present, |candidate| candidate.new_windows == 0);
        let best = aim.best(tried, present, |_| true);
        for index in [best, without_windows].into_iter().flatten() {
            // Those that are cheaper and quicker count as cheaper.
            if found.iter().all(|(_, known)| *known != index) {
                found.push((aim, index));
            }
        }
    }
    let choice = |(aim, index): (Aim, usize)| {
        let (candidate, learned) = tried[index].clone();
        Choice { aim, candidate, learned, checked: None, is_confirmed: true }
    };
    found.into_iter().map(choice).collect()
}

#[cfg(test)]
mod tests;
