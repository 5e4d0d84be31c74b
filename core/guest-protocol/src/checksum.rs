//! What tells a whole frame or record from a part of one.
//!
//! The lower half of [XXH64](https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md), seed 0: torn data passes
//! once in 2^32. A CRC-32 is as good at that, but goes by tables, byte by byte: in an emulated guest it took a sixth of
//! all time that a stream took. Neither keeps a hostile sender from anything: it can compute them as well.

use xxhash_rust::xxh64::Xxh64;

pub(crate) const BYTES: usize = 4;

/// Of the parts together, in little endian.
pub(crate) fn of(parts: &[&[u8]]) -> [u8; BYTES] {
    let mut hasher = Xxh64::new(0);
    for part in parts {
        hasher.update(part);
    }
    let [a, b, c, d, ..] = hasher.digest().to_le_bytes();
    [a, b, c, d]
}
