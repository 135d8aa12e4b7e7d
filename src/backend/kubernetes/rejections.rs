//! Pods of one worker type that nodes refused to run. Their controller makes others at once, up to 15 a second, so they
//! are counted and not told one by one. Pure.

use std::time::Duration;

use crate::model::Timestamp;

/// An episode is over when no node has refused a pod for this long: longer than a controller waits between two pods.
const LAPSE: Duration = Duration::from_secs(60);

/// The present episode, if there is one.
#[derive(Debug, Default)]
pub(super) struct Rejections(Option<Episode>);

/// Pods that were refused one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Episode {
    /// In the words of the kubelet, of the last one.
    pub(super) reason: String,
    pub(super) pods: u64,
    last: Timestamp,
}

impl Rejections {
    /// Counts a pod. `true` if it begins an episode.
    pub(super) fn note(&mut self, reason: &str, now: Timestamp) -> bool {
        let begins = self.0.is_none();
        let pods = self.0.as_ref().map_or(0, |episode| episode.pods) + 1;
        self.0 = Some(Episode { reason: reason.to_owned(), pods, last: now });
        begins
    }

    /// Takes the episode if it is over.
    pub(super) fn ended(&mut self, now: Timestamp) -> Option<Episode> {
        self.0.take_if(|episode| now.since(episode.last) >= LAPSE)
    }

    /// Returns why nodes reject pods at present, and how many they have rejected.
    pub(super) fn current(&self) -> Option<(String, u64)> {
        self.0.as_ref().map(|episode| (episode.reason.clone(), episode.pods))
    }

    /// Returns why pods are missing, if nodes refuse them at present.
    pub(super) fn reason(&self) -> Option<String> {
        self.0.as_ref().map(|Episode { reason, pods, .. }| format!("{reason} ({pods} pods refused)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_episode_begins_once_and_ends_with_its_count() {
        let mut rejections = Rejections::default();
        assert!(rejections.note("OutOfcpu", Timestamp(0)));
        assert!((1..285).all(|at| !rejections.note("OutOfcpu", Timestamp(at * 70))));
        assert_eq!(rejections.reason().as_deref(), Some("OutOfcpu (285 pods refused)"));
        assert_eq!(rejections.ended(Timestamp(60_000)), None);
        assert_eq!(rejections.ended(Timestamp(80_000)).map(|episode| episode.pods), Some(285));
        assert_eq!((rejections.reason(), rejections.ended(Timestamp(90_000))), (None, None));
        assert!(rejections.note("OutOfcpu", Timestamp(90_000)), "a new one");
    }
}
