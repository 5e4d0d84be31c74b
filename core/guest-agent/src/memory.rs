//! Memory that came to the machine since its start. The kernel sees it in blocks, and uses a block once it is told to.

use std::fs;
use std::io;

const FOLDER: &str = "/sys/devices/system/memory";

/// How many blocks there are.
pub fn blocks() -> io::Result<u64> {
    let blocks =
        fs::read_dir(FOLDER)?.flatten().filter(|entry| is_block(&entry.file_name().to_string_lossy()));
    Ok(blocks.count().try_into().unwrap_or(u64::MAX))
}

/// Bytes of all blocks beyond the first so many, in use from now on.
pub fn plugged(before: u64) -> io::Result<u64> {
    let more = blocks()?.saturating_sub(before);
    if more == 0 {
        return Ok(0);
    }
    for entry in fs::read_dir(FOLDER)?.flatten() {
        let state = entry.path().join("state");
        if is_block(&entry.file_name().to_string_lossy()) && fs::read_to_string(&state)?.trim() == "offline" {
            fs::write(&state, "online")?;
        }
    }
    let bytes = fs::read_to_string(format!("{FOLDER}/block_size_bytes"))?;
    let bytes = u64::from_str_radix(bytes.trim(), 16).map_err(io::Error::other)?;
    Ok(more.saturating_mul(bytes))
}

/// `memory7`, beside the settings of the folder.
fn is_block(name: &str) -> bool {
    name.strip_prefix("memory").is_some_and(|number| number.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::is_block;

    #[test]
    fn blocks_are_told_from_settings() {
        assert!(is_block("memory12"));
        assert!(!is_block("memory") && !is_block("block_size_bytes") && !is_block("memory1x"));
    }
}
