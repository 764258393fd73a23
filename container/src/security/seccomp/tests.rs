//! The compiled programs, run by an interpreter of the instructions they use.

use std::collections::HashSet;

use libc::{
    BPF_AND, BPF_JEQ, BPF_JGE, BPF_JGT, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS,
};
use oci_spec::runtime::{Capability, LinuxSeccomp};
use syscalls::x86_64::Sysno;

use super::*;

/// What the kernel would do with a call: `Documentation/networking/filter.rst`.
fn run(filter: &Filter, arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_le_bytes());
    data.extend(arch.to_le_bytes());
    data.extend(0u64.to_le_bytes());
    data.extend(arguments.iter().flat_map(|argument| argument.to_le_bytes()));
    let (mut pc, mut a) = (0, 0u32);
    loop {
        let i = filter.program[pc];
        pc += 1;
        match u32::from(i.code) {
            0x20 => a = u32::from_le_bytes(data[i.k as usize..][..4].try_into().unwrap()),
            0x06 => return i.k,
            0x05 => pc += i.k as usize,
            code if code == 0x04 | BPF_AND => a &= i.k,
            code => {
                let jumps = match code & 0xf0 {
                    JEQ => a == i.k,
                    JGT => a > i.k,
                    JGE => a >= i.k,
                    _ => panic!("unknown instruction {code:#x}"),
                };
                pc += usize::from(if jumps { i.jt } else { i.jf });
            }
        }
    }
}
const JEQ: u32 = BPF_JEQ;
const JGT: u32 = BPF_JGT;
const JGE: u32 = BPF_JGE;

fn profile(json: &str) -> LinuxSeccomp {
    serde_json::from_str(json).unwrap()
}

/// Whether an argument and a value are in a relation.
type Holds = fn(u64, u64) -> bool;

const EPERM: u32 = SECCOMP_RET_ERRNO | 1;

#[test]
fn every_operator_compares_all_64_bits() {
    let values = [0u64, 1, 5, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0005, 0x5_0000_0001, u64::MAX];
    let operators: [(&str, Holds); 6] = [
        ("SCMP_CMP_EQ", |a, v| a == v),
        ("SCMP_CMP_NE", |a, v| a != v),
        ("SCMP_CMP_LT", |a, v| a < v),
        ("SCMP_CMP_LE", |a, v| a <= v),
        ("SCMP_CMP_GT", |a, v| a > v),
        ("SCMP_CMP_GE", |a, v| a >= v),
    ];
    for (operator, holds) in operators {
        for value in values {
            let json = format!(
                r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["close"],"action":"SCMP_ACT_ALLOW",
                "args":[{{"index":3,"value":{value},"op":"{operator}"}}]}}]}}"#
            );
            let filter = compile(&profile(&json)).unwrap();
            for argument in values {
                let expected = if holds(argument, value) { SECCOMP_RET_ALLOW } else { EPERM };
                let arguments = [0, 0, 0, argument, 0, 0];
                let got = run(&filter, AUDIT_X86_64, Sysno::close.id() as u32, arguments);
                assert_eq!(got, expected, "{argument:#x} {operator} {value:#x}");
            }
        }
    }
}

#[test]
fn conditions_of_one_rule_must_all_hold_but_of_one_argument_any() {
    let both = profile(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["socket"],"action":"SCMP_ACT_ALLOW",
        "args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":1,"value":2,"op":"SCMP_CMP_EQ"}]}]}"#,
    );
    let filter = compile(&both).unwrap();
    let socket = Sysno::socket.id() as u32;
    assert_eq!(run(&filter, AUDIT_X86_64, socket, [1, 2, 0, 0, 0, 0]), SECCOMP_RET_ALLOW);
    assert_eq!(run(&filter, AUDIT_X86_64, socket, [1, 3, 0, 0, 0, 0]), EPERM);
    let any = profile(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["socket"],"action":"SCMP_ACT_ALLOW",
        "args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":0,"value":2,"op":"SCMP_CMP_EQ"}]}]}"#,
    );
    let filter = compile(&any).unwrap();
    for family in [1, 2] {
        assert_eq!(run(&filter, AUDIT_X86_64, socket, [family, 0, 0, 0, 0, 0]), SECCOMP_RET_ALLOW);
    }
}

#[test]
fn masked_comparison_looks_only_at_the_mask() {
    let filter = compile(&profile(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["clone"],"action":"SCMP_ACT_KILL_PROCESS",
        "args":[{"index":0,"value":4294967312,"valueTwo":16,"op":"SCMP_CMP_MASKED_EQ"}]}]}"#,
    ))
    .unwrap();
    let clone = Sysno::clone.id() as u32;
    assert_eq!(run(&filter, AUDIT_X86_64, clone, [0x1f, 0, 0, 0, 0, 0]), SECCOMP_RET_KILL_PROCESS);
    assert_eq!(run(&filter, AUDIT_X86_64, clone, [0x1_0000_001f, 0, 0, 0, 0, 0]), SECCOMP_RET_ALLOW);
}

#[test]
fn other_architectures_are_no_way_around() {
    let filter = compile(&profile(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#)).unwrap();
    assert_eq!(run(&filter, AUDIT_X86_64, 0, [0; 6]), SECCOMP_RET_ALLOW);
    assert_eq!(run(&filter, AUDIT_I386, 0, [0; 6]), SECCOMP_RET_KILL_PROCESS);
    assert_eq!(run(&filter, AUDIT_X86_64, X32_BIT | 1, [0; 6]), SECCOMP_RET_KILL_PROCESS);
}

#[test]
fn a_call_newer_than_the_profile_does_not_exist() {
    let filter = compile(&profile(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read","close_range"],"action":"SCMP_ACT_ALLOW"}]}"#,
    ))
    .unwrap();
    assert_eq!(run(&filter, AUDIT_X86_64, Sysno::mount.id() as u32, [0; 6]), EPERM);
    let enosys = SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    assert_eq!(run(&filter, AUDIT_X86_64, Sysno::close_range.id() as u32 + 1, [0; 6]), enosys);
}

#[test]
fn the_default_profile_allows_work_and_refuses_the_walls() {
    let filter = compile(&profile::default_seccomp(&HashSet::new())).unwrap();
    let call = |number: Sysno, arguments| run(&filter, AUDIT_X86_64, number.id() as u32, arguments);
    for number in
        [Sysno::read, Sysno::execve, Sysno::openat2, Sysno::setresuid, Sysno::capset, Sysno::accept4]
    {
        assert_eq!(call(number, [0; 6]), SECCOMP_RET_ALLOW, "{number}");
    }
    for number in
        [Sysno::mount, Sysno::bpf, Sysno::keyctl, Sysno::reboot, Sysno::unshare, Sysno::io_uring_setup]
    {
        assert_eq!(call(number, [0; 6]), EPERM, "{number}");
    }
    assert_eq!(call(Sysno::clone, [libc::CLONE_VM as u64, 0, 0, 0, 0, 0]), SECCOMP_RET_ALLOW);
    assert_eq!(call(Sysno::clone, [libc::CLONE_NEWUSER as u64, 0, 0, 0, 0, 0]), EPERM);
    assert_eq!(call(Sysno::clone3, [0; 6]), SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
    assert_eq!(call(Sysno::personality, [0x40000, 0, 0, 0, 0, 0]), EPERM);
}

#[test]
fn a_capability_brings_its_calls_back() {
    let filter = compile(&profile::default_seccomp(&HashSet::from([Capability::SysAdmin]))).unwrap();
    for number in [Sysno::mount, Sysno::clone3, Sysno::unshare] {
        assert_eq!(run(&filter, AUDIT_X86_64, number.id() as u32, [0; 6]), SECCOMP_RET_ALLOW);
    }
}

#[test]
fn the_default_program_is_short() {
    let filter = compile(&profile::default_seccomp(&HashSet::new())).unwrap();
    assert!(filter.program.len() < 600, "{} instructions", filter.program.len());
}

#[test]
fn an_argument_that_no_call_has_is_refused_by_name() {
    let error = compile(&profile(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_LOG",
        "args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}"#,
    ))
    .unwrap_err();
    assert!(error.to_string().starts_with("linux.seccomp.syscalls[0].args[0].index"), "{error}");
}
