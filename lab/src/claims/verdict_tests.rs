//! Known figures in, verdict out.

use super::Decision::{DoesNotHoldHere, Holds, HoldsWithACondition, UndecidedHere};
use super::*;

const MIB: u64 = 1 << 20;

fn idle(pss: u64, drop: u64) -> Idle {
    Idle { pss: pss * MIB, available_drop: (drop * MIB) as i64, available_noise: MIB as i64 }
}

fn stats(values: &[f64]) -> Stats {
    Stats::of(values, 1).unwrap()
}

/// The verdict on these times of container and booted VM, on hardware.
fn timed(container: &[f64], vm: &[f64]) -> Verdict {
    of_times(container, vm, None, true)
}

fn of_times(container: &[f64], vm: &[f64], restored: Option<&[f64]>, representative: bool) -> Verdict {
    let ratio = Ratio::of(vm, container, 1);
    time(&Times {
        container: &stats(container),
        vm: &stats(vm),
        ratio: ratio.as_ref(),
        restored: restored.map(stats).as_ref(),
        representative,
    })
}

fn says(verdict: &Verdict, decision: Decision, part: &str) {
    assert_eq!(verdict.decision, decision, "{verdict:?}");
    assert!(verdict.because.iter().any(|text| text.contains(part)), "{verdict:?}");
}

#[test]
fn a_vm_that_takes_more_memory_by_both_measures_confirms_the_claim_on_resources() {
    assert_eq!(resources(idle(2, 1), idle(11, 5)).decision, Holds);
}

#[test]
fn one_measure_alone_is_a_condition_and_none_refutes() {
    says(&resources(idle(2, 5), idle(11, 5)), HoldsWithACondition, "MemAvailable shows no difference");
    says(&resources(idle(10, 1), idle(10, 9)), HoldsWithACondition, "in the kernel");
    says(&resources(idle(10, 5), idle(9, 5)), DoesNotHoldHere, "either measure");
}

#[test]
fn a_difference_within_the_noise_of_the_machine_is_none() {
    let noisy = Idle { available_noise: 100 << 20, ..idle(11, 60) };
    says(&resources(idle(2, 1), noisy), HoldsWithACondition, "noise");
}

#[test]
fn the_whole_claim_on_time_holds_only_for_a_vm_that_takes_minutes_on_hardware() {
    assert_eq!(timed(&[10.0; 8], &[180_000.0; 8]), Verdict { decision: Holds, because: vec![] });
    says(&timed(&[10.0; 8], &[6000.0; 8]), HoldsWithACondition, "not by minutes");
    says(&timed(&[400.0; 8], &[180_000.0; 8]), HoldsWithACondition, "not at once");
}

#[test]
fn a_vm_without_hardware_never_gives_an_unconditional_verdict() {
    let verdict = of_times(&[10.0; 8], &[180_000.0; 8], None, false);
    says(&verdict, HoldsWithACondition, "upper bound");
}

#[test]
fn a_faster_vm_refutes_the_claim_on_time() {
    says(&timed(&[10.0; 8], &[5.0; 8]), DoesNotHoldHere, "sooner");
    says(&timed(&[10.0], &[5.0]), DoesNotHoldHere, "sooner");
}

#[test]
fn times_that_overlap_decide_nothing() {
    assert_eq!(timed(&[10.0, 30.0], &[20.0, 40.0]).decision, UndecidedHere);
    let mixed = [10.0, 11.0, 12.0, 13.0, 14.0, 15.0];
    assert_eq!(timed(&mixed, &mixed).decision, UndecidedHere);
    assert_eq!(timed(&[10.0], &[20.0]).decision, HoldsWithACondition, "one run each may do, where far apart");
}

#[test]
fn a_snapshot_that_is_as_fast_as_the_container_is_a_condition_and_a_slower_one_is_not() {
    let booted = [180_000.0; 8];
    says(&of_times(&[10.0; 8], &booted, Some(&[9.0; 8]), true), HoldsWithACondition, "snapshot");
    assert_eq!(of_times(&[10.0; 8], &booted, Some(&[1000.0; 8]), true).decision, Holds);
}

const NOTHING: Shared = Shared { kernel: false, hostname: false, processes: false };

#[test]
fn the_host_s_kernel_under_the_container_and_another_under_the_vm_confirm_the_claim_on_isolation() {
    assert_eq!(isolation(Shared { kernel: true, ..NOTHING }, NOTHING).decision, Holds);
}

#[test]
fn a_vm_on_the_host_s_kernel_refutes_it() {
    let kernel = Shared { kernel: true, ..NOTHING };
    says(
        &isolation(Shared { processes: true, ..kernel }, kernel),
        DoesNotHoldHere,
        "ran on the host's kernel",
    );
}

#[test]
fn a_container_with_a_kernel_of_its_own_refutes_it_too() {
    says(&isolation(NOTHING, NOTHING), DoesNotHoldHere, "did not run on the host's kernel either");
}

#[test]
fn a_vm_that_sees_something_of_the_host_is_a_condition() {
    let all = Shared { kernel: true, hostname: true, processes: true };
    says(&isolation(all, Shared { hostname: true, ..NOTHING }), HoldsWithACondition, "name");
    let one = Shared { kernel: true, ..NOTHING };
    says(&isolation(one, Shared { processes: true, ..NOTHING }), DoesNotHoldHere, "as much");
}

#[test]
fn a_heavier_disk_confirms_the_claim_on_portability_and_a_heavier_kernel_is_a_condition() {
    let sizes = |layers, disk, kernel| Sizes { layers, disk, kernel };
    assert_eq!(portability(sizes(40, 100, 15)).decision, Holds);
    says(&portability(sizes(100, 101, 15_000)), HoldsWithACondition, "kernel goes along");
    says(&portability(sizes(100_000, 100_000, 15)), DoesNotHoldHere, "not heavier");
}

#[test]
fn a_fixed_surplus_drowns_in_an_application_ten_times_its_size() {
    let least = drowned_from(11, 1).unwrap() as f64;
    assert!((11.0 + least + 1.0) / (1.0 + least + 1.0) <= HEAVIER, "{least}");
    assert!((11.0 + least - 1.0) / (1.0 + least - 1.0) > HEAVIER, "{least}");
    assert_eq!(drowned_from(1, 1), None);
}
