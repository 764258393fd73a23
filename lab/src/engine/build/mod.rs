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

mod context;
mod copy;
mod run;
mod steps;
mod words;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Read;
use std::path::Path;

use oci_spec::image::ImageConfiguration;
use parse_dockerfile::{Dockerfile, Instruction, Stage, parse};
use serde_json::{Value, json};

use super::Error;
use super::error::Context as _;
use super::stored::{Engine, NewLayer, Step, host_directory, unpack};
use crate::image::tar::Archive;
use crate::image::{Digest, Image, Reference, embedded, plain};

/// What is to be built.
#[derive(Clone, Debug, Default)]
pub struct Build {
    /// The Dockerfile's path in the context.
    pub dockerfile: String,
    /// The image's names.
    pub names: Vec<Reference>,
    /// Values of ARG.
    pub arguments: HashMap<String, String>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// The stage to stop at; the last where none is given.
    pub target: Option<String>,
    /// Whether no remembered layer is used.
    pub no_cache: bool,
    /// Whether RUN may use the host's network; else it has none.
    pub host_network: bool,
}

/// A build under way.
struct Builder<'a> {
    engine: &'a Engine,
    build: &'a Build,
    context: &'a Path,
    say: &'a mut dyn FnMut(&str),
    text: &'a str,
    /// The stages that are done: their names, their images.
    done: Vec<(Option<String>, Image)>,
    step: usize,
    steps: usize,
}

/// A stage under way.
struct Work {
    image: Image,
    config: Value,
    /// Whether the configuration has changed since the image was stored.
    pending: Vec<String>,
    /// ARGs of this stage.
    arguments: BTreeMap<String, String>,
    shell: Vec<String>,
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
        let path = folder.path().join(&build.dockerfile);
        let text = fs::read_to_string(&path)
            .map_err(|_| Error::bad(format!("Cannot locate specified Dockerfile: {}", build.dockerfile)))?;
        let dockerfile = parse(&text).map_err(|error| {
            let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
            let caret = " ".repeat(error.column().saturating_sub(1));
            Error::bad(format!("{}:{}: {error}\n{line}\n{caret}^", build.dockerfile, error.line()))
        })?;
        let steps = dockerfile.instructions.len() - dockerfile.global_args().len();
        let context = folder.path();
        let mut builder =
            Builder { engine: self, build, context, say, text: &text, done: Vec::new(), step: 0, steps };
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
        let mut global = BTreeMap::new();
        for argument in dockerfile.global_args() {
            self.declare(&argument.arguments.value, &mut global);
        }
        let mut last = None;
        for stage in dockerfile.stages() {
            let name = stage.from.as_.as_ref().map(|(_, name)| name.value.to_string());
            let image =
                self.stage(&stage, &global).map_err(|error| self.at(stage.from.from.span.start, error))?;
            self.done.push((name.clone(), image.clone()));
            last = Some(image);
            if name.is_some() && name == self.build.target {
                return last.ok_or_else(|| Error::bad("the Dockerfile has no stage"));
            }
        }
        match &self.build.target {
            Some(target) => Err(Error::bad(format!("target stage \"{target}\" could not be found"))),
            None => last.ok_or_else(|| Error::bad("the Dockerfile has no stage")),
        }
    }

    /// Names the line, unless one is named already.
    fn at(&self, offset: usize, error: Error) -> Error {
        let file = format!("{}:", self.build.dockerfile);
        let line = self.text[..offset.min(self.text.len())].matches('\n').count() + 1;
        match error {
            Error::Bad { message } if message.starts_with(&file) => Error::Bad { message },
            error => Error::bad(format!("{file}{line}: {error}")),
        }
    }

    fn announce(&mut self, span: std::ops::Range<usize>) {
        self.step += 1;
        let words: Vec<&str> = self.text[span].split_whitespace().filter(|word| *word != "\\").collect();
        (self.say)(&format!("Step {}/{} : {}\n", self.step, self.steps, words.join(" ")));
    }

    /// An ARG: its value is the user's, else the Dockerfile's.
    fn declare(&self, text: &str, into: &mut BTreeMap<String, String>) {
        let known = into.clone();
        for word in words::split(text, &|name| known.get(name).cloned()) {
            let (name, default) = match word.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (word.clone(), None),
            };
            if let Some(value) = self.build.arguments.get(&name).cloned().or(default) {
                into.insert(name, value);
            }
        }
    }

    fn stage(&mut self, stage: &Stage<'_, '_>, global: &BTreeMap<String, String>) -> Result<Image, Error> {
        let start = stage.from.from.span.start;
        self.announce(
            start..stage.from.as_.as_ref().map_or(stage.from.image.span.end, |(_, name)| name.span.end),
        );
        let asked = words::expand(&stage.from.image.value, &|name| global.get(name).cloned());
        let image = self.find(&asked)?;
        let raw: Value = serde_json::from_slice(image.raw_config())?;
        let mut config = raw["config"].clone();
        if !config.is_object() {
            config = json!({});
        }
        // They are for this build, and not for one from its image.
        let triggers = config.as_object_mut().and_then(|config| config.remove("OnBuild"));
        let triggers: Vec<String> =
            triggers.and_then(|list| serde_json::from_value(list).ok()).unwrap_or_default();
        (self.say)(&format!(" ---> {}\n", &image.id().hex()[..12]));
        let shell = serde_json::from_value(config["Shell"].clone())
            .unwrap_or_else(|_| vec!["/bin/sh".into(), "-c".into()]);
        let mut work = Work { image, config, pending: Vec::new(), arguments: BTreeMap::new(), shell };
        if !triggers.is_empty() {
            self.triggers(&triggers, global, &mut work)
                .map_err(|error| Error::bad(format!("ONBUILD of image {asked}: {error}")))?;
        }
        for instruction in stage.instructions {
            let span = steps::span(instruction);
            self.announce(span.clone());
            self.one(instruction, &self.text[span.clone()], global, &mut work)
                .map_err(|error| self.at(span.start, error))?;
        }
        for (key, value) in &self.build.labels {
            work.config["Labels"][key] = value.clone().into();
        }
        self.settle(&mut work)?;
        (self.say)(&format!(" ---> {}\n", &work.image.id().hex()[..12]));
        Ok(work.image)
    }

    /// What the image below wants to be done first in every build from it.
    fn triggers(
        &mut self,
        triggers: &[String],
        global: &BTreeMap<String, String>,
        work: &mut Work,
    ) -> Result<(), Error> {
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
        global: &BTreeMap<String, String>,
        work: &mut Work,
    ) -> Result<(), Error> {
        let Instruction::Arg(argument) = instruction else {
            return self.instruction(instruction, text, work);
        };
        // One without a default takes that of the same name before the first FROM.
        let mut declared = global.clone();
        self.declare(&argument.arguments.value, &mut declared);
        for word in argument.arguments.value.split_whitespace() {
            let name = word.split('=').next().unwrap_or_default();
            work.arguments.extend(declared.get(name).map(|value| (name.to_owned(), value.clone())));
        }
        Ok(())
    }

    /// An earlier stage by its name or number, or an image.
    fn find(&self, name: &str) -> Result<Image, Error> {
        let stage = self.done.iter().find(|(other, _)| other.as_deref() == Some(name));
        if let Some((_, image)) = stage {
            return Ok(image.clone());
        }
        let store = self.engine.images();
        if name == "scratch" {
            return self.engine.empty_image();
        }
        if embedded::NAME.split(':').next() == name.split(':').next() {
            embedded::ensure(store)?;
        }
        Ok(store.resolve(name)?)
    }

    /// Stores the configuration that steps have changed since.
    fn settle(&self, work: &mut Work) -> Result<(), Error> {
        let text = std::mem::take(&mut work.pending).join("; ");
        let step = Step { text: &text, ..Step::default() };
        work.image = self.engine.extend_image(&work.image, None, &work.config, &step)?;
        Ok(())
    }

    /// Adds a layer: the remembered one, or what `make` makes.
    fn layer(
        &mut self,
        work: &mut Work,
        text: &str,
        depends: &[&str],
        make: impl FnOnce(&mut Self, &Work) -> Result<NewLayer, Error>,
    ) -> Result<(), Error> {
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
        work.pending.clear();
        let step = Step { text, ..Step::default() };
        work.image = self.engine.extend_image(&work.image, Some(layer), &work.config, &step)?;
        Ok(())
    }
}

impl Work {
    /// The value of a variable: of the environment, else of an ARG.
    fn value(&self, name: &str) -> Option<String> {
        let prefix = format!("{name}=");
        let env = self.config["Env"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let found = env.filter_map(|text| text.strip_prefix(&prefix)).next_back().map(str::to_owned);
        found.or_else(|| self.arguments.get(name).cloned())
    }

    /// The configuration as containers read it.
    fn image_config(&self) -> Result<ImageConfiguration, Error> {
        Ok(serde_json::from_value(json!({
            "architecture": self.image.config().architecture(), "os": "linux", "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": []},
        }))?)
    }
}

impl Engine {
    /// An image without layers, for `FROM scratch`.
    fn empty_image(&self) -> Result<Image, Error> {
        let store = self.images();
        let config = serde_json::to_vec(&json!({
            "architecture": crate::image::architecture().to_string(), "os": "linux", "config": {},
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
