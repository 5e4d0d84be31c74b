//! The output file: appended to, with holes where there are only zeros.

use super::BLOCK;
use crate::layer_error::LayerError;
use std::fs::File;
use std::os::unix::fs::FileExt;

const BUFFER_BYTES: usize = 256 << 10;

#[derive(Debug)]
pub(crate) struct DiskWriter {
    file: File,
    /// Where `buffer` belongs.
    start: u64,
    buffer: Vec<u8>,
}

impl DiskWriter {
    /// Over an empty file; block 0 is left for the superblock.
    pub fn new(file: File) -> Result<Self, LayerError> {
        file.set_len(0).map_err(LayerError::Write)?;
        Ok(Self { file, start: BLOCK, buffer: Vec::with_capacity(BUFFER_BYTES) })
    }

    pub fn position(&self) -> u64 {
        self.start + self.buffer.len() as u64
    }

    pub fn write(&mut self, mut data: &[u8]) -> Result<(), LayerError> {
        while !data.is_empty() {
            let room = BUFFER_BYTES - self.buffer.len();
            let (now, later) = data.split_at(room.min(data.len()));
            self.buffer.extend_from_slice(now);
            data = later;
            if self.buffer.len() == BUFFER_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Zeros up to `position`, which must not lie behind.
    pub fn zeros_to(&mut self, position: u64) -> Result<(), LayerError> {
        let gap = position.saturating_sub(self.position());
        match usize::try_from(gap) {
            Ok(gap) if gap <= BUFFER_BYTES - self.buffer.len() => {
                self.buffer.resize(self.buffer.len() + gap, 0);
            }
            _ => {
                self.flush()?;
                self.start = position;
            }
        }
        Ok(())
    }

    /// Zeros to the next block; its number.
    pub fn align(&mut self) -> Result<u32, LayerError> {
        let position = self.position().next_multiple_of(BLOCK);
        self.zeros_to(position)?;
        block_number(position)
    }

    /// Over what is there already, or block 0.
    pub fn write_at(&mut self, position: u64, data: &[u8]) -> Result<(), LayerError> {
        self.flush()?;
        self.file.write_all_at(data, position).map_err(LayerError::Write)
    }

    /// The length of the file, ended at a full block.
    pub fn finish(mut self) -> Result<u64, LayerError> {
        self.align()?;
        self.flush()?;
        self.file.set_len(self.start).map_err(LayerError::Write)?;
        Ok(self.start)
    }

    fn flush(&mut self) -> Result<(), LayerError> {
        // The file was empty, so what is not written reads as zeros and takes no space.
        if self.buffer.iter().any(|&byte| byte != 0) {
            self.file.write_all_at(&self.buffer, self.start).map_err(LayerError::Write)?;
        }
        self.start += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

fn block_number(position: u64) -> Result<u32, LayerError> {
    u32::try_from(position / BLOCK).map_err(|_| LayerError::limit("the disk", "16 TiB"))
}
