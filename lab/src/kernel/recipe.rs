//! What makes a lean kernel, and the hash that names it: the same recipe is never built twice.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::fragment::option_of;

/// The configuration fragment.
pub const FRAGMENT: &str = include_str!("../../../microvm/guest/kernel/lean.config");

/// What differs in a kernel for one processor.
const ONE_CPU: &str = include_str!("../../../microvm/guest/kernel/one-cpu.config");

/// How many processors a kernel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processors {
    /// One, as every guest has where its kernel is emulated instruction by instruction.
    One,
    /// One to eight.
    Several,
}

impl Processors {
    /// What guests of this machine can have. Without a KVM they run under QEMU's translator.
    pub fn of_this_machine() -> Self {
        match microvm::arch::probe::this_machine() {
            Ok(probe) if !probe.hardware => Self::One,
            _ => Self::Several,
        }
    }

    /// What a kernel of this configuration is for.
    pub fn of_configuration(config: &str) -> Self {
        if config.lines().any(|line| line == "CONFIG_SMP=y") { Self::Several } else { Self::One }
    }

    /// The options of a kernel for so many.
    pub fn fragment(self) -> String {
        let name = |line| option_of(line).map(|(name, _)| name);
        let others: Vec<_> = match self {
            Self::Several => return FRAGMENT.to_owned(),
            Self::One => ONE_CPU.lines().filter_map(name).chain(["CONFIG_NR_CPUS".to_owned()]).collect(),
        };
        let kept = FRAGMENT.lines().filter(|line| name(line).is_none_or(|name| !others.contains(&name)));
        let mut text = kept.chain(ONE_CPU.lines()).collect::<Vec<_>>().join("\n");
        text.push('\n');
        text
    }
}

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
    "0009-stride-of-the-tick.patch",
    "0010-page-tables-to-the-end.patch",
    "0011-parameters-by-first-letter.patch",
    "0012-no-long-nops-at-boot.patch",
    "0013-no-events-for-nobody.patch",
    "0014-strlen-by-scas.patch",
    "0015-fresh-pages.patch",
    "0016-unprotected-stays-so.patch",
    "0017-fewer-ip-idents.patch",
    "0018-floor-of-the-boot-log.patch",
    "0019-acpi-without-pci.patch",
    "0020-memory-for-one-cpu.patch",
    "0021-no-sysfs-for-interrupts.patch",
    "0022-list-what-a-snapshot-shares.patch",
];

/// Without this patch a kernel runs programs only where KVM has VT-x or SVM behind it.
pub const SYSCALL_PATCH: &str = "0002-syscall-by-page-fault";

/// The hash of our part: fragments and patches. It tells whether a kernel in the cache is of this version of the lab.
pub fn own() -> String {
    digest(PATCHES.iter().flat_map(|patch| [patch.name, patch.text]).chain([FRAGMENT, ONE_CPU]))
}

/// The hash that names a kernel: of everything that goes into it.
pub fn hash(source_version: &str, compiler: &str, processors: Processors) -> String {
    digest([source_version, compiler, &own(), &processors.fragment()])
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
        let hash_of = |source, compiler| hash(source, compiler, Processors::Several);
        let base = hash_of("6.1", "gcc 12");
        assert_eq!(base, hash_of("6.1", "gcc 12"));
        assert_eq!(base.len(), 16);
        let for_one = hash("6.1", "gcc 12", Processors::One);
        for other in
            [hash_of("6.1.1", "gcc 12"), hash_of("6.1", "gcc 13"), hash_of("6.1g", "cc 12"), for_one, own()]
        {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn a_kernel_for_one_processor_is_the_same_but_for_the_few_options_that_differ() {
        let one = Processors::One.fragment();
        assert!(one.contains("# CONFIG_SMP is not set") && !one.contains("CONFIG_SMP=y"));
        assert!(!one.contains("CONFIG_NR_CPUS") && one.contains("CONFIG_VIRTIO_BLK=y"));
        let count = |text: &str| text.lines().filter(|line| option_of(line).is_some()).count();
        assert_eq!(count(&one), count(FRAGMENT) - 1);
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
