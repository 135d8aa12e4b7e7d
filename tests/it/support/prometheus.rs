//! Runs a real Prometheus with the rules of `config/prometheus`, which scrapes one autoscaler; stopped when dropped.
//!
//! The times in the rules are shortened, because a test can't wait for ten minutes. Everything else is unchanged.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    http::get,
    needs::repository,
    redis::Port,
    wait::{DEADLINE, eventually},
};

/// Directory of programs that `.ci/install-test-servers` installs.
const UNPACKED: &str = "target/test-servers/prometheus/bin";
/// Range of the queries in the shortened rules and panels.
pub(crate) const RANGE: &str = "60s";
/// Long wait in the shortened rules, in seconds.
const LONG_WAIT: &str = "3";

/// Returns the path of a program, or its name if it is in PATH.
pub(crate) fn program(name: &str) -> String {
    let unpacked = repository(UNPACKED).join(name);
    if unpacked.exists() { unpacked.display().to_string() } else { name.to_owned() }
}

/// Running server.
pub(crate) struct Prometheus {
    process: Child,
    port: Port,
    directory: TempDir,
}

impl Prometheus {
    /// Starts a server that scrapes `target`, `host:port`, every second.
    pub(crate) async fn start(target: &str) -> Self {
        Self::start_with(target, "").await
    }

    /// Like [`Prometheus::start`], with a worker to scrape too.
    pub(crate) async fn start_with(target: &str, worker: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        write_configuration(directory.path(), target, worker);
        Self::run(directory).await
    }

    /// Starts a server with these scrape configurations and the rules of `config/prometheus`.
    pub(crate) async fn start_scraping(scrape_configs: &[Value]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let main = json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "rule_files": ["rules/*.yml"],
            "scrape_configs": scrape_configs,
        });
        // JSON is YAML.
        fs::write(directory.path().join("prometheus.yml"), main.to_string()).expect("the directory is ours");
        write_rules(directory.path());
        Self::run(directory).await
    }

    async fn run(directory: TempDir) -> Self {
        let port = Port::free();
        let log = fs::File::create(directory.path().join("log")).expect("the directory is ours");
        let process = Command::new(program("prometheus"))
            .arg(format!("--config.file={}", directory.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={}", port.address()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus is installed");
        let server = Self { process, port, directory };
        let ready = async || get(&server.url("/-/ready"), DEADLINE).await.is_some_and(|(code, _)| code.is_success());
        assert!(eventually(DEADLINE, ready).await, "prometheus does not start:\n{}", server.log());
        server
    }

    /// Evaluates an expression now: the samples of a vector.
    ///
    /// # Panics
    /// If Prometheus refuses the expression.
    pub(crate) async fn query(&self, expression: &str) -> Vec<Value> {
        let query: String = url::form_urlencoded::byte_serialize(expression.as_bytes()).collect();
        let answer = self.api(&format!("query?query={query}")).await;
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        answer["data"]["result"].as_array().cloned().unwrap_or_default()
    }

    /// Returns every rule that it runs.
    pub(crate) async fn rules(&self) -> Vec<Value> {
        let answer = self.api("rules").await;
        let groups = answer["data"]["groups"].as_array().cloned().unwrap_or_default();
        groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect()
    }

    /// Returns the labels of the firing alerts.
    pub(crate) async fn firing(&self) -> Vec<Value> {
        let answer = self.api("alerts").await;
        let alerts = answer["data"]["alerts"].as_array().cloned().unwrap_or_default();
        alerts.into_iter().filter(|alert| alert["state"] == "firing").map(|alert| alert["labels"].clone()).collect()
    }

    /// Returns its log.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    async fn api(&self, path: &str) -> Value {
        let answer = get(&self.url(&format!("/api/v1/{path}")), DEADLINE).await;
        let (_, body) = answer.unwrap_or_else(|| panic!("prometheus does not answer:\n{}", self.log()));
        serde_json::from_str(&body).unwrap_or_else(|_| panic!("prometheus answers no JSON: {body}"))
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.port.address())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the repository's configuration, with these targets and short times. It finds workers by DNS; without a DNS
/// server here, the worker to scrape replaces the names.
fn write_configuration(directory: &Path, target: &str, worker: &str) {
    let read = |path: &str| fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let main = read("config/prometheus/prometheus.yml");
    let main = main.replace("autoscaler:9000", target).replace("_interval: 5s", "_interval: 1s");
    let main = main.replace("_interval: 15s", "_interval: 1s");
    let (main, found_by_name) = main.split_once("    dns_sd_configs:").expect("workers are found by name");
    assert!(!found_by_name.contains("job_name"), "the workers' is not the last job");
    let targets = if worker.is_empty() { "[]".to_owned() } else { format!("[\"{worker}\"]") };
    let main = format!("{main}    static_configs:\n      - targets: {targets}\n");
    assert!(main.contains(target), "config/prometheus/prometheus.yml names no autoscaler:9000");
    fs::write(directory.join("prometheus.yml"), main).expect("the directory is ours");
    write_rules(directory);
}

fn write_rules(directory: &Path) {
    let read = |path: &str| fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    fs::create_dir(directory.join("rules")).expect("the directory is new");
    for name in ["rules/recording.yml", "rules/alerts.yml"] {
        let rules = shortened(&read(&format!("config/prometheus/{name}")));
        fs::write(directory.join(name), rules).expect("the directory is ours");
    }
}

/// Returns the rules with `for` of two seconds, ranges and offsets of [`RANGE`], and [`LONG_WAIT`] instead of ten
/// minutes.
fn shortened(rules: &str) -> String {
    let line = |line: &str| {
        let line = match line.split_once("for: ") {
            Some((indent, _)) => format!("{indent}for: 2s"),
            None => line.replace("offset 1m", &format!("offset {RANGE}")),
        };
        let line = ["[1m]", "[2m]", "[5m]", "[15m]", "[30m]"]
            .iter()
            .fold(line, |line, range| line.replace(range, &format!("[{RANGE}]")));
        line.replace("_age_seconds > 600", &format!("_age_seconds > {LONG_WAIT}"))
    };
    rules.lines().map(line).collect::<Vec<_>>().join("\n")
}
