//! The reading of a stream against a full count, after everything that producers, workers and administrators can do to
//! a stream and its group: random sequences on real servers. What is seen is the full count, or unknown.

use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner},
};
use redis::{Cmd, Connection, ConnectionLike, RedisResult, Value};
use swarm::{
    model::Reading,
    queue_kind::{FollowUp, Interpretation, Observed, QueueKind, QueueReader, QueueSpec, Scripts},
};

use crate::servers::{Tested, on_servers};

on_servers! {
    [installed, valkey_8, redis_8, redis_6_2],
    [
        the_lag_is_the_full_count_or_unknown,
        the_lag_is_the_full_count_or_unknown_without_scripts,
        the_lag_of_large_jobs_is_the_full_count_or_unknown,
    ]
}

const KEY: &str = "test:jobs";
const GROUP: &str = "test";

/// Something that happens to the stream.
#[derive(Clone, Debug)]
enum Event {
    Add(u8),
    Read(u8),
    /// The oldest delivered jobs end.
    Acknowledge(u8),
    /// The entry at this place among those that are left, counted from the oldest.
    Delete(u8),
    TrimToLength(u8),
    /// Drops everything before the entry at this place.
    TrimBefore(u8),
    /// Moves the group behind the entry at this place; 0 moves it to the beginning.
    SetPosition(u8),
    /// The same, with the right number of entries read, as an administrator repairs the counter.
    SetPositionAndCounter(u8),
    SetPositionToEnd,
    CreateGroup(bool),
    DestroyGroup,
    Claim,
    DeleteStream,
    /// The stream makes room for one with another past, or comes back.
    Exchange,
    /// The server writes its data and loads them again, as at a restart.
    Reload,
    Look,
}

fn event() -> impl Strategy<Value = Event> {
    use Event::*;
    prop_oneof![
        6 => (1..4_u8).prop_map(Add),
        6 => (1..4_u8).prop_map(Read),
        4 => (1..4_u8).prop_map(Acknowledge),
        3 => (0..6_u8).prop_map(Delete),
        2 => (0..6_u8).prop_map(TrimToLength),
        2 => (0..6_u8).prop_map(TrimBefore),
        2 => (0..6_u8).prop_map(SetPosition),
        1 => (0..6_u8).prop_map(SetPositionAndCounter),
        1 => Just(SetPositionToEnd),
        2 => any::<bool>().prop_map(CreateGroup),
        1 => Just(DestroyGroup),
        1 => Just(Claim),
        1 => Just(DeleteStream),
        1 => Just(Exchange),
        1 => Just(Reload),
        8 => Just(Look),
    ]
}

/// A stream on a real server, and the reader under test.
struct Stream {
    connection: Connection,
    /// Number of the last entry, for ids that grow.
    last: u64,
    /// Payload of the jobs.
    job: String,
    reader: Box<dyn QueueReader>,
    spec: QueueSpec,
    scripts: Scripts,
    counts_reads: bool,
}

impl Stream {
    fn run(&mut self, command: &str) -> RedisResult<Value> {
        let mut words = command.split_whitespace();
        let mut cmd = redis::cmd(words.next().expect("a command has a name"));
        for word in words {
            cmd.arg(word);
        }
        self.connection.req_command(&cmd)
    }

    /// Runs a command that the server may refuse, for example because the group is missing.
    fn attempt(&mut self, command: &str) {
        let _ = self.run(command);
    }

    fn ids(&mut self, range: &str) -> Vec<String> {
        let Ok(Value::Array(entries)) = self.run(&format!("XRANGE {KEY} {range}")) else { return Vec::new() };
        let id = |entry: Value| match entry {
            Value::Array(parts) => redis::from_redis_value(parts[0].clone()).expect("an id is a text"),
            other => panic!("not an entry: {other:?}"),
        };
        entries.into_iter().map(id).collect()
    }

    /// Returns the id of the entry at a place, counted from 1; a place behind the last one is the last one.
    fn id_at(&mut self, place: u8) -> Option<String> {
        let ids = self.ids("- +");
        let place = usize::from(place).min(ids.len());
        place.checked_sub(1).map(|index| ids[index].clone())
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Add(count) => {
                for _ in 0..*count {
                    self.last += 1;
                    self.attempt(&format!("XADD {KEY} 1700000000000-{} json {}", self.last, self.job));
                }
            }
            Event::Read(count) => self.attempt(&format!("XREADGROUP GROUP {GROUP} c COUNT {count} STREAMS {KEY} >")),
            Event::Acknowledge(count) => {
                let Ok(Value::Array(pending)) = self.run(&format!("XPENDING {KEY} {GROUP} - + {count}")) else {
                    return;
                };
                for entry in pending {
                    let Value::Array(parts) = entry else { panic!("not a pending entry: {entry:?}") };
                    let id: String = redis::from_redis_value(parts[0].clone()).expect("an id is a text");
                    self.attempt(&format!("XACK {KEY} {GROUP} {id}"));
                }
            }
            Event::Delete(place) => {
                if let Some(id) = self.id_at(place + 1) {
                    self.attempt(&format!("XDEL {KEY} {id}"));
                }
            }
            Event::TrimToLength(length) => self.attempt(&format!("XTRIM {KEY} MAXLEN {length}")),
            Event::TrimBefore(place) => {
                if let Some(id) = self.id_at(place + 1) {
                    self.attempt(&format!("XTRIM {KEY} MINID {id}"));
                }
            }
            Event::SetPosition(place) => {
                let id = self.id_at(*place).unwrap_or_else(|| "0".to_owned());
                self.attempt(&format!("XGROUP SETID {KEY} {GROUP} {id}"));
            }
            Event::SetPositionAndCounter(place) => self.repair(*place),
            Event::SetPositionToEnd => self.attempt(&format!("XGROUP SETID {KEY} {GROUP} $")),
            Event::CreateGroup(at_end) => {
                let from = if *at_end { "$" } else { "0" };
                self.attempt(&format!("XGROUP CREATE {KEY} {GROUP} {from} MKSTREAM"));
            }
            Event::DestroyGroup => self.attempt(&format!("XGROUP DESTROY {KEY} {GROUP}")),
            Event::Claim => self.attempt(&format!("XAUTOCLAIM {KEY} {GROUP} d 0 0")),
            Event::DeleteStream => self.attempt(&format!("DEL {KEY}")),
            Event::Exchange => {
                self.attempt(&format!("RENAME {KEY} aside"));
                self.attempt(&format!("RENAME other {KEY}"));
                self.attempt("RENAME aside other");
            }
            Event::Reload => self.attempt("DEBUG RELOAD"),
            Event::Look => {}
        }
    }

    /// Sets the group's position and the number of entries that it has read: all but those that are left after it.
    fn repair(&mut self, place: u8) {
        let Ok(info) = self.run(&format!("XINFO STREAM {KEY}")) else { return };
        let added = field(&info, "entries-added").filter(|_| self.counts_reads);
        let id = self.id_at(place).unwrap_or_else(|| "0".to_owned());
        let left = self.ids(&format!("({id} +")).len() as u64;
        if let Some(Value::Int(added)) = added {
            let read = u64::try_from(added).expect("a count is positive").saturating_sub(left);
            self.attempt(&format!("XGROUP SETID {KEY} {GROUP} {id} ENTRIESREAD {read}"));
        }
    }

    /// Counts every entry after the group's position.
    fn full_count(&mut self) -> u64 {
        let Ok(Value::Array(groups)) = self.run(&format!("XINFO GROUPS {KEY}")) else { return 0 };
        let Some(group) = groups.first() else { return self.ids("- +").len() as u64 };
        let position = field(group, "last-delivered-id").expect("a group has a position");
        let position: String = redis::from_redis_value(position).expect("an id is a text");
        self.ids(&format!("({position} +")).len() as u64
    }

    /// Reads the queue as the probe does.
    fn look(&mut self) -> Observed {
        loop {
            let commands = self.reader.commands(&self.spec, self.scripts);
            let replies = self.send(&commands);
            let mut next = self.reader.interpret(&self.spec, replies, self.scripts);
            while let Interpretation::Ask(follow_up) = next {
                next = self.follow_up(*follow_up);
            }
            match next {
                Interpretation::Complete(observed) => return observed,
                Interpretation::ScriptRefused => self.scripts = self.scripts.next(),
                Interpretation::Again => {}
                Interpretation::Ask(_) => unreachable!("asked above"),
            }
        }
    }

    fn follow_up(&mut self, follow_up: FollowUp) -> Interpretation {
        let reply = self.send(&follow_up.commands).pop().expect("each command has a reply");
        self.reader.complete(&self.spec, follow_up, Ok(reply))
    }

    /// Returns the reply to each command; a refusal is a reply.
    fn send(&mut self, commands: &[Cmd]) -> Vec<Value> {
        let packed: Vec<u8> = commands.iter().flat_map(Cmd::get_packed_command).collect();
        self.connection.req_packed_commands(&packed, 0, commands.len()).expect("the server answers")
    }
}

/// Returns a field of a reply that is a list of names and values.
fn field(reply: &Value, name: &str) -> Option<Value> {
    let Value::Array(parts) = reply else { return None };
    let is_it = |pair: &&[Value]| redis::from_redis_value::<String>(pair[0].clone()).is_ok_and(|it| it == name);
    parts.chunks_exact(2).find(is_it).map(|pair| pair[1].clone())
}

async fn the_lag_is_the_full_count_or_unknown(server: &Tested) {
    check(server, "{}", Scripts::ReadOnly).await;
}

/// So large that scripts read them, and for the few consumers only the first one.
async fn the_lag_of_large_jobs_is_the_full_count_or_unknown(server: &Tested) {
    check(server, &"x".repeat(5_000), Scripts::ReadOnly).await;
}

async fn the_lag_is_the_full_count_or_unknown_without_scripts(server: &Tested) {
    check(server, "{}", Scripts::Refused).await;
}

async fn check(tested: &Tested, job: &str, scripts: Scripts) {
    let counts_reads = tested.counts_reads();
    // Redis 6.2 permits DEBUG without the option, and does not know it.
    let options: &[&str] = if counts_reads { &["--enable-debug-command", "yes"] } else { &[] };
    let server = tested.start(options);
    let (url, job) = (server.url(), job.to_owned());
    tokio::task::spawn_blocking(move || check_on(&url, &job, scripts, counts_reads))
        .await
        .expect("the check does not panic");
}

fn check_on(url: &str, job: &str, scripts: Scripts, counts_reads: bool) {
    // The same 256 sequences at each run; PROPTEST_CASES=20000 goes on for minutes.
    let config = Config { failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]));
    let client = redis::Client::open(url).expect("our own URL is well formed");
    let outcome = runner.run(&prop::collection::vec(event(), 1..40), |events| {
        let spec = QueueSpec::new(KEY, GROUP, QueueKind::Stream);
        let mut stream = Stream {
            connection: client.get_connection().expect("the server answers"),
            last: 0,
            job: job.to_owned(),
            reader: QueueKind::Stream.reader(&spec),
            spec,
            scripts,
            counts_reads,
        };
        stream.run("FLUSHALL").expect("the server accepts it");
        for (number, event) in events.iter().enumerate() {
            stream.happen(event);
            if matches!(event, Event::Look) {
                let observed = stream.look();
                let count = stream.full_count();
                let lag = &observed.demand.lag;
                let is_right = matches!(lag, Reading::Unknown(_)) || *lag == Reading::Known(count);
                prop_assert!(is_right, "after {number} events {lag:?} was seen, and {count} entries wait");
            }
        }
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, events)) => panic!("{reason}\n{events:#?}"),
        Err(error) => panic!("{error}"),
    }
}
