//! Names that were private metaphors, and what they are called now. Whoever brings one back finds its successor here.
//! Only whole names of files, types and functions count, and only in the module where the word meant that.

use std::path::{Path, PathBuf};

use crate::tokens::{is_word, tokens};

/// Module -> retired name -> its successor.
const RETIRED: &[(&str, &[(&str, &str)])] = &[
    ("app", &[("crew", "actor_set"), ("hire", "spawn"), ("Lasting", "AppShared")]),
    (
        "backend",
        &[
            ("mandate", "leader_guard"),
            ("books", "registry"),
            ("Books", "Registry"),
            ("strike", "remove"),
            ("keeper", "reconciler"),
            ("Keeper", "Reconciler"),
            ("leaving", "drain"),
            ("rank", "deletion_order"),
            ("rivals", "conflicts"),
            ("Rivals", "Conflicts"),
            ("notices", "event_recorder"),
            ("Teller", "EventRecorder"),
            ("home", "self_container"),
            ("blueprint", "container_template"),
            ("upkeep", "housekeeping"),
            ("journal", "change_log"),
            ("pace", "rate_limit"),
            ("news", "change_log"),
            ("Crew", "TaskSet"),
        ],
    ),
    (
        "broker",
        &[
            ("fate", "locate"),
            ("vet", "validate"),
            ("several", "multi_stream"),
            ("mover", "delayed_scheduler"),
            ("Parcel", "RawEntry"),
            ("WornOut", "AttemptsExhausted"),
        ],
    ),
    ("discord", &[("desk", "dispatcher"), ("Desk", "Dispatcher")]),
    ("guard", &[("Ward", "GuardedChild")]),
    ("http", &[("ring", "event_buffer"), ("Ring", "EventBuffer")]),
    ("policy", &[("wish", "recommendation"), ("Wish", "Recommendation")]),
    (
        "scaler",
        &[
            ("Roster", "WorkerTracker"),
            ("take_stock", "classify"),
            ("Census", "PoolView"),
            ("Standing", "WorkerStatus"),
            ("Shell", "ActorTask"),
            ("Parked", "SuspendedActor"),
            ("Shown", "SnapshotCell"),
            ("Desk", "OverrideService"),
            ("Order", "OverrideRequest"),
            ("Wish", "OverrideAction"),
            ("Roll", "WorkerTypeIndex"),
            ("seat", "lease_store"),
        ],
    ),
    (
        "signal",
        &[
            ("found", "discovered_queues"),
            ("Sighting", "KeyEvent"),
            ("board", "source_status"),
            ("muting", "flood_suppression"),
        ],
    ),
    ("simulation", &[("Moment", "SimTime"), ("Tally", "Stats"), ("story", "timeline")]),
    (
        "worker",
        &[
            ("hand", "in_flight"),
            ("put_down", "release"),
            ("put_aside", "retry_scheduled"),
            ("crew", "executor"),
            ("gang", "batch"),
            ("keeper", "claim_renewal"),
            ("tending", "maintenance"),
            ("settler", "completer"),
            ("Ending", "Completion"),
            ("Settled", "Outcome"),
            ("Keeper", "…Task"),
            ("Order", "…Command"),
        ],
    ),
];

/// Constants whose names said nothing, in every module.
const RETIRED_CONSTANTS: &[(&str, &str)] = &[("LOOK", "POLL_INTERVAL"), ("PATIENCE", "…_TIMEOUT"), ("MOST", "MAX_…")];

/// Returns a line for each retired name that a file or an item in it has.
pub(crate) fn retired(path: &Path, text: &str) -> Vec<String> {
    let module = path.iter().next().map(|first| first.to_string_lossy().trim_end_matches(".rs").to_owned());
    let names = RETIRED.iter().find(|(of, _)| Some(*of) == module.as_deref()).map_or(&[][..], |(_, names)| names);
    let successor = |name: &str, names: &[(&str, &'static str)]| {
        names.iter().find(|(retired, _)| *retired == name).map(|(_, successor)| *successor)
    };
    let mut found = Vec::new();
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    if let Some(now) = successor(&stem, names) {
        found.push(format!("src/{}: `{stem}` is called `{now}`", path.display()));
    }
    let words: Vec<(usize, String)> = tokens(text)
        .into_iter()
        .map(|token| (token.line, token.text))
        .filter(|(_, text)| text.chars().all(is_word))
        .collect();
    for pair in words.windows(2) {
        let [(_, keyword), (line, name)] = pair else { continue };
        let now = match keyword.as_str() {
            "struct" | "enum" | "trait" | "type" | "fn" | "mod" => successor(name, names),
            "const" => successor(name, RETIRED_CONSTANTS),
            _ => None,
        };
        if let Some(now) = now {
            found.push(format!("src/{}:{line}: `{name}` is called `{now}`", path.display()));
        }
    }
    found
}

/// Returns the same for all files.
pub(crate) fn all_retired(sources: &[(PathBuf, String)]) -> Vec<String> {
    sources.iter().flat_map(|(path, text)| retired(path, text)).collect()
}
