//! Builds the guest's PID 1, which the VMM carries with it and puts into every guest's initramfs; and has `lab-vm` linked
//! statically where the machine can.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    freestanding::build::for_build_script("guest-init")?;
    lab_clock::link::statically("lab-vm")?;
    Ok(())
}
