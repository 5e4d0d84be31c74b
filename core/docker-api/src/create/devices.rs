//! `Devices`: those of the container's own guest. The host's are in no machine, and are not there in the words of an
//! engine whose host lacks them.

use super::fields::{self, Rule::Mapped};
use crate::error::ApiError;
use crate::json::Fields;
use crate::query::clip;
use bulkhead_model::process::{Device, GUEST_DEVICES};
use serde_json::Value;

const FIELDS: &[(&str, fields::Rule)] =
    &[("PathOnHost", Mapped), ("PathInContainer", Mapped), ("CgroupPermissions", Mapped)];

/// More than anybody needs of a guest's few.
const DEVICES_MAX: usize = 64;

pub fn read(value: &Value) -> Result<Vec<Device>, ApiError> {
    let list = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) if list.len() <= DEVICES_MAX => list,
        Value::Array(_) => return Err(ApiError::bad(format!("there are more than {DEVICES_MAX} devices"))),
        _ => return Err(ApiError::bad("invalid JSON: HostConfig.Devices must be a list")),
    };
    list.iter().map(device).collect()
}

fn device(value: &Value) -> Result<Device, ApiError> {
    let prefix = "HostConfig.Devices.";
    let sent = Fields::of(prefix, value.clone())?;
    fields::check(prefix, &sent, FIELDS)?;
    let text = |name| Ok::<_, ApiError>(sent.text(name)?.unwrap_or_default());
    let (source, mut target, mut access) =
        (text("PathOnHost")?, text("PathInContainer")?, text("CgroupPermissions")?);
    if !GUEST_DEVICES.contains(&source.as_str()) {
        return Err(ApiError::bad(format!(
            "error gathering device information while adding custom device \"{}\": no such file or directory",
            clip(&source)
        )));
    }
    if target.is_empty() {
        target.clone_from(&source);
    }
    let climbs = target.split('/').any(|part| part == "..");
    if !target.starts_with('/') || target.ends_with('/') || climbs || target.contains('\0') {
        return Err(ApiError::bad(format!("{} is not an absolute path", clip(&target))));
    }
    if access.is_empty() {
        access = "rwm".into();
    }
    if !access.chars().all(|letter| "rwm".contains(letter)) {
        return Err(ApiError::bad(format!(
            "invalid device permissions `{}`: use letters of rwm",
            clip(&access)
        )));
    }
    Ok(Device { source, target, access })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn devices_of_the_guest_are_given() {
        let asked = json!([
            {"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse", "CgroupPermissions": "rwm"},
            {"PathOnHost": "/dev/net/tun", "PathInContainer": "/tun", "CgroupPermissions": "rw"},
            {"PathOnHost": "/dev/fuse"},
        ]);
        let read: Vec<_> =
            read(&asked).unwrap().into_iter().map(|it| (it.source, it.target, it.access)).collect();
        let expect = [
            ("/dev/fuse", "/dev/fuse", "rwm"),
            ("/dev/net/tun", "/tun", "rw"),
            ("/dev/fuse", "/dev/fuse", "rwm"),
        ];
        assert_eq!(read, expect.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
    }

    #[test]
    fn others_are_not_there() {
        for (asked, text) in [
            (
                json!([{"PathOnHost": "/dev/kvm"}]),
                "error gathering device information while adding custom device \"/dev/kvm\": no such file or directory",
            ),
            (json!([{"PathOnHost": "/dev/fuse", "PathInContainer": "../fuse"}]), "is not an absolute path"),
            (
                json!([{"PathOnHost": "/dev/fuse", "CgroupPermissions": "rx"}]),
                "invalid device permissions `rx`",
            ),
            (json!([{"PathOnHost": "/dev/fuse", "Speed": 3}]), "HostConfig.Devices.Speed is not known"),
            (json!("x"), "must be a list"),
        ] {
            let error = read(&asked).unwrap_err().message;
            assert!(error.contains(text), "{asked}: {error}");
        }
    }
}
