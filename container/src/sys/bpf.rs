//! eBPF: instructions for the kernel's own small machine, and the calls that load and attach a program (`bpf(2)`).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{Result, checked};

/// One instruction: 8 bytes (Documentation/bpf/standardization/instruction-set.rst, "Instruction encoding").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    code: u8,
    /// The destination in the low half, the source in the high one.
    registers: u8,
    offset: i16,
    value: i32,
}

/// The codes used here: class, operation and source of each ("Instruction classes").
const LOAD_WORD: u8 = 0x61;
const MOVE_REGISTER: u8 = 0xbf;
const MOVE_VALUE: u8 = 0xb7;
const AND_VALUE: u8 = 0x57;
const SHIFT_RIGHT_VALUE: u8 = 0x77;
const JUMP_IF_EQUAL: u8 = 0x16;
const JUMP_UNLESS_EQUAL: u8 = 0x56;
const EXIT: u8 = 0x95;

impl Instruction {
    const fn new(code: u8, to: u8, from: u8, offset: i16, value: i32) -> Self {
        Self { code, registers: to | from << 4, offset, value }
    }

    /// `to = *(u32 *)(from + offset)`
    pub(crate) const fn load(to: u8, from: u8, offset: i16) -> Self {
        Self::new(LOAD_WORD, to, from, offset, 0)
    }

    /// `to = from`
    pub(crate) const fn copy(to: u8, from: u8) -> Self {
        Self::new(MOVE_REGISTER, to, from, 0, 0)
    }

    /// `to = value`
    pub(crate) const fn set(to: u8, value: i32) -> Self {
        Self::new(MOVE_VALUE, to, 0, 0, value)
    }

    /// `to &= value`
    pub(crate) const fn and(to: u8, value: i32) -> Self {
        Self::new(AND_VALUE, to, 0, 0, value)
    }

    /// `to >>= bits`
    pub(crate) const fn shift_right(to: u8, bits: i32) -> Self {
        Self::new(SHIFT_RIGHT_VALUE, to, 0, 0, bits)
    }

    /// Jumps if the register's low 32 bits are the value; where to, [`jump_over`](Self::jump_over) says.
    pub(crate) const fn if_equal(register: u8, value: i32) -> Self {
        Self::new(JUMP_IF_EQUAL, register, 0, 0, value)
    }

    /// Jumps if they are not.
    pub(crate) const fn unless_equal(register: u8, value: i32) -> Self {
        Self::new(JUMP_UNLESS_EQUAL, register, 0, 0, value)
    }

    /// Ends the program with what is in register 0.
    pub(crate) const fn exit() -> Self {
        Self::new(EXIT, 0, 0, 0, 0)
    }

    /// Makes a jump skip so many instructions; others stay as they are.
    pub(crate) fn jump_over(&mut self, count: usize) {
        if matches!(self.code, JUMP_IF_EQUAL | JUMP_UNLESS_EQUAL) {
            self.offset = count as i16;
        }
    }

    /// What a program returns for a context of 32-bit words: the machine in small, for tests without privileges.
    #[cfg(test)]
    pub(crate) fn interpret(program: &[Self], context: &[u32]) -> u64 {
        let (mut registers, mut at) = ([0u64; 11], 0);
        loop {
            let Self { code, registers: pair, offset, value } = program[at];
            let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
            at += 1;
            let equal = registers[to] as u32 == value as u32;
            match code {
                LOAD_WORD => registers[to] = context[offset as usize / 4].into(),
                MOVE_REGISTER => registers[to] = registers[from],
                MOVE_VALUE => registers[to] = value as u64,
                AND_VALUE => registers[to] &= value as u64,
                SHIFT_RIGHT_VALUE => registers[to] >>= value,
                JUMP_IF_EQUAL if equal => at += offset as usize,
                JUMP_UNLESS_EQUAL if !equal => at += offset as usize,
                JUMP_IF_EQUAL | JUMP_UNLESS_EQUAL => {}
                EXIT => return registers[0],
                code => panic!("code {code:#x}"),
            }
        }
    }
}

/// Commands of `bpf(2)`, and the program type and place of attachment for devices (linux/bpf.h).
const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_DETACH: libc::c_long = 9;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const PROG_QUERY: libc::c_long = 16;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;

/// The parts of `union bpf_attr` that are used here; the kernel takes what is not there for zero.
#[repr(C)]
struct Load {
    typ: u32,
    count: u32,
    instructions: u64,
    license: u64,
}

#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    place: u32,
    flags: u32,
}

#[repr(C)]
struct Query {
    target: u32,
    place: u32,
    flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

fn bpf<T>(command: libc::c_long, attributes: &mut T) -> Result<libc::c_long> {
    // SAFETY: attributes is one of the structures above, of the size given; what it points to lives through the call, and
    // the kernel checks the program (bpf(2)).
    let value =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    checked(value)
}

fn descriptor(number: libc::c_long) -> OwnedFd {
    // SAFETY: called on what PROG_LOAD and PROG_GET_FD_BY_ID return: a new descriptor that nobody else owns (bpf(2)).
    unsafe { OwnedFd::from_raw_fd(number as i32) }
}

/// Loads a program for devices and attaches it to a cgroup, in the place of those that were attached before.
pub(crate) fn attach_device_program(cgroup: BorrowedFd<'_>, program: &[Instruction]) -> Result<()> {
    let target = cgroup.as_raw_fd() as u32;
    let mut ids = [0u32; 64];
    let mut query = Query {
        target,
        place: ATTACH_CGROUP_DEVICE,
        flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        padding: 0,
    };
    bpf(PROG_QUERY, &mut query)?;
    let old = ids.get(..query.count as usize).unwrap_or_default();

    let mut load = Load {
        typ: TYPE_CGROUP_DEVICE,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"MIT".as_ptr() as u64,
    };
    let new = descriptor(bpf(PROG_LOAD, &mut load)?);
    let place = ATTACH_CGROUP_DEVICE;
    // Several programs at once, of which all must agree: those of the cgroups above stay in force.
    let mut attach = Attach { target, program: new.as_raw_fd() as u32, place, flags: ALLOW_MULTI };
    bpf(PROG_ATTACH, &mut attach)?;
    for &id in old {
        let program = descriptor(bpf(PROG_GET_FD_BY_ID, &mut [id, 0, 0])?);
        bpf(PROG_DETACH, &mut Attach { target, program: program.as_raw_fd() as u32, place, flags: 0 })?;
    }
    Ok(())
}
