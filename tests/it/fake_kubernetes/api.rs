//! HTTP: which object or list a path means, which right it takes, and which fault is in its way.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Query, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    Fault, Request, Server, jobs,
    watching::watch,
    world::{Key, Refusal},
};

/// Marks clients that play a part of the cluster: their requests are neither noted, nor refused, nor disturbed.
pub(crate) const PLAYER_HEADER: &str = "x-plays-a-part";

/// Answers every request.
pub(super) async fn answer(
    State(server): State<Arc<Server>>,
    method: Method,
    uri: Uri,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(place) = Place::of(uri.path()) else {
        return refuse(&Refusal::new(404, "NotFound", "the server could not find the requested resource"));
    };
    let verb = place.verb(&method, &query);
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let mut answer_is_lost = false;
    if !headers.contains_key(PLAYER_HEADER) {
        let request = place.request(verb, &body);
        match disturbed(&server, &request).await {
            Some(Disturbed::Answered(answer)) => return answer,
            Some(Disturbed::LosesAnswer) => answer_is_lost = true,
            None => {}
        }
        if server.denies(&request) {
            return refuse(&forbidden(&request));
        }
    }
    if verb == "watch" {
        return watch(server, place, &query);
    }
    match act(&server, &place, verb, &query, &body) {
        _ if answer_is_lost => cut(),
        Ok(value) => {
            let code = if verb == "create" { StatusCode::CREATED } else { StatusCode::OK };
            (code, Json(value)).into_response()
        }
        Err(refusal) => refuse(&refusal),
    }
}

/// What a fault does to a request.
enum Disturbed {
    /// This is the answer, and nothing is done.
    Answered(Response),
    /// It is carried out, and the client learns nothing.
    LosesAnswer,
}

/// An answer that breaks off.
fn cut() -> Response {
    let broken = futures_util::stream::once(async { Err::<Bytes, _>(std::io::Error::other("cut")) });
    Response::new(Body::from_stream(broken))
}

/// Notes the request, and carries out the fault that waits for it, if there is one.
async fn disturbed(server: &Server, request: &Request) -> Option<Disturbed> {
    server.note(request.clone());
    match server.fault_for(request)? {
        Fault::Status { code, message, retry_after } => {
            let mut response = refuse(&Refusal::new(code, "Injected", message));
            if let Some(seconds) = retry_after {
                response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            }
            Some(Disturbed::Answered(response))
        }
        Fault::Slow(time) => {
            tokio::time::sleep(time).await;
            None
        }
        Fault::Cut => Some(Disturbed::Answered(cut())),
        Fault::LoseAnswer => Some(Disturbed::LosesAnswer),
    }
}

fn act(
    server: &Server,
    place: &Place,
    verb: &str,
    query: &HashMap<String, String>,
    body: &Value,
) -> Result<Value, Refusal> {
    if place.resource == "selfsubjectaccessreviews" {
        return Ok(server.review(body));
    }
    if place.group == "keda.sh" && !server.has_keda() {
        return Err(Refusal::new(404, "NotFound", "the server could not find the requested resource"));
    }
    let selector = query.get("labelSelector").map_or("", String::as_str);
    if (verb, place.resource.as_str()) == ("create", "jobs") {
        jobs::admit(body)?;
    }
    let mut world = server.world();
    let outcome = match (verb, place.subresource.as_str()) {
        ("list", _) => {
            let all = world.list(&place.group, &place.resource, selector);
            return Ok(page(&all, query, world.version()));
        }
        ("create", _) => {
            let name = body["metadata"]["name"].as_str();
            let generated = body["metadata"]["generateName"].as_str().map(|prefix| format!("{prefix}{}", random()));
            let name = name.map(str::to_owned).or(generated).unwrap_or_default();
            world.create(place.key(&name), body.clone(), super::NAMESPACE)
        }
        ("get", "scale") => world.get(&place.key(&place.name)).map(scale_of),
        ("get", _) => world.get(&place.key(&place.name)).cloned(),
        ("patch", "scale") => {
            let manager = query.get("fieldManager").map_or("unknown", String::as_str);
            world.scale(&place.key(&place.name), body, manager).map(|object| scale_of(&object))
        }
        ("patch", _) => world.merge(&place.key(&place.name), body),
        ("delete", _) => {
            let uid = body["preconditions"]["uid"].as_str();
            world.delete(&place.key(&place.name), uid, body["gracePeriodSeconds"].as_u64())
        }
        _ => Err(Refusal::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )),
    };
    drop(world);
    server.tell_watches();
    outcome
}

/// One page of a list; the token to go on with is the position.
fn page(all: &[Value], query: &HashMap<String, String>, version: u64) -> Value {
    let number = |name: &str| query.get(name).and_then(|text| text.parse::<usize>().ok());
    let from = number("continue").unwrap_or(0).min(all.len());
    let to = number("limit").map_or(all.len(), |limit| (from + limit).min(all.len()));
    let token = if to < all.len() { to.to_string() } else { String::new() };
    json!({
        "kind": "List", "apiVersion": "v1",
        "metadata": { "resourceVersion": version.to_string(), "continue": token },
        "items": all[from..to],
    })
}

fn scale_of(object: &Value) -> Value {
    let metadata = &object["metadata"];
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"], "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": { "replicas": object["spec"]["replicas"] },
        "status": { "replicas": object["status"]["replicas"].as_u64().unwrap_or(0) },
    })
}

fn random() -> String {
    let text = uuid::Uuid::now_v7().simple().to_string();
    text[text.len() - 5..].to_owned()
}

fn refuse(refusal: &Refusal) -> Response {
    let code = StatusCode::from_u16(refusal.code).expect("refusals have HTTP codes");
    (code, Json(refusal.status())).into_response()
}

fn forbidden(request: &Request) -> Refusal {
    let Request { verb, group, resource, name } = request;
    let message = format!(
        "{resource} \"{name}\" is forbidden: User \"system:serviceaccount:jobs:swarm\" cannot {verb} resource \
         \"{resource}\" in API group \"{group}\" in the namespace \"{}\"",
        super::NAMESPACE
    );
    Refusal::new(403, "Forbidden", message)
}

/// What a path means.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) group: String,
    pub(super) resource: String,
    pub(super) name: String,
    subresource: String,
}

impl Place {
    /// `/api/v1/…` and `/apis/GROUP/VERSION/…`, with or without `namespaces/NAME`.
    fn of(path: &str) -> Option<Self> {
        let mut parts = path.trim_matches('/').split('/');
        let group = match parts.next()? {
            "api" => String::new(),
            "apis" => parts.next()?.to_owned(),
            _ => return None,
        };
        parts.next()?;
        let mut rest: Vec<&str> = parts.collect();
        if rest.first() == Some(&"namespaces") && rest.len() > 2 {
            rest.drain(..2);
        }
        let mut rest = rest.into_iter().map(str::to_owned);
        let resource = rest.next()?;
        Some(Self {
            group,
            resource,
            name: rest.next().unwrap_or_default(),
            subresource: rest.next().unwrap_or_default(),
        })
    }

    fn verb(&self, method: &Method, query: &HashMap<String, String>) -> &'static str {
        match (method.as_str(), self.name.is_empty()) {
            ("GET", true) if query.get("watch").is_some_and(|value| value != "false") => "watch",
            ("GET", true) => "list",
            ("GET", false) => "get",
            ("POST", _) => "create",
            ("PATCH", _) => "patch",
            ("DELETE", _) => "delete",
            _ => "update",
        }
    }

    fn key(&self, name: &str) -> Key {
        Key { group: self.group.clone(), resource: self.resource.clone(), name: name.to_owned() }
    }

    fn request(&self, verb: &str, body: &Value) -> Request {
        let resource = match self.subresource.as_str() {
            "" => self.resource.clone(),
            subresource => format!("{}/{subresource}", self.resource),
        };
        let name = if self.name.is_empty() { body["metadata"]["name"].as_str().unwrap_or("") } else { &self.name };
        Request { verb: verb.to_owned(), group: self.group.clone(), resource, name: name.to_owned() }
    }
}
