//! ARG: where a value comes from, and how far it reaches (Dockerfile reference, "ARG").
//!
//! ```text
//!  before the first FROM ── seen by FROM; by a stage that declares the name again, without a value
//!  in a stage            ── seen from its line on, and by RUN as a variable of the environment
//!  predefined            ── proxies, seen by RUN if the user gives them; platforms, if a stage declares them
//! ```

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Build;
use super::words::Words;
use crate::engine::Error;
use crate::image::Platforms;

/// Which RUN may use without a declaration.
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// The ARGs that are seen at some place.
#[derive(Debug, Default)]
pub(super) struct Scope {
    /// What the user gives.
    given: HashMap<String, String>,
    values: BTreeMap<String, String>,
    /// Which of what the user gives was asked for.
    used: RefCell<BTreeSet<String>>,
}

/// What a stage's ARG may see beside its own scope: that before the first FROM, and the environment.
type Around<'a> = Option<(&'a Scope, &'a dyn Fn(&str) -> Option<String>)>;

impl Scope {
    /// Before the first FROM: with the platforms that are built for and on.
    pub fn global(build: &Build) -> Result<Self, Error> {
        let mut scope = Self::of_stage(build);
        for (prefix, platform) in
            [("TARGET", Platforms::of(build.platform.as_deref())?), ("BUILD", Platforms::this_machine())]
        {
            let known = [
                ("PLATFORM", platform.to_string()),
                ("OS", platform.os().to_string()),
                ("ARCH", platform.architecture().to_string()),
                ("VARIANT", String::new()),
            ];
            scope.values.extend(known.map(|(name, value)| (format!("{prefix}{name}"), value)));
        }
        Ok(scope)
    }

    /// A stage's own, with nothing declared yet.
    pub fn of_stage(build: &Build) -> Self {
        Self { given: build.arguments.clone(), ..Self::default() }
    }

    /// The value of a name that is declared.
    pub fn value(&self, name: &str) -> Option<String> {
        self.values.get(name).cloned()
    }

    /// What RUN sees in its environment, and what its layer depends on. Proxies are no dependency: they say how to reach
    /// something, not what it is.
    pub fn declared(&self) -> &BTreeMap<String, String> {
        &self.values
    }

    /// The proxies that the user gives.
    pub fn proxies(&self) -> impl Iterator<Item = (&String, &String)> {
        let is_proxy = |name: &str| PROXIES.iter().any(|known| known.eq_ignore_ascii_case(name));
        self.given.iter().filter(move |(name, _)| is_proxy(name) && !self.values.contains_key(*name))
    }

    /// `ARG NAME[=VALUE] …`
    pub fn declare(&mut self, text: &str, escape: char, around: Around<'_>) -> Result<(), Error> {
        // Each sees those before it, also of the same line.
        let split = Words { escape, value: &|_| None };
        for raw in split.split(text) {
            let (name, default) = match raw.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (raw, None),
            };
            if name.is_empty() || name.contains(['$', '"', '\'']) {
                return Err(Error::bad(format!("ARG {name}: a name is expected, NAME[=VALUE]")));
            }
            let env = around.as_ref().map(|(_, env)| *env);
            let seen = |name: &str| env.and_then(|env| env(name)).or_else(|| self.value(name));
            let default = default.map(|text| Words { escape, value: &seen }.word(&text)).transpose()?;
            let given = self.given.get(&name).cloned();
            let inherited = around.as_ref().and_then(|(global, _)| global.value(&name));
            if given.is_some() {
                let used = around.as_ref().map_or(&self.used, |(global, _)| &global.used);
                used.borrow_mut().insert(name.clone());
            }
            if let Some(value) = given.or(default).or(inherited) {
                self.values.insert(name, value);
            }
        }
        Ok(())
    }

    /// What the user gave and no ARG asked for.
    pub fn unused(&self) -> Vec<&str> {
        let used = self.used.borrow();
        let known = |name: &str| {
            used.contains(name)
                || PROXIES.iter().any(|proxy| proxy.eq_ignore_ascii_case(name))
                || self.values.contains_key(name)
        };
        let mut unused: Vec<&str> =
            self.given.keys().map(String::as_str).filter(|name| !known(name)).collect();
        unused.sort_unstable();
        unused
    }
}
