//! The 512-byte header block.

use super::{EntryKind, Mtime};
use crate::layer_error::{LayerError, shown};

pub(super) const BLOCK: u64 = 512;

/// Which fields behind the v7 ones a header has, by its magic bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    V7,
    Ustar,
    /// Joerg Schilling's: the prefix is shorter.
    Star,
    Gnu,
}

/// What an old GNU header says of a sparse file.
pub(super) struct GnuSparse {
    pub map: Vec<(u64, u64)>,
    /// Whether the map goes on in the next block.
    pub more: bool,
    pub real_size: u64,
}

#[derive(Debug)]
pub(super) struct Header {
    block: [u8; 512],
    format: Format,
}

impl Header {
    /// `None` for a block of zeros.
    pub fn parse(block: &[u8]) -> Result<Option<Self>, LayerError> {
        let Ok(block) = <[u8; 512]>::try_from(block) else {
            return Err(LayerError::Truncated("in a header"));
        };
        if block.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let field = |from: usize, len: usize| block.get(from..from + len).unwrap_or_default();
        let format = match (field(257, 6), field(263, 2), field(508, 4)) {
            (b"ustar\0", _, b"tar\0") => Format::Star,
            (b"ustar\0", b"00", _) => Format::Ustar,
            (b"ustar ", b" \0", _) => Format::Gnu,
            _ => Format::V7,
        };
        let header = Self { block, format };
        header.check_sum()?;
        Ok(Some(header))
    }

    fn field(&self, from: usize, len: usize) -> &[u8] {
        self.block.get(from..from + len).unwrap_or_default()
    }

    /// The sum of all bytes, the sum's own field taken as spaces. Old writers summed signed bytes.
    fn check_sum(&self) -> Result<(), LayerError> {
        let stated = number(self.field(148, 8), "checksum")?;
        let (mut unsigned, mut signed) = (0_i64, 0_i64);
        for (at, &byte) in self.block.iter().enumerate() {
            let byte = if (148..156).contains(&at) { b' ' } else { byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        if stated == unsigned || stated == signed {
            Ok(())
        } else {
            Err(LayerError::refused("a header's checksum is wrong: this is no tar archive, or it is damaged"))
        }
    }

    pub fn kind(&self) -> u8 {
        self.block.get(156).copied().unwrap_or_default()
    }

    pub fn path(&self) -> Vec<u8> {
        let name = text(self.field(0, 100));
        let prefix = match self.format {
            Format::Ustar => text(self.field(345, 155)),
            Format::Star => text(self.field(345, 131)),
            Format::V7 | Format::Gnu => &[],
        };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub fn link(&self) -> Vec<u8> {
        text(self.field(157, 100)).to_vec()
    }

    pub fn size(&self) -> Result<u64, LayerError> {
        u64::try_from(number(self.field(124, 12), "size")?)
            .map_err(|_| LayerError::refused("a header's size is negative"))
    }

    pub fn mode(&self) -> Result<u16, LayerError> {
        Ok((number(self.field(100, 8), "mode")? & 0o7777).try_into().unwrap_or_default())
    }

    pub fn uid(&self) -> Result<u32, LayerError> {
        owner(number(self.field(108, 8), "uid")?)
    }

    pub fn gid(&self) -> Result<u32, LayerError> {
        owner(number(self.field(116, 8), "gid")?)
    }

    pub fn mtime(&self) -> Result<Mtime, LayerError> {
        Ok(Mtime { seconds: number(self.field(136, 12), "mtime")?, nanoseconds: 0 })
    }

    fn device(&self) -> Result<(u32, u32), LayerError> {
        if self.format == Format::V7 {
            return Ok((0, 0));
        }
        let part = |from, max| -> Result<u32, LayerError> {
            let number = number(self.field(from, 8), "device number")?;
            u32::try_from(number)
                .ok()
                .filter(|number| *number <= max)
                .ok_or_else(|| LayerError::refused(format!("device number {number} does not fit")))
        };
        // Linux: 12 bits and 20 bits.
        Ok((part(329, 0xfff)?, part(337, 0xf_ffff)?))
    }

    pub fn entry_kind(&self, path: &[u8], link: Vec<u8>) -> Result<EntryKind, LayerError> {
        Ok(match self.kind() {
            // Before there was a flag for it, a directory was a name with a slash at the end.
            b'0' | 0 if path.ends_with(b"/") => EntryKind::Directory,
            b'0' | 0 | b'7' | b'S' => EntryKind::File,
            b'1' => EntryKind::HardLink(link),
            b'2' => EntryKind::Symlink(link),
            b'3' => {
                let (major, minor) = self.device()?;
                EntryKind::CharDevice { major, minor }
            }
            b'4' => {
                let (major, minor) = self.device()?;
                EntryKind::BlockDevice { major, minor }
            }
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            other => {
                let flag = shown(&[other]);
                return Err(LayerError::refused(format!("{} is of the unknown kind {flag}", shown(path))));
            }
        })
    }

    /// The sparse map in an old GNU header, whether it goes on, and the file's real size.
    pub fn gnu_sparse(&self) -> Result<GnuSparse, LayerError> {
        let real_size = u64::try_from(number(self.field(483, 12), "real size")?)
            .map_err(|_| LayerError::refused("a sparse file's size is negative"))?;
        let more = self.block.get(482).is_some_and(|more| *more != 0);
        Ok(GnuSparse { map: gnu_map(self.field(386, 96))?, more, real_size })
    }
}

/// Pairs of 12-byte numbers up to an empty one.
pub(super) fn gnu_map(field: &[u8]) -> Result<Vec<(u64, u64)>, LayerError> {
    let mut map = Vec::new();
    for pair in field.chunks_exact(24) {
        let (offset, length) = pair.split_at(12);
        if offset.first() == Some(&0) {
            break;
        }
        let number = |field| {
            u64::try_from(number(field, "sparse map")?)
                .map_err(|_| LayerError::refused("a sparse map is negative"))
        };
        map.push((number(offset)?, number(length)?));
    }
    Ok(map)
}

pub(super) fn owner(number: i64) -> Result<u32, LayerError> {
    u32::try_from(number).map_err(|_| LayerError::refused(format!("owner {number} does not fit in 32 bits")))
}

/// Up to the first zero byte.
fn text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// Octal digits between spaces, or GNU's big-endian binary with the first bit set; an empty field is 0.
fn number(field: &[u8], what: &str) -> Result<i64, LayerError> {
    let wrong = || LayerError::refused(format!("a header's {what} is not a number"));
    if let Some(&first) = field.first()
        && first & 0x80 != 0
    {
        // Sign bit is the one below the mark; the value is two's complement.
        let negative = first & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        for (at, &byte) in field.iter().enumerate() {
            let byte = match (at, negative) {
                (0, false) => byte & 0x7f,
                (0, true) => byte | 0x80,
                _ => byte,
            };
            value = (value << 8) | i128::from(byte);
        }
        return i64::try_from(value).map_err(|_| wrong());
    }
    let digits = text(field).trim_ascii();
    let mut value: i64 = 0;
    for &digit in digits {
        if !(b'0'..=b'7').contains(&digit) {
            return Err(wrong());
        }
        value =
            value.checked_mul(8).and_then(|v| v.checked_add(i64::from(digit - b'0'))).ok_or_else(wrong)?;
    }
    Ok(value)
}
