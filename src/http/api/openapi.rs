//! `/v1/openapi.json`: the OpenAPI 3.1 document, generated from the table of operations and from the types that are
//! serialized and parsed. OpenAPI 3.1 uses JSON Schema 2020-12, which is what `schemars` generates.

use std::sync::LazyLock;

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{Answer, Kind, Operation, Parameter, operations, read::Failure, schema};

/// The document, generated once.
static DOCUMENT: LazyLock<String> = LazyLock::new(|| made().to_string());

pub(super) async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str()).into_response()
}

/// Schemas of serialized types, and of parsed types.
struct Schemas {
    written: SchemaGenerator,
    read: SchemaGenerator,
    failure: Value,
}

impl Schemas {
    fn new() -> Self {
        let settings = || SchemaSettings::draft2020_12().with(|to| to.definitions_path = "/components/schemas".into());
        let mut written = settings().for_serialize().into_generator();
        let failure = schema::<Failure>(&mut written).to_value();
        Self { written, read: settings().for_deserialize().into_generator(), failure }
    }
}

pub(super) fn made() -> Value {
    let mut schemas = Schemas::new();
    let mut paths = Map::new();
    for operation in operations() {
        let method = if operation.is_read() { "get" } else { "post" };
        let described = described(&operation, &mut schemas);
        let entry = paths.entry(operation.path).or_insert_with(|| json!({}));
        entry[method] = described;
    }
    let mut components = schemas.written.take_definitions(true);
    components.extend(schemas.read.take_definitions(true));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "swarm autoscaler",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What an autoscaler shows of itself, and orders about its worker types. Reading needs the token of \
                            `[http] read_token` or that of `[http] token`, if there is a read token; an order needs the one \
                            of `[http] token`, and without one there are no orders. Times are milliseconds since 1970.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer" },
                "readToken": { "type": "http", "scheme": "bearer" },
            },
        },
    })
}

fn described(operation: &Operation, schemas: &mut Schemas) -> Value {
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": parameters(operation),
        "responses": responses(operation, schemas),
        // No token, or either of the two: the settings decide.
        "security": [{}, { "readToken": [] }, { "token": [] }],
    });
    if !matches!(operation.kind, Kind::Read) {
        described["security"] = json!([{ "token": [] }]);
    }
    if let Kind::Order { body, required } = operation.kind {
        let schema = body(&mut schemas.read);
        described["requestBody"] =
            json!({ "required": required, "content": { "application/json": { "schema": schema } } });
    }
    described
}

fn parameters(operation: &Operation) -> Vec<Value> {
    let of_path = operation.path.contains("{name}").then(|| {
        json!({
            "name": "name", "in": "path", "required": true, "description": "The worker type.",
            "schema": { "type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,62}$" },
        })
    });
    let of_job = operation.path.contains("{id}").then(|| {
        json!({
            "name": "id", "in": "path", "required": true, "description": "The job.",
            "schema": { "type": "string", "minLength": 1, "maxLength": 512 },
        })
    });
    let of_query = operation.query.iter().map(|Parameter { name, of_type, what }| {
        json!({ "name": name, "in": "query", "description": what, "schema": { "type": of_type } })
    });
    of_path.into_iter().chain(of_job).chain(of_query).collect()
}

fn responses(operation: &Operation, schemas: &mut Schemas) -> Map<String, Value> {
    let content = match operation.answer {
        Answer::Json(schema) => json!({ "application/json": { "schema": schema(&mut schemas.written) } }),
        Answer::Stream => json!({ "text/event-stream": { "schema": {
            "type": "string",
            "description": "Each message is a JSON object: `now`; `first` in the first one; and what has changed of `fleet` \
                            (all but worker types), `types` (as getWorkerType), `gone` (names that are not shown any more), \
                            `curves` (by worker type: time, depth, target, workers) and `events` (as listEvents).",
        } } }),
        Answer::Document => json!({ "application/json": { "schema": { "type": "object" } } }),
    };
    let mut responses = Map::from_iter([("200".to_owned(), json!({ "description": "Done.", "content": content }))]);
    for (code, when) in failures(operation) {
        let content = json!({ "application/json": { "schema": schemas.failure } });
        responses.insert(code.as_str().to_owned(), json!({ "description": when, "content": content }));
    }
    responses
}

/// Returns the refusals that an operation may answer with, and their reasons.
fn failures(operation: &Operation) -> Vec<(StatusCode, &'static str)> {
    let mut failures =
        vec![(StatusCode::MISDIRECTED_REQUEST, "The server does not answer under the name in the request.")];
    if operation.is_read() {
        failures.push((StatusCode::UNAUTHORIZED, "Reading needs a token, and none was sent, or a wrong one."));
    }
    if !operation.query.is_empty() {
        failures.push((StatusCode::BAD_REQUEST, "The query is not as described."));
    }
    if operation.path.contains("{name}") {
        failures.push((StatusCode::NOT_FOUND, "There is no such worker type."));
    }
    if operation.path.contains("{id}") {
        failures.push((StatusCode::NOT_FOUND, "There is no such job any more."));
    }
    if matches!(operation.kind, Kind::Search) {
        failures.extend([
            (StatusCode::BAD_REQUEST, "The id is too long, or the query is not as described."),
            (StatusCode::FORBIDDEN, "Control over HTTP is off: the autoscaler has no token."),
            (StatusCode::SERVICE_UNAVAILABLE, "Redis can't be asked."),
        ]);
    }
    if matches!(operation.answer, Answer::Stream) {
        failures.extend([
            (StatusCode::NOT_FOUND, "There is no such worker type."),
            (StatusCode::SERVICE_UNAVAILABLE, "Too many readers follow already."),
        ]);
    }
    if !operation.is_read() {
        failures.extend([
            (StatusCode::BAD_REQUEST, "The body is not as described."),
            (StatusCode::UNAUTHORIZED, "No token was sent, or a wrong one."),
            (StatusCode::FORBIDDEN, "Control over HTTP is off: the autoscaler has no token."),
            (StatusCode::PAYLOAD_TOO_LARGE, "The body is too large."),
            (StatusCode::UNPROCESSABLE_ENTITY, "The number of workers is out of bounds."),
            (StatusCode::SERVICE_UNAVAILABLE, "Redis can't be asked; nothing has changed."),
        ]);
    }
    failures
}
