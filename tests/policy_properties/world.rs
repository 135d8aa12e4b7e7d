//! A pool whose time goes on.

use std::time::Duration;

use swarm::{
    config::ScalingSettings,
    model::{
        Demand, PoolCounts, Reading, Timestamp,
        snapshot::{Action, Change},
    },
    policy::{Decision, History, Observation, decide},
};

use crate::cases::{Case, NOW};

pub(crate) const SWEEP: Duration = Duration::from_secs(30);
/// No rule holds anything for longer.
pub(crate) const LONGEST_HOLD: Duration = Duration::from_secs(700);

/// A pool that obeys decisions, in a time that jumps from one evaluation to the next.
pub(crate) struct World {
    pub(crate) settings: ScalingSettings,
    pub(crate) history: History,
    pub(crate) now: Timestamp,
    pub(crate) counts: PoolCounts,
    pub(crate) writes: u32,
}

impl World {
    pub(crate) fn new(case: &Case) -> Self {
        Self {
            settings: case.settings.clone(),
            history: case.history.clone(),
            now: NOW,
            counts: case.counts(),
            writes: 0,
        }
    }

    /// Observes, decides, and carries the decision out at once.
    pub(crate) fn evaluate(&mut self, demand: &Demand) -> Decision {
        let decision = self.look(demand);
        if decision.action != Action::Hold {
            self.writes += 1;
            self.history.note_change(Change { at: self.now, from: decision.current, to: decision.target });
            self.counts.ready = decision.target;
            self.counts.starting = 0;
            self.counts.busy = self.counts.busy.min(decision.target);
        }
        decision
    }

    /// Observes and decides, as when nothing could be carried out.
    pub(crate) fn look(&mut self, demand: &Demand) -> Decision {
        let observation =
            Observation { demand: demand.clone(), queues: None, allowance: None, pool: Reading::Known(self.counts) };
        let decision = decide(&self.settings, &observation, &self.history, self.now);
        if let Some(recommendation) = decision.recommendation {
            self.history.note_recommendation(&self.settings, self.now, recommendation);
        }
        decision
    }

    /// Evaluates at each recheck, and at sweeps between, until a hold says that only a new observation can change it,
    /// or the schedule after a long time.
    pub(crate) fn settle(&mut self, demand: &Demand) -> Decision {
        // The past reaches 400 s, and a pool of 30 takes at most 30 steps with waits of up to 90 s.
        for _ in 0..1_000 {
            let decision = self.evaluate(demand);
            let sweep = self.now.after(SWEEP);
            let settled = decision.recheck_at.is_none_or(|at| at.since(self.now) > LONGEST_HOLD);
            if settled && decision.action == Action::Hold {
                return decision;
            }
            self.now = decision.recheck_at.map_or(sweep, |at| at.min(sweep));
        }
        panic!("still not settled: {:?}", self.look(demand));
    }
}
