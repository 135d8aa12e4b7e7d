//! What a program tells a browser session and asks of it: cookies, headers, expressions; and how long a session lasts.

use serde_json::{Value, json};

use crate::support::{
    browser::{Site, worker},
    redis::RedisServer,
    wait::{DEADLINE, eventually},
};

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn cookies_and_headers_are_of_one_session() {
    let (server, site) = (RedisServer::start(), Site::start(1).await);
    let worker = worker(&server, &site, "").await;
    for session in ["a", "b"] {
        worker.ask(session, "start", json!([])).await.unwrap();
    }
    let cookie = json!({ "name": "hidden", "value": "x", "url": site.url("/"), "httpOnly": true });
    assert_eq!(worker.ask("a", "set_cookies", json!([[cookie]])).await, Ok(Value::Null));
    for (session, title) in [("a", "known"), ("b", "stranger")] {
        let page = worker.ask(session, "goto", json!([site.url("/cookie")])).await.unwrap();
        assert_eq!(page["title"], json!(title), "{session}");
    }
    let told = worker.ask("a", "cookies", json!([])).await.unwrap();
    let hidden = told["cookies"].as_array().unwrap().iter().find(|cookie| cookie["name"] == "hidden");
    assert!(hidden.is_some_and(|cookie| cookie["value"] == "x" && cookie["httpOnly"] == true), "{told}");
    let wrong = json!([[{ "name": "a", "value": "b" }]]);
    let error = worker.ask("a", "set_cookies", wrong).await.unwrap_err();
    assert!(error.contains("the cookies are refused"), "{error}");

    let headers = |tenant: &str| json!([{ "X-Tenant": tenant }]);
    for (tenant, title) in [("7", "7"), ("8", "8")] {
        assert_eq!(worker.ask("a", "set_headers", headers(tenant)).await, Ok(Value::Null));
        let page = worker.ask("a", "goto", json!([site.url("/tenant")])).await.unwrap();
        assert_eq!(page["title"], json!(title));
    }
    assert_eq!(worker.ask("a", "set_headers", json!([{}])).await, Ok(Value::Null));
    for session in ["a", "b"] {
        let page = worker.ask(session, "goto", json!([site.url("/tenant")])).await.unwrap();
        assert_eq!(page["title"], json!("none"), "{session}");
    }
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn expressions_are_evaluated_if_that_is_on() {
    let (server, site) = (RedisServer::start(), Site::start(1).await);
    let mut careful = worker(&server, &site, "").await;
    careful.ask("a", "start", json!([])).await.unwrap();
    let error = careful.ask("a", "evaluate", json!(["1"])).await.unwrap_err();
    assert!(error.contains("`evaluate` is off; set `evaluate = true`"), "{error}");
    careful.ask("a", "close", json!([])).await.unwrap();
    careful.leave().await;

    let server = RedisServer::start();
    let worker = worker(&server, &site, "evaluate = true").await;
    worker.ask("a", "start", json!([site.url("/")])).await.unwrap();
    for (expression, value) in [
        ("document.title", json!("A page")),
        ("[1, { a: null }]", json!([1, { "a": null }])),
        ("Promise.resolve(7)", json!(7)),
        ("undefined", Value::Null),
    ] {
        assert_eq!(
            worker.ask("a", "evaluate", json!([expression])).await,
            Ok(json!({ "value": value })),
            "{expression}"
        );
    }
    for (expression, says) in [
        ("nobody.there", "nobody is not defined"),
        ("Promise.reject(new Error('no'))", "Error: no"),
        ("(", "SyntaxError"),
    ] {
        let error = worker.ask("a", "evaluate", json!([expression])).await.unwrap_err();
        assert!(error.contains(says), "{expression}: {error}");
    }
    let dialog = worker.ask("a", "evaluate", json!(["alert('hello')"])).await.unwrap();
    assert_eq!(dialog["dialogs"][0]["message"], json!("hello"), "{dialog}");
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn a_session_ends_after_its_time_whatever_it_does() {
    let (server, site) = (RedisServer::start(), Site::start(1).await);
    let worker = worker(&server, &site, "session_max_seconds = 3").await;
    worker.ask("a", "start", json!([])).await.unwrap();
    let waiting = worker.publish("wait_for", json!(["#nobody", 30]), json!({ "session": "a" })).await;
    let error = worker.answer(&waiting).await.unwrap_err();
    assert!(error.contains("session lost: it was open for `session_max_seconds`"), "{error}");
    let none_is_open = async || worker.heartbeat("sessions").await.as_deref() == Some("0");
    assert!(eventually(DEADLINE, none_is_open).await, "its place is free");
    // The job that was told may have been this one.
    let opens = async || worker.ask("a", "start", json!([])).await.is_ok_and(|page| page["already_open"] == false);
    assert!(eventually(DEADLINE, opens).await, "it can be opened again");
}
