//! `POST /images/load`.

use crate::call::{Answer, Call};
use crate::{body, reply};
use bulkhead_engine::EngineError;
use http::StatusCode;
use serde_json::json;

pub async fn post(mut call: Call) -> Answer {
    let archive = body::archive(&mut call);
    let loaded = match call.engine().load(&call.session, archive).await {
        // As in Docker: what is wrong with an archive shows while it is read, and the answer has begun by then.
        Err(error @ EngineError::Image(_)) => {
            return Ok(reply::with_body(
                StatusCode::OK,
                reply::JSON,
                reply::error_line(&error.into()).into(),
            ));
        }
        loaded => loaded?,
    };
    let mut lines = Vec::new();
    for image in &loaded {
        if image.references.is_empty() {
            lines.extend(reply::line(&json!({ "stream": format!("Loaded image ID: {}\n", image.id) })));
        }
        for reference in &image.references {
            lines.extend(reply::line(
                &json!({ "stream": format!("Loaded image: {}\n", reference.familiar()) }),
            ));
        }
    }
    Ok(reply::with_body(StatusCode::OK, reply::JSON, lines.into()))
}
