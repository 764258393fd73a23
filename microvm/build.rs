//! Builds the guest's PID 1, which the VMM carries with it and puts into every guest's initramfs.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    freestanding::build::for_build_script("guest-init")?;
    // Cargo forgets the profile's `strip` for a package that has an `opt-level` of its own there.
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    if is("PROFILE", "release") && is("DEBUG", "false") {
        println!("cargo:rustc-link-arg-bin=lab-vm=-Wl,--strip-all,-z,pack-relative-relocs");
    }
    Ok(())
}
