//! Checks the Redis server of a worker type's own.

use secrecy::ExposeSecret;

use super::{Checks, dotted, join, pointer};
use crate::{
    config::{
        redis_url,
        settings::{Settings, WorkerTypeSettings},
    },
    queue_kind::Idleness,
};

impl Checks<'_> {
    /// Checks the URL, and that nothing of swarm's own is on that server.
    pub(super) fn queue_server(&mut self, name: &str, of: &WorkerTypeSettings, settings: &Settings) {
        let Some(url) = &of.redis_url else { return };
        let at = pointer(&["worker_types", name]);
        let key = join(&at, "redis_url");
        if let Err(problem) = redis_url::check_redis_url(url.secret().expose_secret()) {
            return self.reject(std::slice::from_ref(&key), format!("{}: {problem}", dotted(&key)));
        }
        let kind = of.queue_kind();
        let is_elsewhere = url.secret().expose_secret() != settings.redis_url.expose_secret();
        if kind.is_native() && is_elsewhere {
            let message = format!(
                "{} can't be set with kind = \"{}\": swarm's workers take their jobs from the server on which they write \
                 their heartbeats, the top-level redis_url; remove it, or run another autoscaler for that server",
                dotted(&key),
                kind.name()
            );
            return self.reject(&[key, join(&at, "kind")], message);
        }
        if of.framework.is_none() && of.idleness() == Idleness::Unknown {
            let origin = self.origins.strongest(&[key]);
            self.warnings.push(format!(
                "{origin}: {}: workers with a redis_url of their own write no heartbeats that swarm reads, so nothing \
                 tells whether a worker took its last job, and an empty queue lets nobody go; set worker.idle = \
                 \"empty_queue\" if they may be stopped at any time",
                dotted(&at)
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::load_text;

    const RQ: &str = "[worker_types.mail]\nframework = \"rq\"\nprocess = { command = [\"$SWARM_WORKER_ID\"] }\n";

    fn errors(text: &str) -> String {
        load_text(text).expect_err("it is refused").to_string()
    }

    #[test]
    fn a_server_of_its_own_is_for_the_queues_of_others() {
        let native = errors("[worker_types.web]\nredis_url = \"redis://u:hunter2@b\"\n");
        assert!(native.contains("worker_types.web.redis_url can't be set with kind = \"stream\""), "{native}");
        assert!(native.contains("write their heartbeats") && !native.contains("hunter2"), "{native}");
        assert!(load_text("redis_url = \"redis://b\"\n[worker_types.web]\nredis_url = \"redis://b\"\n").is_ok());
        for scheme in ["redis://b/1", "rediss://u:hunter2@b", "redis+sentinel://a:1,b/main/2", "unix:///b"] {
            let own = RQ.replace("framework", &format!("redis_url = \"{scheme}\"\nframework"));
            let loaded = load_text(&own).unwrap_or_else(|errors| panic!("{errors}"));
            assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        }
    }
    #[test]
    fn a_list_elsewhere_has_no_heartbeats_and_a_wrong_url_is_named_without_its_secret() {
        let list = "[worker_types.mail]\nkind = \"list\"\nredis_url = \"redis://b\"\n";
        let loaded = load_text(list).unwrap_or_else(|errors| panic!("{errors}"));
        assert!(!loaded.settings.worker_types["mail"].writes_heartbeats());
        assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
        assert!(loaded.warnings[0].contains("worker.idle"), "{:?}", loaded.warnings);
        let idle = load_text(&format!("{list}worker = {{ idle = \"empty_queue\" }}\n"));
        assert!(idle.is_ok_and(|loaded| loaded.warnings.is_empty()));
        for wrong in ["http://u:hunter2@b", "redis://u:hunter2@b/x", "redis+cluster://u:hunter2@b/3"] {
            let told = errors(&list.replace("redis://b", wrong));
            assert!(told.contains("worker_types.mail.redis_url: ") && !told.contains("hunter2"), "{told}");
        }
    }

    #[test]
    fn a_cluster_is_judged_by_the_server_of_the_queues() {
        let own = |url: &str| RQ.replace("framework", &format!("redis_url = \"{url}\"\nframework"));
        assert!(errors(&own("redis+cluster://a:7000")).contains("not supported on a Redis Cluster"));
        assert!(load_text(&format!("redis_url = \"redis+cluster://a:7000\"\n{}", own("redis://b"))).is_ok());
    }

    #[test]
    fn a_key_on_another_server_is_another_queue() {
        let list = |name: &str, url: &str| {
            format!("[worker_types.{name}]\nkind = \"list\"\njob_queue = \"q\"\nredis_url = \"{url}\"\n")
        };
        assert!(load_text(&(list("a", "redis://b") + &list("b", "redis://c"))).is_ok());
        assert!(errors(&(list("a", "redis://b") + &list("b", "redis://b"))).contains("both have job_queue"));
    }
}
