//! A filter of system calls put into force (seccomp(2)): what a container pays for its own, by the filter's length.

use std::hint::black_box;
use std::thread;

use criterion::Criterion;
use nix::libc::{self, sock_filter, sock_fprog};

/// A filter that asks so many times for a number that no call has, and then lets all pass.
fn program(comparisons: u16) -> Vec<sock_filter> {
    let statement = |code: u32, k: u32| sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let mut program = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    program.extend((0..comparisons).map(|number| {
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0x4000_0000 + u32::from(number))
    }));
    program.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW));
    program
}

/// Puts it into force on this thread, which keeps it to its end.
fn load(program: &mut [sock_filter]) -> bool {
    let filter = sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: prctl(2) with numbers only; seccomp(2) reads the program, which outlives the call, and copies it.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter) == 0
    }
}

/// Each in a thread of its own; `none` is that thread alone.
pub fn loading(criterion: &mut Criterion) {
    let mut group = super::group(criterion, "seccomp");
    for (name, comparisons) in [("none", None), ("2 instructions", Some(0)), ("400 comparisons", Some(400))] {
        let loaded = || {
            let mut program = comparisons.map(program);
            thread::spawn(move || program.as_mut().is_none_or(|program| load(program)))
                .join()
                .is_ok_and(|done| done)
        };
        if !loaded() {
            eprintln!("SKIPPED seccomp/{name} (the kernel refuses the filter)");
            continue;
        }
        group.bench_function(name, |bencher| bencher.iter(|| black_box(loaded())));
    }
}
