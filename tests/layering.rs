//! The direction of dependencies, as a table that the source is checked against: which module may name which, and
//! which outside crates stay in one place. It reads the text of `src/`, so that a wrong `use` fails here before anyone
//! builds on it. Code under `#[cfg(test)]` may name anything.

#[path = "layering/files.rs"]
mod files;
#[path = "layering/retired.rs"]
mod retired;
#[path = "layering/tokens.rs"]
mod tokens;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use tokens::{Token, is_word, tokens, without_test_items};

/// Module -> what it may name of the others. A row names only rows above it, so there are no cycles. A new top-level
/// module needs a row; if its row wants much, it is probably two modules.
const MODULES: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("telemetry", &["model"]),
    // When silence counts: for whoever asks whether a worker is dead or only not heard.
    ("evidence", &["model"]),
    // What queues are and how they are read; whoever needs to know asks it.
    ("queue_kind", &["model"]),
    ("config", &["model", "queue_kind"]),
    ("policy", &["model", "config"]),
    ("connection", &["model", "config", "telemetry"]),
    ("signal", &["model", "config", "telemetry", "queue_kind", "connection"]),
    // Sees `signal`, because its own reads arm the invalidations that are signals.
    ("probe", &["model", "config", "telemetry", "queue_kind", "connection", "signal"]),
    ("broker", &["model", "evidence", "config", "telemetry", "connection"]),
    // Child processes that must not outlive this one, whoever starts them.
    ("guard", &[]),
    // Programs of other people: run in bounds, and ended with all that they started.
    ("child_group", &[]),
    ("backend", &["model", "config", "telemetry", "guard", "child_group"]),
    ("scaler", &["model", "evidence", "config", "telemetry", "policy", "connection", "signal", "probe", "backend"]),
    // Drives the scaler's state machine without its shell: sees what goes into it and comes out of it.
    ("simulation", &["model", "evidence", "config", "queue_kind", "signal", "probe", "backend", "scaler"]),
    // Searches for settings; simulates nothing itself.
    ("suggestion", &["model", "config", "simulation"]),
    // Which addresses pages may go to: for those who ask for a page and those who connect.
    ("egress", &["config"]),
    ("worker", &["model", "evidence", "config", "telemetry", "connection", "broker", "guard", "egress", "child_group"]),
    // Pictures; nothing but what was simulated.
    ("plot", &["simulation"]),
    ("http", &["model", "telemetry"]),
    // Answers to KEDA over gRPC; sees snapshots only.
    ("keda", &["model", "config", "telemetry"]),
    // Alerts to webhooks; sees snapshots only.
    ("notify", &["model", "config", "telemetry"]),
    // What people are told and may order, whoever they talk through.
    ("operations", &["model", "config", "connection", "scaler"]),
    ("discord", &["model", "config", "telemetry", "connection", "broker", "egress", "operations"]),
    // Looks at what all of them rely on; sees `signal` for what the server has to send.
    ("doctor", &["model", "config", "queue_kind", "connection", "signal", "backend"]),
    (
        "app",
        &[
            "model",
            "telemetry",
            "config",
            "policy",
            "connection",
            "signal",
            "probe",
            "broker",
            "backend",
            "scaler",
            "worker",
            "http",
            "keda",
            "notify",
        ],
    ),
    (
        "cli",
        &[
            "model",
            "telemetry",
            "config",
            "connection",
            "queue_kind",
            "probe",
            "broker",
            "guard",
            "backend",
            "scaler",
            "simulation",
            "suggestion",
            "plot",
            "worker",
            "http",
            "notify",
            "operations",
            "discord",
            "doctor",
            "app",
        ],
    ),
    ("main", &["telemetry", "guard", "app", "cli"]),
    // The façade: what programs use that embed a part.
    ("lib", &["broker", "config", "connection", "guard", "worker", "app"]),
];

/// Outside crate -> the only modules that may name it.
const CRATES: &[(&str, &[&str])] = &[
    ("redis", &["queue_kind", "connection", "signal", "probe", "broker", "worker", "scaler", "doctor"]),
    ("bollard", &["backend"]),
    ("metrics", &["telemetry"]),
    ("metrics_exporter_prometheus", &["telemetry"]),
    ("crc16", &["connection"]),
    ("opentelemetry", &["telemetry"]),
    ("opentelemetry_otlp", &["telemetry"]),
    ("opentelemetry_sdk", &["telemetry"]),
    ("axum", &["http"]),
    ("tonic", &["keda"]),
    ("tonic_health", &["keda"]),
    ("tonic_prost", &["keda"]),
    ("prost", &["keda"]),
    ("wildmatch", &["model"]),
    ("kube", &["backend"]),
    ("k8s_openapi", &["backend"]),
    ("reqwest", &["backend", "notify", "discord"]),
    ("croner", &["config", "policy"]),
    ("governor", &["backend", "discord"]),
    ("twilight_gateway", &["discord"]),
    ("twilight_http", &["discord"]),
    ("twilight_model", &["discord"]),
    ("twilight_util", &["discord"]),
    ("csv", &["simulation"]),
    ("rand", &["simulation"]),
    ("rand_distr", &["simulation"]),
    ("plotters", &["plot"]),
    ("png", &["plot"]),
];

/// Module -> words it must not contain: `policy` decides from its arguments alone, without clock, task or log.
const WORDS: &[(&str, &[&str])] = &[
    ("evidence", &["tokio", "tracing", "Instant::now", "SystemTime", "Timestamp::wall", "Clock"]),
    ("policy", &["tokio", "tracing", "Instant::now", "SystemTime", "Timestamp::wall", "Clock"]),
    ("simulation", &["tracing", "SystemTime", "Timestamp::wall", "Clock", "std::fs", "std::net"]),
];

#[test]
fn files_of_a_module_name_each_other_in_no_circle() {
    let circles = files::circles(&source_files());
    let edges: Vec<_> =
        circles.iter().map(|edge| format!("{}: `{}` names `{}`", edge.at, edge.from, edge.to)).collect();
    assert!(edges.is_empty(), "{} edges of circles:\n{}", edges.len(), edges.join("\n"));
}

#[test]
fn modules_name_only_what_the_table_allows() {
    let sources = source_files();
    assert!(sources.len() > 5, "found no source: the test looks in the wrong place");
    let violations: Vec<String> = sources.iter().flat_map(|(path, text)| violations(path, text)).collect();
    assert!(violations.is_empty(), "{} (see tests/layering.rs):\n{}", violations.len(), violations.join("\n"));
}

#[test]
fn nothing_has_a_retired_name() {
    let found = retired::all_retired(&source_files());
    assert!(found.is_empty(), "retired names (tests/layering/retired.rs):\n{}", found.join("\n"));

    let path = Path::new("worker/crew.rs");
    let text = "const MOST: u8 = 1; struct Keeper; fn keep() { let crew = \"Settled\"; }";
    assert_eq!(retired::retired(path, text).len(), 3, "the file, the constant and the type");
    assert!(retired::retired(Path::new("policy/crew.rs"), "struct Keeper;").is_empty(), "other modules may");
}

#[test]
fn the_table_has_no_cycles() {
    let mut above = BTreeSet::new();
    for (module, allowed) in MODULES {
        for name in *allowed {
            assert!(above.contains(name), "`{module}` may name `{name}`, which is not a row above it");
        }
        assert!(above.insert(module), "`{module}` has two rows");
    }
    for (name, modules) in CRATES {
        for module in *modules {
            assert!(above.contains(module), "`{name}` is allowed in `{module}`, which has no row");
        }
    }
}

#[test]
fn violations_are_found() {
    for (path, text, found) in [
        ("model/mod.rs", "use crate::config::Settings;", "`model` names `config`"),
        (
            "model/mod.rs",
            "use crate::{\n    model::keys,\n    config::{Settings, Switch},\n};",
            "`model` names `config`",
        ),
        ("model/mod.rs", "fn f() { let x = crate::probe::f::<u8>(); }", "`model` names `probe`"),
        ("model/mod.rs", "mod keys { use super::super::config; }", "`model` names `config`"),
        ("model/deep/er.rs", "pub(crate) use super::super::super::{config};", "`model` names `config`"),
        ("model.rs", "use super::config;", "`model` names `config`"),
        ("main.rs", "fn main() { swarm::probe::run() }", "`main` names `probe`"),
        ("policy/mod.rs", "use crate::{model, *};", "`policy` names `*`"),
        ("lost/mod.rs", "", "`lost` has no row"),
        ("policy/mod.rs", "use crate::lost::X;", "`policy` names `lost`"),
        ("http/mod.rs", "use redis::Cmd;", "`http` names the crate `redis`"),
        ("http/mod.rs", "fn f(c: &::redis::Client) {}", "`http` names the crate `redis`"),
        ("http/mod.rs", "fn f() { metrics::counter!(\"x\"); }", "`http` names the crate `metrics`"),
        ("scaler/x.rs", "use axum as web;", "`scaler` names the crate `axum`"),
        ("policy/x.rs", "fn f() -> u8 { std::time::Instant :: now(); 1 }", "`policy` contains `Instant::now`"),
        ("policy/x.rs", "use tracing::info;", "`policy` contains `tracing`"),
        (
            "model/mod.rs",
            "#[cfg(test)]\nmod tests { fn f() {} }\nuse crate::config;",
            "model/mod.rs:3: `model` names `config`",
        ),
        ("model/mod.rs", "const A: char = '\"'; use crate::config; const B: &str = \"\";", "`model` names `config`"),
    ] {
        let all = violations(Path::new(path), text).join("\n");
        assert!(all.contains(found), "in {path}: {text}\nwanted: {found}\nfound: {all}");
    }
}

#[test]
fn what_is_allowed_is_not_reported() {
    for (path, text) in [
        ("model/mod.rs", "// use crate::config;\n/* /* crate::probe */ redis:: */ //! crate::x"),
        ("model/mod.rs", r##"const A: &str = "crate::config \" redis::"; const B: &str = r#"crate::"probe"#;"##),
        ("model/mod.rs", "fn f<'a>(x: &'a str) -> char { '\\'' }"),
        (
            "model/mod.rs",
            "#[cfg(test)]\n#[allow(unused)]\nmod tests { use crate::{config::X}; fn f() { redis::cmd(); } }",
        ),
        ("model/mod.rs", "#[cfg(test)]\nuse crate::{config, probe};\nuse crate::model::keys;"),
        ("model/mod.rs", "mod keys { use super::{WorkerId, config}; }"),
        ("model/deep.rs", "use super::config;"),
        ("probe/mod.rs", "use crate::{connection::{self, Link}, model::*}; use redis::Cmd;"),
        ("http/mod.rs", "mod metrics; use crate::telemetry::redis; fn f() { metrics::show(redis::Name); x.redis; }"),
        ("policy/mod.rs", "use crate::{config::ScalingSettings, model::Timestamp}; use std::time::Duration;"),
    ] {
        assert_eq!(violations(Path::new(path), text), Vec::<String>::new(), "in {path}: {text}");
    }
}

/// All of `src/`, by path below it; files of out-of-line test modules (`tests.rs`, `tests/`) left out.
fn source_files() -> Vec<(PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    let mut directories = vec![src.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("src/ is readable") {
            let path = entry.expect("src/ is readable").path();
            if path.file_stem().is_some_and(|stem| stem == "tests") {
                continue;
            }
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("source is UTF-8");
                files.push((path.strip_prefix(&src).expect("path is below src/").to_owned(), text));
            }
        }
    }
    files.sort();
    files
}

/// What one file, at `path` below `src/`, names against the tables.
fn violations(path: &Path, text: &str) -> Vec<String> {
    let (module, depth) = place(path);
    let Some((_, allowed)) = MODULES.iter().find(|row| row.0 == module) else {
        return vec![format!("{}: `{module}` has no row: add one that says what it may name", path.display())];
    };
    let tokens = without_test_items(&tokens(text));
    let mut found = Vec::new();
    for (line, name) in modules_named(&tokens, depth) {
        if name != module && !allowed.contains(&name.as_str()) {
            found.push(format!("{}:{line}: `{module}` names `{name}`", path.display()));
        }
    }
    for (line, name) in crates_named(&tokens) {
        if CRATES.iter().any(|(outside, modules)| *outside == name && !modules.contains(&module.as_str())) {
            found.push(format!("{}:{line}: `{module}` names the crate `{name}`", path.display()));
        }
    }
    for word in WORDS.iter().filter(|row| row.0 == module).flat_map(|row| row.1) {
        let parts: Vec<String> = self::tokens(word).into_iter().map(|token| token.text).collect();
        for window in tokens.windows(parts.len()).filter(|window| window.iter().map(|t| &t.text).eq(&parts)) {
            found.push(format!("{}:{}: `{module}` contains `{word}`", path.display(), window[0].line));
        }
    }
    found
}

/// The top-level module that a file belongs to, and how many `super::` lead from the file to the crate's root.
fn place(path: &Path) -> (String, usize) {
    let mut parts: Vec<String> =
        path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.len() > 1 && parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    let depth = if parts == ["main"] || parts == ["lib"] { 0 } else { parts.len() };
    (parts.swap_remove(0), depth)
}

/// Top-level modules of this crate that are named by a path: `crate::x`, `swarm::x`, `crate::{x, y::z}`, and `super::`
/// where it leads to the root. `depth` is the number of modules around the text.
fn modules_named(tokens: &[Token], depth: usize) -> Vec<(usize, String)> {
    let text = |i: usize| tokens.get(i).map_or("", |token| token.text.as_str());
    let mut named = Vec::new();
    let mut braces: Vec<bool> = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        match text(i) {
            "{" => braces.push(i >= 2 && text(i - 2) == "mod"),
            "}" => drop(braces.pop()),
            "crate" | "swarm" if text(i + 1) == "::" && (i == 0 || text(i - 1) != "::") => {
                named.extend(first_names(tokens, i + 2));
            }
            "super" if i == 0 || text(i - 1) != "::" => {
                let mut ups = 1;
                while text(i + 1) == "::" && text(i + 2) == "super" {
                    (i, ups) = (i + 2, ups + 1);
                }
                if ups == depth + braces.iter().filter(|is_module| **is_module).count() && text(i + 1) == "::" {
                    named.extend(first_names(tokens, i + 2));
                }
            }
            _ => {}
        }
        i += 1;
    }
    named
}

/// The first name of each path in the tree at `from`: `a::b` gives `a`; `{a, b::{c}}` gives `a` and `b`.
fn first_names(tokens: &[Token], from: usize) -> Vec<(usize, String)> {
    let Some(first) = tokens.get(from) else { return Vec::new() };
    if first.text != "{" {
        return vec![(first.line, first.text.clone())];
    }
    let mut names = Vec::new();
    let mut open = 0_usize;
    for (i, token) in tokens.iter().enumerate().skip(from) {
        match token.text.as_str() {
            "{" => open += 1,
            "}" => open -= 1,
            "self" | "," => {}
            name if open == 1 && matches!(tokens[i - 1].text.as_str(), "{" | ",") => {
                names.push((token.line, name.to_owned()));
            }
            _ => {}
        }
        if open == 0 {
            break;
        }
    }
    names
}

/// Outside crates of the table that are named by a path or a `use`, unless the file has something else of that name.
fn crates_named(tokens: &[Token]) -> Vec<(usize, String)> {
    let text = |i: usize| tokens.get(i).map_or("", |token| token.text.as_str());
    let mut named = Vec::new();
    let mut own = BTreeSet::new();
    let mut own_path = false;
    for (i, token) in tokens.iter().enumerate() {
        let before = if i == 0 { "" } else { text(i - 1) };
        match token.text.as_str() {
            "use" => own_path = matches!(text(i + 1), "crate" | "self" | "super" | "swarm"),
            ";" => own_path = false,
            name if !CRATES.iter().any(|row| row.0 == name) => {}
            name if own_path || before == "mod" => drop(own.insert(name.to_owned())),
            name => {
                let absolute = before != "::" || i < 2 || !text(i - 2).chars().all(is_word);
                if absolute && (text(i + 1) == "::" || before == "use") {
                    named.push((token.line, name.to_owned()));
                }
            }
        }
    }
    named.retain(|(_, name)| !own.contains(name));
    named
}
