//! The files of Prometheus and the runbook, checked by `promtool` and against each other.

use std::{collections::BTreeSet, fs, process::Command};

use super::{
    dashboards::{known_metrics, metrics_in},
    read,
};
use crate::support::{needs::repository, prometheus::program};

/// What follows `key: ` in the lines of a file.
fn values(path: &str, key: &str) -> Vec<String> {
    let text = read(path);
    let key = format!("{key}: ");
    text.lines().filter_map(|line| Some(line.split_once(&key)?.1.trim_matches(['}', ' ']).to_owned())).collect()
}

/// The names of all alerts.
pub(super) fn alerts() -> BTreeSet<String> {
    values("config/prometheus/rules/alerts.yml", "- alert").into_iter().collect()
}

fn promtool(arguments: &[&str]) {
    let output = Command::new(program("promtool")).args(arguments).current_dir(repository(".")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {arguments:?}:\n{text}");
}

#[cfg_attr(without_prometheus, ignore = "there is no Prometheus")]
#[test]
fn promtool_takes_the_configuration_and_its_rules() {
    promtool(&["check", "config", "config/prometheus/prometheus.yml"]);
}

#[cfg_attr(without_prometheus, ignore = "there is no Prometheus")]
#[test]
fn the_unit_tests_of_the_rules_pass() {
    let tests = fs::read_dir(repository("config/prometheus/tests")).unwrap().map(|file| file.unwrap().path());
    let tests: Vec<_> = tests.map(|path| path.to_string_lossy().into_owned()).collect();
    assert!(!tests.is_empty());
    promtool(&[&["test", "rules"], &tests.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat());
}

#[test]
fn every_rule_names_metrics_that_exist_and_has_a_unit_test() {
    let known = known_metrics();
    for name in ["alerts", "recording"] {
        let rules = read(&format!("config/prometheus/rules/{name}.yml"));
        let code: String = rules.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
        let unknown: Vec<_> = metrics_in(&code).difference(&known).cloned().collect();
        assert!(unknown.is_empty(), "rules/{name}.yml: {unknown:?} is not in docs/metrics.md");
    }
    let tested = read("config/prometheus/tests/alerts.yml");
    for alert in alerts() {
        assert!(tested.contains(&format!("alertname: {alert}\n")), "{alert} has no unit test that makes it fire");
    }
    let tested = read("config/prometheus/tests/recording.yml");
    for record in values("config/prometheus/rules/recording.yml", "record") {
        assert!(tested.contains(&format!("expr: {record}")), "{record} has no unit test");
    }
}

#[test]
fn every_alert_has_its_section_in_the_runbook() {
    let links = values("config/prometheus/rules/alerts.yml", "runbook");
    let expected: Vec<_> = values("config/prometheus/rules/alerts.yml", "- alert")
        .iter()
        .map(|alert| format!("docs/runbook.md#{}", alert.to_lowercase()))
        .collect();
    assert_eq!(links, expected);
    let runbook = read("docs/runbook.md");
    let sections: BTreeSet<_> = runbook.lines().filter_map(|line| Some(line.strip_prefix("## ")?.to_owned())).collect();
    assert_eq!(sections, alerts());
}
