//! Finds the settings that need a part which this build was compiled without. An autoscaler with such settings does not
//! start, and `swarm config check` reports them. Handlers are the business of the workers, which can be another build.

use crate::{
    config::{Orchestrator, Settings},
    model::{MissingFeature, WorkerType},
};

/// Features that settings can need, and whether this build has them.
const FEATURES: [(&str, bool); 6] = [
    ("docker", cfg!(feature = "docker")),
    ("kubernetes", cfg!(feature = "kubernetes")),
    ("fly", cfg!(feature = "fly")),
    ("keda", cfg!(feature = "keda")),
    ("command-url", cfg!(feature = "command-url")),
    ("notify", cfg!(feature = "notify")),
];

/// A setting that this build can't follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsupportedSetting {
    /// Path of the setting in the configuration.
    pub path: Vec<String>,
    /// Part that the setting needs.
    pub missing: MissingFeature,
}

/// Returns the settings that need a part which this build lacks.
pub fn unsupported_settings(settings: &Settings) -> Vec<UnsupportedSetting> {
    all(settings).into_iter().filter(|of| !is_built_in(of.missing.feature)).collect()
}

/// Refuses settings that need a part which this build lacks; returns an error with one line for each.
pub(super) fn check_features(settings: &Settings) -> Result<(), String> {
    let lines: Vec<_> = unsupported_settings(settings).iter().map(|of| of.missing.to_string()).collect();
    if lines.is_empty() { Ok(()) } else { Err(lines.join("\n")) }
}

/// Returns the part that the backend of these settings needs.
pub(super) fn of_backend(settings: &Settings) -> MissingFeature {
    let feature = settings.orchestrator.as_str();
    let needed_by = format!("orchestrator = \"{feature}\"");
    MissingFeature { needed_by, part: format!("{feature} backend"), feature }
}

fn is_built_in(feature: &str) -> bool {
    FEATURES.contains(&(feature, true))
}

/// Returns the settings that need a feature, whether this build has it or not.
fn all(settings: &Settings) -> Vec<UnsupportedSetting> {
    let setting = |path: &[&str], missing| {
        let path = path.iter().map(|key| (*key).to_owned()).collect();
        UnsupportedSetting { path, missing }
    };
    let mut found = Vec::new();
    if !matches!(settings.orchestrator, Orchestrator::Process | Orchestrator::Command) {
        found.push(setting(&["orchestrator"], of_backend(settings)));
    }
    for (name, of) in settings.enabled() {
        if settings.orchestrator == Orchestrator::Command && of.command.url.is_some() {
            let path = ["worker_types", name, "command", "url"];
            found.push(setting(&path, MissingFeature::of_service(&WorkerType::new(name))));
        }
    }
    if !settings.notify.is_empty() {
        let (needed_by, part) = ("[[notify]]".to_owned(), "sender of alerts".to_owned());
        found.push(setting(&["notify"], MissingFeature { needed_by, part, feature: "notify" }));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(toml: &str) -> Vec<String> {
        let settings: Settings = toml::from_str(toml).expect("these are settings");
        all(&settings).iter().map(|of| format!("{}: {}", of.path.join("."), of.missing)).collect()
    }

    #[test]
    fn a_setting_is_named_with_the_feature_that_it_needs() {
        let cure = "build it with `--features";
        let url = "[worker_types.mail.command]\nurl = \"https://scaler.example\"\n";
        assert_eq!(
            found(&format!("orchestrator = \"command\"\n{url}")),
            [format!(
                "worker_types.mail.command.url: worker_types.mail.command.url: this build has no client of services; \
                 {cure} command-url`"
            )]
        );
        assert_eq!(
            found("orchestrator = \"docker\"\n[[notify]]\nurl = \"https://hooks.example\"\n"),
            [
                format!("orchestrator: orchestrator = \"docker\": this build has no docker backend; {cure} docker`"),
                format!("notify: [[notify]]: this build has no sender of alerts; {cure} notify`"),
            ]
        );
    }

    #[test]
    fn a_setting_without_effect_needs_nothing() {
        let url = "[worker_types.mail.command]\nurl = \"https://scaler.example\"\n";
        assert_eq!(found(url), [""; 0], "it is for `orchestrator = \"command\"`");
        let off = format!("orchestrator = \"command\"\n[worker_types.mail]\nenabled = false\n{url}");
        assert_eq!(found(&off), [""; 0]);
    }

    /// A build with all features, as tests have, lacks nothing.
    #[cfg(all(feature = "docker", feature = "notify"))]
    #[test]
    fn a_whole_build_lacks_nothing() {
        let settings: Settings =
            toml::from_str("orchestrator = \"docker\"\n[[notify]]\nurl = \"https://hooks.example\"\n").unwrap();
        assert_eq!(check_features(&settings), Ok(()));
    }
}
