//! What a sandbox's machine is made of: the first files of its guest, its devices, its channel.

use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use super::options::{CreateOptions, RootFs};
use crate::devices::virtio::VirtioDevice;
use crate::devices::virtio::blk::Block;
use crate::devices::virtio::console::Console;
use crate::devices::virtio::fs::{Fs, Share};
use crate::devices::virtio::rng::Rng;
use crate::initramfs::Initramfs;
use crate::sockets::{self, SocketFile};
use crate::vm::AtEnd;
use crate::{Error, shares};

/// The guest's PID 1 (microvm/guest/init), built by build.rs.
pub static GUEST_INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/guest-init"));

/// The agent's channel: our end, the port of the virtio-console, and what is to be done at the machine's end: the agent then
/// learns of it as of a peer that hung up. What is under way can still be read.
pub(super) fn channel() -> Result<(OwnedFd, UnixStream, Option<AtEnd>), Error> {
    let (host, port) =
        UnixStream::pair().map_err(Error::system("make the channel to the guest (socketpair)"))?;
    let hang_up = host.try_clone().map_err(Error::system("duplicate the channel to the guest (dup)"))?;
    Ok((host.into(), port, Some(Box::new(move || drop(hang_up.shutdown(Shutdown::Both))))))
}

/// The files that the guest's kernel has before any disk: PID 1, and the modules that it loads.
pub(super) fn initramfs(modules: &[PathBuf]) -> Result<Initramfs, Error> {
    let mut initramfs = Initramfs::new();
    initramfs.add_executable("init", GUEST_INIT);
    if !modules.is_empty() {
        initramfs.add_directory("modules");
    }
    for (number, path) in modules.iter().enumerate() {
        // PID 1 loads them in the order of their names.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        initramfs.add_file(&format!("modules/{number:02}-{name}"), false, path)?;
    }
    Ok(initramfs)
}

/// The guest's devices: its root, the channel to us, entropy, its network cards, what the host shares, and its sockets, whose
/// file is given back.
pub(super) fn devices(
    options: &CreateOptions,
    shares: &[Share],
    port: UnixStream,
    vsock: &mut Option<SocketFile>,
) -> Result<Vec<Box<dyn VirtioDevice>>, Error> {
    let mut devices: Vec<Box<dyn VirtioDevice>> = Vec::new();
    if let RootFs::Disk(disk) = &options.root_fs {
        devices.push(Box::new(Block::open(&disk.path, true, "root")?));
    }
    let channel = Console::new(port, None).map_err(Error::system("set up the channel to the guest"))?;
    devices.push(Box::new(channel));
    devices.push(Box::new(Rng));
    devices.extend(options.network.devices()?);
    if !shares.is_empty() {
        devices.push(Box::new(Fs::new(shares::TAG, shares.to_vec(), options.memory_mib)?));
    }
    if let Some(at) = &options.vsock {
        let (file, device) = sockets::vsock(at)?;
        *vsock = Some(file);
        devices.push(Box::new(device));
    }
    Ok(devices)
}

/// What QEMU gets: it has no device of ours, and so no directories of the host.
pub(super) fn qemu_disk(root: &RootFs, shares: &[Share]) -> Result<PathBuf, Error> {
    match root {
        RootFs::Disk(disk) if shares.is_empty() => Ok(disk.path.clone()),
        _ => {
            let reason = "QEMU's translator runs this guest, and only KVM's can use directories of the host; \
                          leave out the volumes, or use a machine with /dev/kvm";
            Err(Error::Device { device: "machine", reason: reason.into() })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn modules_are_numbered_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let modules = ["b.ko", "a.ko"].map(|name| folder.path().join(name));
        for module in &modules {
            fs::write(module, "module").unwrap();
        }
        let text = format!("{:?}", initramfs(&modules).unwrap());
        assert!(text.contains("modules/00-b.ko") && text.contains("modules/01-a.ko"));
    }
}
