//! Whatever runs the guest: our own VMM, or QEMU where there is no KVM.

use std::os::unix::net::UnixListener;
use std::time::Instant;

use crate::devices::serial::Console;
use crate::qemu::Qemu;
use crate::vcpu::End;
use crate::vm::Vm;
use crate::{Accel, Error};

/// A running machine, as [`crate::Sandbox`] needs it.
pub(crate) enum Machine {
    /// Ours.
    Kvm(Box<Vm>),
    /// QEMU's.
    Tcg(Qemu),
}

impl Machine {
    pub(crate) fn accel(&self) -> Accel {
        match self {
            Self::Kvm(_) => Accel::Kvm,
            Self::Tcg(_) => Accel::Tcg,
        }
    }

    pub(crate) fn end(&self) -> Option<End> {
        match self {
            Self::Kvm(vm) => vm.end(),
            Self::Tcg(qemu) => qemu.end(),
        }
    }

    pub(crate) fn wait_until(&self, deadline: Instant) -> Result<Option<End>, Error> {
        match self {
            Self::Kvm(vm) => vm.wait_until(deadline),
            Self::Tcg(qemu) => Ok(qemu.wait_until(deadline)),
        }
    }

    pub(crate) fn pause(&self) {
        match self {
            Self::Kvm(vm) => vm.pause(),
            Self::Tcg(qemu) => qemu.pause(),
        }
    }

    pub(crate) fn resume(&self) {
        match self {
            Self::Kvm(vm) => vm.resume(),
            Self::Tcg(qemu) => qemu.resume(),
        }
    }

    /// Lets debuggers connect by this socket, if there is one.
    pub(crate) fn debug(&mut self, listener: Option<UnixListener>) -> Result<(), Error> {
        match (self, listener) {
            (_, None) => Ok(()),
            (Self::Kvm(vm), Some(listener)) => vm.debug(listener),
            (Self::Tcg(_), Some(_)) => {
                let reason =
                    "QEMU's translator runs this guest, and only KVM's can be debugged; leave out --gdb";
                Err(Error::Device { device: "machine", reason: reason.into() })
            }
        }
    }

    pub(crate) fn console(&self) -> &Console {
        match self {
            Self::Kvm(vm) => vm.console(),
            Self::Tcg(qemu) => qemu.console(),
        }
    }
}
