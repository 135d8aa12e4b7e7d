//! Cancelling as a call: finds the job wherever it is, follows it while it moves, and waits for the worker that runs
//! it.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    BrokerError, CallError, Client, Place,
    cancel_marks::{Step, is_held, mark, step, unmark, was_stopped},
    locate,
    place::permitted,
};
use crate::{
    connection::Connection,
    model::{job::Cancelled, keys},
};

/// Time between two looks at a job that its worker was asked to stop.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Looks that miss the job before it counts as ended. A job that one of them saw move has a mark, and moves at
/// most twice more: from its worker to the end of its stream, or from the delayed jobs to its stream and to a worker.
const LOOKS: usize = 3;

impl Client {
    /// Cancels a job. A running one is stopped by its worker, for which this waits for at most `patience`.
    ///
    /// # Errors
    /// If Redis can't be asked; cancelling again is harmless.
    pub async fn cancel(&self, id: &str, patience: Duration) -> Result<Cancelled, CallError> {
        let until = Instant::now() + patience;
        self.ask(|mut connection| async move {
            let places = self.places(&connection).await?;
            Canceller { client: self, id, until }.cancel(&mut connection, &places).await
        })
        .await
    }
}

struct Canceller<'a> {
    client: &'a Client,
    id: &'a str,
    until: Instant,
}

impl Canceller<'_> {
    async fn cancel(&self, connection: &mut Connection, places: &[Place]) -> Result<Cancelled, BrokerError> {
        // Where the job has a mark, and the entry at which its worker was told to stop it.
        let mut marked: Option<(&Place, Option<String>)> = None;
        let mut missed = 0;
        while missed < LOOKS {
            match self.look(connection, places).await? {
                (_, Step::Delayed) => return Ok(Cancelled::Delayed),
                (_, Step::Waiting) => return Ok(Cancelled::Waiting),
                (_, Step::Already) => return Ok(Cancelled::Already),
                (Some(place), Step::Held { worker, entry }) => {
                    if !self.has_left(connection, place, &entry).await? {
                        return Ok(Cancelled::Told { worker });
                    }
                    if was_stopped(connection, place, self.id).await? {
                        return Ok(Cancelled::Stopped { worker });
                    }
                    marked = Some((place, Some(entry)));
                    missed = 0;
                }
                (Some(place), Step::Moved) if marked.is_none() => {
                    mark(connection, place, self.id).await?;
                    marked = Some((place, None));
                    missed = 0;
                }
                _ => missed += 1,
            }
        }
        let Some((place, entry)) = marked else { return self.ended(connection, places).await };
        if was_stopped(connection, place, self.id).await? {
            return Ok(Cancelled::Waiting);
        }
        unmark(connection, place, self.id, entry.as_deref()).await?;
        Ok(Cancelled::Finished)
    }

    /// Cancels the job in the first place that has it.
    async fn look<'p>(
        &self,
        connection: &mut Connection,
        places: &'p [Place],
    ) -> Result<(Option<&'p Place>, Step), BrokerError> {
        let result_ttl = self.client.settings().broker.result_ttl();
        let mut nothing = (None, Step::Gone);
        for place in places {
            match permitted(place, step(connection, place, result_ttl, self.id).await)? {
                None | Some(Step::Gone) => {}
                Some(Step::Moved) => nothing = (Some(place), Step::Moved),
                Some(step) => return Ok((Some(place), step)),
            }
        }
        Ok(nothing)
    }

    /// Waits until no worker holds the entry any more; returns `false` if that takes too long.
    async fn has_left(&self, connection: &mut Connection, place: &Place, entry: &str) -> Result<bool, BrokerError> {
        while is_held(connection, place, entry).await? {
            if Instant::now() >= self.until {
                return Ok(false);
            }
            sleep(POLL_INTERVAL).await;
        }
        Ok(true)
    }

    async fn ended(&self, connection: &mut Connection, places: &[Place]) -> Result<Cancelled, BrokerError> {
        let exists = redis::cmd("EXISTS").arg(keys::result(self.id)).query_async(connection).await;
        if exists.map_err(|cause| BrokerError::new("look for a result", cause))? {
            return Ok(Cancelled::Finished);
        }
        for place in places {
            if locate::dead_letter(connection, place, self.id).await.is_some() {
                return Ok(Cancelled::Finished);
            }
        }
        Ok(Cancelled::Unknown)
    }
}
