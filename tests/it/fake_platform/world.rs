//! The workers of the fake, and what is to go wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use serde_json::{Value, json};

use super::contract::Ask;

/// How the requests of an operation go wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Refused with this status, not carried out; with `Retry-After`, if given.
    Refused(u16, Option<u32>),
    /// Sent to another server.
    Redirected(SocketAddr),
    /// Carried out, and answered with 500.
    Lost,
    /// Carried out, and never answered.
    Silent,
    /// The connection breaks within the answer.
    Cut,
    /// Answered with something else.
    Garbage,
    /// Answered without end.
    Endless,
}

/// Everything that it has.
#[derive(Debug, Default)]
pub(crate) struct World {
    workers: Vec<Hosted>,
    started: u64,
    /// Whether there is no room for further workers.
    pub(crate) full: bool,
    /// The token that it accepts; without one it accepts everybody.
    pub(crate) token: Option<String>,
    pub(super) faults: BTreeMap<&'static str, Fault>,
    /// Method and path of each request.
    pub(crate) log: Vec<String>,
    /// Operations that were asked for.
    pub(crate) operations: BTreeSet<String>,
    /// Number of requests to watch.
    pub(crate) watchers: usize,
    /// What was not as the document says.
    pub(super) violations: Vec<String>,
}

#[derive(Debug)]
struct Hosted {
    id: String,
    worker_id: String,
    started_at: u64,
    exited: bool,
}

impl World {
    /// Ids of the workers that run, in the order of their start.
    pub(crate) fn running(&self) -> Vec<String> {
        self.workers.iter().filter(|worker| !worker.exited).map(|worker| worker.worker_id.clone()).collect()
    }

    /// Makes a worker end by itself.
    pub(crate) fn crash(&mut self, worker_id: &str) {
        self.workers.iter_mut().find(|worker| worker.worker_id == worker_id).unwrap().exited = true;
    }

    /// Number of requests with this method and path.
    pub(crate) fn count(&self, request: &str) -> usize {
        self.log.iter().filter(|line| *line == request).count()
    }

    pub(super) fn admits(&self, authorization: &str) -> bool {
        self.token.as_ref().is_none_or(|token| authorization == format!("Bearer {token}"))
    }

    /// Returns the status and the body of the answer.
    pub(super) fn carry_out(&mut self, operation: &str, ask: &Ask) -> (u16, Value) {
        let body: Value = serde_json::from_slice(&ask.body).unwrap_or_default();
        match operation {
            "listWorkers" => (200, json!({ "workers": self.workers.iter().map(Hosted::shown).collect::<Vec<_>>() })),
            "startWorker" if self.full => no_room(),
            "startWorker" => {
                self.start(body["worker_id"].as_str().unwrap().to_owned());
                (201, Value::Null)
            }
            "stopWorker" => {
                let id = ask.path.rsplit('/').next().unwrap();
                let before = self.workers.len();
                self.workers.retain(|worker| worker.id != id);
                if self.workers.len() < before { (202, Value::Null) } else { (404, json!({ "title": "Gone" })) }
            }
            "scaleWorkers" => self.scale(usize::try_from(body["target"].as_u64().unwrap()).unwrap()),
            other => panic!("{other} is new"),
        }
    }

    /// The newest leave first.
    fn scale(&mut self, target: usize) -> (u16, Value) {
        if target > self.workers.len() && self.full {
            return no_room();
        }
        while self.workers.len() < target {
            self.start(format!("w-{}", self.started + 1));
        }
        self.workers.truncate(target);
        (204, Value::Null)
    }

    fn start(&mut self, worker_id: String) {
        self.started += 1;
        let (id, started_at) = (format!("h-{}", self.started), 1_700_000_000 + self.started);
        self.workers.push(Hosted { id, worker_id, started_at, exited: false });
    }
}

impl Hosted {
    fn shown(&self) -> Value {
        let mut shown = json!({ "id": self.id, "worker_id": self.worker_id, "started_at": self.started_at });
        shown["state"] = json!(if self.exited { "exited" } else { "running" });
        if self.exited {
            shown["exit_code"] = json!(1);
        }
        shown
    }
}

fn no_room() -> (u16, Value) {
    (503, json!({ "title": "Full", "detail": "no room for another worker" }))
}
