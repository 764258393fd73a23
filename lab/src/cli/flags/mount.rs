//! `--mount type=…,source=…,target=…`: what `-v` says, in words (docker's syntax).

use std::collections::HashMap;

use anyhow::{Context as _, bail, ensure};
use bollard_stubs::models::{
    Mount, MountBindOptions, MountTmpfsOptions, MountType, MountVolumeOptions, MountVolumeOptionsDriverConfig,
};

/// Reads one.
pub fn mount(text: &str) -> anyhow::Result<Mount> {
    read(text).with_context(|| format!("--mount {text}"))
}

fn read(text: &str) -> anyhow::Result<Mount> {
    let mut mount = Mount { typ: Some(MountType::VOLUME), ..Mount::default() };
    let (mut bind, mut tmpfs) = (MountBindOptions::default(), MountTmpfsOptions::default());
    let mut volume = MountVolumeOptions::default();
    let mut driver = MountVolumeOptionsDriverConfig::default();
    let mut prefixes: Vec<&str> = Vec::new();
    for word in text.split(',') {
        let (key, value) = word.split_once('=').map_or((word, None), |(key, value)| (key, Some(value)));
        let given =
            || value.filter(|value| !value.is_empty()).with_context(|| format!("{key} needs a value"));
        let truth = || match value {
            None | Some("1" | "true") => Ok(true),
            Some("0" | "false") => Ok(false),
            Some(other) => bail!("{key}={other}: use true or false"),
        };
        let key = key.to_ascii_lowercase();
        prefixes.extend(["bind-", "volume-", "tmpfs-"].into_iter().filter(|prefix| key.starts_with(prefix)));
        match key.as_str() {
            "type" => mount.typ = Some(kind(given()?)?),
            "source" | "src" => mount.source = Some(given()?.to_owned()),
            "target" | "dst" | "destination" => mount.target = Some(given()?.to_owned()),
            "readonly" | "ro" => mount.read_only = Some(truth()?),
            "consistency" => {}
            "bind-propagation" => bind.propagation = Some(given()?.parse().map_err(anyhow::Error::msg)?),
            "bind-nonrecursive" => bind.non_recursive = Some(truth()?),
            "volume-nocopy" => volume.no_copy = Some(truth()?),
            "volume-label" => volume.labels.get_or_insert_default().extend([super::label(given()?)]),
            "volume-driver" => driver.name = Some(given()?.to_owned()),
            "volume-opt" => {
                let pair = super::pairs(&[given()?.to_owned()], "volume-opt")?;
                driver.options.get_or_insert_with(HashMap::new).extend(pair);
            }
            "tmpfs-size" => {
                let size = lab::engine::limits::parse_size(given()?).map_err(anyhow::Error::msg)?;
                tmpfs.size_bytes = Some(size as i64);
            }
            "tmpfs-mode" => {
                let mode = i64::from_str_radix(given()?, 8).context("tmpfs-mode is octal, such as 1777")?;
                tmpfs.mode = Some(mode);
            }
            _ => bail!(
                "{key} is not known; there are type, source, target, readonly, bind-propagation, bind-nonrecursive, \
                 volume-nocopy, volume-label, volume-driver, volume-opt, tmpfs-size and tmpfs-mode"
            ),
        }
    }
    ensure!(mount.target.is_some(), "target is missing");
    let own = match mount.typ {
        Some(MountType::BIND) => "bind-",
        Some(MountType::TMPFS) => "tmpfs-",
        _ => "volume-",
    };
    if let Some(other) = prefixes.into_iter().find(|&prefix| prefix != own) {
        bail!("what begins with {other} does not go with this type");
    }
    match mount.typ {
        Some(MountType::BIND) => {
            let source = mount.source.as_deref().context("a bind mount needs a source")?;
            let path = std::path::absolute(source).context("source")?;
            mount.source = Some(path.display().to_string());
            mount.bind_options = Some(bind);
        }
        Some(MountType::TMPFS) => {
            ensure!(mount.source.is_none(), "a tmpfs has no source");
            mount.tmpfs_options = Some(tmpfs);
        }
        _ => {
            if driver.name.is_some() || driver.options.is_some() {
                volume.driver_config = Some(driver);
            }
            mount.volume_options = Some(volume);
        }
    }
    Ok(mount)
}

fn kind(text: &str) -> anyhow::Result<MountType> {
    match text {
        "bind" => Ok(MountType::BIND),
        "volume" => Ok(MountType::VOLUME),
        "tmpfs" => Ok(MountType::TMPFS),
        _ => bail!("type={text}: use bind, volume or tmpfs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_read_and_what_does_not_fit_together_refused() {
        let data = mount("source=data,target=/d,ro,volume-nocopy").unwrap();
        assert_eq!((data.typ, data.read_only), (Some(MountType::VOLUME), Some(true)));
        assert_eq!(data.volume_options.unwrap().no_copy, Some(true));
        let tmpfs = mount("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770").unwrap().tmpfs_options.unwrap();
        assert_eq!((tmpfs.size_bytes, tmpfs.mode), (Some(1 << 20), Some(0o1770)));
        assert!(mount("type=bind,source=x,target=/x").unwrap().source.unwrap().starts_with('/'));
        for wrong in [
            "",
            "type=bind,target=/x",
            "source=x",
            "type=fly,target=/x",
            "type=tmpfs,source=x,target=/x",
            "type=tmpfs,target=/x,volume-nocopy",
            "target=/x,readonly=perhaps",
            "target=/x,colour=red",
        ] {
            assert!(mount(wrong).is_err(), "{wrong}");
        }
    }
}
