//! Builds the guest's PID 1, which the VMM carries with it and puts into every guest's initramfs.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    freestanding::build::for_build_script("guest-init")?;
    Ok(())
}
