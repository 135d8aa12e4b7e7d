//! Whether the backend could do its work, in words for people. Changes nothing.

use serde_json::json;

use super::{FlyBackend, group::Group};
use crate::backend::{BackendError, Check};

impl FlyBackend {
    /// Tries for each worker type whether its machines can be listed, scaled, and made from what there is.
    ///
    /// Whether they may be scaled is found out with a request to make a machine without an image, which the API refuses
    /// either for that or for the token.
    pub async fn check(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        let mut last_app = None;
        for group in self.groups().values() {
            if last_app.replace(group.app.name.clone()).as_ref() != Some(&group.app.name) {
                checks.push(self.may_list(group).await);
                checks.push(self.may_scale(group).await);
            }
            checks.push(self.can_start(group).await);
        }
        checks
    }

    async fn may_list(&self, group: &Group) -> Check {
        let app = group.app.name.as_str();
        let listed = self.shared.api.list(app).await;
        let result = listed.map(|machines| format!("{} machines", machines.len()));
        Check::new(
            format!("fly.io app `{app}`: list machines"),
            result.map_err(|failure| failure.into_error("listing machines", app)),
        )
    }

    async fn may_scale(&self, group: &Group) -> Check {
        let app = group.app.name.as_str();
        let result = match self.shared.api.create(app, json!({ "config": {} })).await {
            Err(failure) if matches!(failure.status(), Some(400 | 422)) => Ok("allowed".to_owned()),
            Err(failure) => Err(failure.into_error("asking for the right to make machines", app)),
            Ok(machine) => Err(BackendError::permanent(format!(
                "the API made machine {} out of a request without image, which it should have refused; destroy it",
                machine.id
            ))),
        };
        Check::new(format!("fly.io app `{app}`: start, stop and make machines"), result)
    }

    async fn can_start(&self, group: &Group) -> Check {
        let result = match self.known(group).await {
            Err(error) => Err(error),
            Ok(()) => match (group.registry.template(), &group.spec().settings.image) {
                (Some(machine), _) => Ok(format!("new machines are copies of {}", machine.id)),
                (None, Some(image)) => Ok(format!("no machine yet; the first one runs {image}")),
                (None, None) => Err(BackendError::permanent(format!(
                    "process group `{0}` has no machine to copy; deploy one (`fly scale count {0}=1`), or set \
                     `worker_types.{1}.fly.image`",
                    group.name, group.worker_type
                ))),
            },
        };
        Check::new(format!("worker type `{}`: process group `{}`", group.worker_type, group.name), result)
    }
}
