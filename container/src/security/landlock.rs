//! Landlock: a list of paths beyond which the workload sees no files, asked for by annotations. The specification has no
//! field for it, and no privilege is needed: a layer that also holds in a container of root's.
//!
//! ```json
//! "annotations": { "org.two-walls.landlock.read": "/bin:/lib:/etc", "org.two-walls.landlock.write": "/tmp:/dev" }
//! ```

use std::collections::HashMap;
use std::ffi::CString;

use crate::error::{Error, Result};
use crate::spec::c_string;
use crate::sys::landlock::all_rights;

/// The annotations: paths, separated by colons, that can be read and executed, and those that can be changed too.
pub(crate) const ANNOTATIONS: [&str; 2] = ["org.two-walls.landlock.read", "org.two-walls.landlock.write"];

/// The rights to give up, and the paths below which they are kept.
#[derive(Debug)]
pub(crate) struct Landlock {
    /// All that this kernel knows.
    pub(crate) all: u64,
    pub(crate) read: Vec<CString>,
    pub(crate) write: Vec<CString>,
}

impl Landlock {
    /// None where no annotation asks for it.
    pub(crate) fn new(annotations: &HashMap<String, String>) -> Result<Option<Self>> {
        let asked = ANNOTATIONS.map(|name| annotations.get(name).map(|paths| (name, paths)));
        if asked.iter().all(Option::is_none) {
            return Ok(None);
        }
        let field = |name: &str| format!("annotations[{name:?}]");
        let Some(all) = all_rights() else {
            let name = asked.iter().flatten().next().map_or("", |(name, _)| name);
            return Err(Error::config(field(name), "this kernel has no Landlock in force; leave it out"));
        };
        let paths = |asked: Option<(&str, &String)>| -> Result<Vec<CString>> {
            let Some((name, paths)) = asked else { return Ok(Vec::new()) };
            let paths = paths.split(':').filter(|path| !path.is_empty());
            paths
                .map(|path| {
                    if path.starts_with('/') {
                        c_string(&field(name), path)
                    } else {
                        Err(Error::config(field(name), format!("{path:?} is no absolute path")))
                    }
                })
                .collect()
        };
        Ok(Some(Self { all, read: paths(asked[0])?, write: paths(asked[1])? }))
    }
}
