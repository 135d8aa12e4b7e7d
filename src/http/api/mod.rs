//! `/v1`: the state of an autoscaler, overrides of worker types, single jobs and dead letters, for programs. Reading is
//! open like `/status`; overrides, jobs and dead letters need the token. Every operation is in one table, from which
//! the router and the OpenAPI document are both made.

mod dead_letters;
mod jobs;
mod openapi;
mod orders;
mod read;
#[cfg(test)]
mod tests;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{Method, StatusCode, Uri},
    response::Response,
    routing::{MethodRouter, get, post},
};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use self::{
    dead_letters::{DeadLetterAnswer, DeadLetterRequest},
    jobs::{CancelAnswer, CancelRequest},
    orders::{HoldRequest, OrderAnswer, PauseRequest, ResumeRequest, ScaleRequest},
    read::{Events, Types},
};
use super::{Served, error::refusal, live};
use crate::model::{
    dead_letter::DeadLetterPage,
    explanation::Explanation,
    job::JobReport,
    snapshot::{FleetSnapshot, TypeSnapshot},
};

/// Maximum bytes of a request's body: far more than any request needs.
const BODY_LIMIT: usize = 16 * 1024;

/// Generates a schema, and the schemas that it refers to.
type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// One operation.
struct Operation {
    path: &'static str,
    handler: MethodRouter<Served>,
    /// Operation id in the document, and so the name in generated clients.
    id: &'static str,
    summary: &'static str,
    query: &'static [Parameter],
    kind: Kind,
    answer: Answer,
}

/// A query parameter.
struct Parameter {
    name: &'static str,
    of_type: &'static str,
    what: &'static str,
}

#[derive(Clone, Copy)]
enum Kind {
    Read,
    /// A read that searches Redis; it needs the token for overrides.
    Search,
    /// A request that changes something; it needs the token.
    Order {
        body: SchemaOf,
        required: bool,
    },
}

#[derive(Clone, Copy)]
enum Answer {
    Json(SchemaOf),
    /// Server-sent events.
    Stream,
    /// The document itself, which has no schema.
    Document,
}

impl Operation {
    fn read(path: &'static str, id: &'static str, summary: &'static str, handler: MethodRouter<Served>) -> Self {
        Self { path, handler, id, summary, query: &[], kind: Kind::Read, answer: Answer::Document }
    }

    /// Returns an operation that changes a worker type. Methods other than POST are refused with a hint.
    fn order<B: JsonSchema>(
        path: &'static str,
        id: &'static str,
        summary: &'static str,
        handler: MethodRouter<Served>,
    ) -> Self {
        let kind = Kind::Order { body: schema::<B>, required: false };
        let handler = handler.fallback(only_post);
        Self { path, handler, id, summary, query: &[], kind, answer: Answer::Json(schema::<OrderAnswer>) }
    }

    fn gives<T: JsonSchema>(self) -> Self {
        Self { answer: Answer::Json(schema::<T>), ..self }
    }

    fn is_read(&self) -> bool {
        matches!(self.kind, Kind::Read | Kind::Search)
    }
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

const MATCHING: &[Parameter] = &[
    Parameter { name: "match", of_type: "string", what: "Only those whose name or queue contains this text." },
    Parameter { name: "limit", of_type: "integer", what: "Maximum number. Default: 100. At most 1000." },
];

const NEWEST: &[Parameter] = &[
    Parameter { name: "type", of_type: "string", what: "Only those of this worker type." },
    Parameter { name: "count", of_type: "integer", what: "Number of newest entries. Default: 50. At most 500." },
];

const FOLLOWED: &[Parameter] = &[Parameter {
    name: "type",
    of_type: "string",
    what: "Only this worker type and its entries, with at most 200 of each instead of 50.",
}];

const OLDEST: &[Parameter] = &[
    Parameter {
        name: "after",
        of_type: "string",
        what: "Only those after the one with this id: `next` of the last page.",
    },
    Parameter { name: "limit", of_type: "integer", what: "Maximum number. Default: 100. At most 1000." },
];

/// Returns the table of operations.
fn operations() -> Vec<Operation> {
    let scale = Operation::order::<ScaleRequest>(
        "/v1/worker_types/{name}/scale",
        "scaleWorkerType",
        "Set the number of workers, once or for a time",
        post(orders::scale),
    );
    vec![
        Operation::read("/v1/status", "getStatus", "Everything that the autoscaler knows", get(read::status))
            .gives::<FleetSnapshot>(),
        Operation {
            query: MATCHING,
            ..Operation::read("/v1/worker_types", "listWorkerTypes", "Worker types, by name", get(read::types))
        }
        .gives::<Types>(),
        Operation::read("/v1/worker_types/{name}", "getWorkerType", "One worker type", get(read::worker_type))
            .gives::<TypeSnapshot>(),
        Operation::read(
            "/v1/worker_types/{name}/why",
            "explainWorkerType",
            "The last decision about a worker type as arithmetic",
            get(read::why),
        )
        .gives::<Explanation<'static>>(),
        Operation {
            query: NEWEST,
            ..Operation::read("/v1/events", "listEvents", "What was changed and what people said", get(read::events))
        }
        .gives::<Events>(),
        Operation {
            query: FOLLOWED,
            answer: Answer::Stream,
            ..Operation::read(
                "/v1/stream",
                "followFleet",
                "Follow the fleet, as the status page does",
                get(live::stream),
            )
        },
        Operation::read("/v1/openapi.json", "getDocument", "This document", get(openapi::document)),
        Operation::order::<PauseRequest>(
            "/v1/worker_types/{name}/pause",
            "pauseWorkerType",
            "Leave the workers as they are, until the end or until resumed",
            post(orders::pause),
        ),
        Operation::order::<HoldRequest>(
            "/v1/worker_types/{name}/observe",
            "observeWorkerType",
            "As pause, and go on deciding and telling what would be done",
            post(orders::observe),
        ),
        Operation::order::<ResumeRequest>(
            "/v1/worker_types/{name}/resume",
            "resumeWorkerType",
            "Let the rules decide again",
            post(orders::resume),
        ),
        Operation { kind: Kind::Order { body: schema::<ScaleRequest>, required: true }, ..scale },
        Operation {
            kind: Kind::Search,
            ..Operation::read("/v1/jobs/{id}", "getJob", "Where a job is, and what happened to it", get(jobs::report))
        }
        .gives::<JobReport>(),
        Operation::order::<CancelRequest>("/v1/jobs/{id}/cancel", "cancelJob", "Cancel a job", post(jobs::cancel))
            .gives::<CancelAnswer>(),
        Operation {
            kind: Kind::Search,
            query: OLDEST,
            ..Operation::read(
                "/v1/worker_types/{name}/dead_letters",
                "listDeadLetters",
                "Jobs that were given up, oldest first",
                get(dead_letters::list),
            )
        }
        .gives::<DeadLetterPage>(),
        dead_letter_order(
            "/v1/worker_types/{name}/dead_letters/retry",
            "retryDeadLetters",
            "Publish jobs that were given up again, as new jobs",
            post(dead_letters::retry),
        ),
        dead_letter_order(
            "/v1/worker_types/{name}/dead_letters/drop",
            "dropDeadLetters",
            "Delete dead letters",
            post(dead_letters::remove),
        ),
    ]
}

fn dead_letter_order(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    handler: MethodRouter<Served>,
) -> Operation {
    let order = Operation::order::<DeadLetterRequest>(path, id, summary, handler).gives::<DeadLetterAnswer>();
    Operation { kind: Kind::Order { body: schema::<DeadLetterRequest>, required: true }, ..order }
}

/// Returns all routes below `/v1`.
pub(super) fn router() -> Router<Served> {
    let add = |router: Router<Served>, operation: Operation| router.route(operation.path, operation.handler);
    operations().into_iter().fold(Router::new(), add).layer(DefaultBodyLimit::max(BODY_LIMIT))
}

async fn only_post(method: Method, uri: Uri) -> Response {
    let error = format!("{} can't be asked to {method}; use POST", uri.path());
    refusal(StatusCode::METHOD_NOT_ALLOWED, &error)
}
