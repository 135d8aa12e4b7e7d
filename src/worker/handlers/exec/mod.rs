//! A program as a handler: started once for each job. The program reads the job as JSON from stdin, and prints the
//! result as JSON to stdout and its progress to stderr. Owns the contract with the program (`docs/workers.md`);
//! `process` runs it.

mod process;
mod progress_lines;

use std::process::Command;

use async_trait::async_trait;
use serde_json::Value;

use self::process::{Finished, Process};
use super::{Context, Handler, HandlerError, JobError};
use crate::{
    broker::{self, Job},
    worker::JobContext,
};

/// Maximum bytes that a program may print to stdout: as much as a result may have by default.
const MAX_STDOUT: usize = 8 << 20;
/// Bytes from the end of stderr that the error of a failed program contains.
const STDERR_TAIL: usize = 4 << 10;
/// Exit code that asks for another attempt later: EX_TEMPFAIL of sysexits.h.
const TRY_AGAIN: i32 = 75;
/// Variables of the worker's environment that a program gets: paths of programs and files, and the encoding of text. No
/// secrets, and not the address of Redis.
const ENVIRONMENT: [&str; 9] =
    ["PATH", "HOME", "USER", "TMPDIR", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Runs the program that `exec` in `[worker_types.NAME.worker]` names.
#[derive(Clone)]
pub struct Exec {
    program: String,
    arguments: Vec<String>,
    context: Context,
}

impl Exec {
    /// Returns a handler for the program of the context's settings. Whether the program exists shows with the first
    /// job.
    pub fn new(context: Context) -> Result<Self, HandlerError> {
        let words = context.settings.worker.exec.clone();
        let mut words = words.into_iter();
        let program = words.next().filter(|program| !program.trim().is_empty());
        let program = program.ok_or_else(|| HandlerError::NoProgram(context.worker_type.clone()))?;
        Ok(Self { program, arguments: words.collect(), context })
    }

    fn command(&self, method: &str, job: &Job) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear();
        command.envs(ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.envs(&self.context.settings.worker.exec_environment);
        command.env("SWARM_WORKER_TYPE", self.context.worker_type.as_str());
        command.env("SWARM_WORKER_ID", self.context.worker_id.as_str());
        // A variable can't contain a NUL, which would keep the program from starting.
        command.env("SWARM_JOB_ID", job.id.replace('\0', "")).env("SWARM_JOB_METHOD", method.replace('\0', ""));
        command
    }
}

#[async_trait]
impl Handler for Exec {
    async fn handle(&self, method: &str, job: &Job) -> Result<Value, JobError> {
        let started = Process::start(self.command(method, job), MAX_STDOUT, STDERR_TAIL);
        let process = started.map_err(|error| {
            JobError::Transient(format!("can't start `{}`: {error}; check `exec` in the settings", self.program))
        })?;
        let context = JobContext::current();
        let finished = process
            .run(job.to_json(), |progress| context.progress(progress))
            .await
            .map_err(|error| JobError::Transient(format!("lost track of `{}`: {error}", self.program)))?;
        outcome(&self.program, &finished)
    }
}

/// Returns what the end of the program means for the job.
fn outcome(program: &str, finished: &Finished) -> Result<Value, JobError> {
    if finished.too_much {
        return Err(JobError::Failed(format!(
            "`{program}` printed more than {MAX_STDOUT} bytes to stdout and was killed"
        )));
    }
    match finished.code {
        Some(0) => result(program, &finished.stdout),
        Some(TRY_AGAIN) => Err(JobError::Transient(failure(program, "asked to be tried again", &finished.stderr_tail))),
        Some(code) => {
            Err(JobError::Failed(failure(program, &format!("ended with exit code {code}"), &finished.stderr_tail)))
        }
        None => {
            let signal = finished.signal.map_or_else(|| "a signal".to_owned(), |number| format!("signal {number}"));
            Err(JobError::Transient(failure(program, &format!("was ended by {signal}"), &finished.stderr_tail)))
        }
    }
}

/// Parses the program's output as JSON; no output at all is null.
fn result(program: &str, stdout: &[u8]) -> Result<Value, JobError> {
    if stdout.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Null);
    }
    broker::from_slice(stdout).map_err(|error| {
        let start: String = String::from_utf8_lossy(&stdout[..stdout.len().min(200)]).chars().take(80).collect();
        JobError::Failed(format!(
            "`{program}` must print one JSON value to stdout and nothing else ({error}); it printed {start:?}"
        ))
    })
}

fn failure(program: &str, how: &str, stderr_tail: &[u8]) -> String {
    let said = String::from_utf8_lossy(stderr_tail);
    match said.trim() {
        "" => format!("`{program}` {how} and said nothing on stderr"),
        said => format!("`{program}` {how}: {said}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn finished(code: Option<i32>, stdout: &str, stderr: &str) -> Finished {
        let (stdout, stderr_tail) = (stdout.as_bytes().to_vec(), stderr.as_bytes().to_vec());
        Finished { code, signal: code.is_none().then_some(9), stdout, stderr_tail, too_much: false }
    }

    #[test]
    fn what_the_end_of_a_program_means() {
        assert_eq!(outcome("p", &finished(Some(0), " {\"a\": 1}\n", "noise")), Ok(json!({"a": 1})));
        assert_eq!(outcome("p", &finished(Some(0), "\n", "")), Ok(Value::Null));
        let failed = |finished| outcome("p", &finished).unwrap_err();
        let bad = failed(finished(Some(0), "done!", ""));
        assert!(matches!(&bad, JobError::Failed(text) if text.contains("\"done!\"")), "{bad}");
        let failing = failed(finished(Some(3), "{}", "no such file\n"));
        assert_eq!(failing, JobError::Failed("`p` ended with exit code 3: no such file".to_owned()));
        assert!(matches!(failed(finished(Some(75), "", "")), JobError::Transient(_)));
        let killed = failed(finished(None, "", ""));
        assert_eq!(killed, JobError::Transient("`p` was ended by signal 9 and said nothing on stderr".to_owned()));
        let too_much = failed(Finished { too_much: true, ..finished(None, "", "") });
        assert!(too_much.to_string().contains("more than 8388608 bytes"), "{too_much}");
    }
}
