//! What can't be meant, and what can't be safe, where the workers are those of a job framework.

use super::{Checks, dotted, join};
use crate::{
    config::{
        QueueKind,
        settings::{Orchestrator, Settings, WorkerTypeSettings},
        worker::IdleRule,
    },
    model::{Combine, QueuePattern},
    queue_kind::{Certainty, Framework},
};

/// Longest time that Fly.io gives a machine between the signal and the kill
/// (<https://fly.io/docs/reference/configuration/#kill_timeout-option>).
const FLY_MAX_KILL_SECONDS: u64 = 300;

/// Variable with which Celery's workers take one signal for another.
const REMAP_SIGTERM: &str = "REMAP_SIGTERM";

impl Checks<'_> {
    /// Checks the settings of frameworks at the table `at`.
    pub(super) fn framework(&mut self, at: &str, of: &WorkerTypeSettings, settings: &Settings) {
        let Some(framework) = of.framework else { return self.without_framework(at, of) };
        let name = framework.profile().name();
        let setting = format!("framework = \"{name}\"");
        let replaced = [
            ("kind", of.kind != QueueKind::default(), "the framework says what the keys are"),
            ("job_queue", of.job_queue.is_some(), "name the framework's queues in `queues`"),
            ("extra_queues", !of.extra_queues.is_empty(), "name the framework's queues in `queues`"),
            ("group", of.group.is_some(), "the framework decides who gets a job"),
        ];
        for (key, is_set, cure) in replaced {
            if is_set {
                let key = join(at, key);
                let message = format!("{} can't be set with {setting}: {cure}; remove it", dotted(&key));
                self.reject(&[key, join(at, "framework")], message);
            }
        }
        for queue in &of.queues {
            if queue.trim().is_empty() || QueuePattern::is_pattern(queue) {
                let key = join(at, "queues");
                let message = format!(
                    "{}: {queue:?} is not the name of a queue; name each queue, patterns are not supported with {setting}",
                    dotted(&key)
                );
                self.reject(&[key], message);
            }
        }
        if of.combine != Combine::default() {
            self.warn_unused(&join(at, "combine"), &setting);
        }
        if of.worker.idle != IdleRule::default() {
            self.warn_unused(&join(&join(at, "worker"), "idle"), &setting);
        }
        if of.longest_job_seconds.is_some() && framework.profile().certainty() != Certainty::Never {
            self.warn_unused(&join(at, "longest_job_seconds"), &setting);
        }
        if settings.is_on_cluster(of) {
            let key = join(at, "framework");
            let message = format!("{}: {name} is not supported on a Redis Cluster; use a single server", dotted(&key));
            self.reject(&[key], message);
        }
        self.unsafe_stop(at, of, settings.orchestrator);
        self.unsafe_signal(at, of, settings.orchestrator);
        self.unnamed_workers(at, of, settings.orchestrator);
    }

    fn without_framework(&mut self, at: &str, of: &WorkerTypeSettings) {
        let settings = [
            ("queues", !of.queues.is_empty()),
            ("key_prefix", of.key_prefix.is_some()),
            ("longest_job_seconds", of.longest_job_seconds.is_some()),
        ];
        for (key, is_set) in settings {
            if is_set {
                let key = join(at, key);
                let message = format!(
                    "{} needs `framework`; set it, or use job_queue and extra_queues for queues of swarm",
                    dotted(&key)
                );
                self.reject(&[key], message);
            }
        }
    }

    /// Warns of platforms that kill a worker in the end, whatever swarm says.
    fn unsafe_stop(&mut self, at: &str, of: &WorkerTypeSettings, orchestrator: Orchestrator) {
        let policy = of.stop_policy();
        let drain = of.scaling.drain_timeout_seconds;
        let place = self.origins.strongest(&[join(at, "framework")]);
        let signal = policy.signal.as_str();
        let hooks =
            if policy.quiet.is_some() { "what lets its jobs finish first" } else { "a preStop hook for other images" };
        let killed = match orchestrator {
            Orchestrator::Process | Orchestrator::Docker => policy.hard_kill.then(|| {
                format!(
                    "hard_kill = true kills a worker {drain} s after SIG{signal}, and nothing of swarm runs its jobs again"
                )
            }),
            Orchestrator::Kubernetes | Orchestrator::Keda => Some(format!(
                "kubernetes sends the image's stop signal, which has to be SIG{signal} (docs/frameworks.md#kubernetes has \
                 {hooks}), and kills a pod at the end of terminationGracePeriodSeconds (30 s by \
                 default); make that longer than the longest job"
            )),
            Orchestrator::Fly => Some(format!(
                "fly.io kills a machine {} s after SIG{signal}: the smaller one of scaling.drain_timeout_seconds and \
                 {FLY_MAX_KILL_SECONDS} s, its limit; make that longer than the longest job",
                drain.clamp(1, FLY_MAX_KILL_SECONDS)
            )),
            Orchestrator::Command => Some(format!(
                "the platform decides how a worker is stopped: its `stop` command has to send SIG{signal} and to wait \
                 longer than the longest job"
            )),
        };
        if let Some(killed) = killed {
            self.warnings.push(format!("{place}: {}: {killed}", dotted(at)));
        }
    }

    /// Warns of programs for which the stop signal does not mean to finish their jobs.
    fn unsafe_signal(&mut self, at: &str, of: &WorkerTypeSettings, orchestrator: Orchestrator) {
        let Some(profile) = of.framework.map(Framework::profile) else { return };
        let place = self.origins.strongest(&[join(at, "framework")]);
        if let Some(caveat) = profile.stop_caveat().filter(|_| of.stop_signal.is_none()) {
            self.warnings.push(format!("{place}: {}: {}: {caveat}", dotted(at), profile.name()));
        }
        let (table, environment) = match orchestrator {
            Orchestrator::Process => ("process", &of.process.environment),
            Orchestrator::Docker => ("docker", &of.docker.environment),
            Orchestrator::Kubernetes | Orchestrator::Fly | Orchestrator::Command | Orchestrator::Keda => return,
        };
        let remapped = environment.get(REMAP_SIGTERM).filter(|_| of.framework == Some(Framework::Celery));
        if let Some(signal) = remapped.filter(|signal| signal.as_str() != "SIGTERM") {
            let key = join(&join(at, table), "environment");
            self.warnings.push(format!(
                "{}: {}: {REMAP_SIGTERM} = \"{signal}\" turns the gentle signal of celery into one that ends running \
                 tasks; remove it",
                self.origins.strongest(std::slice::from_ref(&key)),
                dotted(&key)
            ));
        }
    }

    /// Warns of workers whose own statements can't be matched with them.
    fn unnamed_workers(&mut self, at: &str, of: &WorkerTypeSettings, orchestrator: Orchestrator) {
        let Some(profile) = of.framework.map(Framework::profile) else { return };
        let command = match orchestrator {
            Orchestrator::Process => Some(&of.process.command),
            Orchestrator::Docker => Some(&of.docker.command).filter(|command| !command.is_empty()),
            Orchestrator::Kubernetes | Orchestrator::Fly | Orchestrator::Command | Orchestrator::Keda => None,
        };
        let Some(command) = command else { return };
        let place = self.origins.strongest(&[join(at, "framework")]);
        let name = profile.name();
        if command.is_empty() {
            let key = join(&join(at, "process"), "command");
            let message = format!(
                "{} is missing: `swarm worker` does not run jobs of {name}; name the command that starts one of its workers",
                dotted(&key)
            );
            return self.reject(&[key, join(at, "framework")], message);
        }
        let told = match (profile.identity(), profile.certainty()) {
            (Some(option), _) => {
                let is_named = command.iter().any(|word| word.contains("SWARM_WORKER_ID"));
                (!is_named).then(|| {
                    format!(
                        "the workers are not named after swarm's, so none of them is ever seen idle, and none is stopped; \
                         start them with {option} and $SWARM_WORKER_ID (docs/frameworks.md#{name})"
                    )
                })
            }
            (None, Certainty::PoolOnly) => Some(format!(
                "{name} does not tell which worker runs a job: workers are let go only while none of them runs one"
            )),
            (None, Certainty::Never) if of.longest_job_seconds.is_some() => None,
            (None, Certainty::Never) => Some(format!(
                "{name} does not tell whether a worker runs a job, so no worker is ever let go; set longest_job_seconds"
            )),
            (None, Certainty::Exact | Certainty::Recent) => None,
        };
        if let Some(told) = told {
            self.warnings.push(format!("{place}: {}: {told}", dotted(at)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::{
        config::{QueueKind, WorkerTypeSettings, load_text},
        model::{QuietSignal, StopPolicy, StopSignal},
        queue_kind::Framework,
    };

    const RQ: &str = "[worker_types.mail]\nframework = \"rq\"\nqueues = [\"mail\", \"news\"]\n";
    const COMMAND: &str =
        "[worker_types.mail.process]\ncommand = [\"sh\", \"-c\", \"exec rq worker --name $SWARM_WORKER_ID mail\"]\n";

    fn errors(text: &str) -> String {
        load_text(text).expect_err("it is refused").to_string()
    }

    #[test]
    fn six_lines_name_a_framework_and_its_queues() {
        let loaded = load_text(&format!("{RQ}{COMMAND}")).expect("it is valid");
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        let mail = &loaded.settings.worker_types["mail"];
        assert_eq!(mail.queue_kind(), QueueKind::Framework(Framework::Rq));
        assert_eq!(mail.queues("mail").named().collect::<Vec<_>>(), ["rq:queue:mail", "rq:queue:news"]);
        assert_eq!(mail.queue_title("mail"), "rq mail, news");
        assert_eq!(
            mail.stop_policy(),
            StopPolicy {
                quiet: None,
                signal: StopSignal::Term,
                hard_kill: false,
                helpers_first: true,
                may_be_missed: true
            }
        );
        assert!(!mail.writes_heartbeats());
        let ours = WorkerTypeSettings::default();
        assert_eq!(ours.stop_policy(), StopPolicy { hard_kill: true, ..StopPolicy::default() });
    }

    #[test]
    fn an_unknown_framework_is_an_error_that_lists_the_known_ones() {
        let errors = errors("[worker_types.mail]\nframework = \"resqueue\"\n");
        for framework in Framework::ALL {
            assert!(errors.contains(&format!("\"{}\"", framework.profile().name())), "{errors}");
        }
    }

    #[test]
    fn settings_of_swarms_own_queues_are_refused_beside_a_framework_and_the_other_way_round() {
        for (line, cure) in [
            ("job_queue = \"x\"", "name the framework's queues"),
            ("extra_queues = [\"x\"]", "name the framework's queues"),
            ("group = \"x\"", "decides who gets a job"),
            ("kind = \"list\"", "the framework says"),
        ] {
            let errors = errors(&format!("{RQ}{line}\n{COMMAND}"));
            assert!(errors.contains(cure), "{line}: {errors}");
        }
        assert!(errors("[worker_types.mail]\nqueues = [\"x\"]\n").contains("needs `framework`"));
        assert!(errors(&RQ.replace("news", "t-*")).contains("patterns are not supported"));
        assert!(errors(RQ).contains("command is missing"), "`swarm worker` does not run jobs of RQ");
        assert!(errors(&format!("redis_url = \"redis+cluster://a:7000\"\n{RQ}{COMMAND}")).contains("Redis Cluster"));
    }

    #[test]
    fn two_worker_types_of_one_framework_queue_are_refused() {
        let other = format!("{RQ}{COMMAND}").replace("worker_types.mail", "worker_types.post");
        assert!(errors(&format!("{RQ}{COMMAND}{other}")).contains("rq:queue:mail"));
    }

    #[test]
    fn what_can_not_be_safe_is_warned_of_with_the_number() {
        let warnings = |text: &str| load_text(text).expect("it is valid").warnings.join("\n");
        let unnamed = COMMAND.replace(" --name $SWARM_WORKER_ID", "");
        assert!(warnings(&format!("{RQ}{unnamed}")).contains("--name and $SWARM_WORKER_ID"));
        assert!(warnings(&format!("{RQ}hard_kill = true\n{COMMAND}")).contains("kills a worker 300 s after"));
        for (orchestrator, number) in [("docker", "300 s"), ("kubernetes", "30 s"), ("fly", "300 s")] {
            let told = warnings(&format!("orchestrator = \"{orchestrator}\"\n{RQ}hard_kill = true\n"));
            assert!(told.contains(number), "{orchestrator}: {told}");
        }
        let fly = format!("orchestrator = \"fly\"\n{RQ}scaling = {{ drain_timeout_seconds = 20 }}\n");
        assert!(warnings(&fly).contains("kills a machine 20 s after SIGTERM"));
        assert_eq!(warnings(&format!("orchestrator = \"docker\"\n{RQ}")), "", "swarm stops containers, and kills none");
    }

    #[test]
    fn signals_that_end_jobs_are_warned_of() {
        let warnings = |text: &str| load_text(text).expect("it is valid").warnings.join("\n");
        let of = |framework: &str| {
            format!("[worker_types.mail]\nframework = \"{framework}\"\nprocess = {{ command = [\"work\"] }}\n")
        };
        assert!(warnings(&of("arq")).contains("unless the worker's settings have `job_completion_wait`"));
        assert!(
            warnings(&of("bullmq")).contains("`worker.close()`") && warnings(&of("bull")).contains("`queue.close()`")
        );
        let quit = of("celery").replace("] }", "], environment = { REMAP_SIGTERM = \"SIGQUIT\" } }");
        assert!(
            warnings(&quit).contains("process.environment: REMAP_SIGTERM = \"SIGQUIT\" turns"),
            "{}",
            warnings(&quit)
        );
        assert!(!warnings(&of("celery")).contains("REMAP_SIGTERM"));
    }

    #[test]
    fn frameworks_that_cut_jobs_short_are_told_to_take_no_more_first_unless_a_signal_is_named() {
        let quiet = |framework: &str, more: &str| {
            let text =
                format!("[worker_types.mail]\nframework = \"{framework}\"\n{more}process = {{ command = [\"x\"] }}\n");
            load_text(&text).expect("it is valid").settings.worker_types["mail"].stop_policy().quiet
        };
        for framework in ["sidekiq", "asynq"] {
            assert_eq!(quiet(framework, ""), Some(QuietSignal::Tstp), "{framework}");
            assert_eq!(quiet(framework, "stop_signal = \"SIGTERM\"\n"), None, "{framework}");
        }
        assert_eq!(quiet("rq", ""), None);
    }

    #[test]
    fn where_running_jobs_are_hidden_the_longest_job_lets_workers_go() {
        let huey = "[worker_types.mail]\nframework = \"huey\"\n";
        let command = "process = { command = [\"huey_consumer\", \"mail.huey\"] }\n";
        let loaded = |line: &str| load_text(&format!("{huey}{line}{command}")).expect("it is valid");
        let without = loaded("");
        assert!(without.warnings.join("\n").contains("set longest_job_seconds"), "{:?}", without.warnings);
        assert_eq!(without.settings.worker_types["mail"].stop_policy().signal, StopSignal::Int);
        let with = loaded("longest_job_seconds = 60\n");
        assert!(with.warnings.is_empty(), "{:?}", with.warnings);
        let spec = with.settings.worker_types["mail"].framework_spec().expect("it is a framework's");
        assert_eq!((spec.longest_job, spec.queues), (Some(Duration::from_secs(60)), vec!["huey".to_owned()]));
        let unused = format!("{RQ}longest_job_seconds = 60\n{COMMAND}");
        assert!(
            load_text(&unused).expect("it is valid").warnings.join("\n").contains("longest_job_seconds has no effect")
        );
        assert!(errors("[worker_types.mail]\nlongest_job_seconds = 60\n").contains("needs `framework`"));
    }
}
