//! Drivers and their options: there is one driver, and one option of it.

use crate::error::ApiError;
use crate::query::clip;
use crate::size;
use bulkhead_model::VolumeName;
use bulkhead_model::volume::VolumeAsk;
use std::collections::BTreeMap;

/// Options of Docker's own driver with which it mounts something else than a folder of its own.
const MOUNT_OPTIONS: [&str; 3] = ["type", "o", "device"];

/// `local` is the only driver, and what no name means.
pub fn check_driver(name: &str) -> Result<(), ApiError> {
    if matches!(name, "" | "local") {
        return Ok(());
    }
    let name = clip(name);
    Err(ApiError::not_found(format!("error looking up volume plugin {name}: plugin \"{name}\" not found")))
}

pub fn ask(
    name: Option<VolumeName>,
    labels: BTreeMap<String, String>,
    options: BTreeMap<String, String>,
) -> Result<VolumeAsk, ApiError> {
    let mut size_bytes = None;
    for (option, value) in &options {
        match option.as_str() {
            "size" => {
                let bytes = size::parse(value, 1024.0).filter(|bytes| *bytes > 0);
                let wrong = || ApiError::bad(format!("invalid size: '{}'", clip(value)));
                // Whole pages: what a disk is made of.
                size_bytes = Some(bytes.ok_or_else(wrong)?.next_multiple_of(4096));
            }
            option if MOUNT_OPTIONS.contains(&option) => {
                return Err(ApiError::bad(format!(
                    "bulkhead: volume option \"{option}\" is not supported: a volume is a disk of its own, not a mount of \
                     something on the host or elsewhere; for memory there is --tmpfs"
                )));
            }
            option => return Err(ApiError::bad(format!("invalid option: {:?}", clip(option)))),
        }
    }
    Ok(VolumeAsk { name, labels, options, size_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(option: &str, value: &str) -> Result<Option<u64>, String> {
        let options = BTreeMap::from([(option.to_owned(), value.to_owned())]);
        ask(None, BTreeMap::new(), options).map(|ask| ask.size_bytes).map_err(|error| error.message)
    }

    #[test]
    fn the_size_is_the_only_option() {
        assert_eq!(check("size", "1.5g").unwrap(), Some(3 << 29));
        assert_eq!(check("size", "33554433").unwrap(), Some((32 << 20) + 4096));
        for bad in ["", "0", "big"] {
            assert_eq!(check("size", bad).unwrap_err(), format!("invalid size: '{bad}'"));
        }
        assert!(check("device", "/etc").unwrap_err().contains("is not supported"));
        assert_eq!(check("colour", "red").unwrap_err(), "invalid option: \"colour\"");
    }
}
