//! What makes a lean kernel, and the hash that names it: the same recipe is never built twice.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// The configuration fragment.
pub const FRAGMENT: &str = include_str!("../../../microvm/guest/kernel/lean.config");

/// A change of ours to the kernel's source.
#[derive(Clone, Copy, Debug)]
pub struct Patch {
    /// Its file name.
    pub name: &'static str,
    /// The patch itself.
    pub text: &'static str,
}

impl Patch {
    /// What it is about: its name up to the first dot. Patches of one idea are its variants for different source versions,
    /// of which the first that fits is applied.
    pub fn idea(&self) -> &'static str {
        self.name.split('.').next().unwrap_or(self.name)
    }
}

macro_rules! patches {
    ($($name:literal,)+) => {
        &[$(Patch { name: $name, text: include_str!(concat!("../../../microvm/guest/kernel/patches/", $name)) },)+]
    };
}

/// Our patches, in the order in which they are applied. One that a source version does not take is left out.
pub const PATCHES: &[Patch] = patches![
    "0001-boot-timer-marks.patch",
    "0002-syscall-by-page-fault.patch",
    "0003-no-sysfs-for-slab-caches.patch",
    "0003-no-sysfs-for-slab-caches.since-6.2.patch",
    "0004-no-sysfs-for-built-in-parameters.patch",
    "0005-strings-by-quadwords.patch",
    "0005-strings-by-quadwords.since-6.2.patch",
    "0006-small-per-cpu-area.patch",
    "0007-bss-is-clear.patch",
    "0008-copy-page-structs.patch",
    "0008-copy-page-structs.since-6.3.patch",
];

/// Without this patch a kernel runs programs only where KVM has VT-x or SVM behind it.
pub const SYSCALL_PATCH: &str = "0002-syscall-by-page-fault";

/// The hash of our part: fragment and patches. It tells whether a kernel in the cache is of this version of the lab.
pub fn own() -> String {
    digest(PATCHES.iter().flat_map(|patch| [patch.name, patch.text]).chain([FRAGMENT]))
}

/// The hash that names a kernel: of everything that goes into it.
pub fn hash(source_version: &str, compiler: &str) -> String {
    digest([source_version, compiler, &own()])
}

/// A hash of texts. Their lengths are hashed too, so that moving a byte from one to the next changes it.
pub(super) fn digest<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().iter().take(8).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_hash_is_the_same_for_the_same_parts_and_another_for_any_other() {
        let base = hash("6.1", "gcc 12");
        assert_eq!(base, hash("6.1", "gcc 12"));
        assert_eq!(base.len(), 16);
        for other in [hash("6.1.1", "gcc 12"), hash("6.1", "gcc 13"), hash("6.1g", "cc 12"), own()] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn every_patch_file_is_in_the_list_and_says_its_licence_and_its_purpose() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../microvm/guest/kernel/patches");
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        assert_eq!(files, PATCHES.iter().map(|patch| patch.name).collect::<Vec<_>>());
        for patch in PATCHES {
            assert!(patch.text.starts_with("SPDX-License-Identifier: GPL-2.0\nSubject: "), "{}", patch.name);
        }
        assert!(PATCHES.iter().any(|patch| patch.idea() == SYSCALL_PATCH));
    }
}
