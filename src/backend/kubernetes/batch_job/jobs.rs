//! What is known of the Jobs of one worker type: those that the watch has told of, and those that were requested and
//! that it has not told of yet. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::Job;
use crate::model::Timestamp;

/// How long a request counts that no list confirms. A list may be from before the request, and not by more than the
/// request and the list take.
const UNLISTED_LIMIT: Duration = Duration::from_secs(60);

/// See the [module](self).
#[derive(Debug, Default)]
pub(in crate::backend::kubernetes) struct Jobs {
    known: BTreeMap<String, Job>,
    /// By name: when they were requested.
    requested: BTreeMap<String, Timestamp>,
}

impl Jobs {
    /// Takes in a Job that the watch tells of. `true` if it changes what others see.
    pub(in crate::backend::kubernetes) fn see(&mut self, job: Job) -> bool {
        let was_requested = self.requested.remove(&job.name).is_some();
        let is_changed = self.known.get(&job.name) != Some(&job);
        self.known.insert(job.name.clone(), job);
        was_requested || is_changed
    }

    /// A Job is gone.
    pub(in crate::backend::kubernetes) fn remove(&mut self, name: &str) -> bool {
        let was_requested = self.requested.remove(name).is_some();
        self.known.remove(name).is_some() || was_requested
    }

    /// Forgets those that are not in a complete list. A request that may be younger than the list stays.
    pub(in crate::backend::kubernetes) fn keep(&mut self, listed: &BTreeSet<String>, now: Timestamp) -> bool {
        let before = self.known.len() + self.requested.len();
        self.requested.retain(|name, at| listed.contains(name) || now.since(*at) < UNLISTED_LIMIT);
        self.known.retain(|name, _| listed.contains(name) || self.requested.contains_key(name));
        before != self.known.len() + self.requested.len()
    }

    /// A Job is about to be requested.
    pub(in crate::backend::kubernetes) fn request(&mut self, name: &str, now: Timestamp) {
        self.requested.insert(name.to_owned(), now);
    }

    /// The request was answered. The watch may have told more by then.
    pub(in crate::backend::kubernetes) fn answered(&mut self, job: Job) {
        if self.requested.contains_key(&job.name) {
            self.known.entry(job.name.clone()).or_insert(job);
        }
    }

    /// The uid of a Job, if it is known.
    pub(in crate::backend::kubernetes) fn uid(&self, name: &str) -> Option<&str> {
        self.known.get(name).map(|job| job.uid.as_str())
    }

    /// Whether a Job is there or was requested, and is not over.
    pub(in crate::backend::kubernetes) fn is_unfinished(&self, name: &str) -> bool {
        self.known.get(name).map_or_else(|| self.requested.contains_key(name), |job| !job.finished)
    }

    /// Whether a Job was requested, and nothing else is known of it.
    pub(in crate::backend::kubernetes) fn is_only_requested(&self, name: &str) -> bool {
        self.requested.contains_key(name) && !self.known.contains_key(name)
    }

    /// Those that were made of a CronJob and are not over.
    pub(in crate::backend::kubernetes) fn unfinished_of<'a>(
        &'a self,
        cron_job: &'a str,
    ) -> impl Iterator<Item = &'a Job> {
        self.known.values().filter(move |job| !job.finished && job.template.as_deref() == Some(cron_job))
    }

    /// Those that were requested and of which nothing else is known, and since when.
    pub(in crate::backend::kubernetes) fn only_requested(&self) -> impl Iterator<Item = (&str, Timestamp)> {
        let unknown = self.requested.iter().filter(|(name, _)| !self.known.contains_key(*name));
        unknown.map(|(name, at)| (name.as_str(), *at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str) -> Job {
        Job { name: name.to_owned(), uid: format!("uid-{name}"), template: Some("c".to_owned()), ..Job::default() }
    }

    fn names(jobs: &Jobs) -> Vec<String> {
        let requested = jobs.only_requested().map(|(name, _)| name.to_owned());
        jobs.unfinished_of("c").map(|job| job.name.clone()).chain(requested).collect()
    }

    #[test]
    fn a_request_counts_until_the_watch_tells_of_it_and_outlives_an_older_list() {
        let mut jobs = Jobs::default();
        jobs.request("a", Timestamp(0));
        assert!(names(&jobs) == ["a"] && jobs.is_only_requested("a"));
        jobs.answered(job("a"));
        jobs.keep(&BTreeSet::new(), Timestamp(1_000));
        assert_eq!((names(&jobs), jobs.uid("a")), (vec!["a".to_owned()], Some("uid-a")));
        assert!(jobs.see(job("a")) && !jobs.see(job("a")), "told once, that is no news");
        jobs.keep(&BTreeSet::new(), Timestamp(2_000));
        assert_eq!(names(&jobs), [""; 0], "the list is younger than what the watch has told");
    }

    #[test]
    fn a_request_that_nothing_confirms_is_forgotten_with_a_list() {
        let mut jobs = Jobs::default();
        jobs.request("a", Timestamp(0));
        jobs.keep(&BTreeSet::new(), Timestamp(59_000));
        assert!(jobs.is_unfinished("a"));
        assert!(jobs.keep(&BTreeSet::new(), Timestamp(60_000)) && !jobs.is_unfinished("a"));
    }

    #[test]
    fn an_answer_that_comes_after_the_end_brings_nothing_back() {
        let mut jobs = Jobs::default();
        jobs.request("a", Timestamp(0));
        jobs.see(job("a"));
        jobs.remove("a");
        jobs.answered(job("a"));
        assert_eq!(names(&jobs), [""; 0]);
        jobs.request("b", Timestamp(0));
        jobs.see(Job { finished: true, ..job("b") });
        jobs.answered(job("b"));
        assert!(!jobs.is_unfinished("b"), "it has ended meanwhile");
    }

    #[test]
    fn jobs_of_others_do_not_count() {
        let mut jobs = Jobs::default();
        jobs.see(Job { template: None, ..job("by-hand") });
        jobs.see(Job { template: Some("other".to_owned()), ..job("of-another") });
        assert_eq!(names(&jobs), [""; 0]);
    }
}
