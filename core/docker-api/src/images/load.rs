//! `POST /images/load`.

use crate::call::{Answer, Call};
use crate::{body, reply};
use http::StatusCode;
use serde_json::json;

pub async fn post(mut call: Call) -> Answer {
    let archive = body::archive(&mut call);
    let loaded = call.engine().load(&call.session, archive).await?;
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
