//! Volumes that were given to a machine before the API says so, so that no two machines get the same one. Pure.

use std::{collections::HashMap, time::Duration};

use super::api::Volume;
use crate::model::Timestamp;

/// How long a claim holds that no list confirms: well above the time of a launch with all its attempts.
const CLAIM: Duration = Duration::from_secs(300);

/// Claims by volume.
#[derive(Debug, Default)]
pub(super) struct ClaimedVolumes(HashMap<String, Timestamp>);

impl ClaimedVolumes {
    /// Claims a volume that was made for a machine.
    pub(super) fn claim(&mut self, volume: &str, now: Timestamp) {
        self.0.insert(volume.to_owned(), now);
    }

    /// The machine was not made.
    pub(super) fn release(&mut self, volume: &str) {
        self.0.remove(volume);
    }

    /// Claims a volume of a list that fits, is attached to no machine and is not claimed. The claim of a volume that
    /// the list shows as attached ends here: from then on the lists tell whether it is free, also after its machine is
    /// gone.
    pub(super) fn claim_one(
        &mut self,
        listed: &[Volume],
        fits: impl Fn(&Volume) -> bool,
        now: Timestamp,
    ) -> Option<String> {
        let (attached, free): (Vec<_>, Vec<_>) =
            listed.iter().partition(|volume| volume.attached_machine_id.as_deref().is_some_and(|id| !id.is_empty()));
        self.0.retain(|id, at| now.since(*at) < CLAIM && !attached.iter().any(|volume| volume.id == *id));
        let volume = free.into_iter().find(|volume| fits(volume) && !self.0.contains_key(&volume.id))?;
        self.claim(&volume.id, now);
        Some(volume.id.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(id: &str, attached_to: Option<&str>) -> Volume {
        Volume { id: id.to_owned(), attached_machine_id: attached_to.map(str::to_owned), ..Volume::default() }
    }

    fn claim(claims: &mut ClaimedVolumes, listed: &[Volume], at: u64) -> Option<String> {
        claims.claim_one(listed, |_| true, Timestamp(at))
    }

    #[test]
    fn a_volume_is_given_to_one_machine_and_is_free_again_after_it() {
        let mut claims = ClaimedVolumes::default();
        let free = [volume("a", None)];
        assert_eq!(claim(&mut claims, &free, 0).as_deref(), Some("a"));
        assert_eq!(claim(&mut claims, &free, 1), None, "no list says so yet");
        assert_eq!(claim(&mut claims, &[volume("a", Some("m1"))], 2), None);
        assert_eq!(claim(&mut claims, &free, 3).as_deref(), Some("a"), "the machine is gone");
        claims.release("a");
        assert_eq!(claim(&mut claims, &free, 4).as_deref(), Some("a"));
    }

    #[test]
    fn a_claim_that_nothing_confirms_lapses() {
        let mut claims = ClaimedVolumes::default();
        claims.claim("a", Timestamp(0));
        let lapsed = u64::try_from(CLAIM.as_millis()).unwrap();
        assert_eq!(claim(&mut claims, &[volume("a", None)], lapsed - 1), None);
        assert_eq!(claim(&mut claims, &[volume("a", None)], lapsed).as_deref(), Some("a"));
    }
}
