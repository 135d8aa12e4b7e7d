//! Asks a running prober: of one queue, or of all queues of a worker type at once.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Answer,
    several::{Part, Several, SeveralSpec},
};
use crate::signal::Directory;

/// Queues in one pipeline. Large enough to make a sweep a hundred round trips per ten thousand queues, small enough
/// that a probe which comes in during a sweep does not wait long behind it.
pub(super) const MAX_BATCH: usize = 128;

/// Requests that wait to be batched; beyond it actors wait.
pub(super) const REQUEST_CAPACITY: usize = 1_024;

/// One question.
#[derive(Debug)]
pub struct Request {
    /// Which worker type, by its index.
    pub index: u32,
    /// Heartbeat keys to read along with it.
    pub heartbeats: Vec<String>,
}

pub(super) struct Asked {
    pub(super) request: Request,
    /// Which of several queues; `None`: the only one.
    pub(super) part: Option<Arc<Part>>,
    pub(super) reply: oneshot::Sender<Answer>,
}

/// The worker types that have several queues, by index.
#[derive(Debug)]
pub(super) struct SeveralTypes {
    pub(super) types: HashMap<u32, Several>,
    pub(super) directory: Arc<Directory>,
}

impl SeveralTypes {
    /// `None` if there are none.
    pub(super) fn new(specs: Vec<SeveralSpec>, directory: &Arc<Directory>) -> Option<Arc<Self>> {
        let types: HashMap<_, _> = specs.into_iter().map(|spec| (spec.index, Several::new(spec))).collect();
        (!types.is_empty()).then(|| Arc::new(Self { types, directory: directory.clone() }))
    }
}

/// Asks a running [`Prober`](super::Prober).
#[derive(Clone, Debug)]
pub struct ProberHandle {
    pub(super) requests: mpsc::Sender<Asked>,
    pub(super) redis_error: watch::Receiver<Option<String>>,
    /// `None` if no worker type has several queues.
    pub(super) several: Option<Arc<SeveralTypes>>,
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.request.fmt(f)
    }
}

impl ProberHandle {
    /// Reads the queue of a worker type, or all its queues. Always answers, within about two response time-outs:
    /// without Redis by saying so.
    pub async fn ask(&self, request: Request) -> Answer {
        if let Some(several) = &self.several
            && let Some(of) = several.types.get(&request.index)
        {
            // Boxed, because it is rare, and would be part of the observation under way of every worker type.
            return Box::pin(self.ask_all(of, &several.directory, request)).await;
        }
        self.ask_one(request, None).await
    }

    /// No more than one pipeline at once: other worker types have their turn between them.
    async fn ask_all(&self, of: &Several, directory: &Directory, request: Request) -> Answer {
        let current = of.current(directory);
        let Request { index, mut heartbeats } = request;
        let questions = current.unread().map(|part| {
            let request = Request { index, heartbeats: std::mem::take(&mut heartbeats) };
            self.ask_one(request, Some(part.clone()))
        });
        // Gathered first: the heartbeats go with the first of them.
        let questions: Vec<_> = questions.collect();
        let answers = stream::iter(questions).buffered(MAX_BATCH).collect().await;
        of.answer(&current, answers, directory)
    }

    async fn ask_one(&self, request: Request, part: Option<Arc<Part>>) -> Answer {
        let (reply, answer) = oneshot::channel();
        if self.requests.send(Asked { request, part, reply }).await.is_err() {
            return Answer::failed("the prober has stopped");
        }
        answer.await.unwrap_or_else(|_| Answer::failed("the connection to redis was lost"))
    }

    /// A handle answered by a function instead of Redis.
    #[cfg(test)]
    pub(crate) fn answered_by(answer: impl Fn(&Request) -> Answer + Send + 'static) -> Self {
        let (requests, mut asked) = mpsc::channel::<Asked>(REQUEST_CAPACITY);
        let (_, redis_error) = watch::channel(None);
        tokio::spawn(async move {
            while let Some(Asked { request, reply, .. }) = asked.recv().await {
                let _ = reply.send(answer(&request));
            }
        });
        Self { requests, redis_error, several: None }
    }

    /// Waits until its first attempt to connect has ended, one way or the other, but no longer than `patience`.
    pub async fn until_tried(&self, patience: Duration) {
        let mut redis_error = self.redis_error.clone();
        let _ = tokio::time::timeout(patience, redis_error.changed()).await;
    }

    /// Why Redis can't be asked; `None` while it can.
    pub fn redis_error(&self) -> Option<String> {
        self.redis_error.borrow().clone()
    }
}
