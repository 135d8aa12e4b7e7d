//! Pipelines and transactions on a cluster: split by node or slot, sent concurrently, replies reassembled.

use futures_util::future::join_all;
use redis::{Cmd, ErrorKind, Pipeline, RedisError, ServerErrorKind, Value};

use super::{ClusterConnection, redirect, refusal, route::groups, topology::NodeAddress};

/// Prefixes the command with ASKING, which lets a node answer for a key that is being moved to it.
pub(super) fn asking(command: &Cmd) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(2);
    pipeline.cmd("ASKING").add_command(command.clone());
    pipeline
}

fn part(pipeline: &Pipeline, indices: &[usize]) -> Pipeline {
    let mut part = Pipeline::with_capacity(indices.len());
    let mut wanted = indices.iter().copied().peekable();
    for (index, command) in pipeline.cmd_iter().enumerate() {
        if wanted.next_if_eq(&index).is_some() {
            part.add_command(command.clone());
        }
    }
    part
}

impl ClusterConnection {
    /// Sends each command to the node that has its key. Returns one reply for each command. Commands for one node stay
    /// in their order.
    ///
    /// # Errors
    /// If a node could not be asked. Commands for other nodes may have been carried out.
    pub(in crate::connection) async fn pipeline(&self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
        self.parts(pipeline).await?.into_iter().collect()
    }

    /// Like [`pipeline`](Self::pipeline), but a command that could not be sent has an error in the place of its reply.
    pub(in crate::connection) async fn each(&self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let replies = self.parts(pipeline).await?.into_iter();
        Ok(replies.map(|reply| reply.unwrap_or_else(|error| refusal(&error))).collect())
    }

    async fn parts(&self, pipeline: &Pipeline) -> Result<Vec<Result<Value, RedisError>>, RedisError> {
        let map = self.0.topology.current().await?;
        let groups = groups(pipeline, |slot| map.owner(slot));
        let each = groups.iter().map(async |(place, indices)| {
            let to = match place {
                Some(Some(to)) => Ok((*to).clone()),
                Some(None) => Err(unserved()),
                None => self.node_for(None).await,
            };
            let replies = match to {
                Ok(to) => self.group(&to, pipeline, indices).await,
                Err(error) => Err(error),
            };
            (indices, replies)
        });
        let mut all: Vec<Option<Result<Value, RedisError>>> = (0..pipeline.len()).map(|_| None).collect();
        for (indices, replies) in join_all(each).await {
            match replies {
                Ok(replies) => {
                    for (index, reply) in indices.iter().zip(replies) {
                        all[*index] = Some(reply);
                    }
                }
                Err(error) => indices.iter().for_each(|index| all[*index] = Some(Err(error.clone()))),
            }
        }
        let missing = || Err(RedisError::from((ErrorKind::UnexpectedReturnType, "fewer replies than commands")));
        Ok(all.into_iter().map(|reply| reply.unwrap_or_else(missing)).collect())
    }

    /// Sends the commands of one node, and follows the redirections of single commands.
    async fn group(
        &self,
        to: &NodeAddress,
        pipeline: &Pipeline,
        indices: &[usize],
    ) -> Result<Vec<Result<Value, RedisError>>, RedisError> {
        let whole = indices.len() == pipeline.len();
        let split = if whole { None } else { Some(part(pipeline, indices)) };
        let pipeline = split.as_ref().unwrap_or(pipeline);
        let node = self.node(to);
        let sent = async {
            let mut connection = node.get().await?;
            connection.send_packed_commands(pipeline, 0, pipeline.len()).await
        };
        let replies = sent.await.inspect_err(|error| self.failed(to, &node, error))?;
        let mut followed = Vec::with_capacity(replies.len());
        for (reply, command) in replies.into_iter().zip(pipeline.cmd_iter()) {
            let Value::ServerError(error) = &reply else {
                followed.push(Ok(reply));
                continue;
            };
            let error = RedisError::from(error.clone());
            followed.push(match redirect(&error, to) {
                // The node refused the command, so sending it elsewhere does not run it twice.
                Some(super::Redirect::Moved(node)) => {
                    self.0.topology.doubt();
                    self.command_at(node, command, false).await
                }
                Some(super::Redirect::Ask(node)) => self.command_at(node, command, true).await,
                Some(super::Redirect::TryAgain) => self.command_at(to.clone(), command, false).await,
                None => {
                    self.learn(&error);
                    Ok(reply)
                }
            });
        }
        Ok(followed)
    }

    /// Carries out a transaction: atomically if all keys are in one slot, otherwise slot by slot. The slot of the last
    /// command comes last, after all others succeeded. Returns the replies in the form of EXEC.
    ///
    /// # Errors
    /// If a part was refused or its outcome is unknown. In that case the last part was not begun, or is the failed
    /// part.
    pub(in crate::connection) async fn transaction(&self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let groups = groups(pipeline, |slot| slot);
        let last = groups.iter().position(|(_, indices)| indices.last() == Some(&(pipeline.len() - 1)));
        let mut all = vec![Value::Nil; pipeline.len()];
        let first = groups.iter().enumerate().filter(|(at, _)| Some(*at) != last).map(|(_, group)| group);
        let done = join_all(first.map(async |(slot, indices)| (indices, self.at_once(*slot, pipeline, indices).await)));
        for (indices, replies) in done.await {
            indices.iter().zip(replies?).for_each(|(index, reply)| all[*index] = reply);
        }
        if let Some((slot, indices)) = last.map(|at| &groups[at]) {
            let replies = self.at_once(*slot, pipeline, indices).await?;
            indices.iter().zip(replies).for_each(|(index, reply)| all[*index] = reply);
        }
        Ok(vec![Value::Array(all)])
    }

    /// Sends the commands of one slot, as a transaction if there are several.
    async fn at_once(
        &self,
        slot: Option<u16>,
        pipeline: &Pipeline,
        indices: &[usize],
    ) -> Result<Vec<Value>, RedisError> {
        let mut part = part(pipeline, indices);
        if let (1, Some(command)) = (part.len(), part.cmd_iter().next()) {
            let to = self.node_for(slot).await?;
            return Ok(vec![self.command_at(to, command, false).await?]);
        }
        part.atomic();
        let refused = match self.exec(slot, &part).await {
            Err(error) if is_moved(&error) => error,
            outcome => return outcome,
        };
        // The node refused the whole transaction.
        tracing::debug!(error = %refused, "transaction redirected, its keys have moved");
        self.0.topology.doubt();
        self.exec(slot, &part).await
    }

    async fn exec(&self, slot: Option<u16>, part: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let to = self.node_for(slot).await?;
        let node = self.node(&to);
        let sent = async {
            let mut connection = node.get().await?;
            connection.send_packed_commands(part, part.len() + 1, 1).await
        };
        let mut replies = sent.await.inspect_err(|error| self.failed(&to, &node, error))?;
        match replies.pop() {
            Some(Value::Array(replies)) => Ok(replies),
            Some(Value::ServerError(error)) => Err(RedisError::from(error)),
            _ => Err(RedisError::from((ErrorKind::UnexpectedReturnType, "the reply to EXEC is not a list"))),
        }
    }
}

/// Returns whether the server refused a whole transaction because its keys are on another node.
fn is_moved(error: &RedisError) -> bool {
    let moved = [ServerErrorKind::Moved, ServerErrorKind::ExecAbort];
    moved.map(ErrorKind::Server).contains(&error.kind())
        || error.clone().into_server_errors().is_some_and(|errors| {
            errors.iter().any(|(_, error)| error.kind().is_some_and(|kind| moved.contains(&kind)))
        })
}

fn unserved() -> RedisError {
    RedisError::from((ErrorKind::Server(ServerErrorKind::ClusterDown), "no node has this slot"))
}
