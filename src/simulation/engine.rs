//! The event loop: advances from event to event and drives the real actor.

use std::{cmp::Reverse, collections::BinaryHeap, collections::VecDeque, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    Report, ScaleStep, SimTime, Times, Trace,
    pool::{JobIndex, Number, SimPool},
    random::{Purpose, Random, row},
    report::Counted,
    stats::{Levels, Stats},
};
use crate::{
    backend::ScaleRequest,
    config::{ScalerSettings, WorkerTypeSettings},
    evidence::Channel,
    model::{Counters, Demand, Reading, Source, Timestamp, WorkerType},
    queue_kind::Delivery,
    scaler::{Actor, Budget, Consequence, Effect, Expected, Heard, Input, Observed, Scaled, WorkerTracker},
    signal::Signals,
};

/// Events between two reports of progress.
const PROGRESS: u64 = 1 << 14;

/// Inputs of a simulation besides its trace.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Worker type that is simulated.
    pub worker_type: WorkerType,
    /// Settings of the worker type.
    pub settings: WorkerTypeSettings,
    /// Settings of the scaler: sweep interval and debounce.
    pub scaler: ScalerSettings,
    /// Time from the request for a worker until the worker takes its first job.
    pub startup: Times,
    /// Workers that exist and are ready at the beginning.
    pub initial: u32,
    /// How long the simulation continues after the end of the trace.
    pub tail: Duration,
    /// Seed of the random start-up times.
    pub seed: u64,
}

/// An event that is due at a time of its own. Events of the same time happen in the order of the variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A worker finished a job.
    Done(Number, JobIndex),
    /// A worker became ready.
    Ready(Number),
    /// The drain timeout of a worker ended.
    DrainEnds(Number),
}

/// Kind of the next step.
#[derive(Clone, Copy)]
enum Next {
    Event(Event),
    Arrivals,
    Sweep,
    Tick,
}

struct Engine<'a> {
    setup: &'a Setup,
    trace: &'a Trace,
    /// Base of the instants that signals carry. Only differences count, so the result does not depend on it.
    instant: Instant,
    now: SimTime,
    /// Time before `now` at which the actions before the beginning took place.
    before: Duration,
    actor: Actor,
    worker_tracker: WorkerTracker,
    pool: SimPool,
    events: BinaryHeap<Reverse<(SimTime, u64, Event)>>,
    scheduled: u64,
    next_sweep: SimTime,
    starts: Random,
    /// Index of the next job to arrive: all jobs before it have arrived.
    arrived: JobIndex,
    /// Index of the next job to be started for the first time: all jobs before it were started.
    begun: JobIndex,
    /// Jobs of workers that were stopped; they are first in the queue.
    returned: VecDeque<JobIndex>,
    counted: Counted,
    stats: Stats,
}

/// Runs a simulation. Calls `progress` from time to time with the finished share, 0 to 1.
pub fn simulate(setup: &Setup, trace: &Trace, progress: &mut dyn FnMut(f64)) -> Report {
    let horizon = SimTime::START.after(trace.lasts).after(setup.tail);
    let mut engine = Engine::new(setup, trace, horizon.since(SimTime::START));
    engine.begin();
    let mut steps = 0_u64;
    while let Some((at, next)) = engine.next().filter(|(at, _)| *at <= horizon) {
        engine.step(at, next);
        steps += 1;
        if steps.is_multiple_of(PROGRESS) {
            progress(at.seconds() / horizon.seconds());
        }
    }
    engine.finish(horizon)
}

impl<'a> Engine<'a> {
    fn new(setup: &'a Setup, trace: &'a Trace, horizon: Duration) -> Self {
        let worker = &setup.settings.worker;
        let mut actor = Actor::new(
            setup.worker_type.clone(),
            &setup.settings.queue(setup.worker_type.as_str()),
            Arc::new(setup.settings.scaling.clone()),
            setup.scaler.debounce(),
            Consequence::Scale,
            None,
            trace.begins,
        );
        if let Some(total) = setup.scaler.max_total_workers {
            let budget = Budget::default();
            budget.share([(setup.worker_type.clone(), &setup.settings.scaling)], Some(total));
            actor.share_budget(Arc::new(budget));
        }
        Self {
            setup,
            trace,
            instant: Instant::now(),
            now: SimTime::START,
            before: Duration::ZERO,
            actor,
            worker_tracker: WorkerTracker::default(),
            pool: SimPool::new(worker.concurrency, worker.heartbeats),
            events: BinaryHeap::new(),
            scheduled: 0,
            next_sweep: SimTime::START.after(setup.scaler.sweep_interval()),
            starts: row(setup.seed, Purpose::Starts),
            arrived: 0,
            begun: 0,
            returned: VecDeque::new(),
            counted: Counted { jobs: trace.jobs.len(), ..Counted::default() },
            stats: Stats::new(horizon),
        }
    }

    fn clock(&self) -> Timestamp {
        let now = self.now.on_clock(self.trace.begins);
        Timestamp(now.0.saturating_sub(u64::try_from(self.before.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Sets up the initial pool and makes the first evaluation, as after the start of an autoscaler. The evaluation
    /// lies one debounce interval in the past, so it does not delay the first job.
    fn begin(&mut self) {
        for _ in 0..self.setup.initial {
            let number = self.pool.start(self.clock());
            self.pool.become_ready(number);
        }
        self.before = self.setup.scaler.debounce();
        self.tell(Input::Leads(None));
        self.signal(Source::Resync);
        self.before = Duration::ZERO;
        self.settle();
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((self.now.after(after), self.scheduled, event)));
    }

    /// Returns the next step and its time. At the same time, events come first, then arrivals, then evaluations.
    fn next(&self) -> Option<(SimTime, Next)> {
        let event = self.events.peek().map(|Reverse((at, _, event))| (*at, Next::Event(*event)));
        let arrival = self.trace.jobs.get(self.arrived).map(|job| (job.arrives, Next::Arrivals));
        let wake =
            self.actor.next_wake().map(|at| (SimTime::of_clock(at, self.trace.begins).max(self.now), Next::Tick));
        [event, arrival, Some((self.next_sweep, Next::Sweep)), wake].into_iter().flatten().min_by_key(|next| next.0)
    }

    fn step(&mut self, at: SimTime, next: Next) {
        self.stats.advance(at);
        self.now = at;
        match next {
            Next::Event(event) => {
                self.events.pop();
                self.happen(event);
            }
            Next::Arrivals => self.arrive(),
            Next::Sweep => {
                self.next_sweep = self.now.after(self.setup.scaler.sweep_interval());
                self.signal(Source::Sweep);
            }
            Next::Tick => self.tell(Input::Tick),
        }
        self.settle();
    }

    /// Records the present levels in the statistics.
    fn settle(&mut self) {
        let desired = self.actor.snapshot().desired;
        self.stats.set(Levels { waiting: self.waiting() as u64, desired, workers: self.pool.counts() });
    }

    fn waiting(&self) -> usize {
        self.returned.len() + self.arrived - self.begun
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Done(worker, job) => {
                let Some(leaves) = self.pool.finish(worker, job) else { return };
                self.counted.finished += 1;
                self.hand_out();
                if leaves {
                    self.signal(Source::Backend);
                }
            }
            Event::Ready(worker) => {
                if self.pool.become_ready(worker) {
                    self.hand_out();
                    self.signal(Source::Backend);
                }
            }
            Event::DrainEnds(worker) => {
                let jobs = self.pool.stop_hard(worker);
                if !jobs.is_empty() {
                    self.counted.redone += jobs.len();
                    self.returned.extend(jobs);
                    self.hand_out();
                    self.signal(Source::Backend);
                }
            }
        }
    }

    /// Adds all jobs that arrive now. Jobs that arrive together cause one signal.
    fn arrive(&mut self) {
        while self.trace.jobs.get(self.arrived).is_some_and(|job| job.arrives <= self.now) {
            self.arrived += 1;
            self.stats.arrival();
        }
        self.hand_out();
        self.signal(Source::Keyspace);
    }

    /// Hands waiting jobs to workers that have room.
    fn hand_out(&mut self) {
        while self.waiting() > 0 && self.pool.has_room() {
            let job = self.returned.pop_front().unwrap_or_else(|| {
                self.begun += 1;
                let job = self.begun - 1;
                self.counted.waits.push(self.now.0 - self.trace.jobs[job].arrives.0);
                job
            });
            let worker = self.pool.give(job);
            self.schedule(self.trace.jobs[job].service, Event::Done(worker, job));
        }
    }

    fn signal(&mut self, source: Source) {
        let at = self.instant + self.now.since(SimTime::START);
        self.tell(Input::Signals(Signals::one(source, at)));
    }

    /// Passes an input to the actor, and carries out its effects until it asks for nothing more.
    fn tell(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let instant = self.instant + self.now.since(SimTime::START);
            for effect in self.actor.apply(input, self.clock(), instant) {
                match effect {
                    Effect::Observe | Effect::ObserveInFull => inputs.push_back(self.observe()),
                    Effect::Scale(request, _) => inputs.extend(self.scale(&request)),
                    // Simulated workers hear their signal.
                    Effect::AskAgain(_) => {}
                    Effect::Record(record) => self.counted.changes.push(ScaleStep {
                        at_seconds: self.now.seconds(),
                        from: record.from,
                        to: record.to,
                        reason: record.reason,
                    }),
                }
            }
        }
    }

    /// Returns an observation: everything that the decision is based on.
    fn observe(&mut self) -> Input {
        let demand = self.demand();
        let (heartbeats, consumers) = (self.pool.heartbeats(), self.pool.consumers());
        let expected = Expected {
            start_grace: self.setup.settings.scaling.start_grace(),
            heartbeats: self.setup.settings.worker.heartbeats,
            is_foreign: false,
            ends_when_done: false,
            may_miss_stop_signal: false,
            heartbeat_lapse: 3 * self.setup.settings.worker.heartbeat_interval(),
            claim: Duration::ZERO,
        };
        let heard =
            Heard { heartbeats: &heartbeats, consumers: &consumers, occupation: None, channel: Channel::FLAWLESS };
        let view = self.worker_tracker.classify(self.pool.list(), &heard, expected, self.clock());
        Input::Observed(Box::new(Observed {
            demand,
            queues: None,
            counters: self.counters(),
            work: None,
            look_at: None,
            view: Ok(view),
            is_partial: false,
            control: None,
        }))
    }

    /// Returns the counters of a stream. The count of reads is left out, because a job that comes back from a worker is
    /// read twice.
    fn counters(&self) -> Counters {
        let counts = self.setup.settings.queue_kind().delivery() == Delivery::ConsumerGroup;
        Counters { added: counts.then_some(self.arrived as u64), read: None, ..Counters::default() }
    }

    /// Returns the demand as the probe would read it. A list shows neither the jobs in progress nor how long jobs have
    /// waited.
    fn demand(&self) -> Demand {
        let lag = Reading::Known(self.waiting() as u64);
        if self.setup.settings.queue_kind().delivery() == Delivery::Removal {
            let oldest = Reading::Unknown("a list does not tell how old its entries are".to_owned());
            return Demand { lag, pending: Reading::Known(0), oldest };
        }
        let next = (self.begun < self.arrived).then_some(self.begun);
        let unfinished = [next, self.returned.front().copied(), self.pool.oldest_job()];
        let oldest = unfinished.into_iter().flatten().min();
        let published = |job: JobIndex| self.trace.jobs[job].arrives.on_clock(self.trace.begins);
        let pending = Reading::Known(u64::from(self.pool.counts().held));
        Demand { lag, pending, oldest: Reading::Known(oldest.map(published)) }
    }

    /// Carries out a request to scale. Workers that leave immediately cause a signal, as real ones do.
    fn scale(&mut self, request: &ScaleRequest) -> Vec<Input> {
        let scaling = self.pool.scale(request, self.clock());
        for worker in scaling.started {
            let takes = self.setup.startup.sample(&mut self.starts);
            self.schedule(takes, Event::Ready(worker));
        }
        for worker in scaling.draining {
            self.schedule(request.drain_timeout, Event::DrainEnds(worker));
        }
        let done = Scaled { outcome: Ok(scaling.report), elapsed: Duration::ZERO, token: None };
        let mut inputs = vec![Input::Scaled(Box::new(done))];
        if scaling.left {
            let at = self.instant + self.now.since(SimTime::START);
            inputs.push(Input::Signals(Signals::one(Source::Backend, at)));
        }
        inputs
    }

    fn finish(mut self, horizon: SimTime) -> Report {
        self.stats.advance(horizon);
        self.now = horizon;
        for job in &self.trace.jobs[self.begun..self.arrived] {
            self.counted.waits.push(horizon.0 - job.arrives.0);
        }
        self.counted.started = self.pool.started() - self.setup.initial as usize;
        self.counted.evaluations = self.actor.snapshot().evaluations;
        Report::new(horizon.since(SimTime::START), self.setup.settings.worker.concurrency, self.stats, self.counted)
    }
}

#[cfg(test)]
mod tests;
