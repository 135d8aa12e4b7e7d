//! A platform that is asked through programs: the command of each call, with its placeholders filled in.

use super::{
    call::{CallError, Change},
    listing::{self, Listed},
    run::{Process, run},
    spec::filled,
};
use crate::{backend::BackendError, config::CommandSettings, model::WorkerType};

/// The commands of a worker type.
#[derive(Clone, Copy)]
pub(super) struct Programs<'a> {
    pub(super) worker_type: &'a WorkerType,
    pub(super) settings: &'a CommandSettings,
}

impl Programs<'_> {
    /// Runs `list` and reads what it prints.
    pub(super) async fn list(self) -> Result<Vec<Listed>, BackendError> {
        let printed = self.run("list", &self.settings.list, &[]).await.map_err(|failure| failure.error)?;
        listing::lines(&printed)
            .map_err(|problem| BackendError::retryable(format!("`{}`: {problem}", self.setting("list"))))
    }

    /// Runs the command of a change.
    pub(super) async fn change(self, change: Change<'_>) -> Result<(), CallError> {
        let key = change.name();
        let Self { settings, .. } = self;
        match change {
            Change::Start(id) => self.run(key, &settings.start, &[("worker_id", id.as_str())]).await,
            Change::StartMany(count) => self.run(key, &settings.start, &[("count", &count.to_string())]).await,
            Change::Stop { handle, id } => {
                self.run(key, &settings.stop, &[("id", handle), ("worker_id", id.as_str())]).await
            }
            Change::Scale(target) => self.run(key, &settings.scale, &[("target", &target.to_string())]).await,
        }
        .map(drop)
    }

    /// Runs `watch` and calls `on_line` for each line that it prints, until it ends.
    pub(super) async fn watch(self, on_line: impl FnMut()) -> Result<(), BackendError> {
        let words = filled(&self.settings.watch, &[("type", self.worker_type.as_str())]);
        Process::watch(&words, self.settings, &self.setting("watch"))?.lines(on_line).await;
        Ok(())
    }

    async fn run(self, key: &str, words: &[String], values: &[(&str, &str)]) -> Result<Vec<u8>, CallError> {
        let mut all = vec![("type", self.worker_type.as_str())];
        all.extend_from_slice(values);
        run(&filled(words, &all), self.settings, &self.setting(key)).await
    }

    fn setting(self, key: &str) -> String {
        format!("worker_types.{}.command.{key}", self.worker_type)
    }
}
