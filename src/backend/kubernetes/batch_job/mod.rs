//! Workers as Jobs of Kubernetes, each with one pod (`kind = "job"`). A suspended CronJob is the template. A worker's
//! id is the name of its Job. In this backend a *Job* is always the object of Kubernetes, which has nothing to do with
//! the jobs in a queue.
//!
//! Owns how Jobs are made of the template, and what is known of them. Does no I/O.

mod jobs;
mod template;
mod view;

pub(super) use self::{
    jobs::Jobs,
    template::{CRON_JOB_LABEL, job, new_id, refusal},
    view::Job,
};
