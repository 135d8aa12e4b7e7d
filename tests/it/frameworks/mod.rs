//! Other people's job frameworks, really run: their own producers and their own workers, scaled by the real autoscaler.
//! `.ci/install-test-servers` installs them.

mod bed;
mod by_state;
mod celery;
mod own_server;
mod pre_stop;
mod programs;
mod proof;
mod rq;
mod sidekiq;
mod times;
mod walks;
