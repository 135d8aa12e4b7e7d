//! The Compose stack as a user meets it, on the real engine and with the real Compose file: nothing, then the
//! autoscaler, a job, a worker that Compose knows, an answer, and nothing again. And what the files around it promise.

use std::{collections::BTreeSet, time::Instant};

use serde_json::{Value, json};
use swarm::config::BrowserSettings;

use crate::support::{
    autoscaler::swarm,
    browser::memory_mib,
    compose::{SERVICES, Stack},
    needs::repository,
    wait::{DEADLINE, eventually},
};

/// Waits for a condition; a failure shows the containers and the log.
async fn until(stack: &Stack, what: &str, condition: impl AsyncFnMut() -> bool) {
    let met = eventually(DEADLINE, condition).await;
    assert!(met, "not within {DEADLINE:?}: {what}\n{}", stack.report());
}

/// What the autoscaler has logged.
fn log(stack: &Stack) -> String {
    stack.compose(&["logs", "--no-color", "autoscaler"])
}

/// The lines of `docker-compose ps` about workers.
fn workers(stack: &Stack) -> Vec<String> {
    let text = stack.compose(&["ps"]);
    text.lines().filter(|line| line.contains("worker-browser")).map(str::to_owned).collect()
}

/// Starts the services and waits until they are healthy.
async fn up(stack: &Stack) {
    stack.compose(&[&["up", "--detach", "--no-build"], &SERVICES[..]].concat());
    until(stack, "every service is healthy", async || {
        let text = stack.compose(&["ps"]);
        text.lines().filter(|line| line.contains("(healthy)")).count() == SERVICES.len()
    })
    .await;
}

fn publish(stack: &Stack, arguments: &[&str]) -> Value {
    let answer = stack.swarm(&[&["publish"], arguments, &["--json"]].concat());
    serde_json::from_str(answer.trim()).unwrap_or_else(|_| panic!("{answer}\n{}", stack.report()))
}

/// The decisions in `scaling:events`, oldest first.
fn decisions(stack: &Stack) -> Vec<String> {
    let text = stack.swarm(&["events", "--json"]);
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("one JSON value in a line"));
    events.map(|event| format!("{} {}", event["decision"], event["outcome"]).replace('"', "")).collect()
}

#[cfg_attr(
    any(without_compose, without_docker_exec),
    ignore = "no Docker engine, no images for docker-compose.yml, or no `docker exec`"
)]
#[tokio::test]
async fn a_job_gets_a_worker_an_answer_and_the_worker_goes() {
    let stack = Stack::prepare();
    assert!(stack.containers().is_empty());
    up(&stack).await;
    assert!(workers(&stack).is_empty(), "a worker without a job");

    let answer = publish(&stack, &["browser.echo", "hello", "42", "--wait"]);
    assert_eq!(answer["value"], serde_json::json!(["hello", 42]), "{answer}");
    let shown = workers(&stack);
    assert!(shown.len() == 1 && shown[0].contains("Up"), "compose shows {shown:?}\n{}", stack.report());
    let text = log(&stack);
    assert!(text.contains("starts the first worker") && text.contains("scale_up"), "{text}");

    stack.set_cooldown(0);
    until(&stack, "compose shows no worker any more", async || workers(&stack).is_empty()).await;
    until(&stack, "the log tells of it", async || log(&stack).contains("scale_down")).await;
    assert_eq!(decisions(&stack), ["scale_up done", "scale_down done"]);
    until(&stack, "prometheus has scraped it", async || {
        let query = ["exec", "-T", "prometheus", "promtool", "query", "instant", "http://localhost:9090"];
        stack.compose(&[&query[..], &["swarm_scaling_events_total"]].concat()).contains("scale_down")
    })
    .await;
    assert_only_listed_calls(&stack.calls.seen());
}

#[cfg_attr(
    any(without_compose, without_docker_exec),
    ignore = "no Docker engine, no images for docker-compose.yml, or no `docker exec`"
)]
#[tokio::test]
async fn up_again_stops_no_busy_worker_and_workers_are_hardened() {
    let stack = Stack::prepare();
    up(&stack).await;
    publish(&stack, &["browser.sleep", "600"]);
    until(&stack, "a worker runs", async || workers(&stack).len() == 1).await;
    let running = || stack.running("worker-browser");
    let before = running();
    assert_eq!(before.len(), 1, "{before:?}");
    for _ in 0..3 {
        let started = Instant::now();
        stack.compose(&["up", "--detach", "--no-build", "redis", "autoscaler"]);
        // A worker that is asked to leave has five minutes.
        assert!(started.elapsed() < DEADLINE, "it took {:?}", started.elapsed());
        assert_eq!(running(), before, "{}", stack.report());
    }
    let made = Stack::inspect(&before[0]);
    let host = &made["HostConfig"];
    assert_eq!((&host["ReadonlyRootfs"], &host["CapDrop"]), (&json!(true), &json!(["ALL"])));
    assert_eq!((&host["SecurityOpt"], &host["PidsLimit"]), (&json!(["no-new-privileges:true"]), &json!(4096)));
    assert_eq!((&host["ShmSize"], &host["Tmpfs"]), (&json!(1 << 30), &json!({ "/tmp": "" })));
    assert_eq!(host["LogConfig"]["Config"]["max-size"], "10m");
    assert_eq!(made["Config"]["StopTimeout"], 300, "`docker stop` gives a job its time too");
}

#[cfg_attr(
    any(without_compose, without_docker_exec),
    ignore = "no Docker engine, no images for docker-compose.yml, or no `docker exec`"
)]
#[tokio::test]
async fn down_leaves_no_worker() {
    let stack = Stack::prepare();
    up(&stack).await;
    publish(&stack, &["browser.sleep", "4"]);
    until(&stack, "a worker runs", async || workers(&stack).len() == 1).await;
    stack.compose(&["down", "--volumes"]);
    assert_eq!(stack.containers(), Vec::<String>::new());
}

/// Each role has a password that no other knows, and that stays over restarts. Workers and programs with a role's URL
/// have its rights; nobody has any without.
#[cfg_attr(
    any(without_compose, without_docker_exec),
    ignore = "no Docker engine, no images for docker-compose.yml, or no `docker exec`"
)]
#[tokio::test]
async fn each_role_has_a_password_of_its_own() {
    let stack = Stack::prepare();
    up(&stack).await;
    let redis = |arguments: &[&str]| stack.compose(&[&["exec", "-T", "redis"], arguments].concat());
    let url = |role: &str| redis(&["cat", &format!("/run/secrets/{role}/redis-url")]).trim().to_owned();
    let urls: Vec<String> = ["scaler", "worker", "producer", "discord"].map(url).into();
    let passwords: BTreeSet<_> = urls.iter().filter_map(|url| url.split([':', '@']).nth(2)).collect();
    assert!(passwords.len() == 4 && passwords.iter().all(|password| password.len() == 48), "four passwords");
    let ask = |url: &str, words: &[&str]| redis(&[&["redis-cli", "--no-auth-warning", "-u", url], words].concat());
    let refused = redis(&["redis-cli", "GET", "scaler:leader"]);
    assert!(refused.contains("NOPERM"), "{refused}");
    for role in &urls[1..] {
        let refused = ask(role, &["DEL", "scaler:leader"]);
        assert!(refused.contains("NOPERM"), "{refused}");
    }

    publish(&stack, &["browser.sleep", "600"]);
    until(&stack, "a worker runs", async || workers(&stack).len() == 1).await;
    let made = Stack::inspect(&stack.running("worker-browser")[0]);
    let given = made["Config"]["Env"].as_array().expect("it has variables");
    let given: Vec<&str> = given.iter().filter_map(Value::as_str).filter(|entry| entry.contains("redis://")).collect();
    assert_eq!(given, [format!("REDIS_URL={}", urls[1])]);
    let autoscaler = Stack::inspect(&stack.running("autoscaler")[0])["Config"]["Env"].to_string();
    assert!(!autoscaler.contains("redis://"), "{autoscaler}");

    stack.compose(&["restart", "redis"]);
    until(&stack, "redis answers with the same passwords", async || {
        stack
            .try_compose(&["exec", "-T", "redis", "redis-cli", "--no-auth-warning", "-u", &urls[2], "PING"])
            .status
            .success()
            && url("producer") == urls[2]
    })
    .await;
    let answer = publish(&stack, &["browser.echo", "again", "--wait"]);
    assert_eq!(answer["value"], json!(["again"]), "{answer}");
}

/// The users of the stack have the rights that `docs/protocol.md` lists, on the queues of any worker type.
#[test]
fn the_stacks_users_have_the_documented_rights() {
    let (users, documented) = (read("config/compose/redis/users.acl"), read("docs/protocol.md"));
    for role in ["worker", "producer", "discord"] {
        let rule = |text: &str, start: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(start)).expect("it has a rule");
            let words = line.split_whitespace().filter(|word| !matches!(*word, "resetchannels" | "-@all"));
            words.map(|word| word.replace("~browser:", "~*:")).collect::<BTreeSet<_>>()
        };
        let expected = rule(&documented, &format!("ACL SETUSER {role} on >secret "));
        assert_eq!(rule(&users, &format!("user {role} on >@{role}@ ")), expected, "{role}");
    }
}

/// The calls in the table of `docs/security.md`.
fn listed_calls() -> Vec<String> {
    let text = read("docs/security.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let calls: Vec<_> = rows.map(|(call, _)| call.to_owned()).collect();
    assert!(calls.len() > 5, "{calls:?}");
    calls
}

/// Every call is one of the table.
fn assert_only_listed_calls(made: &BTreeSet<String>) {
    let listed = listed_calls();
    let is = |row: &str, call: &str| {
        let (row, call): (Vec<_>, Vec<_>) = (row.split('/').collect(), call.split('/').collect());
        row.len() == call.len() && row.iter().zip(&call).all(|(row, call)| row.starts_with('{') || row == call)
    };
    let unlisted: Vec<_> = made.iter().filter(|call| !listed.iter().any(|row| is(row, call))).collect();
    assert!(unlisted.is_empty(), "not in the table of docs/security.md: {unlisted:?}");
    assert!(made.contains("POST /containers/create"), "the calls were not seen: {made:?}");
}

#[test]
fn the_proxy_lets_through_what_the_table_lists() {
    let text = read("config/compose/socket-proxy.yml");
    let allowed: Vec<_> =
        text.lines().filter_map(|line| line.trim().strip_prefix("- -allow")?.split_once('=')).collect();
    let allowed = allowed.iter().filter(|(method, _)| method.chars().all(char::is_uppercase));
    let allowed: Vec<_> = allowed.map(|(method, path)| format!("{method} {path}")).collect();
    let expected: Vec<_> =
        listed_calls().iter().map(|call| call.replace(" /", r" (/v1\.[0-9]+)?/").replace("{id}", "[^/]+")).collect();
    assert_eq!(allowed, expected);
}

/// Workers that are made from settings are those that the Compose file describes.
#[test]
fn settings_and_compose_file_name_the_same_workers() {
    let compose = read("docker-compose.yml");
    let settings = read("config/compose/swarm.toml");
    for name in ["browser", "tankpit"] {
        let (_, service) = compose.split_once(&format!("  worker-{name}:\n")).expect("it is a service");
        let (_, table) = settings.split_once(&format!("[worker_types.{name}.docker]\n")).expect("it has settings");
        let after = |text: &str, key: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(key));
            line.unwrap_or_else(|| panic!("{name}: no {key}")).to_owned()
        };
        assert_eq!(after(service, "image: "), after(table, "image = ").replace('"', ""));
        assert_eq!(after(service, "command: "), after(table, "command = "));
        assert_eq!(after(service, "mem_limit: "), after(table, "memory = ").replace('"', ""));
    }
    let settings: toml::Table = settings.parse().expect("it is TOML");
    let of_type = &settings["worker_types"]["browser"];
    let browser = of_type
        .get("browser")
        .map_or_else(BrowserSettings::default, |browser| browser.clone().try_into().expect("the settings are valid"));
    let needed = format!("{}m", memory_mib(&browser));
    assert_eq!(of_type["docker"]["memory"].as_str(), Some(&*needed), "all places of a worker have memory, and no more");
}

/// The bot beside the stack: its settings are valid, and what they name the files have.
#[test]
fn the_bot_of_the_compose_files_finds_what_it_needs() {
    let settings = repository("config/compose/discord.toml");
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let checked = swarm(directory.path()).args(["config", "check"]).arg(&settings).output();
    let checked = checked.expect("the binary was built for this test");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    let (compose, settings) = (read("config/compose/discord.yml"), read("config/compose/discord.toml"));
    let file: Value = serde_saphyr::from_str(&compose).expect("it is YAML");
    let volumes = file["services"]["discord"]["volumes"].to_string();
    assert!(volumes.contains("config/compose/discord.toml:/etc/swarm/swarm.toml"), "{volumes}");
    let token =
        settings.lines().find_map(|line| line.strip_prefix("token_file = ")).expect("it names the token's file");
    assert!(volumes.contains(token.trim_matches('"')), "{volumes}");
    let stack = read("docker-compose.yml");
    assert!(settings.contains("http://autoscaler:9000") && stack.contains("  autoscaler:\n"));
    let image = |text: &str| text.lines().filter(|line| line.trim() == "image: localhost/swarm:0.1.0").count();
    assert!(image(&compose) == 1 && image(&stack) > 0, "the bot is of the stack's image");
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
