//! The dashboards as files: what they ask, and whether it can be answered.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use super::read;
use crate::support::{needs::repository, prometheus::RANGE};

/// Variables that every dashboard has, and that its queries use.
const VARIABLES: [&str; 2] = ["instance", "worker_type"];
/// What a panel's datasource is: the one that the reader chose.
const DATASOURCE: &str = "${datasource}";

/// One of the files.
pub(super) struct Dashboard {
    pub(super) name: String,
    json: Value,
}

impl Dashboard {
    /// All of them.
    pub(super) fn all() -> Vec<Self> {
        let directory = repository("config/grafana/dashboards");
        let files = fs::read_dir(directory).expect("the dashboards are there").map(|file| file.unwrap().path());
        let dashboard = |path: std::path::PathBuf| Self {
            name: path.file_name().expect("it is a file").to_string_lossy().into_owned(),
            json: serde_json::from_str(&fs::read_to_string(&path).unwrap()).expect("a dashboard is JSON"),
        };
        files.map(dashboard).collect()
    }

    fn text<'a>(&'a self, key: &str) -> &'a str {
        self.json[key].as_str().unwrap_or_default()
    }

    /// Title and panel of each panel that shows data.
    fn panels(&self) -> impl Iterator<Item = (&str, &Value)> {
        let panels = self.json["panels"].as_array().expect("a dashboard has panels");
        let titled = panels.iter().map(|panel| (panel["title"].as_str().expect("a panel has a title"), panel));
        titled.filter(|(_, panel)| panel["type"] != "row")
    }

    /// Title and expression of each query: those of the panels, of the annotations and of the variables.
    pub(super) fn queries(&self) -> Vec<(String, String)> {
        let named = |title: &str, value: &Value| {
            let expression = value.as_str().unwrap_or_else(|| panic!("{}: {title} has no query", self.name));
            (format!("{}: {title}", self.name), expression.to_owned())
        };
        let panels = self.panels().flat_map(|(title, panel)| {
            panel["targets"].as_array().expect("a panel has targets").iter().map(move |one| (title, &one["expr"]))
        });
        let list = |key: &str| self.json[key]["list"].as_array().expect("it is a list");
        let annotations = list("annotations").iter().map(|one| ("annotation", &one["expr"]));
        panels.chain(annotations).map(|(title, value)| named(title, value)).collect()
    }

    /// Name and query of each variable that Prometheus fills.
    fn variables(&self) -> Vec<(&str, &str)> {
        let list = self.json["templating"]["list"].as_array().expect("a dashboard has variables");
        let filled = list.iter().filter(|variable| variable["type"] == "query");
        filled.map(|one| (one["name"].as_str().unwrap(), one["query"]["query"].as_str().unwrap())).collect()
    }
}

/// An expression as Grafana would send it, with everything selected.
pub(super) fn with_everything_selected(expression: &str) -> String {
    let range = expression.replace("$__rate_interval", RANGE).replace("$__range", RANGE);
    let all = VARIABLES.iter().fold(range, |text, name| text.replace(&format!("\"${name}\""), "\".*\""));
    assert!(!all.contains('$'), "a variable is left in {all}");
    all
}

/// The names of metrics in an expression: those of swarm and those that rules record.
pub(super) fn metrics_in(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    words.filter(|word| word.starts_with("swarm_") || word.contains(":swarm_")).map(str::to_owned).collect()
}

/// The metrics that `docs/metrics.md` lists and the names that `config/prometheus` records.
pub(super) fn known_metrics() -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    for line in read("docs/metrics.md").lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, name, kind, ..] = cells[..] else { continue };
        let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`')) else { continue };
        let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_count", "_sum"] } else { &[""] };
        known.extend(suffixes.iter().map(|suffix| format!("{name}{suffix}")));
    }
    let recording = read("config/prometheus/rules/recording.yml");
    known.extend(recording.lines().filter_map(|line| Some(line.split_once("record: ")?.1.trim().to_owned())));
    assert!(known.contains("swarm_reaction_seconds_bucket") && known.contains("swarm_queue_lag"), "{known:?}");
    known
}

#[test]
fn each_has_an_identity_of_its_own() {
    let dashboards = Dashboard::all();
    for key in ["uid", "title"] {
        let values: BTreeSet<_> = dashboards.iter().map(|one| one.text(key)).collect();
        assert!(!values.contains("") && values.len() == dashboards.len(), "{key}: {values:?}");
    }
    for dashboard in &dashboards {
        let panels = dashboard.json["panels"].as_array().unwrap();
        let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().expect("a panel has an id")).collect();
        assert_eq!(ids.len(), panels.len(), "{}: two panels have the same id", dashboard.name);
    }
}

#[test]
fn each_query_names_metrics_that_exist() {
    let known = known_metrics();
    for dashboard in Dashboard::all() {
        for (title, expression) in dashboard.queries() {
            let unknown: Vec<_> = metrics_in(&expression).difference(&known).cloned().collect();
            assert!(unknown.is_empty(), "{title}: {unknown:?} is not in docs/metrics.md");
        }
        for (name, query) in dashboard.variables() {
            assert!(metrics_in(query).is_subset(&known), "{}: variable {name}: {query}", dashboard.name);
        }
    }
}

#[test]
fn each_uses_its_variables_and_says_what_it_shows() {
    for dashboard in Dashboard::all() {
        let name = &dashboard.name;
        let variables: Vec<_> = dashboard.variables().into_iter().map(|(name, _)| name).collect();
        assert_eq!(variables, VARIABLES, "{name}");
        for variable in VARIABLES {
            let used = dashboard.queries().iter().any(|(_, expression)| expression.contains(&format!("${variable}")));
            assert!(used, "{name}: no query uses ${variable}");
        }
        for (title, panel) in dashboard.panels() {
            assert_eq!(panel["datasource"]["uid"], DATASOURCE, "{name}: {title}");
            assert!(panel["description"].as_str().is_some_and(|text| !text.is_empty()), "{name}: {title} says nothing");
        }
    }
}

#[test]
fn panels_do_not_overlap() {
    for dashboard in Dashboard::all() {
        let mut taken = BTreeSet::new();
        for panel in dashboard.json["panels"].as_array().unwrap() {
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
            assert!(x + w <= 24, "{}: {} is too far right", dashboard.name, panel["title"]);
            let cells = (x..x + w).flat_map(|column| (y..y + h).map(move |line| (column, line)));
            for cell in cells {
                assert!(taken.insert(cell), "{}: {} lies on another panel", dashboard.name, panel["title"]);
            }
        }
    }
}
