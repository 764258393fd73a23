//! What a container shares with the host or with another: `--pid`, `--ipc`, `--uts`, `--volumes-from`, and the program that
//! `--init` puts before its command.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use bollard_stubs::models::{ContainerCreateBody, HostConfig, Mount, MountType};

use super::root::Root;
use super::transfer::transfer;
use super::{Engine, Record, plan};
use crate::engine::error::Context as _;
use crate::engine::request::{Choices, Extra, Network};
use crate::engine::{Error, Runtime};
use crate::image::embedded;

/// Where the shared memory of a container lies that shares it: in its place, below the run directory.
const SHARED_MEMORY: &str = "shm";

impl Engine {
    /// Settles whose processes, System V objects and names a container sees. `own` is where its place is, if it has one
    /// already; without one it is only checked that all can be found.
    ///
    /// # Errors
    /// [`Error::Missing`] for another container, [`Error::Conflict`] where it does not run.
    pub(crate) fn share(
        &self,
        body: &ContainerCreateBody,
        own: Option<&str>,
        choices: &mut Choices,
    ) -> Result<(), Error> {
        let host = body.host_config.clone().unwrap_or_default();
        let asked = |mode: &Option<String>| mode.clone().unwrap_or_default();
        choices.pid = self.namespace(&asked(&host.pid_mode), "PID", "pid", own.is_some())?;
        choices.uts = self.namespace(&asked(&host.uts_mode), "UTS", "uts", own.is_some())?;
        let ipc = asked(&host.ipc_mode);
        let ipc_file = if matches!(&*ipc, "private" | "shareable" | "none") { "" } else { &ipc };
        choices.ipc = self.namespace(ipc_file, "IPC", "ipc", own.is_some())?;
        let mounted = |target: &str| choices.mounts.iter().any(|mount| mount.target == target);
        let mut memory = Vec::new();
        if ipc == "host" {
            memory.extend(["/dev/shm", "/dev/mqueue"].map(|path| (path, PathBuf::from(path))));
        } else if let Some(other) = ipc.strip_prefix("container:") {
            let other = self.find(other)?;
            if other.host().ipc_mode.as_deref() != Some("shareable") {
                return Err(Error::conflict(format!(
                    "cannot join IPC of container {}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)",
                    other.id
                )));
            }
            memory.push(("/dev/shm", self.roots.sandbox(&other.id).join(SHARED_MEMORY)));
        } else if let ("shareable", Some(own)) = (&*ipc, own) {
            let path = self.roots.sandbox(own).join(SHARED_MEMORY);
            fs::create_dir_all(&path).context("create", path.display())?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o1777))
                .context("change", path.display())?;
            memory.push(("/dev/shm", path));
        }
        let options = ["bind", "nosuid", "nodev", "rprivate"].map(str::to_owned).to_vec();
        let extras = memory.into_iter().filter(|(target, path)| !mounted(target) && path.exists());
        let extras: Vec<Extra> = extras
            .map(|(target, source)| Extra {
                target: target.to_owned(),
                source: Some(source),
                options: options.clone(),
            })
            .collect();
        choices.mounts.extend(extras);
        if host.init.unwrap_or(false) {
            choices.init = Some(self.init_program()?);
        }
        Ok(())
    }

    fn namespace(&self, mode: &str, name: &str, file: &str, live: bool) -> Result<Network, Error> {
        match mode {
            "" | "private" => return Ok(Network::Own),
            "host" => return Ok(Network::Host),
            _ => {}
        }
        let Some(other) = mode.strip_prefix("container:").filter(|_| file != "uts") else {
            return Err(Error::bad(format!("invalid {name} mode: {mode}")));
        };
        let other = self.find(other)?;
        if other.runtime() == Runtime::Vm {
            let reason = "the processes of a machine are its own kernel's";
            return Err(Error::Unsupported {
                flag: "joining a namespace of a container",
                runtime: "vm",
                reason,
            });
        }
        if !live {
            return Ok(Network::Own);
        }
        if other.pid == 0 {
            return Err(Error::conflict(format!(
                "cannot join {name} of a non running container: {}",
                other.id
            )));
        }
        Ok(Network::Join(format!("/proc/{}/ns/{file}", other.pid).into()))
    }

    /// Adds the volumes and folders of other containers to a new one's (`--volumes-from NAME[:ro]`).
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub(super) fn inherit_volumes(&self, body: &mut ContainerCreateBody) -> Result<(), Error> {
        let from = body.host_config.as_ref().and_then(|host| host.volumes_from.clone()).unwrap_or_default();
        for text in &from {
            let (name, mode) = text.split_once(':').unwrap_or((text, ""));
            if !matches!(mode, "" | "ro" | "rw" | "z" | "Z") {
                return Err(Error::bad(format!("invalid mode \"{mode}\" in --volumes-from {text}")));
            }
            let own = plan::wishes(body)?;
            let other = self.find(name)?;
            let new = plan::wishes(&other.body)?;
            let new = new.into_iter().filter(|wish| wish.kind != MountType::TMPFS);
            // A volume that only the image names gives way to the other's.
            let taken = |target: &str| {
                let image = body.volumes.as_ref().is_some_and(|all| all.iter().any(|one| one == target));
                !image && own.iter().any(|wish| wish.target == target)
            };
            let mounts: Vec<Mount> = new
                .filter(|wish| !taken(&wish.target))
                .map(|wish| Mount {
                    read_only: Some(wish.read_only || mode == "ro"),
                    target: Some(wish.target),
                    source: wish.source,
                    typ: Some(wish.kind),
                    ..Mount::default()
                })
                .collect();
            let host: &mut HostConfig = body.host_config.get_or_insert_default();
            host.mounts.get_or_insert_default().extend(mounts);
        }
        Ok(())
    }

    /// The program that is process 1 for others: part of this binary, kept as a file that containers see.
    fn init_program(&self) -> Result<PathBuf, Error> {
        let directory = self.roots.data().join("bin");
        let path = directory.join(format!("init-{}", embedded::BUILD));
        if path.exists() {
            return Ok(path);
        }
        fs::create_dir_all(&directory).context("create", directory.display())?;
        // Whole or not at all, also where several do it at once.
        let mut file = tempfile::NamedTempFile::new_in(&directory).context("create", directory.display())?;
        std::io::Write::write_all(&mut file, embedded::PROGRAM).context("write", path.display())?;
        let mode = fs::Permissions::from_mode(0o755);
        file.as_file().set_permissions(mode).context("change", path.display())?;
        file.persist(&path).map_err(|error| Error::io("create", path.display(), error.error))?;
        Ok(path)
    }

    /// Fills new volumes with what the image has at their places, as docker does, with its owner and mode.
    ///
    /// # Errors
    /// Where it cannot be copied.
    pub(super) fn fill_volumes(&self, record: &Record, wishes: &[plan::Wish]) -> Result<(), Error> {
        let empty = |wish: &&plan::Wish| {
            let path = self.source(wish).filter(|_| wish.kind == MountType::VOLUME && !wish.no_copy);
            path.and_then(|path| fs::read_dir(path).ok()).is_some_and(|mut entries| entries.next().is_none())
        };
        let mut wanted = wishes.iter().filter(empty).peekable();
        if wanted.peek().is_none() {
            return Ok(());
        }
        let image = self.images().resolve(&record.image_id)?;
        let layers = self.images().layer_dirs(&image, &())?;
        let present = |wish: &&plan::Wish| layers.iter().any(|layer| layer.join(&wish.target[1..]).is_dir());
        let wanted: Vec<_> = wanted.filter(present).collect();
        // Mounting the layers takes root.
        if wanted.is_empty() || !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let root = self.root(record)?;
        for wish in wanted {
            let Some(target) = self.source(wish) else { continue };
            transfer(&root, &format!("{}/.", wish.target), &Root::of(&target)?, "/")?;
            let found = root.find(&format!("{}/", wish.target))?;
            let stat = rustix::fs::fstat(&found.parent).context("look at", &wish.target)?;
            std::os::unix::fs::chown(&target, Some(stat.st_uid), Some(stat.st_gid))
                .context("change the owner of", target.display())?;
            fs::set_permissions(&target, fs::Permissions::from_mode(stat.st_mode & 0o7777))
                .context("change", target.display())?;
        }
        Ok(())
    }
}
