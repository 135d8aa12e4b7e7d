//! Which stream a job type goes to. Pure: knows the configured worker types, asks nobody.

use std::collections::BTreeMap;

use crate::{
    config::{QueueKind, Settings},
    model::keys,
};

/// Names another stream for job types with no worker type of their own.
const DEFAULT_STREAM_VARIABLE: &str = "JOB_STREAM";

/// A job type that can't be published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoutingError {
    /// The worker type's queue is a list, whose format is its users' own.
    #[error(
        "worker type `{worker_type}` has `kind = \"list\"`: push to the list `{queue}` in the form its workers expect"
    )]
    List {
        /// Whose queue.
        worker_type: String,
        /// Its key.
        queue: String,
    },
}

/// The table of worker types and their queues.
#[derive(Clone, Debug)]
pub struct Routes {
    queues: BTreeMap<String, (String, QueueKind)>,
    default_stream: String,
}

impl Routes {
    /// The routes of `settings`; other job types go to the stream that `JOB_STREAM` names, else `jobs`.
    pub fn from_env(settings: &Settings) -> Self {
        let named = std::env::var(DEFAULT_STREAM_VARIABLE).ok().filter(|name| !name.is_empty());
        Self::new(settings, named.unwrap_or_else(|| keys::DEFAULT_STREAM.to_owned()))
    }

    /// The routes of `settings`; other job types go to `default_stream`.
    pub fn new(settings: &Settings, default_stream: String) -> Self {
        let queues = settings.worker_types.iter().map(|(name, of)| (name.clone(), (of.queue(name), of.kind))).collect();
        Self { queues, default_stream }
    }

    /// The stream of job types that no configured worker type does.
    pub fn default_stream(&self) -> &str {
        &self.default_stream
    }

    /// The configured worker type that does `job_type`: the longest name that `job_type` continues with a dot.
    pub fn worker_type(&self, job_type: &str) -> Option<&str> {
        let prefixes = job_type.rmatch_indices('.').map(|(dot, _)| &job_type[..dot]);
        prefixes.filter_map(|prefix| self.queues.get_key_value(prefix)).map(|(name, _)| name.as_str()).next()
    }

    /// The stream that `job_type` goes to.
    pub fn stream(&self, job_type: &str) -> Result<&str, RoutingError> {
        let Some(worker_type) = self.worker_type(job_type) else { return Ok(&self.default_stream) };
        match &self.queues[worker_type] {
            (queue, QueueKind::Stream) => Ok(queue),
            (queue, QueueKind::List) => {
                Err(RoutingError::List { worker_type: worker_type.to_owned(), queue: queue.clone() })
            }
        }
    }
}

/// The method that `job_type` asks of a worker of type `worker_type`: what follows the type's name, or the first dot when
/// the job is meant for another type (on a stream shared by several). Empty if it names none.
pub fn method_of<'a>(job_type: &'a str, worker_type: &str) -> &'a str {
    let own = job_type.strip_prefix(worker_type).and_then(|rest| rest.strip_prefix('.'));
    own.or_else(|| job_type.split_once('.').map(|(_, method)| method)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::WorkerTypeSettings;

    fn routes() -> Routes {
        let mut settings = Settings::default();
        let named = |queue: &str| WorkerTypeSettings { job_queue: Some(queue.to_owned()), ..Default::default() };
        settings.worker_types.insert("browser".to_owned(), WorkerTypeSettings::default());
        settings.worker_types.insert("browser.eu".to_owned(), named("eu"));
        settings
            .worker_types
            .insert("old".to_owned(), WorkerTypeSettings { kind: QueueKind::List, ..named("oldlist") });
        Routes::new(&settings, "jobs".to_owned())
    }

    #[test]
    fn the_longest_configured_prefix_wins_and_the_rest_goes_to_the_default() {
        let routes = routes();
        for (job_type, stream) in [
            ("browser.goto", "browser:jobs"),
            ("browser.page.click", "browser:jobs"),
            ("browser.eu.goto", "eu"),
            ("browsers.goto", "jobs"),
            ("browser", "jobs"),
            ("mail.send", "jobs"),
            ("", "jobs"),
        ] {
            assert_eq!(routes.stream(job_type).unwrap(), stream, "{job_type}");
        }
        assert!(routes.stream("old.run").unwrap_err().to_string().contains("oldlist"));
    }

    #[test]
    fn methods() {
        assert_eq!(method_of("browser.goto", "browser"), "goto");
        assert_eq!(method_of("browser.eu.goto", "browser.eu"), "goto");
        assert_eq!(method_of("mail.send", "any"), "send");
        assert_eq!(method_of("browser", "browser"), "");
    }
}
