//! How many queues the patterns of worker types find.

use redis::RedisResult;

use super::{Area, Finding, finding::some};
use crate::{
    config::{QueueKind, Settings},
    connection::Connection,
    model::QueuePattern,
    signal::scan_page,
};

pub(super) async fn look(connection: &mut Connection, settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, of) in settings.enabled() {
        let list = of.kind == QueueKind::List;
        for pattern in &of.queues(name).patterns {
            findings.push(match count(connection, pattern, list).await {
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

async fn count(connection: &Connection, pattern: &QueuePattern, list: bool) -> RedisResult<u64> {
    let mut found = 0;
    for mut server in connection.primaries().await?.open {
        let mut cursor = "0".to_owned();
        loop {
            let (next, keys) = scan_page(&mut server, &cursor, pattern, list).await?;
            found += keys.iter().filter(|key| pattern.takes(key)).count() as u64;
            if next == "0" {
                break;
            }
            cursor = next;
        }
    }
    Ok(found)
}
