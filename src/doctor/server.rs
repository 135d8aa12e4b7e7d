//! Checks the Redis server: version, latency, and whether others can listen in.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use redis::{FromRedisValue, Value};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;
use url::{Host, Url};

use super::{Area, Finding};
use crate::{
    config::{RedisUrl, Settings},
    connection::{Connection, Primaries, RedisTarget},
};

/// Number of round trips that are measured; the median counts.
const PINGS: usize = 5;

/// Oldest supported version (`docs/redis.md`).
const OLDEST: (u32, u32) = (6, 2);

pub(super) async fn look(connection: &mut Connection, target: &RedisTarget, settings: &Settings) -> Vec<Finding> {
    let mut findings = greetings(connection, target).await;
    findings.extend(distance(connection, settings.scaler.redis_timeout()).await);
    findings.extend(listeners(settings));
    findings
}

/// Checks a server that only has queues of others: it may be a replica.
pub(super) async fn look_at_queues(
    connection: &mut Connection,
    target: &RedisTarget,
    settings: &Settings,
) -> Vec<Finding> {
    let ping: redis::RedisResult<Value> = redis::cmd("PING").query_async(connection).await;
    let answers = match ping {
        Ok(_) => Finding::ok(Area::Redis, "it answers"),
        Err(error) => Finding::problem(Area::Redis, format!("PING at {}: {error}", target.display())),
    };
    let mut findings = vec![answers];
    findings.extend(distance(connection, settings.scaler.redis_timeout()).await);
    findings.extend(listeners(settings));
    findings
}

/// Checks the version of each primary. Equal findings of several primaries are reported once.
async fn greetings(connection: &Connection, target: &RedisTarget) -> Vec<Finding> {
    let Primaries { open, missing } = match connection.primaries().await {
        Ok(primaries) => primaries,
        Err(error) => return vec![Finding::problem(Area::Redis, error.to_string())],
    };
    let mut findings: Vec<Finding> = Vec::new();
    if connection.is_cluster() {
        findings.push(Finding::ok(Area::Redis, format!("the cluster has {}, which answer", primaries(open.len()))));
    }
    for mut server in open {
        let found = greeting(&mut server, target).await;
        if !findings.contains(&found) {
            findings.push(found);
        }
    }
    findings.extend(missing.into_iter().map(|why| {
        Finding::problem(Area::Redis, format!("a primary can't be reached: {why}"))
            .cure("the pools whose queues it has are held; bring it back, or let a replica take its place")
    }));
    findings
}

fn primaries(count: usize) -> String {
    format!("{count} {}", if count == 1 { "primary" } else { "primaries" })
}

/// Reads the version from `HELLO`, which every user may call, instead of `INFO`.
async fn greeting(connection: &mut Connection, target: &RedisTarget) -> Finding {
    let at = target.display();
    let told: redis::RedisResult<HashMap<String, Value>> = redis::cmd("HELLO").query_async(connection).await;
    let told = match told {
        Ok(told) => told,
        Err(error) => {
            return Finding::warning(Area::Redis, format!("{at} answers, and does not say what it is: {error}"));
        }
    };
    let text =
        |field: &str| told.get(field).and_then(|value| String::from_redis_value_ref(value).ok()).unwrap_or_default();
    let (server, version, role, mode) = (text("server"), text("version"), text("role"), text("mode"));
    let found = format!("{server} {version} at {at} answers, {role}, {mode}");
    if role != "master" {
        return Finding::problem(Area::Redis, found).cure("a replica takes no writes: name the primary in redis_url");
    }
    match number(&version) {
        Some(version) if version < OLDEST => {
            Finding::problem(Area::Redis, found).cure("use Redis 6.2 or later, or Valkey")
        }
        _ => Finding::ok(Area::Redis, found),
    }
}

fn number(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

/// Measures the time of a reply.
async fn distance(connection: &mut Connection, patience: Duration) -> Option<Finding> {
    let mut times = Vec::new();
    for _ in 0..PINGS {
        let asked = Instant::now();
        let ping: redis::RedisResult<Value> = redis::cmd("PING").query_async(connection).await;
        if let Err(error) = ping {
            return Some(Finding::problem(Area::Redis, format!("PING: {error}")));
        }
        times.push(asked.elapsed());
    }
    times.sort();
    let usual = times[PINGS / 2];
    let found = format!("an answer takes {:.2} ms", usual.as_secs_f64() * 1e3);
    Some(if usual * 4 > patience {
        let cure =
            format!("it fails at redis_timeout_ms = {}; raise that, or find out what is slow", patience.as_millis());
        Finding::warning(Area::Redis, found).cure(cure)
    } else {
        Finding::ok(Area::Redis, found)
    })
}

/// Checks whether others could listen in or connect.
fn listeners(settings: &Settings) -> Vec<Finding> {
    let Ok(named) = RedisUrl::parse(settings.redis_url.expose_secret()) else { return Vec::new() };
    let read = |url: &SecretString| Url::parse(url.expose_secret());
    let Some(Ok(url)) = named.credentials().map(read) else { return Vec::new() };
    let are_here = named.seeds().iter().all(|seed| read(seed).is_ok_and(|seed| is_here(&seed)));
    if !matches!(url.scheme(), "redis" | "rediss") || are_here {
        return Vec::new();
    }
    let mut findings = Vec::new();
    findings.push(if url.scheme() == "rediss" {
        Finding::ok(Area::Redis, "the connection is encrypted")
    } else {
        Finding::warning(Area::Redis, "the connection is not encrypted, and the server is not on this machine")
            .cure("use rediss:// where others could listen in (docs/redis.md)")
    });
    if url.password().is_none() {
        let found = "no password is needed, and the server is not on this machine";
        let cure = "give each program a user of its own (docs/redis.md), unless only they reach the server";
        findings.push(Finding::warning(Area::Redis, found).cure(cure));
    }
    findings
}

fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()),
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn others_can_listen_in_only_where_there_are_others() {
        let levels = |url: &str| {
            let settings = Settings { redis_url: url.into(), ..Settings::default() };
            listeners(&settings).into_iter().map(|finding| finding.level).collect::<Vec<_>>()
        };
        assert_eq!(levels("redis://localhost:1"), []);
        assert_eq!(levels("redis://127.0.0.1/0"), []);
        assert_eq!(levels("unix:///run/redis.sock"), []);
        assert_eq!(levels("redis://cache/0"), [Level::Warning, Level::Warning]);
        assert_eq!(levels("rediss://u:p@10.0.0.7/0"), [Level::Ok]);
        assert_eq!(levels("redis+sentinel://127.0.0.1,localhost/main"), []);
        assert_eq!(levels("redis+sentinel://127.0.0.1,cache/main"), [Level::Warning, Level::Warning]);
        assert_eq!(levels("rediss+cluster://u:p@10.0.0.7,10.0.0.8"), [Level::Ok]);
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(number("7.0.15"), Some((7, 0)));
        assert!(number("6.0.16").unwrap() < OLDEST && number("10.1.0").unwrap() > OLDEST);
        assert_eq!(number("odd"), None);
    }
}
