//! Iterates over the keys of one server with SCAN. Leaves out keys that are not valid UTF-8, because no setting can
//! name them.

use redis::RedisResult;

use super::Connection;

/// Selection of keys.
#[derive(Clone, Copy, Debug)]
pub struct Scan<'a> {
    /// Pattern that the keys match, in Redis syntax.
    pub pattern: &'a str,
    /// Type of the keys' values: `stream`, `list`, …; any type if `None`.
    pub kind: Option<&'a str>,
    /// Keys that the server examines in one step.
    pub count: usize,
}

impl Scan<'_> {
    /// Runs one step from `cursor`, which is 0 at first. Returns the next cursor, 0 at the end, and the matching keys.
    ///
    /// # Errors
    /// If the server refuses the command or can't be asked.
    pub async fn step(&self, server: &mut Connection, cursor: u64) -> RedisResult<(u64, Vec<String>)> {
        let mut step = redis::cmd("SCAN");
        step.arg(cursor).arg("MATCH").arg(self.pattern).arg("COUNT").arg(self.count);
        if let Some(kind) = self.kind {
            step.arg("TYPE").arg(kind);
        }
        let (next, keys): (u64, Vec<Vec<u8>>) = step.query_async(server).await?;
        Ok((next, keys.into_iter().filter_map(|key| String::from_utf8(key).ok()).collect()))
    }

    /// Passes the matching keys to `keep` until `keep` returns `false`. Returns whether it never did.
    ///
    /// # Errors
    /// If the server refuses the command or can't be asked.
    pub async fn all(&self, server: &mut Connection, mut keep: impl FnMut(String) -> bool) -> RedisResult<bool> {
        let mut cursor = 0;
        loop {
            let (next, keys) = self.step(server, cursor).await?;
            if !keys.into_iter().all(&mut keep) {
                return Ok(false);
            }
            if next == 0 {
                return Ok(true);
            }
            cursor = next;
        }
    }
}
