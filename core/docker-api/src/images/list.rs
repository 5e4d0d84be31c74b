//! `GET /images/json`.

use super::shape::{SharedLayers, created, digests, summary, tags};
use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::filters::{Filters, glob};
use crate::query::clip;
use crate::{reply, time};
use bulkhead_model::{Image, Reference};
use chrono::{DateTime, Utc};

const FILTERS: [&str; 6] = ["reference", "dangling", "label", "before", "since", "until"];

pub async fn get(call: Call) -> Answer {
    let mut filters = Filters::parse(&call.query, &FILTERS)?;
    // Before 1.25 there was a parameter of its own.
    if let Some(pattern) = call.query.text("filter") {
        filters.add("reference", pattern);
    }
    let mut images = call.engine().images(&call.session).await?;
    images.sort_by(|a, b| created(b).cmp(&created(a)).then_with(|| a.id.cmp(&b.id)));
    let bounds = Bounds::of(&images, &filters)?;
    let users = if call.version.since(51) {
        call.engine().image_users(&call.session).await?
    } else {
        Default::default()
    };
    let shared = call.query.flag("shared-size").then(|| SharedLayers::of(&images));
    let mut list = Vec::new();
    for image in images.iter().filter(|image| wanted(image, &filters, &bounds)) {
        let mut item = summary(image, call.version);
        if let Some(map) = item.as_object_mut() {
            if call.version.since(51) {
                map.insert("Containers".into(), users.get(&image.id).copied().unwrap_or(0).into());
            }
            if let Some(shared) = &shared {
                map.insert("SharedSize".into(), shared.bytes_of(image).into());
            }
        }
        list.push(item);
    }
    reply::ok(&list)
}

/// Only images created between these, both exclusive.
#[derive(Debug, Default)]
struct Bounds {
    after: Option<DateTime<Utc>>,
    before: Option<DateTime<Utc>>,
}

impl Bounds {
    fn of(images: &[Image], filters: &Filters) -> Result<Self, ApiError> {
        let when = |text: &String| {
            let found = images.iter().find(|image| is_named(image, text));
            found.map(created).ok_or_else(|| ApiError::not_found(format!("No such image: {}", clip(text))))
        };
        let mut bounds = Self::default();
        for text in filters.values("since") {
            bounds.after = bounds.after.max(Some(when(text)?));
        }
        let mut before = filters.values("before").iter().map(when).collect::<Result<Vec<_>, _>>()?;
        for text in filters.values("until") {
            before.extend(time::parse_bound("until", Some(text))?);
        }
        bounds.before = before.into_iter().min();
        Ok(bounds)
    }
}

fn is_named(image: &Image, text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let by_name =
        text.parse::<Reference>().is_ok_and(|reference| image.references.contains(&reference.or_latest()));
    by_name || hex.len() >= 4 && image.id.hex().starts_with(hex)
}

fn wanted(image: &Image, filters: &Filters, bounds: &Bounds) -> bool {
    filters.labels(&image.config.labels)
        && filters.any("dangling", |value| {
            let dangling = tags(image).is_empty();
            if matches!(value, "true" | "1") { dangling } else { !dangling }
        })
        && filters.any("reference", |pattern| is_like(image, pattern))
        && bounds.after.is_none_or(|bound| created(image) > bound)
        && bounds.before.is_none_or(|bound| created(image) < bound)
}

/// A pattern without a tag stands for every tag, one without a registry for the familiar name.
fn is_like(image: &Image, pattern: &str) -> bool {
    let names = image.references.iter().flat_map(|name| [name.familiar(), name.to_string()]);
    let bare = image.references.iter().flat_map(|name| [name.familiar_name(), name.full_name()]);
    names.chain(bare).chain(digests(image)).any(|name| glob(pattern, &name))
}

#[cfg(test)]
mod tests {
    use super::super::shape::tests::image;
    use super::*;
    use crate::query::Query;

    fn check(json: &str, expect: &[Option<&str>]) {
        let encoded: String = json.bytes().map(|b| format!("%{b:02x}")).collect();
        let filters =
            Filters::parse(&Query::parse(&format!("filters={encoded}")).unwrap(), &FILTERS).unwrap();
        let images = [image(Some("alpine")), image(Some("reg.example/a/app:1")), image(None)];
        let bounds = Bounds::of(&images, &filters).unwrap();
        let found: Vec<_> = images
            .iter()
            .filter(|image| wanted(image, &filters, &bounds))
            .map(|image| tags(image).pop())
            .collect();
        assert_eq!(found, expect.iter().map(|name| name.map(str::to_owned)).collect::<Vec<_>>(), "{json}");
    }

    #[test]
    fn filters_select() {
        let (alpine, app) = (Some("alpine:latest"), Some("reg.example/a/app:1"));
        check("{}", &[alpine, app, None]);
        check(r#"{"dangling":["true"]}"#, &[None]);
        check(r#"{"dangling":{"false":true}}"#, &[alpine, app]);
        check(r#"{"reference":["alpine"]}"#, &[alpine]);
        // Also what lost its name: where it was pulled from is still known.
        check(r#"{"reference":["alp*"]}"#, &[alpine, None]);
        check(r#"{"reference":["*/*/app"]}"#, &[app]);
        check(r#"{"reference":["alpine:3"]}"#, &[]);
        check(r#"{"label":["team=a"]}"#, &[alpine, app, None]);
        check(r#"{"since":["alpine"]}"#, &[]);
        check(r#"{"until":["1700000001"]}"#, &[alpine, app, None]);
    }

    #[test]
    fn what_images_share_is_counted_by_layers() {
        let images = [image(Some("alpine")), image(Some("app"))];
        let (both, alone) = (SharedLayers::of(&images), SharedLayers::of(&images[..1]));
        assert_eq!((both.bytes_of(&images[0]), alone.bytes_of(&images[0])), (120, 0));
    }
}
