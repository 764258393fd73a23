//! The marks: which moments of a sandbox's life are timed, in both walls.

macro_rules! marks {
    ($($(#[doc = $doc:literal])+ $variant:ident = $number:literal => $name:literal,)+) => {
        /// A moment in a sandbox's life. The number is its slot on the shared page; the name is what reports print.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Mark {
            $($(#[doc = $doc])+ $variant = $number,)+
        }

        impl Mark {
            /// Every mark, in the order of their numbers.
            pub const ALL: &[Mark] = &[$(Mark::$variant,)+];

            /// The name that reports and JSON files use: lower case, words joined by hyphens.
            pub const fn name(self) -> &'static str {
                match self { $(Mark::$variant => $name,)+ }
            }

            /// The mark of this name, if there is one.
            pub fn from_name(name: &str) -> Option<Mark> {
                Self::ALL.iter().copied().find(|mark| mark.name() == name)
            }
        }
    };
}

marks! {
    /// Both: the lab's process began its `main`.
    Started = 1 => "started",
    /// Both: the image's name was resolved to a bundle (configuration written, layers at hand).
    Resolved = 2 => "resolved",

    /// Container: the overlay that is the root file system was mounted.
    OverlayMounted = 10 => "overlay-mounted",
    /// Container: `clone3(2)` returned in the new namespaces.
    Cloned = 11 => "cloned",
    /// Container: the process sits in its cgroup, limits written.
    CgroupReady = 12 => "cgroup-ready",
    /// Container: all mounts of the bundle were made.
    Mounted = 13 => "mounted",
    /// Container: `pivot_root(2)` done, the host's tree is out of reach.
    Pivoted = 14 => "pivoted",
    /// Container: capabilities, no_new_privs and seccomp are in force.
    Secured = 15 => "secured",

    /// VM: `/dev/kvm` is open and its version checked.
    KvmOpened = 30 => "kvm-opened",
    /// VM: `KVM_CREATE_VM` returned.
    VmCreated = 31 => "vm-created",
    /// VM: guest memory is mapped and registered.
    MemoryReady = 32 => "memory-ready",
    /// VM: interrupt controllers and the first vCPU are made; kernel, initramfs and command line are in guest memory.
    KernelLoaded = 33 => "kernel-loaded",
    /// VM: devices are wired to the bus.
    DevicesReady = 34 => "devices-ready",
    /// VM: the vCPU has its CPUID, registers and page tables.
    VcpuReady = 35 => "vcpu-ready",
    /// VM: the first `KVM_RUN` was entered.
    FirstRun = 36 => "first-run",
    /// VM: the first `KVM_RUN` returned: the guest touched something that the VMM serves.
    FirstExit = 37 => "first-exit",
    /// VM: the kernel began `start_kernel` (kernels built by the lab only).
    KernelEntered = 38 => "kernel-entered",
    /// VM: the kernel begins its initcalls: memory, scheduler and interrupts are up (kernels built by the lab only).
    KernelInitcalls = 39 => "kernel-initcalls",
    /// VM: the kernel finished its initcalls (kernels built by the lab only).
    KernelDone = 40 => "kernel-done",
    /// VM: the guest's PID 1 runs.
    InitStarted = 41 => "init-started",
    /// VM: the guest's PID 1 opened its channel to the host.
    AgentReady = 42 => "agent-ready",
    /// VM: the guest mounted the image's root file system with its writable overlay.
    RootMounted = 43 => "root-mounted",

    /// Both: `execve(2)` of the workload succeeded: its first instruction is next.
    Executed = 60 => "executed",
    /// Both: the workload's first byte of output reached the host.
    FirstByte = 61 => "first-byte",
    /// Both: the host learnt the workload's exit status.
    Exited = 62 => "exited",
    /// Both: everything the sandbox used was given back.
    Deleted = 63 => "deleted",
}
