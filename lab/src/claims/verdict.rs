//! The rules by which figures decide a claim. Nothing here reads, runs or prints: known figures in, verdict out.
//!
//! | claim | holds | only with a condition | does not hold here |
//! |---|---|---|---|
//! | resources | an idle VM takes more memory by both measures | the two measures disagree | it takes no more |
//! | time | the container is ready at once, the VM after minutes | the order is right, but one of these two is not; or the VM was not on hardware | the VM is ready first |
//! | isolation | the container runs on the host's kernel, the VM on one of its own | the VM still sees something of the host | the VM sees as much of the host |
//! | portability | what the VM needs is heavier, with or without its kernel | only its kernel makes it heavier | it is not heavier |
//!
//! A wall without figures leaves its claim undecided, and so do runs too close to each other to be told apart.

use serde::{Deserialize, Serialize};

use crate::measure::stats::{Ratio, Stats};

// ANCHOR: marks
/// "Almost at once", in milliseconds: a tenth of a second is what people take as at once (Miller, *Response time in
/// man-computer conversational transactions*, 1968).
pub const AT_ONCE: f64 = 100.0;
/// "Several minutes", in milliseconds: two.
pub const MINUTES: f64 = 120_000.0;
/// Heavier by less than this is not heavier: a tenth.
pub const HEAVIER: f64 = 1.1;
// ANCHOR_END: marks

/// How a claim came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// The figures say so.
    Holds,
    /// They say so under the conditions named beside it.
    HoldsWithACondition,
    /// They say the opposite, on this machine.
    DoesNotHoldHere,
    /// There are no figures that could decide.
    UndecidedHere,
}

impl Decision {
    /// In words.
    pub const fn label(self) -> &'static str {
        match self {
            Decision::Holds => "holds",
            Decision::HoldsWithACondition => "holds with a condition",
            Decision::DoesNotHoldHere => "does not hold here",
            Decision::UndecidedHere => "undecided here",
        }
    }
}

/// A decision and what it rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// How the claim came out.
    pub decision: Decision,
    /// The conditions, or the reasons.
    pub because: Vec<String>,
}

impl Verdict {
    fn new(decision: Decision, because: &[&str]) -> Self {
        Self { decision, because: because.iter().map(|&text| text.to_owned()).collect() }
    }

    /// No figures: why.
    pub fn undecided(reason: &str) -> Self {
        Self::new(Decision::UndecidedHere, &[reason])
    }

    /// Holds, where there are no conditions.
    fn under(conditions: &[&str]) -> Self {
        let holds = if conditions.is_empty() { Decision::Holds } else { Decision::HoldsWithACondition };
        Self::new(holds, conditions)
    }
}

/// Idle memory of one sandbox, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// Proportional set size of its processes.
    pub pss: u64,
    /// By how much `MemAvailable` fell.
    pub available_drop: i64,
    /// By how much it wanders by itself.
    pub available_noise: i64,
}

/// "A VM needs many resources, for it runs a whole operating system; a container only what its application needs."
pub fn resources(container: Idle, vm: Idle) -> Verdict {
    let more = vm.pss as f64 > HEAVIER * container.pss as f64;
    let noise = container.available_noise.max(vm.available_noise);
    let difference = vm.available_drop - container.available_drop;
    match (more, difference > noise) {
        (true, true) => Verdict::under(&[]),
        (true, false) => Verdict::under(&[
            "as its processes are charged: MemAvailable shows no difference above its noise",
        ]),
        (false, true) => Verdict::under(&[
            "as MemAvailable shows it, in the kernel: the processes themselves take no more",
        ]),
        (false, false) => Verdict::new(
            Decision::DoesNotHoldHere,
            &["an idle VM takes no more memory than an idle container, by either measure"],
        ),
    }
}

/// Start to first instruction, in milliseconds.
#[derive(Clone, Debug)]
pub struct Times<'a> {
    /// The container's.
    pub container: &'a Stats,
    /// The booted VM's.
    pub vm: &'a Stats,
    /// VM over container.
    pub ratio: Option<&'a Ratio>,
    /// The VM's from a snapshot, where one was measured.
    pub restored: Option<&'a Stats>,
    /// Whether the VM ran as on ordinary hardware.
    pub representative: bool,
}

/// "A container is there almost at once; a VM starts a whole operating system, which may take several minutes."
pub fn time(times: &Times<'_>) -> Verdict {
    let Times { container, vm, .. } = times;
    // With few runs there is no interval; then the slowest of the one must be faster than the fastest of the other.
    let interval = times.ratio.and_then(|ratio| ratio.interval);
    let first = |a: &Stats, b: &Stats| a.max < b.min;
    let container_first = interval.map_or_else(|| first(container, vm), |interval| interval.low > 1.0);
    let vm_first = interval.map_or_else(|| first(vm, container), |interval| interval.high < 1.0);
    if vm_first {
        return Verdict::new(Decision::DoesNotHoldHere, &["the VM reached its first instruction sooner"]);
    }
    if !container_first {
        return Verdict::undecided("the two walls' times overlap; more runs may tell them apart");
    }
    let mut conditions = Vec::new();
    if container.median > AT_ONCE {
        conditions
            .push("the container is first, but not at once: it takes more than a tenth of a second here");
    }
    if vm.median < MINUTES {
        conditions.push(
            "the VM is later, but not by minutes: this guest starts a kernel and one program, no services",
        );
    }
    if times.restored.is_some_and(|restored| !first(container, restored)) {
        conditions.push("the VM is booted: restored from a snapshot it is not later");
    }
    if !times.representative {
        conditions
            .push("on this machine: the VM did not run on bare hardware, so its time is only an upper bound");
    }
    Verdict::under(&conditions)
}

/// What of the host is seen from behind a wall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared {
    /// The boot id: the running kernel itself.
    pub kernel: bool,
    /// The host name.
    pub hostname: bool,
    /// The host's processes.
    pub processes: bool,
}

impl Shared {
    fn count(self) -> usize {
        [self.kernel, self.hostname, self.processes].into_iter().filter(|&shared| shared).count()
    }
}

/// "A VM has an operating system of its own, and so isolates more than a container, which shares the host's kernel."
pub fn isolation(container: Shared, vm: Shared) -> Verdict {
    if vm.kernel || vm.count() >= container.count() {
        let reason = match (vm.kernel, container.kernel) {
            (true, _) => "the VM's workload ran on the host's kernel",
            (false, false) => "the container's workload did not run on the host's kernel either",
            (false, true) => "the VM's workload sees as much of the host as the container's",
        };
        return Verdict::new(Decision::DoesNotHoldHere, &[reason]);
    }
    let mut conditions = Vec::new();
    if vm.hostname {
        conditions.push("the VM has the host's name");
    }
    if vm.processes {
        conditions.push("the VM's workload sees the host's processes");
    }
    if !container.kernel {
        conditions
            .push("the container has a kernel of its own here too; it shares other things with the host");
    }
    Verdict::under(&conditions)
}

/// What each wall needs on another machine, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// The image's layers as they are stored.
    pub layers: u64,
    /// The VM's root disk.
    pub disk: u64,
    /// The VM's kernel, with the modules that are loaded.
    pub kernel: u64,
}

/// "VMs are usually heavier than containers, which makes them harder to move."
pub fn portability(sizes: Sizes) -> Verdict {
    let heavier = |bytes: u64| bytes as f64 > HEAVIER * sizes.layers as f64;
    if heavier(sizes.disk) {
        Verdict::under(&[])
    } else if heavier(sizes.disk + sizes.kernel) {
        Verdict::under(&[
            "the VM's kernel goes along with the image: where the other machine has that kernel, the rest is as light",
        ])
    } else {
        Verdict::new(Decision::DoesNotHoldHere, &["disk and kernel together are not heavier than the layers"])
    }
}

/// The size of an application from which on a fixed surplus adds less than a tenth to it; none where it never adds more.
pub fn drowned_from(with: u64, without: u64) -> Option<u64> {
    // (application + with) ≤ HEAVIER · (application + without)
    let least = (with as f64 - HEAVIER * without as f64) / (HEAVIER - 1.0);
    (least > 0.0).then_some(least as u64)
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
