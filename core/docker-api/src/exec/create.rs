//! `POST /containers/{id}/exec`: makes one; it does not run yet.

use crate::body;
use crate::call::{Answer, Call};
use crate::create::fields::{self, Rule};
use crate::detach::DetachKeys;
use crate::error::{ApiError, before};
use crate::json::{self, Fields};
use crate::reply;
use bulkhead_engine::ExecAsk;
use http::StatusCode;
use serde_json::json;

pub const FIELDS: &[(&str, Rule)] = &[
    ("AttachStdin", Rule::Mapped),
    ("AttachStdout", Rule::Mapped),
    ("AttachStderr", Rule::Mapped),
    ("ConsoleSize", Rule::Mapped),
    ("DetachKeys", Rule::Mapped),
    // Some clients say here what counts at the start.
    ("Detach", Rule::Mapped),
    ("Tty", Rule::Mapped),
    ("Env", Rule::Mapped),
    ("Cmd", Rule::Mapped),
    ("Privileged", Rule::Mapped),
    ("User", Rule::Mapped),
    ("WorkingDir", Rule::Mapped),
    // The CLI of old names the container again.
    ("Container", Rule::Kept),
];

pub async fn post(mut call: Call) -> Answer {
    let bytes = body::json(&mut call).await?;
    let ask = read(&bytes)?;
    let id = call.engine().exec_create(&call.session, &call.name, ask).await.map_err(before("exec"))?;
    reply::json(StatusCode::CREATED, &json!({ "Id": id }))
}

fn read(bytes: &[u8]) -> Result<ExecAsk, ApiError> {
    let fields = Fields::of("", json::parse(bytes)?)?;
    fields::check("", &fields, FIELDS)?;
    let detach_keys = fields.text("DetachKeys")?;
    DetachKeys::parse(detach_keys.as_deref())?;
    let env = fields.list("Env")?.unwrap_or_default();
    if let Some(wrong) = env.iter().find(|entry| entry.starts_with('=') || entry.is_empty()) {
        return Err(ApiError::bad(format!("invalid environment variable: {}", crate::query::clip(wrong))));
    }
    let cmd = fields.words("Cmd")?.unwrap_or_default();
    if cmd.is_empty() {
        return Err(ApiError::bad("No exec command specified"));
    }
    Ok(ExecAsk {
        cmd,
        env,
        working_dir: fields.text("WorkingDir")?,
        user: fields.text("User")?,
        privileged: fields.flag("Privileged")?,
        tty: fields.flag("Tty")?,
        stdin: fields.flag("AttachStdin")?,
        stdout: fields.flag("AttachStdout")?,
        stderr: fields.flag("AttachStderr")?,
        detach_keys,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_or_refused() {
        let body = json!({"Cmd": ["ls"], "tty": true, "AttachStdout": true, "User": "1", "Env": ["A=b"], "Future": null});
        let ask = read(body.to_string().as_bytes()).unwrap();
        assert_eq!((ask.cmd, ask.tty, ask.stdout, ask.stdin), (vec!["ls".to_owned()], true, true, false));
        for (body, text) in [
            (json!({"Cmd": ["ls"], "Teleport": 1}), "Teleport is not known"),
            (json!({"Cmd": ["ls"], "DetachKeys": "x-y"}), "Invalid detach keys"),
            (json!({"Cmd": ["ls"], "Env": ["=b"]}), "invalid environment variable"),
        ] {
            let error = read(body.to_string().as_bytes()).unwrap_err();
            assert!(error.message.contains(text), "{}", error.message);
        }
    }
}
