//! `GET /volumes`.

use super::shape;
use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::filters::Filters;
use crate::query::clip;
use crate::reply;
use serde_json::{Value, json};

pub async fn get(call: Call) -> Answer {
    let filters = Filters::parse(&call.query, &["name", "label", "driver", "dangling"])?;
    let dangling =
        filters.values("dangling").iter().map(|value| flag(value)).collect::<Result<Vec<_>, _>>()?;
    let names = filters.patterns("name")?;
    let volumes = call.engine().volumes(&call.session).await?;
    let wanted = volumes.iter().filter(|facts| {
        names.found_in(&[facts.volume.name.as_str()])
            && filters.labels(&shape::labels(&facts.volume))
            && filters.any("driver", |driver| driver == "local")
            && (dangling.is_empty() || dangling.contains(&facts.containers.is_empty()))
    });
    let list: Vec<Value> = wanted.map(|facts| shape::volume(&facts.volume)).collect();
    reply::ok(&json!({ "Volumes": list, "Warnings": null }))
}

fn flag(value: &str) -> Result<bool, ApiError> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(ApiError::bad(format!("invalid filter 'dangling={}'", clip(value)))),
    }
}
