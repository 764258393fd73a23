//! Classic BPF, as `seccomp(2)` takes it: the program sees a `struct seccomp_data` and returns an action.
//!
//! System calls with the same verdict and neighbouring numbers become one interval, and the intervals a binary search
//! tree: a filter over 400 system calls is decided in about six comparisons, and the kernel, which tries every number
//! once when it loads a filter (its action cache), loads it faster than a chain of 400.

use std::collections::BTreeMap;

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W,
};
use libc::{SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_LOG, sock_filter};

/// Offsets in `struct seccomp_data` (linux/seccomp.h); arguments are 64 bits wide, little-endian.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Placeholders for jump targets, resolved when the length of what is jumped over is known.
const PASS: u8 = 254;
const FAIL: u8 = 255;

/// What happens to a system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The same for all arguments.
    Always(u32),
    /// That of the first rule that fits the arguments.
    Conditional(Vec<Rule>),
}

/// All conditions hold: this value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    pub(super) value: u32,
}

/// A comparison of one argument with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) argument: u32,
    pub(super) comparison: Comparison,
    pub(super) value: u64,
}

/// The specification's operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    NotEqual,
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
    MaskedEqual { mask: u64 },
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn jump(test: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: (BPF_JMP | test | BPF_K) as u16, jt, jf, k }
}

fn load(offset: u32) -> sock_filter {
    statement(BPF_LD | BPF_W | BPF_ABS, offset)
}

pub(super) fn ret(value: u32) -> sock_filter {
    statement(BPF_RET | BPF_K, value)
}

/// The numbers from 0 up, cut where the verdict changes: (first number, program).
///
/// Numbers beyond the highest that the profile knows are newer than the profile. They answer ENOSYS, not the
/// profile's EPERM, so that a C library falls back to the older call it has instead of giving up.
pub(super) fn intervals(
    table: &BTreeMap<u32, Verdict>,
    unspecific: u32,
    x86_64: bool,
) -> Vec<(u32, Vec<sock_filter>)> {
    let newer = if matches!(unspecific, SECCOMP_RET_ALLOW | SECCOMP_RET_LOG) {
        unspecific
    } else {
        SECCOMP_RET_ERRNO | libc::ENOSYS as u32
    };
    let highest = table.keys().rev().find(|number| **number < super::X32_BIT).copied();
    let mut intervals: Vec<(u32, Vec<sock_filter>)> = vec![(0, vec![ret(unspecific)])];
    let mut set = |from: u32, program: Vec<sock_filter>| match intervals.last_mut() {
        Some((start, last)) if *start == from => *last = program,
        Some((_, last)) if *last == program => {}
        _ => intervals.push((from, program)),
    };
    for (&number, verdict) in table {
        let program = match verdict {
            Verdict::Always(value) => vec![ret(*value)],
            Verdict::Conditional(rules) => rules_program(rules, unspecific),
        };
        set(number, program);
        let kills_x32 = x86_64 && number == super::X32_BIT;
        if !table.contains_key(&(number + 1)) && !kills_x32 {
            set(number + 1, vec![ret(if Some(number) == highest { newer } else { unspecific })]);
        }
    }
    intervals
}

/// A binary search over the intervals, the number being in the accumulator.
pub(super) fn tree(intervals: &[(u32, Vec<sock_filter>)]) -> Vec<sock_filter> {
    let [(_, program)] = intervals else {
        let (low, high) = intervals.split_at(intervals.len() / 2);
        let (low, boundary, high) = (tree(low), high[0].0, tree(high));
        let mut program = Vec::with_capacity(low.len() + high.len() + 2);
        // A conditional jump reaches 255 instructions; beyond, it jumps over an unconditional one.
        if let Ok(distance) = u8::try_from(low.len()) {
            program.push(jump(BPF_JGE, boundary, distance, 0));
        } else {
            program.push(jump(BPF_JGE, boundary, 0, 1));
            program.push(statement(BPF_JMP | BPF_JA, low.len() as u32));
        }
        program.extend(low);
        program.extend(high);
        return program;
    };
    program.clone()
}

/// The body, run for calls of this architecture only; others fall through to what follows.
pub(super) fn for_architecture(architecture: u32, body: Vec<sock_filter>) -> Vec<sock_filter> {
    let mut program = vec![
        load(ARCHITECTURE),
        jump(BPF_JEQ, architecture, 1, 0),
        statement(BPF_JMP | BPF_JA, body.len() as u32 + 1),
        load(NUMBER),
    ];
    program.extend(body);
    program
}

fn rules_program(rules: &[Rule], otherwise: u32) -> Vec<sock_filter> {
    let mut program = Vec::new();
    for rule in rules {
        let mut body: Vec<sock_filter> = rule.conditions.iter().flat_map(condition).collect();
        body.push(ret(rule.value));
        resolve(&mut body, FAIL);
        program.extend(body);
    }
    program.push(ret(otherwise));
    program
}

/// Compares a 64-bit argument by its two halves, as the machine for BPF has 32 bits.
fn condition(condition: &Condition) -> Vec<sock_filter> {
    let Condition { argument, comparison, value } = *condition;
    let (low, high) = (load(ARGUMENTS + 8 * argument), load(ARGUMENTS + 8 * argument + 4));
    let (value_low, value_high) = (value as u32, (value >> 32) as u32);
    let mut program = match comparison {
        Comparison::Equal => {
            vec![high, jump(BPF_JEQ, value_high, 0, FAIL), low, jump(BPF_JEQ, value_low, 0, FAIL)]
        }
        Comparison::NotEqual => {
            vec![high, jump(BPF_JEQ, value_high, 0, PASS), low, jump(BPF_JEQ, value_low, FAIL, 0)]
        }
        Comparison::Greater | Comparison::GreaterOrEqual => {
            let last = if comparison == Comparison::Greater { BPF_JGT } else { BPF_JGE };
            vec![
                high,
                jump(BPF_JGT, value_high, PASS, 0),
                jump(BPF_JEQ, value_high, 0, FAIL),
                low,
                jump(last, value_low, 0, FAIL),
            ]
        }
        Comparison::Less | Comparison::LessOrEqual => {
            let last = if comparison == Comparison::Less { BPF_JGE } else { BPF_JGT };
            vec![
                high,
                jump(BPF_JGT, value_high, FAIL, 0),
                jump(BPF_JEQ, value_high, 0, PASS),
                low,
                jump(last, value_low, FAIL, 0),
            ]
        }
        Comparison::MaskedEqual { mask } => {
            let and = |mask| statement(BPF_ALU | BPF_AND | BPF_K, mask);
            vec![
                high,
                and((mask >> 32) as u32),
                jump(BPF_JEQ, value_high, 0, FAIL),
                low,
                and(mask as u32),
                jump(BPF_JEQ, value_low, 0, FAIL),
            ]
        }
    };
    resolve(&mut program, PASS);
    program
}

/// Turns a placeholder into the distance to the end of this piece (at most 37 instructions: six conditions).
fn resolve(program: &mut [sock_filter], placeholder: u8) {
    let length = program.len();
    for (index, instruction) in program.iter_mut().enumerate() {
        let distance = (length - index - 1) as u8;
        if instruction.code & 7 == BPF_JMP as u16 {
            for target in [&mut instruction.jt, &mut instruction.jf] {
                if *target == placeholder {
                    *target = distance;
                }
            }
        }
    }
}
