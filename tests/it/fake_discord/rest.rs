//! The REST API.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{
    APPLICATION, Shared, TOKEN,
    interaction::Message,
    upload::message,
    world::{Fault, Refusal, World},
};

pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let router = Router::new().fallback(handle).layer(DefaultBodyLimit::max(64 << 20)).with_state(shared);
    axum::serve(listener, router).await.unwrap();
}

/// An answer: status and body.
type Answer = (u16, Value);

fn problem(status: u16, code: u64, message: &str) -> Answer {
    (status, json!({ "code": code, "message": message }))
}

async fn handle(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path().to_owned();
    if let Some(limited) = shared.change(|world| limit(world, &method, &path)) {
        return limited;
    }
    let fault = shared.change(|world| {
        let fits = |(of, end, _): &(String, String, Fault)| of == method.as_str() && path.ends_with(end.as_str());
        world.faults.iter().position(fits).map(|at| world.faults.remove(at).2)
    });
    let (status, answer) = match fault {
        Some(Fault::Status(status, code)) => problem(status, code, "as the test wants it"),
        _ => shared.change(|world| answer(world, &method, &path, &headers, &body)),
    };
    let status = StatusCode::from_u16(status).unwrap();
    if answer.is_null() { status.into_response() } else { (status, JSON, answer.to_string()).into_response() }
}

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

/// Notes the request, and refuses it while its path is limited.
fn limit(world: &mut World, method: &Method, path: &str) -> Option<Response> {
    world.requests.push(format!("{method} {path}"));
    if let Some((how, seconds)) = world.refused {
        return Some(refused(how, seconds));
    }
    let fits = |(of, end, fault): &(String, String, Fault)| {
        of == method.as_str() && path.ends_with(end.as_str()) && matches!(fault, Fault::TooMany(_))
    };
    let begins = world.faults.iter().position(fits).map(|at| world.faults.remove(at).2);
    let until = if let Some(Fault::TooMany(seconds)) = begins {
        let until = Instant::now() + Duration::from_secs(seconds);
        world.limited.insert(path.to_owned(), until);
        until
    } else {
        let until = *world.limited.get(path).filter(|until| **until > Instant::now())?;
        world.too_early += 1;
        until
    };
    let seconds = until.duration_since(Instant::now()).as_secs_f64();
    let body = json!({ "message": "You are being rate limited.", "retry_after": seconds, "global": false });
    let headers = [
        ("retry-after", format!("{:.0}", seconds.ceil())),
        ("x-ratelimit-bucket", "abcd1234".to_owned()),
        ("x-ratelimit-limit", "5".to_owned()),
        ("x-ratelimit-remaining", "0".to_owned()),
        ("x-ratelimit-reset-after", format!("{seconds:.3}")),
        ("x-ratelimit-scope", "user".to_owned()),
    ];
    Some((StatusCode::TOO_MANY_REQUESTS, headers, JSON, body.to_string()).into_response())
}

fn refused(how: Refusal, seconds: u64) -> Response {
    let after = [("retry-after", seconds.to_string())];
    let json =
        |message: &str, global| json!({ "message": message, "retry_after": seconds, "global": global }).to_string();
    match how {
        Refusal::Json => (StatusCode::TOO_MANY_REQUESTS, after, JSON, json("blocked", false)).into_response(),
        Refusal::Text => (StatusCode::TOO_MANY_REQUESTS, after, "error code: 1015").into_response(),
        Refusal::Global => {
            let scope = [("x-ratelimit-global", "true"), ("x-ratelimit-scope", "global")];
            (StatusCode::TOO_MANY_REQUESTS, after, scope, JSON, json("limited", true)).into_response()
        }
    }
}

fn answer(world: &mut World, method: &Method, path: &str, headers: &HeaderMap, body: &[u8]) -> Answer {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let ["api", "v10", rest @ ..] = segments.as_slice() else { return problem(404, 0, "404: Not Found") };
    let application = APPLICATION.to_string();
    match (method.as_str(), rest) {
        ("POST", ["interactions", id, token, "callback"]) => callback(world, id, token, body),
        ("PATCH", ["webhooks", app, token, "messages", "@original"]) if *app == application => {
            edit(world, token, &message(headers, body))
        }
        ("POST", ["webhooks", app, token]) if *app == application => follow_up(world, token, message(headers, body)),
        _ if headers.get(header::AUTHORIZATION).is_none_or(|value| value != format!("Bot {TOKEN}").as_str()) => {
            problem(401, 0, "401: Unauthorized")
        }
        ("GET", ["applications", "@me"]) => (200, application_of(&application)),
        ("GET", ["gateway", "bot"]) => (200, connection_info(world)),
        ("PUT", ["applications", app, "commands"]) if *app == application => register(world, None, body),
        ("PUT", ["applications", app, "guilds", guild, "commands"]) if *app == application => {
            register(world, guild.parse().ok(), body)
        }
        _ => problem(404, 0, "404: Not Found"),
    }
}

fn application_of(id: &str) -> Value {
    json!({
        "id": id, "name": "swarm", "icon": null, "description": "", "bot_public": false, "bot_require_code_grant": false,
        "verify_key": "00", "flags": 0, "team": null,
    })
}

fn connection_info(world: &World) -> Value {
    let start = json!({ "total": 1_000, "remaining": 999, "reset_after": 14_400_000, "max_concurrency": 16 });
    json!({ "url": world.named_gateway, "shards": world.shards, "session_start_limit": start })
}

fn register(world: &mut World, guild: Option<u64>, body: &[u8]) -> Answer {
    let commands: Vec<Value> = serde_json::from_slice(body).expect("the bot sends commands");
    world.commands.insert(guild, commands);
    (200, json!([]))
}

fn callback(world: &mut World, id: &str, token: &str, body: &[u8]) -> Answer {
    let body: Value = serde_json::from_slice(body).expect("the bot sends JSON");
    let found = world.interactions.iter_mut().find(|one| one.id.to_string() == id && one.token == token);
    let Some(interaction) = found.filter(|one| one.is_known()) else {
        return problem(404, 10_062, "Unknown interaction");
    };
    if interaction.callback.is_some() {
        return problem(400, 40_060, "Interaction has already been acknowledged.");
    }
    interaction.callback = Some((body.clone(), interaction.created.elapsed()));
    if body["type"] == 4 {
        let message = Message { body: body["data"].clone(), ..Message::default() };
        interaction.reply = Some(message.clone());
        interaction.history.push(message);
    }
    (204, Value::Null)
}

fn edit(world: &mut World, token: &str, message: &Message) -> Answer {
    let id = world.new_id();
    let found = world.interactions.iter_mut().find(|one| one.token == token);
    let Some(interaction) = found.filter(|one| one.takes_replies()) else {
        return problem(404, 10_015, "Unknown Webhook");
    };
    if interaction.deleted {
        return problem(404, 10_008, "Unknown Message");
    }
    let mut message = message.clone();
    // Who sees it was decided by the callback.
    if let Some((callback, _)) = &interaction.callback {
        message.body["flags"] = callback["data"]["flags"].clone();
    }
    interaction.reply = Some(message.clone());
    interaction.history.push(message);
    (200, json!({ "id": id.to_string() }))
}

fn follow_up(world: &mut World, token: &str, message: Message) -> Answer {
    let id = world.new_id();
    let found = world.interactions.iter_mut().find(|one| one.token == token);
    let Some(interaction) = found.filter(|one| one.takes_replies()) else {
        return problem(404, 10_015, "Unknown Webhook");
    };
    interaction.follow_ups.push(message);
    (200, json!({ "id": id.to_string() }))
}
