//! Devices that a container gets when it asks for them. Their drivers are loaded only then.

use crate::failure::{Doing, Failure, reason};
use crate::sys;
use bulkhead_guest_protocol::message::{Device, Interior};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

/// Paths of modules that are loaded on demand, made with the guest image.
const LATER_LIST: &str = "/modules.later";

/// A device that guests have: its path, its numbers, and the module that drives it, if it has one.
struct Known {
    path: &'static str,
    major: u32,
    minor: u32,
    module: Option<&'static str>,
}

impl Known {
    const fn new(path: &'static str, major: u32, minor: u32, module: Option<&'static str>) -> Self {
        Self { path, major, minor, module }
    }
}

const KNOWN: [Known; 8] = [
    Known::new("/dev/fuse", 10, 229, Some("fuse")),
    Known::new("/dev/net/tun", 10, 200, Some("tun")),
    Known::new("/dev/null", 1, 3, None),
    Known::new("/dev/zero", 1, 5, None),
    Known::new("/dev/full", 1, 7, None),
    Known::new("/dev/random", 1, 8, None),
    Known::new("/dev/urandom", 1, 9, None),
    Known::new("/dev/tty", 5, 0, None),
];

/// Drivers that are not loaded yet. Nobody else finds their files any more.
#[derive(Debug, Default)]
pub struct Drivers(Vec<(String, File)>);

impl Drivers {
    /// Takes them out of the initramfs, before that is left behind.
    pub fn take() -> Result<Self, Failure> {
        let mut drivers = Vec::new();
        for path in fs::read_to_string(LATER_LIST).doing("read the list of drivers")?.lines() {
            let name = Path::new(path).file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let file = File::open(path).doing(format!("open the driver {name}"))?;
            fs::remove_file(path).doing(format!("put the driver {name} away"))?;
            drivers.push((name, file));
        }
        Ok(Self(drivers))
    }

    /// Loads what the devices need; the others are of no use any more. A container with all privileges has all devices.
    pub fn load(&mut self, interior: &Interior) -> Result<(), Failure> {
        let drivers = std::mem::take(&mut self.0);
        for device in all(interior) {
            let missing = |why: &str| {
                let source = &device.source;
                Failure::internal(format!(
                    "error gathering device information while adding custom device \"{source}\": {why}"
                ))
            };
            let known = known(&device.source).ok_or_else(|| missing("no such file or directory"))?;
            let driver = drivers.iter().find(|(name, _)| Some(name.as_str()) == known.module);
            // One that is not among them is part of the kernel.
            let loaded = driver.map_or(Ok(()), |(_, file)| sys::load_module(file, ""));
            match loaded {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(missing(&reason(&error)));
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

/// Makes their nodes, in the container's root.
pub fn make(interior: &Interior) -> Result<(), Failure> {
    for device in all(interior) {
        let Some(known) = known(&device.source) else { continue };
        let path = Path::new(&device.target);
        let make = || sys::make_node(path, libc::S_IFCHR | 0o666, known.major, known.minor);
        if let Some(folder) = path.parent() {
            crate::rootfs::make_folder(folder).doing(format!("make {}", folder.display()))?;
        }
        let made = match make() {
            // Of an earlier run, or the image's.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                fs::remove_file(path).and_then(|()| make())
            }
            made => made,
        };
        made.doing(format!("make {}", device.target))?;
    }
    Ok(())
}

/// As the device cgroup is told of them.
pub fn rules(interior: &Interior) -> Vec<String> {
    let rule = |device: &Device| {
        let Known { major, minor, .. } = known(&device.source)?;
        Some(format!("c {major}:{minor} {}", device.access))
    };
    interior.devices.iter().filter_map(rule).collect()
}

fn known(source: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.path == source)
}

fn all(interior: &Interior) -> Vec<Device> {
    let mut all = interior.devices.clone();
    if interior.privileged {
        let device = |known: &Known| Device {
            source: known.path.into(),
            target: known.path.into(),
            access: "rwm".into(),
        };
        all.extend(KNOWN.iter().filter(|known| known.module.is_some()).map(device));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_allowed_and_no_more() {
        let tun = Device { source: "/dev/net/tun".into(), target: "/tun".into(), access: "rw".into() };
        let interior = Interior { devices: vec![tun], ..Interior::default() };
        assert_eq!(rules(&interior), ["c 10:200 rw"]);
        assert_eq!(all(&interior).len(), 1);
        assert_eq!(all(&Interior { privileged: true, ..interior }).len(), 3);
    }
}
