//! The simulated workers: the backend's list, the heartbeats, and which worker takes the next job.

use std::collections::VecDeque;

use crate::{
    backend::{Instance, Phase, Pool, ScaleReport, ScaleRequest},
    model::{Reading, Timestamp, WorkerId, WorkerState},
    probe::{ConsumerPending, Heartbeat, Heartbeats},
};

/// Number of a worker, in the order of starts.
pub(super) type Number = usize;

/// Index of a job in the trace.
pub(super) type JobIndex = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Starting,
    Ready,
    Draining,
    Gone,
}

#[derive(Debug)]
struct Worker {
    id: WorkerId,
    started_at: Timestamp,
    stage: Stage,
    jobs: Vec<JobIndex>,
    /// Whether the worker is in [`SimPool::free`].
    waits: bool,
}

/// Workers by stage, and their jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) starting: u32,
    pub(super) ready: u32,
    pub(super) draining: u32,
    /// Ready and draining workers that hold a job.
    pub(super) busy: u32,
    /// Jobs that workers hold.
    pub(super) held: u32,
}

impl Counts {
    /// Returns the workers that exist and so cost something.
    pub(super) fn existing(self) -> u32 {
        self.starting + self.ready + self.draining
    }
}

/// Result of a request to scale.
#[derive(Debug, Default)]
pub(super) struct Scaling {
    pub(super) report: ScaleReport,
    /// Workers that start now.
    pub(super) started: Vec<Number>,
    /// Workers that finish their jobs before they leave.
    pub(super) draining: Vec<Number>,
    /// Whether some workers left immediately.
    pub(super) left: bool,
}

/// The workers of one type.
#[derive(Debug)]
pub(super) struct SimPool {
    concurrency: u32,
    /// Whether the workers write heartbeats.
    heartbeats: bool,
    /// All workers ever started.
    workers: Vec<Worker>,
    /// Workers that exist, in the order of their start.
    live: Vec<Number>,
    /// Ready workers with room for a job, the one that is free longest first: Redis gives it the next entry.
    free: VecDeque<Number>,
    counts: Counts,
}

impl SimPool {
    pub(super) fn new(concurrency: u32, heartbeats: bool) -> Self {
        let counts = Counts::default();
        Self { concurrency, heartbeats, workers: Vec::new(), live: Vec::new(), free: VecDeque::new(), counts }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns the number of workers ever started.
    pub(super) fn started(&self) -> usize {
        self.workers.len()
    }

    /// Adds a worker that is not ready yet.
    pub(super) fn start(&mut self, now: Timestamp) -> Number {
        let number = self.workers.len();
        let id = WorkerId::new(format!("sim-{number}"));
        let jobs = Vec::new();
        self.workers.push(Worker { id, started_at: now, stage: Stage::Starting, jobs, waits: false });
        self.live.push(number);
        self.counts.starting += 1;
        number
    }

    /// Marks a worker as ready. Returns `false` if the worker was let go in the meantime.
    pub(super) fn become_ready(&mut self, number: Number) -> bool {
        let worker = &mut self.workers[number];
        if worker.stage != Stage::Starting {
            return false;
        }
        worker.stage = Stage::Ready;
        self.counts.starting -= 1;
        self.counts.ready += 1;
        self.wait_for_jobs(number);
        true
    }

    fn wait_for_jobs(&mut self, number: Number) {
        let worker = &mut self.workers[number];
        let room = worker.jobs.len() < self.concurrency as usize;
        if worker.stage == Stage::Ready && room && !worker.waits {
            worker.waits = true;
            self.free.push_back(number);
        }
    }

    /// Returns whether a worker can take a job.
    pub(super) fn has_room(&mut self) -> bool {
        while let Some(&first) = self.free.front() {
            if self.workers[first].stage == Stage::Ready {
                return true;
            }
            self.free.pop_front();
        }
        false
    }

    /// Gives a job to the worker that has waited longest. Call it only if there [is room](Self::has_room).
    pub(super) fn give(&mut self, job: JobIndex) -> Number {
        let number = self.free.pop_front().expect("the caller has asked whether there is room");
        let worker = &mut self.workers[number];
        worker.waits = false;
        self.counts.held += 1;
        if worker.jobs.is_empty() {
            self.counts.busy += 1;
        }
        worker.jobs.push(job);
        self.wait_for_jobs(number);
        number
    }

    /// Finishes a job. Returns `None` if its worker was stopped before; otherwise whether the worker leaves now.
    pub(super) fn finish(&mut self, number: Number, job: JobIndex) -> Option<bool> {
        let worker = &mut self.workers[number];
        let place = worker.jobs.iter().position(|held| *held == job)?;
        worker.jobs.swap_remove(place);
        self.counts.held -= 1;
        let idle = worker.jobs.is_empty();
        if idle {
            self.counts.busy -= 1;
        }
        let leaves = idle && worker.stage == Stage::Draining;
        if leaves {
            self.remove(number);
        } else {
            self.wait_for_jobs(number);
        }
        Some(leaves)
    }

    /// Carries out a request, as [`ScaleRequest`] says.
    pub(super) fn scale(&mut self, request: &ScaleRequest, now: Timestamp) -> Scaling {
        let mut scaling = Scaling::default();
        for id in &request.retire {
            let Some(&number) = self.live.iter().find(|number| self.workers[**number].id == *id) else { continue };
            scaling.report.retired.push(id.clone());
            match self.workers[number].stage {
                Stage::Ready if !self.workers[number].jobs.is_empty() => {
                    self.workers[number].stage = Stage::Draining;
                    self.counts.ready -= 1;
                    self.counts.draining += 1;
                    scaling.draining.push(number);
                }
                Stage::Starting | Stage::Ready => {
                    self.remove(number);
                    scaling.left = true;
                }
                Stage::Draining | Stage::Gone => {}
            }
        }
        while self.counts.starting + self.counts.ready < request.target {
            let number = self.start(now);
            scaling.report.started.push(self.workers[number].id.clone());
            scaling.started.push(number);
        }
        scaling
    }

    /// Stops a worker that did not finish within its drain timeout. Returns the jobs that it held; none if it is gone.
    pub(super) fn stop_hard(&mut self, number: Number) -> Vec<JobIndex> {
        let jobs = std::mem::take(&mut self.workers[number].jobs);
        if !jobs.is_empty() {
            self.counts.busy -= 1;
            self.counts.held -= u32::try_from(jobs.len()).unwrap_or(u32::MAX);
            self.remove(number);
        }
        jobs
    }

    fn remove(&mut self, number: Number) {
        let worker = &mut self.workers[number];
        match worker.stage {
            Stage::Starting => self.counts.starting -= 1,
            Stage::Ready => self.counts.ready -= 1,
            Stage::Draining => self.counts.draining -= 1,
            Stage::Gone => return,
        }
        worker.stage = Stage::Gone;
        self.live.retain(|live| *live != number);
    }

    /// Returns the list of workers as a backend returns it.
    pub(super) fn list(&self) -> Pool {
        let instance = |number: &Number| {
            let worker = &self.workers[*number];
            let phase = if worker.stage == Stage::Draining { Phase::Draining } else { Phase::Running };
            Instance::new(worker.id.clone(), phase, worker.started_at)
        };
        Pool { instances: self.live.iter().map(instance).collect(), ..Pool::default() }
    }

    /// Returns the workers' heartbeats, in the order of the list; `None` for a worker that is not ready.
    pub(super) fn heartbeats(&self) -> Heartbeats {
        let heartbeat = |number: &Number| {
            let worker = &self.workers[*number];
            let state = if worker.jobs.is_empty() { WorkerState::Idle } else { WorkerState::Busy };
            let speaks = self.heartbeats && worker.stage != Stage::Starting;
            Reading::Known(speaks.then_some(Heartbeat { state, sessions: 0, places: None }))
        };
        Reading::Known(self.live.iter().map(heartbeat).collect())
    }

    /// Returns the workers that hold jobs. Empty if the workers write heartbeats, which say the same at a lower cost.
    pub(super) fn consumers(&self) -> Reading<Vec<ConsumerPending>> {
        let holding = self.live.iter().map(|number| &self.workers[*number]).filter(|worker| !worker.jobs.is_empty());
        let consumer =
            |worker: &Worker| ConsumerPending { name: worker.id.as_str().to_owned(), jobs: worker.jobs.len() as u64 };
        Reading::Known(holding.filter(|_| !self.heartbeats).map(consumer).collect())
    }

    /// Returns the job in progress that arrived first.
    pub(super) fn oldest_job(&self) -> Option<JobIndex> {
        self.live.iter().flat_map(|number| &self.workers[*number].jobs).min().copied()
    }
}
