//! Inodes, directories and the superblock, written behind the contents.
//!
//! Three passes over the tree, breadth first: count links and find parents; place every inode; write. Nothing but the
//! placement is kept, so a million files take some megabytes.

use super::BLOCK;
use super::disk::DiskWriter;
use crate::layer_error::LayerError;
use crate::tree::{Node, NodeKind, ROOT, Tree, Xattr};

const INODE_BYTES: u64 = 64;
const DIRENT_BYTES: usize = 12;
const XATTR_HEADER_BYTES: u64 = 12;
/// A slot is the unit of inode numbers.
const SLOT_BYTES: u64 = 32;
/// `i_format`: the long inode, with content in blocks, or with its last part right behind it.
const LAYOUT_BLOCKS: u16 = 1;
const LAYOUT_INLINE: u16 = 1 | (2 << 1);
/// The namespace `trusted.`.
const TRUSTED: u8 = 4;

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// Inode number: its offset behind the start of the metadata, in slots. 0: not reached.
    nid: u32,
    links: u32,
    parent: u32,
    /// First block of a long directory or symlink, counted from the end of the inodes.
    block: u32,
    inline: bool,
}

struct Layout<'a> {
    tree: &'a Tree,
    places: Vec<Place>,
    /// Reachable nodes, parents first.
    order: Vec<u32>,
    inode_bytes: u64,
}

/// Writes everything but the contents of files, which lie at the blocks that the tree names. Gives the bytes of all files,
/// each counted once.
pub(crate) fn write(tree: &Tree, disk: &mut DiskWriter) -> Result<u64, LayerError> {
    let mut layout =
        Layout { tree, places: vec![Place::default(); tree.len()], order: Vec::new(), inode_bytes: 0 };
    layout.reach();
    layout.place()?;
    let meta_block = disk.align()?;
    let long_block = blocks(u64::from(meta_block) * BLOCK + layout.inode_bytes)?;
    let mut size_bytes = 0;
    for (number, &id) in layout.order.iter().enumerate() {
        let Some((node, place)) = layout.get(id) else { continue };
        if let NodeKind::File { size, .. } = node.kind {
            size_bytes += size;
        }
        disk.zeros_to(u64::from(meta_block) * BLOCK + u64::from(place.nid) * SLOT_BYTES)?;
        layout.write_inode(
            id,
            node,
            place,
            u32::try_from(number + 1).unwrap_or(u32::MAX),
            long_block,
            disk,
        )?;
    }
    disk.zeros_to(u64::from(long_block) * BLOCK)?;
    for &id in &layout.order {
        let Some((node, place)) = layout.get(id) else { continue };
        layout.write_long(id, node, place, disk)?;
    }
    let end = disk.align()?;
    disk.write_at(1024, &superblock(meta_block, end, layout.order.len() as u64, layout.nid(ROOT)))?;
    Ok(size_bytes)
}

impl Layout<'_> {
    fn get(&self, id: u32) -> Option<(&Node, Place)> {
        Some((self.tree.node(id)?, self.places.get(id as usize).copied()?))
    }

    fn nid(&self, id: u32) -> u32 {
        self.places.get(id as usize).map_or(0, |place| place.nid)
    }

    /// Walks the tree from the root. A node under several names is reached once.
    fn reach(&mut self) {
        self.order.push(ROOT);
        if let Some(root) = self.places.get_mut(ROOT as usize) {
            // Its own name and its parent's, which it is itself.
            root.links = 2;
            root.parent = ROOT;
        }
        let mut next = 0;
        while let Some(&id) = self.order.get(next) {
            next += 1;
            let Some(Node { kind: NodeKind::Directory(children), .. }) = self.tree.node(id) else { continue };
            for &child in children.values() {
                let is_directory =
                    matches!(self.tree.node(child), Some(Node { kind: NodeKind::Directory(_), .. }));
                if is_directory && let Some(here) = self.places.get_mut(id as usize) {
                    here.links += 1;
                }
                let Some(place) = self.places.get_mut(child as usize) else { continue };
                if place.links == 0 {
                    self.order.push(child);
                    place.parent = id;
                }
                place.links += if is_directory { 2 } else { 1 };
            }
        }
    }

    /// Gives every inode its number. What comes inline must share a block with its inode: the kernel reads symlinks so.
    fn place(&mut self) -> Result<(), LayerError> {
        // Number 0 would do for the kernel, but programs take a directory entry with it for a deleted one.
        let mut at = INODE_BYTES;
        let mut long_blocks = 0_u32;
        for &id in &self.order {
            let Some(node) = self.tree.node(id) else { continue };
            let head = INODE_BYTES + xattr_bytes(node);
            let body = body_bytes(node);
            let tail = body % BLOCK;
            let inline = tail > 0 && head + tail <= BLOCK && (is_directory(node) || body < BLOCK);
            if inline && at % BLOCK + head + tail > BLOCK {
                at = at.next_multiple_of(BLOCK);
            }
            let long = if inline { body - tail } else { body };
            if let Some(place) = self.places.get_mut(id as usize) {
                place.nid = u32::try_from(at / SLOT_BYTES).map_err(|_| too_big())?;
                place.inline = inline;
                place.block = long_blocks;
            }
            long_blocks = long_blocks.checked_add(blocks(long)?).ok_or_else(too_big)?;
            at = (at + head + if inline { tail } else { 0 }).next_multiple_of(INODE_BYTES);
        }
        self.inode_bytes = at;
        Ok(())
    }

    fn write_inode(
        &self,
        id: u32,
        node: &Node,
        place: Place,
        number: u32,
        long_block: u32,
        disk: &mut DiskWriter,
    ) -> Result<(), LayerError> {
        let xattrs = xattr_bytes(node);
        let xattr_count = if xattrs == 0 { 0 } else { (xattrs - XATTR_HEADER_BYTES) / 4 + 1 };
        let (size, union) = match &node.kind {
            NodeKind::File { block, size } => (*size, *block),
            NodeKind::CharDevice(device) | NodeKind::BlockDevice(device) => (0, *device),
            NodeKind::Fifo | NodeKind::Whiteout => (0, 0),
            NodeKind::Directory(_) | NodeKind::Symlink(_) => {
                let long = long_block.checked_add(place.block).ok_or_else(too_big)?;
                (body_bytes(node), long)
            }
        };
        let mut inode = Vec::with_capacity(INODE_BYTES as usize);
        inode.extend(if place.inline { LAYOUT_INLINE } else { LAYOUT_BLOCKS }.to_le_bytes());
        inode.extend(u16::try_from(xattr_count).map_err(|_| too_big())?.to_le_bytes());
        inode.extend((file_type(&node.kind).0 | node.attributes.mode).to_le_bytes());
        inode.extend([0; 2]);
        inode.extend(size.to_le_bytes());
        inode.extend(union.to_le_bytes());
        inode.extend(number.to_le_bytes());
        inode.extend(node.attributes.uid.to_le_bytes());
        inode.extend(node.attributes.gid.to_le_bytes());
        inode.extend(node.attributes.mtime.seconds.to_le_bytes());
        inode.extend(node.attributes.mtime.nanoseconds.to_le_bytes());
        inode.extend(place.links.to_le_bytes());
        inode.resize(INODE_BYTES as usize, 0);
        disk.write(&inode)?;
        write_xattrs(node, disk)?;
        match &node.kind {
            NodeKind::Symlink(target) if place.inline => disk.write(target),
            NodeKind::Directory(_) if place.inline => {
                let mut last = Vec::new();
                self.directory(id, node, |block| {
                    last = block;
                    Ok(())
                })?;
                disk.write(&last)
            }
            _ => Ok(()),
        }
    }

    /// What did not fit beside the inode, each starting at a full block.
    fn write_long(
        &self,
        id: u32,
        node: &Node,
        place: Place,
        disk: &mut DiskWriter,
    ) -> Result<(), LayerError> {
        match &node.kind {
            NodeKind::Symlink(target) if !place.inline => {
                disk.write(target)?;
                disk.align()?;
            }
            NodeKind::Directory(_) => {
                let whole = body_bytes(node) / BLOCK;
                let mut written = 0;
                self.directory(id, node, |block| {
                    if written < whole || !place.inline {
                        written += 1;
                        disk.write(&block)?;
                        disk.align()?;
                    }
                    Ok(())
                })?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Hands out a directory block by block: fixed-size entries in front, names behind, sorted by bytes overall.
    fn directory(
        &self,
        id: u32,
        node: &Node,
        mut emit: impl FnMut(Vec<u8>) -> Result<(), LayerError>,
    ) -> Result<(), LayerError> {
        let NodeKind::Directory(children) = &node.kind else { return Ok(()) };
        let parent = self.places.get(id as usize).map_or(ROOT, |place| place.parent);
        let dots: [(&[u8], u32); 2] = [(b".", id), (b"..", parent)];
        let mut names: Vec<(&[u8], u32)> =
            children.iter().map(|(name, &child)| (&**name, child)).chain(dots).collect();
        names.sort_unstable();
        let mut rest = names.as_slice();
        while !rest.is_empty() {
            let mut used = 0;
            let count = rest
                .iter()
                .take_while(|(name, _)| {
                    used += DIRENT_BYTES + name.len();
                    used as u64 <= BLOCK
                })
                .count();
            let (now, later) = rest.split_at(count.max(1));
            rest = later;
            let mut block = Vec::with_capacity(BLOCK as usize);
            let mut name_at = now.len() * DIRENT_BYTES;
            for &(name, child) in now {
                let kind = self.tree.node(child).map_or(0, |node| file_type(&node.kind).1);
                block.extend(u64::from(self.nid(child)).to_le_bytes());
                block.extend(u16::try_from(name_at).map_err(|_| too_big())?.to_le_bytes());
                block.extend([kind, 0]);
                name_at += name.len();
            }
            for (name, _) in now {
                block.extend_from_slice(name);
            }
            emit(block)?;
        }
        Ok(())
    }
}

fn is_directory(node: &Node) -> bool {
    matches!(node.kind, NodeKind::Directory(_))
}

/// Bytes that a directory or symlink takes; a file's content is elsewhere.
fn body_bytes(node: &Node) -> u64 {
    match &node.kind {
        NodeKind::Symlink(target) => target.len() as u64,
        NodeKind::Directory(children) => {
            // Packed as in `Layout::directory`: same names in the same order.
            let dots: [&[u8]; 2] = [b".", b".."];
            let mut sorted = dots.into_iter().peekable();
            let (mut whole, mut used) = (0, 0);
            let mut add = |name: &[u8]| {
                let need = (DIRENT_BYTES + name.len()) as u64;
                if used + need > BLOCK {
                    whole += 1;
                    used = 0;
                }
                used += need;
            };
            for name in children.keys() {
                while let Some(dot) = sorted.next_if(|dot| *dot < &**name) {
                    add(dot);
                }
                add(name);
            }
            for dot in sorted {
                add(dot);
            }
            whole * BLOCK + used
        }
        _ => 0,
    }
}

/// The type bits of a mode, and the type in a directory entry.
fn file_type(kind: &NodeKind) -> (u16, u8) {
    match kind {
        NodeKind::File { .. } => (0o100_000, 1),
        NodeKind::Directory(_) => (0o040_000, 2),
        NodeKind::CharDevice(_) | NodeKind::Whiteout => (0o020_000, 3),
        NodeKind::BlockDevice(_) => (0o060_000, 4),
        NodeKind::Fifo => (0o010_000, 5),
        NodeKind::Symlink(_) => (0o120_000, 7),
    }
}

fn all_xattrs(node: &Node) -> impl Iterator<Item = (u8, &[u8], &[u8])> {
    let own = node.xattrs.iter().map(|Xattr { namespace, name, value }| (*namespace, &**name, &**value));
    let opaque: Option<(u8, &[u8], &[u8])> = node.opaque.then_some((TRUSTED, b"overlay.opaque", b"y"));
    own.chain(opaque)
}

fn xattr_bytes(node: &Node) -> u64 {
    let entries: usize =
        all_xattrs(node).map(|(_, name, value)| (4 + name.len() + value.len()).next_multiple_of(4)).sum();
    if entries == 0 { 0 } else { XATTR_HEADER_BYTES + entries as u64 }
}

fn write_xattrs(node: &Node, disk: &mut DiskWriter) -> Result<(), LayerError> {
    let mut bytes = Vec::new();
    for (namespace, name, value) in all_xattrs(node) {
        if bytes.is_empty() {
            bytes.resize(XATTR_HEADER_BYTES as usize, 0);
        }
        bytes.extend([u8::try_from(name.len()).map_err(|_| too_big())?, namespace]);
        bytes.extend(u16::try_from(value.len()).map_err(|_| too_big())?.to_le_bytes());
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    disk.write(&bytes)
}

fn blocks(bytes: u64) -> Result<u32, LayerError> {
    u32::try_from(bytes.div_ceil(BLOCK)).map_err(|_| too_big())
}

fn too_big() -> LayerError {
    LayerError::limit("the disk", "what its filesystem can address")
}

/// `struct erofs_super_block`, 128 bytes.
fn superblock(meta_block: u32, blocks: u32, inodes: u64, root_nid: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    bytes.extend(0xE0F5_E1E2_u32.to_le_bytes());
    bytes.extend([0; 8]); // no checksum, no compatible features
    bytes.extend([12, 0]); // 2^12 bytes a block, no extension slots
    bytes.extend(u16::try_from(root_nid).unwrap_or_default().to_le_bytes());
    bytes.extend(inodes.to_le_bytes());
    bytes.extend([0; 12]); // time of the build: equal archives give equal disks
    bytes.extend(blocks.to_le_bytes());
    bytes.extend(meta_block.to_le_bytes());
    bytes.resize(128, 0); // no shared attributes, no id, no name, no incompatible features
    bytes
}
