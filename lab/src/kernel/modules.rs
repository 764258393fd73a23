//! Modules of a distribution's kernel: which files, in which order, and their bytes.
//!
//! A package that is only unpacked has no `modules.dep`, which `depmod(8)` writes when one is installed. What depmod reads
//! is in the modules themselves: the section `.modinfo`, NUL-terminated `key=value` words, of which `depends=` names the
//! modules that must be loaded before this one. `modules.builtin` names those that need no loading.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use elf::ElfBytes;
use elf::endian::LittleEndian;

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
    "virtiofs",
    "virtio_net",
    "vmw_vsock_virtio_transport",
];

/// No module is that big; a file that unpacks to more is damaged.
const MAX_MODULE: u64 = 64 << 20;

/// What a kernel offers as modules, and what it has built in.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// From a module's name to its file.
    files: HashMap<String, PathBuf>,
    builtin: Vec<String>,
}

impl Index {
    /// Looks through a module folder (`lib/modules/RELEASE`).
    pub(super) fn read(folder: &Path) -> Result<Self, Error> {
        let builtin = folder.join("modules.builtin");
        let builtin = fs::read_to_string(&builtin).map_err(Error::file("read", &builtin))?;
        let mut files = HashMap::new();
        find(&folder.join("kernel"), &mut files)?;
        Ok(Self { files, builtin: builtin.lines().map(name_of).collect() })
    }

    /// These modules and all that they need, each after what it needs, by name and decompressed. A module that is built
    /// in, or that this kernel has not, is passed over; [`Index::has`] tells.
    pub(super) fn load_order(&self, names: &[&str]) -> Result<Vec<Module>, Error> {
        let mut order = Vec::new();
        let mut seen = HashSet::new();
        for name in names {
            self.add(canonical(name), &mut seen, &mut order)?;
        }
        Ok(order)
    }

    fn add(&self, name: String, seen: &mut HashSet<String>, order: &mut Vec<Module>) -> Result<(), Error> {
        let Some(file) = self.files.get(&name) else { return Ok(()) };
        // Marked before what it needs is looked at: a circle, which only a damaged package can have, ends.
        if !seen.insert(name.clone()) {
            return Ok(());
        }
        let bytes = read(file)?;
        for needed in depends(&bytes).map_err(Error::file("read the section .modinfo of", file))? {
            self.add(needed, seen, order)?;
        }
        order.push(Module { name, bytes });
        Ok(())
    }

    /// Whether the kernel can do what this module is for.
    pub(super) fn has(&self, name: &str) -> bool {
        let name = canonical(name);
        self.files.contains_key(&name) || self.builtin.contains(&name)
    }
}

/// A module, ready to be loaded.
#[derive(Debug)]
pub(super) struct Module {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

fn find(folder: &Path, files: &mut HashMap<String, PathBuf>) -> Result<(), Error> {
    for entry in fs::read_dir(folder).map_err(Error::file("read the folder", folder))? {
        let entry = entry.map_err(Error::file("read the folder", folder))?;
        let path = entry.path();
        // Not through links: `build` and `source` lead out of the folder.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            find(&path, files)?;
        } else if let Some(name) = path.file_name().and_then(|name| name.to_str())
            && name.contains(".ko")
        {
            files.insert(name_of(name), path);
        }
    }
    Ok(())
}

/// The names of the modules that this one says it needs.
fn depends(module: &[u8]) -> io::Result<Vec<String>> {
    let elf = ElfBytes::<LittleEndian>::minimal_parse(module).map_err(io::Error::other)?;
    let section = elf.section_header_by_name(".modinfo").map_err(io::Error::other)?;
    let Some(section) = section else { return Ok(Vec::new()) };
    let (words, _) = elf.section_data(&section).map_err(io::Error::other)?;
    Ok(words
        .split(|&byte| byte == 0)
        .filter_map(|word| std::str::from_utf8(word.strip_prefix(b"depends=")?).ok())
        .flat_map(|names| names.split(','))
        .filter(|name| !name.is_empty())
        .map(canonical)
        .collect())
}

/// `kernel/drivers/virtio/virtio-ring.ko.xz` is the module `virtio_ring`.
fn name_of(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    canonical(name.split(".ko").next().unwrap_or(name))
}

/// The kernel takes hyphens and underscores in module names as the same.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// The bytes of a module, decompressed as its file's name says.
fn read(path: &Path) -> Result<Vec<u8>, Error> {
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

    /// A module folder in which each module has the section `.modinfo` that says what it needs.
    fn folder(modules: &[(&str, &str)], builtin: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("modules.builtin"), builtin).unwrap();
        for (file, needs) in modules {
            let path = folder.path().join("kernel").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, module(needs)).unwrap();
        }
        folder
    }

    /// The smallest relocatable ELF file with a `.modinfo`: header, the section's bytes, the names of sections, and three
    /// section headers (elf(5)).
    fn module(needs: &str) -> Vec<u8> {
        let info = format!("license=GPL\0depends={needs}\0");
        let names = "\0.modinfo\0.shstrtab\0";
        let (info_at, names_at) = (64, 64 + info.len() as u64);
        let table = (names_at + names.len() as u64).next_multiple_of(8);
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        for half in [1_u16, 62] {
            file.extend(half.to_le_bytes());
        }
        file.extend(1_u32.to_le_bytes());
        for long in [0, 0, table] {
            file.extend(long.to_le_bytes());
        }
        file.extend(0_u32.to_le_bytes());
        for half in [64_u16, 0, 0, 64, 3, 2] {
            file.extend(half.to_le_bytes());
        }
        file.extend(info.as_bytes());
        file.extend(names.as_bytes());
        file.resize(table as usize, 0);
        let sections = [(0_u32, 0_u32, 0, 0), (1, 1, info_at, info.len()), (10, 3, names_at, names.len())];
        for (name, kind, at, len) in sections {
            file.extend(name.to_le_bytes());
            file.extend(kind.to_le_bytes());
            for long in [0, 0, at, len as u64] {
                file.extend(long.to_le_bytes());
            }
            file.extend([0; 8]);
            for long in [1_u64, 0] {
                file.extend(long.to_le_bytes());
            }
        }
        file
    }

    fn names(order: &[Module]) -> Vec<&str> {
        order.iter().map(|module| module.name.as_str()).collect()
    }

    const VIRTIO: &[(&str, &str)] = &[
        ("drivers/virtio/virtio.ko", ""),
        ("drivers/virtio/virtio_ring.ko", "virtio"),
        ("drivers/virtio/virtio_mmio.ko", "virtio_ring,virtio"),
        ("drivers/block/virtio_blk.ko", "virtio-ring,virtio"),
        ("drivers/char/hw_random/virtio-rng.ko", "virtio"),
        ("a.ko", "b"),
        ("b.ko", "a"),
    ];

    #[test]
    fn every_module_comes_after_what_it_needs_and_only_once() {
        let folder = folder(VIRTIO, "");
        let index = Index::read(folder.path()).unwrap();
        let order = index.load_order(&["virtio_blk", "virtio_mmio", "virtio_rng"]).unwrap();
        assert_eq!(names(&order), ["virtio", "virtio_ring", "virtio_blk", "virtio_mmio", "virtio_rng"]);
    }

    #[test]
    fn what_is_built_in_needs_no_loading() {
        let folder = folder(VIRTIO, "kernel/fs/ext4/ext4.ko\n");
        let index = Index::read(folder.path()).unwrap();
        assert!(index.has("ext4") && index.has("virtio-blk") && !index.has("erofs"));
        assert!(index.load_order(&["ext4", "erofs"]).unwrap().is_empty());
    }

    #[test]
    fn a_circle_in_a_damaged_package_ends() {
        let folder = folder(VIRTIO, "");
        assert_eq!(Index::read(folder.path()).unwrap().load_order(&["a"]).unwrap().len(), 2);
    }

    #[test]
    fn a_module_that_is_no_elf_file_is_told_with_its_name() {
        let folder = folder(VIRTIO, "");
        fs::write(folder.path().join("kernel/b.ko"), "no module").unwrap();
        let error = Index::read(folder.path()).unwrap().load_order(&["a"]).unwrap_err().to_string();
        assert!(error.contains(".modinfo") && error.contains("b.ko"), "{error}");
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
