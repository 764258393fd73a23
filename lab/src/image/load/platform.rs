//! Which machines an image is for.

use oci_spec::image::{Arch, Descriptor, ImageConfiguration, ImageIndex, Os, Platform};

use super::oci::is_attestation;
use crate::image::error::{Error, Result};

/// A platform that images are chosen by.
#[derive(Clone, Debug)]
pub(crate) struct Platforms {
    os: Os,
    architecture: Arch,
    /// Only where the user names one: `v7` of `linux/arm/v7`.
    variant: Option<String>,
}

impl Platforms {
    /// This machine's.
    pub fn this_machine() -> Self {
        Self { os: Os::Linux, architecture: architecture(), variant: None }
    }

    /// `OS/ARCHITECTURE[/VARIANT]`, or one of the first two; this machine's where nothing is given.
    pub fn of(text: Option<&str>) -> Result<Self> {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(Self::this_machine()) };
        let parts: Vec<String> = text.split('/').map(str::to_ascii_lowercase).collect();
        let sound = |part: &String| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        if parts.len() > 3 || !parts.iter().all(sound) {
            return Err(Error::BadPlatform { text: text.to_owned() });
        }
        let architecture = |name: &str| match name {
            "x86_64" => Arch::Amd64,
            "aarch64" => Arch::ARM64,
            other => Arch::from(other),
        };
        Ok(match &parts[..] {
            [os] if os == "linux" => Self::this_machine(),
            [name] => Self { architecture: architecture(name), ..Self::this_machine() },
            [os, name, variant @ ..] => Self {
                os: Os::from(os.as_str()),
                architecture: architecture(name),
                variant: variant.first().cloned(),
            },
            [] => Self::this_machine(),
        })
    }

    pub fn os(&self) -> &Os {
        &self.os
    }

    pub fn architecture(&self) -> &Arch {
        &self.architecture
    }

    /// Whether an image's entry in an index is for it.
    pub fn fits(&self, platform: &Platform) -> bool {
        let variant = platform.variant().as_deref();
        *platform.os() == self.os
            && *platform.architecture() == self.architecture
            && self.variant.as_deref().is_none_or(|wanted| variant.is_none_or(|variant| variant == wanted))
    }

    /// Whether an image that says so itself is for it.
    pub fn fits_configuration(&self, config: &ImageConfiguration) -> bool {
        *config.os() == self.os && *config.architecture() == self.architecture
    }

    /// The first entry of an index that is for it; one that does not say for what it is will do where none says it is.
    pub fn choose<'a>(&self, index: &'a ImageIndex) -> Result<&'a Descriptor> {
        let images = || index.manifests().iter().filter(|descriptor| !is_attestation(descriptor));
        let ours =
            |descriptor: &&Descriptor| descriptor.platform().as_ref().is_some_and(|own| self.fits(own));
        let chosen =
            images().find(ours).or_else(|| images().find(|descriptor| descriptor.platform().is_none()));
        chosen.ok_or_else(|| {
            let offered = images().filter_map(|descriptor| descriptor.platform().as_ref()).map(text);
            Error::Platform { wanted: self.to_string(), offered: offered.collect::<Vec<_>>().join(", ") }
        })
    }
}

impl std::fmt::Display for Platforms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

/// A platform as people write it.
pub(super) fn text(platform: &Platform) -> String {
    let variant = platform.variant().as_deref().map(|variant| format!("/{variant}")).unwrap_or_default();
    format!("{}/{}{variant}", platform.os(), platform.architecture())
}

/// What OCI calls this machine's architecture (Go's GOARCH).
pub(crate) fn architecture() -> Arch {
    match std::env::consts::ARCH {
        "x86_64" => Arch::Amd64,
        "aarch64" => Arch::ARM64,
        other => Arch::from(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_read_in_all_its_forms() {
        for (given, read) in [
            ("linux/arm/v7", "linux/arm/v7"),
            ("linux/x86_64", "linux/amd64"),
            ("arm64", "linux/arm64"),
            ("windows/amd64", "windows/amd64"),
        ] {
            assert_eq!(Platforms::of(Some(given)).unwrap().to_string(), read);
        }
        for given in ["a/b/c/d", "linux/", "../x", "linux/am d"] {
            assert!(Platforms::of(Some(given)).is_err(), "{given}");
        }
    }
}
