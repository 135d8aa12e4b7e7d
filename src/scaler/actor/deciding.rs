//! The decision of an actor, within the budget that all actors share.

use std::sync::Arc;

use super::{Actor, Consequence};
use crate::{
    model::{Timestamp, control::Control},
    policy::{Decision, Observation, Reason, decide_under, recommend},
    scaler::budget::{Budget, Participation},
};

impl Actor {
    /// Shares a budget with other actors.
    pub fn share_budget(&mut self, budget: Arc<Budget>) {
        self.budget = Some(budget);
    }

    /// Decides, within the budget if there is one. `acts` says whether the decision is carried out.
    pub(super) fn decide(
        &mut self,
        control: Option<&Control>,
        observation: &Observation,
        acts: bool,
        now: Timestamp,
    ) -> Decision {
        if self.consequence == Consequence::Recommend {
            return self.recommend(control, observation, now);
        }
        let free = |observation: &Observation| decide_under(control, &self.settings, observation, &self.history, now);
        let Some(budget) = &self.budget else { return free(observation) };
        let grows = control.is_none_or(|control| control.mode.acts());
        let decision =
            budget.decide(&self.worker_type, &observation.pool, Participation { acts, grows }, |allowance| {
                match allowance {
                    None => free(observation),
                    Some(_) => free(&Observation { allowance, ..observation.clone() }),
                }
            });
        Arc::make_mut(&mut self.snapshot).allowance = decision.reasons.iter().find_map(|reason| match reason {
            Reason::Budget(allowance) => Some(*allowance),
            _ => None,
        });
        decision
    }

    fn recommend(&mut self, control: Option<&Control>, observation: &Observation, now: Timestamp) -> Decision {
        let (decision, recommended) = recommend(control, &self.settings, observation, &self.history, now);
        self.history.recommended = recommended.or(self.history.recommended);
        Arc::make_mut(&mut self.snapshot).recommended = recommended;
        decision
    }
}
