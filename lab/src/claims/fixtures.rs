//! Made-up findings for tests: the shape of real ones, with round numbers.

use super::verdict::Sizes;
use super::{Gathered, Judged, SCHEMA, VERSION, judge};
use crate::measure::fixtures as measured;
use crate::measure::inside::View;
use crate::measure::plan::Wall;

fn view(boot_id: &str, hostname: &str, sees_host_process: bool) -> View {
    View {
        release: "6.18.0".into(),
        boot_id: boot_id.into(),
        hostname: hostname.into(),
        processes: 3,
        sees_host_process,
    }
}

/// Both walls, the VM not hardware-backed, and restored in a tenth of its boot.
pub fn gathered() -> Gathered {
    let comparison = measured::record(8);
    let mut restored = comparison.clone();
    restored.walls.remove(0);
    for sample in &mut restored.walls[0].samples {
        sample.marks.retain(|name, _| !name.starts_with("kernel-"));
        for at in sample.marks.values_mut() {
            *at = sample.spawned + (*at - sample.spawned) / 10;
        }
    }
    Gathered {
        comparison,
        restored: Some(restored),
        host: Ok(view("host", "host", true)),
        container: Ok(view("host", "box", false)),
        vm: Ok(view("guest", "box", false)),
        layers: Ok(100_000),
        sizes: Ok(Sizes { layers: 100_000, disk: 100_000, kernel: 15_000_000 }),
    }
}

/// The same on a machine that lacks this wall.
pub fn without(wall: Wall) -> Gathered {
    let all = gathered();
    let lacks = || "/dev/kvm is missing".to_owned();
    let comparison = measured::without(all.comparison.clone(), wall);
    match wall {
        Wall::Container => Gathered { comparison, container: Err(lacks()), ..all },
        Wall::Vm => Gathered { comparison, restored: None, vm: Err(lacks()), sizes: Err(lacks()), ..all },
    }
}

/// With its claims.
pub fn judged(gathered: Gathered) -> Judged {
    Judged { schema: SCHEMA, version: VERSION, claims: judge(&gathered), gathered }
}
