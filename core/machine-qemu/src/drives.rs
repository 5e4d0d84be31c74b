//! A disk of a machine in QEMU's words: on its command line, and as commands to one that runs.
//!
//! Target 0 carries the layers, LUN 0 the bottom one; target 1 the writable disk; target 2 volumes; 8 and 9 the layer
//! and the writable disk of a rehearsal.

use serde_json::{Map, Value, json};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drive {
    /// The number of its set of descriptors.
    pub(crate) set: usize,
    /// What QEMU calls it.
    pub(crate) node: String,
    target: u32,
    lun: usize,
    serial: String,
    access: Access,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Without locks: many machines read the same file, and nobody can write it.
    Shared,
    /// Those who only read do not exclude each other, but for who writes.
    ReadOnly,
    /// Two machines that write would destroy it. What the guest discards is given back.
    Writable,
}

impl Drive {
    pub(crate) fn layer(lun: usize) -> Self {
        let (node, serial) = (format!("l{lun}"), format!("layer{lun}"));
        Self { set: 10 + lun, node, target: 0, lun, serial, access: Access::Shared }
    }

    /// The container's own.
    pub(crate) fn own() -> Self {
        let rw = || "rw".to_owned();
        Self { set: 2, node: rw(), target: 1, lun: 0, serial: rw(), access: Access::Writable }
    }

    pub(crate) fn volume(lun: usize, read_only: bool) -> Self {
        let access = if read_only { Access::ReadOnly } else { Access::Writable };
        let (node, serial) = (volume_node(lun), format!("volume{lun}"));
        Self { set: 1000 + lun, node, target: 2, lun, serial, access }
    }

    /// The layer and the writable disk of a rehearsal.
    pub(crate) fn rehearsal() -> [Self; 2] {
        let layer = Self { set: 2000, target: 8, node: "rehearsal-l0".into(), ..Self::layer(0) };
        [layer, Self { set: 2001, target: 9, node: "rehearsal-rw".into(), ..Self::own() }]
    }

    fn file(&self) -> Vec<(&'static str, String)> {
        let mut options =
            vec![("driver", "file".to_owned()), ("filename", format!("/dev/fdset/{}", self.set))];
        options.push(("locking", if self.access == Access::Shared { "off" } else { "on" }.into()));
        if self.access == Access::Writable {
            options.push(("discard", "unmap".into()));
        }
        options
    }

    /// After `-blockdev`.
    pub(crate) fn blockdev(&self) -> String {
        let access = if self.access == Access::Writable { "discard=unmap" } else { "read-only=on" };
        let file: String =
            self.file().into_iter().map(|(name, value)| format!(",file.{name}={value}")).collect();
        format!("driver=raw,node-name={},{access}{file}", self.node)
    }

    /// After `-device`.
    pub(crate) fn device(&self) -> String {
        let Self { target, lun, node, serial, .. } = self;
        format!("scsi-hd,bus=scsi0.0,scsi-id={target},lun={lun},drive={node},serial={serial}")
    }

    /// Arguments of `blockdev-add`.
    pub(crate) fn blockdev_add(&self) -> Value {
        let file: Map<String, Value> =
            self.file().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        match self.access {
            Access::Writable => {
                json!({ "driver": "raw", "node-name": self.node, "discard": "unmap", "file": file })
            }
            Access::Shared | Access::ReadOnly => {
                json!({ "driver": "raw", "node-name": self.node, "read-only": true, "file": file })
            }
        }
    }

    /// Arguments of `device_add`.
    pub(crate) fn device_add(&self) -> Value {
        json!({
            "driver": "scsi-hd", "id": self.device_id(), "bus": "scsi0.0", "scsi-id": self.target, "lun": self.lun,
            "drive": self.node, "serial": self.serial,
        })
    }

    /// Of one that was added to a machine that ran.
    pub(crate) fn device_id(&self) -> String {
        format!("disk-{}", self.node)
    }
}

/// What QEMU calls the disk of a volume.
pub(crate) fn volume_node(lun: usize) -> String {
    format!("v{lun}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_and_commands_say_the_same() {
        let drives = [Drive::layer(3), Drive::own(), Drive::volume(4, true), Drive::volume(5, false)];
        for drive in drives.into_iter().chain(Drive::rehearsal()) {
            let mut said = Vec::new();
            for (name, value) in drive.blockdev_add().as_object().unwrap() {
                match value {
                    Value::Object(file) => {
                        said.extend(
                            file.iter()
                                .map(|(name, value)| format!("file.{name}={}", value.as_str().unwrap())),
                        );
                    }
                    Value::Bool(true) => said.push(format!("{name}=on")),
                    other => said.push(format!("{name}={}", other.as_str().unwrap())),
                }
            }
            let mut line: Vec<String> = drive.blockdev().split(',').map(str::to_owned).collect();
            said.sort();
            line.sort();
            assert_eq!(said, line);
            let text = drive.device_add();
            let device = format!(
                "{},bus={},scsi-id={},lun={},drive={},serial={}",
                text["driver"].as_str().unwrap(),
                text["bus"].as_str().unwrap(),
                text["scsi-id"],
                text["lun"],
                text["drive"].as_str().unwrap(),
                text["serial"].as_str().unwrap()
            );
            assert_eq!(device, drive.device());
        }
    }
}
