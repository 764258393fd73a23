//! Images made by hand: tars, the archives that hold them, and a store to load them into.

use std::fs;
use std::path::{Path, PathBuf};

use lab::image::{Digest, Image, Result, Store};
use serde_json::{Value, json};
use tar_core::{EntryBuilder, EntryType};
use tempfile::TempDir;

pub const MTIME: u64 = 1_700_000_000;

/// A tar in the making.
#[derive(Clone, Default)]
pub struct Tar(Vec<u8>);

impl Tar {
    pub fn new() -> Self {
        Self::default()
    }

    /// Any member; `change` sets what the defaults do not.
    pub fn member(
        mut self,
        path: &str,
        kind: EntryType,
        content: &[u8],
        change: impl for<'a> FnOnce(&'a mut EntryBuilder) -> &'a mut EntryBuilder,
    ) -> Self {
        let mut entry = EntryBuilder::new_ustar();
        entry.path(path).entry_type(kind);
        entry.mode(if kind == EntryType::Directory { 0o755 } else { 0o644 }).unwrap();
        entry.uid(0).unwrap().gid(0).unwrap().mtime(MTIME).unwrap().size(content.len() as u64).unwrap();
        change(&mut entry);
        self.0.extend(entry.finish_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.member(path, EntryType::Regular, content.as_ref(), |entry| entry)
    }

    pub fn dir(self, path: &str) -> Self {
        self.member(path, EntryType::Directory, b"", |entry| entry)
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.member(path, EntryType::Symlink, b"", |entry| entry.link_name(target))
    }

    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.member(path, EntryType::Link, b"", |entry| entry.link_name(target))
    }

    pub fn device(self, path: &str, kind: EntryType, major: u32, minor: u32) -> Self {
        self.member(path, kind, b"", |entry| entry.device(major, minor).unwrap())
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// An image in the making: its layers' plain tars and how its blobs are compressed.
pub struct Saved {
    pub layers: Vec<Vec<u8>>,
    pub compress: fn(&[u8]) -> Vec<u8>,
    pub architecture: &'static str,
    pub run: Value,
}

impl Saved {
    pub fn new(layers: impl IntoIterator<Item = Tar>) -> Self {
        Self {
            layers: layers.into_iter().map(Tar::finish).collect(),
            compress: <[u8]>::to_vec,
            architecture: if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" },
            run: json!({"Cmd": ["/bin/hello"], "Env": ["PATH=/bin"]}),
        }
    }

    pub fn config(&self) -> Vec<u8> {
        let diff_ids: Vec<String> = self.layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
        serde_json::to_vec(&json!({
            "architecture": self.architecture,
            "os": "linux",
            "created": "2024-01-02T03:04:05Z",
            "config": self.run,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [],
        }))
        .unwrap()
    }

    /// All blobs, the manifest last.
    pub fn blobs(&self) -> Vec<Vec<u8>> {
        let mut blobs: Vec<Vec<u8>> = self.layers.iter().map(|layer| (self.compress)(layer)).collect();
        let layers: Vec<Value> =
            blobs.iter().map(|blob| descriptor(blob, "application/vnd.oci.image.layer.v1.tar")).collect();
        let config = self.config();
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor(&config, "application/vnd.oci.image.config.v1+json"),
            "layers": layers,
        }))
        .unwrap();
        blobs.extend([config, manifest]);
        blobs
    }

    /// The descriptor of the manifest, with a name.
    pub fn described(&self, name: &str) -> Value {
        let manifest = self.blobs().pop().unwrap();
        let mut described = descriptor(&manifest, "application/vnd.oci.image.manifest.v1+json");
        described["annotations"] = json!({"io.containerd.image.name": name});
        described
    }

    /// An OCI layout in a tar.
    pub fn layout(&self, name: &str) -> Vec<u8> {
        layout(&[self.described(name)], self.blobs())
    }

    /// What `docker save` wrote until version 25.
    pub fn docker(&self, name: &str) -> Vec<u8> {
        let config = self.config();
        let config_name = format!("{}.json", Digest::of(&config).hex());
        let mut tar = Tar::new();
        let mut names: Vec<String> = Vec::new();
        for (number, layer) in self.layers.iter().enumerate() {
            let name = format!("{number:064}/layer.tar");
            let same = self.layers[..number].iter().position(|earlier| earlier == layer);
            tar = tar.dir(&format!("{number:064}/"));
            tar = tar.file(&format!("{number:064}/VERSION"), "1.0");
            tar = match same {
                // Docker stored a layer that occurs twice once.
                Some(same) => tar.symlink(&name, &format!("../{same:064}/layer.tar")),
                None => tar.file(&name, layer),
            };
            names.push(name);
        }
        let manifest = json!([{"Config": config_name, "RepoTags": [name], "Layers": names}]);
        let manifest = serde_json::to_vec(&manifest).unwrap();
        tar.file(&config_name, config).file("manifest.json", manifest).file("repositories", "{}").finish()
    }
}

/// An OCI layout in a tar, with these descriptors in its index.
pub fn layout(descriptors: &[Value], blobs: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let index = json!({"schemaVersion": 2, "manifests": descriptors});
    let mut tar = Tar::new().file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    tar = tar.file("index.json", serde_json::to_vec(&index).unwrap());
    for blob in blobs {
        tar = tar.file(&format!("blobs/sha256/{}", Digest::of(&blob).hex()), blob);
    }
    tar.finish()
}

pub fn descriptor(blob: &[u8], media_type: &str) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(blob).to_string(), "size": blob.len()})
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// A store in a folder of its own, which goes with it.
pub struct Place {
    pub folder: TempDir,
    pub store: Store,
}

impl Place {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("images")).unwrap();
        Self { folder, store }
    }

    pub fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// Loads an archive's bytes.
    pub fn load(&self, archive: &[u8]) -> Result<Vec<lab::image::Loaded>> {
        self.store.load(&self.write("archive.tar", archive), &())
    }

    /// An image of these layers, loaded.
    pub fn image(&self, layers: impl IntoIterator<Item = Tar>) -> Image {
        self.load(&Saved::new(layers).layout("test:latest")).unwrap();
        self.store.resolve("test").unwrap()
    }

    /// What a layer does when it is unpacked and when it is put on a disk: both must say the same.
    pub fn refuses(layer: Tar) -> String {
        let place = Self::new();
        let image = place.image([layer]);
        let unpacked = place.store.layer_dirs(&image, &()).unwrap_err().to_string();
        let disk = place.store.root_disk(&image, &()).unwrap_err().to_string();
        assert_eq!(unpacked, disk, "both walls refuse it for the same reason");
        assert!(!disk.contains('\n'), "{disk}");
        place.assert_nothing_half_made();
        disk
    }

    /// Neither layers nor disks nor temporary files are left.
    pub fn assert_nothing_half_made(&self) {
        for directory in ["tmp", "layers", "disks"] {
            let left: Vec<_> = entries(&self.folder.path().join("images").join(directory));
            assert!(left.is_empty(), "{directory} has {left:?}");
        }
    }

    pub fn blobs(&self) -> Vec<PathBuf> {
        entries(&self.folder.path().join("images/blobs/sha256"))
    }
}

pub fn entries(directory: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says loudly that a test did not run; where CI says that all must, that is a failure.
pub fn skip(test: &str, reason: &str) {
    use std::io::Write;
    // Not println!, which the test harness keeps to itself when the test passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED ({reason}): {test}");
    assert!(std::env::var_os("CI").is_none(), "{test} must run in CI: {reason}");
}
