//! `swarm simulate --suggest`: searches for better settings, and prints the waits and worker-hours of the present and
//! the suggested ones, and the suggestion as TOML.

use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;
use toml::Table;

use super::{
    race,
    table::{self, wait},
};
use crate::{
    cli::output,
    config::{ScalingSettings, load_text},
    simulation::{Setup, Trace, spell},
    suggestion::{Aim, Choice, Outcome, Part, Stage, Suggestion, SuggestionInput, suggest},
};

/// Fewer jobs have no 99th percentile worth the name.
const FEWEST_JOBS: usize = 100;
/// Longest tail: more of it would count idle workers, not jobs.
pub(super) const LONGEST_TAIL: Duration = Duration::from_secs(3_600);

/// A suggestion for programs.
#[derive(Serialize)]
struct SuggestionOutput<'a> {
    learned_on: &'a Part,
    checked_on: Option<&'a Part>,
    /// Settings that were tried.
    tried: usize,
    /// Why no schedule was tried.
    no_schedule: Option<&'a str>,
    time_zone: &'a str,
    present: Results<'a>,
    choices: Vec<ChoiceOutput<'a>>,
    /// The suggested settings as TOML; `null` if none are better.
    toml: Option<String>,
    /// The same in words.
    verdict: String,
}

#[derive(Serialize)]
struct ChoiceOutput<'a> {
    aim: Aim,
    changes: String,
    confirmed: bool,
    scaling: &'a ScalingSettings,
    #[serde(flatten)]
    results: Results<'a>,
}

#[derive(Serialize)]
struct Results<'a> {
    learned: &'a Outcome,
    checked: Option<&'a Outcome>,
}

/// Refuses jobs from which nothing can be learned.
///
/// # Errors
/// If there are too few jobs, or the times that they take are unknown.
pub(super) fn check(trace: &Trace, is_recorded: bool) -> anyhow::Result<()> {
    let jobs = trace.jobs.len();
    if jobs < FEWEST_JOBS {
        bail!("{jobs} jobs are too few for a suggestion, and {FEWEST_JOBS} are the fewest; record for longer")
    }
    if is_recorded && trace.has_assumed_services() {
        bail!(
            "the recording does not say how long jobs take; record with --duration or --follow, or give the times with \
             --service"
        )
    }
    Ok(())
}

/// Searches, and prints what was found.
///
/// # Errors
/// If the output can't be written.
pub(super) fn run(name: &str, present: &str, input: &SuggestionInput, as_json: bool) -> anyhow::Result<()> {
    let simulate = |stage, setups: &[Setup], trace: &Trace| {
        let what = match stage {
            Stage::Thresholds => "simulating thresholds",
            Stage::Minimums => "simulating minimums",
            Stage::Check => "checking",
        };
        race::each(what, setups, trace, |report| Outcome::from(&report))
    };
    let found = suggest(input, simulate)?;
    let toml = found.best().map(|choice| as_toml(name, &choice.candidate.scaling)).transpose()?;
    if as_json {
        return Ok(output::json(&for_programs(&found, toml))?);
    }
    output::line(&report(present, &found))?;
    if let Some(toml) = toml {
        output::line(&format!("\n# Instead of [worker_types.{}.scaling] and its schedule:\n{toml}", quoted(name)))?;
    }
    Ok(())
}

fn for_programs(found: &Suggestion, toml: Option<String>) -> SuggestionOutput<'_> {
    SuggestionOutput {
        learned_on: &found.learned,
        checked_on: found.checked.as_ref(),
        tried: found.tried,
        no_schedule: found.no_schedule.as_deref(),
        time_zone: &found.time_zone,
        present: Results { learned: &found.present, checked: found.present_checked.as_ref() },
        choices: found.choices.iter().map(choice_output).collect(),
        toml,
        verdict: verdict(found),
    }
}

fn choice_output(choice: &Choice) -> ChoiceOutput<'_> {
    ChoiceOutput {
        aim: choice.aim,
        changes: choice.candidate.words(),
        confirmed: choice.is_confirmed,
        scaling: &choice.candidate.scaling,
        results: Results { learned: &choice.learned, checked: choice.checked.as_ref() },
    }
}

/// Returns everything that people are told besides the settings.
fn report(present: &str, found: &Suggestion) -> String {
    let rows = |of: fn(&Choice) -> Option<&Outcome>| {
        let numbered = (1..).zip(&found.choices);
        numbered.filter_map(move |(number, choice)| Some((format!("{number}"), *of(choice)?)))
    };
    let schedule = match &found.no_schedule {
        None => format!("windows in {}", found.time_zone),
        Some(why) => format!("no schedule: {why}"),
    };
    let mut lines = vec![format!("tried {} other settings ({schedule})\n", found.tried)];
    lines.push(format!("on {}, from which they were chosen:", part(&found.learned, "the first")));
    let present_row = (present.to_owned(), found.present);
    lines.push(table::outcomes(std::iter::once(present_row).chain(rows(|choice| Some(&choice.learned)))));
    if let (Some(checked), Some(before)) = (&found.checked, found.present_checked) {
        lines.push(format!("\non {}, which the search has not seen:", part(checked, "the last")));
        let present_row = (present.to_owned(), before);
        lines.push(table::outcomes(std::iter::once(present_row).chain(rows(|choice| choice.checked.as_ref()))));
    }
    lines.push(String::new());
    for (number, choice) in (1..).zip(&found.choices) {
        lines.push(format!("{number}: {}: {}", aim(choice.aim), choice.candidate.words()));
    }
    if !found.choices.is_empty() {
        lines.push(String::new());
    }
    lines.push(verdict(found));
    lines.join("\n")
}

/// `the first 14d, 20,160 jobs`
fn part(of: &Part, which: &str) -> String {
    let seconds = if of.seconds < 86_400.0 { of.seconds } else { (of.seconds / 3_600.0).round() * 3_600.0 };
    let lasts = spell(Duration::from_secs_f64(seconds));
    format!("{which} {lasts}, {} jobs", table::thousands(of.jobs as u64))
}

fn aim(aim: Aim) -> &'static str {
    match aim {
        Aim::Cheaper => "fewer worker-hours without longer waits",
        Aim::Quicker => "shorter waits without more worker-hours",
    }
}

/// Returns the conclusion.
fn verdict(found: &Suggestion) -> String {
    let Some(best) = found.best() else {
        return match found.choices.as_slice() {
            [] => {
                "keep the present settings: none of the others needs 5 % fewer worker-hours without longer waits, or \
                   has waits 5 % shorter without more worker-hours"
                    .to_owned()
            }
            _ => {
                "keep the present settings: what was better on the first days is not better on the last ones".to_owned()
            }
        };
    };
    let number = found.choices.iter().position(|choice| choice.is_confirmed).map_or(1, |at| at + 1);
    let (of, before, on) = match (best.checked, found.present_checked) {
        (Some(of), Some(before)) => (of, before, "on the last days"),
        _ => (best.learned, found.present, "on these jobs; record two weeks to have it checked on others"),
    };
    format!(
        "suggestion: {number}: worker-hours {:.1} → {:.1}, wait p95 {} → {}, p99 {} → {} {on}",
        before.worker_hours,
        of.worker_hours,
        wait(before.wait_seconds.p95),
        wait(of.wait_seconds.p95),
        wait(before.wait_seconds.p99),
        wait(of.wait_seconds.p99),
    )
}

/// Returns the scaling settings that are not defaults as TOML, which the configuration reads as exactly these settings.
///
/// # Errors
/// If the configuration does not read them so, which is a fault of this program.
fn as_toml(name: &str, scaling: &ScalingSettings) -> anyhow::Result<String> {
    let (all, defaults) = (Table::try_from(scaling)?, Table::try_from(ScalingSettings::default())?);
    let said: Table = all.into_iter().filter(|(key, value)| defaults.get(key) != Some(value)).collect();
    // A table comes even if all is as by default: it replaces the one that is there.
    let text = if said.is_empty() {
        format!("[worker_types.{}.scaling]\n", quoted(name))
    } else {
        let within = |key: &str, table| Table::from_iter([(key.to_owned(), toml::Value::Table(table))]);
        toml::to_string(&within("worker_types", within(name, within("scaling", said))))?
    };
    let text = text.trim_end().to_owned();
    let read = load_text(&text).context("the suggestion is not a valid configuration; please report this")?;
    if read.settings.worker_types.get(name).map(|of| &of.scaling) != Some(scaling) {
        bail!("the suggestion does not survive the configuration file; please report this:\n{text}")
    }
    Ok(text)
}

/// Returns a key in TOML's spelling.
fn quoted(name: &str) -> String {
    toml_edit::Key::new(name).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ScheduleWindow, Strategy};

    #[test]
    fn a_suggestion_is_a_configuration() {
        let window = |start: &str, min_workers| ScheduleWindow {
            start: start.into(),
            duration: Some("10h".into()),
            time_zone: "Europe/Berlin".into(),
            min_workers,
            ..ScheduleWindow::default()
        };
        let scaling = ScalingSettings {
            strategy: Strategy::Backlog,
            jobs_per_worker: 2,
            min_workers: 1,
            schedule: vec![window("0 8 * * MON-FRI", 4), window("0 10 * * SAT,SUN", 2)],
            ..ScalingSettings::default()
        };
        insta::assert_snapshot!(as_toml("mail", &scaling).unwrap(), @r#"
        [worker_types.mail.scaling]
        strategy = "backlog"
        min_workers = 1
        jobs_per_worker = 2

        [[worker_types.mail.scaling.schedule]]
        start = "0 8 * * MON-FRI"
        duration = "10h"
        time_zone = "Europe/Berlin"
        min_workers = 4

        [[worker_types.mail.scaling.schedule]]
        start = "0 10 * * SAT,SUN"
        duration = "10h"
        time_zone = "Europe/Berlin"
        min_workers = 2
        "#);
        assert_eq!(as_toml("a.b", &ScalingSettings::default()).unwrap(), "[worker_types.\"a.b\".scaling]");
    }
}
