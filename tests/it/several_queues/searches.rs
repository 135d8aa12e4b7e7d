//! The searches by patterns: one scan of the keys serves all patterns, and finds what Redis itself matches.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fred::types::Value;
use proptest::{
    collection::vec,
    prelude::Strategy,
    strategy::ValueTree,
    test_runner::{Config, TestRng, TestRunner},
};
use secrecy::SecretString;
use swarm::{
    broker::{Beside, find_beside, find_queues},
    connection::RedisTarget,
    model::{Layout, QueuePattern, Queues},
};

use super::{found::NOTHING, *};
use crate::support::{autoscaler::FAST_SWEEP, cluster::Cluster};

/// Returns the patterns and types of all SCANs so far, with the number of searches that began with them.
async fn searches(client: &Client) -> BTreeMap<(String, String), u64> {
    let commands: Vec<Vec<Value>> = redis(client, "SLOWLOG GET 1000000").await;
    let mut searches = BTreeMap::new();
    for command in commands {
        let words: Vec<String> = command[3].clone().into_array().into_iter().filter_map(Value::into_string).collect();
        let option = |name: &str| words.iter().skip_while(|word| *word != name).nth(1).cloned().unwrap_or_default();
        if words[0].eq_ignore_ascii_case("SCAN") {
            *searches.entry((option("MATCH"), option("TYPE"))).or_default() += u64::from(words[1] == "0");
        }
    }
    searches
}

#[tokio::test]
async fn each_search_scans_once_for_all_patterns_of_all_worker_types() {
    let server = RedisServer::start_with(&["--slowlog-log-slower-than", "0", "--slowlog-max-len", "1000000"]);
    let client = server.client().await;
    let mut pools = String::new();
    for name in ["one", "two", "three", "lists"] {
        let patterns: Vec<String> = (0..5).map(|number| format!("tenant-{name}-{number}-*")).collect();
        let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
        let kind = if name == "lists" { "kind = \"list\"" } else { "" };
        pools += &pool(name, &patterns, kind);
        for pattern in patterns {
            let queue = pattern.replace('*', "a");
            if name == "lists" {
                let _: u64 = redis(&client, &format!("RPUSH {queue} job")).await;
            } else {
                add_jobs(&client, &queue, 1).await;
            }
        }
    }
    let scaler = Autoscaler::start(&server.url(), &format!("{FAST_SWEEP}{NOTHING}{pools}")).await;
    for name in ["one", "two", "three", "lists"] {
        let found = async || scaler.of(name).await.queues.as_ref().is_some_and(|queues| queues.count == 6);
        scaler.until(&format!("all queues of {name} are found"), found).await;
    }
    let expected =
        [("tenant-*", "stream"), ("tenant-*:dead", "stream"), ("tenant-*:delayed", "zset"), ("tenant-lists-*", "list")];
    let expected = expected.map(|(pattern, kind)| (pattern.to_owned(), kind.to_owned()));
    let all_have_run = async || searches(&client).await.values().filter(|count| **count > 2).count() >= expected.len();
    scaler.until("each search runs with each sweep", all_have_run).await;
    let searches = searches(&client).await;
    assert!(searches.keys().eq(&expected), "{searches:?}");
    let [streams, lists] = [&expected[0], &expected[3]].map(|search| searches[search]);
    assert!(lists.abs_diff(streams) <= 1, "one search for streams follows each for lists: {searches:?}");
}

/// Text of these characters, at most `max` of them.
fn text(characters: &'static str, max: usize) -> impl Strategy<Value = String> {
    let characters: Vec<char> = characters.chars().collect();
    vec(proptest::sample::select(characters), 1..=max).prop_map(|chars| chars.into_iter().collect())
}

/// Searches for random patterns among random keys and compares with `KEYS PATTERN` of each server.
async fn all_that_redis_matches_is_found(url: &str, client: &Client, servers: &[Client], characters: &'static str) {
    let target = RedisTarget::new(&SecretString::from(url), Duration::from_secs(60)).unwrap();
    let connection = target.connect().await.unwrap();
    let mut runner =
        TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(Config::default().rng_algorithm));
    let names: BTreeSet<String> =
        vec(text(characters, 6), 300).new_tree(&mut runner).unwrap().current().into_iter().collect();
    let (mut dead, mut delayed) = (BTreeSet::new(), BTreeSet::new());
    for (number, name) in names.iter().enumerate() {
        let _: String = redis(client, &format!("XADD {name} * json x")).await;
        if number % 2 == 0 {
            let _: String = redis(client, &format!("XADD {} * json x", connection.layout().dead_letters(name))).await;
            dead.insert(name.clone());
        }
        if number % 3 == 0 {
            let _: u64 = redis(client, &format!("ZADD {} 1 x", connection.layout().delayed(name))).await;
            delayed.insert(name.clone());
        }
    }
    let pattern = (text(characters, 3), text(characters, 3)).prop_flat_map(|(a, b)| {
        proptest::sample::select(vec![
            format!("{a}*"),
            format!("*{b}"),
            format!("{a}*{b}"),
            format!("*{a}*{b}*"),
            format!("{a}**"),
        ])
    });
    let of_type = vec(pattern.prop_map(|text| QueuePattern::parse(&text).expect("it is one")), 0..4);
    let of_types = vec(of_type, 1..5);
    for _ in 0..50 {
        let types = of_types.new_tree(&mut runner).unwrap().current();
        let mut matched = Vec::new();
        for patterns in &types {
            let mut keys = BTreeSet::new();
            for pattern in patterns {
                for server in servers {
                    keys.extend(redis::<Vec<String>>(server, &format!("KEYS {}", pattern.as_str())).await);
                }
            }
            matched.push(&keys & &names);
        }
        let queues = |patterns: &Vec<QueuePattern>| Queues { patterns: patterns.clone(), ..Queues::one("own:jobs") };
        let queues: Vec<Queues> = types.iter().map(queues).collect();
        let found = find_queues(&connection, &queues.iter().collect::<Vec<_>>(), usize::MAX).await.unwrap();
        assert_eq!(found, matched, "{types:?}");
        let patterns: Vec<&[QueuePattern]> = types.iter().map(Vec::as_slice).collect();
        for (beside, existing) in [(Beside::Dead, &dead), (Beside::Delayed, &delayed)] {
            let found = find_beside(&connection, &patterns, beside, usize::MAX).await.unwrap();
            let expected: Vec<BTreeSet<String>> = matched.iter().map(|matched| matched & existing).collect();
            assert_eq!(found, expected, "{beside:?} {types:?}");
        }
    }
    assert_eq!(connection.layout() == Layout::Cluster, servers.len() > 1);
}

#[tokio::test]
async fn all_that_redis_matches_is_found_on_a_server() {
    let server = RedisServer::start();
    let client = server.client().await;
    all_that_redis_matches_is_found(&server.url(), &client, std::slice::from_ref(&client), "ab:é^-{}").await;
}

#[tokio::test]
async fn all_that_redis_matches_is_found_on_a_cluster() {
    let cluster = Cluster::start();
    let client = cluster.client().await;
    let mut servers = Vec::new();
    for node in &cluster.nodes {
        servers.push(node.client().await);
    }
    all_that_redis_matches_is_found(&cluster.url(), &client, &servers, "ab:é^-").await;
}

/// A worker type that matches many queues leaves the others theirs.
#[tokio::test]
async fn each_worker_type_has_its_own_maximum() {
    let server = RedisServer::start();
    let client = server.client().await;
    for number in 0..20 {
        add_jobs(&client, &format!("many-{number}"), 1).await;
    }
    add_jobs(&client, "few-1", 1).await;
    let connection = RedisTarget::new(&SecretString::from(server.url()), Duration::from_secs(60)).unwrap();
    let connection = connection.connect().await.unwrap();
    let queues = ["many-*", "few-*"].map(|pattern| {
        let patterns = vec![QueuePattern::parse(pattern).expect("it is one")];
        Queues { patterns, ..Queues::one("own:jobs") }
    });
    let found = find_queues(&connection, &[&queues[0], &queues[1]], 3).await.unwrap();
    assert_eq!((found[0].len(), found[1].len()), (3, 1), "{found:?}");
}
