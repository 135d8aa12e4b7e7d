//! Whether the backend could do its work, in words for people. Changes nothing: it lists workers, and looks for the
//! programs of the other commands.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
};

use super::{CommandBackend, poll, pool::TypePool};
use crate::backend::{BackendError, Check};

impl CommandBackend {
    /// Lists the workers of each type, and looks whether its other programs exist. Of a service, nothing else can be
    /// asked without a change.
    pub async fn check(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        for pool in self.all() {
            let worker_type = &pool.worker_type;
            let listed =
                poll::refresh(&self.shared, &pool).await.map(|_| format!("{} workers", pool.registry.listed()));
            checks.push(Check::new(format!("worker type `{worker_type}`: list workers"), listed));
            checks.extend(programs(&pool));
        }
        checks
    }
}

fn programs(pool: &TypePool) -> Vec<Check> {
    let spec = pool.spec();
    let settings = &spec.settings;
    let commands =
        [("start", &settings.start), ("stop", &settings.stop), ("scale", &settings.scale), ("watch", &settings.watch)];
    let path = settings.environment.get("PATH").map(OsString::from).or_else(|| std::env::var_os("PATH"));
    let used = commands.into_iter().filter_map(|(key, words)| Some((key, words.first()?)));
    used.map(|(key, program)| {
        let what = format!("worker type `{}`: program of `command.{key}`", pool.worker_type);
        Check::new(what, find(program, path.as_deref()).map(|()| format!("`{program}` exists")))
    })
    .collect()
}

/// Looks for a program in the directories of `path`, the `PATH` that the commands get.
fn find(program: &str, path: Option<&OsStr>) -> Result<(), BackendError> {
    let found = if program.contains('/') {
        Path::new(program).is_file()
    } else {
        std::env::split_paths(path.unwrap_or_default()).any(|directory| directory.join(program).is_file())
    };
    if found {
        Ok(())
    } else {
        Err(BackendError::permanent(format!("`{program}` was not found; install it, or give its full path")))
    }
}
