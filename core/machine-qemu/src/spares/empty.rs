//! The layer of a rehearsal: an EROFS with an empty root folder (Linux: Documentation/filesystems/erofs.rst, fs/erofs/erofs_fs.h).

const BLOCK: usize = 4096;
const SUPERBLOCK: usize = 1024;
const MAGIC: u32 = 0xe0f5_e1e2;
/// Counted in 32 bytes, right after the superblock.
const ROOT_INODE: u16 = 36;
const MODE: u16 = 0o040_755;
const FOLDER: u8 = 2;

/// The whole file.
pub(super) fn erofs() -> Vec<u8> {
    let names = [".", ".."];
    let entries_bytes = 12 * names.len();
    let size = entries_bytes + names.concat().len();
    let mut image = vec![0; 2 * BLOCK];
    let superblock: [(usize, &[u8]); 5] = [
        (0, &MAGIC.to_le_bytes()),
        // Blocks of two to the power of that.
        (12, &[12]),
        (14, &ROOT_INODE.to_le_bytes()),
        // One inode.
        (16, &1_u64.to_le_bytes()),
        // Blocks.
        (36, &2_u32.to_le_bytes()),
    ];
    for (at, bytes) in superblock {
        put(&mut image, SUPERBLOCK + at, bytes);
    }
    // A compact inode whose data is in blocks of its own, the second one.
    let size = u32::try_from(size).unwrap_or_default();
    let inode: [(usize, &[u8]); 5] = [
        (4, &MODE.to_le_bytes()),
        (6, &2_u16.to_le_bytes()),
        (8, &size.to_le_bytes()),
        (16, &1_u32.to_le_bytes()),
        (20, &1_u32.to_le_bytes()),
    ];
    for (at, bytes) in inode {
        put(&mut image, usize::from(ROOT_INODE) * 32 + at, bytes);
    }
    let mut name_at = entries_bytes;
    for (index, name) in names.iter().enumerate() {
        let entry = BLOCK + 12 * index;
        put(&mut image, entry, &u64::from(ROOT_INODE).to_le_bytes());
        put(&mut image, entry + 8, &u16::try_from(name_at).unwrap_or_default().to_le_bytes());
        put(&mut image, entry + 10, &[FOLDER]);
        put(&mut image, BLOCK + name_at, name.as_bytes());
        name_at += name.len();
    }
    image
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    for (to, from) in image.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_find_it_whole() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), erofs()).unwrap();
        let checked = std::process::Command::new("fsck.erofs").arg(file.path()).output();
        let checked = checked.expect("this test needs the package erofs-utils");
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    }
}
