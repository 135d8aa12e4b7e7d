//! Checks of the webhooks in `[[notify]]`.

use std::collections::BTreeSet;

use super::{
    super::{
        notify::NotifySettings,
        origin::{dotted, element_of, join, pointer},
    },
    Checks,
};

impl Checks<'_> {
    pub(super) fn notify(&mut self, webhooks: &[NotifySettings]) {
        let mut names = BTreeSet::new();
        for (index, webhook) in webhooks.iter().enumerate() {
            let at = element_of(&pointer(&["notify"]), index);
            self.problems(&at, webhook.problems());
            if !names.insert(webhook.name(index)) {
                let at = join(&at, "name");
                let message = format!("{} is the name of another webhook; choose a different name", dotted(&at));
                self.reject(&[at], message);
            }
        }
    }
}
