//! A device: the serial port.

use lesson::vm::{Answer, Exit, serve};

fn main() -> std::io::Result<()> {
    let text: Vec<u8> = Vec::new();
    // TODO: the data register, the line status register, the scratch register.
    serve(|exit| match exit {
        Exit::In(_) => Answer::Value(0xff),
        Exit::Out(..) => Answer::Go,
        Exit::Halt | Exit::Shutdown => Answer::Stop(0),
    })?;
    println!("{}", String::from_utf8_lossy(&text));
    Ok(())
}
