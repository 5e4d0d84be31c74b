//! What a registry tells of an image and of a repository, without giving it.

use crate::peer::{Peer, Reply, config, good, image, reply};
use bulkhead_image::ImageError;
use bulkhead_image::registry::{Credentials, Platform, Registries};
use bulkhead_model::{Digest, Reference};

#[tokio::test]
async fn an_image_is_told_by_its_manifest() {
    let built = image();
    let copy = built.clone();
    let peer = Peer::start(move |asked, _| good(&copy, asked)).await;
    let reference: Reference = format!("{}/app:1", peer.address).parse().unwrap();
    let registries = Registries::new(config(&[&peer])).unwrap();
    let described = registries.describe(&reference, &Credentials::Anonymous).await.unwrap();
    assert_eq!(described.descriptor.digest, Digest::of(&built.manifest));
    assert_eq!(described.descriptor.bytes, built.manifest.len() as u64);
    assert_eq!(described.descriptor.media_type, built.manifest_type);
    assert_eq!(described.platforms, [Platform::default()]);
    // Manifest and config, and no layer.
    assert_eq!(peer.asked().iter().filter(|asked| asked.path.contains("/blobs/")).count(), 1);
}

#[tokio::test]
async fn an_index_tells_its_platforms() {
    let digest = Digest::of(b"x");
    let of = |platform: &str| {
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":1,"platform":{platform}}}"#
        )
    };
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{},{}]}}"#,
        of(r#"{"os":"linux","architecture":"amd64"}"#),
        of(r#"{"os":"linux","architecture":"arm","variant":"v7"}"#)
    );
    let peer = Peer::start(move |asked, _| match asked.path.contains("/manifests/") {
        true => reply(200, index.clone()),
        false => reply(200, "{}"),
    })
    .await;
    let reference: Reference = format!("{}/app", peer.address).parse().unwrap();
    let registries = Registries::new(config(&[&peer])).unwrap();
    let described = registries.describe(&reference, &Credentials::Anonymous).await.unwrap();
    let platforms: Vec<String> = described.platforms.iter().map(ToString::to_string).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm/v7"]);
}

async fn tags(answer: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Result<Vec<String>, ImageError> {
    let peer = Peer::start(move |asked, _| match asked.path.split_once("/tags/list") {
        Some((_, query)) => answer(query),
        None => reply(200, "{}"),
    })
    .await;
    let repository: Reference = format!("{}/app", peer.address).parse().unwrap();
    Registries::new(config(&[&peer])).unwrap().tags(&repository, &Credentials::Anonymous).await
}

#[tokio::test]
async fn tags_come_in_pages() {
    let told = tags(|query| match query {
        "" => Reply {
            headers: vec![(
                "Link",
                "<http://elsewhere.example/v2/other/tags/list?last=b&n=2>; rel=\"next\"".into(),
            )],
            ..reply(200, r#"{"name":"app","tags":["a","b"]}"#)
        },
        "?last=b&n=2" => reply(200, r#"{"name":"app","tags":["c"]}"#),
        _ => reply(404, "{}"),
    });
    assert_eq!(told.await.unwrap(), ["a", "b", "c"]);
    assert!(tags(|_| reply(200, r#"{"name":"app","tags":null}"#)).await.unwrap().is_empty());
    assert!(matches!(tags(|_| reply(404, "{}")).await, Err(ImageError::NotFound { .. })));
}

#[tokio::test]
async fn a_list_without_end_is_given_up() {
    let endless = tags(|_| Reply {
        headers: vec![("Link", "</v2/app/tags/list?last=a>; rel=\"next\"".into())],
        ..reply(200, r#"{"tags":["a"]}"#)
    });
    assert!(matches!(endless.await, Err(ImageError::Limit { .. })));
    let many = vec!["\"x\""; 3000].join(",");
    let many = tags(move |_| reply(200, format!(r#"{{"tags":[{many}]}}"#)));
    assert!(matches!(many.await, Err(ImageError::Limit { .. })));
}
