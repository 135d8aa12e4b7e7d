//! `swarm doctor`: checks everything that usually explains a problem, and names the cures.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{ConfigFlags, output, view::words::printable};
use crate::{
    app::{UnsupportedSetting, check_backend, unsupported_settings},
    config::{Loaded, Settings},
    doctor::{Area, Finding, Level, Seen, examine, of_backend},
    operations::status_client::StatusServer,
};

/// Diagnose problems and name their cures
///
/// Checks the configuration, the Redis server and the rights of its user, the autoscaler, the backend, the queues, the
/// workers, and overrides by people. It only reads: none of its checks changes anything. Run it on the autoscaler's
/// machine and as the same user, because rights, programs and sockets are checked from here.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  swarm doctor
  swarm doctor --strict && echo all is well
  swarm doctor --json | jq -r '.findings[] | select(.level == \"problem\") | .found'

Exits with 1 if it finds a problem, or, with --strict, a warning.")]
pub struct DoctorArgs {
    #[command(flatten)]
    config: ConfigFlags,
    /// URL of the autoscaler's HTTP server [default: http.listen of the configuration]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Exit with 1 for warnings, too
    #[arg(long)]
    strict: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The report for programs.
#[derive(Serialize)]
struct Report<'a> {
    /// Whether there is no problem; with `--strict`, no warning either.
    ok: bool,
    problems: usize,
    warnings: usize,
    findings: &'a [Finding],
}

/// Runs `swarm doctor`.
///
/// # Errors
/// If the report can't be printed.
pub async fn run(args: DoctorArgs) -> anyhow::Result<ExitCode> {
    let findings = match args.config.load() {
        Ok(loaded) => look(&args, &loaded).await?,
        Err(errors) => errors.iter().map(|error| Finding::problem(Area::Configuration, error.to_string())).collect(),
    };
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (problems, warnings) = (count(Level::Problem), count(Level::Warning));
    let ok = problems == 0 && (warnings == 0 || !args.strict);
    if args.json {
        output::json(&Report { ok, problems, warnings, findings: &findings })?;
    } else {
        output::line(&text(&findings))?;
        output::line(&format!("\nproblems: {problems}, warnings: {warnings}, as it should be: {}", count(Level::Ok)))?;
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn look(args: &DoctorArgs, loaded: &Loaded) -> anyhow::Result<Vec<Finding>> {
    let settings = &loaded.settings;
    let mut findings = of_configuration(loaded);
    let seen = ask(args.url.as_deref(), settings).await;
    findings.extend(examine(settings, &seen).await);
    let unsupported = unsupported_settings(settings).into_iter();
    let of_build = |of: UnsupportedSetting| Finding::problem(Area::Configuration, of.missing.to_string());
    findings.extend(unsupported.filter(|of| of.path != ["orchestrator"]).map(of_build));
    findings.extend(match check_backend(settings, loaded.file.clone(), std::env::current_exe()?).await {
        Ok(checks) => of_backend(checks),
        Err(error) => vec![Finding::problem(Area::Backend, format!("{error:#}"))],
    });
    // In the order of the areas; the sort is stable, so the first finding of an area stays first.
    findings.sort_by_key(|finding| finding.area);
    Ok(findings)
}

fn of_configuration(loaded: &Loaded) -> Vec<Finding> {
    let enabled = loaded.settings.worker_types.values().filter(|of| of.enabled).count();
    let file = loaded
        .file
        .as_ref()
        .map_or_else(|| "no file, built-in worker types".to_owned(), |file| file.display().to_string());
    let warnings = loaded.warnings.iter().map(|warning| Finding::warning(Area::Configuration, warning));
    let found = format!("{file}: valid; worker types enabled: {enabled}");
    let summary = if enabled > 0 {
        Finding::ok(Area::Configuration, found)
    } else {
        Finding::problem(Area::Configuration, found).cure("add a [worker_types.NAME], or enable one")
    };
    std::iter::once(summary).chain(warnings).collect()
}

async fn ask(url: Option<&str>, settings: &Settings) -> Seen {
    let server = match StatusServer::of(&settings.http, url) {
        Ok(server) => server,
        Err(error) => return Seen::Not(error.to_string()),
    };
    match server.status().await {
        Ok(fleet) => Seen::Fleet(Box::new(fleet)),
        Err(error) => Seen::Not(error.to_string()),
    }
}

/// Returns the report for people: by area, each cure below its finding.
fn text(findings: &[Finding]) -> String {
    let mut lines = Vec::new();
    let mut area = None;
    for finding in findings {
        if area.replace(finding.area) != Some(finding.area) {
            lines.push(format!("{}{}", if lines.is_empty() { "" } else { "\n" }, finding.area));
        }
        lines.push(format!("  {:<9}{}", finding.level.as_str(), printable(&finding.found)));
        lines.extend(finding.cure.iter().map(|cure| format!("           → {}", printable(cure))));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_in_sections_with_cures_below() {
        let findings = [
            Finding::ok(Area::Redis, "it answers"),
            Finding::warning(Area::Redis, "in clear text\u{7}").cure("use rediss://"),
            Finding::problem(Area::Queues, "`a` holds a list"),
        ];
        let expected = "redis\n  ok       it answers\n  warning  in clear text\u{fffd}\n           → use rediss://\n\nqueues\n  \
                        problem  `a` holds a list";
        assert_eq!(text(&findings), expected);
    }
}
