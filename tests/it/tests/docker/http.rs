//! What clients other than the CLI send.

use crate::endpoint::Endpoint;
use crate::world::IMAGE;
use serde_json::{Value, json};

/// Every operation that the API documents.
const OPERATIONS: &str = include_str!("../../../../core/docker-api/tests/data/operations.txt");

#[tokio::test(flavor = "multi_thread")]
async fn every_call_answers_for_a_thing_that_is_not_there() {
    let vch = Endpoint::new().await;
    for line in OPERATIONS.lines() {
        let mut words = line.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        // These stream without end, are about nothing in particular, ask a registry, or say it in a stream.
        if matches!(path, "/events" | "/auth" | "/distribution/{name}/json" | "/images/load")
            || path.ends_with("/prune") && !path.starts_with("/build")
            || !path.contains('{') && matches!(method, "GET" | "HEAD")
        {
            continue;
        }
        let path: Vec<&str> =
            path.split('/').map(|part| if part.starts_with('{') { "nosuch" } else { part }).collect();
        for version in ["", "/v1.24", "/v1.41", "/v1.54"] {
            let path = format!("{version}{}{}", path.join("/"), needed(method, line));
            let got = vch.send(method, &path, &[], "").await;
            assert!(matches!(got.status, 400 | 404 | 501 | 503), "{method} {path}: {got:?}");
            assert_eq!(got.header("api-version"), "1.54", "{method} {path}");
            assert_eq!(got.header("ostype"), "linux");
            assert!(got.header("server").starts_with("Bulkhead/"));
            assert_eq!(got.header("content-type"), "application/json", "{method} {path}");
            if method != "HEAD" {
                assert!(!got.message().is_empty(), "{method} {path}");
            }
            if path.contains("/containers/nosuch") && got.status == 404 {
                assert!(got.message().ends_with("No such container: nosuch"), "{method} {path}: {got:?}");
            }
            if path.contains("/images/nosuch") && got.status == 404 {
                assert_eq!(got.message(), "No such image: nosuch:latest", "{method} {path}");
            }
        }
    }
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_archive_is_told_in_the_stream_of_the_load() {
    let vch = Endpoint::new().await;
    let got = vch.send("POST", "/images/load", &[], "no archive").await;
    let line = got.json();
    assert_eq!((got.status, &line["error"]), (200, &line["errorDetail"]["message"]));
    assert!(line["error"].as_str().unwrap().contains("archive"), "{line}");
    vch.world.engine.shutdown().await;
}

/// What a call does not get far without.
fn needed(method: &str, line: &str) -> &'static str {
    match line.rsplit(['/', ' ']).nth(1) {
        Some("logs" | "attach") => "?stdout=1",
        Some("tag") => "?repo=a",
        Some("archive") if method == "GET" => "?path=/",
        _ => "",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_negotiated() {
    let vch = Endpoint::new().await;
    let ping = vch.send("HEAD", "/_ping", &[], "").await;
    assert_eq!((ping.status, ping.body.len(), ping.header("api-version")), (200, 0, "1.54"));
    assert_eq!(&vch.get("/v1.24/_ping").await.body[..], b"OK");
    let old = vch.get("/v1.23/info").await;
    assert_eq!((old.status, old.header("api-version")), (400, "1.54"));
    assert!(
        old.message().starts_with("client version 1.23 is too old. Minimum supported API version is 1.24")
    );
    assert!(
        vch.get("/v1.55/info").await.message().contains("too new. Maximum supported API version is 1.54")
    );
    for version in [24, 30, 41, 44, 51, 52, 53, 54] {
        for path in [
            "info",
            "version",
            "containers/json?all=1",
            "images/json",
            "networks",
            "volumes",
            "system/df",
            "images/app/json",
        ] {
            let got = vch.get(&format!("/v1.{version}/{path}")).await;
            assert_eq!(got.status, 200, "1.{version} {path}: {got:?}");
        }
    }
    assert_eq!(vch.get("/nosuch").await.message(), "page not found");
    assert_eq!(vch.send("PATCH", "/info", &[], "").await.status, 404);
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_read_as_they_should() {
    let vch = Endpoint::new().await;
    let good = json!({"image": IMAGE, "cmd": ["sim"], "Env": null, "Future": {}, "HostConfig": {"autoremove": false}}).to_string();
    let got = vch.post_json("/containers/create", &good).await;
    assert_eq!(got.status, 201, "{got:?}");
    assert!(got.json()["Warnings"].is_array());
    let charset = [("content-type", "application/json; charset=utf-8")];
    assert_eq!(vch.send("POST", "/containers/create", &charset, &good).await.status, 201);
    for (headers, body, status) in [
        (&[][..], good.as_str(), 400),
        (&[("content-type", "text/plain")], &good, 400),
        (&charset, "", 400),
        (&charset, "{} {}", 400),
        (&charset, r#"{"Image":"app","Image":"app"}"#, 400),
        (&charset, r#"{"Image":"app","image":"app"}"#, 400),
        (&charset, "{}", 400),
        (&charset, "[]", 400),
        (&charset, r#"{"Image":"nosuch","Cmd":["x"]}"#, 404),
    ] {
        let got = vch.send("POST", "/containers/create", headers, body).await;
        assert_eq!(got.status, status, "{body}: {got:?}");
    }
    let missing = vch.post_json("/containers/create", r#"{"Image":"nosuch","Cmd":["x"]}"#).await;
    assert_eq!(missing.message(), "No such image: nosuch:latest");
    let long = json!({"Image": IMAGE, "Env": ["A=".to_owned() + &"x".repeat(1 << 20)]}).to_string();
    assert_eq!(vch.post_json("/containers/create", &long).await.status, 413);
    let other = vch.post_json("/containers/create?platform=linux/arm64", &good).await;
    assert!(
        other.status == 404 && other.message().contains("does not match the specified platform"),
        "{other:?}"
    );
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn start_and_stop_say_when_there_was_nothing_to_do() {
    let vch = Endpoint::new().await;
    let id = vch.world.create("sleep").await;
    let post = async |path: String| vch.send("POST", &path, &[], "").await;
    assert_eq!(post(format!("/containers/{id}/stop")).await.status, 304);
    let started = post(format!("/containers/{id}/start")).await;
    assert_eq!((started.status, started.body.len()), (204, 0));
    assert_eq!(post(format!("/containers/{id}/start")).await.status, 304);
    let old = vch.send("POST", &format!("/containers/{id}/start"), &[], r#"{"Binds":["/:/host"]}"#).await;
    assert_eq!(old.status, 400, "a HostConfig at start");
    assert_eq!(post(format!("/containers/{id}/stop?t=0")).await.status, 204);
    assert_eq!(post(format!("/containers/{id}/stop?t=x")).await.status, 400);
    assert_eq!(post(format!("/containers/{id}/kill?signal=NOPE")).await.status, 400);
    assert_eq!(post(format!("/containers/{id}/wait?condition=never")).await.status, 400);
    assert_eq!(vch.get(&format!("/containers/{id}/logs")).await.status, 400, "no stream chosen");
    assert_eq!(vch.get("/containers/json?filters={").await.status, 400);
    vch.world.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_inspect_shows_makes_the_same_container_again() {
    let vch = Endpoint::new().await;
    let body = json!({
        "Image": IMAGE, "Cmd": ["sim"], "Env": ["A=1"], "Labels": {"a": "b"},
        "HostConfig": {"Memory": 64 << 20, "NetworkMode": "none", "NanoCpus": 500_000_000},
    });
    let first = vch.post_json("/containers/create?name=one", &body.to_string()).await;
    assert_eq!(first.status, 201, "{first:?}");
    let shown = vch.get("/containers/one/json").await.json();
    let mut again = shown["Config"].clone();
    again["HostConfig"] = shown["HostConfig"].clone();
    again["NetworkingConfig"] = json!({"EndpointsConfig": shown["NetworkSettings"]["Networks"]});
    let second = vch.post_json("/containers/create?name=two", &again.to_string()).await;
    assert_eq!(second.status, 201, "{second:?}");
    let second = vch.get("/containers/two/json").await.json();
    assert_eq!(second["HostConfig"], shown["HostConfig"]);
    let without_host = |value: &Value| {
        let mut config = value["Config"].clone();
        config["Hostname"] = Value::Null;
        config
    };
    assert_eq!(without_host(&second), without_host(&shown));
    vch.world.engine.shutdown().await;
}
