//! The seccomp filter: a small program that the kernel runs before every system call (`seccomp(2)`).
//!
//! The specification's profile becomes classic BPF here. The `seccompiler` crate was judged first: one filter of it
//! has a single action for its matches and a single architecture, and a profile has many of both, so it cannot express
//! them. Numbers of system calls come from the `syscalls` crate.
//!
//! - [`listener`]: calls that another program decides on.
//! - [`bpf`]: instructions, comparisons of 64-bit arguments, the search tree.
//! - [`profile`]: the default profile, with a reason for each system call that it refuses.

mod bpf;
pub(crate) mod listener;
pub(crate) mod profile;

use std::collections::BTreeMap;

use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompFilterFlag as Flag};
use oci_spec::runtime::{LinuxSeccompOperator as Operator, LinuxSyscall};

use crate::error::{Error, Result};
use bpf::{Comparison, Condition, Rule, Verdict};

/// A compiled filter.
#[derive(Debug)]
pub(crate) struct Filter {
    pub(crate) program: Vec<libc::sock_filter>,
    pub(crate) flags: u32,
}

/// The kernel takes no longer program (BPF_MAXINSNS, linux/bpf_common.h).
const MAX_INSTRUCTIONS: usize = 4096;

/// Architectures as the kernel names them (AUDIT_ARCH_*, linux/audit.h).
const AUDIT_X86_64: u32 = 0xc000_003e;
const AUDIT_I386: u32 = 0x4000_0003;
/// x32 calls come as x86-64 calls with this bit in the number (arch/x86/include/uapi/asm/unistd.h).
const X32_BIT: u32 = 0x4000_0000;

/// Turns a profile into a program.
pub(crate) fn compile(profile: &LinuxSeccomp) -> Result<Filter> {
    check(profile)?;
    let unspecific = action(profile.default_action(), profile.default_errno_ret());
    let architectures = profile.architectures().clone().unwrap_or_default();
    let has = |arch| architectures.contains(&arch);
    let native = architectures.is_empty() || has(Arch::ScmpArchNative) || has(Arch::ScmpArchX86_64);

    let mut blocks = Vec::new();
    if native || has(Arch::ScmpArchX32) {
        let mut table = BTreeMap::new();
        let mut add = |bit: u32| {
            rules(profile, &mut table, |name| {
                name.parse::<syscalls::x86_64::Sysno>().ok().map(|n| n.id() as u32 | bit)
            })
        };
        if native {
            add(0)?;
        }
        if has(Arch::ScmpArchX32) {
            add(X32_BIT)?;
        }
        if !has(Arch::ScmpArchX32) {
            table.insert(X32_BIT, Verdict::Always(libc::SECCOMP_RET_KILL_PROCESS));
        }
        blocks.push((AUDIT_X86_64, table));
    }
    if has(Arch::ScmpArchX86) {
        let mut table = BTreeMap::new();
        rules(profile, &mut table, |name| name.parse::<syscalls::x86::Sysno>().ok().map(|n| n.id() as u32))?;
        blocks.push((AUDIT_I386, table));
    }

    let mut program = Vec::new();
    for (arch, table) in &blocks {
        let body = bpf::tree(&bpf::intervals(table, unspecific, *arch == AUDIT_X86_64));
        program.extend(bpf::for_architecture(*arch, body));
    }
    // A call of an architecture that the profile does not list is an attempt to get around the numbers it does list.
    program.push(bpf::ret(libc::SECCOMP_RET_KILL_PROCESS));
    if program.len() > MAX_INSTRUCTIONS {
        let reason =
            format!("makes a program of {} instructions; the kernel takes {MAX_INSTRUCTIONS}", program.len());
        return Err(Error::config("linux.seccomp.syscalls", reason));
    }
    Ok(Filter { program, flags: flags(profile) })
}

/// What the specification forbids, in a profile that could be compiled all the same.
fn check(profile: &LinuxSeccomp) -> Result<()> {
    let wrong = |field: &str, reason: &str| Err(Error::config(format!("linux.seccomp.{field}"), reason));
    let takes = |action| matches!(action, Action::ScmpActErrno | Action::ScmpActTrace);
    let reason = "is for the actions SCMP_ACT_ERRNO and SCMP_ACT_TRACE only";
    if profile.default_errno_ret().is_some() && !takes(profile.default_action()) {
        return wrong("defaultErrnoRet", reason);
    }
    if profile.listener_metadata().is_some() && profile.listener_path().is_none() {
        return wrong("listenerMetadata", "needs listenerPath");
    }
    for (index, syscall) in profile.syscalls().iter().flatten().enumerate() {
        if syscall.names().is_empty() {
            return wrong(&format!("syscalls[{index}].names"), "must name at least one system call");
        }
        if syscall.errno_ret().is_some() && !takes(syscall.action()) {
            return wrong(&format!("syscalls[{index}].errnoRet"), reason);
        }
    }
    Ok(())
}

fn flags(profile: &LinuxSeccomp) -> u32 {
    let mut flags = 0;
    for flag in profile.flags().iter().flatten() {
        flags |= match flag {
            Flag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
            Flag::SeccompFilterFlagTsync => libc::SECCOMP_FILTER_FLAG_TSYNC,
            Flag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            Flag::SeccompFilterFlagWaitKillableRecv => libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
        } as u32;
    }
    if profile.syscalls().iter().flatten().any(|syscall| syscall.action() == Action::ScmpActNotify) {
        // The process has one thread, so there is none to synchronise; the kernel takes only one of these flags.
        flags &= !(libc::SECCOMP_FILTER_FLAG_TSYNC as u32);
        flags |= libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;
    }
    flags
}

/// The value that a filter returns for an action.
fn action(action: Action, errno: Option<u32>) -> u32 {
    let errno = errno.map(|errno| errno & libc::SECCOMP_RET_DATA);
    match action {
        Action::ScmpActKill | Action::ScmpActKillThread => libc::SECCOMP_RET_KILL_THREAD,
        Action::ScmpActKillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        Action::ScmpActTrap => libc::SECCOMP_RET_TRAP,
        Action::ScmpActErrno => libc::SECCOMP_RET_ERRNO | errno.unwrap_or(libc::EPERM as u32),
        Action::ScmpActNotify => libc::SECCOMP_RET_USER_NOTIF,
        Action::ScmpActTrace => libc::SECCOMP_RET_TRACE | errno.unwrap_or(0),
        Action::ScmpActLog => libc::SECCOMP_RET_LOG,
        Action::ScmpActAllow => libc::SECCOMP_RET_ALLOW,
    }
}

/// Adds the profile's rules to a table by number. A name without a number here belongs to another architecture or a
/// newer kernel: engines list those too, so it is passed over.
fn rules(
    profile: &LinuxSeccomp,
    table: &mut BTreeMap<u32, Verdict>,
    number: impl Fn(&str) -> Option<u32>,
) -> Result<()> {
    for (index, syscall) in profile.syscalls().iter().flatten().enumerate() {
        let value = action(syscall.action(), syscall.errno_ret());
        let rules = conditional(index, syscall, value)?;
        for number in syscall.names().iter().filter_map(|name| number(name)) {
            let verdict = table.entry(number).or_insert_with(|| Verdict::Conditional(Vec::new()));
            match verdict {
                // One rule without conditions decides, whatever other rules say of arguments (libseccomp does so too).
                Verdict::Conditional(_) if rules.is_empty() => *verdict = Verdict::Always(value),
                Verdict::Conditional(known) => known.extend(rules.iter().cloned()),
                Verdict::Always(_) => {}
            }
        }
    }
    Ok(())
}

/// The rules of one entry that look at arguments: one that needs all conditions, or, where an argument is named
/// twice, one for each condition (that is how runc reads it, so engines' profiles expect it).
fn conditional(index: usize, syscall: &LinuxSyscall, value: u32) -> Result<Vec<Rule>> {
    let mut conditions = Vec::new();
    let mut seen = 0u32;
    let mut twice = false;
    for (position, argument) in syscall.args().iter().flatten().enumerate() {
        let field = format!("linux.seccomp.syscalls[{index}].args[{position}].index");
        if argument.index() > 5 {
            return Err(Error::config(
                field,
                format!("{}: a system call has arguments 0 to 5", argument.index()),
            ));
        }
        twice |= seen & 1 << argument.index() != 0;
        seen |= 1 << argument.index();
        let comparison = match argument.op() {
            Operator::ScmpCmpNe => Comparison::NotEqual,
            Operator::ScmpCmpLt => Comparison::Less,
            Operator::ScmpCmpLe => Comparison::LessOrEqual,
            Operator::ScmpCmpEq => Comparison::Equal,
            Operator::ScmpCmpGe => Comparison::GreaterOrEqual,
            Operator::ScmpCmpGt => Comparison::Greater,
            Operator::ScmpCmpMaskedEq => Comparison::MaskedEqual { mask: argument.value() },
        };
        let value = match comparison {
            Comparison::MaskedEqual { .. } => argument.value_two().unwrap_or(0),
            _ => argument.value(),
        };
        conditions.push(Condition { argument: argument.index() as u32, comparison, value });
    }
    Ok(match (conditions.is_empty(), twice) {
        (true, _) => Vec::new(),
        (false, false) => vec![Rule { conditions, value }],
        (false, true) => conditions.into_iter().map(|c| Rule { conditions: vec![c], value }).collect(),
    })
}

#[cfg(test)]
mod tests;
