//! Which workers hold delivered jobs, for one look-up by name for each worker.

use std::collections::{HashMap, HashSet};

use crate::{
    model::Reading,
    probe::{ConsumerPending, Occupation},
};

/// The workers that hold delivered jobs.
#[derive(Debug)]
pub(in crate::scaler) struct JobHolders<'a> {
    /// Whether a worker holds jobs, by its name.
    named: HashMap<&'a str, bool>,
    /// Names of workers that say that they take no more jobs.
    quiet: HashSet<&'a str>,
    /// Whether all other workers do; `None` if that is unknown.
    others: Option<bool>,
}

impl<'a> JobHolders<'a> {
    /// Returns the holders among the consumers of a group.
    pub(in crate::scaler) fn of_group(consumers: &'a Reading<Vec<ConsumerPending>>) -> Self {
        let Some(consumers) = consumers.known() else {
            return Self { named: HashMap::new(), quiet: HashSet::new(), others: None };
        };
        let holding = consumers.iter().filter(|consumer| consumer.jobs > 0);
        let named = holding.map(|consumer| (consumer.name.as_str(), true)).collect();
        Self { named, quiet: HashSet::new(), others: Some(false) }
    }

    /// Returns the holders as the framework of the workers states them. The first statement about a worker counts.
    pub(super) fn stated(occupation: &'a Occupation) -> Self {
        let (stated, others) = match occupation {
            Occupation::Stated(workers) => (workers.as_slice(), None),
            Occupation::AllIdle => (&[][..], Some(false)),
            Occupation::Unknown => (&[][..], None),
        };
        let named = stated.iter().rev().map(|worker| (worker.name.as_str(), worker.is_busy)).collect();
        let quiet = stated.iter().filter(|worker| worker.quiet_age.is_some()).map(|worker| worker.name.as_str());
        Self { named, quiet: quiet.collect(), others }
    }

    /// Returns whether a worker says that it takes no more jobs.
    pub(super) fn is_quiet(&self, name: &str) -> bool {
        self.quiet.contains(name)
    }

    /// Returns whether a worker holds jobs; `None` if that is unknown.
    pub(in crate::scaler) fn holds_jobs(&self, name: &str) -> Option<bool> {
        self.named.get(name).copied().or(self.others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue_kind::FrameworkWorker;

    #[test]
    fn a_group_names_its_holders_and_an_unreadable_one_nobody() {
        let consumer = |name: &str, jobs| ConsumerPending { name: name.to_owned(), jobs };
        let consumers = Reading::Known(vec![consumer("busy", 2), consumer("done", 0)]);
        let holders = JobHolders::of_group(&consumers);
        let answers = ["busy", "done", "other"].map(|name| holders.holds_jobs(name));
        assert_eq!(answers, [Some(true), Some(false), Some(false)]);
        assert_eq!(JobHolders::of_group(&Reading::Failed("no permission".to_owned())).holds_jobs("busy"), None);
    }

    #[test]
    fn a_framework_states_who_is_busy_and_leaves_the_others_unknown() {
        let worker = |name: &str, is_busy| FrameworkWorker { name: name.to_owned(), is_busy, quiet_age: None };
        let stated = Occupation::Stated(vec![worker("a", true), worker("b", false), worker("a", false)]);
        let holders = JobHolders::stated(&stated);
        assert_eq!(["a", "b", "c"].map(|name| holders.holds_jobs(name)), [Some(true), Some(false), None]);
        assert_eq!(JobHolders::stated(&Occupation::AllIdle).holds_jobs("a"), Some(false));
        assert_eq!(JobHolders::stated(&Occupation::Unknown).holds_jobs("a"), None);
    }
}
