//! Worker types whose queues are on a Redis server of their own: two real servers, A with swarm's keys and B with the
//! queues.

use std::fs;

use fred::prelude::Client;
use swarm::model::{PoolCounts, Reading, Source, snapshot::Action};

use super::by_state::rules;
use crate::{
    support::{
        autoscaler::{Autoscaler, FAST_SWEEP, KEYSPACE, NO_SWEEP, SLEEPER, pool, swarm},
        command::{add_jobs, redis},
        needs::repository,
        redis::RedisServer,
        sentinel::Sentinels,
    },
    tls::{PASSWORD_IN_URL, TlsServer},
};

/// Rights on a server that has only queues, as `docs/frameworks.md` lists them, besides those of the framework.
const RIGHTS: &str = "+hello +auth +ping +select +client|id +client|setname +client|tracking +client|caching \
                      +subscribe +unsubscribe +psubscribe +punsubscribe +config|get +multi +exec";

/// Flags of RQ's events.
const FLAGS: [&str; 2] = ["--notify-keyspace-events", "Klzh$g"];

const FAST: &str = "min_workers = 0, max_workers = 3, scale_up_threshold = 1, cooldown_seconds = 0";

/// Returns a worker type of RQ on a server of its own. Its workers note the URL that they were given.
fn of_rq(name: &str, url: &str) -> String {
    format!(
        "[worker_types.{name}]\nframework = \"rq\"\nqueues = [\"{name}\"]\nredis_url = \"{url}\"\n\
         scaling = {{ {FAST} }}\n[worker_types.{name}.process]\ncommand = [\"sh\", \"-c\", \
         \"echo ${{REDIS_URL-none}} >> $SWARM_TEST_DIR/urls; : $SWARM_WORKER_ID; exec sleep 1000\"]\n"
    )
}

/// Returns a worker type of a list on a server of its own, whose workers leave when the list is empty.
fn of_list(name: &str, url: &str) -> String {
    format!(
        "[worker_types.{name}]\nkind = \"list\"\nredis_url = \"{url}\"\nscaling = {{ {FAST} }}\n\
         worker = {{ idle = \"empty_queue\" }}\nprocess = {{ command = [\"sh\", \"-c\", \"{SLEEPER}\"] }}\n"
    )
}

async fn sorted(client: &Client, command: &str) -> Vec<String> {
    let mut all: Vec<String> = redis(client, command).await;
    all.sort_unstable();
    all
}

async fn own_source(scaler: &Autoscaler, source: Source) -> String {
    let status = scaler.status().await;
    let sources = status.queue_servers.iter().flat_map(|server| &server.sources);
    let mut found = sources.filter(|one| one.source == source).map(|one| serde_json::json!(one.state).to_string());
    found.next().unwrap_or_default()
}

/// A job on B starts a worker by a signal, with a user that may only read there; nothing of swarm's appears on B, and
/// its settings stay as they were.
async fn a_job_elsewhere_starts_a_worker(options: &[&str], source: Source) {
    let (a, b) = (RedisServer::start(), RedisServer::start_with(options));
    let (client_a, client_b) = (a.client().await, b.client().await);
    let rules = rules("rq", "mail");
    let _: String =
        redis(&client_b, &format!("ACL SETUSER reader on >secret resetchannels -@all {RIGHTS} {rules}")).await;
    let own = b.url().replace("://", "://reader:secret@");
    let settings = format!("{NO_SWEEP}{}{}", of_rq("mail", &own), pool("test", FAST, SLEEPER));
    let scaler = Autoscaler::start(&a.url(), &settings).await;
    scaler.until_ready().await;
    assert_eq!(own_source(&scaler, source).await, "\"up\"");
    let flags: Vec<String> = redis(&client_b, "CONFIG GET notify-keyspace-events").await;

    let _: u64 = redis(&client_b, "RPUSH rq:queue:mail one").await;
    scaler.until_workers("mail", 1).await;
    // The same key on A is another queue.
    let _: u64 = redis(&client_a, "RPUSH rq:queue:mail one two three").await;
    add_jobs(&client_a, "test:jobs", 1).await;
    scaler.until_workers("test", 1).await;
    let of = scaler.of("mail").await;
    assert_eq!(of.demand.depth(), Reading::Known(1), "{of:#?}");
    scaler
        .until("the worker was given the URL of its own server", async || scaler.lines("urls") == [own.clone()])
        .await;

    assert_eq!(sorted(&client_b, "KEYS *").await, ["rq:queue:mail"]);
    let after: Vec<String> = redis(&client_b, "CONFIG GET notify-keyspace-events").await;
    assert_eq!(flags, after, "a server of others keeps its settings");
    let log = scaler.log();
    assert!(!log.contains("NOPERM") && !log.contains("secret"), "{log}");
}

#[tokio::test]
async fn a_job_on_a_server_of_its_own_starts_a_worker_by_a_keyspace_event() {
    a_job_elsewhere_starts_a_worker(&FLAGS, Source::Keyspace).await;
}

#[tokio::test]
async fn without_the_flags_client_side_caching_tells_of_the_job_and_no_setting_is_changed() {
    a_job_elsewhere_starts_a_worker(&[], Source::Tracking).await;
}

/// Nothing but a signal brings the second job to notice: the sweep never comes.
#[tokio::test]
async fn a_server_of_its_own_behind_sentinels_is_followed_to_the_new_primary() {
    let (a, mut b) = (RedisServer::start(), Sentinels::start_with(&FLAGS, "").await);
    let scaler = Autoscaler::start(&a.url(), &format!("{NO_SWEEP}{}", of_rq("mail", &b.url()))).await;
    scaler.until_ready().await;
    assert_eq!(own_source(&scaler, Source::Keyspace).await, "\"up\"");
    let client = b.client().await;
    let _: u64 = redis(&client, "RPUSH rq:queue:mail one").await;
    scaler.until_workers("mail", 1).await;
    scaler.until("the worker was given the sentinels", async || scaler.lines("urls") == [b.url()]).await;
    let _: u64 = redis(&client, "WAIT 2 10000").await;

    b.fail_over().await;
    scaler.until_ready().await;
    scaler.until("signals come again", async || own_source(&scaler, Source::Keyspace).await == "\"up\"").await;
    let _: u64 = redis(&b.client().await, "RPUSH rq:queue:mail two").await;
    scaler.until_workers("mail", 2).await;
    assert_eq!(scaler.status().await.redis_error, None, "the other server was never away");
}

#[tokio::test]
async fn a_server_of_its_own_is_reached_by_tls() {
    let (a, b) = (RedisServer::start(), TlsServer::start());
    let pushed = ["EVAL", "redis.call('RPUSH', KEYS[1], 'one') return 'OK'", "1", "rq:queue:mail"];
    assert!(b.cli(&pushed).contains("OK"));
    let settings = format!("{NO_SWEEP}{}", of_rq("mail", &b.url(PASSWORD_IN_URL)));
    let roots = b.roots().display().to_string();
    let scaler = Autoscaler::start_in_environment(&a.url(), &settings, &[("SSL_CERT_FILE", &roots)]).await;
    scaler.until_ready().await;
    scaler.until_workers("mail", 1).await;
    assert!(b.cli(&pushed).contains("OK"));
    scaler.until_workers("mail", 2).await;
    assert!(!scaler.log().contains(PASSWORD_IN_URL), "{}", scaler.log());
}

#[tokio::test]
async fn a_server_that_is_away_concerns_only_the_worker_types_on_it() {
    let (a, mut b) = (RedisServer::start(), RedisServer::start_with(&FLAGS));
    let (client_a, client_b) = (a.client().await, b.client().await);
    let (rq, list) = (of_rq("mail", &b.url()), of_list("post", &b.url()));
    let settings = format!("{FAST_SWEEP}{rq}{list}{}", pool("test", FAST, SLEEPER));
    let scaler = Autoscaler::start(&a.url(), &settings).await;
    scaler.until_ready().await;
    let _: u64 = redis(&client_b, "RPUSH post:jobs one two").await;
    scaler.until_workers("post", 2).await;
    let server = format!("127.0.0.1:{}/0", b.port());
    let up = format!("swarm_queue_server_up{{server=\"{server}\"}}");
    assert!((scaler.metric(&up).await - 1.0).abs() < f64::EPSILON);
    let token = scaler.status().await.leadership.token;

    b.kill();
    scaler
        .until("the types on it are unknown", async || {
            let [mail, post] = [scaler.of("mail").await, scaler.of("post").await];
            [mail, post].iter().all(|of| of.demand.lag.why_not().is_some_and(|why| why.contains(&server)))
        })
        .await;
    let (is_ready, why) = scaler.readyz().await;
    assert!(!is_ready && why.contains(&server) && why.contains("mail, post"), "{why}");
    let status = scaler.status().await;
    assert_eq!((status.redis_error, status.queue_servers.len()), (None, 1));
    assert!(status.queue_servers[0].redis_error.is_some());
    scaler.until("the metric tells it", async || scaler.metric(&up).await < 0.5).await;
    assert!((scaler.metric("swarm_redis_up").await - 1.0).abs() < f64::EPSILON);
    for words in [["why", "post"].as_slice(), &["status"]] {
        let output = swarm(scaler.directory()).args(words).args(["--url", &scaler.url()]).output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(told.contains(&server), "{words:?}: {told}");
    }
    // Other worker types are scaled as before, and nobody is stopped.
    add_jobs(&client_a, "test:jobs", 3).await;
    scaler.until_workers("test", 3).await;
    scaler.until_evaluated("post", 3).await;
    let post = scaler.of("post").await;
    assert_eq!((post.action, post.pool.known().map(PoolCounts::current)), (Action::Hold, Some(2)), "{post:#?}");

    b.start_again();
    scaler.until("it is ready again", async || scaler.readyz().await.0).await;
    scaler.until_workers("post", 0).await;
    let client_b = b.client().await;
    let _: u64 = redis(&client_b, "RPUSH rq:queue:mail one").await;
    scaler.until_workers("mail", 1).await;
    scaler.until("the metric tells it", async || scaler.metric(&up).await > 0.5).await;
    assert_eq!(scaler.status().await.leadership.token, token, "the lease was not touched");
    scaler.until_logged("redis of worker types answers").await;
    let log = scaler.log();
    let count = |text: &str| log.matches(text).count();
    assert_eq!(count("redis of worker types does not answer"), 1, "{log}");
    assert_eq!(count("redis of worker types answers"), 2, "at the start and after the outage: {log}");
    assert_eq!((count("signal source is down"), count("redis does not answer")), (0, 0), "{log}");
}

/// The connections of the autoscaler, which have no name.
async fn connections(client: &Client) -> usize {
    let all: String = redis(client, "CLIENT LIST TYPE NORMAL").await;
    let subscribed: String = redis(client, "CLIENT LIST TYPE PUBSUB").await;
    let ours: u64 = redis(client, "CLIENT ID").await;
    let lines = all.lines().chain(subscribed.lines());
    lines.filter(|line| !line.is_empty() && !line.contains(&format!("id={ours} "))).count()
}

#[tokio::test]
async fn worker_types_with_the_same_url_share_connections_and_a_reload_moves_them() {
    let (a, b, c) = (RedisServer::start(), RedisServer::start_with(&FLAGS), RedisServer::start_with(&FLAGS));
    let (client_b, client_c) = (b.client().await, c.client().await);
    let on = |server: &RedisServer| {
        let types = ["mail", "news", "post"].map(|name| of_rq(name, &server.url()));
        format!("{NO_SWEEP}{}", types.concat())
    };
    let scaler = Autoscaler::start(&a.url(), &on(&b)).await;
    scaler.until_ready().await;
    scaler.until("there is a listener and a prober at B", async || connections(&client_b).await == 2).await;
    assert_eq!(connections(&client_c).await, 0);

    let reload = scaler.reload(&a.url(), &on(&c)).await;
    assert!(reload.changes.contains("mail: redis_url") && reload.need_restart.is_empty(), "{reload:?}");
    scaler.until("B is left", async || connections(&client_b).await == 0).await;
    scaler.until_ready().await;
    scaler.until("there is a listener and a prober at C", async || connections(&client_c).await == 2).await;
    let _: u64 = redis(&client_b, "RPUSH rq:queue:mail one").await;
    let _: u64 = redis(&client_c, "RPUSH rq:queue:news one").await;
    scaler.until_workers("news", 1).await;
    assert_eq!(scaler.of("mail").await.demand.depth(), Reading::Known(0));
    let left = format!("swarm_queue_server_up{{server=\"127.0.0.1:{}/0\"}}", b.port());
    scaler.until("the metric of B is unset", async || scaler.metric(&left).await.is_nan()).await;
    scaler.until("the worker was given the new URL", async || scaler.lines("urls") == [c.url()]).await;
}

#[tokio::test]
async fn a_worker_of_a_framework_never_gets_the_top_level_url() {
    let (a, b) = (RedisServer::start(), RedisServer::start_with(&FLAGS));
    let client = a.client().await;
    let without = of_rq("mail", "").replace("redis_url = \"\"\n", "");
    let settings = format!("{NO_SWEEP}{KEYSPACE}{without}");
    let environment = [("SWARM_REDIS_URL", a.url()), ("REDIS_URL", b.url())];
    let environment = environment.each_ref().map(|(name, url)| (*name, url.as_str()));
    let scaler = Autoscaler::start_in_environment(&a.url(), &settings, &environment).await;
    scaler.until_ready().await;
    let _: u64 = redis(&client, "RPUSH rq:queue:mail one").await;
    scaler.until("a worker runs", async || scaler.lines("urls") == ["none"]).await;
}

#[tokio::test]
async fn the_url_comes_from_a_file_or_the_environment_and_is_shown_without_its_password() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("url");
    fs::write(&secret, "redis://u:hunter2@from-file/1\n").unwrap();
    let in_file = of_rq("mail", "").replace("redis_url = \"\"", &format!("redis_url_file = \"{}\"", secret.display()));
    fs::write(directory.path().join("swarm.toml"), in_file).unwrap();
    let show = |variables: &[(&str, &str)]| {
        let mut command = swarm(directory.path());
        let output = command.args(["config", "show", "swarm.toml"]).envs(variables.iter().copied()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = show(&[]);
    assert!(shown.contains("redis_url = \"redis://u:***@from-file/1\"  # "), "{shown}");
    let shown = show(&[("MAIL_REDIS_URL", "redis://u:hunter2@from-environment")]);
    assert!(shown.contains("redis_url = \"redis://u:***@from-environment\"  # MAIL_REDIS_URL"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn the_rights_on_a_server_of_its_own_are_documented() {
    let page = fs::read_to_string(repository("docs/frameworks.md")).unwrap();
    let words: Vec<&str> = RIGHTS.split_whitespace().collect();
    let all: Vec<&str> = page.split_whitespace().collect();
    assert!(all.windows(words.len()).any(|window| window == words), "docs/frameworks.md lacks: {RIGHTS}");
}
