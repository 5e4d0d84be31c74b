//! Drivers and their options: there is one driver; a volume of it has a size, and is in a volume store.

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
    let (mut size_bytes, mut store) = (None, None);
    for (option, value) in &options {
        // The two of vSphere Integrated Containers are known in any case.
        let bytes = match option.as_str() {
            "size" => size::parse(value, 1024.0),
            capacity if capacity.eq_ignore_ascii_case("Capacity") => megabytes(value),
            name if name.eq_ignore_ascii_case("VolumeStore") => {
                let name = value.parse().map_err(|error| ApiError::bad(format!("{error}")))?;
                if store.replace(name).is_some() {
                    return Err(ApiError::bad("the option VolumeStore is given twice"));
                }
                continue;
            }
            option if MOUNT_OPTIONS.contains(&option) => {
                return Err(ApiError::bad(format!(
                    "bulkhead: volume option \"{option}\" is not supported: a volume is a disk of its own, not a mount of \
                     something on the host or elsewhere; for memory there is --tmpfs"
                )));
            }
            option => return Err(ApiError::bad(format!("invalid option: {:?}", clip(option)))),
        };
        let wrong = || ApiError::bad(format!("invalid size: '{}'", clip(value)));
        // Whole pages: what a disk is made of.
        let bytes = bytes.filter(|bytes| *bytes > 0).ok_or_else(wrong)?.next_multiple_of(4096);
        if size_bytes.replace(bytes).is_some() {
            return Err(ApiError::bad("a volume has one size: give the option size or Capacity, and once"));
        }
    }
    Ok(VolumeAsk { name, labels, options, size_bytes, store })
}

/// A size that means megabytes where it has no unit.
fn megabytes(text: &str) -> Option<u64> {
    match text.parse::<u64>() {
        Ok(number) => number.checked_mul(1 << 20),
        Err(_) => size::parse(text, 1024.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(option: &str, value: &str) -> Result<Option<u64>, String> {
        let options = BTreeMap::from([(option.to_owned(), value.to_owned())]);
        ask(None, BTreeMap::new(), options).map(|ask| ask.size_bytes).map_err(|error| error.message)
    }

    #[test]
    fn a_volume_has_a_size_and_is_in_a_store() {
        assert_eq!(check("size", "1.5g").unwrap(), Some(3 << 29));
        assert_eq!(check("size", "33554433").unwrap(), Some((32 << 20) + 4096));
        for bad in ["", "0", "big"] {
            assert_eq!(check("size", bad).unwrap_err(), format!("invalid size: '{bad}'"));
        }
        assert_eq!(check("Capacity", "20").unwrap(), Some(20 << 20));
        assert_eq!(check("capacity", "2GB").unwrap(), Some(2 << 30));
        for bad in ["", "0", "-1", "99999999999999999999", "18446744073709551615"] {
            assert_eq!(check("Capacity", bad).unwrap_err(), format!("invalid size: '{bad}'"));
        }
        let options =
            [("VolumeStore", "fast"), ("size", "1g")].map(|(key, value)| (key.into(), value.into()));
        let asked = ask(None, BTreeMap::new(), options.into()).unwrap();
        assert_eq!((asked.store.unwrap().as_str(), asked.size_bytes), ("fast", Some(1 << 30)));
        assert!(check("volumestore", "A B").unwrap_err().contains("is not a volume store name"));
        let both = [("Capacity", "1"), ("size", "1g")].map(|(key, value)| (key.into(), value.into()));
        assert!(ask(None, BTreeMap::new(), both.into()).unwrap_err().message.contains("one size"));
        assert!(check("device", "/etc").unwrap_err().contains("is not supported"));
        assert_eq!(check("colour", "red").unwrap_err(), "invalid option: \"colour\"");
    }
}
