//! Sparse files: old GNU headers and the pax versions 0.0, 0.1 and 1.0.

use super::header::{BLOCK, GnuSparse, Header, gnu_map};
use super::pax::{PaxRecords, decimal};
use super::{Entry, TarReader, padding};
use crate::layer_error::{LayerError, shown};
use std::io::Read;

/// Pieces of one sparse file; GNU tar itself writes a few thousand at most.
const PIECES_MAX: usize = 1 << 17;

impl<R: Read> TarReader<R> {
    /// Finds the map, if there is one, and what the file's name and size really are.
    pub(super) fn apply_sparse(
        &mut self,
        header: &Header,
        pax: &PaxRecords,
        entry: &mut Entry,
    ) -> Result<(), LayerError> {
        let (map, real_size) = match (&pax.sparse, header.kind() == b'S') {
            (None, false) => return Ok(()),
            (Some(_), true) => return Err(LayerError::refused("an entry is sparse in two ways")),
            (None, true) => self.old_gnu(header)?,
            (Some(sparse), false) => {
                let real =
                    sparse.real_size.ok_or_else(|| LayerError::refused("a sparse file lacks its size"))?;
                if let Some(name) = &sparse.name {
                    entry.path.clone_from(name);
                }
                match (sparse.major, sparse.minor) {
                    (0, 0 | 1) => (sparse.map.clone(), real),
                    (1, 0) => (self.map_before_content()?, real),
                    (major, minor) => {
                        return Err(LayerError::refused(format!("sparse format {major}.{minor} is unknown")));
                    }
                }
            }
        };
        check_map(&map, self.body_left, real_size, &entry.path)?;
        entry.stored = self.body_left;
        entry.size = real_size;
        entry.pieces = Some(map);
        Ok(())
    }

    fn old_gnu(&mut self, header: &Header) -> Result<(Vec<(u64, u64)>, u64), LayerError> {
        let GnuSparse { mut map, mut more, real_size } = header.gnu_sparse()?;
        while more {
            let block = self.read_literal(BLOCK, "in a sparse map")?;
            map.extend(gnu_map(block.get(..504).unwrap_or_default())?);
            more = block.get(504).is_some_and(|more| *more != 0);
            if map.len() > PIECES_MAX {
                return Err(LayerError::limit("the number of pieces of a sparse file", PIECES_MAX));
            }
        }
        Ok((map, real_size))
    }

    /// Version 1.0: decimal lines at the start of the body (the count, then offset and length of each), to a full block.
    fn map_before_content(&mut self) -> Result<Vec<(u64, u64)>, LayerError> {
        let mut numbers: Vec<u64> = Vec::new();
        let mut line: Vec<u8> = Vec::new();
        let mut expected: usize = 1;
        while numbers.len() < expected {
            if self.body_left < BLOCK {
                return Err(LayerError::Truncated("in a sparse map"));
            }
            let block = self.read_literal(BLOCK, "in a sparse map")?;
            self.body_left -= BLOCK;
            for byte in block {
                if numbers.len() == expected {
                    break;
                }
                if byte != b'\n' {
                    line.push(byte);
                    if line.len() > 20 {
                        return Err(LayerError::refused("a sparse map is malformed"));
                    }
                    continue;
                }
                numbers.push(decimal(&line, b"GNU.sparse.map")?);
                line.clear();
                if let [count] = numbers.as_slice() {
                    let count = usize::try_from(*count).unwrap_or(usize::MAX);
                    if count > PIECES_MAX {
                        return Err(LayerError::limit("the number of pieces of a sparse file", PIECES_MAX));
                    }
                    expected = 1 + 2 * count;
                }
            }
        }
        self.padding = padding(self.body_left);
        let pairs = numbers.get(1..).unwrap_or_default().chunks_exact(2);
        Ok(pairs.filter_map(|pair| <[u64; 2]>::try_from(pair).ok()).map(|[at, len]| (at, len)).collect())
    }
}

/// In order, without overlap, within the file, and exactly as long as the body.
fn check_map(map: &[(u64, u64)], stored: u64, real_size: u64, path: &[u8]) -> Result<(), LayerError> {
    let wrong = |why: &str| LayerError::refused(format!("the sparse map of {} {why}", shown(path)));
    if map.len() > PIECES_MAX {
        return Err(LayerError::limit("the number of pieces of a sparse file", PIECES_MAX));
    }
    let mut end = 0_u64;
    let mut total = 0_u64;
    for &(offset, length) in map {
        if offset < end {
            return Err(wrong("overlaps itself"));
        }
        end = offset.checked_add(length).ok_or_else(|| wrong("does not fit in 64 bits"))?;
        total += length;
    }
    if end > real_size {
        return Err(wrong("goes beyond the end of the file"));
    }
    if total != stored {
        return Err(wrong("does not match the bytes that follow"));
    }
    Ok(())
}
