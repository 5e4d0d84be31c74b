//! `HEAD`, `GET` and `PUT /containers/{id}/archive`: `docker cp`.

use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::{body, reply, time};
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bulkhead_engine::{ArchiveIn, PathStat};
use chrono::{DateTime, Utc};
use http::{HeaderValue, StatusCode};
use serde_json::json;

const STAT: &str = "x-docker-container-path-stat";
const TAR: HeaderValue = HeaderValue::from_static("application/x-tar");

/// Bits of Go's `os.FileMode`, by the kind that stat(2) gives.
const KINDS: [(u32, u32); 6] = [
    (0o040_000, 1 << 31),
    (0o120_000, 1 << 27),
    (0o060_000, 1 << 26),
    (0o010_000, 1 << 25),
    (0o140_000, 1 << 24),
    (0o020_000, 1 << 26 | 1 << 21),
];
/// Set-user-ID, set-group-ID, sticky.
const SPECIAL: [(u32, u32); 3] = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];

pub async fn head(call: Call) -> Answer {
    let path = path(&call)?;
    let stat = call.engine().file_stat(&call.session, &call.name, path).await?;
    let response = reply::with_body(StatusCode::OK, TAR, Body::empty());
    with_stat(response, &stat)
}

pub async fn get(call: Call) -> Answer {
    let path = path(&call)?;
    let (stat, pieces) = call.engine().file_read(&call.session, &call.name, path).await?;
    let response = reply::with_body(StatusCode::OK, TAR, Body::from_stream(pieces));
    with_stat(response, &stat)
}

pub async fn put(mut call: Call) -> Answer {
    let asked = ArchiveIn {
        path: path(&call)?.to_owned(),
        keep_kinds: call.query.flag("noOverwriteDirNonDir"),
        own: call.query.flag("copyUIDGID"),
    };
    let archive = body::archive(&mut call);
    call.engine().file_write(&call.session, &call.name, asked, archive).await?;
    reply::empty(StatusCode::OK)
}

fn path(call: &Call) -> Result<&str, ApiError> {
    call.query.text("path").ok_or_else(|| ApiError::bad("bad parameter: 'path' cannot be empty"))
}

fn with_stat(mut response: axum::response::Response, stat: &PathStat) -> Answer {
    let mtime =
        DateTime::<Utc>::from_timestamp(stat.mtime_seconds, stat.mtime_nanoseconds).unwrap_or_default();
    let value = json!({
        "name": stat.name,
        "size": stat.size,
        "mode": go_mode(stat.mode),
        "mtime": time::rfc3339(mtime),
        "linkTarget": stat.link_target,
    });
    let text = STANDARD.encode(value.to_string());
    let header = HeaderValue::from_str(&text).map_err(|error| ApiError::internal(&error))?;
    response.headers_mut().insert(STAT, header);
    Ok(response)
}

fn go_mode(mode: u32) -> u32 {
    let kind = KINDS.iter().find(|(kind, _)| mode & 0o170_000 == *kind).map_or(0, |(_, bit)| *bit);
    let special = SPECIAL.iter().filter(|(special, _)| mode & special != 0).map(|(_, bit)| bit);
    special.fold(mode & 0o777 | kind, |all, bit| all | bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_gos() {
        for (mode, expect) in [
            (0o100_644, 0o644),
            (0o041_777, 1 << 31 | 1 << 20 | 0o777),
            (0o104_755, 1 << 23 | 0o755),
            (0o120_777, 1 << 27 | 0o777),
            (0o020_666, 1 << 26 | 1 << 21 | 0o666),
        ] {
            assert_eq!(go_mode(mode), expect, "{mode:o}");
        }
    }
}
