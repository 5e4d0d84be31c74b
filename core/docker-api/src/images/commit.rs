//! `POST /commit`: an image of what a container is now.

use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::images::import::name;
use crate::{body, json as fields, reply};
use bulkhead_engine::CommitAsk;
use http::StatusCode;
use serde_json::json;

pub async fn post(mut call: Call) -> Answer {
    let reference = name(call.query.text("repo"), call.query.text("tag"))?;
    let query = &call.query;
    let text = |name: &str| query.text(name).unwrap_or_default().to_owned();
    let ask = CommitAsk {
        reference,
        comment: text("comment"),
        author: text("author"),
        pause: query.flag_or("pause", true),
        // Repeated, or several in one.
        changes: query.all("changes").iter().flat_map(|text| instructions(text)).collect(),
    };
    let container = text("container");
    if container.is_empty() {
        return Err(ApiError::bad("invalid container name or ID: value is empty"));
    }
    let config = body::json_or_nothing(&mut call).await?;
    if !config.is_empty() && !is_blank(&fields::parse(&config)?) {
        return Err(ApiError::bad(
            "bulkhead: a config in the body is not supported yet at commit: use changes instead",
        ));
    }
    let id = call.engine().commit(&call.session, &container, ask).await?;
    reply::json(StatusCode::CREATED, &json!({ "Id": id }))
}

fn instructions(text: &str) -> Vec<String> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// Clients send a config with nothing in it.
fn is_blank(value: &serde_json::Value) -> bool {
    use serde_json::Value;
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_blank),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_with_nothing_in_it() {
        assert!(is_blank(&json!({ "Hostname": "", "Tty": false, "Env": [], "Cmd": null, "Labels": {} })));
        assert!(!is_blank(&json!({ "Cmd": ["x"] })));
        assert_eq!(instructions("CMD a\n\n ENV b=c "), ["CMD a", "ENV b=c"]);
    }
}
