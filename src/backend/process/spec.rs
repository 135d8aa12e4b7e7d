//! How to run one worker of a type, and whether that can work here: the program, its environment, its directory.
//! Starts nothing.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};

use crate::{
    backend::{BackendError, ErrorKind},
    config::{WORKER_SETTINGS, WorkerRedisUrl, WorkerTypeSettings},
    model::{StopPolicy, WorkerId, WorkerType},
    telemetry::{LogFormat, log_format},
};

/// The first word of a command that stands for this very binary.
const OWN_BINARY: &str = "swarm";

/// How to run the workers of one type.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessSpec {
    /// Program and arguments; never empty when made by [`from_settings`](Self::from_settings).
    pub command: Vec<String>,
    /// Environment variables added to the scaler's own; they win over `REDIS_URL` and `SWARM_CONFIG` from it.
    pub environment: BTreeMap<String, String>,
    /// Working directory; the scaler's if `None`.
    pub directory: Option<PathBuf>,
    /// How long a worker may take to leave when the scaler itself ends, however it ends.
    pub drain_timeout: Duration,
    /// How a worker is asked to leave, and whether it is killed after its time.
    pub stop: StopPolicy,
    /// What its workers get as `REDIS_URL`.
    pub redis_url: WorkerRedisUrl,
}

impl ProcessSpec {
    /// What the settings of worker type `name` say; with no command, its own worker: `swarm worker --type NAME`.
    pub fn from_settings(name: &str, settings: &WorkerTypeSettings) -> Self {
        let mut environment = settings.process.environment.clone();
        if let Some(handed) = settings.for_workers().filter(|_| settings.framework.is_none()) {
            environment.entry(WORKER_SETTINGS.to_owned()).or_insert(handed);
        }
        Self {
            command: settings.command(name),
            environment,
            directory: settings.process.directory.clone(),
            drain_timeout: settings.scaling.drain_timeout(),
            stop: settings.stop_policy(),
            redis_url: settings.worker_redis_url(),
        }
    }
}

/// Environment that every worker gets from the scaler that starts it.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The `swarm` binary: runs the guard, starts every worker, and is what `swarm` means in a command.
    pub swarm: PathBuf,
    /// For `REDIS_URL`.
    pub redis_url: SecretString,
    /// For `SWARM_CONFIG`, if the scaler was given a file.
    pub config_file: Option<PathBuf>,
}

impl Surroundings {
    /// The command that starts worker `id`: it holds at the starting line until it reads a byte from its stdin.
    ///
    /// A missing program, directory or permission is a [`ErrorKind::Permanent`] error here, before anything runs.
    pub(super) fn command(
        &self,
        spec: &ProcessSpec,
        worker_type: &WorkerType,
        id: &WorkerId,
    ) -> Result<Command, BackendError> {
        let Some((program, arguments)) = spec.command.split_first() else {
            return Err(BackendError::permanent(format!(
                "worker type `{worker_type}` has an empty command; set `worker_types.{worker_type}.process.command`"
            )));
        };
        let program = if program == OWN_BINARY { self.swarm.clone() } else { PathBuf::from(program) };
        check(&program, spec, worker_type)?;

        let mut command = Command::new(&self.swarm);
        command.arg("process-start").arg("--").arg(program).args(arguments);
        // The longer name would win over this one, and a file would be the scaler's own.
        for name in ["SWARM_REDIS_URL", "SWARM_REDIS_URL_FILE", "REDIS_URL_FILE"] {
            command.env_remove(name);
        }
        match spec.redis_url.resolve(&self.redis_url) {
            Some(url) => command.env("REDIS_URL", url.expose_secret()),
            // The scaler's own must not be inherited either.
            None => command.env_remove("REDIS_URL"),
        };
        if let Some(file) = &self.config_file {
            command.env("SWARM_CONFIG", std::path::absolute(file).unwrap_or_else(|_| file.clone()));
        }
        // Workers log in the format of this process, whose log passes their lines on.
        if let Some(format) = log_format() {
            command.env(LogFormat::VARIABLE, format.as_str());
        }
        command.envs(&spec.environment);
        command.env("SWARM_WORKER_ID", id.as_str()).env("SWARM_WORKER_TYPE", worker_type.as_str());
        if let Some(directory) = &spec.directory {
            command.current_dir(directory);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command)
    }
}

/// Whether the directory and the program can be used at all.
fn check(program: &Path, spec: &ProcessSpec, worker_type: &WorkerType) -> Result<(), BackendError> {
    let setting = format!("worker_types.{worker_type}.process");
    if let Some(directory) = spec.directory.as_ref().filter(|directory| !directory.is_dir()) {
        return Err(BackendError::permanent(format!(
            "directory `{}` of worker type `{worker_type}` does not exist; create it or change `{setting}.directory`",
            directory.display(),
        )));
    }
    match resolve(program, spec) {
        Ok(()) => Ok(()),
        Err(Unusable::Missing) => Err(BackendError::permanent(format!(
            "program `{}` of worker type `{worker_type}` was not found; install it, give its full path in \
             `{setting}.command`, or set PATH in `{setting}.environment`",
            program.display(),
        ))),
        Err(Unusable::NotExecutable(path)) => Err(BackendError::permanent(format!(
            "program `{}` of worker type `{worker_type}` is not an executable file; run `chmod +x` on it or change \
             `{setting}.command`",
            path.display(),
        ))),
    }
}

/// Why a program can't be started.
enum Unusable {
    Missing,
    NotExecutable(PathBuf),
}

/// Looks a program up the way `execvp` will: by its path from the worker's directory, or in the worker's PATH.
fn resolve(program: &Path, spec: &ProcessSpec) -> Result<(), Unusable> {
    let directory = spec.directory.clone().unwrap_or_default();
    let candidates: Vec<PathBuf> = if program.components().count() > 1 || program.has_root() {
        vec![directory.join(program)]
    } else {
        let path = spec.environment.get("PATH").map(OsString::from).or_else(|| std::env::var_os("PATH"));
        std::env::split_paths(&path.unwrap_or_default()).map(|entry| directory.join(entry).join(program)).collect()
    };
    let mut found = None;
    for candidate in candidates {
        match fs::metadata(&candidate) {
            Ok(file) if file.is_file() && file.permissions().mode() & 0o111 != 0 => return Ok(()),
            Ok(_) => found = found.or(Some(candidate)),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => found = found.or(Some(candidate)),
            Err(_) => {}
        }
    }
    Err(found.map_or(Unusable::Missing, Unusable::NotExecutable))
}

/// Classifies a failed start: exhausted resources are retryable, missing files are permanent.
pub(super) fn spawn_error(swarm: &Path, worker_type: &WorkerType, error: io::Error) -> BackendError {
    let (kind, cure) = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
            (ErrorKind::Permanent, "restore that binary or restart the scaler from where it is now")
        }
        io::ErrorKind::InvalidInput | io::ErrorKind::ArgumentListTooLong => {
            (ErrorKind::Permanent, "look for NUL characters and very long values in its command and environment")
        }
        _ => (ErrorKind::Retryable, "raise the limits on processes, open files or memory, or lower `max_workers`"),
    };
    let message = format!("could not start a worker of `{worker_type}` through `{}`: {error}; {cure}", swarm.display());
    BackendError::new(kind, message).caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_command_is_this_binarys_worker() {
        let spec = ProcessSpec::from_settings("browser", &WorkerTypeSettings::default());
        assert_eq!(spec.command, ["swarm", "worker", "--type", "browser"]);
        assert_eq!(spec.drain_timeout, Duration::from_secs(300));
    }

    #[test]
    fn a_program_is_looked_up_in_the_workers_own_path_and_directory() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tool");
        fs::write(&file, "#!/bin/sh\n").unwrap();
        let mut spec = ProcessSpec::from_settings("x", &WorkerTypeSettings::default());

        assert!(matches!(resolve(Path::new("./tool"), &spec), Err(Unusable::Missing)));
        spec.directory = Some(directory.path().to_owned());
        assert!(matches!(resolve(Path::new("./tool"), &spec), Err(Unusable::NotExecutable(_))));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(resolve(Path::new("./tool"), &spec).is_ok());
        assert!(matches!(resolve(Path::new("tool"), &spec), Err(Unusable::Missing)));
        spec.environment.insert("PATH".to_owned(), directory.path().display().to_string());
        assert!(resolve(Path::new("tool"), &spec).is_ok());
    }
}
