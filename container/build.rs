//! Links `lab-container` statically where the machine can: see `lab_clock::link`.

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    lab_clock::link::statically("lab-container")
}
