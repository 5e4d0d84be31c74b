//! An initramfs archive in the kernel's format (`newc`, Documentation/driver-api/early-userspace/buffer-format.rst).
//! Everything is root's and from 1970, so that equal contents are equal archives.

use anyhow::{Context, Result};

/// Entries in the order in which the kernel will make them; a folder comes before what is in it.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    pub fn folder(&mut self, name: &str) -> Result<()> {
        self.entry(name, 0o040_755, &[])
    }

    pub fn file(&mut self, name: &str, content: &[u8]) -> Result<()> {
        self.entry(name, 0o100_644, content)
    }

    pub fn program(&mut self, name: &str, content: &[u8]) -> Result<()> {
        self.entry(name, 0o100_755, content)
    }

    pub fn finish(mut self) -> Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.bytes)
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entries += 1;
        let size = u32::try_from(content.len()).with_context(|| format!("`{name}` is too big"))?;
        let name_size = u32::try_from(name.len() + 1)?;
        // inode, mode, uid, gid, links, mtime, size, device, device of a node, length of the name, checksum
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
        Ok(())
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_110_bytes_and_everything_is_aligned() {
        let mut archive = Archive::default();
        archive.program("init", b"abcde").unwrap();
        let bytes = archive.finish().unwrap();
        let expect = "07070100000001000081ED00000000000000000000000100000000000000050000000000000000\
                      00000000000000000000000500000000init\0\0abcde\0\0\x00070701";
        let text = String::from_utf8(bytes[..expect.len()].to_vec()).unwrap();
        assert_eq!(text, expect);
        assert_eq!(bytes.len() % 4, 0);
    }
}
