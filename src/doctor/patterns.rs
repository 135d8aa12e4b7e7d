//! Counts the queues that the patterns of worker types find.

use redis::RedisResult;

use super::{Area, Finding, finding::some};
use crate::{
    config::Settings,
    connection::{Connection, Scan},
    model::QueuePattern,
};

/// Keys that the server examines in one step.
const SCANNED: usize = 500;

pub(super) async fn look(connection: &mut Connection, settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, of) in settings.enabled() {
        for pattern in &of.queues(name).patterns {
            findings.push(match count(connection, pattern, of.queue_kind().redis_type()).await {
                Ok(found) => {
                    let found = some(found, "queue");
                    Finding::ok(Area::Queues, format!("the pattern `{}` of `{name}` finds {found}", pattern.as_str()))
                }
                Err(error) => {
                    let found =
                        format!("queues like `{}` of `{name}` can't be searched for: {error}", pattern.as_str());
                    Finding::problem(Area::Queues, found)
                        .cure("grant it: ACL SETUSER … +scan, or name the queues in `extra_queues`; until then nobody of this type is let go")
                }
            });
        }
    }
    findings
}

async fn count(connection: &Connection, pattern: &QueuePattern, redis_type: &str) -> RedisResult<u64> {
    let wanted = Scan { pattern: pattern.as_str(), kind: Some(redis_type), count: SCANNED };
    let mut found = 0;
    for mut server in connection.primaries().await?.open {
        let count = |key: String| {
            found += u64::from(pattern.takes(&key));
            true
        };
        wanted.all(&mut server, count).await?;
    }
    Ok(found)
}
