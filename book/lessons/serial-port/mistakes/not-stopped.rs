//! A device: the serial port.

use lesson::vm::{Answer, Exit, serve};

const DATA: u16 = 0x3f8;
const LINE_STATUS: u16 = 0x3fd;
const SCRATCH: u16 = 0x3ff;

/// Transmitter holding register empty, transmitter empty: our line is infinitely fast.
const READY: u8 = 0x60;

fn main() -> std::io::Result<()> {
    let mut text = Vec::new();
    let mut scratch = 0;
    serve(|exit| match exit {
        Exit::Out(DATA, byte) => {
            text.push(byte);
            Answer::Go
        }
        Exit::Out(SCRATCH, byte) => {
            scratch = byte;
            Answer::Go
        }
        Exit::In(LINE_STATUS) => Answer::Value(READY),
        Exit::In(SCRATCH) => Answer::Value(scratch),
        Exit::In(_) => Answer::Value(0xff),
        _ => Answer::Go,
    })?;
    println!("{}", String::from_utf8_lossy(&text));
    Ok(())
}
