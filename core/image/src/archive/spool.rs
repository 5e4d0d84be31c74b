//! Uploads in a file without a name: they are read at the client's pace, what comes after is not, so that a slow client
//! holds no place among the conversions.

use super::index::{Section, of_archive, stream};
use crate::compression::Compression;
use crate::convert::Converter;
use crate::error::ImageError;
use bytes::Bytes;
use futures_util::Stream;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

/// Without a byte for so long, a client is taken for gone.
pub(super) const STALL: Duration = Duration::from_secs(600);
const BUFFER_BYTES: usize = 256 << 10;

/// An upload as it came.
pub(super) struct Upload {
    file: Arc<File>,
    bytes: u64,
}

impl Upload {
    /// Takes all that the client sends. The folder's file system must have room for it, up to `max` bytes.
    pub async fn receive(
        reader: impl AsyncRead + Send,
        work_dir: &Path,
        max: u64,
    ) -> Result<Self, ImageError> {
        let file = unnamed(work_dir)?;
        let writer = file.try_clone().map_err(ImageError::io("making room for the archive"))?;
        let mut writer = tokio::fs::File::from_std(writer);
        let mut reader = std::pin::pin!(reader);
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut bytes = 0;
        loop {
            let read = tokio::time::timeout(STALL, reader.read(&mut buffer)).await;
            let read = read.map_err(|_| stalled("receiving the archive"))?;
            let got = read.map_err(ImageError::io("receiving the archive"))?;
            let part = buffer.get(..got).unwrap_or_default();
            if part.is_empty() {
                break;
            }
            bytes += got as u64;
            if bytes > max {
                return Err(ImageError::Limit { what: "the archive".into(), limit: format!("{max} bytes") });
            }
            writer.write_all(part).await.map_err(ImageError::io("storing the archive"))?;
        }
        writer.flush().await.map_err(ImageError::io("storing the archive"))?;
        Ok(Self { file: Arc::new(file), bytes })
    }

    pub fn stream(&self) -> impl Stream<Item = Result<Bytes, ImageError>> + Send + use<> {
        stream(Arc::clone(&self.file), Section { offset: 0, bytes: self.bytes })
    }

    /// The bare archive. Decompression is done in the child: only the first bytes are looked at here.
    pub async fn inflate(self, work_dir: &Path, converter: &Converter) -> Result<File, ImageError> {
        let mut start = [0; 8];
        let length = usize::try_from(self.bytes).unwrap_or(usize::MAX).min(start.len());
        let start = start.get_mut(..length).unwrap_or_default();
        self.file.read_exact_at(start, 0).map_err(ImageError::io("reading the archive"))?;
        if Compression::detect(start).map_err(of_archive)? == Compression::None {
            return self.file.try_clone().map_err(ImageError::io("reading the archive"));
        }
        let inflated = unnamed(work_dir)?;
        let target = inflated.try_clone().map_err(ImageError::io("making room for the archive"))?;
        converter.inflate(self.stream(), target).await.map_err(|error| match of_archive(error) {
            ImageError::Limit { limit, .. } => ImageError::Limit { what: "the archive".into(), limit },
            other => other,
        })?;
        Ok(inflated)
    }
}

fn unnamed(work_dir: &Path) -> Result<File, ImageError> {
    tempfile::tempfile_in(work_dir).map_err(ImageError::io("making room for the archive"))
}

pub(super) fn stalled(what: &str) -> ImageError {
    ImageError::Deadline { what: format!("a pause while {what}"), seconds: STALL.as_secs() }
}
