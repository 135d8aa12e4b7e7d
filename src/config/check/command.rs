//! Checks of `[worker_types.NAME.command]`.

use super::{
    super::{
        origin::{dotted, join},
        settings::{Orchestrator, WorkerTypeSettings},
    },
    Checks,
};

impl Checks<'_> {
    pub(super) fn command(&mut self, at: &str, worker_type: &WorkerTypeSettings, orchestrator: Orchestrator) {
        let command = &worker_type.command;
        let used = orchestrator == Orchestrator::Command && worker_type.enabled;
        self.problems(at, command.problems(used));
        self.environment(&join(at, "environment"), &command.environment);
        let files = join(at, "environment_files");
        let named = command.environment_files.keys().map(|name| (name.clone(), String::new())).collect();
        self.environment(&files, &named);
        if command.exposes_token() {
            let url = join(at, "url");
            self.warnings.push(format!(
                "{}: the token of {} travels in clear text to {}; use https://, or a service on this machine",
                self.origins.of(&url),
                dotted(&join(at, "token_file")),
                dotted(&url)
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::load_text;

    const SERVICE: &str = "orchestrator = \"command\"\n[worker_types.mail.command]\ntoken_file = \"t\"\nurl = ";

    #[test]
    fn a_token_in_clear_text_and_a_second_form_are_told() {
        let loaded = load_text(&format!("{SERVICE}\"http://scaler.example/v1\"\n")).unwrap();
        let expected = "the token of worker_types.mail.command.token_file travels in clear text to \
                        worker_types.mail.command.url; use https://";
        assert!(loaded.warnings.iter().any(|warning| warning.contains(expected)), "{:?}", loaded.warnings);
        let loaded = load_text(&format!("{SERVICE}\"https://scaler.example/v1\"\n")).unwrap();
        assert_eq!(loaded.warnings, Vec::<String>::new());
        let errors = load_text(&format!("{SERVICE}\"https://scaler.example/v1\"\nlist = [\"p\"]\n")).unwrap_err();
        let expected = "worker_types.mail.command.list: can't be used together with `url`; remove one of them";
        assert!(errors.to_string().contains(expected), "{errors}");
    }
}
