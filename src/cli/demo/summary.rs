//! The summary of the demo: what was done and how fast, whether all went well, and what to try next.

use std::{fmt::Write as _, time::Duration};

use comfy_table::{Table, presets::NOTHING};
use serde_json::{Value, json};

use super::{jobs::JobCounts, timeline::Timeline};
use crate::{
    cli::view::{fleet::trimmed, words},
    model::snapshot::Reaction,
};

/// How the demo ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The whole script was played, and the pools are back at their minimum.
    Complete,
    /// The user pressed Ctrl-C or `q`, or sent SIGTERM.
    Interrupted,
    /// Something went wrong.
    Failed(String),
}

/// Input of the summary.
pub(super) struct Summary<'a> {
    pub(super) timeline: &'a Timeline,
    pub(super) job_counts: JobCounts,
    pub(super) ending: &'a Ending,
    pub(super) took: Duration,
}

impl Summary<'_> {
    fn times(&self, stage: impl Fn(&Reaction) -> Option<f64>) -> String {
        self.timeline.spread(stage).map_or_else(
            || words::NONE.to_owned(),
            |(median, most)| format!("p50 {}, max {}", words::milliseconds(median), words::milliseconds(most)),
        )
    }

    /// Returns the summary for people.
    pub(super) fn text(&self) -> String {
        let Self { timeline, job_counts, .. } = self;
        let (started, retired) = timeline.workers();
        let (decisions, failures) = timeline.decisions();
        // Jobs without a result are lost only if the demo was not interrupted.
        let open = if *self.ending == Ending::Interrupted { "unfinished" } else { "lost" };
        let rows = [
            (
                "jobs",
                format!(
                    "{} published, {} done, {} failed, {} {open}",
                    job_counts.published,
                    job_counts.done,
                    job_counts.failed,
                    job_counts.open()
                ),
            ),
            ("workers", format!("{started} started, {retired} retired, {} at most at once", timeline.most_workers())),
            ("decisions", format!("{decisions} changed something, {failures} failed")),
            ("signal → decided", self.times(|reaction| Some(reaction.decided_ms))),
            ("signal → requested", self.times(|reaction| reaction.requested_ms)),
            ("signal → worker ready", self.times(|reaction| reaction.running_ms)),
            ("took", format!("{:.1} s", self.took.as_secs_f64())),
        ];
        let mut table = Table::new();
        table.load_preset(NOTHING);
        for (name, value) in rows {
            table.add_row([name.to_owned(), value]);
        }
        format!("{}\n\n{}", self.verdict(), trimmed(&table))
    }

    fn verdict(&self) -> String {
        match self.ending {
            Ending::Complete => "Done: every job was answered, and no process is left.".to_owned(),
            Ending::Interrupted => "Stopped on request; no process is left. Up to then:".to_owned(),
            Ending::Failed(why) => format!("FAILED: {why}"),
        }
    }

    /// Returns the summary for programs.
    pub(super) fn json(&self) -> Value {
        let Self { timeline, job_counts, .. } = self;
        let (started, retired) = timeline.workers();
        let (decisions, failures) = timeline.decisions();
        let times = |spread: Option<(f64, f64)>| spread.map(|(median, most)| json!({"p50": median, "max": most}));
        let (ending, error) = match self.ending {
            Ending::Complete => ("complete", None),
            Ending::Interrupted => ("interrupted", None),
            Ending::Failed(why) => ("failed", Some(why)),
        };
        json!({
            "ending": ending,
            "error": error,
            "jobs": {
                "published": job_counts.published, "done": job_counts.done, "failed": job_counts.failed, "unanswered": job_counts.open(),
            },
            "workers": {"started": started, "retired": retired, "most": timeline.most_workers()},
            "decisions": {"count": decisions, "failed": failures},
            "reaction_ms": {
                "decided": times(timeline.spread(|reaction| Some(reaction.decided_ms))),
                "requested": times(timeline.spread(|reaction| reaction.requested_ms)),
                "running": times(timeline.spread(|reaction| reaction.running_ms)),
            },
            "seconds": self.took.as_secs_f64(),
        })
    }
}

/// Returns what to try next, as commands to paste. `program` is how to call this program from here.
pub(super) fn next_steps(program: &str) -> String {
    let rows = [
        ("autoscaler", "run it; config/swarm.toml explains every setting"),
        ("publish browser.echo hello --wait", "publish a job"),
        ("status --watch", "see what it sees"),
        ("events --follow", "see what it decides, and why"),
    ];
    let commands: Vec<String> = rows.iter().map(|(command, _)| format!("{program} {command}")).collect();
    let width = commands.iter().map(String::len).max().unwrap_or_default();
    let mut text = "Next, with a Redis of your own (REDIS_URL, by default redis://localhost:6379/0):\n".to_owned();
    for (command, (_, what)) in commands.iter().zip(rows) {
        let _ = writeln!(text, "  {command:<width$}   # {what}");
    }
    if program != "swarm" {
        text += "`make install` puts `swarm` on the PATH. ";
    }
    text + "README.md and docs/ tell the rest."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_steps_can_be_pasted_wherever_the_program_is() {
        let there = next_steps("target/debug/swarm");
        assert!(there.contains("\n  target/debug/swarm autoscaler  ") && there.contains("`make install`"), "{there}");
        let installed = next_steps("swarm");
        assert!(installed.contains("\n  swarm autoscaler  ") && !installed.contains("make install"), "{installed}");
    }

    #[test]
    fn the_summary_says_how_many_jobs_were_answered_and_whether_any_was_lost() {
        let job_counts = JobCounts { published: 5, done: 3, failed: 1 };
        let summary = |ending: &Ending| {
            Summary { timeline: &Timeline::default(), job_counts, ending, took: Duration::from_millis(1_500) }.text()
        };
        let failed = summary(&Ending::Failed("1 job was not answered".to_owned()));
        assert!(failed.starts_with("FAILED: 1 job was not answered"), "{failed}");
        assert!(failed.contains("5 published, 3 done, 1 failed, 1 lost"), "{failed}");
        assert!(failed.contains("1.5 s"), "{failed}");
        assert!(summary(&Ending::Interrupted).contains("1 unfinished"));
    }
}
