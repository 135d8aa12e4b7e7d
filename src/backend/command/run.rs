//! One run of a command: no shell, a process group of its own that ends with it, a time-out, bounded output, and an
//! exit code that says whether another try may help. Knows nothing of workers.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::WaitIdStatus;
use tokio::{
    io::AsyncReadExt,
    process::{ChildStderr, ChildStdout},
    signal::unix::Signal as SignalStream,
    time::timeout,
};

use super::{
    call::{CallError, MAX_ANSWER},
    secret,
};
use crate::{
    backend::{BackendError, ErrorKind},
    child_group::{CHUNK, ChildGroup, read_tail},
    config::CommandSettings,
};

/// The end of stderr that is kept for the error.
const STDERR_TAIL: usize = 4 << 10;
/// Exit codes after which another try can't help: usage, no permission, configuration (`sysexits.h`), and what shells
/// say of a program that can't be run.
const PERMANENT: [i32; 5] = [64, 77, 78, 126, 127];
/// Variables of the scaler that commands do not get: its own credentials and settings.
const WITHHELD: [&str; 5] = ["REDIS_URL", "REDIS_URL_FILE", "DISCORD_TOKEN", "FLY_API_TOKEN", "ORCHESTRATOR"];
/// Prefix of further variables that commands do not get.
const WITHHELD_PREFIX: &str = "SWARM_";

/// Runs `words`. `setting` names the command in errors. Returns what it printed to stdout.
pub(super) async fn run(words: &[String], settings: &CommandSettings, setting: &str) -> Result<Vec<u8>, CallError> {
    let secrets = environment(settings, setting)?;
    let process = Process::start(command(words, &secrets)).map_err(|error| not_started(words, setting, error))?;
    let Ok(finished) = timeout(settings.timeout(), process.run()).await else {
        let error = BackendError::retryable(format!(
            "`{setting}` did not end within {} s and was killed; raise `timeout_seconds` if it needs longer",
            settings.timeout_seconds
        ));
        return Err(CallError { error, ambiguous: true });
    };
    let finished = finished.map_err(|error| CallError {
        error: BackendError::retryable(format!("`{setting}` can't be awaited: {error}")).caused_by(error),
        ambiguous: true,
    })?;
    if finished.too_much {
        let error =
            BackendError::permanent(format!("`{setting}` printed more than {} MiB and was killed", MAX_ANSWER >> 20));
        return Err(CallError { error, ambiguous: true });
    }
    match finished.status.exit_status() {
        Some(0) => Ok(finished.stdout),
        code => Err(failed(code, &finished, setting, &secrets)),
    }
}

/// Returns the additional variables.
fn environment(settings: &CommandSettings, setting: &str) -> Result<BTreeMap<String, String>, BackendError> {
    let mut variables = settings.environment.clone();
    for (name, path) in &settings.environment_files {
        variables.insert(name.clone(), read_secret(path, name, setting)?);
    }
    Ok(variables)
}

fn read_secret(path: &Path, name: &str, setting: &str) -> Result<String, BackendError> {
    secret::read(path).map_err(|problem| {
        BackendError::permanent(format!(
            "`{setting}` needs {name} from file `{}`, which can't be used: {problem}",
            path.display()
        ))
    })
}

fn command(words: &[String], variables: &BTreeMap<String, String>) -> Command {
    let (program, arguments) = words.split_first().expect("a command that runs was configured");
    let mut command = Command::new(program);
    command.args(arguments);
    for (name, _) in std::env::vars_os() {
        let withheld = name.to_str().is_some_and(|name| WITHHELD.contains(&name) || name.starts_with(WITHHELD_PREFIX));
        if withheld {
            command.env_remove(name);
        }
    }
    command.envs(variables);
    command
}

fn not_started(words: &[String], setting: &str, error: io::Error) -> BackendError {
    let program = words.first().map_or("", String::as_str);
    let explained = match error.kind() {
        io::ErrorKind::NotFound => BackendError::permanent(format!(
            "program `{program}` of `{setting}` was not found; install it, or give its full path"
        )),
        io::ErrorKind::PermissionDenied => BackendError::permanent(format!(
            "program `{program}` of `{setting}` can't be run; `chmod +x` it, or name another one"
        )),
        _ => BackendError::retryable(format!("program `{program}` of `{setting}` can't be started: {error}")),
    };
    explained.caused_by(error)
}

fn failed(code: Option<i32>, finished: &Finished, setting: &str, secrets: &BTreeMap<String, String>) -> CallError {
    let how = match (code, finished.status.terminating_signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".to_owned(),
    };
    let said = said(&finished.stderr_tail, secrets);
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    let kind =
        if code.is_some_and(|code| PERMANENT.contains(&code)) { ErrorKind::Permanent } else { ErrorKind::Retryable };
    let error = BackendError::new(kind, format!("`{setting}` ended with {how}{said}"));
    CallError { error, ambiguous: code.is_none() }
}

/// The last line that a command said, without the values of its secrets.
fn said(stderr: &[u8], secrets: &BTreeMap<String, String>) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    secret::said(line, secrets.values().map(String::as_str))
}

struct Finished {
    status: WaitIdStatus,
    stdout: Vec<u8>,
    stderr_tail: Vec<u8>,
    too_much: bool,
}

/// A running command. Dropped, it is killed with everything that it started.
pub(super) struct Process {
    group: ChildGroup,
    child_ended: SignalStream,
    stdout: ChildStdout,
    stderr: ChildStderr,
}

impl Process {
    fn start(mut command: Command) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (mut group, child_ended) = ChildGroup::spawn(&mut command)?;
        let (stdout, stderr) = (group.stdout()?, group.stderr()?);
        Ok(Self { group, child_ended, stdout, stderr })
    }

    async fn run(self) -> io::Result<Finished> {
        let Self { group, mut child_ended, mut stdout, mut stderr } = self;
        let (mut printed, mut said) = (Vec::new(), Vec::new());
        let reading = async {
            tokio::join!(
                group.read_up_to(MAX_ANSWER, &mut stdout, &mut printed),
                read_tail(&mut stderr, &mut said, STDERR_TAIL)
            )
            .0
        };
        let (status, fits) = group.run(&mut child_ended, reading).await?;
        let fits = fits
            .ok_or_else(|| io::Error::other("it has ended, and a process that it left behind holds its output open"))?;
        Ok(Finished { status, stdout: printed, stderr_tail: said, too_much: !fits })
    }

    /// Starts a command that runs for long; its lines are read from `stdout`.
    pub(super) fn watch(words: &[String], settings: &CommandSettings, setting: &str) -> Result<Self, BackendError> {
        let variables = environment(settings, setting)?;
        Self::start(command(words, &variables)).map_err(|error| not_started(words, setting, error))
    }

    /// Calls `on_line` for each line of stdout, until the command ends. Lines are not kept, however long they are.
    pub(super) async fn lines(self, mut on_line: impl FnMut()) {
        let Self { group, child_ended: _, mut stdout, mut stderr } = self;
        let mut unread = Vec::new();
        let reading = async {
            let mut chunk = vec![0; CHUNK];
            while let Ok(read @ 1..) = stdout.read(&mut chunk).await {
                if chunk[..read].contains(&b'\n') {
                    on_line();
                }
            }
        };
        tokio::join!(reading, read_tail(&mut stderr, &mut unread, 0));
        drop(group);
    }
}

#[cfg(test)]
mod tests;
