//! Reads the queues of one worker type by itself, on a connection that the caller has: for questions beside the
//! observations, whose prober has one reading of a worker type under way at a time.

use redis::{Pipeline, Value};

use super::{QueueSpec, transaction};
use crate::{
    connection::Connection,
    model::Clock,
    queue_kind::{Interpretation, Observed, QueueReader, Scripts, reply::missing},
};

/// Maximum requests of one reading: two, and again if the estimate of the server's clock was wrong.
const MAX_REQUESTS: usize = 6;

/// Reads one worker type's queues.
#[derive(Debug)]
pub struct SingleReader {
    spec: QueueSpec,
    reader: Box<dyn QueueReader>,
    clock: Clock,
}

impl SingleReader {
    /// Returns a reader that has read nothing yet.
    pub fn new(spec: QueueSpec, clock: Clock) -> Self {
        Self { reader: spec.kind.reader(&spec), spec, clock }
    }

    /// Reads once.
    ///
    /// # Errors
    /// If the connection fails. What the server refuses is part of the result.
    pub async fn read(&mut self, connection: &mut Connection) -> redis::RedisResult<Observed> {
        let one_transaction = self.spec.kind.is_one_transaction();
        let mut requests = 0;
        let mut interpretation = Interpretation::Again;
        loop {
            self.reader.note_time(self.clock.now());
            interpretation = match interpretation {
                Interpretation::Complete(observed) => return Ok(observed),
                _ if requests == MAX_REQUESTS => return Ok(Observed::failed("its reading did not come to an end")),
                Interpretation::Again | Interpretation::ScriptRefused => {
                    let commands = self.reader.commands(&self.spec, Scripts::Refused);
                    let (count, mut pipeline) = (commands.len(), Pipeline::new());
                    transaction::add_commands(&mut pipeline, commands, one_transaction);
                    let all = connection.each(&pipeline).await?;
                    let replies = transaction::replies(&mut all.into_iter(), count, one_transaction);
                    self.reader.note_time(self.clock.now());
                    self.reader.interpret(&self.spec, replies, Scripts::Refused)
                }
                Interpretation::Ask(follow_up) => {
                    let mut pipeline = Pipeline::new();
                    transaction::add_commands(&mut pipeline, follow_up.commands.clone(), one_transaction);
                    let replies: Vec<Value> = connection.each(&pipeline).await?;
                    self.reader.note_time(self.clock.now());
                    // The last reply is that of the transaction.
                    let reply = replies.into_iter().next_back().ok_or_else(missing);
                    self.reader.complete(&self.spec, *follow_up, reply)
                }
            };
            requests += 1;
        }
    }
}
