//! Writing the disk: contents as the layers are read, then the inodes of what the merged tree still has.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use rustix::fs::FallocateFlags;

use super::erofs::{
    BLOCK, Dirent, INODE_SIZE, Inode, Layout, SLOT, SUPER_OFFSET, Superblock, device_number, encode_dirents,
    encode_xattrs, mode, split_dirents,
};
use super::tree::{Content, NodeId, Tree};
use crate::image::error::{Error, Result};
use crate::image::layer::{Kind, LayerReader};

/// Metadata is written in small pieces, contents in chunks larger than this.
const BUFFER: usize = 64 * 1024;

/// A disk in the making.
pub(super) struct Builder {
    output: BufWriter<File>,
    position: u64,
    tree: Tree,
    /// The root of what is merged so far.
    merged: NodeId,
}

impl Builder {
    pub fn new(file: File) -> io::Result<Self> {
        let mut tree = Tree::default();
        let merged = tree.add_root();
        let mut builder = Self { output: BufWriter::with_capacity(BUFFER, file), position: 0, tree, merged };
        // The superblock's block; it is filled in at the end.
        builder.write(&[0; BLOCK as usize])?;
        Ok(builder)
    }

    /// Reads the next layer: its contents go to the disk, its tree over those below. `path` is for messages.
    pub fn add_layer(&mut self, mut layer: LayerReader, path: &Path) -> Result<()> {
        let writing = || Error::io("writing the root disk", path);
        let root = self.tree.add_root();
        while let Some(entry) = layer.next()? {
            let block = self.position / BLOCK;
            if let Kind::File { .. } = entry.kind {
                loop {
                    let chunk = layer.chunk()?;
                    let length = chunk.len();
                    if length == 0 {
                        break;
                    }
                    self.write(chunk).map_err(writing())?;
                    layer.consume(length);
                }
                self.pad_to(BLOCK).map_err(writing())?;
            }
            let display = entry.display();
            self.tree.insert(root, entry, block).map_err(|reason| layer.refuse(&display, reason))?;
        }
        layer.finish()?;
        self.tree.merge(self.merged, root);
        Ok(())
    }

    /// The tree after all layers, and its root; the contents lie in the file.
    pub fn into_tree(self) -> io::Result<(Tree, NodeId)> {
        self.output.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok((self.tree, self.merged))
    }

    /// Writes the metadata of what is left after all layers, and the superblock.
    pub fn finish(mut self) -> io::Result<()> {
        let plan = Plan::new(&self.tree, self.merged, self.position / BLOCK)?;
        for placed in &plan.order {
            self.write_inode(placed, &plan)?;
        }
        self.pad_to(BLOCK)?;
        for placed in &plan.order {
            if placed.blocks > 0 {
                self.write_directory_blocks(placed, &plan)?;
            }
        }
        let superblock = Superblock {
            root: u16::try_from(plan.order[0].nid).map_err(io::Error::other)?,
            inodes: plan.order.len() as u64,
            blocks: block_number(self.position / BLOCK)?,
            metadata_block: block_number(plan.metadata_block)?,
        };
        let mut file = self.output.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(SUPER_OFFSET))?;
        file.write_all(&superblock.encode())?;
        give_back(&file, &self.tree, &plan);
        Ok(())
    }

    fn write_inode(&mut self, placed: &Placed, plan: &Plan) -> io::Result<()> {
        let at = plan.metadata_block * BLOCK + placed.nid * SLOT;
        self.write_zeros(at - self.position)?;
        let node = &self.tree.nodes[placed.node];
        let xattrs = encode_xattrs(&node.metadata.xattrs).unwrap_or_default();
        let inode = Inode {
            layout: if placed.tail.is_some() { Layout::Inline } else { Layout::Plain },
            xattr_size: xattrs.len() as u64,
            mode: match node.content {
                // On Linux the permissions of a link are never asked for and always shown so (symlink(7)).
                Content::Symlink(_) => mode::SYMLINK | 0o777,
                _ => node_mode(&node.content) | node.metadata.mode,
            },
            size: placed.size,
            location: match node.content {
                Content::Device { major, minor, .. } => device_number(major, minor),
                Content::File { block, .. } => block_number(block)?,
                _ => block_number(placed.first_block)?,
            },
            // Only 32-bit programs see it; the kernel makes st_ino of the nid.
            number: placed.nid as u32,
            links: placed.links,
            metadata: &node.metadata,
        };
        let inode = inode.encode();
        let tail = match (&node.content, &placed.tail) {
            (Content::Symlink(target), Some(_)) => target.clone(),
            (Content::Directory(_), Some((from, to))) => {
                encode_dirents(&plan.dirents(&self.tree, placed)[*from..*to])
            }
            _ => Vec::new(),
        };
        self.write(&inode)?;
        self.write(&xattrs)?;
        self.write(&tail)
    }

    fn write_directory_blocks(&mut self, placed: &Placed, plan: &Plan) -> io::Result<()> {
        let bytes = if let Content::Symlink(target) = &self.tree.nodes[placed.node].content {
            vec![target.clone()]
        } else {
            let dirents = plan.dirents(&self.tree, placed);
            let mut rest = &dirents[..];
            let mut bytes = Vec::new();
            for (count, _) in split_dirents(dirents.iter().map(|entry| entry.name)) {
                let (block, behind) = rest.split_at(count);
                rest = behind;
                bytes.push(encode_dirents(block));
            }
            bytes.truncate(placed.blocks as usize);
            bytes
        };
        for block in bytes {
            self.write(&block)?;
            self.pad_to(BLOCK)?;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.position += bytes.len() as u64;
        self.output.write_all(bytes)
    }

    fn pad_to(&mut self, alignment: u64) -> io::Result<()> {
        self.write_zeros(self.position.next_multiple_of(alignment) - self.position)
    }

    fn write_zeros(&mut self, count: u64) -> io::Result<()> {
        const ZEROS: [u8; BLOCK as usize] = [0; BLOCK as usize];
        let mut left = count as usize;
        while left > 0 {
            let now = left.min(ZEROS.len());
            self.write(&ZEROS[..now])?;
            left -= now;
        }
        Ok(())
    }
}

/// Contents that no name leads to any more (an upper layer replaced them) take no room on the host's disk.
fn give_back(file: &File, tree: &Tree, plan: &Plan) {
    for (id, node) in tree.nodes.iter().enumerate() {
        if let Content::File { size, block } = node.content
            && size > 0
            && !plan.places.contains_key(&id)
        {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            // Room is all that is lost where the file system cannot do it.
            let _ = rustix::fs::fallocate(file, flags, block * BLOCK, size.next_multiple_of(BLOCK));
        }
    }
}

/// Where everything goes.
struct Plan {
    metadata_block: u64,
    /// In the order of their places; the root first.
    order: Vec<Placed>,
    /// The place of a node in `order`.
    places: HashMap<NodeId, usize>,
}

struct Placed {
    node: NodeId,
    parent: NodeId,
    nid: u64,
    links: u32,
    size: u64,
    /// A directory's (or a long link's) blocks outside the metadata area.
    blocks: u64,
    first_block: u64,
    /// For a directory: which of its entries lie behind the inode.
    tail: Option<(usize, usize)>,
}

impl Plan {
    fn new(tree: &Tree, root: NodeId, metadata_block: u64) -> io::Result<Self> {
        let mut plan = Self { metadata_block, order: Vec::new(), places: HashMap::new() };
        plan.visit(tree, root);
        // The first slots stay empty: a nid of 0 would be an inode number of 0, which readdir(3) takes for none.
        let mut at = INODE_SIZE;
        for placed in &mut plan.order {
            let node = &tree.nodes[placed.node];
            let xattrs = encode_xattrs(&node.metadata.xattrs)
                .ok_or_else(|| io::Error::other("a file has more extended attributes than EROFS can hold"))?;
            let head = INODE_SIZE + xattrs.len() as u64;
            placed.layout(tree, head);
            let tail = if placed.tail.is_some() { placed.size % BLOCK } else { 0 };
            // The kernel reads a tail from one block ("inline data cross block boundary", fs/erofs/data.c).
            if at % BLOCK + head + tail > BLOCK && tail > 0 {
                at = at.next_multiple_of(BLOCK);
            }
            placed.nid = at / SLOT;
            at = (at + head + tail).next_multiple_of(SLOT);
        }
        let mut block = metadata_block + at.div_ceil(BLOCK);
        for placed in &mut plan.order {
            placed.first_block = block;
            block += placed.blocks;
        }
        Ok(plan)
    }

    /// Gives every node that has a name its turn: a directory's children together, for they are looked up together.
    fn visit(&mut self, tree: &Tree, root: NodeId) {
        let mut pending = vec![(root, root)];
        self.place(root, root);
        while let Some((directory, _)) = pending.pop() {
            let Some(content) = tree.directory(directory) else { continue };
            for &child in content.entries.values() {
                if let Some(&at) = self.places.get(&child) {
                    self.order[at].links += 1;
                    continue;
                }
                self.place(child, directory);
                if tree.directory(child).is_some() {
                    let above = self.places[&directory];
                    self.order[above].links += 1;
                    pending.push((child, directory));
                }
            }
        }
    }

    fn place(&mut self, node: NodeId, parent: NodeId) {
        self.places.insert(node, self.order.len());
        let placed =
            Placed { node, parent, nid: 0, links: 1, size: 0, blocks: 0, first_block: 0, tail: None };
        self.order.push(placed);
    }

    /// A directory's entries with `.` and `..`, in the order of their bytes, which the kernel searches by halves.
    fn dirents<'a>(&self, tree: &'a Tree, placed: &Placed) -> Vec<Dirent<'a>> {
        let dirent = |name, node: NodeId| Dirent {
            name,
            nid: self.order[self.places[&node]].nid,
            mode: node_mode(&tree.nodes[node].content),
        };
        let mut dirents = vec![dirent(&b"."[..], placed.node), dirent(&b".."[..], placed.parent)];
        if let Some(directory) = tree.directory(placed.node) {
            dirents.extend(directory.entries.iter().map(|(name, &node)| dirent(&name[..], node)));
        }
        dirents.sort_unstable_by_key(|entry| entry.name);
        dirents
    }
}

impl Placed {
    /// Decides how much data there is and whether its tail lies behind the inode, whose own size is `head`.
    fn layout(&mut self, tree: &Tree, head: u64) {
        match &tree.nodes[self.node].content {
            Content::Directory(directory) => {
                // Its own name, besides that in its parent.
                self.links += 1;
                let mut names: Vec<&[u8]> = directory.entries.keys().map(Vec::as_slice).collect();
                names.extend([&b"."[..], b".."]);
                names.sort_unstable();
                let blocks = split_dirents(names.iter().copied());
                let (in_tail, tail) = blocks[blocks.len() - 1];
                self.size = (blocks.len() as u64 - 1) * BLOCK + tail as u64;
                self.blocks = blocks.len() as u64;
                if head + (tail as u64) <= BLOCK && (tail as u64) < BLOCK {
                    self.blocks -= 1;
                    self.tail = Some((names.len() - in_tail, names.len()));
                }
            }
            Content::Symlink(target) => {
                self.size = target.len() as u64;
                if head + self.size <= BLOCK {
                    self.tail = Some((0, 0));
                } else {
                    self.blocks = 1;
                }
            }
            Content::File { size, .. } => self.size = *size,
            Content::Device { .. } | Content::Fifo | Content::Whiteout => {}
        }
    }
}

pub(super) fn node_mode(content: &Content) -> u16 {
    match content {
        Content::Directory(_) => mode::DIRECTORY,
        Content::File { .. } => mode::REGULAR,
        Content::Symlink(_) => mode::SYMLINK,
        Content::Device { block: true, .. } => mode::BLOCK,
        Content::Device { block: false, .. } | Content::Whiteout => mode::CHARACTER,
        Content::Fifo => mode::FIFO,
    }
}

fn block_number(block: u64) -> io::Result<u32> {
    u32::try_from(block).map_err(|_| io::Error::other("the image has more than 16 TiB"))
}
