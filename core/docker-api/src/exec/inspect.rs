//! `GET /exec/{id}/json`.

use crate::call::{Answer, Call};
use crate::reply;
use serde_json::json;

pub async fn get(call: Call) -> Answer {
    let facts = call.engine().exec_facts(&call.session, &call.name).await?;
    let (program, arguments) = match facts.ask.cmd.split_first() {
        Some((program, arguments)) => (program.as_str(), arguments),
        None => ("", &[][..]),
    };
    reply::ok(&json!({
        "ID": facts.id,
        "Running": facts.running,
        "ExitCode": facts.exit_code,
        "ProcessConfig": {
            "tty": facts.ask.tty,
            "entrypoint": program,
            "arguments": arguments,
            "privileged": facts.ask.privileged,
            "user": facts.user,
        },
        "OpenStdin": facts.ask.stdin,
        "OpenStderr": facts.ask.stderr,
        "OpenStdout": facts.ask.stdout,
        "CanRemove": false,
        "ContainerID": facts.container,
        "DetachKeys": facts.ask.detach_keys.unwrap_or_default(),
        "Pid": facts.pid,
    }))
}
