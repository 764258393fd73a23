//! `lab-vm boot`: a kernel on its serial console, without a bundle.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use lab_clock::Mark;
use microvm::Error;
use microvm::boot::{self, Config};
use microvm::devices::serial::Console;
use microvm::initramfs::Initramfs;
use microvm::vcpu::End;

/// Boot a kernel with its console on standard output, without a bundle: to look at a kernel, and at where its boot spends
/// its time
#[derive(clap::Args)]
pub(super) struct Args {
    /// The kernel: a vmlinux or a bzImage
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// A static program that becomes /init of the initramfs
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// Memory in MiB
    #[arg(short, long, default_value_t = 64)]
    memory: u32,
    /// Number of vCPUs
    #[arg(long, default_value_t = 1)]
    cpus: u8,
    /// Enter the kernel by PVH, if it offers that
    #[arg(long)]
    pvh: bool,
    #[command(flatten)]
    look: super::Look,
}

fn listen(path: &Path) -> Result<UnixListener> {
    UnixListener::bind(path).with_context(|| format!("cannot make the socket {}", path.display()))
}

pub(super) fn run(args: Args) -> Result<ExitCode> {
    let timeline = super::timeline()?;
    let symbols = args.look.symbols()?;
    let mut initramfs = Initramfs::new();
    if let Some(init) = &args.init {
        initramfs.add_file("init", true, init)?;
    }
    let vm = boot::boot(Config {
        kernel: args.kernel,
        kernel_cache: None,
        initramfs,
        command_line: args.look.append.clone(),
        memory_mib: args.memory,
        vcpus: args.cpus,
        devices: Vec::new(),
        console: Console::new(Some(Box::new(io::stdout()))),
        plain: false,
        pvh: args.pvh,
        profile: symbols.is_some(),
        explain: args.look.explain(),
        gdb: args.look.gdb.as_deref().map(listen).transpose()?,
        at_end: None,
        timeline: timeline.clone(),
    })?;
    let end = vm.wait()?;
    timeline.mark(Mark::Exited);
    if let Some(path) = &args.look.gdb {
        let _ = std::fs::remove_file(path);
    }
    args.look.print(Some(&vm), &timeline, symbols.as_deref());
    match end {
        // A kernel that panics resets, too; who boots one to look at it sees that on the console.
        End::Asked(_) => Ok(ExitCode::SUCCESS),
        how => Err(Error::GuestDied { how, console: vm.console().last_lines(1) }.into()),
    }
}
