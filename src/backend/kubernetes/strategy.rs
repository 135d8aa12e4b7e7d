//! The strategy of a Deployment's rollouts, and the numbers that it stands for. Pure.

use k8s_openapi::{api::apps::v1::Deployment, apimachinery::pkg::util::intstr::IntOrString};

use super::units::count;

/// The strategy of a Deployment: `maxSurge` and `maxUnavailable`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rollout {
    surge: IntOrString,
    unavailable: IntOrString,
}

impl Default for Rollout {
    fn default() -> Self {
        let quarter = IntOrString::String("25%".to_owned());
        Self { surge: quarter.clone(), unavailable: quarter }
    }
}

impl Rollout {
    /// Returns the strategy of a Deployment, with the API's defaults.
    pub(super) fn of(deployment: &Deployment) -> Self {
        let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref()?.rolling_update.as_ref());
        let default = Self::default();
        Self {
            surge: strategy.and_then(|one| one.max_surge.clone()).unwrap_or(default.surge),
            unavailable: strategy.and_then(|one| one.max_unavailable.clone()).unwrap_or(default.unavailable),
        }
    }

    /// Returns the surge and the number of unavailable pods that a count allows.
    pub(super) fn limits(&self, replicas: usize) -> (usize, usize) {
        let resolve = |value: &IntOrString, round_up: bool| match value {
            IntOrString::Int(number) => count(*number) as usize,
            IntOrString::String(text) => {
                let percent: usize = text.trim_end_matches('%').parse().unwrap_or(0);
                let share = replicas.saturating_mul(percent);
                if round_up { share.div_ceil(100) } else { share / 100 }
            }
        };
        match (resolve(&self.surge, true), resolve(&self.unavailable, false)) {
            (0, 0) => (0, 1),
            limits => limits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_round_as_the_controller_does() {
        let of = |surge: &str, unavailable: i32| Rollout {
            surge: IntOrString::String(surge.to_owned()),
            unavailable: IntOrString::Int(unavailable),
        };
        assert_eq!([1, 4, 5, 0].map(|replicas| Rollout::default().limits(replicas)), [(1, 0), (1, 1), (2, 1), (0, 1)]);
        assert_eq!((of("50%", 2).limits(3), of("0%", 0).limits(3)), ((2, 2), (0, 1)));
    }
}
