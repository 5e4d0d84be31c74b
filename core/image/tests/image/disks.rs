//! A store of layer disks in a temporary folder, and looking into disks with `fsck.erofs`.

use async_trait::async_trait;
use bulkhead_image::convert::{ConvertSpec, ConvertedLayer, Converter, chunks};
use bulkhead_image::{ImageError, LayerFacts, LayerStore, Staged, StoreError};
use bulkhead_model::Digest;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::{NamedTempFile, TempDir};

pub struct Disks {
    pub folder: TempDir,
}

impl Disks {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, diff_id: &Digest) -> PathBuf {
        self.folder.path().join(diff_id.hex())
    }

    /// Names of all files, staged ones included: nothing may be left behind.
    pub fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

struct StagedFile {
    file: NamedTempFile,
    folder: PathBuf,
}

#[async_trait]
impl LayerStore for Disks {
    async fn layer(&self, diff_id: &Digest) -> Result<Option<LayerFacts>, StoreError> {
        match File::open(self.path(diff_id)) {
            Ok(file) => Ok(Some(bulkhead_image::recipe::facts(&file)?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn stage(&self) -> Result<Box<dyn Staged>, StoreError> {
        let folder = self.folder.path().to_owned();
        Ok(Box::new(StagedFile { file: NamedTempFile::new_in(&folder)?, folder }))
    }

    async fn open(&self, diff_id: &Digest) -> Result<File, StoreError> {
        Ok(File::open(self.path(diff_id))?)
    }
}

#[async_trait]
impl Staged for StagedFile {
    fn file(&self) -> Result<File, StoreError> {
        Ok(self.file.as_file().try_clone()?)
    }

    async fn commit(self: Box<Self>, diff_id: &Digest) -> Result<(), StoreError> {
        self.file.persist(self.folder.join(diff_id.hex()))?;
        Ok(())
    }
}

pub fn converter() -> Converter {
    Converter::new(super::converter_config())
}

/// Converts with nothing expected.
pub async fn convert(archive: &[u8]) -> Result<(ConvertedLayer, NamedTempFile), ImageError> {
    convert_with(&converter(), archive).await
}

pub async fn convert_with(
    converter: &Converter,
    archive: &[u8],
) -> Result<(ConvertedLayer, NamedTempFile), ImageError> {
    let disk = NamedTempFile::new().unwrap();
    let file = disk.reopen().unwrap();
    let layer = converter.convert(&ConvertSpec::default(), chunks(archive), file, |_| {}).await?;
    Ok((layer, disk))
}

/// What a tree on the host looks like, for comparing.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    pub kind: &'static str,
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: (i64, i64),
    pub device: u64,
    pub content: String,
}

pub fn look(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let meta = path.symlink_metadata().unwrap();
        let kind = meta.file_type();
        let (kind, content) = if kind.is_dir() {
            pending.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            ("directory", String::new())
        } else if kind.is_file() {
            ("file", format!("{} {}", meta.len(), Digest::of(&std::fs::read(&path).unwrap())))
        } else if kind.is_symlink() {
            ("symlink", std::fs::read_link(&path).unwrap().display().to_string())
        } else if kind.is_char_device() {
            ("char", String::new())
        } else if kind.is_block_device() {
            ("block", String::new())
        } else {
            ("fifo", String::new())
        };
        let is_device = kind == "char" || kind == "block";
        let facts = Seen {
            kind,
            mode: if kind == "symlink" { 0 } else { meta.mode() & 0o7777 },
            owner: (meta.uid(), meta.gid()),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            device: if is_device { meta.rdev() } else { 0 },
            content,
        };
        seen.insert(path.strip_prefix(root).unwrap().to_owned(), facts);
    }
    seen
}

/// Fails unless `fsck.erofs` finds the disk clean.
pub fn fsck(disk: &Path) {
    let output = Command::new("fsck.erofs").arg("-d3").arg(disk).output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("No errors found"), "fsck.erofs: {text}");
}

/// The tree in a disk, as `fsck.erofs` unpacks it: a reader that knows nothing of our writer.
pub fn extract(disk: &Path) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("fsck.erofs")
        .arg(format!("--extract={}", folder.path().display()))
        .args(["--overwrite", "--preserve"])
        .arg(disk)
        .output()
        .unwrap();
    assert!(output.status.success(), "fsck.erofs --extract: {}", String::from_utf8_lossy(&output.stderr));
    folder
}

/// The archive that a disk gives back.
pub async fn restore(disk: &NamedTempFile) -> Vec<u8> {
    let mut archive = Vec::new();
    let digest = converter().restore(disk.reopen().unwrap(), &mut archive).await.unwrap();
    assert_eq!(digest, Digest::of(&archive));
    archive
}
