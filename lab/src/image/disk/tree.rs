//! File trees in memory: one for each layer as its archive says it, and the merged one as overlay would show it.
//!
//! A layer's tree obeys the same rules as its directory on disk (`unpack`): paths are resolved inside the layer, links
//! included, and the last entry of a name stands. Files' contents are not here, only where they lie on the disk.

use std::collections::{BTreeMap, VecDeque};

use crate::image::layer::{Entry, Kind, Metadata};

/// The kernel follows so many symbolic links in one path (`path_resolution(7)`).
const MOST_LINKS: u32 = 40;
/// Deeper than any path that the kernel takes: 4096 bytes, two a level. Bounds recursion, too.
const DEEPEST: usize = 2048;

/// More than any image has; each costs memory here, and an archive can list a million in a few kilobytes.
const MOST_NODES: usize = 4 << 20;

/// Names one node of [`Tree`].
pub(super) type NodeId = usize;

#[derive(Debug)]
pub(super) struct Node {
    pub metadata: Metadata,
    pub content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    Directory(Directory),
    File { size: u64, block: u64 },
    Symlink(Vec<u8>),
    Device { block: bool, major: u32, minor: u32 },
    Fifo,
    Whiteout,
}

#[derive(Debug, Default)]
pub(super) struct Directory {
    pub entries: BTreeMap<Vec<u8>, NodeId>,
    /// Nothing of the lower layers' directory shines through.
    opaque: bool,
    /// No further than the parent of the whole tree.
    parent: NodeId,
}

/// All layers' nodes. Hard links are several names of one node.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub nodes: Vec<Node>,
}

impl Tree {
    /// Begins a layer: its root.
    pub fn add_root(&mut self) -> NodeId {
        let root = self.nodes.len();
        self.add(
            Metadata::implied_directory(),
            Content::Directory(Directory { parent: root, ..Directory::default() }),
        )
    }

    fn add(&mut self, metadata: Metadata, content: Content) -> NodeId {
        self.nodes.push(Node { metadata, content });
        self.nodes.len() - 1
    }

    pub fn directory(&self, id: NodeId) -> Option<&Directory> {
        match &self.nodes[id].content {
            Content::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    fn directory_mut(&mut self, id: NodeId) -> Option<&mut Directory> {
        match &mut self.nodes[id].content {
            Content::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    /// Adds an entry to the layer that begins at `root`. A file's content begins at `block`.
    pub fn insert(&mut self, root: NodeId, entry: Entry, block: u64) -> Result<(), &'static str> {
        if self.nodes.len() > MOST_NODES {
            return Err("the image has more than four million files");
        }
        let mut parts: Vec<&[u8]> =
            entry.path.split(|&byte| byte == b'/').filter(|part| !part.is_empty()).collect();
        if entry.kind == Kind::Opaque || parts.is_empty() {
            let directory = self.enter(root, &parts)?;
            match entry.kind {
                Kind::Opaque => self.directory_mut(directory).ok_or("it is no directory")?.opaque = true,
                _ => self.nodes[directory].metadata = entry.metadata,
            }
            return Ok(());
        }
        let name = parts.pop().unwrap_or_default();
        let parent = self.enter(root, &parts)?;
        let existing = self.directory(parent).and_then(|directory| directory.entries.get(name)).copied();
        let node = match entry.kind {
            Kind::Directory => match existing.map(|id| (id, &self.nodes[id].content)) {
                Some((id, Content::Directory(_))) => {
                    self.nodes[id].metadata = entry.metadata;
                    return Ok(());
                }
                found => {
                    let opaque = matches!(found, Some((_, Content::Whiteout)));
                    let directory = Directory { opaque, parent, ..Directory::default() };
                    self.add(entry.metadata, Content::Directory(directory))
                }
            },
            Kind::Whiteout => match existing {
                None => self.add(entry.metadata, Content::Whiteout),
                // It hides what the lower layers have, not what this layer has.
                Some(id) => {
                    if let Some(directory) = self.directory_mut(id) {
                        directory.opaque = true;
                    }
                    return Ok(());
                }
            },
            Kind::HardLink { target } => self.link_target(root, &target)?,
            Kind::File { size } => self.add(entry.metadata, Content::File { size, block }),
            Kind::Symlink { target } => self.add(entry.metadata, Content::Symlink(target)),
            Kind::Device { block, major, minor } => {
                self.add(entry.metadata, Content::Device { block, major, minor })
            }
            Kind::Fifo => self.add(entry.metadata, Content::Fifo),
            Kind::Opaque => return Ok(()),
        };
        self.directory_mut(parent).ok_or("it has no parent")?.entries.insert(name.to_vec(), node);
        Ok(())
    }

    fn link_target(&self, root: NodeId, target: &[u8]) -> Result<NodeId, &'static str> {
        const MISSING: &str = "its hard link's target is not in this layer";
        let mut parts: Vec<&[u8]> = target.split(|&byte| byte == b'/').collect();
        let name = parts.pop().unwrap_or_default();
        let Walk::At(parent) = self.walk(root, &parts)? else { return Err(MISSING) };
        let id = self.directory(parent).and_then(|directory| directory.entries.get(name)).ok_or(MISSING)?;
        match self.nodes[*id].content {
            Content::Directory(_) => Err("it is a hard link to a directory"),
            _ => Ok(*id),
        }
    }

    /// The directory at a path, made where the archive does not list it.
    fn enter(&mut self, root: NodeId, parts: &[&[u8]]) -> Result<NodeId, &'static str> {
        if parts.len() > DEEPEST {
            return Err("it is nested too deeply");
        }
        for made in 0..=parts.len() {
            let (above, name) = match self.walk(root, parts)? {
                Walk::At(directory) => return Ok(directory),
                Walk::Lacks { parts: left } if made < parts.len() => {
                    let here = parts.len() - left;
                    let Walk::At(above) = self.walk(root, &parts[..here])? else { break };
                    (above, parts[here])
                }
                Walk::Lacks { .. } => break,
            };
            let Some(directory) = self.directory(above) else { break };
            let opaque = match directory.entries.get(name).map(|&id| &self.nodes[id].content) {
                None => false,
                Some(Content::Whiteout) => true,
                Some(_) => break,
            };
            let new = Directory { opaque, parent: above, ..Directory::default() };
            let new = self.add(Metadata::implied_directory(), Content::Directory(new));
            if let Some(directory) = self.directory_mut(above) {
                directory.entries.insert(name.to_vec(), new);
            }
        }
        Err("its path leads through something that is no directory")
    }

    /// Follows a path, links included, as `openat2(2)` does with `RESOLVE_IN_ROOT`: `/` and `..` never leave the layer.
    fn walk(&self, root: NodeId, parts: &[&[u8]]) -> Result<Walk, &'static str> {
        let mut here = root;
        let mut links = 0;
        for (at, part) in parts.iter().enumerate() {
            let mut pending = VecDeque::from([part.to_vec()]);
            while let Some(part) = pending.pop_front() {
                let Some(directory) = self.directory(here) else {
                    return Ok(Walk::Lacks { parts: parts.len() - at });
                };
                match &part[..] {
                    b"" | b"." => continue,
                    b".." => {
                        here = if here == root { root } else { directory.parent };
                        continue;
                    }
                    _ => {}
                }
                let Some(&next) = directory.entries.get(&part) else {
                    return Ok(Walk::Lacks { parts: parts.len() - at });
                };
                let Content::Symlink(target) = &self.nodes[next].content else {
                    here = next;
                    continue;
                };
                links += 1;
                if links > MOST_LINKS {
                    return Err("its path leads through too many links");
                }
                if target.starts_with(b"/") {
                    here = root;
                }
                for part in target.rsplit(|&byte| byte == b'/') {
                    pending.push_front(part.to_vec());
                }
            }
            if self.directory(here).is_none() {
                return Ok(Walk::Lacks { parts: parts.len() - at });
            }
        }
        Ok(Walk::At(here))
    }

    /// Lays the tree at `upper` over the one at `lower`, as overlay shows them (Documentation/filesystems/overlayfs.rst).
    pub fn merge(&mut self, lower: NodeId, upper: NodeId) {
        let mut pending = vec![(lower, upper)];
        while let Some((lower, upper)) = pending.pop() {
            let (entries, opaque) = match &mut self.nodes[upper].content {
                Content::Directory(directory) => (std::mem::take(&mut directory.entries), directory.opaque),
                _ => continue,
            };
            self.nodes[lower].metadata = self.nodes[upper].metadata.clone();
            if opaque && let Some(directory) = self.directory_mut(lower) {
                directory.entries.clear();
            }
            for (name, new) in entries {
                let old = self.directory(lower).and_then(|directory| directory.entries.get(&name)).copied();
                match (&self.nodes[new].content, old) {
                    (Content::Directory(_), Some(old)) if self.directory(old).is_some() => {
                        pending.push((old, new));
                    }
                    (Content::Whiteout, _) => {
                        if let Some(directory) = self.directory_mut(lower) {
                            directory.entries.remove(&name);
                        }
                    }
                    _ => {
                        if let Some(directory) = self.directory_mut(lower) {
                            directory.entries.insert(name, new);
                        }
                        // It may have whiteouts inside, which now have nothing to hide.
                        if self.directory(new).is_some() {
                            self.drop_whiteouts(new);
                        }
                    }
                }
            }
        }
    }

    fn drop_whiteouts(&mut self, root: NodeId) {
        let mut pending = vec![root];
        while let Some(id) = pending.pop() {
            let Some(directory) = self.directory(id) else { continue };
            let whiteouts: Vec<Vec<u8>> = directory
                .entries
                .iter()
                .filter(|(_, child)| matches!(self.nodes[**child].content, Content::Whiteout))
                .map(|(name, _)| name.clone())
                .collect();
            pending.extend(directory.entries.values().filter(|child| self.directory(**child).is_some()));
            if let Some(directory) = self.directory_mut(id) {
                for name in whiteouts {
                    directory.entries.remove(&name);
                }
            }
        }
    }
}

enum Walk {
    At(NodeId),
    /// So many parts at the path's end could not be entered.
    Lacks {
        parts: usize,
    },
}
