//! Volumes as clients see them.

use crate::time;
use bulkhead_model::{Container, Mount, Volume, VolumeName};
use chrono::SubsecRound;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// On volumes that nobody named.
const ANONYMOUS: &str = "com.docker.volume.anonymous";

pub fn labels(volume: &Volume) -> BTreeMap<String, String> {
    let mut labels = volume.labels.clone();
    if volume.anonymous {
        labels.insert(ANONYMOUS.into(), String::new());
    }
    labels
}

/// For clients that want a path: no path of the host leads to a volume, so this one is nobody's. What reads by it (`ls`,
/// `tar`, `rsync`) fails instead of finding something else: `/volumes` of a client may well be there, as on a Mac, and an
/// empty text would be the root.
fn place(name: &VolumeName) -> String {
    format!("/bulkhead/volumes/{name}")
}

pub fn volume(volume: &Volume) -> Value {
    let or_null = |map: BTreeMap<String, String>| if map.is_empty() { Value::Null } else { json!(map) };
    json!({
        // In whole seconds, as dockerd has it.
        "CreatedAt": time::rfc3339(volume.created_at.trunc_subsecs(0)),
        "Driver": "local",
        "Labels": or_null(labels(volume)),
        "Mountpoint": place(&volume.name),
        "Name": volume.name,
        "Options": or_null(volume.options.clone()),
        "Scope": "local",
        // Texts: the CLI's templates show large numbers as `6.7e+07`.
        "Status": { "SizeBytes": volume.size_bytes.to_string(), "VolumeStore": volume.store },
    })
}

/// As in inspect; in lists clients know less of it, and mind nothing.
pub fn mounts(container: &Container) -> Value {
    container.spec.mounts.iter().map(mount).collect()
}

fn mount(mount: &Mount) -> Value {
    let mode = match (mount.anonymous, mount.read_only) {
        (true, _) => "",
        (false, true) => "ro",
        (false, false) => "z",
    };
    json!({
        "Type": "volume",
        "Name": mount.name,
        "Source": place(&mount.name),
        "Destination": mount.target,
        "Driver": "local",
        "Mode": mode,
        "RW": !mount.read_only,
        "Propagation": "",
    })
}
