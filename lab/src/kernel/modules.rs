//! Modules of a distribution's kernel: which files, in which order, and their bytes.
//!
//! `modules.dep` (`depmod(8)`) has one line for each module: its file, a colon, and the files that must be loaded before
//! it; `modules.builtin` names those that need no loading.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use super::Error;

/// Drivers that a guest needs, with those that they name: bus, disk, channel, random numbers, then file systems, then
/// network and sockets.
pub(super) const FOR_GUEST: &[&str] = &[
    "virtio_mmio",
    "virtio_blk",
    "virtio_console",
    "virtio_rng",
    "erofs",
    "squashfs",
    "ext4",
    "overlay",
    "virtio_net",
    "vmw_vsock_virtio_transport",
];

/// No module is that big; a file that unpacks to more is damaged.
const MAX_MODULE: u64 = 64 << 20;

/// What a kernel offers as modules, and what it has built in.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// From a module's name to its file and those before it, all relative to the kernel's module folder.
    modules: HashMap<String, (String, Vec<String>)>,
    builtin: Vec<String>,
}

impl Index {
    /// Reads the two lists of a module folder (`lib/modules/RELEASE`).
    pub(super) fn read(folder: &Path) -> Result<Self, Error> {
        let text = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).map_err(Error::file("read", &path))
        };
        Ok(Self::parse(&text("modules.dep")?, &text("modules.builtin")?))
    }

    fn parse(dep: &str, builtin: &str) -> Self {
        let modules = dep
            .lines()
            .filter_map(|line| {
                let (file, before) = line.split_once(':')?;
                let before = before.split_whitespace().map(str::to_owned).collect();
                Some((name_of(file), (file.to_owned(), before)))
            })
            .collect();
        Self { modules, builtin: builtin.lines().map(name_of).collect() }
    }

    /// The files of these modules and of all that they need, each after what it needs. A module that is built in, or
    /// that this kernel has not, is passed over; [`Index::has`] tells.
    pub(super) fn load_order(&self, names: &[&str]) -> Vec<String> {
        let mut order = Vec::new();
        for name in names {
            self.add(name, &mut order, 0);
        }
        order
    }

    fn add(&self, name: &str, order: &mut Vec<String>, depth: usize) {
        let Some((file, before)) = self.modules.get(&canonical(name)) else { return };
        // modules.dep has no cycles; a damaged one shall not have us run in circles.
        if order.contains(file) || depth > 16 {
            return;
        }
        for needed in before {
            self.add(&name_of(needed), order, depth + 1);
        }
        if !order.contains(file) {
            order.push(file.clone());
        }
    }

    /// Whether the kernel can do what this module is for.
    pub(super) fn has(&self, name: &str) -> bool {
        let name = canonical(name);
        self.modules.contains_key(&name) || self.builtin.contains(&name)
    }
}

/// `kernel/drivers/virtio/virtio-ring.ko.xz` is the module `virtio_ring`.
pub(super) fn name_of(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    canonical(name.split(".ko").next().unwrap_or(name))
}

/// The kernel takes hyphens and underscores in module names as the same.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// The bytes of a module, decompressed as its file's name says.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let file = File::open(path).map_err(Error::file("open", path))?;
    let suffix = path.extension().and_then(|suffix| suffix.to_str()).unwrap_or_default();
    let mut bytes = Vec::new();
    let limit = MAX_MODULE + 1;
    let count = match suffix {
        "xz" => lzma_rust2::XzReader::new(file, false).take(limit).read_to_end(&mut bytes),
        "zst" => ruzstd::decoding::StreamingDecoder::new(file)
            .map_err(io::Error::other)
            .and_then(|decoder| decoder.take(limit).read_to_end(&mut bytes)),
        _ => file.take(limit).read_to_end(&mut bytes),
    }
    .map_err(Error::file("decompress", path))?;
    if count as u64 > MAX_MODULE {
        let error = io::Error::other(format!("more than {} MiB", MAX_MODULE >> 20));
        return Err(Error::file("decompress", path)(error));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "\
kernel/drivers/virtio/virtio.ko.xz:
kernel/drivers/virtio/virtio_ring.ko.xz: kernel/drivers/virtio/virtio.ko.xz
kernel/drivers/virtio/virtio_mmio.ko.xz: kernel/drivers/virtio/virtio_ring.ko.xz kernel/drivers/virtio/virtio.ko.xz
kernel/drivers/block/virtio_blk.ko.xz: kernel/drivers/virtio/virtio_ring.ko.xz kernel/drivers/virtio/virtio.ko.xz
kernel/drivers/char/hw_random/virtio-rng.ko.xz: kernel/drivers/virtio/virtio.ko.xz
kernel/a.ko: kernel/b.ko
kernel/b.ko: kernel/a.ko
";

    fn names(order: &[String]) -> Vec<String> {
        order.iter().map(|file| name_of(file)).collect()
    }

    #[test]
    fn every_module_comes_after_what_it_needs_and_only_once() {
        let index = Index::parse(DEP, "");
        let order = index.load_order(&["virtio_blk", "virtio_mmio", "virtio_rng"]);
        assert_eq!(names(&order), ["virtio", "virtio_ring", "virtio_blk", "virtio_mmio", "virtio_rng"]);
    }

    #[test]
    fn what_is_built_in_needs_no_loading() {
        let index = Index::parse(DEP, "kernel/fs/ext4/ext4.ko\n");
        assert!(index.has("ext4") && index.has("virtio-blk") && !index.has("erofs"));
        assert!(index.load_order(&["ext4", "erofs"]).is_empty());
    }

    #[test]
    fn a_circle_in_a_damaged_list_ends() {
        assert_eq!(Index::parse(DEP, "").load_order(&["a"]).len(), 2);
    }

    #[test]
    fn a_damaged_module_is_told_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["x.ko.xz", "x.ko.zst"] {
            let path = folder.path().join(name);
            fs::write(&path, "not compressed").unwrap();
            assert!(read(&path).unwrap_err().to_string().starts_with("decompress "), "{name}");
        }
        let plain = folder.path().join("x.ko");
        fs::write(&plain, "ELF").unwrap();
        assert_eq!(read(&plain).unwrap(), b"ELF");
    }
}
