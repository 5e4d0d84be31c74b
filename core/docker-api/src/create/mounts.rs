//! `-v`, `--mount` and `--volumes-from`: what is mounted where.

use super::{fields, tmpfs};
use crate::error::ApiError;
use crate::json::{Fields, is_empty};
use crate::query::clip;
use crate::volumes::options;
use bulkhead_model::process::Tmpfs;
use bulkhead_model::volume::{MountAsk, MountsFrom, VolumeAsk, clean_target};
use fields::Rule::Mapped;
use serde_json::Value;

const MOUNT: &[(&str, fields::Rule)] = &[
    ("Type", Mapped),
    ("Source", Mapped),
    ("Target", Mapped),
    ("ReadOnly", Mapped),
    // A word about caches between a desktop and its machine, which there are none of.
    ("Consistency", fields::Rule::Kept),
    ("BindOptions", Mapped),
    ("VolumeOptions", Mapped),
    ("TmpfsOptions", Mapped),
    ("ImageOptions", Mapped),
    ("ClusterOptions", Mapped),
];
const VOLUME_OPTIONS: &[(&str, fields::Rule)] =
    &[("NoCopy", Mapped), ("Labels", Mapped), ("DriverConfig", Mapped), ("Subpath", Mapped)];
const DRIVER_CONFIG: &[(&str, fields::Rule)] = &[("Name", Mapped), ("Options", Mapped)];
/// What a tenant would have to have a host for.
const NO_HOST: &str =
    "a container has no files of the host: name a volume instead, or copy files in (docker cp)";

/// What a body asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mounts {
    pub volumes: Vec<MountAsk>,
    /// Paths that get a volume of their own unless something else is there.
    pub volume_paths: Vec<String>,
    pub from: Vec<MountsFrom>,
    pub tmpfs: Vec<Tmpfs>,
}

pub fn read(config: &Fields, host: &Fields) -> Result<Mounts, ApiError> {
    let mut mounts = Mounts::default();
    for text in host.list("Binds")?.unwrap_or_default() {
        mounts.volumes.push(bind(&text)?);
    }
    // It is about these; the long form has a driver of its own.
    if !mounts.volumes.is_empty() || !is_empty(config.get("Volumes")) {
        check_driver(&host.text("VolumeDriver")?.unwrap_or_default())?;
    }
    match host.get("Mounts") {
        Value::Null => {}
        Value::Array(list) => list.iter().try_for_each(|one| mount(one, &mut mounts))?,
        _ => return Err(ApiError::bad("invalid JSON: HostConfig.Mounts must be a list")),
    }
    for text in host.list("VolumesFrom")?.unwrap_or_default() {
        mounts.from.push(from(&text)?);
    }
    match config.get("Volumes") {
        Value::Null => {}
        Value::Object(paths) => {
            for path in paths.keys() {
                mounts.volume_paths.push(target(path)?);
            }
        }
        _ => return Err(ApiError::bad("invalid JSON: Volumes must be an object")),
    }
    Ok(mounts)
}

/// Clients take every 404 for an image to be pulled.
fn check_driver(name: &str) -> Result<(), ApiError> {
    options::check_driver(name).map_err(|error| ApiError::bad(error.message))
}

fn target(path: &str) -> Result<String, ApiError> {
    clean_target(path).map_err(|error| ApiError::bad(error.to_string()))
}

/// `SOURCE:TARGET[:MODE]`.
fn bind(text: &str) -> Result<MountAsk, ApiError> {
    let wrong = || ApiError::bad(format!("invalid volume specification: '{}'", clip(text)));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, path, mode) = match parts.as_slice() {
        [source, path] if Mode::of(path).is_none() => (*source, *path, ""),
        [source, path, mode] => (*source, *path, *mode),
        _ => return Err(wrong()),
    };
    if source.is_empty() || path.is_empty() {
        return Err(wrong());
    }
    if source.starts_with('/') {
        let source = clip(source);
        return Err(ApiError::bad(format!(
            "bulkhead: HostConfig.Binds (-v) has the host's `{source}`: {NO_HOST}"
        )));
    }
    let mode = Mode::of(mode).ok_or_else(|| ApiError::bad(format!("invalid mode: {}", clip(mode))))?;
    let name = source.parse().map_err(|error| ApiError::bad(format!("{error}")))?;
    Ok(MountAsk {
        target: target(path)?,
        volume: VolumeAsk { name: Some(name), ..VolumeAsk::default() },
        read_only: mode.read_only,
        no_copy: mode.no_copy,
        subpath: String::new(),
    })
}

#[derive(Debug, Clone, Copy, Default)]
struct Mode {
    read_only: bool,
    no_copy: bool,
}

impl Mode {
    /// Words with commas between; `None`: there is another word.
    fn of(text: &str) -> Option<Self> {
        let mut mode = Self::default();
        for word in text.split(',').filter(|_| !text.is_empty()) {
            match word {
                "ro" => mode.read_only = true,
                "nocopy" => mode.no_copy = true,
                // Labels of SELinux, which the guest has not, and caches that are not there.
                "rw" | "z" | "Z" | "consistent" | "cached" | "delegated" => {}
                _ => return None,
            }
        }
        Some(mode)
    }
}

/// `CONTAINER[:ro]`.
fn from(text: &str) -> Result<MountsFrom, ApiError> {
    let (container, mode) = text.split_once(':').unwrap_or((text, ""));
    if container.is_empty() {
        return Err(ApiError::bad(format!("invalid volumes-from specification: '{}'", clip(text))));
    }
    match Mode::of(mode) {
        Some(mode) => Ok(MountsFrom { container: container.to_owned(), read_only: mode.read_only }),
        None => Err(ApiError::bad(format!("invalid mode: {}", clip(mode)))),
    }
}

fn mount(value: &Value, mounts: &mut Mounts) -> Result<(), ApiError> {
    let prefix = "HostConfig.Mounts.";
    let fields = Fields::of(prefix, value.clone())?;
    fields::check(prefix, &fields, MOUNT)?;
    let kind = fields.text("Type")?.unwrap_or_default();
    let wrong =
        |why: String| ApiError::bad(format!("invalid mount config for type \"{}\": {why}", clip(&kind)));
    let own = match kind.as_str() {
        "volume" => "VolumeOptions",
        "tmpfs" => "TmpfsOptions",
        "bind" => {
            let source = clip(&fields.text("Source")?.unwrap_or_default());
            let text = format!(
                "bulkhead: HostConfig.Mounts (--mount type=bind) has the host's `{source}`: {NO_HOST}"
            );
            return Err(ApiError::bad(text));
        }
        "image" | "cluster" | "npipe" => {
            let text = format!("bulkhead: HostConfig.Mounts (--mount type={kind}) is not supported");
            return Err(ApiError::bad(text));
        }
        _ => return Err(ApiError::bad(format!("mount type unknown: {:?}", clip(&kind)))),
    };
    for other in ["BindOptions", "VolumeOptions", "TmpfsOptions", "ImageOptions", "ClusterOptions"] {
        if other != own && !is_empty(fields.get(other)) {
            return Err(wrong(format!("field {other} must not be specified")));
        }
    }
    let path = fields.text("Target")?.unwrap_or_default();
    if path.is_empty() {
        return Err(wrong("field Target must not be empty".into()));
    }
    let (target, read_only) = (target(&path)?, fields.flag("ReadOnly")?);
    let source = fields.text("Source")?.filter(|source| !source.is_empty());
    if own == "TmpfsOptions" {
        if source.is_some() {
            return Err(wrong("field Source must not be specified".into()));
        }
        let options = Fields::of("HostConfig.Mounts.TmpfsOptions.", fields.get(own).clone())?;
        mounts.tmpfs.push(tmpfs::of_mount(target, read_only, &options)?);
        return Ok(());
    }
    let options = Fields::of("HostConfig.Mounts.VolumeOptions.", fields.get(own).clone())?;
    fields::check("HostConfig.Mounts.VolumeOptions.", &options, VOLUME_OPTIONS)?;
    let driver = "HostConfig.Mounts.VolumeOptions.DriverConfig.";
    let config = Fields::of(driver, options.get("DriverConfig").clone())?;
    fields::check(driver, &config, DRIVER_CONFIG)?;
    check_driver(&config.text("Name")?.unwrap_or_default())?;
    let subpath = options.text("Subpath")?.unwrap_or_default();
    if source.is_none() && !subpath.is_empty() {
        return Err(wrong("must not set Subpath when using anonymous volumes".into()));
    }
    if subpath.starts_with('/') || subpath.split('/').any(|part| part == "..") || subpath.contains('\0') {
        return Err(wrong(format!("invalid volume subpath `{}`", clip(&subpath))));
    }
    let name = source.map(|name| name.parse()).transpose();
    let name =
        name.map_err(|error: bulkhead_model::volume::VolumeNameError| ApiError::bad(error.to_string()))?;
    mounts.volumes.push(MountAsk {
        target,
        volume: options::ask(name, options.map("Labels")?, config.map("Options")?)?,
        read_only,
        no_copy: options.flag("NoCopy")?,
        subpath,
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read_host(host: Value) -> Result<Mounts, String> {
        let (config, host) = (Fields::of("", json!({})).unwrap(), Fields::of("HostConfig.", host).unwrap());
        read(&config, &host).map_err(|error| error.message)
    }

    fn named(target: &str, name: &str) -> MountAsk {
        let volume = VolumeAsk { name: Some(name.parse().unwrap()), ..VolumeAsk::default() };
        MountAsk { target: target.into(), volume, ..MountAsk::default() }
    }

    #[test]
    fn short_and_long_forms_say_the_same() {
        let short = read_host(json!({"Binds": ["data:/d/", "data:/e:ro,nocopy", "data:/f:z"]})).unwrap();
        let expect = [
            named("/d", "data"),
            MountAsk { read_only: true, no_copy: true, ..named("/e", "data") },
            named("/f", "data"),
        ];
        assert_eq!(short.volumes, expect);
        let long = read_host(json!({"Mounts": [
            {"Type": "volume", "Source": "data", "Target": "/d", "BindOptions": null, "Consistency": "default"},
            {"Type": "volume", "Source": "data", "Target": "/e", "ReadOnly": true, "VolumeOptions": {"NoCopy": true}},
            {"Type": "volume", "Source": "data", "Target": "/f", "VolumeOptions": {"DriverConfig": {"Name": "local"}}},
        ]}));
        assert_eq!(long.unwrap().volumes, expect);
        let full = read_host(
            json!({"Mounts": [{"Type": "volume", "Source": "data", "Target": "/d", "VolumeOptions":
            {"Labels": {"a": "b"}, "Subpath": "x/y", "DriverConfig": {"Options": {"size": "32m"}}}}]}),
        );
        let full = full.unwrap().volumes.remove(0);
        assert_eq!((full.subpath.as_str(), full.volume.size_bytes), ("x/y", Some(32 << 20)));
        assert_eq!(full.volume.labels["a"], "b");
        let tmpfs = read_host(
            json!({"Mounts": [{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 65536, "Mode": 1017}}]}),
        );
        let tmpfs = tmpfs.unwrap().tmpfs.remove(0);
        assert_eq!((tmpfs.size.as_deref(), tmpfs.mode), (Some("65536"), Some(0o1771)));
        assert_eq!(read_host(json!({"VolumeDriver": "of-nothing"})).unwrap(), Mounts::default());
        let from = read_host(json!({"VolumesFrom": ["web", "db:ro"]})).unwrap().from;
        assert_eq!((from[0].read_only, from[1].read_only, from[1].container.as_str()), (false, true, "db"));
    }

    #[test]
    fn what_cannot_be_mounted_is_named() {
        let mount = |one: Value| json!({ "Mounts": [one] });
        for (host, text) in [
            (
                json!({"Binds": ["/etc:/x"]}),
                "HostConfig.Binds (-v) has the host's `/etc`: a container has no files of the host",
            ),
            (
                mount(json!({"Type": "bind", "Source": "/etc", "Target": "/x"})),
                "(--mount type=bind) has the host's `/etc`",
            ),
            (json!({"Binds": ["data"]}), "invalid volume specification: 'data'"),
            (json!({"Binds": ["/data:ro"]}), "invalid volume specification: '/data:ro'"),
            (json!({"Binds": ["a:b:c:d"]}), "invalid volume specification"),
            (json!({"Binds": ["data:/d:teleport"]}), "invalid mode: teleport"),
            (json!({"Binds": ["./here:/d"]}), "includes invalid characters for a local volume name"),
            (json!({"Binds": ["data:d"]}), "mount path must be absolute"),
            (json!({"Binds": ["data:/"]}), "destination can't be '/'"),
            (
                json!({"Binds": ["data:/d"], "VolumeDriver": "nfs"}),
                "error looking up volume plugin nfs: plugin \"nfs\" not found",
            ),
            (json!({"VolumesFrom": [":ro"]}), "invalid volumes-from specification"),
            (
                mount(json!({"Type": "volume", "Source": "data"})),
                "invalid mount config for type \"volume\": field Target must not be empty",
            ),
            (
                mount(json!({"Type": "volume", "Target": "/x", "BindOptions": {"Propagation": "shared"}})),
                "field BindOptions must not be specified",
            ),
            (
                mount(json!({"Type": "volume", "Target": "/x", "VolumeOptions": {"Subpath": "a"}})),
                "must not set Subpath when using anonymous volumes",
            ),
            (
                mount(
                    json!({"Type": "volume", "Source": "data", "Target": "/x", "VolumeOptions": {"Subpath": "../a"}}),
                ),
                "invalid volume subpath",
            ),
            (
                mount(
                    json!({"Type": "volume", "Source": "data", "Target": "/x", "VolumeOptions": {"Teleport": true}}),
                ),
                "HostConfig.Mounts.VolumeOptions.Teleport is not known",
            ),
            (mount(json!({"Type": "image", "Source": "a", "Target": "/x"})), "type=image) is not supported"),
            (mount(json!({"Type": "odd", "Target": "/x"})), "mount type unknown: \"odd\""),
            (
                mount(json!({"Type": "tmpfs", "Source": "a", "Target": "/x"})),
                "field Source must not be specified",
            ),
        ] {
            let message = read_host(host.clone()).unwrap_err();
            assert!(message.contains(text), "{host}: {message}");
        }
    }
}
