//! `swarm simulate` as people and programs use it: no server, no network, the same output each time.

use std::{
    fs,
    path::Path,
    process::{Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::autoscaler::swarm;

const SETTINGS: &str = "[worker_types.browser.scaling]\nmax_workers = 8\ncooldown_seconds = 120\n";
const BURSTS: [&str; 9] =
    ["simulate", "burst", "--rate", "30/min", "--burst", "40", "--duration", "20m", "--service=exponential:2s"];

/// A directory with these settings as `swarm.toml`.
fn directory(settings: &str) -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    fs::write(directory.path().join("swarm.toml"), settings).expect("it is ours");
    directory
}

fn run(directory: &Path, words: &[&str]) -> Output {
    let mut command = swarm(directory);
    command.args(words).stdin(Stdio::null()).output().expect("the binary was built for this test")
}

#[track_caller]
fn printed(directory: &Path, words: &[&str]) -> String {
    let output = run(directory, words);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it prints text")
}

#[track_caller]
fn refusal(directory: &Path, words: &[&str]) -> String {
    let output = run(directory, words);
    assert_eq!(output.status.code(), Some(1), "{words:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).expect("it prints text")
}

#[test]
fn variants_are_compared_in_one_table() {
    let directory = directory(SETTINGS);
    let sets = ["--set", "scaling.scale_up_threshold=2", "--set", "scaling.strategy=backlog,worker.concurrency=2"];
    let text = printed(directory.path(), &[&BURSTS[..], &sets].concat());
    insta::assert_snapshot!(text, @r"
    browser: 682 jobs in 20m (40 at once every 10m, and 30/min)
    service times: exponential, mean 2s; start-up: 500ms; work for 1.2 workers on average; goes on for 2m after the last job
     CONFIGURATION                                  WAIT P50    P95    P99     MAX  WORKER-HOURS  USED  MOST  STARTED  UP  DOWN  DEPTH  UNFINISHED
     swarm.toml                                          0 s  7.5 s  9.6 s  10.7 s          1.42  28 %     8       25  16     6     43           0
     scaling.scale_up_threshold=2                        0 s  5.4 s  8.7 s  10.2 s          1.65  25 %     8       29  22     6     42           0
     scaling.strategy=backlog,worker.concurrency=2       0 s  3.0 s  4.0 s   6.7 s          0.95  21 %     8       18   7     5     42           0
    ");
    assert_eq!(text, printed(directory.path(), &[&BURSTS[..], &sets].concat()), "the same seed, the same outcome");
    assert_ne!(text, printed(directory.path(), &[&BURSTS[..], &sets, &["--seed", "2"]].concat()));
}

#[test]
fn configurations_are_compared_for_programs() {
    let directory = directory(SETTINGS);
    fs::write(directory.path().join("more.toml"), SETTINGS.replace('8', "30")).expect("it is ours");
    let files = ["--json", "--config", "swarm.toml", "--config", "more.toml", "--startup", "lognormal:p50=1s,p95=5s"];
    let told: Value = serde_json::from_str(&printed(directory.path(), &[&BURSTS[..], &files].concat())).expect("JSON");
    let [few, many] = told["runs"].as_array().expect("an array").as_slice() else { panic!("two runs: {told}") };
    assert_eq!((&few["name"], &many["name"]), (&"swarm.toml".into(), &"more.toml".into()));
    assert_eq!(few["workers_max"], 8);
    assert!(many["workers_max"].as_u64() > Some(8), "{}", many["workers_max"]);
    assert_eq!((&few["jobs"], &few["unfinished"]), (&told["trace"]["jobs"], &0.into()));
    assert!(few["wait_seconds"]["max"].as_f64() > many["wait_seconds"]["max"].as_f64());
    let first = &few["changes"][0];
    assert_eq!(first["from"], 0, "{first}");
    assert!(first["reason"].as_str().is_some_and(|reason| reason.starts_with("scale up 0 → ")), "{first}");
    let timeline = few["timeline"].as_array().expect("an array");
    let came: u64 = timeline.iter().filter_map(|bucket| bucket["arrivals"].as_u64()).sum();
    assert_eq!(Some(came), few["jobs"].as_u64());
}

#[test]
fn pictures_are_what_their_names_say() {
    let directory = directory(SETTINGS);
    let pictures = ["--plot", "a.svg", "--plot", "b.png", "--set", "scaling.cooldown_seconds=30"];
    printed(directory.path(), &[&BURSTS[..], &pictures].concat());
    let svg = fs::read_to_string(directory.path().join("a.svg")).expect("it was written");
    let svg = roxmltree::Document::parse(&svg).expect("an SVG is XML");
    let texts: Vec<_> = svg.descendants().filter_map(|node| node.text()).map(str::trim).collect();
    assert!(texts.contains(&"Workers: scaling.cooldown_seconds=30"), "{texts:?}");
    let png = fs::File::open(directory.path().join("b.png")).expect("it was written");
    let mut png = png::Decoder::new(std::io::BufReader::new(png)).read_info().expect("a PNG has a header");
    let mut pixels = vec![0; png.output_buffer_size().expect("it fits into memory")];
    assert!(png.next_frame(&mut pixels).expect("it decodes").width >= 1_200);

    let told = refusal(directory.path(), &[&BURSTS[..], &["--plot", "c.gif"]].concat());
    assert!(told.contains(".svg or .png"), "{told}");
    let told = refusal(directory.path(), &[&BURSTS[..], &["--plot", "no/such/place.svg"]].concat());
    assert!(told.contains("no/such/place.svg"), "{told}");
}

#[test]
fn a_trace_is_read_from_a_file_or_standard_input() {
    let directory = directory(SETTINGS);
    let trace = "arrival_ms,worker_type,service_ms\n1700000000000,browser,4000\n1700000001000,browser,\n5,other,1\n";
    fs::write(directory.path().join("t.csv"), trace).expect("it is ours");
    let from_file = printed(directory.path(), &["simulate", "t.csv"]);
    assert!(from_file.starts_with("browser: 2 jobs in 1s (t.csv)"), "{from_file}");
    assert!(from_file.contains("1 from the trace, the other 1 drawn from those"), "{from_file}");
    let mut command = swarm(directory.path());
    let input = fs::File::open(directory.path().join("t.csv")).expect("it was written");
    let output = command.args(["simulate", "-"]).stdin(input).output().expect("the binary was built for this test");
    let from_stdin = String::from_utf8(output.stdout).expect("it prints text");
    assert_eq!(from_file.lines().skip(1).collect::<Vec<_>>(), from_stdin.lines().skip(1).collect::<Vec<_>>());
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_the_cure() {
    let two = directory(&format!("{SETTINGS}[worker_types.mail]\n"));
    fs::write(two.path().join("bad.csv"), "arrival_ms,worker_type\n1,mail\nsoon,mail\n2\n").expect("it is ours");
    let told = |words: &[&str]| refusal(two.path(), words);
    let error = told(&["simulate", "steady"]);
    assert!(error.contains("--type") && error.contains("browser, mail"), "{error}");
    let error = told(&["simulate", "bad.csv", "--type", "mail"]);
    assert!(error.contains("bad.csv:3: arrival_ms") && error.contains("bad.csv:4: 1 fields"), "{error}");
    let error = told(&["simulate", "bad.csv", "--type", "mail", "--rate", "1/s"]);
    assert!(error.contains("--rate"), "{error}");
    let error = told(&["simulate", "stedy", "--type", "mail"]);
    assert!(error.contains("stedy") && error.contains("steady"), "{error}");
    let error = told(&["simulate", "steady", "--type", "mail", "--set", "scaling.cooldown=3"]);
    assert!(error.contains("--set worker_types.mail.scaling.cooldown"), "{error}");
    let error = told(&["simulate", "steady", "--type", "mail", "--set", "scaling.min_workers=20"]);
    assert!(error.contains("--set worker_types.mail.scaling.min_workers"), "{error}");
    let error = told(&["simulate", "steady", "--type", "mail", "--rate", "1000000/s"]);
    assert!(error.contains("lower the rate"), "{error}");
}

/// Five days of 24 jobs of a minute at noon, as `swarm record` writes them, from a Monday's first minute on.
fn noons() -> String {
    let noons = (0..5_u64).flat_map(|day| (0..24).map(move |job| day * 86_400_000 + 12 * 3_600_000 + job * 10_000));
    let row = |after: u64| format!("{},browser,60000\n", 1_768_176_000_000 + after);
    let rows: Vec<String> = std::iter::once(0).chain(noons).map(row).collect();
    format!("arrival_ms,worker_type,service_ms\n{}", rows.concat())
}

#[test]
fn a_suggestion_is_a_configuration_that_is_better_on_the_recording() {
    let directory = directory("[worker_types.browser.scaling]\nmin_workers = 7\nmax_workers = 8\n");
    fs::write(directory.path().join("trace.csv"), noons()).unwrap();
    let words = ["simulate", "trace.csv", "--suggest"];
    let found: Value = serde_json::from_str(&printed(directory.path(), &[&words[..], &["--json"]].concat())).unwrap();
    assert_eq!((&found["no_schedule"], &found["checked_on"]), (&Value::Null, &Value::Null), "{found}");
    let (present, best) = (&found["present"]["learned"], &found["choices"][0]["learned"]);
    let hours = |of: &Value| of["worker_hours"].as_f64().unwrap();
    assert!(hours(best) < hours(present) / 2.0, "seven workers for a few minutes a day: {found}");
    let p99 = |of: &Value| of["wait_seconds"]["p99"].as_f64().unwrap();
    assert!(p99(best) <= p99(present), "{found}");

    let text = printed(directory.path(), &words);
    assert_eq!(text, printed(directory.path(), &words), "the same recording, the same suggestion");
    let toml = found["toml"].as_str().expect("there is a suggestion");
    assert!(text.ends_with(&format!("{toml}\n")) && text.contains("suggestion: 1: worker-hours"), "{text}");
    assert!(toml.contains("[[worker_types.browser.scaling.schedule]]"), "{toml}");
    fs::write(directory.path().join("suggested.toml"), toml).unwrap();
    printed(directory.path(), &["config", "check", "suggested.toml"]);
    // What is suggested has the waits and the worker-hours that were told.
    let again = ["simulate", "trace.csv", "--config", "suggested.toml", "--tail", "1h", "--json"];
    let again: Value = serde_json::from_str(&printed(directory.path(), &again)).unwrap();
    assert_eq!(
        (&again["runs"][0]["worker_hours"], &again["runs"][0]["wait_seconds"]),
        (&best["worker_hours"], &best["wait_seconds"])
    );
}

#[test]
fn without_enough_to_learn_from_there_is_no_suggestion() {
    let directory = directory(SETTINGS);
    let few = "arrival_ms\n1\n2\n";
    fs::write(directory.path().join("few.csv"), few).unwrap();
    let text = refusal(directory.path(), &["simulate", "few.csv", "--suggest"]);
    assert!(text.contains("2 jobs are too few") && text.contains("record for longer"), "{text}");
    fs::write(directory.path().join("untimed.csv"), noons().replace(",60000\n", ",\n")).unwrap();
    let text = refusal(directory.path(), &["simulate", "untimed.csv", "--suggest"]);
    assert!(text.contains("does not say how long jobs take") && text.contains("--service"), "{text}");
    let text = printed(directory.path(), &["simulate", "untimed.csv", "--suggest", "--service", "1m"]);
    assert!(text.contains("windows in UTC"), "{text}");
    let text = printed(directory.path(), &["simulate", "steady", "--suggest", "--rate", "1/min", "--duration", "3h"]);
    assert!(text.contains("no schedule: a schedule needs jobs over 3 days or more"), "{text}");
    let two = ["simulate", "steady", "--suggest", "--config", "swarm.toml", "--config", "swarm.toml"];
    let text = refusal(directory.path(), &two);
    assert!(text.contains("--suggest improves one configuration"), "{text}");
}
