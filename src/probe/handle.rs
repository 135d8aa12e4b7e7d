//! Requests to a running prober: for one queue, or for all queues of a worker type.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Answer,
    heartbeat::WorkerKeys,
    part::Part,
    several::{Several, SeveralSpec},
};
use crate::signal::Directory;

/// Maximum queues in one pipeline. Large enough that a sweep takes a hundred round trips per ten thousand queues, small
/// enough that a probe during a sweep does not wait long behind it.
pub(super) const MAX_BATCH: usize = 128;

/// Maximum requests that wait for a batch; beyond it actors wait.
pub(super) const REQUEST_CAPACITY: usize = 1_024;

/// A request for one probe.
#[derive(Debug)]
pub struct Request {
    /// Index of the worker type.
    pub index: u32,
    /// Keys of workers to read with the queue.
    pub workers: WorkerKeys,
}

pub(super) struct Asked {
    pub(super) request: Request,
    /// The queue to read, if the worker type has several; `None`: its only one.
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
    /// Returns `None` if no worker type has several queues.
    pub(super) fn new(specs: Vec<SeveralSpec>, directory: &Arc<Directory>) -> Option<Arc<Self>> {
        let types: HashMap<_, _> = specs.into_iter().map(|spec| (spec.index, Several::new(spec))).collect();
        (!types.is_empty()).then(|| Arc::new(Self { types, directory: directory.clone() }))
    }
}

/// Sends requests to a running [`Prober`](super::Prober).
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
    /// Reads the queue of a worker type, or all its queues. Always answers, within about two response timeouts; without
    /// Redis with an error.
    pub async fn ask(&self, request: Request) -> Answer {
        if let Some(several) = &self.several
            && let Some(of) = several.types.get(&request.index)
        {
            // Boxed, because it is rare and would otherwise enlarge every worker type's observation in progress.
            return Box::pin(self.ask_all(of, &several.directory, request)).await;
        }
        self.ask_one(request, None).await
    }

    /// Reads all queues with at most one pipeline at a time, so that other worker types have their turn in between.
    async fn ask_all(&self, of: &Several, directory: &Directory, request: Request) -> Answer {
        let current = of.current(directory);
        let Request { index, mut workers } = request;
        let questions = current.unread().map(|part| {
            let request = Request { index, workers: std::mem::take(&mut workers) };
            self.ask_one(request, Some(part.clone()))
        });
        // Collected first: the workers go with the first request.
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

    /// Returns a handle whose requests a function answers instead of Redis.
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

    /// Waits until the prober's first attempt to connect has succeeded or failed, for at most `patience`.
    pub async fn until_tried(&self, patience: Duration) {
        let mut redis_error = self.redis_error.clone();
        let _ = tokio::time::timeout(patience, redis_error.changed()).await;
    }

    /// Returns why Redis can't be asked; `None` while it can.
    pub fn redis_error(&self) -> Option<String> {
        self.redis_error.borrow().clone()
    }
}
