//! RUN: a container from the layers so far; what it changed is the next layer.

use std::io::Read as _;
use std::os::fd::OwnedFd;

use parse_dockerfile::{Command, Flag, RunInstruction};
use rustix::pipe::{PipeFlags, pipe_with};

use super::mounts::Mounts;
use super::{Builder, Work, steps};
use crate::engine::error::Context as _;
use crate::engine::place::Place;
use crate::engine::request::{Choices, Network};
use crate::engine::run::{self, Creation};
use crate::engine::sandbox::{Sandbox as _, Stdio};
use crate::engine::signals::Signals;
use crate::engine::stored::NewLayer;
use crate::engine::{Error, Request, bundle, container, id};
use crate::image::users::Accounts;

pub(super) fn run(
    builder: &mut Builder<'_>,
    work: &mut Work,
    step: &RunInstruction<'_>,
    text: &str,
) -> Result<(), Error> {
    let mounts = Mounts::of(builder, work, &step.options)?;
    let shell = &work.settings.shell;
    let words = match &step.here_docs[..] {
        [] => steps::command(&step.arguments, shell, builder.escape),
        [document] if is_alone(step) => script(&document.value, shell)?,
        // The shell knows here-documents itself.
        _ => shell.iter().cloned().chain([behind_flags(text, &step.options)]).collect(),
    };
    let arguments = serde_json::to_string(work.scope.declared())?;
    let config = ["Env", "User", "WorkingDir"].map(|key| work.settings.config[key].to_string()).concat();
    let depends = ["run", &arguments, &config, &words.join("\0"), &mounts.key];
    builder.layer(work, text, &depends, |builder, work| execute(builder, work, &words, &mounts))
}

/// Whether a here-document is all there is of a RUN; the parser's arguments are what stands behind its word.
fn is_alone(step: &RunInstruction<'_>) -> bool {
    matches!(&step.arguments, Command::Shell(words) if words.value.trim().is_empty())
}

/// Then it is a script for the shell (Dockerfile reference, "Here-Documents").
fn script(text: &str, shell: &[String]) -> Result<Vec<String>, Error> {
    if text.starts_with("#!") {
        return Err(Error::bad(
            "RUN <<WORD is for the shell alone: with #! in its first line, COPY it and RUN that instead",
        ));
    }
    Ok(shell.iter().cloned().chain([text.to_owned()]).collect())
}

/// The text of a RUN behind its keyword and flags.
fn behind_flags(text: &str, options: &[Flag<'_>]) -> String {
    let mut rest = text.trim_start().get("RUN".len()..).unwrap_or_default().trim_start();
    for _ in options {
        rest = rest.split_once(char::is_whitespace).map_or("", |(_, rest)| rest.trim_start());
    }
    rest.to_owned()
}

fn execute(
    builder: &mut Builder<'_>,
    work: &Work,
    words: &[String],
    mounts: &Mounts,
) -> Result<NewLayer, Error> {
    let engine = builder.engine;
    let _locks = mounts.lock()?;
    // A variable of the image goes before an ARG of the same name.
    let own = work.scope.declared().iter().filter(|(name, _)| work.settings.variable(name).is_none());
    let request = Request {
        image: work.image.id().to_string(),
        entrypoint: Some(Vec::new()),
        command: words.to_vec(),
        environment: own.chain(work.scope.proxies()).map(|(name, value)| format!("{name}={value}")).collect(),
        isolation: Choices {
            mounts: mounts.extra.clone(),
            network: if builder.build.host_network || mounts.host_network {
                Network::Host
            } else {
                Network::Own
            },
            new_privileges: true,
            ..Choices::default()
        },
        ..Request::default()
    };
    let id = id::new().context("read", "/dev/urandom")?;
    let place = Place::create(&engine.roots, &id, None)?;
    let layers = engine.images().layer_dirs(&work.image, &())?;
    let accounts = Accounts::read(&layers)?;
    let spec =
        bundle::specification(&id, &request, &work.image_config()?, &accounts, &run::host(request.runtime))?;
    bundle::write(&spec, place.bundle())?;
    let (output, stdio) = wire()?;
    let mut signals = Signals::take()?;
    let mut sandbox = Box::new(container::Container::create(Creation {
        id: &id,
        request: &request,
        image: &work.image,
        layers: &layers,
        store: engine.images(),
        roots: &engine.roots,
        place: &place,
        stdio,
        network: microvm::network::Network::default(),
        timeline: None,
        progress: &(),
        signals: &mut signals,
    })?);
    let ended = sandbox.start().and_then(|()| {
        let mut output = std::fs::File::from(output);
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(read @ 1..) = output.read(&mut buffer) {
            (builder.say)(&String::from_utf8_lossy(&buffer[..read]));
        }
        sandbox.wait()
    });
    sandbox.delete()?;
    let code = ended?.code();
    if code != 0 {
        // Docker's wording, which scripts read.
        return Err(Error::bad(format!(
            "The command '{}' returned a non-zero code: {code}",
            words.join(" ")
        )));
    }
    let layer = engine.store_layer(&place.upper());
    place.remove()?;
    layer
}

/// One pipe for both outputs, in the order in which they are written.
fn wire() -> Result<(OwnedFd, Stdio), Error> {
    let (output, stdout) = pipe_with(PipeFlags::CLOEXEC).context("make", "a pipe")?;
    let stderr = stdout.try_clone().context("make", "a pipe")?;
    let stdin = std::fs::File::open("/dev/null").context("open", "/dev/null")?.into();
    Ok((output, Stdio::Fds { stdin, stdout, stderr }))
}
