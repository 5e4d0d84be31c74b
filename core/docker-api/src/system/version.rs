//! `GET /version`.

use crate::call::{Answer, Call};
use crate::{reply, version};
use serde_json::json;

pub async fn get(call: Call) -> Answer {
    let facts = call.engine().system(&call.session).await?;
    let machines = &facts.capabilities;
    let details = json!({
        "ApiVersion": version::NEWEST.to_string(),
        "MinAPIVersion": version::OLDEST.to_string(),
        "Arch": "amd64",
        "Os": "linux",
        "KernelVersion": machines.guest_kernel,
        "BuildTime": "",
        "Experimental": "false",
        "GitCommit": "",
        "GoVersion": "",
    });
    reply::ok(&json!({
        "Platform": { "Name": "Bulkhead" },
        "Components": [
            { "Name": "Engine", "Version": facts.version, "Details": details },
            {
                "Name": machines.back_end,
                "Version": machines.version,
                "Details": { "Accelerator": machines.accelerator },
            },
        ],
        "Version": facts.version,
        "ApiVersion": version::NEWEST.to_string(),
        "MinAPIVersion": version::OLDEST.to_string(),
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": "amd64",
        "KernelVersion": machines.guest_kernel,
        "BuildTime": "",
    }))
}
