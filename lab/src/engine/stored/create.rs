//! Making a container, and removing it.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;

use bollard_stubs::models::{ContainerCreateBody, HealthConfig};
use rusqlite::params;
use serde_json::Value;

use super::record::{check_free, now};
use super::{Engine, Record, networks, plan};
use crate::engine::error::Context as _;
use crate::engine::passt;
use crate::engine::place::remove_tree;
use crate::engine::{Error, Runtime, id, run};
use crate::image::{Image, embedded};

/// For containers without a name. Docker's are scientists; these are what a classroom has.
const ADJECTIVES: [&str; 16] = [
    "able", "brisk", "calm", "clever", "eager", "fond", "gentle", "happy", "keen", "kind", "lively", "merry",
    "neat", "quiet", "swift", "witty",
];
const NOUNS: [&str; 16] = [
    "atlas", "beaker", "board", "chalk", "compass", "easel", "flask", "globe", "lamp", "lens", "magnet",
    "pencil", "prism", "ruler", "slate", "stool",
];

impl Engine {
    /// Makes a container, which is then stored and can be started.
    ///
    /// # Errors
    /// Where the image is missing, the name is taken, or the configuration asks for what cannot be done.
    pub fn create(&self, name: Option<&str>, mut body: ContainerCreateBody) -> Result<Record, Error> {
        let asked = body.image.clone().filter(|image| !image.is_empty());
        let asked = asked.ok_or_else(|| Error::bad("no image is given: Image must not be empty"))?;
        if embedded::NAME.split(':').next() == asked.split(':').next() {
            embedded::ensure(self.images())?;
        }
        let image = self.images().resolve(&asked)?;
        merge(&mut body, &image)?;
        let id = id::new().context("read", "/dev/urandom")?;
        let name =
            match name.map(|name| name.strip_prefix('/').unwrap_or(name)).filter(|name| !name.is_empty()) {
                Some(name) => name.to_owned(),
                None => self.new_name(&id)?,
            };
        body.hostname.get_or_insert_default();
        if body.hostname.as_deref() == Some("") {
            // In another's network it is known by the other's name.
            let mode = body.host_config.as_ref().and_then(|host| host.network_mode.as_deref());
            let other = mode.and_then(|mode| mode.strip_prefix("container:")).map(|other| self.find(other));
            let theirs = other.transpose()?.and_then(|other| other.body.hostname);
            body.hostname = Some(theirs.unwrap_or_else(|| id::short(&id).to_owned()));
        }
        self.inherit_volumes(&mut body)?;
        // All that can be refused is refused now.
        let mut wishes = plan::wishes(&body)?;
        let mut request = plan::request(&name, &body, self.mounts_to_check(&wishes))?;
        self.share(&body, None, &mut request.isolation)?;
        run::check_stored(&request)?;
        self.network_of(&body, false)?;
        self.check_links(&body)?;

        let volumes = self.settle_volumes(&mut wishes)?;
        remember_volumes(&mut body, &wishes);
        let directory = self.roots.stored(&id);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&directory)
            .context("create", directory.display())?;
        let text = serde_json::to_string(&body)?;
        let stored = self.db.change(|db| {
            check_free(&self.db, db, &name)?;
            let sql = "INSERT INTO containers (id, name, created, image, image_id, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            let values = params![id, name, now(), asked, image.id().to_string(), text];
            db.execute(sql, values).map_err(self.db.failed())?;
            for volume in &volumes {
                let sql = "INSERT OR IGNORE INTO volumes_used (volume, container) VALUES (?1, ?2)";
                db.execute(sql, [volume, &id]).map_err(self.db.failed())?;
            }
            Ok(())
        });
        if let Err(error) = stored {
            let _ = fs::remove_dir(&directory);
            return Err(error);
        }
        let record = self.find(&id)?;
        if let Err(error) = self.join_networks(&record).and_then(|()| self.fill_volumes(&record, &wishes)) {
            self.forget(&record, true)?;
            return Err(error);
        }
        self.tell_container(&record, "create", &[])?;
        Ok(record)
    }

    /// Volumes that are not made yet have no path to look at.
    fn mounts_to_check(&self, wishes: &[plan::Wish]) -> Vec<crate::engine::request::Extra> {
        wishes
            .iter()
            .map(|wish| {
                let path = wish.source.as_ref().map(std::path::PathBuf::from);
                let volume = wish.kind == bollard_stubs::models::MountType::VOLUME;
                plan::extra(wish, if volume { Some(self.roots.volumes()) } else { path })
            })
            .collect()
    }

    /// Puts a new container into the network that it asks for, and into those that it has endpoints of.
    fn join_networks(&self, record: &Record) -> Result<(), Error> {
        let endpoints = record
            .body
            .networking_config
            .clone()
            .and_then(|config| config.endpoints_config)
            .unwrap_or_default();
        let main = record.network_name();
        let mut wanted: Vec<String> = vec![main.clone()];
        wanted.extend(endpoints.keys().filter(|name| *name != "default" && **name != main).cloned());
        for name in wanted {
            let network = match name.as_str() {
                "none" | "host" | passt::NAME => continue,
                _ if name.starts_with("container:") => continue,
                // Only root may make network devices; others have passt, or their loopback.
                networks::DEFAULT if !rustix::process::geteuid().is_root() => continue,
                networks::DEFAULT => self.default_network()?,
                _ => self.network(&name)?,
            };
            // A network may be named by its id, or the beginning of that, in one place and by its name in the other.
            let asked = endpoints.get(&name).or_else(|| endpoints.get(&network.name)).cloned();
            let mut settings = asked.unwrap_or_default();
            if name == main {
                // Only the default network knows links as docker had them at first.
                if !network.is_default() && settings.links.is_none() {
                    settings.links = record.host().links;
                }
            }
            if self.endpoint(&network, &record.id)?.is_none() {
                self.connect_network(&network, record, &settings)?;
            }
        }
        Ok(())
    }

    fn new_name(&self, id: &str) -> Result<String, Error> {
        let digits = usize::from_str_radix(id.get(..4).unwrap_or("0"), 16).unwrap_or(0);
        let base = format!("{}_{}", ADJECTIVES[digits % 16], NOUNS[digits / 16 % 16]);
        let taken: i64 = self.db.with(|db| {
            db.query_row("SELECT count(*) FROM containers WHERE name = ?1", [&base], |row| row.get(0))
        })?;
        // The id's own digits make it unique where two hundred names do not.
        Ok(if taken == 0 { base } else { format!("{base}_{}", &id[..8]) })
    }

    /// Removes a container; one that runs only by force, which kills it. With `volumes`, its anonymous ones go too.
    ///
    /// # Errors
    /// [`Error::Conflict`] where it runs.
    pub fn remove(&self, record: &Record, force: bool, volumes: bool) -> Result<(), Error> {
        self.reconcile(record)?;
        let record = self.find(&record.id)?;
        if record.status.is_live() {
            if !force {
                // Docker's wordings, the new one and that which older scripts look for.
                let (name, state) = (&record.name, record.status.name());
                return Err(Error::conflict(format!(
                    "cannot remove container \"/{name}\": container is {state}: stop the container before removing or force \
                     remove (You cannot remove a {state} container {})",
                    record.id
                )));
            }
            match self.kill_and_wait(&record) {
                // One that removes itself is gone by now.
                Err(Error::Conflict { .. } | Error::Missing { .. }) | Ok(()) => {}
                Err(error) => return Err(error),
            }
        }
        self.forget(&record, volumes)
    }

    /// Removes what is stored of a container that does not run.
    pub(crate) fn forget(&self, record: &Record, volumes: bool) -> Result<(), Error> {
        let anonymous =
            if volumes || record.auto_remove() { self.anonymous_volumes(record)? } else { Vec::new() };
        let gone = self.db.with(|db| db.execute("DELETE FROM containers WHERE id = ?1", [&record.id]))?;
        remove_tree(&self.roots.stored(&record.id))?;
        for volume in anonymous {
            // Another container may use it.
            let _ = self.remove_volume(&volume);
        }
        self.release_image(record)?;
        if gone == 1 { self.tell_container(record, "destroy", &[]) } else { Ok(()) }
    }
}

/// Fills in what the image says and the user did not.
fn merge(body: &mut ContainerCreateBody, image: &Image) -> Result<(), Error> {
    let config = image.config().config().clone().unwrap_or_default();
    let empty = |text: &Option<String>| text.as_deref().is_none_or(str::is_empty);
    // Another entry point makes the image's command meaningless.
    match body.entrypoint.as_deref() {
        None | Some([]) => {
            body.entrypoint.clone_from(config.entrypoint());
            if body.cmd.as_ref().is_none_or(Vec::is_empty) {
                body.cmd.clone_from(config.cmd());
            }
        }
        // [""] is docker's word for "none".
        Some([only]) if only.is_empty() => body.entrypoint = None,
        Some(_) => {}
    }
    let given = body.env.take().unwrap_or_default();
    let name = |text: &str| text.split('=').next().unwrap_or_default().to_owned();
    let mut env: Vec<String> = config.env().clone().unwrap_or_default();
    env.retain(|variable| !given.iter().any(|other| name(other) == name(variable)));
    // A name without a value stays: it removes the variable of whoever sets it.
    body.env = Some(given.into_iter().chain(env).collect());
    if empty(&body.working_dir) {
        body.working_dir.clone_from(config.working_dir());
    }
    if empty(&body.user) {
        body.user.clone_from(config.user());
    }
    if empty(&body.stop_signal) {
        body.stop_signal.clone_from(config.stop_signal());
    }
    let mut labels: HashMap<String, String> = config.labels().clone().unwrap_or_default();
    labels.extend(body.labels.take().unwrap_or_default());
    body.labels = Some(labels);
    for (ours, theirs) in
        [(&mut body.volumes, config.volumes()), (&mut body.exposed_ports, config.exposed_ports())]
    {
        let list = ours.get_or_insert_default();
        for item in theirs.iter().flatten() {
            if !list.contains(item) {
                list.push(item.clone());
            }
        }
        list.sort();
    }
    let raw: Value = serde_json::from_slice(image.raw_config())?;
    let known: Option<HealthConfig> =
        serde_json::from_value(raw["config"]["Healthcheck"].clone()).unwrap_or_default();
    body.healthcheck = merge_health(body.healthcheck.take(), known)?;
    let runtime = body.host_config.get_or_insert_default().runtime.get_or_insert_default();
    if runtime.is_empty() {
        Runtime::Container.name().clone_into(runtime);
    }
    Ok(())
}

/// The image's check, as far as the user does not change it.
fn merge_health(
    given: Option<HealthConfig>,
    image: Option<HealthConfig>,
) -> Result<Option<HealthConfig>, Error> {
    let Some(mut given) = given else { return Ok(image) };
    for (what, time) in [
        ("Interval", given.interval),
        ("Timeout", given.timeout),
        ("StartPeriod", given.start_period),
        ("StartInterval", given.start_interval),
    ] {
        if time.is_some_and(|nanos| nanos != 0 && nanos < 1_000_000) {
            return Err(Error::bad(format!("{what} in Healthcheck cannot be less than one millisecond")));
        }
    }
    if given.retries.is_some_and(|retries| retries < 0) {
        return Err(Error::bad("Retries in Healthcheck cannot be negative"));
    }
    let Some(image) = image else { return Ok(Some(given)) };
    if given.test.as_ref().is_none_or(Vec::is_empty) {
        given.test = image.test;
    }
    let fill = |given: &mut Option<i64>, image: Option<i64>| {
        if given.is_none_or(|value| value == 0) {
            *given = image;
        }
    };
    fill(&mut given.interval, image.interval);
    fill(&mut given.timeout, image.timeout);
    fill(&mut given.start_period, image.start_period);
    fill(&mut given.start_interval, image.start_interval);
    fill(&mut given.retries, image.retries);
    Ok(Some(given))
}

/// Anonymous volumes have a name now: the next start must find the same ones.
fn remember_volumes(body: &mut ContainerCreateBody, wishes: &[plan::Wish]) {
    let host = body.host_config.get_or_insert_default();
    let known = |target: &str| {
        let bind = |text: &String| text.split(':').nth(1) == Some(target);
        host.binds.iter().flatten().any(bind)
            || host.mounts.iter().flatten().any(|mount| {
                mount.target.as_deref() == Some(target)
                    && mount.source.as_ref().is_some_and(|source| !source.is_empty())
            })
    };
    let volumes = wishes.iter().filter(|wish| wish.kind == bollard_stubs::models::MountType::VOLUME);
    let new: Vec<(String, String)> = volumes
        .filter(|wish| !known(&wish.target))
        .filter_map(|wish| Some((wish.source.clone()?, wish.target.clone())))
        .collect();
    for (name, target) in new {
        let mounts = host.mounts.get_or_insert_default();
        match mounts.iter_mut().find(|mount| mount.target.as_ref() == Some(&target)) {
            Some(mount) => mount.source = Some(name),
            None => host.binds.get_or_insert_default().push(format!("{name}:{target}")),
        }
    }
}
