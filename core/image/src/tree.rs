//! The tree that an archive describes, in memory: names, owners, modes; contents are on the disk already.
//!
//! Names are resolved inside this tree and nowhere else. A symlink in the middle of a name is followed as if the layer were
//! the root of a machine (`..` stops there, 40 links at most), which is what other engines do in a chroot; no path of this
//! machine is ever touched. A later entry of the same name wins; a directory over a directory keeps what is in it.
//!
//! Whiteouts (OCI image-spec, layer.md): `.wh.name` hides `name` of the layers below and becomes the character device 0:0
//! that overlayfs knows; `.wh..wh..opq` hides all of its directory's and becomes an attribute. They never hide what the
//! same layer brings. Missing parents are made with mode 755 and owner 0, as Docker does: a layer disk must not depend
//! on the layers below it, or images could not share it.

use crate::layer_error::{LayerError, shown};
use crate::limits::LayerLimits;
use crate::tar::Mtime;
use std::collections::{BTreeMap, VecDeque};

const COMPONENT_BYTES_MAX: usize = 255;
const LINKS_MAX: u32 = 40;
/// What a node costs beside its name, roughly.
const NODE_BYTES: u64 = 192;

pub(crate) const ROOT: u32 = 0;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes {
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Mtime,
}

/// An attribute as EROFS stores it: the namespace as a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Xattr {
    pub namespace: u8,
    pub name: Box<[u8]>,
    pub value: Box<[u8]>,
}

#[derive(Debug)]
pub(crate) enum NodeKind {
    Directory(BTreeMap<Box<[u8]>, u32>),
    File { block: u32, size: u64 },
    Symlink(Box<[u8]>),
    CharDevice(u32),
    BlockDevice(u32),
    Fifo,
    Whiteout,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub kind: NodeKind,
    pub attributes: Attributes,
    pub xattrs: Box<[Xattr]>,
    /// Hides what the layers below have in this directory.
    pub opaque: bool,
}

#[derive(Debug)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
    nodes_max: u64,
    memory: u64,
    memory_max: u64,
}

impl Tree {
    pub fn new(limits: &LayerLimits) -> Self {
        let root = implied(Mtime::default());
        Self { nodes: vec![root], nodes_max: limits.entries, memory: 0, memory_max: limits.metadata_bytes }
    }

    pub fn node(&self, id: u32) -> Option<&Node> {
        self.nodes.get(id as usize)
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Puts a node, or a whiteout, where the name says.
    pub fn insert(&mut self, path: &[u8], node: Node) -> Result<(), LayerError> {
        let parts = components(path)?;
        let Some((name, parents)) = parts.split_last() else {
            return self.set_root(node);
        };
        let mtime = node.attributes.mtime;
        match whiteout(name, parents, path)? {
            Name::Ignored => Ok(()),
            Name::Opaque => {
                let parent = self.make_directory(parents, mtime, path)?;
                self.set_opaque(parent);
                Ok(())
            }
            Name::Whiteout(hidden) => {
                let parent = self.make_directory(parents, mtime, path)?;
                self.white_out(parent, hidden, mtime)
            }
            Name::Plain => {
                let parent = self.make_directory(parents, mtime, path)?;
                self.put(parent, name, node)
            }
        }
    }

    /// Gives a file a second name.
    pub fn link(&mut self, path: &[u8], target: &[u8], mtime: Mtime) -> Result<(), LayerError> {
        let missing = || {
            let (path, target) = (shown(path), shown(target));
            LayerError::refused(format!(
                "the hard link {path} points to {target}, which is not a file of this layer"
            ))
        };
        let target_parts = components(target)?;
        let (target_name, target_parents) = target_parts.split_last().ok_or_else(missing)?;
        let parts = components(path)?;
        let (name, parents) = parts.split_last().ok_or_else(missing)?;
        match whiteout(name, parents, path)? {
            Name::Ignored => return Ok(()),
            Name::Opaque | Name::Whiteout(_) => {
                return Err(LayerError::refused(format!(
                    "the hard link {} has a whiteout's name",
                    shown(path)
                )));
            }
            Name::Plain => {}
        }
        let directory = self.walk(target_parents, None, target)?.ok_or_else(missing)?;
        let file = self.child(directory, target_name).ok_or_else(missing)?;
        match self.node(file).map(|node| &node.kind) {
            None | Some(NodeKind::Directory(_) | NodeKind::Whiteout) => return Err(missing()),
            Some(_) => {}
        }
        let parent = self.make_directory(parents, mtime, path)?;
        self.attach(parent, name, file)
    }

    fn set_root(&mut self, node: Node) -> Result<(), LayerError> {
        if !matches!(node.kind, NodeKind::Directory(_)) {
            return Err(LayerError::refused("the root of the layer is not a directory"));
        }
        self.charge(&node, 0)?;
        self.update(ROOT, node);
        Ok(())
    }

    /// New attributes for a directory that stays.
    fn update(&mut self, id: u32, new: Node) {
        if let Some(node) = self.nodes.get_mut(id as usize) {
            node.attributes = new.attributes;
            node.xattrs = new.xattrs;
        }
    }

    fn set_opaque(&mut self, id: u32) {
        if let Some(node) = self.nodes.get_mut(id as usize) {
            node.opaque = true;
        }
    }

    fn put(&mut self, parent: u32, name: &[u8], mut node: Node) -> Result<(), LayerError> {
        if matches!(node.kind, NodeKind::Directory(_))
            && let Some(old) = self.child(parent, name)
        {
            match self.node(old).map(|node| &node.kind) {
                Some(NodeKind::Directory(_)) => {
                    self.charge(&node, 0)?;
                    self.update(old, node);
                    return Ok(());
                }
                // The layer hides the old one and brings a new one: nothing of the old may shine through.
                Some(NodeKind::Whiteout) => node.opaque = true,
                _ => {}
            }
        }
        let id = self.add(node, name.len())?;
        self.attach(parent, name, id)
    }

    fn white_out(&mut self, parent: u32, hidden: &[u8], mtime: Mtime) -> Result<(), LayerError> {
        if let Some(old) = self.child(parent, hidden) {
            if matches!(self.node(old).map(|node| &node.kind), Some(NodeKind::Directory(_))) {
                self.set_opaque(old);
            }
            return Ok(());
        }
        let attributes = Attributes { mode: 0, uid: 0, gid: 0, mtime };
        let node = Node { kind: NodeKind::Whiteout, attributes, xattrs: Box::default(), opaque: false };
        let id = self.add(node, hidden.len())?;
        self.attach(parent, hidden, id)
    }

    fn child(&self, directory: u32, name: &[u8]) -> Option<u32> {
        match &self.node(directory)?.kind {
            NodeKind::Directory(children) => children.get(name).copied(),
            _ => None,
        }
    }

    fn attach(&mut self, directory: u32, name: &[u8], child: u32) -> Result<(), LayerError> {
        self.memory += name.len() as u64 + 32;
        self.check_memory()?;
        if let Some(Node { kind: NodeKind::Directory(children), .. }) = self.nodes.get_mut(directory as usize)
        {
            children.insert(name.into(), child);
        }
        Ok(())
    }

    fn add(&mut self, node: Node, name_bytes: usize) -> Result<u32, LayerError> {
        self.charge(&node, name_bytes as u64)?;
        if self.nodes.len() as u64 > self.nodes_max {
            return Err(LayerError::limit("the number of entries", self.nodes_max));
        }
        let id = u32::try_from(self.nodes.len())
            .map_err(|_| LayerError::limit("the number of entries", u32::MAX))?;
        self.nodes.push(node);
        Ok(id)
    }

    fn charge(&mut self, node: &Node, name_bytes: u64) -> Result<(), LayerError> {
        let target = if let NodeKind::Symlink(target) = &node.kind { target.len() } else { 0 };
        let xattrs: usize = node.xattrs.iter().map(|xattr| 48 + xattr.name.len() + xattr.value.len()).sum();
        self.memory += NODE_BYTES + name_bytes + target as u64 + xattrs as u64;
        self.check_memory()
    }

    fn check_memory(&self) -> Result<(), LayerError> {
        if self.memory > self.memory_max {
            return Err(LayerError::limit("the names and attributes", format!("{} bytes", self.memory_max)));
        }
        Ok(())
    }

    fn make_directory(&mut self, parts: &[&[u8]], mtime: Mtime, path: &[u8]) -> Result<u32, LayerError> {
        self.walk(parts, Some(mtime), path)?
            .ok_or_else(|| LayerError::refused(format!("the parent of {} could not be made", shown(path))))
    }

    /// Finds a directory, following symlinks; with `make`, what is missing is made with that time.
    fn walk(&mut self, parts: &[&[u8]], make: Option<Mtime>, path: &[u8]) -> Result<Option<u32>, LayerError> {
        let mut above: Vec<u32> = Vec::new();
        let mut here = ROOT;
        let mut links = 0;
        let mut pending: VecDeque<Box<[u8]>> = parts.iter().map(|&part| part.into()).collect();
        while let Some(part) = pending.pop_front() {
            match &*part {
                b"" | b"." => continue,
                b".." => {
                    here = above.pop().unwrap_or(ROOT);
                    continue;
                }
                _ => {}
            }
            let next = match self.child(here, &part) {
                None => match make {
                    None => return Ok(None),
                    Some(mtime) => self.add_implied(here, &part, mtime, false)?,
                },
                Some(id) => match self.node(id).map(|node| &node.kind) {
                    Some(NodeKind::Directory(_)) => id,
                    Some(NodeKind::Symlink(target)) => {
                        links += 1;
                        if links > LINKS_MAX {
                            return Err(LayerError::refused(format!(
                                "too many symlinks on the way to {}",
                                shown(path)
                            )));
                        }
                        if target.starts_with(b"/") {
                            above.clear();
                            here = ROOT;
                        }
                        for part in target.split(|&byte| byte == b'/').rev() {
                            pending.push_front(part.into());
                        }
                        continue;
                    }
                    Some(NodeKind::Whiteout) => match make {
                        None => return Ok(None),
                        Some(mtime) => self.add_implied(here, &part, mtime, true)?,
                    },
                    _ => {
                        return Err(LayerError::refused(format!(
                            "a parent of {} is not a directory",
                            shown(path)
                        )));
                    }
                },
            };
            above.push(here);
            here = next;
        }
        Ok(Some(here))
    }

    fn add_implied(
        &mut self,
        parent: u32,
        name: &[u8],
        mtime: Mtime,
        opaque: bool,
    ) -> Result<u32, LayerError> {
        if name.len() > COMPONENT_BYTES_MAX {
            return Err(LayerError::limit("the length of a name between slashes", COMPONENT_BYTES_MAX));
        }
        let id = self.add(Node { opaque, ..implied(mtime) }, name.len())?;
        self.attach(parent, name, id)?;
        Ok(id)
    }
}

fn implied(mtime: Mtime) -> Node {
    Node {
        kind: NodeKind::Directory(BTreeMap::new()),
        attributes: Attributes { mode: 0o755, uid: 0, gid: 0, mtime },
        xattrs: Box::default(),
        opaque: false,
    }
}

/// What the last part of a name means.
enum Name<'a> {
    Plain,
    Whiteout(&'a [u8]),
    Opaque,
    /// Bookkeeping of AUFS (`.wh..wh.plnk` and the like), which no engine unpacks.
    Ignored,
}

fn whiteout<'a>(name: &'a [u8], parents: &[&[u8]], path: &[u8]) -> Result<Name<'a>, LayerError> {
    if parents.iter().any(|part| part.starts_with(b".wh..wh.")) {
        return Ok(Name::Ignored);
    }
    if parents.iter().any(|part| part.starts_with(b".wh.")) {
        return Err(LayerError::refused(format!("{} lies below a whiteout", shown(path))));
    }
    Ok(match name.strip_prefix(b".wh.") {
        None => Name::Plain,
        Some(b".wh..opq") => Name::Opaque,
        Some(b"" | b"." | b"..") => {
            return Err(LayerError::refused(format!(
                "the whiteout {} hides nothing that can be named",
                shown(path)
            )));
        }
        Some(rest) if rest.starts_with(b".wh.") => Name::Ignored,
        Some(hidden) => Name::Whiteout(hidden),
    })
}

/// The parts of a name. An absolute one is taken relative to the layer's root; `..` is refused.
fn components(path: &[u8]) -> Result<Vec<&[u8]>, LayerError> {
    let mut parts = Vec::new();
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(LayerError::refused(format!("the name {} contains `..`", shown(path)))),
            _ if part.len() > COMPONENT_BYTES_MAX => {
                return Err(LayerError::limit("the length of a name between slashes", COMPONENT_BYTES_MAX));
            }
            _ => parts.push(part),
        }
    }
    Ok(parts)
}

/// The attributes that a layer may carry, in EROFS's numbering (`erofs_fs.h`, `EROFS_XATTR_INDEX_*`).
///
/// Other namespaces are left out, as Linux has no place for them, and so is overlayfs's own: a layer must not
/// redirect its directories into others.
pub(crate) fn keep_xattrs(given: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Box<[Xattr]>, LayerError> {
    let mut kept = Vec::new();
    for (full, value) in given {
        let (namespace, name): (u8, &[u8]) = match full.as_slice() {
            b"system.posix_acl_access" => (2, b""),
            b"system.posix_acl_default" => (3, b""),
            name => {
                if let Some(name) = name.strip_prefix(b"user.") {
                    (1, name)
                } else if let Some(name) = name.strip_prefix(b"security.") {
                    (6, name)
                } else if let Some(name) = name.strip_prefix(b"trusted.")
                    && !name.starts_with(b"overlay.")
                {
                    (4, name)
                } else {
                    continue;
                }
            }
        };
        if name.is_empty() && namespace != 2 && namespace != 3 {
            return Err(LayerError::refused(format!("the attribute {} has no name", shown(&full))));
        }
        if name.len() > COMPONENT_BYTES_MAX {
            return Err(LayerError::limit("the length of an attribute's name", COMPONENT_BYTES_MAX));
        }
        kept.push(Xattr { namespace, name: name.into(), value: value.into() });
    }
    Ok(kept.into())
}
