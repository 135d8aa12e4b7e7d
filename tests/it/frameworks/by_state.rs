//! Every framework by the state of its queues, written by the test: what a reading makes of it, with a Redis user
//! that has the rights in `docs/frameworks.md` and no others. The frameworks that are really run have tests of their
//! own.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use swarm::model::{Reading, snapshot::Action};

use crate::support::{
    autoscaler::{Autoscaler, NO_SWEEP},
    command::redis,
    needs::repository,
    redis::RedisServer,
};

/// Rights of `docs/redis.md` for swarm's own keys, and of a transaction.
const OWN: &str = "resetchannels -@all %R~worker:heartbeat:* ~scaler:* ~scaling:events &jobs:published &jobs:delayed \
                   &worker:events &scaler:leader &scaler:control +hello +auth +ping +select +client|id +client|setname \
                   +client|tracking +client|caching +subscribe +unsubscribe +psubscribe +punsubscribe +config|get \
                   +config|set +hmget +hget +hset +get +set +pexpire +pttl +del +xadd +xrevrange +xread +exists +eval \
                   +publish +multi +exec";

/// A framework, and how many jobs of it wait, run, are due and come later.
struct Case {
    framework: &'static str,
    queue: &'static str,
    /// Commands that write the state; `{S±N}` and `{M±N}` stand for a time in seconds and milliseconds, `{B±N}` for
    /// Bull's.
    state: &'static [&'static str],
    expected: (u64, u64, u64, u64),
    /// Commands that pause the queue, if it can be paused.
    pause: Option<&'static str>,
}

const CASES: &[Case] = &[
    Case {
        framework: "rq",
        queue: "mail",
        state: &[
            "RPUSH rq:queue:mail a b",
            "ZADD rq:wip:mail {S+60} c {S-5} lost",
            "ZADD rq:scheduled:mail {S-1} d {S+600} e",
        ],
        expected: (2, 1, 2, 1),
        pause: Some("SET rq:suspended 1"),
    },
    Case {
        framework: "celery",
        queue: "mail",
        state: &[
            "LPUSH mail {\"headers\":{\"eta\":null}}",
            "LPUSH mail {\"headers\":{\"eta\":\"2099-01-01T00:00:00+00:00\"}}",
            "HSET unacked t [{\"headers\":{},\"properties\":{\"delivery_info\":{\"routing_key\":\"mail\"}}},\"\",\"mail\"]",
        ],
        expected: (2, 0, 0, 1),
        pause: None,
    },
    Case {
        framework: "sidekiq",
        queue: "mail",
        state: &[
            "LPUSH queue:mail {\"queue\":\"mail\"}",
            "ZADD schedule {S-1} {\"queue\":\"mail\",\"jid\":1} {S+600} {\"queue\":\"mail\",\"jid\":2} {S-1} {\"queue\":\"x\"}",
            "ZADD retry {S-1} {\"queue\":\"mail\",\"jid\":3}",
            "SADD processes mail-1:7:abc gone:7:abc",
            "HSET mail-1:7:abc busy 1 beat {S+0}",
            "HSET mail-1:7:abc:work t {\"queue\":\"mail\"}",
        ],
        expected: (1, 1, 2, 1),
        pause: Some("SADD paused mail"),
    },
    Case {
        framework: "bullmq",
        queue: "mail",
        state: &[
            "LPUSH bull:mail:wait 1",
            "ZADD bull:mail:prioritized 5 2",
            "LPUSH bull:mail:active 3",
            "ZADD bull:mail:delayed {B-1} 4 {B+600} 5",
        ],
        expected: (2, 1, 1, 1),
        pause: Some("HSET bull:mail:meta paused 1"),
    },
    Case {
        framework: "bull",
        queue: "news",
        state: &["LPUSH bull:news:wait 1", "LPUSH bull:news:active 3", "ZADD bull:news:delayed {B-1} 4 {B+600} 5"],
        expected: (1, 1, 1, 1),
        pause: Some("SET bull:news:meta-paused 1"),
    },
    Case {
        framework: "asynq",
        queue: "mail",
        state: &[
            "LPUSH asynq:{mail}:pending a",
            "LPUSH asynq:{mail}:active b",
            "ZADD asynq:{mail}:scheduled {S-1} c",
            "ZADD asynq:{mail}:retry {S-1} d {S+600} e",
        ],
        expected: (1, 1, 2, 1),
        pause: Some("SET asynq:{mail}:paused 1"),
    },
    Case {
        framework: "dramatiq",
        queue: "mail",
        state: &["HSET dramatiq:mail.msgs a x", "HSET dramatiq:mail.DQ.msgs b x"],
        expected: (1, 0, 1, 0),
        pause: None,
    },
    Case {
        framework: "arq",
        queue: "arq:mail",
        state: &["ZADD arq:mail {M-1} a {M+600} b"],
        expected: (1, 0, 0, 1),
        pause: None,
    },
    Case {
        framework: "laravel",
        queue: "mail",
        state: &[
            "RPUSH laravel-database-queues:mail a",
            "ZADD laravel-database-queues:mail:reserved {S+60} b {S-5} c",
            "ZADD laravel-database-queues:mail:delayed {S-1} d {S+600} e",
        ],
        expected: (1, 1, 2, 1),
        pause: None,
    },
    Case {
        framework: "resque",
        queue: "mail",
        state: &[
            "RPUSH resque:queue:mail {}",
            "SADD resque:workers host:7:mail,mail-1 host:8:other gone:9:mail,mail-2",
            "SET resque:worker:host:7:mail,mail-1 {\"queue\":\"mail\"}",
            "SET resque:worker:host:8:other {\"queue\":\"other\"}",
            "SET resque:worker:gone:9:mail,mail-2 {\"queue\":\"mail\"}",
            "HSET resque:workers:heartbeat gone:9:mail,mail-2 2020-01-01T00:00:00Z",
            "RPUSH resque:delayed:1700000000 {\"queue\":\"mail\"} {\"queue\":\"other\"}",
            "RPUSH resque:delayed:4000000000 {\"queue\":\"mail\"}",
            "ZADD resque:delayed_queue_schedule 1700000000 1700000000 4000000000 4000000000",
        ],
        expected: (1, 1, 2, 1),
        pause: Some("SET resque:pause-all-workers true"),
    },
    Case {
        framework: "huey",
        queue: "mail",
        state: &["LPUSH huey.redis.mail a", "ZADD huey.schedule.mail {S-1} b {S+600} c"],
        expected: (1, HIDDEN, 1, 1),
        pause: None,
    },
    Case {
        framework: "taskiq",
        queue: "taskiq-mail",
        state: &["LPUSH taskiq-mail a b"],
        expected: (2, HIDDEN, 0, 0),
        pause: None,
    },
    Case {
        framework: "taskiq-stream",
        queue: "taskiq-stream-mail",
        state: &[
            "XGROUP CREATE taskiq-stream-mail taskiq $ MKSTREAM",
            "XADD taskiq-stream-mail * data a",
            "XREADGROUP GROUP taskiq w1 STREAMS taskiq-stream-mail >",
            "XADD taskiq-stream-mail * data b",
        ],
        expected: (1, 1, 0, 0),
        pause: None,
    },
];

/// Running jobs of a framework that does not show them.
const HIDDEN: u64 = 99;

/// Puts times into a command.
fn with_times(command: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let mut text = command.to_owned();
    for offset in ["-5", "-1", "+0", "+60", "+600"] {
        let ms = now.checked_add_signed(offset.parse::<i128>().unwrap() * 1_000).unwrap();
        let seconds = format!("{}.{:03}", ms / 1_000, ms % 1_000);
        let scores = [("S", seconds), ("M", ms.to_string()), ("B", (ms * 4_096).to_string())];
        for (unit, score) in scores {
            text = text.replace(&format!("{{{unit}{offset}}}"), &score);
        }
    }
    text
}

/// Returns the rules of a framework's row in the document: commands, keys and channels.
pub(super) fn rules(framework: &str, queue: &str) -> String {
    let page = fs::read_to_string(repository("docs/frameworks.md")).unwrap();
    let row = format!("| `{framework}` | `time");
    let row = page.lines().find(|line| line.starts_with(&row)).unwrap_or_else(|| panic!("no row {row}"));
    let cells: Vec<&str> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
    let commands = cells[2].split(' ').map(|command| format!("+{command}")).collect::<Vec<_>>().join(" ");
    format!("{commands} {} {}", cells[3], cells[4]).replace("QUEUE", queue)
}

fn settings() -> String {
    let of = |case: &Case| {
        format!(
            "[worker_types.{0}]\nframework = \"{0}\"\nqueues = [\"{1}\"]\nscaling = {{ min_workers = 0, max_workers = 9 }}\n\
             process = {{ command = [\"sh\", \"-c\", \"$SWARM_WORKER_ID\"] }}\n",
            case.framework, case.queue
        )
    };
    CASES.iter().map(of).collect()
}

async fn reads_every_framework(signals: &str) {
    let server = RedisServer::start();
    let client = server.client().await;
    let rules: Vec<String> = CASES.iter().map(|case| rules(case.framework, case.queue)).collect();
    let _: String = redis(&client, &format!("ACL SETUSER reader on >secret {OWN} {}", rules.join(" "))).await;
    let url = server.url().replace("://", "://reader:secret@");
    let dry = NO_SWEEP.replace("[scaler]\n", "[scaler]\ndry_run = true\n");
    let scaler = Autoscaler::start(&url, &format!("{dry}{signals}{}", settings())).await;
    scaler.until_ready().await;
    for case in CASES {
        let work = scaler.of(case.framework).await.work.clone().expect("a framework tells");
        assert_eq!((work.waiting, work.due, work.later), (0, 0, 0), "{}", case.framework);
        for command in case.state {
            let _: fred::types::Value = redis(&client, &with_times(command)).await;
        }
        let mut seen = None;
        scaler
            .until(&format!("the jobs of {} are seen", case.framework), async || {
                let of = scaler.of(case.framework).await;
                let work = of.work.as_deref().expect("a framework tells");
                seen = Some((work.waiting, work.running.known().copied().unwrap_or(HIDDEN), work.due, work.later));
                seen == Some(case.expected) && of.action == Action::ScaleUp
            })
            .await;
    }
    for (case, pause) in CASES.iter().filter_map(|case| Some((case, case.pause?))) {
        let _: fred::types::Value = redis(&client, pause).await;
        scaler
            .until(&format!("{} is paused", case.framework), async || {
                let of = scaler.of(case.framework).await;
                let work = of.work.as_deref().expect("a framework tells");
                work.paused == [case.queue] && work.waiting == 0 && work.running == Reading::Known(case.expected.1)
            })
            .await;
    }
    let log = scaler.log();
    assert!(!log.contains("NOPERM"), "a right is missing:\n{log}");
}

#[tokio::test]
async fn the_documented_rights_are_enough_to_read_every_framework_and_hear_of_its_jobs() {
    reads_every_framework("[signals]\nkeyspace = \"on\"\nchannel = \"\"\ntracking = \"off\"\n").await;
}

#[tokio::test]
async fn client_side_caching_tells_of_the_jobs_of_every_framework_too() {
    reads_every_framework("[signals]\nkeyspace = \"off\"\nchannel = \"\"\ntracking = \"on\"\n").await;
}
