//! `RUN --mount`: what a step sees and its layer does not have (Dockerfile reference, "RUN --mount").

use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};

use parse_dockerfile::Flag;
use rustix::fs::{FlockOperation, flock};

use super::configure::unknown_flag;
use super::words::Words;
use super::{Builder, Work};
use crate::engine::Error;
use crate::engine::error::Context as _;
use crate::engine::place::make_all;
use crate::engine::request::Extra;
use crate::image::Digest;

/// The mounts of one step, and its other flags.
#[derive(Default)]
pub(super) struct Mounts {
    pub extra: Vec<Extra>,
    /// What the layer depends on.
    pub key: String,
    pub host_network: bool,
    /// Caches that only one step may use at a time.
    locked: Vec<PathBuf>,
}

/// One `--mount`, as its text says it.
#[derive(Default)]
struct Wanted {
    kind: String,
    target: String,
    source: String,
    id: String,
    from: Option<String>,
    size: Option<String>,
    mode: Option<u32>,
    read_only: Option<bool>,
    required: bool,
    locked: bool,
}

impl Mounts {
    pub fn of(builder: &mut Builder<'_>, work: &Work, options: &[Flag<'_>]) -> Result<Self, Error> {
        let mut mounts = Self::default();
        for option in options {
            let text = option.value.as_ref().map(|value| value.value.to_string()).unwrap_or_default();
            let text = Words { escape: builder.escape, value: &|name| work.value(name) }.word(&text)?;
            match &*option.name.value {
                "mount" => mounts.add(builder, work, &text)?,
                "network" => match text.as_str() {
                    "default" | "none" => {}
                    "host" => mounts.host_network = true,
                    other => {
                        return Err(Error::bad(format!(
                            "RUN --network={other}: default, none or host is expected"
                        )));
                    }
                },
                "security" if text == "sandbox" => {}
                other => return Err(unknown_flag("RUN", other, &["mount", "network", "security"])),
            }
        }
        Ok(mounts)
    }

    /// Waits until nobody else uses the caches that are to be used alone.
    pub fn lock(&self) -> Result<Vec<File>, Error> {
        let lock = |path: &PathBuf| {
            let file = File::open(path).context("open", path.display())?;
            rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))
                .context("lock", path.display())?;
            Ok(file)
        };
        self.locked.iter().map(lock).collect()
    }

    fn add(&mut self, builder: &Builder<'_>, work: &Work, text: &str) -> Result<(), Error> {
        let wanted = Wanted::of(text)?;
        let workdir =
            work.settings.config["WorkingDir"].as_str().filter(|path| !path.is_empty()).unwrap_or("/");
        let target = Path::new(workdir).join(&wanted.target);
        let target = target.to_str().unwrap_or_default().to_owned();
        let missing = |what: &str| Error::bad(format!("--mount={text}: {what} is missing"));
        if wanted.target.is_empty() && wanted.kind != "secret" {
            return Err(missing("target"));
        }
        let mut options =
            vec![if wanted.read_only.unwrap_or(wanted.kind == "bind") { "ro" } else { "rw" }.to_owned()];
        let extra = match wanted.kind.as_str() {
            "tmpfs" => {
                options.extend(wanted.size.map(|size| format!("size={size}")));
                Extra { target, source: None, options }
            }
            "cache" => {
                if wanted.from.is_some() {
                    return Err(Error::bad(format!("--mount={text}: a cache from a stage is not supported")));
                }
                let id = if wanted.id.is_empty() { &target } else { &wanted.id };
                let path = builder.engine.roots.build_caches().join(Digest::of(id.as_bytes()).hex());
                if !path.exists() {
                    make_all(&path)?;
                    let mode = std::os::unix::fs::PermissionsExt::from_mode(wanted.mode.unwrap_or(0o755));
                    fs::set_permissions(&path, mode).context("open up", path.display())?;
                }
                if wanted.locked {
                    self.locked.push(path.clone());
                }
                Extra { target, source: Some(path), options }
            }
            "bind" => {
                if let Some(from) = &wanted.from {
                    return Err(Error::bad(format!(
                        "--mount=type=bind,from={from}: only the context can be mounted; COPY --from={from} instead"
                    )));
                }
                if options[0] == "rw" {
                    return Err(Error::bad(format!("--mount={text}: the context is mounted read-only")));
                }
                let path = inside(builder.context, &wanted.source)?;
                self.key.push_str(&content_of(&path)?);
                Extra { target, source: Some(path), options }
            }
            "secret" => {
                let id = if wanted.id.is_empty() {
                    Path::new(&wanted.target)
                        .file_name()
                        .and_then(|name| name.to_str())
                        .unwrap_or_default()
                        .to_owned()
                } else {
                    wanted.id
                };
                let target = if wanted.target.is_empty() { format!("/run/secrets/{id}") } else { target };
                let Some(path) = builder.build.secrets.get(&id) else {
                    if wanted.required {
                        return Err(Error::bad(format!(
                            "secret {id}: not found; give it by --secret id={id},src=FILE"
                        )));
                    }
                    return Ok(());
                };
                // Its content is no dependency, as docker has it: a new token makes no new layer.
                Extra { target, source: Some(path.clone()), options: vec!["ro".to_owned()] }
            }
            other => {
                let known = ["bind", "cache", "tmpfs", "secret"];
                let meant =
                    super::suggest::nearest(other, &known).map(|near| format!("; did you mean {near}?"));
                return Err(Error::bad(format!(
                    "--mount=type={other} is not supported: bind, cache, tmpfs or secret{}",
                    meant.unwrap_or_default()
                )));
            }
        };
        self.key.push_str(text);
        self.extra.push(extra);
        Ok(())
    }
}

impl Wanted {
    fn of(text: &str) -> Result<Self, Error> {
        let mut wanted = Self { kind: "bind".to_owned(), ..Self::default() };
        for part in text.split(',') {
            let (key, value) = part.split_once('=').map_or((part, None), |(key, value)| (key, Some(value)));
            let truth = || !matches!(value, Some("false" | "0"));
            let value_text = value.unwrap_or_default().to_owned();
            match key.to_ascii_lowercase().as_str() {
                "type" => wanted.kind = value_text,
                "target" | "dst" | "destination" => wanted.target = value_text,
                "source" | "src" => wanted.source = value_text,
                "id" => wanted.id = value_text,
                "from" => wanted.from = Some(value_text),
                "size" => {
                    let size = crate::engine::limits::parse_size(&value_text);
                    wanted.size = Some(
                        size.map_err(|_| Error::bad(format!("--mount: size={value_text}: no size")))?
                            .to_string(),
                    );
                }
                "mode" => {
                    let wrong =
                        |_| Error::bad(format!("--mount: mode={value_text}: an octal number is expected"));
                    wanted.mode = Some(u32::from_str_radix(&value_text, 8).map_err(wrong)?);
                }
                "ro" | "readonly" => wanted.read_only = Some(truth()),
                "rw" | "readwrite" => wanted.read_only = Some(!truth()),
                "required" => wanted.required = truth(),
                "sharing" => match value_text.as_str() {
                    "shared" | "private" => {}
                    "locked" => wanted.locked = true,
                    other => {
                        return Err(Error::bad(format!(
                            "--mount: sharing={other}: shared, private or locked is expected"
                        )));
                    }
                },
                // Everything is root's, who the step is.
                "uid" | "gid" => {}
                other => return Err(Error::bad(format!("--mount: unexpected key '{other}' in '{part}'"))),
            }
        }
        Ok(wanted)
    }
}

/// A path of the context, wherever links in it lead.
fn inside(context: &Path, source: &str) -> Result<PathBuf, Error> {
    let relative: PathBuf =
        Path::new(source).components().filter(|part| matches!(part, Component::Normal(_))).collect();
    let path = context.join(relative);
    let missing = || Error::bad(format!("--mount: source={source}: not found in the build's context"));
    let real = fs::canonicalize(&path).map_err(|_| missing())?;
    let context = fs::canonicalize(context).context("find", context.display())?;
    if real.starts_with(&context) { Ok(real) } else { Err(missing()) }
}

/// What is mounted, as a digest.
fn content_of(path: &Path) -> Result<String, Error> {
    use crate::image::pack::{Options, Packer};
    let mut file = tempfile::tempfile().context("make", "a temporary file")?;
    let mut packer = Packer::new(std::io::BufWriter::new(&mut file), Options::default());
    if path.is_dir() {
        packer
            .add_directory(&crate::engine::stored::host_directory(path)?, b"")
            .context("read", path.display())?;
    } else {
        let content = fs::read(path).context("read", path.display())?;
        packer.add_bytes("file", &content).context("read", path.display())?;
    }
    packer.finish().context("read", path.display())?;
    Ok(Digest::of_reader(&mut file).context("read", path.display())?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_read_in_the_words_of_the_reference() {
        let wanted = Wanted::of("type=cache,id=deps,target=/var/cache,sharing=locked,mode=0700,ro").unwrap();
        assert_eq!(
            (wanted.kind.as_str(), wanted.id.as_str(), wanted.target.as_str()),
            ("cache", "deps", "/var/cache")
        );
        assert_eq!((wanted.locked, wanted.mode, wanted.read_only), (true, Some(0o700), Some(true)));
        assert_eq!(Wanted::of("target=/x,rw").unwrap().read_only, Some(false));
        for text in ["type=cache,colour=red", "sharing=perhaps", "mode=9", "size=x"] {
            assert!(Wanted::of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn no_link_leads_out_of_the_context() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", folder.path().join("out")).unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(inside(folder.path(), "file").is_ok() && inside(folder.path(), "../file").is_ok());
        assert!(inside(folder.path(), "out/passwd").is_err() && inside(folder.path(), "out").is_err());
    }
}
