//! `docs/protocol.md` is run: its commands in order on an empty server, with the ids of our own entries, as it says.

use std::time::Duration;

use redis::Value;
use secrecy::SecretString;
use swarm::{broker::Job, connection::RedisTarget};

use crate::support::redis::RedisServer;

const PAGE: &str = include_str!("../../docs/protocol.md");
/// What stands on the page for the id of the first entry.
const ID: &str = "1763896658250-0";
/// What stands there for how long to wait for a result: longer than a test likes.
const WAIT: &str = "30";

/// The lines of code that begin with a command: a word in capitals.
fn commands() -> Vec<&'static str> {
    let code = PAGE.lines().filter_map(|line| line.strip_prefix("    "));
    let is_command = |line: &&str| {
        let word = line.split_whitespace().next().unwrap_or_default();
        word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase())
    };
    code.map(str::trim).filter(is_command).collect()
}

/// Words as `redis-cli` sees them: separated by blanks, with single quotes around words that contain blanks.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (number, part) in command.split('\'').enumerate() {
        if number % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

#[tokio::test]
async fn its_commands_work() {
    let server = RedisServer::start();
    let target = RedisTarget::new(&SecretString::from(server.url()), Duration::from_secs(5)).unwrap();
    let mut connection = target.connect().await.unwrap();
    let mut first = None;
    let commands = commands();
    for wanted in ["XADD", "ZADD", "BLMOVE", "XREADGROUP", "XCLAIM", "XTRIM", "MULTI", "ACL"] {
        assert!(commands.iter().any(|command| command.starts_with(wanted)), "the page has no {wanted}");
    }
    for command in commands {
        let mut words = words(command);
        if words[0].starts_with("BL") {
            words.iter_mut().filter(|word| *word == WAIT).for_each(|word| "0.01".clone_into(word));
        }
        for word in words.iter_mut().filter(|word| *word == ID) {
            word.clone_from(first.as_ref().expect("an entry is added before it is named"));
        }
        let mut cmd = redis::cmd(&words[0]);
        cmd.arg(&words[1..]);
        let reply: Value = cmd.query_async(&mut connection).await.unwrap_or_else(|error| panic!("{command}\n{error}"));
        if first.is_none() && words[0] == "XADD" && words[1] == "browser:jobs" {
            first = Some(redis::from_redis_value(reply).unwrap());
        }
    }
}

#[test]
fn its_jobs_are_jobs() {
    let jobs = commands().into_iter().filter(|command| command.contains(":jobs ") || command.contains(":delayed "));
    let jobs: Vec<String> = jobs.flat_map(words).filter(|word| word.starts_with("{\"id\"")).collect();
    assert!(jobs.len() >= 4, "{jobs:?}");
    for job in jobs {
        Job::parse(job.as_bytes(), 1 << 20).unwrap_or_else(|error| panic!("{job}\n{error}"));
    }
}
