//! What to do where there is no hardware behind KVM.
//!
//! Such a KVM runs the guest's user mode on the CPU and *interprets* its kernel mode, with KVM's instruction emulator,
//! which was written for the few instructions that touch devices. Two things follow: some instructions are missing, and
//! every instruction of the kernel costs a thousand times what it does elsewhere. None of this is done on hardware.

use kvm_bindings::kvm_segment;
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::sys;

use super::acpi::VirtioWindow;
use super::probe::Probe;
use super::{extended_state, layout};

/// How the machine is arranged, after the probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quirks {
    /// Whether the kernel is interpreted.
    pub interpreted: bool,
    /// How the kernel learns of what it has.
    pub description: Description,
}

/// How a kernel learns of its processors and devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Description {
    /// Devices on the command line, and nothing by ACPI: one vCPU, and the old interrupt controllers.
    CommandLine,
    /// Devices on the command line, and of ACPI's tables only that of the processors and the I/O APIC, which Linux reads long
    /// before it starts its interpreter.
    Processors,
    /// Everything by ACPI.
    Acpi,
}

impl Quirks {
    /// What the probe calls for. An interpreted kernel is told its devices on the command line: its AML interpreter would
    /// itself be interpreted. So is a kernel in a machine that is `plain`; more than one vCPU it finds by ACPI's table alone.
    pub fn of(probe: Probe, plain: bool, vcpus: u8) -> Self {
        let description = match (probe.hardware, plain, vcpus) {
            (false, _, _) | (true, true, 1) => Description::CommandLine,
            (true, true, _) => Description::Processors,
            (true, false, _) => Description::Acpi,
        };
        Self { interpreted: !probe.hardware, description }
    }

    /// Whether there are ACPI tables.
    pub fn acpi(self) -> bool {
        self.description != Description::CommandLine
    }

    /// The devices that ACPI's tables are to describe.
    pub fn devices(self, all: &[VirtioWindow]) -> Option<&[VirtioWindow]> {
        (self.description == Description::Acpi).then_some(all)
    }

    /// How many vCPUs the guest gets of those asked for. Without ACPI a kernel finds only the first one.
    pub fn vcpus(self, asked: u8) -> u8 {
        if self.interpreted { 1 } else { asked }
    }

    /// What goes on the kernel command line.
    pub fn command_line(self, devices: &[VirtioWindow]) -> Vec<String> {
        // No ACPI tables, hence no I/O APIC, hence the old controllers and timer for everything.
        let mut words: Vec<String> = match self.description {
            Description::CommandLine => ["acpi=off", "noapic", "nolapic"].map(String::from).into(),
            Description::Processors => Vec::new(),
            Description::Acpi => return Vec::new(),
        };
        words.extend(devices.iter().map(|device| {
            format!("virtio_mmio.device={}K@{:#x}:{}", layout::VIRTIO_SIZE / 1024, device.base, device.irq)
        }));
        if self.interpreted {
            words.extend(Self::FOR_THE_INTERPRETER.map(String::from));
        }
        words
    }

    const FOR_THE_INTERPRETER: [&str; 8] = [
        // Instructions that the emulator lacks or that cost it much. Linux numbers of: SMAP, ERMS (copying by bytes), SMEP,
        // POPCNT, CX16; and of XSAVES, XGETBV with 1, XSAVEC and XSAVEOPT, so that only XSAVE and XRSTOR are left, which we do.
        "nopcid",
        "clearcpuid=323,322,321,320,308,297,295,151,141",
        // Work that is a few microseconds elsewhere: splitting the kernel's pages so that parts of it can be write-protected.
        "rodata=off",
        // Our kernel patch: a system call arrives as a page fault, because this KVM does SYSCALL by halves. (A kernel without
        // the patch passes the word to its PID 1, and every program dies of its first system call.)
        "syscall_fault",
        // Do not watch the TSC with another clock: reading the timer is an exit.
        "tsc=reliable",
        // And keep the time by KVM's own clock. The counter is the host's here, whatever KVM is told that it shall show (KVM_SET_MSRS
        // has no effect, and programs read it without asking anybody): in a machine made of a snapshot it would have leapt.
        "clocksource=kvm-clock",
        // Of our kernel's patches: ten ticks a second, because a hundred take a sixth of the guest's time, and all of it on a
        // busy host; and messages that are only informational are not even formatted until PID 1 runs.
        "tick_stride=10",
        "boot_log=4",
    ];
}

/// What QEMU's translator wants to see in the task register of a guest under its emulated SVM: a task segment that is not
/// busy, though the one in use always is. It looks there when user code touches an I/O port, and takes any other type for a
/// missing permission (target/i386/tcg, `helper_check_io`). KVM reports the busy type, whatever the CPU had, so a restored
/// guest must be given the other one. Processors do not mind on SVM, where entry to the guest does not check it (APM vol. 2,
/// section 15.5.1); on VMX they do, but the translator has none.
pub(crate) fn task_register(tr: &mut kvm_segment) {
    const BUSY: u8 = 2;
    if sys::hypervisor() == *b"TCGTCGTCGTCG" {
        tr.type_ &= !BUSY;
    }
}

/// An instruction that the emulator lacks and that we can do for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Go on behind the instruction: it has no effect that matters here.
    Skip(u64),
    /// Deliver a breakpoint exception; RIP is behind the instruction then.
    Breakpoint,
    /// Save or load the processor's extended state: see [`extended_state`].
    Extended(extended_state::Move),
}

impl Repair {
    /// What can be done about the instruction that begins with these bytes (SDM vol. 2).
    pub fn of(instruction: &[u8]) -> Option<Self> {
        match instruction {
            // int3. The kernel tests itself with one, and patches its code under their protection.
            [0xcc, ..] => Some(Self::Breakpoint),
            // clac, stac: they switch SMAP's protection, which the guest is told it does not have.
            [0x0f, 0x01, 0xca | 0xcb, ..] => Some(Self::Skip(3)),
            // xsave64 [rdi], xrstor64 [rdi]: what Linux has of them.
            [0x48, 0x0f, 0xae, 0x27, ..] => Some(Self::Extended(extended_state::Move::Save)),
            [0x48, 0x0f, 0xae, 0x2f, ..] => Some(Self::Extended(extended_state::Move::Load)),
            // fwait: raises pending x87 exceptions, of which a kernel has none.
            [0x9b, ..] => Some(Self::Skip(1)),
            _ => None,
        }
    }
}

/// What a vCPU was about to do when KVM gave up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// Its instruction pointer.
    pub rip: u64,
    /// The bytes there, as many as could be read.
    pub instruction: Vec<u8>,
}

/// The longest instruction (SDM vol. 2, section 2.3.11).
const INSTRUCTION_MAX: usize = 15;

/// Does the instruction that KVM failed at, if it is one that we can do.
///
/// # Errors
/// Where it is none, or KVM refuses the new state: the place where the guest is stuck.
pub fn repair(vcpu: &VcpuFd, guest: &GuestMemoryMmap) -> Result<(), Stuck> {
    const BREAKPOINT_VECTOR: u8 = 3;
    let Ok(mut regs) = vcpu.get_regs() else { return Err(Stuck { rip: 0, instruction: Vec::new() }) };
    let instruction = read_code(vcpu, guest, regs.rip);
    let stuck = Stuck { rip: regs.rip, instruction };
    let done = match Repair::of(&stuck.instruction) {
        None => return Err(stuck),
        Some(Repair::Skip(len)) => {
            regs.rip = regs.rip.wrapping_add(len);
            vcpu.set_regs(&regs)
        }
        Some(Repair::Extended(which)) => {
            return extended_state::repair(vcpu, guest, regs, which).ok_or(stuck);
        }
        Some(Repair::Breakpoint) => vcpu.get_vcpu_events().and_then(|mut events| {
            regs.rip = regs.rip.wrapping_add(1);
            vcpu.set_regs(&regs)?;
            events.exception.injected = 1;
            events.exception.nr = BREAKPOINT_VECTOR;
            events.exception.has_error_code = 0;
            vcpu.set_vcpu_events(&events)
        }),
    };
    done.map_err(|_| stuck)
}

/// The bytes at a guest-virtual address, as far as they are mapped.
fn read_code(vcpu: &VcpuFd, guest: &GuestMemoryMmap, rip: u64) -> Vec<u8> {
    let mut code = Vec::with_capacity(INSTRUCTION_MAX);
    for address in (0..INSTRUCTION_MAX as u64).map(|i| rip.wrapping_add(i)) {
        let physical = match vcpu.translate_gva(address) {
            Ok(translation) if translation.valid != 0 => translation.physical_address,
            _ => break,
        };
        match guest.read_obj::<u8>(GuestAddress(physical)) {
            Ok(byte) => code.push(byte),
            Err(_) => break,
        }
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_to_be_harmless_is_repaired() {
        assert_eq!(Repair::of(&[0xcc]), Some(Repair::Breakpoint));
        assert_eq!(Repair::of(&[0x0f, 0x01, 0xca, 0x90]), Some(Repair::Skip(3)));
        assert_eq!(Repair::of(&[0x0f, 0x01, 0xcb]), Some(Repair::Skip(3)));
        assert_eq!(Repair::of(&[0x9b, 0xdb, 0xe3]), Some(Repair::Skip(1)));
        let save = Some(Repair::Extended(extended_state::Move::Save));
        assert_eq!(Repair::of(&[0x48, 0x0f, 0xae, 0x27, 0x90]), save);
        // cmpxchg16b, xsave of another form, a cut-off clac, nothing.
        for other in [&[0x48, 0x0f, 0xc7, 0x0f][..], &[0x0f, 0xae, 0x27], &[0x0f, 0x01], &[]] {
            assert_eq!(Repair::of(other), None);
        }
    }

    #[test]
    fn on_hardware_nothing_is_changed() {
        let hardware = Quirks::of(Probe { hardware: true, instruction: 0.3 }, false, 1);
        assert!(hardware.acpi());
        assert_eq!(hardware.vcpus(4), 4);
        assert!(hardware.command_line(&[VirtioWindow { base: layout::VIRTIO, irq: 5 }]).is_empty());
    }

    #[test]
    fn a_plain_machine_is_described_on_the_command_line_unless_it_has_more_vcpus() {
        let probe = Probe { hardware: true, instruction: 0.3 };
        let words = Quirks::of(probe, true, 1).command_line(&[]);
        assert_eq!(words, ["acpi=off", "noapic", "nolapic"]);
        let several = Quirks::of(probe, true, 2);
        assert!(several.acpi());
        let words = several.command_line(&[VirtioWindow { base: layout::VIRTIO, irq: 5 }]);
        assert_eq!(words, ["virtio_mmio.device=4K@0xd0000000:5"]);
    }

    #[test]
    fn an_interpreted_kernel_is_told_its_devices_on_the_command_line() {
        let quirks = Quirks::of(Probe { hardware: false, instruction: 900.0 }, false, 1);
        let words = quirks.command_line(&[VirtioWindow { base: layout::VIRTIO, irq: 5 }]);
        assert!(words.contains(&"virtio_mmio.device=4K@0xd0000000:5".to_owned()), "{words:?}");
        assert!(words.contains(&"noapic".to_owned()));
    }
}
