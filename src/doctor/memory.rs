//! Checks whether the server accepts writes, also when it should not, and how much memory it has left. A full server, a
//! failed snapshot or missing replicas stop heartbeats, publishing and the lease while reads go on, so a key that is
//! missing then proves little.

use std::collections::HashMap;

use redis::{RedisResult, Value};

use super::{Area, Finding, attempts::NONSENSE};
use crate::{
    connection::{Connection, Primaries},
    model::keys,
};

/// Percentage of `maxmemory` from which a burst of jobs or results may fill the server.
const NEARLY_FULL_PERCENT: u64 = 90;

/// Result of the check.
pub(super) struct Writes {
    pub(super) findings: Vec<Finding>,
    /// Why a missing heartbeat or sign of life proves nothing; `None` if it does.
    pub(super) doubt: Option<String>,
}

pub(super) async fn look(connection: &mut Connection) -> Writes {
    let refusal = refused(connection).await;
    let mut findings: Vec<Finding> = refusal.iter().map(Refusal::finding).collect();
    let doubt = refusal.as_ref().map(|refusal| format!("redis refuses writes ({})", refusal.code));
    let Ok(Primaries { open, .. }) = connection.primaries().await else { return Writes { findings, doubt } };
    for mut server in open {
        let told: RedisResult<String> = redis::cmd("INFO").query_async(&mut server).await;
        let found = match told {
            Ok(text) => {
                let info = Info::read(&text);
                let stops = if info.could_not_save() { stops_writes(&mut server).await } else { None };
                let mut found = info.findings(stops.as_deref());
                found.extend(info.partition().filter(|_| server.is_of_sentinels()));
                found
            }
            // The documented rights do not include INFO.
            Err(error) => vec![Finding::ok(Area::Redis, format!("its memory can't be looked at: {error}"))],
        };
        findings.extend(found.into_iter().filter(|finding| !findings.contains(finding)).collect::<Vec<_>>());
    }
    Writes { findings, doubt }
}

/// The server refuses writes.
struct Refusal {
    code: String,
    text: String,
}

/// Tries a write that changes nothing: the server checks whether it may write at all before it checks the arguments,
/// which it must refuse.
async fn refused(connection: &mut Connection) -> Option<Refusal> {
    let mut set = redis::cmd("SET");
    let tried: RedisResult<Value> =
        set.arg(keys::SCALER_ALIVE).arg(NONSENSE).arg(NONSENSE).query_async(connection).await;
    let error = tried.err()?;
    let code = error.code().filter(|code| matches!(*code, "OOM" | "MISCONF" | "NOREPLICAS" | "READONLY"))?;
    Some(Refusal { code: code.to_owned(), text: error.detail().unwrap_or_default().to_owned() })
}

impl Refusal {
    fn finding(&self) -> Finding {
        let (what, cure) = match self.code.as_str() {
            "OOM" => (
                "redis is full: it refuses writes",
                "raise maxmemory, or delete what nobody needs; workers that run finish jobs without a reply_to meanwhile",
            ),
            "MISCONF" => (
                "redis refuses writes, because it could not save its data to disk",
                "its log names the reason, often a full disk; afterwards BGSAVE. stop-writes-on-bgsave-error decides \
                 whether it refuses",
            ),
            "NOREPLICAS" => (
                "redis refuses writes, because too few replicas are connected",
                "bring the replicas back, or lower min-replicas-to-write",
            ),
            _ => ("redis refuses writes, because it is a replica", "name the primary in redis_url"),
        };
        let text = if self.text.is_empty() { String::new() } else { format!(" ({})", self.text) };
        Finding::problem(Area::Redis, format!("{what}{text}")).cure(cure)
    }
}

/// Fields of `INFO` with the status of the last write of the data to disk.
const SAVES: [(&str, &str); 2] =
    [("rdb_last_bgsave_status", "snapshot"), ("aof_last_write_status", "append-only file")];

/// Returns whether the server refuses writes after a failed snapshot; `None` if the server refuses to tell.
async fn stops_writes(connection: &mut Connection) -> Option<String> {
    let mut get = redis::cmd("CONFIG");
    let told: RedisResult<HashMap<String, String>> =
        get.arg("GET").arg("stop-writes-on-bgsave-error").query_async(connection).await;
    told.ok()?.into_values().next()
}

/// Fields of the reply to `INFO`.
struct Info<'a>(HashMap<&'a str, &'a str>);

impl<'a> Info<'a> {
    fn read(text: &'a str) -> Self {
        Self(text.lines().filter_map(|line| line.trim_end().split_once(':')).collect())
    }

    fn number(&self, field: &str) -> Option<u64> {
        self.0.get(field)?.parse().ok()
    }

    fn could_not_save(&self) -> bool {
        SAVES.iter().any(|(field, _)| self.failed(field))
    }

    fn failed(&self, field: &str) -> bool {
        self.0.get(field).is_some_and(|status| *status != "ok")
    }

    /// Returns the findings. `stops` is `stop-writes-on-bgsave-error`, if the server tells it.
    fn findings(&self, stops: Option<&str>) -> Vec<Finding> {
        let mut findings = Vec::new();
        findings.extend(self.memory());
        findings.extend(self.eviction());
        let stops = stops.map_or_else(String::new, |stops| format!(" (stop-writes-on-bgsave-error is {stops})"));
        for (_, what) in SAVES.iter().filter(|(field, _)| self.failed(field)) {
            let found = format!("the last write of its {what} failed{stops}");
            let cure = "its log names the reason, often a full disk; until it is mended, a restart loses jobs";
            findings.push(Finding::problem(Area::Redis, found).cure(cure));
        }
        findings
    }

    /// Returns what a primary does that is cut off from its replicas. `INFO` has the number of good replicas only if
    /// the server requires some.
    fn partition(&self) -> Option<Finding> {
        let requires_replicas = self.0.contains_key("min_slaves_good_slaves");
        let has_replicas = self.number("connected_slaves").is_some_and(|count| count > 0);
        (has_replicas && !requires_replicas).then(|| {
            let found = "min-replicas-to-write is 0: a primary that is cut off from its replicas goes on taking jobs, \
                         which are lost when another one has taken its place";
            let cure = "set min-replicas-to-write 1 and min-replicas-max-lag 10 on all servers; then it refuses writes \
                        after 10 s";
            Finding::warning(Area::Redis, found).cure(cure)
        })
    }

    fn memory(&self) -> Option<Finding> {
        let (used, limit) = (self.number("used_memory")?, self.number("maxmemory")?);
        if limit == 0 {
            return Some(Finding::ok(Area::Redis, format!("{} of memory are used, without a limit", bytes(used))));
        }
        let percent = used.saturating_mul(100) / limit;
        let found = format!("{percent} % of maxmemory are used: {} of {}", bytes(used), bytes(limit));
        Some(if percent >= NEARLY_FULL_PERCENT {
            let cure = "raise maxmemory, or find out what fills it (redis-cli --bigkeys): at the limit it refuses writes \
                        or evicts keys";
            Finding::warning(Area::Redis, found).cure(cure)
        } else {
            Finding::ok(Area::Redis, found)
        })
    }

    /// Every evicted key is a loss: queues and groups hold jobs, and heartbeats and the lease expire by design.
    fn eviction(&self) -> Option<Finding> {
        let policy = self.0.get("maxmemory_policy").filter(|policy| **policy != "noeviction")?;
        self.number("maxmemory").filter(|limit| *limit > 0)?;
        let evicts = if policy.starts_with("volatile") { "heartbeats, the lease and results" } else { "whole queues" };
        let found = format!("maxmemory-policy is {policy}: when memory runs out, redis deletes {evicts}");
        Some(Finding::warning(Area::Redis, found).cure("set maxmemory-policy to noeviction"))
    }
}

/// Formats a size: `512 B`, `1.5 MiB`.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    // Tenths, in integers.
    let (mut tenths, mut unit) = (count.saturating_mul(10) / 1024, 0);
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        (tenths, unit) = (tenths / 1024, unit + 1);
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    fn found(text: &str) -> Vec<(Level, String)> {
        Info::read(text).findings(Some("yes")).into_iter().map(|finding| (finding.level, finding.found)).collect()
    }

    #[test]
    fn memory_without_a_limit_is_well_whatever_the_policy() {
        let all = found("# Memory\r\nused_memory:1048576\r\nmaxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n");
        assert_eq!(all, [(Level::Ok, "1.0 MiB of memory are used, without a limit".to_owned())]);
    }

    #[test]
    fn little_room_eviction_and_failed_snapshots_are_told() {
        let text = "used_memory:95\r\nmaxmemory:100\r\nmaxmemory_policy:volatile-ttl\r\nrdb_last_bgsave_status:err\r\n";
        let levels: Vec<Level> = found(text).iter().map(|(level, _)| *level).collect();
        assert_eq!(levels, [Level::Warning, Level::Warning, Level::Problem]);
        assert!(found(text)[2].1.ends_with("(stop-writes-on-bgsave-error is yes)"), "{:?}", found(text));
        assert!(found(text)[0].1.starts_with("95 % of maxmemory"), "{:?}", found(text));
        let fine = "used_memory:10\r\nmaxmemory:100\r\nmaxmemory_policy:noeviction\r\nrdb_last_bgsave_status:ok\r\n";
        assert_eq!(found(fine).iter().map(|(level, _)| *level).collect::<Vec<_>>(), [Level::Ok]);
    }

    #[test]
    fn a_primary_that_requires_no_replica_is_told_if_it_has_some() {
        let warns = |text: &str| Info::read(text).partition().is_some();
        assert!(warns("role:master\r\nconnected_slaves:2\r\n"));
        assert!(!warns("role:master\r\nconnected_slaves:2\r\nmin_slaves_good_slaves:2\r\n"));
        assert!(!warns("role:master\r\nconnected_slaves:0\r\n"), "there is nothing to wait for");
        assert!(!warns(""));
    }

    #[test]
    fn bytes_have_one_unit() {
        assert_eq!([0, 1023, 1024, 1_572_864, u64::MAX].map(bytes)[..4], ["0 B", "1023 B", "1.0 KiB", "1.5 MiB"]);
    }
}
