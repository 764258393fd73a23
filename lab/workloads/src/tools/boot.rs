//! boot: the first process of a machine that was started from a bootable disk.
//!
//! It mounts what programs expect, runs the script beside it as the image's user, takes the ends of all orphans, tells how the
//! workload ended, and switches the machine off.

use freestanding::args::Pointer;
use freestanding::sys::process::{self, Fork, Which};
use freestanding::sys::{self, file, identity, machine, mount};
use freestanding::text::parse_number;
use freestanding::{Args, Text};

use crate::output::{failed, say};

/// Boots, runs, ends. Returns only where the machine cannot even be restarted.
pub fn boot(args: Args) -> u8 {
    let number = |at: usize| args.get(at).and_then(|text| parse_number(text.to_bytes())).unwrap_or(0) as u32;
    let (uid, gid) = (number(1), number(2));
    for (place, kind) in [(c"/proc", c"proc"), (c"/sys", c"sysfs"), (c"/dev", c"devtmpfs")] {
        // It is there in most images; where it cannot be mounted, the workload may still not need it.
        let _ = file::mkdir(place, 0o755);
        let _ = mount::mount(kind, place, kind, mount::flags::NO_SUID, c"");
    }
    let _ = file::mkdir(c"/tmp", 0o1777);
    let code = match process::fork(0) {
        Ok(Fork::Child) => child(uid, gid),
        Ok(Fork::Parent(child)) => loop {
            match process::wait(Which::Any, true) {
                Ok(Some((pid, ended))) if pid.0 == child.0 => break ended.code(),
                Ok(_) => {}
                Err(errno) => break failed("boot", b"wait", errno),
            }
        },
        Err(errno) => failed("boot", b"fork", errno),
    };
    let mut line = Text::<64>::new();
    line.text("lab: the workload ended with ").number(code.into()).text("\n");
    say(&[line.bytes()]);
    machine::sync();
    let _ = machine::power_off();
    let _ = machine::restart();
    code
}

/// Becomes the workload.
fn child(uid: u32, gid: u32) -> u8 {
    let become_user = || -> sys::Result<()> {
        process::new_session()?;
        if (uid, gid) != (0, 0) {
            identity::set_groups(&[])?;
            identity::set_gid(gid)?;
            identity::set_uid(uid)?;
        }
        Ok(())
    };
    if let Err(errno) = become_user() {
        process::exit(failed("boot", b"user", errno));
    }
    let arguments = [Pointer::new(c"sh"), Pointer::new(c"/.lab/start"), Pointer::END];
    let path = c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let environment =
        [Pointer::new(path), Pointer::new(c"HOME=/"), Pointer::new(c"TERM=linux"), Pointer::END];
    let errno = process::execve(c"/.lab/sh", &arguments, &environment);
    process::exit(failed("boot", b"/.lab/sh", errno))
}
