//! Goes through the keys of one server by SCAN. Keys that are no text are left out: nobody can name them.

use redis::RedisResult;

use super::Connection;

/// Which keys to look for.
#[derive(Clone, Copy, Debug)]
pub struct Scan<'a> {
    /// What they match, as Redis understands it.
    pub pattern: &'a str,
    /// What they hold: `stream`, `list`, …; anything if `None`.
    pub kind: Option<&'a str>,
    /// Keys that the server looks at in one step.
    pub count: usize,
}

impl Scan<'_> {
    /// One step from `cursor`, which is 0 at first: where to go on, 0 at the end, and the keys that fit.
    ///
    /// # Errors
    /// If the server refuses it or can't be asked.
    pub async fn step(&self, server: &mut Connection, cursor: u64) -> RedisResult<(u64, Vec<String>)> {
        let mut step = redis::cmd("SCAN");
        step.arg(cursor).arg("MATCH").arg(self.pattern).arg("COUNT").arg(self.count);
        if let Some(kind) = self.kind {
            step.arg("TYPE").arg(kind);
        }
        let (next, keys): (u64, Vec<Vec<u8>>) = step.query_async(server).await?;
        Ok((next, keys.into_iter().filter_map(|key| String::from_utf8(key).ok()).collect()))
    }

    /// Hands all keys that fit to `keep` until it answers `false`. Whether it never did.
    ///
    /// # Errors
    /// If the server refuses it or can't be asked.
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
