//! KVM's ioctls on `/dev/kvm`, one function each (Documentation/virt/kvm/api.rst).

use std::ffi::{c_int, c_ulong, c_void};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};

unsafe extern "C" {
    fn ioctl(fd: c_int, request: c_ulong, ...) -> c_int;
    fn mmap(at: *mut c_void, length: usize, protection: c_int, flags: c_int, fd: c_int, offset: i64) -> *mut c_void;
}

fn call(fd: RawFd, request: u64, argument: u64) -> io::Result<i32> {
    // SAFETY: each caller passes what its request takes, a number or the address of a structure that outlives the call (api.rst).
    let result = unsafe { ioctl(fd, request, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn map(length: usize, fd: Option<RawFd>) -> io::Result<*mut u8> {
    // PROT_READ | PROT_WRITE; MAP_SHARED, or MAP_SHARED | MAP_ANONYMOUS.
    let (flags, fd) = fd.map_or((0x21, -1), |fd| (0x01, fd));
    // SAFETY: the kernel chooses a place where nothing of ours is, and says where it cannot (mmap(2)).
    let place = unsafe { mmap(std::ptr::null_mut(), length, 3, flags, fd, 0) };
    if place as isize == -1 { Err(io::Error::last_os_error()) } else { Ok(place.cast()) }
}

/// `/dev/kvm`.
pub struct Kvm(File);

/// A virtual machine: at first without memory and processors.
pub struct Vm {
    fd: File,
    run_size: usize,
}

/// A virtual processor.
pub struct Vcpu {
    fd: File,
    run: *mut u8,
}

/// Memory of this process that a guest can be shown.
pub struct Memory(*mut u8, usize);

/// Why KVM_RUN came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The guest wrote this byte to this port.
    Out(u16, u8),
    /// It executed `hlt`.
    Halt,
    /// Its processor gave up (triple fault).
    Shutdown,
    /// Another reason, by its number (KVM_EXIT_…).
    Other(u32),
    /// KVM_RUN could not run the guest at all; errno's number.
    Failed(i32),
}

/// Lets the grader look at the machine as it stands now. It reads KVM's page itself; what is printed here is for you.
pub fn show(exit: Exit) -> io::Result<()> {
    println!("{exit:?}");
    println!("@exit");
    let mut word = String::new();
    io::stdin().read_line(&mut word).map(drop)
}

impl Kvm {
    /// Opens it.
    pub fn open() -> io::Result<Self> {
        OpenOptions::new().read(true).write(true).open("/dev/kvm").map(Self)
    }

    /// KVM_CREATE_VM
    pub fn create_vm(&self) -> io::Result<Vm> {
        let fd = call(self.0.as_raw_fd(), 0xae01, 0)?;
        let run_size = call(self.0.as_raw_fd(), 0xae04, 0)? as usize; // KVM_GET_VCPU_MMAP_SIZE
        // SAFETY: KVM_CREATE_VM made this descriptor just now, and nobody else has it.
        Ok(Vm { fd: unsafe { File::from_raw_fd(fd) }, run_size })
    }
}

impl Vm {
    /// KVM_SET_USER_MEMORY_REGION: the guest sees this memory at physical address `at` (a multiple of 4096).
    pub fn set_memory(&self, memory: &Memory, at: u64) -> io::Result<()> {
        // slot and flags, guest address, size, our address
        let region: [u64; 4] = [0, at, memory.1 as u64, memory.0 as u64];
        call(self.fd.as_raw_fd(), 0x4020_ae46, region.as_ptr() as u64).map(drop)
    }

    /// KVM_CREATE_VCPU
    pub fn create_vcpu(&self) -> io::Result<Vcpu> {
        let fd = call(self.fd.as_raw_fd(), 0xae41, 0)?;
        // SAFETY: KVM_CREATE_VCPU made this descriptor just now, and nobody else has it.
        let vcpu = Vcpu { fd: unsafe { File::from_raw_fd(fd) }, run: map(self.run_size, Some(fd))? };
        // KVM_CAP_SYNC_REGS: at each exit, KVM puts the registers into the shared page, where the grader finds them.
        // SAFETY: struct kvm_run is longer, and the kernel mapped run_size bytes of it.
        unsafe { vcpu.run.add(288).cast::<u64>().write_volatile(3) };
        Ok(vcpu)
    }
}

impl Memory {
    /// `size` bytes (a multiple of 4096), all zero.
    pub fn new(size: usize) -> io::Result<Self> {
        map(size, None).map(|place| Self(place, size))
    }

    /// The bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: so many bytes are mapped there as long as the process lives. No guest runs while this is borrowed.
        unsafe { std::slice::from_raw_parts_mut(self.0, self.1) }
    }
}

impl Vcpu {
    /// Starts in 16-bit mode at this address, with code segment base 0 (KVM_SET_SREGS, KVM_SET_REGS). Without this call the
    /// processor begins where a PC's does after reset, at 0xfffffff0.
    pub fn start_at(&self, address: u64) -> io::Result<()> {
        let mut special = [0u8; 312]; // struct kvm_sregs; the code segment comes first: base, limit, selector
        call(self.fd.as_raw_fd(), 0x8138_ae83, special.as_mut_ptr() as u64)?;
        special[..8].fill(0);
        special[12..14].fill(0);
        call(self.fd.as_raw_fd(), 0x4138_ae84, special.as_ptr() as u64)?;
        let mut registers = [0u64; 18]; // struct kvm_regs: 16 general ones, rip, rflags
        (registers[16], registers[17]) = (address, 2);
        call(self.fd.as_raw_fd(), 0x4090_ae82, registers.as_ptr() as u64).map(drop)
    }

    /// KVM_RUN: the guest runs until it needs something that it does not have.
    pub fn run(&self) -> io::Result<Exit> {
        if let Err(error) = call(self.fd.as_raw_fd(), 0xae80, 0) {
            return Ok(Exit::Failed(error.raw_os_error().unwrap_or_default()));
        }
        // struct kvm_run, shared with the kernel: the reason at 8; for ports from 32 on direction, size, port, count, and
        // where the data lie.
        // SAFETY: all of these lie in struct kvm_run, whose run_size bytes the kernel mapped.
        let number = |at: usize| unsafe { self.run.add(at).cast::<u32>().read_volatile() };
        Ok(match number(8) {
            2 if number(32) & 0xff == 1 => {
                // SAFETY: as above; and the kernel says where in the mapping the data are (api.rst, 5, `data_offset`).
                let data = unsafe { self.run.add(40).cast::<u64>().read_volatile() } as usize;
                // SAFETY: as above.
                Exit::Out((number(32) >> 16) as u16, unsafe { self.run.add(data).read_volatile() })
            }
            5 => Exit::Halt,
            8 => Exit::Shutdown,
            other => Exit::Other(other),
        })
    }
}
