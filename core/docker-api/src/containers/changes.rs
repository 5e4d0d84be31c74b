//! `GET /containers/{id}/changes`: `docker diff`.

use crate::call::{Answer, Call};
use crate::reply;
use bulkhead_engine::{ChangeKind, FileChange};
use serde_json::{Value, json};

pub async fn get(call: Call) -> Answer {
    let changes = call.engine().file_changes(&call.session, &call.name).await?;
    reply::ok(&shape(&changes))
}

/// `null` where nothing is different, as in dockerd.
fn shape(changes: &[FileChange]) -> Value {
    if changes.is_empty() {
        return Value::Null;
    }
    let kind = |kind| match kind {
        ChangeKind::Modified => 0,
        ChangeKind::Added => 1,
        ChangeKind::Deleted => 2,
    };
    changes.iter().map(|change| json!({ "Path": change.path, "Kind": kind(change.kind) })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_null() {
        assert_eq!(shape(&[]), Value::Null);
        let deleted = FileChange { kind: ChangeKind::Deleted, path: "/x".into() };
        assert_eq!(shape(&[deleted]), json!([{ "Path": "/x", "Kind": 2 }]));
    }
}
