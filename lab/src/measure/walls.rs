//! What this machine can measure: which walls there are, by what the VM runs, with which kernel, on which image.

use std::ffi::OsString;

use thiserror::Error;

use super::plan::Wall;
use super::record::{Backing, KernelRecord, Obtained, Plan};
use super::session::{Request, WallCall, WallRequest};
use crate::image::{Store, embedded};

/// Idle containers that live at once while their memory is measured: one costs little more than the noise of
/// `MemAvailable`, ten are far above it.
const IDLE_CONTAINERS: usize = 10;
/// Idle VMs: one alone is far above the noise, and each takes seconds where KVM has no hardware.
const IDLE_VMS: usize = 3;

/// Why nothing can be measured at all.
#[derive(Debug, Error)]
pub enum Error {
    /// The own program is not to be found.
    #[error("find the lab's own program, to run it again: {0}; start it from a file that still exists")]
    Program(#[source] std::io::Error),
}

/// What is asked for on the command line.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// The image; none for the default one.
    pub image: Option<String>,
    /// The command; empty for the image's own, or for the default image's hello.
    pub command: Vec<String>,
    /// The memory limit as it was written.
    pub memory: Option<String>,
    /// The guest kernel's name.
    pub kernel: Option<String>,
    /// `auto`, `kvm` or `tcg`.
    pub accelerator: String,
    /// Whether to measure memory.
    pub with_memory: bool,
}

/// What stands behind `/dev/kvm`, or why it cannot be used.
///
/// # Errors
/// What is missing, with the command that helps.
pub fn backing() -> Result<Backing, String> {
    let probe = microvm::arch::probe::this_machine().map_err(|error| error.to_string())?;
    Ok(match (probe.hardware, super::environment::is_virtual_machine()) {
        (false, _) => Backing::Software,
        (true, Some(true)) => Backing::Nested,
        (true, _) => Backing::Hardware,
    })
}

/// By what the VM will run, and the accelerator that makes it so.
///
/// # Errors
/// Why there is no way to run one.
pub fn accelerator(choice: &str) -> Result<(Obtained, &'static str), String> {
    let tcg = || Ok((Obtained::Tcg, "tcg"));
    match (choice, if choice == "tcg" { Err(String::new()) } else { backing() }) {
        ("tcg", _) => tcg(),
        (_, Ok(backing)) => Ok((Obtained::Kvm { backing }, "kvm")),
        ("auto", Err(_)) if crate::doctor::find_program("qemu-system-x86_64").is_some() => tcg(),
        (_, Err(reason)) => Err(reason),
    }
}

/// Prepares a comparison on this machine.
///
/// # Errors
/// Where not even one wall could be tried.
pub fn request(choice: &Choice, runs: u32, seed: u64) -> Result<Request, Error> {
    let program = std::env::current_exe().map_err(Error::Program)?;
    let image = choice.image.clone().unwrap_or_else(|| "lab".into());
    let command = if choice.image.is_none() { vec!["hello".into()] } else { choice.command.clone() };
    let call = |options: Vec<OsString>, idle| WallCall {
        program: program.clone(),
        options,
        image: image.clone().into(),
        command: command.iter().map(Into::into).collect(),
        idle: if choice.with_memory { idle } else { 0 },
    };
    let container = WallRequest {
        wall: Wall::Container,
        obtained: Obtained::HostKernel,
        kernel: Some(KernelRecord {
            release: rustix::system::uname().release().to_string_lossy().into_owned(),
            origin: "the host's".into(),
            digest: None,
        }),
        call: Ok(call(options(choice, Wall::Container, None), IDLE_CONTAINERS)),
    };
    let kernel = crate::kernel::resolve(choice.kernel.as_deref());
    let (obtained, vm_call) = match accelerator(&choice.accelerator) {
        Ok((obtained, name)) => (obtained, Ok(call(options(choice, Wall::Vm, Some(name)), IDLE_VMS))),
        Err(reason) => (Obtained::Nothing, Err(reason)),
    };
    let vm_call = vm_call.and_then(|call| match &kernel {
        Ok(Some(_)) => Ok(call),
        Ok(None) => Err("no guest kernel yet; make one with: lab kernel build".into()),
        Err(error) => Err(error.to_string()),
    });
    let obtained = if vm_call.is_ok() { obtained } else { Obtained::Nothing };
    let vm = WallRequest {
        wall: Wall::Vm,
        obtained,
        kernel: kernel.ok().flatten().map(|kernel| KernelRecord {
            release: kernel.meta.release,
            origin: format!("{}, {}", kernel.meta.name, kernel.meta.origin.name()),
            digest: (!kernel.hash.is_empty()).then_some(kernel.hash),
        }),
        call: vm_call,
    };
    let digest = digest(&image);
    let plan = Plan { digest, command, runs, seed, memory: choice.memory.clone(), image };
    Ok(Request { reproduce: reproduce(choice, &plan), plan, walls: vec![container, vm] })
}

/// The options of `lab run` for a wall.
fn options(choice: &Choice, wall: Wall, accelerator: Option<&str>) -> Vec<OsString> {
    let mut options = vec!["run", "--quiet", "--runtime", wall.name()];
    if let Some(memory) = &choice.memory {
        options.extend(["--memory", memory]);
    }
    if wall == Wall::Vm {
        // Named, so that what is recorded is what was used.
        options.extend(accelerator.into_iter().flat_map(|name| ["--accel", name]));
        options.extend(choice.kernel.iter().flat_map(|name| ["--kernel", name]));
    }
    options.into_iter().map(Into::into).collect()
}

/// The command line that makes such a result again.
fn reproduce(choice: &Choice, plan: &Plan) -> Vec<String> {
    let mut words: Vec<String> = ["lab", "compare"].map(Into::into).into();
    let mut flag = |name: &str, value: &str| words.extend([name.to_owned(), value.to_owned()]);
    flag("--runs", &plan.runs.to_string());
    flag("--seed", &plan.seed.to_string());
    if let Some(memory) = &choice.memory {
        flag("--memory", memory);
    }
    if let Some(kernel) = &choice.kernel {
        flag("--kernel", kernel);
    }
    if choice.accelerator != "auto" {
        flag("--accel", &choice.accelerator);
    }
    if !choice.with_memory {
        words.push("--no-memory".into());
    }
    words.push(plan.image.clone());
    words.extend(plan.command.iter().cloned());
    words
}

/// The digest of the image's manifest, where the image is at hand; where it is not, each run will say so.
fn digest(image: &str) -> Option<String> {
    let store = Store::open_default().ok()?;
    embedded::ensure(&store).ok()?;
    Some(store.resolve(image).ok()?.manifest().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_to_reproduce_holds_all_that_was_chosen() {
        let choice = Choice {
            image: Some("lab".into()),
            command: vec!["sh".into(), "-c".into(), "exit 3".into()],
            memory: Some("64m".into()),
            kernel: Some("lean".into()),
            accelerator: "tcg".into(),
            with_memory: false,
        };
        let plan = Plan {
            image: "lab".into(),
            digest: None,
            command: choice.command.clone(),
            runs: 5,
            seed: 9,
            memory: choice.memory.clone(),
        };
        assert_eq!(
            crate::report::figures::command_line(&reproduce(&choice, &plan)),
            "lab compare --runs 5 --seed 9 --memory 64m --kernel lean --accel tcg --no-memory lab sh -c 'exit 3'"
        );
    }

    #[test]
    fn both_walls_get_the_same_limit_and_only_the_vm_a_kernel() {
        let choice = Choice { memory: Some("64m".into()), kernel: Some("lean".into()), ..Choice::default() };
        let of = |wall, accelerator| options(&choice, wall, accelerator).join(std::ffi::OsStr::new(" "));
        assert_eq!(of(Wall::Container, None), "run --quiet --runtime container --memory 64m");
        assert_eq!(
            of(Wall::Vm, Some("kvm")),
            "run --quiet --runtime vm --memory 64m --accel kvm --kernel lean"
        );
    }
}
