//! Building images from a Dockerfile.
//!
//! ```text
//!  context (tar) ─► folder ─┐
//!  Dockerfile ─► parser ────┴─► stage by stage, step by step:
//!                                 configuration only          ENV, CMD, LABEL, …
//!                                 files: layer from an overlay  COPY, ADD, WORKDIR      (copy.rs)
//!                                 a container: layer of its changes   RUN              (run.rs)
//!                               each layer remembered by what it depends on            (cache)
//! ```
//!
//! A step's layer depends on the layers below it, the step's own text with its variables, and what it copies or the
//! environment it runs in; a layer of the same dependencies is taken from the store instead of being made again.

mod configure;
mod context;
mod copy;
mod mounts;
mod run;
mod scope;
mod steps;
mod suggest;
mod words;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parse_dockerfile::{Dockerfile, Instruction, Stage, parse};
use serde_json::{Value, json};

use super::Error;
use super::error::Context as _;
use super::stored::{Engine, NewLayer, Step, host_directory, unpack};
use crate::image::registry::{Credentials, Wanted};
use crate::image::tar::Archive;
use crate::image::{self, Digest, Image, Platforms, Reference, embedded, plain};
use configure::Settings;
pub(crate) use configure::apply_changes;
use scope::Scope;
use words::Words;

/// What is to be built.
#[derive(Clone, Debug, Default)]
pub struct Build {
    /// The Dockerfile's path in the context.
    pub dockerfile: String,
    /// The Dockerfile itself, where it is not in the context.
    pub text: Option<String>,
    /// The image's names.
    pub names: Vec<Reference>,
    /// Values of ARG.
    pub arguments: HashMap<String, String>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// The stage to stop at; the last where none is given.
    pub target: Option<String>,
    /// For which machine images are taken; this one where not given.
    pub platform: Option<String>,
    /// Whether no remembered layer is used.
    pub no_cache: bool,
    /// Whether images that are here are looked for in their registry, too.
    pub pull: bool,
    /// Whether RUN may use the host's network; else it has none.
    pub host_network: bool,
    /// Files that `RUN --mount=type=secret` may see, by their ids.
    pub secrets: BTreeMap<String, PathBuf>,
    /// Whom registries are shown, by their hosts.
    pub keys: Keys,
}

/// From a registry's host to what it is shown.
type Find = dyn Fn(&str) -> Credentials + Send + Sync;

/// Finds the credentials for a registry.
#[derive(Clone, Default)]
pub struct Keys(Option<Arc<Find>>);

impl Keys {
    /// By this function of the registry's host.
    pub fn new(find: impl Fn(&str) -> Credentials + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(find)))
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

/// A build under way.
struct Builder<'a> {
    engine: &'a Engine,
    build: &'a Build,
    context: &'a Path,
    say: &'a mut dyn FnMut(&str),
    text: &'a str,
    escape: char,
    /// The stages that are done: their names, their images.
    done: Vec<(Option<String>, Image)>,
    step: usize,
    steps: usize,
}

/// A stage under way.
struct Work {
    image: Image,
    settings: Settings,
    /// What has changed the configuration since the image was stored.
    pending: Vec<String>,
    /// ARGs of this stage.
    scope: Scope,
}

impl Engine {
    /// Builds an image. `context` is a tar, compressed or not; `say` is told what happens.
    ///
    /// # Errors
    /// A Dockerfile that makes no sense (with its line), a step that fails.
    pub fn build(
        &self,
        build: &Build,
        context: impl Read + Send,
        say: &mut dyn FnMut(&str),
    ) -> Result<Image, Error> {
        let folder = tempfile::Builder::new().prefix("build-").tempdir_in(self.images().path("tmp"));
        // No garbage is collected while layers are made that no image has yet.
        let _adding = self.images().adding()?;
        let folder = folder.context("make", "a folder for the context")?;
        receive(context, folder.path())?;
        let text = match &build.text {
            Some(text) => text.clone(),
            None => read_dockerfile(folder.path(), &build.dockerfile)?,
        };
        let dockerfile = parse(&text).map_err(|error| refuse(&build.dockerfile, &text, &error))?;
        let steps = dockerfile.instructions.len() - dockerfile.global_args().len()
            + usize::from(!build.labels.is_empty());
        let context = folder.path();
        let escape = dockerfile.parser_directives.escape.as_ref().map_or('\\', |escape| escape.value.value);
        let mut builder = Builder {
            engine: self,
            build,
            context,
            say,
            text: &text,
            escape,
            done: Vec::new(),
            step: 0,
            steps,
        };
        let image = builder.all(&dockerfile)?;
        let store = self.images();
        if build.names.is_empty() {
            store.name_image(&image, None)?;
        }
        for name in &build.names {
            store.name_image(&image, Some(name))?;
            self.tell("image", "tag", &image.id().to_string(), &[("name", &name.familiar())])?;
        }
        Ok(image)
    }
}

/// A file of the context, which may be anything a client sends: no link in it leads out.
fn read_dockerfile(folder: &Path, name: &str) -> Result<String, Error> {
    let missing = || Error::bad(format!("Cannot locate specified Dockerfile: {name}"));
    let directory = host_directory(folder)?;
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC | rustix::fs::OFlags::NONBLOCK;
    let inside = super::stored::Root::INSIDE;
    let file = rustix::fs::openat2(&directory, name, flags, rustix::fs::Mode::empty(), inside)
        .map_err(|_| missing())?;
    let mut text = String::new();
    fs::File::from(file).read_to_string(&mut text).map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidData => Error::bad(format!("{name}: it is no text in UTF-8")),
        _ => missing(),
    })?;
    Ok(text)
}

/// Where a Dockerfile cannot be read: the line, what is wrong with it, and what was most likely meant.
fn refuse(name: &str, text: &str, error: &parse_dockerfile::Error) -> Error {
    const INSTRUCTIONS: [&str; 18] = [
        "ADD",
        "ARG",
        "CMD",
        "COPY",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "FROM",
        "HEALTHCHECK",
        "LABEL",
        "MAINTAINER",
        "ONBUILD",
        "RUN",
        "SHELL",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ];
    let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
    let word = line.split_whitespace().next().unwrap_or_default();
    let known = INSTRUCTIONS.iter().any(|known| known.eq_ignore_ascii_case(word));
    let meant = suggest::nearest(word, &INSTRUCTIONS).filter(|_| !known);
    let meant = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
    let caret = " ".repeat(error.column().saturating_sub(1));
    Error::bad(format!("{name}:{}: {error}{meant}\n{line}\n{caret}^", error.line()))
}

/// Unpacks the context.
fn receive(context: impl Read + Send, folder: &Path) -> Result<(), Error> {
    let damaged = |error: std::io::Error| Error::bad(format!("the build's context is no tar: {error}"));
    let plain = plain(context).map_err(damaged)?;
    let mut archive = Archive::new(std::io::BufReader::with_capacity(256 * 1024, plain));
    let directory = host_directory(folder)?;
    while let Some(member) = archive.next().map_err(damaged)? {
        unpack(&directory, &member, &mut archive).map_err(damaged)?;
    }
    Ok(())
}

impl Builder<'_> {
    fn all(&mut self, dockerfile: &Dockerfile<'_>) -> Result<Image, Error> {
        let mut global = Scope::global(self.build)?;
        for argument in dockerfile.global_args() {
            global
                .declare(&argument.arguments.value, self.escape, None)
                .map_err(|error| self.at(argument.arguments.span.clone(), error))?;
        }
        let wanted = self.build.target.as_deref().map(str::to_ascii_lowercase);
        let number = wanted.as_deref().and_then(|target| target.parse::<usize>().ok());
        let stages: Vec<Stage<'_, '_>> = dockerfile.stages().collect();
        let name_of =
            |stage: &Stage<'_, '_>| stage.from.as_.as_ref().map(|(_, name)| name.value.to_ascii_lowercase());
        let last = match &wanted {
            None => stages.len() - 1,
            Some(target) => {
                let named = stages.iter().position(|stage| name_of(stage).as_ref() == Some(target));
                let found = named.or(number.filter(|&number| number < stages.len()));
                found.ok_or_else(|| {
                    let names: Vec<String> = stages.iter().filter_map(name_of).collect();
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    let meant =
                        suggest::nearest(target, &names).map(|meant| format!("; did you mean {meant}?"));
                    let meant = meant.unwrap_or_default();
                    Error::bad(format!("failed to reach build target {target} in Dockerfile{meant}"))
                })?
            }
        };
        for (at, stage) in stages.iter().take(last + 1).enumerate() {
            let image = self.stage(stage, &global, at == last)?;
            self.done.push((name_of(stage), image));
        }
        let unused = global.unused();
        if !unused.is_empty() {
            (self.say)(&format!("[Warning] One or more build-args {unused:?} were not consumed\n"));
        }
        let (_, image) = self.done.pop().ok_or_else(|| Error::bad("the Dockerfile has no stage"))?;
        Ok(image)
    }

    /// Names the line and marks the place, unless that is done already.
    fn at(&self, span: std::ops::Range<usize>, error: Error) -> Error {
        let file = format!("{}:", self.build.dockerfile);
        let begin = span.start.min(self.text.len());
        let number = self.text[..begin].matches('\n').count() + 1;
        let line = self.text.lines().nth(number - 1).unwrap_or_default();
        match error {
            Error::Bad { message } if message.starts_with(&file) => Error::Bad { message },
            // That a command failed is no fault of the line's text.
            Error::Bad { message } if message.contains("returned a non-zero code") => {
                Error::bad(format!("{file}{number}: {message}"))
            }
            error => Error::bad(format!("{file}{number}: {error}\n{line}\n^")),
        }
    }

    fn announce(&mut self, text: &str) {
        self.step += 1;
        (self.say)(&format!("Step {}/{} : {}\n", self.step, self.steps, one_line(text, self.escape)));
    }

    fn stage(&mut self, stage: &Stage<'_, '_>, global: &Scope, is_last: bool) -> Result<Image, Error> {
        let from = stage.from;
        let start = from.from.span.start;
        let end = from.as_.as_ref().map_or(from.image.span.end, |(_, name)| name.span.end);
        self.announce(&self.text[start..end]);
        let image = self.base(from, global).map_err(|error| self.at(start..end, error))?;
        let asked = from.image.value.to_string();
        let raw: Value = serde_json::from_slice(image.raw_config())?;
        let mut settings = Settings::new(raw["config"].clone());
        // They are for this build, and not for one from its image.
        let triggers = settings.config.as_object_mut().and_then(|config| config.remove("OnBuild"));
        let triggers: Vec<String> =
            triggers.and_then(|list| serde_json::from_value(list).ok()).unwrap_or_default();
        (self.say)(&format!(" ---> {}\n", &image.id().hex()[..12]));
        let mut work = Work { image, settings, pending: Vec::new(), scope: Scope::of_stage(self.build) };
        if !triggers.is_empty() {
            self.triggers(&triggers, global, &mut work)
                .map_err(|error| Error::bad(format!("ONBUILD of image {asked}: {error}")))?;
        }
        for instruction in stage.instructions {
            let span = steps::span(instruction);
            self.announce(&self.text[span.clone()]);
            let done = self.one(instruction, &self.text[span.clone()], global, &mut work);
            done.map_err(|error| self.at(span, error))?;
        }
        if is_last && !self.build.labels.is_empty() {
            let words: Vec<String> =
                self.build.labels.iter().map(|(key, value)| format!("{key:?}={value:?}")).collect();
            let text = format!("LABEL {}", words.join(" "));
            self.announce(&text);
            for (key, value) in &self.build.labels {
                work.settings.config["Labels"][key] = value.clone().into();
            }
            work.pending.push(text);
        }
        self.settle(&mut work)?;
        (self.say)(&format!(" ---> {}\n", &work.image.id().hex()[..12]));
        Ok(work.image)
    }

    /// The image that a stage begins with.
    fn base(&mut self, from: &parse_dockerfile::FromInstruction<'_>, global: &Scope) -> Result<Image, Error> {
        let value = |name: &str| global.value(name);
        let words = Words { escape: self.escape, value: &value };
        let mut platform = self.build.platform.clone();
        for option in &from.options {
            let value = option.value.as_ref().map(|value| words.word(&value.value)).transpose()?;
            match &*option.name.value {
                "platform" => platform = value,
                other => return Err(configure::unknown_flag("FROM", other, &["platform"])),
            }
        }
        let asked = words.word(&from.image.value)?;
        if asked.is_empty() {
            return Err(Error::bad(format!("base name ({}) should not be blank", from.image.value)));
        }
        let image = self.find(&asked, platform.as_deref(), self.build.pull)?;
        // An earlier stage has been judged already; nothing is for every machine.
        let wanted = Platforms::of(platform.as_deref())?;
        if !wanted.fits_configuration(image.config()) {
            let offered = format!("{}/{}", image.config().os(), image.config().architecture());
            return Err(image::Error::Platform { wanted: wanted.to_string(), offered }.into());
        }
        Ok(image)
    }

    /// What the image below wants to be done first in every build from it.
    fn triggers(&mut self, triggers: &[String], global: &Scope, work: &mut Work) -> Result<(), Error> {
        (self.say)(&format!("# Executing {} build triggers\n", triggers.len()));
        let text = format!("FROM scratch\n{}\n", triggers.join("\n"));
        let parsed = parse(&text).map_err(|error| Error::bad(error.to_string()))?;
        for instruction in parsed.stages().flat_map(|stage| stage.instructions) {
            self.one(instruction, &text[steps::span(instruction)], global, work)?;
        }
        Ok(())
    }

    fn one(
        &mut self,
        instruction: &Instruction<'_>,
        text: &str,
        global: &Scope,
        work: &mut Work,
    ) -> Result<(), Error> {
        let Instruction::Arg(argument) = instruction else {
            return self.instruction(instruction, text, work);
        };
        // One without a default takes that of the same name before the first FROM.
        work.declare(&argument.arguments.value, self.escape, global)?;
        work.pending.push(one_line(text, self.escape));
        Ok(())
    }

    /// An earlier stage by its name, or an image, which is fetched where it is not here.
    fn find(&mut self, name: &str, platform: Option<&str>, pull: bool) -> Result<Image, Error> {
        let lower = name.to_ascii_lowercase();
        let stage = self.done.iter().find(|(other, _)| other.as_deref() == Some(&*lower));
        if let Some((_, image)) = stage {
            return Ok(image.clone());
        }
        let store = self.engine.images();
        if name == "scratch" {
            return self.engine.empty_image();
        }
        if embedded::NAME.split(':').next() == name.split(':').next() {
            embedded::ensure(store)?;
            return Ok(store.resolve(name)?);
        }
        let missing = match store.resolve(name) {
            Ok(image) if !pull => return Ok(image),
            Ok(_) => None,
            Err(error @ image::Error::NotFound { .. }) => Some(error),
            Err(error) => return Err(error.into()),
        };
        let Ok(reference) = name.parse::<Reference>() else {
            return Err(missing.map_or_else(|| Error::bad(format!("{name}: no image")), Error::from));
        };
        let credentials = self.build.keys.0.as_ref().map(|find| find(reference.host())).unwrap_or_default();
        let wanted = Wanted { name: reference, platform: platform.map(str::to_owned), credentials };
        (self.say)(&format!("Pulling {}\n", wanted.name.familiar()));
        store.pull(&wanted, &()).map_err(|error| Error::bad(format!("FROM {name}: {error}")))?;
        Ok(store.resolve(name)?)
    }

    /// Stores the configuration that steps have changed since.
    fn settle(&self, work: &mut Work) -> Result<(), Error> {
        if work.pending.is_empty() {
            return Ok(());
        }
        // One entry of the history for each step.
        let pending = std::mem::take(&mut work.pending);
        for text in &pending {
            work.image = self.extend(work, None, text)?;
        }
        Ok(())
    }

    /// The image with one more step. The same step on the same image has the same time, so that it is the same image.
    fn extend(&self, work: &Work, layer: Option<NewLayer>, text: &str) -> Result<Image, Error> {
        let config = &work.settings.config;
        let key = json!([work.image.id(), layer.map(|layer| layer.digest), config, text]).to_string();
        let created =
            self.engine.time_of_step(&Digest::of(key.as_bytes()).to_string(), self.build.no_cache)?;
        let step = Step { text, author: &work.settings.author, created: Some(&created), ..Step::default() };
        self.engine.extend_image(&work.image, layer, config, &step)
    }

    /// Adds a layer: the remembered one, or what `make` makes.
    // ANCHOR: layer
    fn layer(
        &mut self,
        work: &mut Work,
        text: &str,
        depends: &[&str],
        make: impl FnOnce(&mut Self, &Work) -> Result<NewLayer, Error>,
    ) -> Result<(), Error> {
        self.settle(work)?;
        let mut key: Vec<String> =
            work.image.layers().iter().map(|layer| layer.diff_id.to_string()).collect();
        key.push(text.to_owned());
        key.extend(depends.iter().map(|&text| text.to_owned()));
        let key = Digest::of(&serde_json::to_vec(&key)?).to_string();
        let known = if self.build.no_cache { None } else { self.engine.known_layer(&key)? };
        let layer = if let Some(layer) = known {
            (self.say)(" ---> Using cache\n");
            layer
        } else {
            let layer = make(self, work)?;
            self.engine.remember_layer(&key, layer)?;
            layer
        };
        work.image = self.extend(work, Some(layer), &one_line(text, self.escape))?;
        (self.say)(&format!(" ---> {}\n", &work.image.id().hex()[..12]));
        Ok(())
    }
    // ANCHOR_END: layer
}

/// An instruction over several lines as one.
fn one_line(text: &str, escape: char) -> String {
    let words = text.split_whitespace().filter(|word| *word != escape.to_string());
    words.collect::<Vec<_>>().join(" ")
}

impl Work {
    /// The value of a variable: of the environment, else of an ARG.
    fn value(&self, name: &str) -> Option<String> {
        self.settings.variable(name).or_else(|| self.scope.value(name))
    }

    fn declare(&mut self, text: &str, escape: char, global: &Scope) -> Result<(), Error> {
        let settings = &self.settings;
        let env = |name: &str| settings.variable(name);
        self.scope.declare(text, escape, Some((global, &env)))
    }

    /// The configuration as containers read it.
    fn image_config(&self) -> Result<oci_spec::image::ImageConfiguration, Error> {
        Ok(serde_json::from_value(json!({
            "architecture": self.image.config().architecture(), "os": "linux", "config": self.settings.config,
            "rootfs": {"type": "layers", "diff_ids": []},
        }))?)
    }
}

impl Engine {
    /// An image without layers, for `FROM scratch`.
    fn empty_image(&self) -> Result<Image, Error> {
        let store = self.images();
        let config = serde_json::to_vec(&json!({
            "architecture": image::architecture().to_string(), "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": []}, "history": [],
        }))?;
        let id = store.add_bytes(&config)?;
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": [],
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": id, "size": config.len()},
        }))?;
        Ok(store.unnamed(store.add_bytes(&manifest)?, manifest.len() as u64)?)
    }
}
