use crate::things::{World, at, digest, image, layer, origin, record, vch};
use bulkhead_model::{Digest, Image, Reference};
use bulkhead_store::StoreError;

fn reference(text: &str) -> Reference {
    text.parse::<Reference>().unwrap().or_latest()
}

#[tokio::test]
async fn an_image_comes_back_as_it_was_written() {
    let world = World::new().await;
    let (store, vch) = (&world.store, world.vch.id);
    // The same layer twice, and one that another image has.
    let mut app = image(5, &[1, 4, 1]);
    app.references = vec![reference("reg.example/app:1"), reference("reg.example/app:2")];
    store.put_image(vch, &app, &record("pull")).await.unwrap();
    assert_eq!(store.image(vch, &app.id).await.unwrap(), app);
    assert_eq!(store.images(vch).await.unwrap(), [app.clone(), world.image.clone()]);
    assert_eq!(store.layer(vch, &digest(4)).await.unwrap(), layer(4));
    assert_eq!(store.layers(vch).await.unwrap(), [layer(1), layer(2), layer(4)]);
    assert!(matches!(store.layer(vch, &digest(9)).await, Err(StoreError::NotFound { .. })));
    assert!(matches!(store.image(vch, &digest(9)).await, Err(StoreError::NotFound { .. })));

    // Pulled again under another name: origins add up, the reference is added.
    let again = Image { origins: vec![origin("mirror", 8)], references: vec![reference("x")], ..app.clone() };
    store.put_image(vch, &again, &record("pull")).await.unwrap();
    let both = store.image(vch, &app.id).await.unwrap();
    assert_eq!(both.origins, [origin("app", 5), origin("mirror", 8)]);
    assert_eq!(both.references.len(), 3);
    store.add_origin(vch, &app.id, &origin("third", 3), &record("pull")).await.unwrap();
    store.add_origin(vch, &app.id, &origin("third", 3), &record("pull")).await.unwrap();
    assert_eq!(store.image(vch, &app.id).await.unwrap().origins.len(), 3);
    let missing = store.add_origin(vch, &digest(9), &origin("x", 3), &record("pull")).await;
    assert!(matches!(missing, Err(StoreError::NotFound { .. })));
}

#[tokio::test]
async fn references_move_and_go() {
    let world = World::new().await;
    let (store, vch, first) = (&world.store, world.vch.id, &world.image.id);
    let second = image(2, &[1]);
    store.put_image(vch, &second, &record("pull")).await.unwrap();
    let app = reference("app");
    let tag = async |id: &Digest| store.tag(vch, &app, id, &record("tag")).await.map(|(before, _)| before);
    assert_eq!(tag(first).await.unwrap(), None);
    assert_eq!(tag(&second.id).await.unwrap().as_ref(), Some(first));
    assert!(matches!(tag(&digest(9)).await, Err(StoreError::NotFound { .. })));
    let by =
        async |text: &str| store.image_by_reference(vch, &text.parse().unwrap()).await.map(|image| image.id);
    assert_eq!(by("app").await.unwrap(), second.id);
    assert_eq!(by("docker.io/library/app:latest").await.unwrap(), second.id);
    assert!(matches!(by("app:2").await, Err(StoreError::NotFound { .. })));
    let (was, events) = store.untag(vch, &app, &record("untag")).await.unwrap();
    assert_eq!((was, events.len()), (second.id.clone(), 1));
    assert!(matches!(by("app").await, Err(StoreError::NotFound { .. })));
    assert!(matches!(store.untag(vch, &app, &record("untag")).await, Err(StoreError::NotFound { .. })));
}

#[tokio::test]
async fn a_digest_means_where_it_was_fetched_from() {
    let world = World::new().await;
    let (store, vch) = (&world.store, world.vch.id);
    let by = async |text: String| store.image_by_reference(vch, &text.parse().unwrap()).await;
    let fetched = digest(1);
    assert_eq!(by(format!("reg.example/app@{fetched}")).await.unwrap(), world.image);
    assert_eq!(by(format!("reg.example/app:any@{fetched}")).await.unwrap(), world.image);
    for elsewhere in ["other.example/app", "reg.example/other", "app"] {
        let missing = by(format!("{elsewhere}@{fetched}")).await;
        assert!(matches!(missing, Err(StoreError::NotFound { .. })), "{elsewhere}");
    }
}

#[tokio::test]
async fn images_are_found_by_the_beginning_of_their_id() {
    let world = World::new().await;
    let (store, vch) = (&world.store, world.vch.id);
    let mut twin = image(3, &[1]);
    twin.id = format!("sha256:01{}", "a".repeat(62)).parse().unwrap();
    store.put_image(vch, &twin, &record("pull")).await.unwrap();
    assert_eq!(store.find_image(vch, "01a").await.unwrap().id, twin.id);
    assert_eq!(store.find_image(vch, twin.id.hex()).await.unwrap().id, twin.id);
    assert!(matches!(store.find_image(vch, "01").await, Err(StoreError::Ambiguous { .. })));
    for text in ["", "02", "01A", "%", "sha256:01a"] {
        assert!(matches!(store.find_image(vch, text).await, Err(StoreError::NotFound { .. })), "{text}");
    }
}

#[tokio::test]
async fn layers_go_only_when_nothing_uses_them() {
    let world = World::new().await;
    let (store, vch) = (&world.store, world.vch.id);
    let shared = image(5, &[1, 4]);
    store.put_image(vch, &shared, &record("pull")).await.unwrap();
    store.tag(vch, &reference("five"), &shared.id, &record("tag")).await.unwrap();
    let container = world.create("c").await;
    let used = store.delete_image(vch, &world.image.id, &record("delete")).await;
    match used {
        Err(StoreError::ImageInUse { containers, .. }) => {
            assert_eq!(containers, std::slice::from_ref(&container.id))
        }
        other => panic!("{other:?}"),
    }
    let removed = store.delete_image(vch, &shared.id, &record("delete")).await.unwrap();
    assert_eq!(removed.condemned, [digest(4)], "layer 1 belongs to the other image too");
    assert_eq!(removed.references, [reference("five")]);
    assert_eq!(removed.events.len(), 1);
    let missing = store.delete_image(vch, &shared.id, &record("delete")).await;
    assert!(matches!(missing, Err(StoreError::NotFound { .. })));

    // Until its disk is gone, nothing may come to use it.
    assert!(matches!(store.layer(vch, &digest(4)).await, Err(StoreError::NotFound { .. })));
    let early = store.put_image(vch, &shared, &record("pull")).await;
    assert!(matches!(early, Err(StoreError::LayerCondemned { .. })), "{early:?}");
    assert_eq!(store.condemned_layers(vch).await.unwrap(), [digest(4)]);
    store.forget_layers(vch, &[digest(4), digest(1)]).await.unwrap();
    assert_eq!(store.condemned_layers(vch).await.unwrap(), []);
    assert_eq!(store.layers(vch).await.unwrap(), [layer(1), layer(2)], "a layer in use is not forgotten");
    store.put_image(vch, &shared, &record("pull")).await.unwrap();
}

#[tokio::test]
async fn layers_under_a_container_stay_whatever_image_they_came_from() {
    let world = World::new().await;
    let (store, vch) = (&world.store, world.vch.id);
    let extra = image(6, &[6]);
    store.put_image(vch, &extra, &record("pull")).await.unwrap();
    let mut container = world.container("c");
    container.layers = vec![digest(1), digest(6)];
    store.create_container(&container, &[], world.fence, &record("create")).await.unwrap();
    let removed = store.delete_image(vch, &extra.id, &record("delete")).await.unwrap();
    assert_eq!(removed.condemned, []);
    assert_eq!(store.layer(vch, &digest(6)).await.unwrap(), layer(6));
}

#[tokio::test]
async fn vchs_do_not_see_each_other_s_images() {
    let world = World::new().await;
    let other = vch("other");
    world.store.create_vch(&other, &record("create")).await.unwrap();
    world.store.put_image(other.id, &image(1, &[1]), &record("pull")).await.unwrap();
    let removed = world.store.delete_image(other.id, &digest(1), &record("delete")).await.unwrap();
    assert_eq!(removed.condemned, [digest(1)]);
    assert_eq!(world.store.images(world.vch.id).await.unwrap(), std::slice::from_ref(&world.image));
    world.store.mark_vch_deleting(other.id, &record("delete")).await.unwrap();
    let late = world.store.put_image(other.id, &image(1, &[]), &record("pull")).await;
    assert!(matches!(late, Err(StoreError::VchDeleting { .. })), "{late:?}");
    assert_eq!(world.image.added_at, at(1));
}

#[tokio::test]
async fn a_container_and_the_removal_of_its_image_do_not_pass_each_other() {
    let world = World::new().await;
    let store = &world.store;
    for round in 0..10 {
        let image = image(20 + round, &[20 + round]);
        store.put_image(world.vch.id, &image, &record("pull")).await.unwrap();
        let container = crate::things::container(world.vch.id, &image, &format!("c{round}"));
        let (create_record, delete_record) = (record("create"), record("delete"));
        let (created, deleted) = tokio::join!(
            store.create_container(&container, &[], world.fence, &create_record),
            store.delete_image(world.vch.id, &image.id, &delete_record)
        );
        match (created, deleted) {
            (Ok(_), Err(StoreError::ImageInUse { .. })) | (Err(StoreError::NotFound { .. }), Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}
