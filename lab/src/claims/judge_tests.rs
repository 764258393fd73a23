//! What was gathered in, claims out.

use super::super::fixtures::{gathered, without};
use super::super::verdict::Decision::{self, Holds, HoldsWithACondition, UndecidedHere};
use super::*;
use crate::measure::record::Backing;

fn decisions(gathered: &Gathered) -> Vec<Decision> {
    judge(gathered).iter().map(|claim| claim.verdict.decision).collect()
}

#[test]
fn the_verdicts_follow_from_the_figures() {
    let usual = gathered();
    assert_eq!(decisions(&usual), [Holds, HoldsWithACondition, Holds, HoldsWithACondition]);

    let mut swapped = usual.clone();
    std::mem::swap(&mut swapped.container, &mut swapped.vm);
    swapped.sizes = swapped.sizes.map(|sizes| verdict::Sizes { layers: 100 * sizes.kernel, ..sizes });
    let memory = swapped.comparison.walls[0].memory.clone();
    swapped.comparison.walls[1].memory = memory;
    let decided = decisions(&swapped);
    for index in [0, 2, 3] {
        assert_eq!(decided[index], Decision::DoesNotHoldHere, "{index}");
    }
}

#[test]
fn without_a_wall_every_claim_that_needs_it_is_undecided_and_the_other_s_figures_stay() {
    assert_eq!(decisions(&without(Wall::Vm)), [UndecidedHere; 4]);
    for claim in judge(&without(Wall::Vm)) {
        assert!(claim.verdict.because[0].contains("/dev/kvm is missing"), "{claim:?}");
        assert!(claim.evidence.iter().any(|evidence| evidence.container.is_some()), "{claim:?}");
        assert!(claim.evidence.iter().all(|evidence| evidence.vm.is_none()), "{claim:?}");
    }
    assert_eq!(decisions(&without(Wall::Container))[..3], [UndecidedHere; 3]);
}

#[test]
fn a_stopped_session_is_undecided_and_says_so() {
    let mut stopped = gathered();
    stopped.comparison.ended = Ended::Interrupted { reason: "stopped by the user".into() };
    for wall in &mut stopped.comparison.walls {
        wall.memory = None;
    }
    let claim = &judge(&stopped)[0];
    assert_eq!(claim.verdict.decision, UndecidedHere);
    assert!(claim.verdict.because[0].contains("stopped by the user"), "{claim:?}");
}

#[test]
fn every_claim_in_json_says_what_the_vm_was_run_by() {
    for claim in judge(&gathered()) {
        let json = serde_json::to_value(&claim).unwrap();
        assert_eq!(json["vm_by"], serde_json::json!({"by": "kvm", "backing": "software"}));
    }
}

#[test]
fn only_a_vm_on_hardware_is_free_of_the_condition_of_not_being_on_it() {
    let upper_bound =
        |gathered: &Gathered| judge(gathered)[1].verdict.because.join(" ").contains("upper bound");
    let mut usual = gathered();
    assert!(upper_bound(&usual));
    usual.comparison.walls[1].obtained = Obtained::Kvm { backing: Backing::Nested };
    assert!(upper_bound(&usual));
    usual.comparison.walls[1].obtained = Obtained::Kvm { backing: Backing::Hardware };
    assert!(!upper_bound(&usual));
}

#[test]
fn a_run_that_booted_does_not_count_as_restored() {
    let mut booted = gathered();
    assert!(restored(&booted).is_some());
    booted.restored.as_mut().unwrap().walls[0].samples = booted.comparison.walls[1].samples.clone();
    assert_eq!(restored(&booted), None);
}

#[test]
fn a_snapshot_is_set_against_the_warm_and_the_cold_container() {
    let text = against_snapshot(10.0, Some(100.0), 50.0);
    assert!(text.contains("5.00× the container's time, 0.50× that of its first run"), "{text}");
    assert!(text.contains("against a cold container only"), "{text}");
    assert!(against_snapshot(10.0, Some(20.0), 50.0).contains("does not flip"));
    assert!(against_snapshot(10.0, None, 5.0).contains("that flips the order here."));
}
