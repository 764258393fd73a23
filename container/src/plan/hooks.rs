//! A hook that the first process runs, made ready.

use oci_spec::runtime::Hook;
use rustix::event::Timespec;

use crate::error::Result;
use crate::spec::{c_path, c_string};
use crate::sys::CStrings;

/// A program, its arguments, its environment and how long it may take.
#[derive(Debug)]
pub(crate) struct HookPlan {
    pub(crate) path: std::ffi::CString,
    pub(crate) arguments: CStrings,
    pub(crate) environment: CStrings,
    pub(crate) timeout: Option<Timespec>,
}

impl HookPlan {
    pub(crate) fn new(field: &str, hook: &Hook) -> Result<Self> {
        let strings = |strings: &Option<Vec<String>>| {
            strings.iter().flatten().map(|string| c_string(field, string)).collect::<Result<Vec<_>>>()
        };
        let path = c_path(field, hook.path())?;
        let mut arguments = strings(hook.args())?;
        if arguments.is_empty() {
            arguments.push(path.clone());
        }
        Ok(Self {
            path,
            arguments: CStrings::new(arguments),
            environment: CStrings::new(strings(hook.env())?),
            timeout: hook.timeout().map(|seconds| Timespec { tv_sec: seconds.max(0), tv_nsec: 0 }),
        })
    }
}
