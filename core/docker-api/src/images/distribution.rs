//! `GET /distribution/{name}/json`: what the registry has by a name, without fetching it.

use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::reply;
use crate::system::credentials;
use bulkhead_engine::Described;
use bulkhead_model::Reference;
use serde_json::{Map, Value, json};

pub async fn get(call: Call) -> Answer {
    let reference: Reference = call.name.parse().map_err(|error| ApiError::bad(format!("{error}")))?;
    let credentials = credentials::from_header(call.header("x-registry-auth"));
    let described = call.engine().describe(&call.session, reference, credentials).await?;
    reply::ok(&shape(&described))
}

fn shape(described: &Described) -> Value {
    let platforms = described.platforms.iter().map(|platform| {
        let mut shape = Map::new();
        shape.insert("architecture".into(), platform.architecture.clone().into());
        shape.insert("os".into(), platform.os.clone().into());
        if let Some(variant) = &platform.variant {
            shape.insert("variant".into(), variant.clone().into());
        }
        Value::Object(shape)
    });
    json!({
        "Descriptor": {
            "mediaType": described.descriptor.media_type,
            "digest": described.descriptor.digest,
            "size": described.descriptor.bytes,
        },
        "Platforms": platforms.collect::<Vec<_>>(),
    })
}
