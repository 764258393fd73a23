//! Builds the programs of the default image, which the lab carries with it; `src/image/embedded.rs` makes an image of them.

use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let program = fs::read(freestanding::build::for_build_script(lab_workloads::NAME)?)?;
    let names: Vec<&str> = lab_workloads::APPLETS.iter().map(|applet| applet.name).collect();
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: cargo runs this")?);
    fs::write(out.join("applets"), names.join("\n"))?;
    // Tells builds apart, no more: at run time it saves hashing the program to see whether the store has it.
    let mut hasher = DefaultHasher::new();
    (&program, &names).hash(&mut hasher);
    println!("cargo::rustc-env=LAB_WORKLOADS_HASH={:016x}", hasher.finish());
    Ok(())
}
