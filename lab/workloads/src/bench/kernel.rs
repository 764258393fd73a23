//! What the kernel is asked for most: system calls, switches between processes, new processes.

use core::hint::black_box;

use freestanding::args::Pointer;
use freestanding::sys::file::{self, flags, pipe};
use freestanding::sys::process::{self, Fork, Which};
use freestanding::sys::time::monotonic;
use freestanding::{Errno, OwnedFd, sys};

use super::sample;

/// The empty call, one that copies a byte, one that walks a path.
pub fn calls(repeats: u64) -> sys::Result<()> {
    sample("getppid", repeats, u64::MAX, |rounds| {
        timed(rounds, || {
            black_box(process::parent());
            Ok(())
        })
    })?;
    let zero = file::open(c"/dev/zero", flags::READ, 0)?;
    let mut byte = [0];
    sample("read", repeats, u64::MAX, |rounds| timed(rounds, || zero.read(&mut byte).map(drop)))?;
    sample("open-close", repeats, u64::MAX, |rounds| {
        timed(rounds, || file::open(c"/", flags::READ | flags::DIRECTORY, 0).map(drop))
    })
}

fn timed(rounds: u64, mut call: impl FnMut() -> sys::Result<()>) -> sys::Result<u64> {
    let start = monotonic();
    for _ in 0..rounds {
        call()?;
    }
    Ok(monotonic() - start)
}

/// A byte to a child and back: one round is two switches, and is reported as half of it.
pub fn switches(repeats: u64) -> sys::Result<()> {
    let (there, to) = pipe()?;
    let (back, from) = pipe()?;
    match process::fork(0)? {
        Fork::Child => {
            drop((to, back));
            let mut byte = [0];
            while there.read(&mut byte) == Ok(1) && from.write(&byte).is_ok() {}
            process::exit(0)
        }
        Fork::Parent(child) => {
            drop((there, from));
            let result = sample("switch", repeats, u64::MAX, |rounds| ping(&to, &back, rounds));
            drop(to);
            process::wait(Which::One(child), true)?;
            result
        }
    }
}

fn ping(to: &OwnedFd, back: &OwnedFd, rounds: u64) -> sys::Result<u64> {
    let mut byte = [1];
    let nanos = timed(rounds, || {
        to.write(&byte)?;
        if back.read(&mut byte)? == 1 { Ok(()) } else { Err(Errno::PIPE) }
    })?;
    Ok(nanos / 2)
}

/// A child that ends at once, and one that becomes another program first.
pub fn processes(repeats: u64) -> sys::Result<()> {
    let child = |program: bool| match process::fork(0)? {
        Fork::Child => {
            if program {
                // This same file, on the host too, whatever its own `true` is.
                process::execve(c"/proc/self/exe", &[Pointer::new(c"true"), Pointer::END], &[Pointer::END]);
            }
            process::exit(0)
        }
        Fork::Parent(child) => process::wait(Which::One(child), true).map(drop),
    };
    sample("fork", repeats, 1 << 10, |rounds| timed(rounds, || child(false)))?;
    sample("fork-exec", repeats, 1 << 10, |rounds| timed(rounds, || child(true)))
}
