//! The machine: its names, modules, ports, and its end.

use core::ffi::CStr;
use core::mem::MaybeUninit;

use linux_raw_sys::general as c;
use linux_raw_sys::ioctl as i;
use linux_raw_sys::system as s;

use super::{Fd, Result, at, call, int, plain};
use crate::arch;

/// What uname(2) says.
#[derive(Clone, Copy, Debug)]
pub struct Names(s::new_utsname);

macro_rules! names {
    ($($(#[doc = $doc:literal])+ $method:ident: $field:ident,)+) => {
        impl Names {
            $($(#[doc = $doc])+
            pub fn $method(&self) -> &[u8] {
                // SAFETY: a char array read as bytes; c_char is a byte of either sign.
                let bytes: &[u8; 65] = unsafe { &*(&raw const self.0.$field).cast() };
                bytes.split(|&byte| byte == 0).next().unwrap_or(&[])
            })+
        }
    };
}

names! {
    /// The kernel: `Linux`.
    system: sysname,
    /// The host name.
    host: nodename,
    /// The kernel's release.
    release: release,
    /// Its build.
    version: version,
    /// The processor's architecture.
    machine: machine,
}

/// uname(2).
pub fn names() -> Result<Names> {
    let mut out = MaybeUninit::<s::new_utsname>::uninit();
    // SAFETY: the kernel fills the whole structure.
    unsafe {
        call(c::__NR_uname, [out.as_mut_ptr().expose_provenance()])?;
        Ok(Names(out.assume_init()))
    }
}

/// sethostname(2).
pub fn set_host_name(name: &[u8]) -> Result<()> {
    // SAFETY: the kernel reads the bytes.
    unsafe { call(c::__NR_sethostname, [name.as_ptr().expose_provenance(), name.len()]) }.map(drop)
}

/// setdomainname(2).
pub fn set_domain_name(name: &[u8]) -> Result<()> {
    // SAFETY: the kernel reads the bytes.
    unsafe { call(c::__NR_setdomainname, [name.as_ptr().expose_provenance(), name.len()]) }.map(drop)
}

/// finit_module(2): loads a kernel module from a file.
pub fn load_module(file: Fd, parameters: &CStr) -> Result<()> {
    // SAFETY: the kernel reads the parameters up to their NUL.
    unsafe { call(c::__NR_finit_module, [int(file.0), at(parameters), 0]) }.map(drop)
}

/// sync(2).
pub fn sync() {
    let _ = plain(c::__NR_sync, []);
}

/// Mixes bytes into the kernel's random numbers and has it use them from now on: random(4), `RNDADDENTROPY` and
/// `RNDRESEEDCRNG`. At most 64 bytes are taken.
pub fn reseed(random: Fd, bytes: &[u8]) -> Result<()> {
    const MOST: usize = 64;
    /// `struct rand_pool_info`: bits of entropy, bytes of buffer, buffer.
    #[repr(C)]
    struct Pool {
        entropy: i32,
        size: i32,
        bytes: [u8; MOST],
    }
    let len = bytes.len().min(MOST);
    let mut pool = Pool { entropy: len as i32 * 8, size: len as i32, bytes: [0; MOST] };
    for (to, from) in pool.bytes.iter_mut().zip(bytes) {
        *to = *from;
    }
    let pointer = (&raw const pool).expose_provenance();
    // SAFETY: the kernel reads the structure, and of its buffer no more than `size`.
    unsafe { call(c::__NR_ioctl, [int(random.0), i::RNDADDENTROPY as usize, pointer]) }?;
    plain(c::__NR_ioctl, [int(random.0), i::RNDRESEEDCRNG as usize]).map(drop)
}

/// reboot(2), `LINUX_REBOOT_CMD_RESTART`. Returns only if it failed.
pub fn restart() -> Result<()> {
    let magic = [c::LINUX_REBOOT_MAGIC1 as usize, c::LINUX_REBOOT_MAGIC2 as usize];
    plain(c::__NR_reboot, [magic[0], magic[1], c::LINUX_REBOOT_CMD_RESTART as usize]).map(drop)
}

/// reboot(2), `LINUX_REBOOT_CMD_POWER_OFF`. Returns only if it failed; a machine that cannot be switched off is halted.
pub fn power_off() -> Result<()> {
    let magic = [c::LINUX_REBOOT_MAGIC1 as usize, c::LINUX_REBOOT_MAGIC2 as usize];
    plain(c::__NR_reboot, [magic[0], magic[1], c::LINUX_REBOOT_CMD_POWER_OFF as usize]).map(drop)
}

/// One I/O port, opened to this process.
#[derive(Debug)]
pub struct Port(u16);

impl Port {
    /// ioperm(2). Fails where the processor has no ports, or the kernel no such call.
    #[cfg(target_arch = "x86_64")]
    pub fn open(number: u16) -> Result<Self> {
        plain(c::__NR_ioperm, [usize::from(number), 1, 1])?;
        Ok(Self(number))
    }

    /// There are no ports on this processor.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn open(_number: u16) -> Result<Self> {
        Err(super::Errno::NOSYS)
    }

    /// Writes one byte to it.
    pub fn write(&self, byte: u8) {
        // SAFETY: ioperm(2) opened the port; what a byte does there is between the program and the device it chose.
        unsafe { arch::out(self.0, byte) }
    }

    /// Closes the port to this process and its children: ioperm(2) outlives fork and execve.
    pub fn close(&self) {
        #[cfg(target_arch = "x86_64")]
        let _ = plain(c::__NR_ioperm, [usize::from(self.0), 1, 0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_is_linux() {
        assert_eq!(names().unwrap().system(), b"Linux");
    }
}
