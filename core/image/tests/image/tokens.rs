//! The tokens that clients hand over instead of a password: `identitytoken` and `registrytoken` of `X-Registry-Auth`.

use crate::disks::Disks;
use crate::peer::{Asked, Peer, Reply, config, good, image, pull_from, reply};
use bulkhead_image::ImageError;
use bulkhead_image::registry::{Credentials, Registries};
use bulkhead_test_support::images::Built;
use std::collections::HashMap;

const IDENTITY: &str = "id/ent+ity&tok=en";

/// A registry that wants a bearer token of that service, and takes those that `takes` likes.
async fn registry(
    built: &Built,
    service: &Peer,
    takes: impl Fn(&str, &Asked, usize) -> bool + Send + Sync + 'static,
) -> Peer {
    let built = built.clone();
    let realm = format!("Bearer realm=\"http://{}/token\",service=\"the reg\"", service.address);
    Peer::start(move |asked, before| {
        let token = asked.headers.get("authorization").and_then(|header| header.strip_prefix("Bearer "));
        if asked.path == "/" || token.is_some_and(|token| takes(token, asked, before)) {
            return good(&built, asked);
        }
        Reply { headers: vec![("WWW-Authenticate", realm.clone())], ..reply(401, "{}") }
    })
    .await
}

/// Gives `t1`, `t2` … for the identity token, as the service of OAuth 2.0 that it is.
async fn token_service() -> Peer {
    Peer::start(|asked, before| {
        let form = form(&asked.body);
        if asked.method != "POST" || form.get("refresh_token").map(String::as_str) != Some(IDENTITY) {
            return reply(401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"no such identity"}]}"#);
        }
        reply(200, format!(r#"{{"access_token":"t{}","refresh_token":"other","expires_in":60}}"#, before + 1))
    })
    .await
}

fn form(body: &str) -> HashMap<String, String> {
    let decode = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'+' => b' ',
                b'%' => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => other,
            });
        }
        String::from_utf8(bytes).unwrap()
    };
    body.split('&').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (decode(k), decode(v))).collect()
}

#[tokio::test]
async fn an_identity_token_is_exchanged_at_the_token_service_and_goes_nowhere_else() {
    let built = image();
    let service = token_service().await;
    let peer = registry(&built, &service, |token, _, _| token == "t1").await;
    let identity = Credentials::IdentityToken(IDENTITY.into());
    pull_from(&peer, &identity, &Disks::new()).await.unwrap();
    let asked = service.asked();
    let [exchange] = asked.as_slice() else { panic!("one token for all: {asked:?}") };
    assert_eq!((exchange.method.as_str(), exchange.path.as_str()), ("POST", "/token"));
    assert_eq!(exchange.headers["content-type"], "application/x-www-form-urlencoded");
    assert!(!exchange.headers.contains_key("authorization"));
    let form = form(&exchange.body);
    let expected = [
        ("grant_type", "refresh_token"),
        ("refresh_token", IDENTITY),
        ("service", "the reg"),
        ("scope", "repository:app:pull"),
        ("client_id", "bulkhead"),
    ];
    assert_eq!(form, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    let told = format!("{:?}", peer.asked());
    assert!(!told.contains(IDENTITY) && !told.contains("ent%2Bity"), "{told}");
}

#[tokio::test]
async fn a_token_that_expires_while_pulling_is_fetched_anew() {
    let built = image();
    let service = token_service().await;
    // The first is good for the manifest only.
    let peer = registry(&built, &service, |token, asked, _| {
        token == "t2" || (token == "t1" && asked.path.contains("/manifests/"))
    })
    .await;
    pull_from(&peer, &Credentials::IdentityToken(IDENTITY.into()), &Disks::new()).await.unwrap();
    assert_eq!(service.asked().len(), 2);
}

#[tokio::test]
async fn login_proves_an_identity_token_and_asks_for_no_scope() {
    let built = image();
    let service = token_service().await;
    let peer = registry(&built, &service, |token, _, _| token == "t1").await;
    let registries = Registries::new(config(&[&peer])).unwrap();
    registries.login(&peer.address, &Credentials::IdentityToken(IDENTITY.into())).await.unwrap();
    let form = form(&service.asked()[0].body);
    assert!(form.contains_key("service") && !form.contains_key("scope"), "{form:?}");
    let wrong = Credentials::IdentityToken("geheim".into());
    let error = registries.login(&peer.address, &wrong).await.unwrap_err();
    assert!(matches!(error, ImageError::Login { .. }), "{error}");
    let text = format!("{error} {error:?}");
    assert!(text.contains("no such identity") && !text.contains("geheim"), "{text}");
    let error = pull_from(&peer, &wrong, &Disks::new()).await.unwrap_err();
    assert!(matches!(error, ImageError::Denied { .. }), "{error}");
}

#[tokio::test]
async fn a_registry_token_is_used_as_it_is_and_tried_once() {
    let built = image();
    let service = Peer::start(|_, _| reply(200, r#"{"token":"another"}"#)).await;
    let peer = registry(&built, &service, |token, _, _| token == "g00d").await;
    pull_from(&peer, &Credentials::RegistryToken("g00d".into()), &Disks::new()).await.unwrap();
    let before = peer.asked().len();
    let error =
        pull_from(&peer, &Credentials::RegistryToken("geheim".into()), &Disks::new()).await.unwrap_err();
    assert!(matches!(error, ImageError::Denied { .. }), "{error}");
    assert!(!format!("{error} {error:?}").contains("geheim"));
    assert!(peer.asked().len() <= before + 3, "{:?}", peer.asked());
    assert!(service.asked().is_empty(), "there is a token already: {:?}", service.asked());
}
