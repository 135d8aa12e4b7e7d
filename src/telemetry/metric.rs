//! The list of all metrics: name, kind, labels, unit, help. A test compares the list with `docs/metrics.md`.

use metrics::Unit;

/// Kind of a metric, as in Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Description of one metric.
#[derive(Debug)]
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Read by the test that compares with `docs/metrics.md`; the code that emits the metric writes the labels out.
    #[cfg_attr(
        all(not(test), feature = "autoscaler"),
        expect(dead_code, reason = "the list is compared with the documentation in tests")
    )]
    pub(super) labels: &'static [&'static str],
    pub(super) unit: Unit,
    pub(super) help: &'static str,
}

macro_rules! metrics_table {
    ($($id:ident = $kind:ident $name:literal [$($label:literal),*] $unit:ident $help:literal;)*) => {
        $(pub(super) const $id: &str = $name;)*

        /// All metrics that the program can emit.
        pub(super) const ALL: &[Metric] = &[$(Metric {
            name: $name, kind: Kind::$kind, labels: &[$($label),*], unit: Unit::$unit, help: $help,
        }),*];
    };
}

metrics_table! {
    BUILD_INFO = Gauge "swarm_build_info" ["version"] Count "Always 1; the label is the version.";
    SIGNALS = Counter "swarm_signals_total" ["source"] Count "Signals received.";
    EVALUATIONS = Counter "swarm_evaluations_total" ["worker_type"] Count "Evaluations of a worker type.";
    DECISIONS = Counter "swarm_decisions_total" ["worker_type", "action", "reason"] Count "Decisions.";
    REACTION = Histogram "swarm_reaction_seconds" ["stage"] Seconds "Time since the first signal of a reaction.";
    BACKEND_CALL = Histogram "swarm_backend_call_seconds" ["backend", "call"] Seconds "Time of a backend call.";
    BACKEND_ERRORS = Counter "swarm_backend_errors_total" ["backend", "call", "kind"] Count "Failed backend calls.";
    REFUSALS = Counter "swarm_backend_refusals_total" ["worker_type", "rival"] Count
        "Scalings refused because another autoscaler has the same target.";
    WATCH_FAILURES = Counter "swarm_kubernetes_watch_failures_total" ["watched"] Count "Watches on the cluster that broke.";
    SCALING_EVENTS = Counter "swarm_scaling_events_total" ["worker_type", "action", "outcome"] Count
        "Scalings asked of the backend and recorded in scaling:events.";
    RECORDING_FAILURES = Counter "swarm_recording_failures_total" [] Count
        "Scalings that could not be written to scaling:events.";
    RECORDS_WAITING = Gauge "swarm_records_waiting" [] Count
        "Scalings made and not yet written to scaling:events, since Redis does not take them.";
    FENCED_RECORDS = Counter "swarm_fenced_records_total" [] Count
        "Scalings recorded after another autoscaler had begun to lead.";
    PROBE_FAILURES = Counter "swarm_probe_failures_total" [] Count "Probes of a queue that failed.";
    SWEEP = Histogram "swarm_sweep_seconds" [] Seconds "Time of a sweep over all queues.";
    SWEEP_DRIFT = Counter "swarm_sweep_drift_total" [] Count
        "Evaluations by a sweep that changed something no signal had told of.";
    SOURCE_UP = Gauge "swarm_source_up" ["source"] Count "1 if the signal source works, 0 if not, NaN if turned off.";
    LEADER = Gauge "swarm_leader" [] Count "1 while this autoscaler leads, else 0.";
    RELOADS = Counter "swarm_config_reloads_total" ["outcome"] Count "Times the configuration was loaded again.";
    LAST_RELOAD_SUCCESS = Gauge "swarm_config_last_reload_success" [] Count
        "1 if the configuration could be used the last time it was loaded, else 0.";
    WORKERS_BUDGET = Gauge "swarm_workers_budget" [] Count
        "max_total_workers: workers that all types together may have; NaN without a budget.";
    KEDA_REQUESTS = Counter "swarm_keda_requests_total" ["method", "code"] Count "Requests of KEDA.";
    NOTIFICATIONS = Counter "swarm_notifications_total" ["outcome"] Count "Messages to the webhooks of `[[notify]]`.";
    REDIS_UP = Gauge "swarm_redis_up" [] Count "1 while Redis answers, else 0.";
    QUEUE_SERVER_UP = Gauge "swarm_queue_server_up" ["server"] Count
        "1 while the Redis server of a worker type's own redis_url answers, 0 if not, NaN once no type uses it.";
    REDIS_WRITES_REFUSED = Gauge "swarm_redis_writes_refused" [] Count
        "1 while Redis answers and refuses writes, for example because it is full, else 0.";
    WORKER_EXITS = Counter "swarm_worker_exits_total" ["worker_type", "success"] Count
        "Workers that ended without being asked to.";
    JOBS_DEAD = Counter "swarm_jobs_dead_total" ["reason"] Count "Jobs that became dead letters.";
    DEAD_LETTERS_DROPPED = Counter "swarm_dead_letters_dropped_total" [] Count
        "Dead letters dropped because of a limit in the settings.";
    JOBS_RETRIED = Counter "swarm_jobs_retried_total" [] Count "Failed jobs that wait for a retry.";
    DELAYED_MOVED = Counter "swarm_delayed_jobs_moved_total" [] Count "Delayed jobs that became due.";
    ENTRIES_TRIMMED = Counter "swarm_entries_trimmed_total" [] Count "Finished entries trimmed off their streams.";
    JOBS = Counter "swarm_jobs_total" ["worker_type", "method", "outcome"] Count "Jobs that ended in this worker.";
    JOB_SECONDS = Histogram "swarm_job_seconds" ["worker_type", "method"] Seconds "Time of a job, failed ones included.";
    JOBS_IN_PROGRESS = Gauge "swarm_jobs_in_progress" ["worker_type"] Count "Jobs in progress in this worker.";
    SESSIONS_OPEN = Gauge "swarm_sessions_open" ["worker_type"] Count "Sessions open on this worker.";
    DISCORD_COMMANDS = Counter "swarm_discord_commands_total" ["command", "outcome"] Count "Commands answered.";
    DISCORD_COMMAND_SECONDS = Histogram "swarm_discord_command_seconds" ["command"] Seconds
        "Time from hearing of a command to its last reply.";
    DISCORD_ACKNOWLEDGED = Histogram "swarm_discord_acknowledged_seconds" [] Seconds
        "Time from hearing of a command until Discord has taken the first reply.";
    DISCORD_SHARDS_READY = Gauge "swarm_discord_shards_ready" [] Count "Shards that have a session.";
    DISCORD_DISCONNECTS = Counter "swarm_discord_disconnects_total" [] Count "Connections to the gateway that were lost.";
    QUEUE_LAG = Gauge "swarm_queue_lag" ["worker_type"] Count "Jobs not yet delivered; NaN if not known.";
    QUEUE_PENDING = Gauge "swarm_queue_pending" ["worker_type"] Count
        "Jobs delivered and not acknowledged; NaN if not known.";
    QUEUE_OLDEST_AGE = Gauge "swarm_queue_oldest_age_seconds" ["worker_type"] Seconds
        "Age of the oldest unfinished job at the last evaluation; NaN if not known.";
    DEAD_LETTERS = Gauge "swarm_dead_letters" ["worker_type"] Count
        "Dead letters in all queues of the worker type, as of the last sweep.";
    WORKERS = Gauge "swarm_workers" ["worker_type", "state"] Count
        "Workers in each state: blocked, starting, stalled, idle, busy, possibly_busy, unheard, draining, suspended.";
    WORKER_SECONDS = Counter "swarm_worker_seconds_total" ["worker_type"] Seconds
        "Time that workers existed, summed over the workers, while this autoscaler led.";
    WORKERS_DESIRED = Gauge "swarm_workers_desired" ["worker_type"] Count "The target in force.";
    WORKERS_RECOMMENDED = Gauge "swarm_workers_recommended" ["worker_type"] Count
        "Workers recommended to KEDA or the HPA; NaN if not known, or if swarm scales the type.";
    WORKERS_RUNNING = Gauge "swarm_workers_running" ["worker_type"] Count
        "Workers that exist and are not draining; NaN if not known.";
    WORKERS_READY = Gauge "swarm_workers_ready" ["worker_type"] Count "Workers seen ready; NaN if not known.";
    WORKERS_BUSY = Gauge "swarm_workers_busy" ["worker_type"] Count
        "Ready workers that hold a job or session; NaN if not known.";
    WORKERS_STARTING = Gauge "swarm_workers_starting" ["worker_type"] Count
        "Workers within their start grace; NaN if not known.";
    WORKERS_DRAINING = Gauge "swarm_workers_draining" ["worker_type"] Count
        "Workers asked to leave and not yet gone; NaN if not known.";
    SESSION_PLACES = Gauge "swarm_session_places" ["worker_type"] Count
        "Sessions that the ready workers can hold, 0 if they don't limit them; NaN if not known.";
    SESSION_PLACES_TAKEN = Gauge "swarm_session_places_taken" ["worker_type"] Count
        "Places with an open session; NaN if not known.";
    SESSION_JOBS_WAITING = Gauge "swarm_session_jobs_waiting" ["worker_type"] Count
        "Jobs that wait on workers for a place for their session; NaN if not known.";
    WORKERS_MIN = Gauge "swarm_workers_min" ["worker_type"] Count "min_workers.";
    WORKERS_MAX = Gauge "swarm_workers_max" ["worker_type"] Count
        "The upper bound in force: max_workers, or what an open window of the schedule lowers it to.";
    WORKERS_ALLOWED = Gauge "swarm_workers_allowed" ["worker_type"] Count
        "Workers that the type may have: swarm_workers_max, or less while the budget holds the type back.";
    WORKERS_PAUSED = Gauge "swarm_workers_paused" ["worker_type"] Count
        "1 while somebody has paused the worker type, in one direction or both, or has it only observed, else 0.";
    WORKERS_PINNED = Gauge "swarm_workers_pinned" ["worker_type"] Count
        "The number that somebody has pinned; NaN if none.";
}
