//! The smallest program: says hello to each argument, exits with their number.

#![no_std]
#![no_main]

use freestanding::{Args, Fd, Text};

freestanding::program!(main);

fn main(args: Args) -> u8 {
    for name in args.iter().skip(1) {
        let mut line = Text::<256>::new();
        line.text("hello, ").text(name.to_bytes()).text("\n");
        if Fd::OUTPUT.write_all(line.bytes()).is_err() {
            return 255;
        }
    }
    if args.variable(b"PANIC").is_some() {
        panic!("asked to");
    }
    (args.len() - 1) as u8
}
