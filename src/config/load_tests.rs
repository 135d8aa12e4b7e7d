//! Tests of loading from a user's view: which layer wins, what every variable does, and the errors of bad files.

use std::collections::HashMap;

use secrecy::ExposeSecret;

use super::*;
use crate::config::{Orchestrator, effective, schema, to_toml};

const NO_ENV: [(&str, &str); 0] = [];

fn load_with<const N: usize>(flags: &Flags, env: [(&str, &str); N]) -> Result<Loaded, ConfigErrors> {
    let env: HashMap<_, _> = env.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    load_from(flags, &|name: &str| env.get(name).cloned(), &[])
}

/// Loads `text` as a file, with an environment.
fn load_text<const N: usize>(text: &str, env: [(&str, &str); N]) -> Result<Loaded, ConfigErrors> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("swarm.toml");
    std::fs::write(&path, text).unwrap();
    load_with(&Flags { config: Some(path), ..Flags::default() }, env)
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/swarm.toml")
}

#[test]
fn with_no_file_there_are_two_worker_types() {
    let loaded = load_with(&Flags::default(), NO_ENV).unwrap();
    assert_eq!(loaded.file, None);
    let limits: Vec<_> = loaded
        .settings
        .worker_types
        .iter()
        .map(|(name, worker_type)| (name.as_str(), worker_type.scaling.min_workers, worker_type.scaling.max_workers))
        .collect();
    assert_eq!(limits, [("browser", 1, 10), ("tankpit", 0, 50)]);
    assert!(loaded.warnings.is_empty());
}

#[test]
fn the_example_shows_the_defaults() {
    let shown = load_with(&Flags { config: Some(example()), ..Flags::default() }, NO_ENV).unwrap();
    let built_in = load_with(&Flags::default(), NO_ENV).unwrap();
    assert_eq!(effective(&shown.settings), effective(&built_in.settings));
    assert!(shown.warnings.is_empty(), "{:?}", shown.warnings);
}

#[test]
fn the_example_names_every_key() {
    let text = std::fs::read_to_string(example()).unwrap();
    // Including those within `{ … }`: `guest = { cpus = 1, … }`.
    let assignments = text.lines().flat_map(|line| line.split(['{', ',']));
    let said: Vec<_> = assignments
        .filter_map(|part| part.trim_start_matches(['#', ' ']).split_once(" = "))
        .map(|(key, _)| key)
        .collect();
    let schema = schema();
    let tables = schema["$defs"].as_object().unwrap().values().chain([&schema]);
    let settings = tables.filter_map(|table| table["properties"].as_object()).flatten();
    let missing: Vec<_> = settings
        .filter(|(_, property)| {
            let definition =
                property["$ref"].as_str().and_then(|target| schema.pointer(target.trim_start_matches('#')));
            !definition.is_some_and(|table| table["properties"].is_object())
        })
        .map(|(key, _)| key.as_str())
        .filter(|key| {
            !["worker_types", "environment", "exec_environment", "environment_files", "schedule", "notify"]
                .contains(key)
                && !said.contains(key)
        })
        .collect();
    assert_eq!(missing, Vec::<&str>::new());
}

#[test]
fn each_variable_overrides_its_setting() {
    let expected = [
        ("REDIS_URL", "redis://r/1", "/redis_url", json!("redis://r/1")),
        ("ORCHESTRATOR", "docker-compose", "/orchestrator", json!("docker")),
        ("CHECK_INTERVAL", "7", "/scaler/sweep_interval_seconds", json!(7)),
        ("METRICS_PORT", "9100", "/http/listen", json!("127.0.0.1:9100")),
        ("BROWSER_MIN_WORKERS", "2", "/worker_types/browser/scaling/min_workers", json!(2)),
        ("BROWSER_MAX_WORKERS", "3", "/worker_types/browser/scaling/max_workers", json!(3)),
        ("TANKPIT_SCALE_UP_THRESHOLD", "8", "/worker_types/tankpit/scaling/scale_up_threshold", json!(8)),
        ("TANKPIT_SCALE_DOWN_THRESHOLD", "4", "/worker_types/tankpit/scaling/scale_down_threshold", json!(4)),
        ("TANKPIT_COOLDOWN", "0", "/worker_types/tankpit/scaling/cooldown_seconds", json!(0)),
        ("BROWSER_JOB_QUEUE", "q", "/worker_types/browser/job_queue", json!("q")),
        ("BROWSER_ENABLED", "No", "/worker_types/browser/enabled", json!(false)),
        ("CUSTOM_WORKER_TYPES", "a, b,browser", "/worker_types/b/job_queue", json!("b:jobs")),
    ];
    for (variable, text, pointer, value) in expected {
        let loaded = load_with(&Flags::default(), [(variable, text)]).unwrap();
        assert_eq!(effective(&loaded.settings).pointer(pointer), Some(&value), "{variable}={text}");
        let named = loaded.origins.nearest(pointer).to_string();
        assert_eq!(named, variable, "{pointer}");
    }
}

#[test]
fn a_variable_names_the_file_of_the_url() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("redis-url");
    std::fs::write(&file, "redis://ann:secret@r/1\n").unwrap();
    let file = file.to_str().unwrap();
    let url = |loaded: &Loaded| loaded.settings.redis_url.expose_secret().to_owned();
    let loaded = load_with(&Flags::default(), [("REDIS_URL_FILE", file)]).unwrap();
    assert_eq!(url(&loaded), "redis://ann:secret@r/1");
    let loaded = load_with(&Flags::default(), [("REDIS_URL_FILE", file), ("REDIS_URL", "redis://other")]).unwrap();
    assert_eq!(url(&loaded), "redis://other");
}

#[test]
fn the_variables_of_a_custom_type_spell_its_name_in_capitals() {
    let env = [("CUSTOM_WORKER_TYPES", "img-proc.v2"), ("IMG_PROC_V2_MAX_WORKERS", "4"), ("IMG_PROC_V2_ENABLED", "0")];
    let loaded = load_with(&Flags::default(), env).unwrap();
    let custom = &loaded.settings.worker_types["img-proc.v2"];
    assert_eq!((custom.scaling.max_workers, custom.enabled), (4, false));
}

#[test]
fn a_variable_that_means_two_types_is_remarked_upon() {
    let loaded = load_with(&Flags::default(), [("CUSTOM_WORKER_TYPES", "a-b,a.b"), ("A_B_MAX_WORKERS", "4")]).unwrap();
    assert_eq!(loaded.warnings, ["A_B_MAX_WORKERS applies to all of: a-b, a.b"]);
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let file = "redis_url = \"redis://file\"\norchestrator = \"fly\"\n[scaler]\nsweep_interval_seconds = 11\n\
                [worker_types.x.scaling]\nmax_workers = 12\n";
    let dir = tempfile::tempdir().unwrap();
    let config = Some(dir.path().join("f.toml"));
    std::fs::write(config.as_ref().unwrap(), file).unwrap();
    let env = [
        ("REDIS_URL", "redis://env"),
        ("ORCHESTRATOR", "kubernetes"),
        ("CHECK_INTERVAL", "12"),
        ("X_MAX_WORKERS", "13"),
        ("SWARM_CONFIG", "/not/there/for-the-flag-wins"),
    ];
    let flags = Flags {
        config: config.clone(),
        redis_url: Some("redis://flag".to_owned()),
        orchestrator: Some("docker-api".to_owned()),
        check_interval: Some(13),
        dry_run: true,
        ..Flags::default()
    };
    let seen = |loaded: &Loaded| {
        let settings = &loaded.settings;
        (
            settings.redis_url.expose_secret().to_owned(),
            settings.orchestrator,
            settings.scaler.sweep_interval_seconds,
            settings.scaler.dry_run,
            settings.worker_types["x"].scaling.max_workers,
        )
    };
    let all = load_with(&flags, env).unwrap();
    assert_eq!(seen(&all), ("redis://flag".to_owned(), Orchestrator::Docker, 13, true, 13));
    let no_flags = load_with(&Flags { config: config.clone(), ..Flags::default() }, env).unwrap();
    assert_eq!(seen(&no_flags), ("redis://env".to_owned(), Orchestrator::Kubernetes, 12, false, 13));
    let no_env = load_with(&Flags { config, ..Flags::default() }, NO_ENV).unwrap();
    assert_eq!(seen(&no_env), ("redis://file".to_owned(), Orchestrator::Fly, 11, false, 12));
}

#[test]
fn the_metrics_port_keeps_the_address_of_the_file() {
    for (listen, with_port) in [("0.0.0.0:1", "0.0.0.0:77"), ("[::1]:1", "[::1]:77"), ("", "127.0.0.1:77")] {
        let text = format!("[http]\nlisten = {listen:?}\n[worker_types.a]\n");
        assert_eq!(load_text(&text, [("METRICS_PORT", "77")]).unwrap().settings.http.listen, with_port);
    }
}

#[test]
fn a_variable_with_the_programs_name_in_front_goes_first() {
    let env = [
        ("REDIS_URL", "redis://other"),
        ("SWARM_REDIS_URL", "redis://ours"),
        ("SWARM_METRICS_PORT", "78"),
        ("METRICS_PORT", "77"),
        ("SWARM_CUSTOM_WORKER_TYPES", "a"),
        ("SWARM_A_MAX_WORKERS", "7"),
        ("A_MAX_WORKERS", "8"),
    ];
    let loaded = load_with(&Flags::default(), env).unwrap();
    assert_eq!(loaded.settings.redis_url.expose_secret(), "redis://ours");
    assert_eq!(loaded.settings.http.listen, "127.0.0.1:78");
    assert_eq!(loaded.settings.worker_types["a"].scaling.max_workers, 7);
    assert_eq!(loaded.origins.nearest("/worker_types/a/scaling/max_workers").to_string(), "SWARM_A_MAX_WORKERS");
}

/// A Service named `metrics` in the namespace of the pod.
#[test]
fn a_port_that_kubernetes_sets_for_a_service_is_ignored() {
    let address = "tcp://10.43.12.7:9090";
    let loaded = load_with(&Flags::default(), [("METRICS_PORT", address)]).unwrap();
    assert_eq!(loaded.settings.http.listen, "127.0.0.1:9000");
    assert!(loaded.warnings.iter().any(|warning| warning.contains("METRICS_PORT is ignored")), "{:?}", loaded.warnings);
    let env = [("SWARM_METRICS_PORT", address), ("METRICS_PORT", "77")];
    assert_eq!(load_with(&Flags::default(), env).unwrap().settings.http.listen, "127.0.0.1:77");
}

#[test]
fn a_list_without_heartbeats_is_warned_of_unless_its_workers_may_be_stopped() {
    let warnings = |worker: &str| {
        let text = format!("[worker_types.a]\nkind = \"list\"\n[worker_types.a.worker]\n{worker}\n");
        load_text(&text, NO_ENV).unwrap().warnings
    };
    assert!(warnings("heartbeats = false").iter().any(|warning| warning.contains("nothing tells whether")));
    assert_eq!(warnings("heartbeats = false\nidle = \"empty_queue\""), [""; 0]);
    assert_eq!(warnings("heartbeats = true"), [""; 0]);
    let text = "[worker_types.a.worker]\nidle = \"empty_queue\"\n";
    let stream = load_text(text, NO_ENV).unwrap().warnings;
    assert!(
        stream.iter().any(|warning| warning.ends_with("worker.idle has no effect with kind = \"stream\"")),
        "{stream:?}"
    );
}

#[test]
fn a_window_that_opens_and_closes_at_once_is_warned_of() {
    let of = |end: &str| {
        let window = format!("start = \"0 8 * * *\"\nend = \"{end}\"\nmin_workers = 2\n");
        load_text(&format!("[[worker_types.a.scaling.schedule]]\n{window}"), NO_ENV).unwrap().warnings
    };
    assert!(of("0  8 * * *").iter().any(|warning| warning.contains("always open")), "{:?}", of("0 8 * * *"));
    assert_eq!(of("0 9 * * *"), [""; 0]);
}

#[test]
fn an_empty_variable_is_not_set() {
    let loaded = load_with(&Flags::default(), [("REDIS_URL", ""), ("SWARM_CONFIG", " "), ("CHECK_INTERVAL", "")]);
    assert_eq!(loaded.unwrap().settings.scaler.sweep_interval_seconds, 30);
}

#[test]
fn a_bad_variable_or_flag_is_named() {
    let env = [
        ("REDIS_URL", "http://:hunter2@h"),
        ("ORCHESTRATOR", "dokcer"),
        ("CHECK_INTERVAL", "soon"),
        ("METRICS_PORT", "70000"),
        ("CUSTOM_WORKER_TYPES", "ok,Not Ok"),
        ("BROWSER_MIN_WORKERS", "11"),
        ("BROWSER_ENABLED", "perhaps"),
        ("TANKPIT_MAX_WORKERS", "-1"),
        ("TANKPIT_JOB_QUEUE", "ok:jobs"),
        ("OK_SCALE_DOWN_THRESHOLD", "5"),
    ];
    let errors = load_with(&Flags::default(), env).unwrap_err().to_string();
    insta::assert_snapshot!(errors);
    let flags = Flags { redis_url: Some("h".to_owned()), check_interval: Some(0), ..Flags::default() };
    insta::assert_snapshot!(load_with(&flags, NO_ENV).unwrap_err());
}

#[test]
fn the_url_file_wins_over_the_file_and_loses_to_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("url");
    std::fs::write(&secret, "redis://:hunter2@secret/3\n").unwrap();
    let text = format!("redis_url = \"redis://file\"\nredis_url_file = {secret:?}\n[worker_types.a]\n");
    let loaded = load_text(&text, NO_ENV).unwrap();
    assert_eq!(loaded.settings.redis_url.expose_secret(), "redis://:hunter2@secret/3");
    assert!(loaded.warnings[0].ends_with("redis_url has no effect: redis_url_file wins"), "{:?}", loaded.warnings);
    assert!(!format!("{loaded:?}{}{}", to_toml(&loaded), effective(&loaded.settings)).contains("hunter2"));
    let loaded = load_text(&text, [("REDIS_URL", "redis://env")]).unwrap();
    assert_eq!(loaded.settings.redis_url.expose_secret(), "redis://env");
    assert_eq!(loaded.settings.redis_url_file, None);
}

#[test]
fn a_url_file_with_a_bad_url_is_named_and_not_quoted() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("url");
    std::fs::write(&secret, "hunter2").unwrap();
    let errors = load_text(&format!("redis_url_file = {secret:?}"), NO_ENV).unwrap_err().to_string();
    assert!(errors.starts_with(&format!("{}: redis_url: not a URL", secret.display())), "{errors}");
    assert!(!errors.contains("hunter2"), "{errors}");
}

#[test]
fn what_has_no_effect_is_a_warning() {
    let text = "[signals]\nkeyspace = \"off\"\nchannel = \"\"\ntracking = \"off\"\n[worker_types.a]\nkind = \"list\"\n\
                group = \"g\"\nscaling = { step = 2, jobs_per_worker = 9 }\n";
    let warnings = load_text(text, NO_ENV).unwrap().warnings;
    let starts =
        ["all of [signals] is off", "step has no effect", "jobs_per_worker has no effect", "group has no effect"];
    for expected in starts {
        assert!(warnings.iter().any(|warning| warning.contains(expected)), "{expected}: {warnings:?}");
    }
    assert_eq!(warnings.len(), starts.len(), "{warnings:?}");
    let none = load_text("", NO_ENV).unwrap().warnings;
    assert!(none[0].starts_with("no worker types"), "{none:?}");
}

#[test]
fn what_is_shown_is_a_file_that_means_the_same() {
    let text = "[worker_types.a.process]\nenvironment = { A = \"1\", \"B.C\" = \"x\" }\ndirectory = \"/tmp\"\n";
    let loaded = load_text(text, [("A_MAX_WORKERS", "3")]).unwrap();
    let shown = to_toml(&loaded);
    assert!(shown.contains("max_workers = 3  # A_MAX_WORKERS\n"), "{shown}");
    assert!(shown.contains("swarm.toml:2\n") && shown.contains("min_workers = 0\n"), "{shown}");
    let again = load_text(&shown, NO_ENV).unwrap();
    assert_eq!(effective(&again.settings), effective(&loaded.settings));
}

#[test]
fn every_error_of_a_bad_file_is_reported_with_its_line() {
    let directory = Path::new("tests/testdata/config");
    let mut files: Vec<_> = directory.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 4, "{files:?}");
    for path in files {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let errors = load_with(&Flags { config: Some(path), ..Flags::default() }, NO_ENV).unwrap_err();
        insta::assert_snapshot!(format!("bad_file_{name}"), errors);
    }
}

#[test]
fn a_worker_that_could_not_start_is_found_before_it_is_started() {
    for (worker, says) in [
        ("exec = [\" \"]", "a.worker.exec: no program is named"),
        ("handler = \"exec\"", "a.worker.exec: no program is named"),
        ("exec_environment = { \"A=B\" = \"c\" }", "no process can be given it"),
        ("metrics_listen = \"localhost:1\"", "a.worker.metrics_listen: expected ADDRESS:PORT"),
    ] {
        let errors = load_text(&format!("[worker_types.a.worker]\n{worker}\n"), NO_ENV).unwrap_err().to_string();
        assert!(errors.contains(says), "{worker}: {errors}");
    }
    load_text("[worker_types.a.worker]\nexec = [\"cat\"]\nmetrics_listen = \"127.0.0.1:0\"\n", NO_ENV).unwrap();
}

#[test]
fn what_a_program_is_given_is_shown_without_its_secrets() {
    let text = "[worker_types.a.worker]\nexec = [\"p\"]\nexec_environment = { API_TOKEN = \"hunter2\" }\n";
    let shown = to_toml(&load_text(text, NO_ENV).unwrap());
    assert!(shown.contains("API_TOKEN") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_window_of_a_schedule_is_read_and_shown_with_its_lines() {
    let text = "[worker_types.a.scaling]\nmax_workers = 9\n\n[[worker_types.a.scaling.schedule]]\n\
                start = \"0 8 * * MON-FRI\"\nend = \"0 18 * * *\"\ntime_zone = \"Europe/Berlin\"\nmin_workers = 4\n\n\
                [[worker_types.a.scaling.schedule]]\nstart = \"@daily\"\nduration = \"2h\"\nmin_workers = 2\n";
    let loaded = load_text(text, NO_ENV).unwrap();
    assert_eq!(loaded.settings.worker_types["a"].scaling.schedule.len(), 2);
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let shown = to_toml(&loaded);
    assert!(shown.contains("min_workers = 4  # ") && shown.contains("swarm.toml:8\n"), "{shown}");
    assert_eq!(effective(&load_text(&shown, NO_ENV).unwrap().settings), effective(&loaded.settings));
}

#[test]
fn a_window_above_the_maximum_is_an_error_wherever_the_maximum_was_said() {
    let text = "[[worker_types.a.scaling.schedule]]\nstart = \"0 8 * * *\"\nduration = \"1h\"\nmin_workers = 4\n";
    let errors = load_text(text, [("A_MAX_WORKERS", "3")]).unwrap_err().to_string();
    assert!(
        errors.starts_with("A_MAX_WORKERS: worker_types.a.scaling.schedule[0].min_workers = 4 is more"),
        "{errors}"
    );
    let same = "[worker_types.a.scaling]\nmin_workers = 4\n".to_owned() + text;
    let warnings = load_text(&same, NO_ENV).unwrap().warnings;
    assert!(
        warnings[0].contains("min_workers has no effect with min_workers = 4 outside of the window"),
        "{warnings:?}"
    );
}

#[test]
fn the_window_of_a_strategy_is_shown() {
    for (strategy, window) in [("threshold", 0), ("step", 0), ("backlog", 60), ("latency", 60)] {
        let loaded = load_text(&format!("[worker_types.a.scaling]\nstrategy = \"{strategy}\"\n"), NO_ENV).unwrap();
        let shown = effective(&loaded.settings);
        let at = "/worker_types/a/scaling/stabilization_window_seconds";
        assert_eq!(shown.pointer(at), Some(&json!(window)), "{strategy}");
    }
}

#[test]
fn the_token_comes_from_its_file_is_checked_and_is_never_shown() {
    const TOKEN: &str = "hunter2hunter2hunter2";
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), format!("{TOKEN}\n")).unwrap();
    let text = format!(
        "[http]\ntoken = \"sixteen-letters-\"\ntoken_file = {:?}\nlisten = \"0.0.0.0:1\"\n[worker_types.a]\n",
        secret.path()
    );
    let loaded = load_text(&text, NO_ENV).unwrap();
    assert_eq!(loaded.settings.http.token.as_ref().unwrap().expose_secret(), TOKEN);
    assert!(loaded.warnings.iter().any(|w| w.ends_with("http.token has no effect: http.token_file wins")));
    assert!(loaded.warnings.iter().any(|w| w.contains("in clear text")), "{:?}", loaded.warnings);
    let shown = format!("{:?} {} {}", loaded, json!(loaded.settings), crate::config::to_toml(&loaded));
    assert!(!shown.contains("hunter2"), "{shown}");

    for short in ["short", "with a space in it", ""] {
        let errors = load_text(&format!("[http]\ntoken = {short:?}\n"), NO_ENV).unwrap_err().to_string();
        assert!(errors.contains("http.token: can be guessed"), "{errors}");
    }
    let errors = load_text("[http]\ntoken_file = \"/not/there\"\n", NO_ENV).unwrap_err().to_string();
    assert!(errors.contains("http.token_file: /not/there can't be read") && errors.contains("or use http.token"));
}

#[test]
fn names_of_the_server_and_the_read_token_are_checked() {
    let text = "[http]\nhosts = [\"autoscaler\", \"*.example.com\", \"*\"]\nread_token = \"readers-0123456789\"\n\
                [worker_types.a]\n";
    let loaded = load_text(text, NO_ENV).unwrap();
    assert!(!format!("{} {}", json!(loaded.settings), crate::config::to_toml(&loaded)).contains("readers-"));
    for host in ["http://autoscaler", "autoscaler:9000", "", "*example.com"] {
        let errors = load_text(&format!("[http]\nhosts = [{host:?}]\n"), NO_ENV).unwrap_err().to_string();
        assert!(errors.contains("http.hosts: expected a host name") && errors.contains(host), "{errors}");
    }
    let same = "[http]\ntoken = \"readers-0123456789\"\nread_token = \"readers-0123456789\"\n";
    let errors = load_text(same, NO_ENV).unwrap_err().to_string();
    assert!(errors.contains("http.read_token: the same as http.token"), "{errors}");
}

#[test]
fn the_redis_url_of_workers_is_a_secret_and_has_a_file() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "redis://worker:hunter2@redis:6379/0\n").unwrap();
    let text = format!("worker_redis_url_file = {:?}\n[worker_types.a]\n", secret.path());
    let loaded = load_text(&text, NO_ENV).unwrap();
    assert_eq!(loaded.settings.redis_url_of_workers().expose_secret(), "redis://worker:hunter2@redis:6379/0");
    assert!(!format!("{:?} {}", loaded, crate::config::to_toml(&loaded)).contains("hunter2"));
    let without = load_text("redis_url = \"redis://one\"\n[worker_types.a]\n", NO_ENV).unwrap();
    assert_eq!(without.settings.redis_url_of_workers().expose_secret(), "redis://one");
    let errors = load_text("worker_redis_url = \"http://one\"\n", NO_ENV).unwrap_err().to_string();
    assert!(errors.contains("worker_redis_url: "), "{errors}");
    let shared = "orchestrator = \"docker\"\nredis_url = \"redis://u:hunter2@one\"\n";
    for (more, warns) in [("", true), ("worker_redis_url = \"redis://w:p@one\"\n", false)] {
        let warnings = load_text(&format!("{shared}{more}[worker_types.a]\n"), NO_ENV).unwrap().warnings;
        let warning = warnings.iter().find(|warning| warning.contains("set worker_redis_url"));
        assert_eq!(warning.is_some(), warns, "{warnings:?}");
        assert!(!format!("{warnings:?}").contains("hunter2"));
    }
    let unused = "orchestrator = \"kubernetes\"\nworker_redis_url = \"redis://one\"\n[worker_types.a]\n";
    let warnings = load_text(unused, NO_ENV).unwrap().warnings;
    assert!(warnings.iter().any(|warning| warning.contains("worker_redis_url has no effect")), "{warnings:?}");
}

#[test]
fn a_problem_that_is_found_elsewhere_has_the_line_of_its_setting() {
    let loaded =
        super::load_text("orchestrator = \"docker\"\n[worker_types.mail]\n[[notify]]\nurl_file = \"f\"\n").unwrap();
    assert!(loaded.refuse([]).is_ok());
    let problem = |path: &[&str]| (path.iter().map(|key| (*key).to_owned()).collect(), "no".to_owned());
    let errors = loaded.refuse([problem(&["notify"]), problem(&["orchestrator"])]).unwrap_err();
    assert_eq!(errors.to_string(), "configuration:1: no\nconfiguration:3: no");
}

#[test]
fn a_worker_in_a_job_that_would_not_leave_is_warned_of() {
    let warnings = |orchestrator: &str, more: &str| {
        let text =
            format!("orchestrator = \"{orchestrator}\"\n[worker_types.a]\nkubernetes = {{ kind = \"job\" }}\n{more}");
        load_text(&text, []).unwrap().warnings
    };
    let warned = warnings("kubernetes", "");
    assert!(warned.len() == 1 && warned[0].contains("set worker.max_jobs"), "{warned:?}");
    assert_eq!(warnings("kubernetes", "worker = { max_jobs = 1 }\n"), [""; 0]);
    assert_eq!(warnings("process", ""), [""; 0], "it is not used");
}
