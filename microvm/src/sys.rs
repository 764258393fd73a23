//! Where the compiler cannot check: mappings, KVM's memory slots, and the signal that brings a vCPU out of the guest.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::thread::{JoinHandleExt, RawPthread};
use std::sync::Once;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;

use kvm_bindings::{kvm_run, kvm_userspace_memory_region, kvm_xsave};
use kvm_ioctls::{VcpuFd, VmFd};
use nix::libc;
use vm_memory::VolatileSlice;

/// KVM_SET_USER_MEMORY_REGION.
pub(crate) fn set_memory_region(
    vm: &VmFd,
    region: kvm_userspace_memory_region,
) -> Result<(), kvm_ioctls::Error> {
    // SAFETY: the region is one of a GuestMemoryMmap, which the owner of the VM keeps mapped until after the VM is closed;
    // guest memory is only ever accessed as volatile or atomic (Documentation/virt/kvm/api.rst, 4.35).
    unsafe { vm.set_user_memory_region(region) }
}

/// Replaces `len` bytes at `at` in a slice of guest memory by a private mapping of the file. All three of the address, `len`
/// and `offset` are multiples of the page size.
pub(crate) fn map_file_over(
    slice: &VolatileSlice<'_>,
    at: usize,
    len: usize,
    file: BorrowedFd<'_>,
    offset: u64,
) -> io::Result<()> {
    let part = slice.subslice(at, len).map_err(io::Error::other)?;
    // SAFETY: `part` lies within a mapping that the slice borrows, so MAP_FIXED replaces only pages of guest memory, which
    // hold no Rust object; protection and lifetime stay those of the mapping they replace (mmap(2)).
    let mapped = unsafe {
        libc::mmap(
            part.ptr_guard_mut().as_ptr().cast(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE,
            file.as_raw_fd(),
            offset as libc::off_t,
        )
    };
    if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has the heap cost few pages (mallopt(3)). All threads allocate from one: glibc would give each its own, and threads that
/// mostly wait do not get into each other's way. And large buffers get pages of their own, which are there only when they are
/// used. To be called before threads are made.
pub(crate) fn save_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: both calls take two numbers; what mallopt(3) does not know it refuses.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 10);
    }
}

/// Gives the heap's pages back that nothing is in any more (malloc_trim(3)).
pub(crate) fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it may be called at any time, by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Goes on twice, as `fork(2)` does: the child's number in this process, none in the child. To be called while there is one
/// thread: a lock that another holds would stay held in the child.
pub(crate) fn fork() -> io::Result<Option<i32>> {
    // SAFETY: the caller promises that this is the only thread, so the child finds every lock and the heap in a good state
    // (fork(2); signal-safety(7) restricts only children of processes with several threads).
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Some(pid)),
    }
}

/// The signal that makes `KVM_RUN` return: a real-time one, since the C library and shells use none of the upper ones.
fn kick_signal() -> libc::c_int {
    libc::SIGRTMIN() + 8
}

/// Installs the handler of the kick signal, which does nothing: that the signal arrives is enough for `KVM_RUN` to return
/// EINTR (api.rst, 4.10). Without SA_RESTART, and once a process.
fn install_kick_handler() {
    extern "C" fn nothing(_: libc::c_int) {}
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler is async-signal-safe, for it does nothing; the struct is a valid all-zero sigaction (sigaction(2)).
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as *const () as usize;
            libc::sigaction(kick_signal(), &raw const action, std::ptr::null_mut());
        }
    });
}

/// Lets the kick signal through to the calling thread, whatever its creator had blocked: `KVM_RUN` does not return for a
/// blocked signal.
pub(crate) fn unblock_kick_signal() {
    // SAFETY: the set is a valid all-zero sigset_t before sigemptyset fills it, and lives on this stack (pthread_sigmask(3)).
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, kick_signal());
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
    }
}

/// A second view of a vCPU's `kvm_run` page, for other threads to set `immediate_exit` in.
#[derive(Debug)]
pub(crate) struct RunPage {
    immediate_exit: *const AtomicU8,
    page: *mut libc::c_void,
}

/// Of the `kvm_run` area only the first page is needed: `immediate_exit` is its second byte.
const RUN_PAGE: usize = 4096;

impl RunPage {
    /// Maps the page of this vCPU.
    pub(crate) fn of(vcpu: &VcpuFd) -> io::Result<Self> {
        install_kick_handler();
        let fd: RawFd = vcpu.as_raw_fd();
        // SAFETY: a new shared mapping of the vCPU's page, at an address of the kernel's choice (api.rst, 5, "the kvm_run
        // structure"; mmap(2)). It stays valid after the fd is closed.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                RUN_PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd,
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the field lies within the page just mapped.
        let immediate_exit = unsafe { page.byte_add(std::mem::offset_of!(kvm_run, immediate_exit)) };
        Ok(Self { immediate_exit: immediate_exit.cast(), page })
    }

    /// Lets the vCPU's next (or current, with a signal) `KVM_RUN` return EINTR; or takes that back.
    pub(crate) fn set_immediate_exit(&self, on: bool) {
        // SAFETY: the byte is mapped as long as self lives; KVM reads it, everyone here writes it atomically.
        unsafe { &*self.immediate_exit }.store(u8::from(on), Ordering::SeqCst);
    }
}

impl Drop for RunPage {
    fn drop(&mut self) {
        // SAFETY: mapped in `of` with this length, and no reference outlives self.
        unsafe { libc::munmap(self.page, RUN_PAGE) };
    }
}

// SAFETY: all access to the page is atomic.
unsafe impl Send for RunPage {}
// SAFETY: as above.
unsafe impl Sync for RunPage {}

/// A running vCPU thread, so that a signal reaches it.
#[derive(Debug)]
pub(crate) struct Thread {
    id: RawPthread,
}

impl Thread {
    /// The thread of this handle. The handle must outlive what is returned, unjoined.
    pub(crate) fn of<T>(handle: &JoinHandle<T>) -> Self {
        Self { id: handle.as_pthread_t() }
    }

    /// Sends it the kick signal.
    pub(crate) fn signal(&self) {
        // SAFETY: the owner keeps the JoinHandle unjoined, so the id is valid even after the thread ended
        // (pthread_kill(3)); the signal's handler is installed and does nothing.
        unsafe { libc::pthread_kill(self.id, kick_signal()) };
    }
}

/// What KVM says about an emulation failure: the suberror, and the instruction's bytes where it gives them.
pub(crate) fn internal_error(vcpu: &mut VcpuFd) -> u32 {
    // SAFETY: called after KVM_EXIT_INTERNAL_ERROR, where `internal` is the valid member of the union (api.rst, 5).
    unsafe { vcpu.get_kvm_run().__bindgen_anon_1.internal.suberror }
}

/// KVM_SET_XSAVE.
pub(crate) fn set_xsave(vcpu: &VcpuFd, state: &kvm_xsave) -> Result<(), kvm_ioctls::Error> {
    // SAFETY: KVM reads 4096 bytes unless this process asked for larger features by arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM),
    // which it never does (api.rst, 4.43); so long is the structure.
    unsafe { vcpu.set_xsave(state) }
}

/// The signature of the hypervisor that this process runs under; of no meaning where there is none.
pub(crate) fn hypervisor() -> [u8; 12] {
    /// The leaf that hypervisors keep to themselves, and Linux looks for them in (Documentation/virt/kvm/x86/cpuid.rst).
    const SIGNATURE: u32 = 0x4000_0000;
    let leaf = std::arch::x86_64::__cpuid(SIGNATURE);
    let mut text = [0; 12];
    for (to, from) in text.chunks_exact_mut(4).zip([leaf.ebx, leaf.ecx, leaf.edx]) {
        to.copy_from_slice(&from.to_le_bytes());
    }
    text
}
