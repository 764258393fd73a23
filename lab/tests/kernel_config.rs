//! The lean kernel that this machine has is the one that the fragment describes.

use lab::kernel;

#[test]
fn the_cached_lean_kernel_has_every_option_of_the_fragment() {
    let kernels = kernel::list().expect("the cache can be read");
    let Some(lean) = kernels.iter().find(|kernel| kernel.is_current()) else {
        let reason = "no lean kernel of this version in the cache: `lab kernel build` makes it";
        println!("SKIPPED ({reason})");
        assert!(std::env::var_os("CI").is_none(), "{reason}");
        return;
    };
    assert_eq!(lean.options_missed().expect("its configuration is kept"), Vec::<String>::new());
    assert!(lean.meta.works_without_vtx, "the system call patch is in it");
}
