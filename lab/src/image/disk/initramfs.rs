//! The same tree as an initramfs: the archive that a kernel unpacks into its first root file system ("newc",
//! Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt as _;

use super::erofs::BLOCK;
use super::tree::{Content, NodeId, Tree};
use super::writer::{Builder, node_mode};
use crate::image::config::Image;
use crate::image::error::{Error, Result};
use crate::image::layer::{LayerReader, Metadata};
use crate::image::progress::Progress;
use crate::image::store::Store;

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
/// The kernel opens it for process 1 (Documentation/admin-guide/devices.txt: 5, 1).
const CONSOLE: (u32, u32) = (5, 1);

impl Store {
    /// Writes the image's files, and beside them a folder with some of our own.
    pub(in crate::image) fn initramfs(
        &self,
        image: &Image,
        folder: &str,
        own: &[(&str, &[u8])],
        output: &File,
        progress: &dyn Progress,
    ) -> Result<()> {
        let place = self.path("tmp");
        let making = || Error::io("making an initramfs in", &place);
        let contents = tempfile::tempfile_in(&place).map_err(making())?;
        let mut builder = Builder::new(contents.try_clone().map_err(making())?).map_err(making())?;
        for layer in image.layers() {
            let blob = self.open_blob(layer.blob, "a layer")?;
            let step = progress.begin(&format!("files of {}", &layer.diff_id.hex()[..12]), Some(layer.size));
            builder.add_layer(LayerReader::new(blob, layer.blob, layer.diff_id, step), &place)?;
        }
        let (tree, root) = builder.into_tree().map_err(making())?;
        write(&tree, root, &contents, folder, own, output).map_err(making())
    }
}

fn write(
    tree: &Tree,
    root: NodeId,
    contents: &File,
    folder: &str,
    own: &[(&str, &[u8])],
    output: &File,
) -> io::Result<()> {
    let mut archive = Archive {
        output: BufWriter::with_capacity(1 << 20, output),
        written: 0,
        inode: 0,
        seen: HashMap::new(),
    };
    let mut pending = vec![(Vec::new(), root)];
    while let Some((path, node)) = pending.pop() {
        let Some(directory) = tree.directory(node) else { continue };
        for (name, &child) in &directory.entries {
            let mut below = path.clone();
            if !below.is_empty() {
                below.push(b'/');
            }
            below.extend(name);
            archive.node(&below, tree, child, contents)?;
            pending.push((below, child));
        }
    }
    let plain = Metadata::implied_directory();
    archive.entry(folder.as_bytes(), DIRECTORY, &plain, 2, (0, 0), &[])?;
    for (name, bytes) in own {
        archive.entry(format!("{folder}/{name}").as_bytes(), PROGRAM, &plain, 1, (0, 0), bytes)?;
    }
    archive.entry(b"dev", DIRECTORY, &plain, 2, (0, 0), &[])?;
    archive.entry(b"dev/console", 0o020_600, &plain, 1, CONSOLE, &[])?;
    archive.entry(b"TRAILER!!!", 0, &plain, 1, (0, 0), &[])?;
    archive.output.flush()
}

struct Archive<'a> {
    output: BufWriter<&'a File>,
    written: u64,
    inode: u32,
    /// Files of several names, by the inode that their first entry was given.
    seen: HashMap<NodeId, u32>,
}

impl Archive<'_> {
    fn node(&mut self, path: &[u8], tree: &Tree, id: NodeId, contents: &File) -> io::Result<()> {
        let node = &tree.nodes[id];
        let mode = u32::from(node_mode(&node.content)) | u32::from(node.metadata.mode);
        match &node.content {
            Content::Directory(_) => self.entry(path, mode, &node.metadata, 2, (0, 0), &[]),
            Content::Symlink(target) => self.entry(path, mode | 0o777, &node.metadata, 1, (0, 0), target),
            Content::Device { major, minor, .. } => {
                self.entry(path, mode, &node.metadata, 1, (*major, *minor), &[])
            }
            Content::Fifo => self.entry(path, mode, &node.metadata, 1, (0, 0), &[]),
            Content::Whiteout => Ok(()),
            Content::File { size, block } => {
                // The kernel looks for an earlier name only where there are said to be several; it is no harm to say so.
                if let Some(&inode) = self.seen.get(&id) {
                    return self.header(path, mode, &node.metadata, (inode, 2), (0, 0), 0);
                }
                self.inode += 1;
                self.seen.insert(id, self.inode);
                self.header(path, mode, &node.metadata, (self.inode, 2), (0, 0), *size)?;
                let (mut at, mut left) = (block * BLOCK, *size);
                let mut chunk = vec![0; 256 << 10];
                while left > 0 {
                    let now = left.min(chunk.len() as u64) as usize;
                    contents.read_exact_at(&mut chunk[..now], at)?;
                    self.bytes(&chunk[..now])?;
                    (at, left) = (at + now as u64, left - now as u64);
                }
                self.pad()
            }
        }
    }

    fn entry(
        &mut self,
        path: &[u8],
        mode: u32,
        metadata: &Metadata,
        links: u32,
        device: (u32, u32),
        content: &[u8],
    ) -> io::Result<()> {
        self.inode += 1;
        self.header(path, mode, metadata, (self.inode, links), device, content.len() as u64)?;
        self.bytes(content)?;
        self.pad()
    }

    /// Thirteen numbers of eight hexadecimal digits, then the name with its NUL.
    fn header(
        &mut self,
        path: &[u8],
        mode: u32,
        metadata: &Metadata,
        (inode, links): (u32, u32),
        device: (u32, u32),
        size: u64,
    ) -> io::Result<()> {
        let size = u32::try_from(size).map_err(|_| io::Error::other("a file has more than 4 GiB"))?;
        let time = u32::try_from(metadata.mtime.0).unwrap_or(0);
        let name = path.len() as u32 + 1;
        let numbers =
            [inode, mode, metadata.uid, metadata.gid, links, time, size, 0, 0, device.0, device.1, name, 0];
        self.bytes(b"070701")?;
        for number in numbers {
            self.bytes(format!("{number:08x}").as_bytes())?;
        }
        self.bytes(path)?;
        self.bytes(&[0])?;
        self.pad()
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.output.write_all(bytes)
    }

    /// Names and contents begin at multiples of four.
    fn pad(&mut self) -> io::Result<()> {
        let behind = (self.written.next_multiple_of(4) - self.written) as usize;
        self.bytes(&[0; 3][..behind])
    }
}
