//! Checks of `orchestrator = "keda"`: settings that only make sense where swarm scales by itself.

use super::{Checks, dotted, join, pointer};
use crate::config::{
    scaling::Strategy,
    settings::{Orchestrator, Settings, WorkerTypeSettings},
};

/// Settings of `[scaling]` without effect on a recommendation, and what to use instead.
const LEFT_TO_KEDA: [(&str, &str); 7] = [
    ("cooldown_seconds", "cooldownPeriod of the ScaledObject"),
    ("stabilization_window_seconds", "stabilizationWindowSeconds of the HPA's behavior"),
    ("max_step_up", "the policies of the HPA's behavior"),
    ("max_step_down", "the policies of the HPA's behavior"),
    ("step_period_seconds", "the policies of the HPA's behavior"),
    ("fallback_workers", "fallback of the ScaledObject"),
    ("fallback_after_seconds", "fallback of the ScaledObject"),
];

impl Checks<'_> {
    /// Refuses a budget: KEDA starts the workers, and nobody could keep it.
    pub(super) fn keda_budget(&mut self, settings: &Settings) {
        if settings.orchestrator == Orchestrator::Keda && settings.scaler.max_total_workers.is_some() {
            let total = pointer(&["scaler", "max_total_workers"]);
            let message = format!(
                "{}: with orchestrator = \"keda\", KEDA and the HPA start the workers, so swarm can't keep a budget; \
                 remove it, and use max_workers or a ResourceQuota",
                dotted(&total)
            );
            self.reject(&[total], message);
        }
    }

    /// Refuses what a recommendation can't follow, and warns of settings that KEDA has instead.
    pub(super) fn keda(&mut self, at: &str, of: &WorkerTypeSettings, settings: &Settings) {
        if settings.orchestrator != Orchestrator::Keda || !of.enabled {
            return;
        }
        let scaling = join(at, "scaling");
        if of.scaling.strategy == Strategy::Step {
            let strategy = join(&scaling, "strategy");
            let message = format!(
                "{}: \"step\" is a pace, and with orchestrator = \"keda\" the HPA sets the pace; use \"threshold\", \
                 \"backlog\" or \"latency\", and policies in the HPA's behavior",
                dotted(&strategy)
            );
            self.reject(&[strategy], message);
        }
        let is_seen = of.queue_kind().is_native() && of.framework.is_none();
        if of.scaling.spare > 0 && !is_seen {
            let spare = join(&scaling, "spare");
            let message = format!(
                "{}: with orchestrator = \"keda\", the workers of this kind of queue are not seen, so nobody knows how \
                 many are idle; raise min_workers instead",
                dotted(&spare)
            );
            self.reject(&[spare], message);
        }
        for (key, instead) in LEFT_TO_KEDA {
            let because = format!("orchestrator = \"keda\", which has {instead} instead");
            self.warn_unused(&join(&scaling, key), &because);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::load_text;

    const KEDA: &str = "orchestrator = \"keda\"\n";

    fn errors(text: &str) -> String {
        load_text(&format!("{KEDA}{text}")).expect_err("refused").to_string()
    }

    #[test]
    fn a_strategy_with_a_pace_of_its_own_is_refused() {
        let told = errors("[worker_types.a.scaling]\nstrategy = \"step\"\n");
        assert!(told.contains("the HPA sets the pace"), "{told}");
    }

    #[test]
    fn a_budget_that_nobody_could_keep_is_refused() {
        let told = errors("[scaler]\nmax_total_workers = 5\n[worker_types.a]\n");
        assert!(told.contains("swarm can't keep a budget"), "{told}");
    }

    #[test]
    fn spare_workers_need_workers_that_are_seen() {
        let list = "[worker_types.a]\nkind = \"list\"\n[worker_types.a.scaling]\nspare = 1\n";
        let told = errors(list);
        assert!(told.contains("raise min_workers instead"), "{told}");
        let stream = format!("{KEDA}[worker_types.a.scaling]\nspare = 1\n");
        assert!(load_text(&stream).is_ok(), "the workers of a stream are seen");
    }

    #[test]
    fn a_setting_that_keda_has_instead_is_named_with_it() {
        let loaded = load_text(&format!("{KEDA}[worker_types.a.scaling]\ncooldown_seconds = 5\n")).unwrap();
        let told = loaded.warnings.join("\n");
        assert!(told.contains("cooldown_seconds has no effect") && told.contains("cooldownPeriod"), "{told}");
        let process = load_text("[worker_types.a.scaling]\ncooldown_seconds = 5\n").unwrap();
        assert!(!process.warnings.join("\n").contains("has no effect"));
    }

    #[test]
    fn tls_needs_both_files_and_clients_with_certificates_need_tls() {
        for (text, told) in [
            ("[keda]\ntls_cert_file = \"a\"\n", "keda.tls_cert_file: needs tls_key_file too"),
            ("[keda]\ntls_key_file = \"a\"\n", "keda.tls_key_file: needs tls_cert_file too"),
            ("[keda]\nclient_ca_file = \"a\"\n", "keda.client_ca_file: only a server with TLS can ask for it"),
            ("[keda]\nlisten = \"keda:9001\"\n", "keda.listen: expected ADDRESS:PORT"),
        ] {
            let errors = errors(&format!("{text}[worker_types.a]\n"));
            assert!(errors.contains(told), "{text}: {errors}");
        }
        let text = "[keda]\ntls_cert_file = \"a\"\ntls_key_file = \"b\"\nclient_ca_file = \"c\"\n[worker_types.a]\n";
        assert!(load_text(&format!("{KEDA}{text}")).is_ok());
    }
}
