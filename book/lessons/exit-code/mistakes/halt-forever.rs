//! How a machine ends: an exit code out of the VM.

use lesson::vm::{Answer, Exit, serve};

/// Where the guest says its exit code.
const EXIT: u16 = 0xf4;

/// What is none of the guest's own codes, as a shell's 128 and more.
const FAILED: u8 = 255;

fn main() -> std::io::Result<()> {
    let code = serve(|exit| match exit {
        Exit::Out(EXIT, code) => Answer::Stop(code),
        Exit::Shutdown => Answer::Stop(FAILED),
        Exit::Halt => Answer::Go,
        Exit::In(_) => Answer::Value(0xff),
        Exit::Out(..) => Answer::Go,
    })?;
    std::process::exit(code.into())
}
