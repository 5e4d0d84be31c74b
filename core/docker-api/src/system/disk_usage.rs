//! `GET /system/df`.

use crate::ApiState;
use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::images::shape::SharedLayers;
use crate::query::clip;
use crate::version::ApiVersion;
use crate::{containers, images, reply, volumes};
use bulkhead_engine::Session;
use serde_json::{Map, Value, json};

const TYPES: [&str; 4] = ["container", "image", "volume", "build-cache"];

pub async fn get(call: Call) -> Answer {
    let types = call.query.all("type");
    if let Some(unknown) = types.iter().find(|name| !TYPES.contains(&name.as_str())) {
        return Err(ApiError::bad(format!("unknown object type: {}", clip(unknown))));
    }
    let wanted = |name: &str| types.is_empty() || types.iter().any(|of| of == name);
    let usage = Usage {
        images: if wanted("image") {
            Some(image_usage(&call.state, &call.session, call.version).await?)
        } else {
            None
        },
        containers: if wanted("container") {
            Some(container_usage(&call.state, &call.session, call.version).await?)
        } else {
            None
        },
        volumes: if wanted("volume") { Some(volume_usage(&call.state, &call.session).await?) } else { None },
        build_cache: wanted("build-cache"),
    };
    // 1.52 has both shapes, 1.53 the new one only.
    let mut shape = Map::new();
    let new_only = call.version.since(53) || (call.version.since(52) && call.query.flag("verbose"));
    if !new_only {
        usage.write_old(&mut shape);
    }
    if call.version.since(52) {
        usage.write_new(&mut shape, call.query.flag("verbose"));
    }
    reply::ok(&shape)
}

struct Usage {
    images: Option<Part>,
    containers: Option<Part>,
    volumes: Option<Part>,
    build_cache: bool,
}

#[derive(Default)]
struct Part {
    items: Vec<Value>,
    active: u64,
    bytes: u64,
    reclaimable_bytes: u64,
}

async fn image_usage(state: &ApiState, session: &Session, version: ApiVersion) -> Result<Part, ApiError> {
    let facts = state.engine.system(session).await?;
    let users = state.engine.image_users(session).await?;
    let list = state.engine.images(session).await?;
    let shared = SharedLayers::of(&list);
    let mut part = Part { bytes: facts.layers_bytes, ..Part::default() };
    for image in &list {
        let containers = users.get(&image.id).copied().unwrap_or(0);
        if containers > 0 {
            part.active += 1;
        } else {
            // What is in one image only is what its removal gives back.
            let own = image.layers.iter().filter(|layer| !shared.contains(layer));
            part.reclaimable_bytes += own.map(|layer| layer.disk_bytes).sum::<u64>();
        }
        let mut item = images::shape::summary(image, version);
        if let Some(map) = item.as_object_mut() {
            map.insert("SharedSize".into(), shared.bytes_of(image).into());
            map.insert("Containers".into(), containers.into());
        }
        part.items.push(item);
    }
    Ok(part)
}

async fn container_usage(state: &ApiState, session: &Session, version: ApiVersion) -> Result<Part, ApiError> {
    let now = state.clock.now();
    let mut part = Part::default();
    for container in state.engine.containers(session).await? {
        // One that was removed meanwhile takes nothing.
        let Ok(usage) = state.engine.container_usage(session, container.id.as_str()).await else {
            continue;
        };
        part.bytes += usage.disk_bytes;
        if containers::shape::is_running(&container) {
            part.active += 1;
        } else {
            part.reclaimable_bytes += usage.disk_bytes;
        }
        let mut item = containers::shape::summary(&container, version, now);
        if let Some(map) = item.as_object_mut() {
            map.insert("SizeRw".into(), usage.disk_bytes.into());
        }
        part.items.push(item);
    }
    Ok(part)
}

async fn volume_usage(state: &ApiState, session: &Session) -> Result<Part, ApiError> {
    let mut part = Part::default();
    for facts in state.engine.volumes(session).await? {
        let used = state.engine.volume_used(&facts.volume).await?;
        let bytes = used.unwrap_or(0);
        part.bytes += bytes;
        if facts.containers.is_empty() {
            part.reclaimable_bytes += bytes;
        } else {
            part.active += 1;
        }
        let mut item = volumes::shape::volume(&facts.volume);
        if let Some(map) = item.as_object_mut() {
            // What is not known now is -1 to clients.
            let size = used.map_or_else(|| json!(-1), Value::from);
            map.insert("UsageData".into(), json!({ "Size": size, "RefCount": facts.containers.len() }));
        }
        part.items.push(item);
    }
    Ok(part)
}

impl Usage {
    fn write_old(&self, shape: &mut Map<String, Value>) {
        let list = |part: &Option<Part>| part.as_ref().map_or(json!([]), |part| json!(part.items));
        shape.insert("LayersSize".into(), self.images.as_ref().map_or(0, |part| part.bytes).into());
        shape.insert("Images".into(), list(&self.images));
        shape.insert("Containers".into(), list(&self.containers));
        shape.insert("Volumes".into(), list(&self.volumes));
        shape.insert("BuildCache".into(), json!([]));
    }

    fn write_new(&self, shape: &mut Map<String, Value>, verbose: bool) {
        let none = Part::default();
        let parts = [
            ("ImageUsage", self.images.as_ref()),
            ("ContainerUsage", self.containers.as_ref()),
            ("VolumeUsage", self.volumes.as_ref()),
            ("BuildCacheUsage", self.build_cache.then_some(&none)),
        ];
        for (name, part) in parts {
            let Some(part) = part else { continue };
            let mut value = json!({
                "ActiveCount": part.active,
                "TotalCount": part.items.len(),
                "TotalSize": part.bytes,
                "Reclaimable": part.reclaimable_bytes,
            });
            if verbose && let Some(map) = value.as_object_mut() {
                map.insert("Items".into(), json!(part.items));
            }
            shape.insert(name.into(), value);
        }
    }
}
