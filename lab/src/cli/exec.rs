//! `lab exec` and `lab attach`: this terminal, or these streams, joined with a container's.

use std::process::ExitCode;

use bollard_stubs::models::ExecConfig;
use lab::engine::client::{Remote, converse};
use lab::engine::monitor::protocol::{Answer, Attach, hear};
use lab::engine::stored::{Engine, Record};
use lab::engine::{Error, process};
use rustix::termios::Winsize;

/// Run a command in a container that runs.
#[derive(Debug, clap::Args)]
#[command(override_usage = "lab exec [OPTIONS] CONTAINER COMMAND [ARG...]")]
pub struct Args {
    /// Connect standard input
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Leave it running in the background
    #[arg(short, long)]
    detach: bool,
    /// Set an environment variable; NAME alone passes on the caller's
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Start in this directory
    #[arg(short, long, value_name = "PATH")]
    workdir: Option<String>,
    /// Run as this user
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// With every capability
    #[arg(long)]
    privileged: bool,
    /// The container, then the command and its arguments
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, value_names = ["CONTAINER", "COMMAND"])]
    words: Vec<String>,
}

/// Join the streams of a container that runs.
#[derive(Debug, clap::Args)]
pub struct AttachArgs {
    /// Leave standard input alone
    #[arg(long)]
    no_stdin: bool,
    /// Name or id
    container: String,
}

/// The keys ctrl-p, ctrl-q: they leave the container and let it run.
const LEAVE: [u8; 2] = [16, 17];

/// Who is spoken to: the workload, or a process that was added.
struct Other<'a> {
    engine: &'a Engine,
    record: &'a Record,
    exec: Option<&'a str>,
}

impl Remote for Other<'_> {
    fn resize(&self, size: Winsize) -> Result<(), Error> {
        // One that has just ended has no terminal any more.
        let _ = self.engine.resize(self.record, self.exec, size.ws_row, size.ws_col);
        Ok(())
    }

    fn signal(&self, signal: i32) -> Result<(), Error> {
        if self.exec.is_none() {
            let _ = self.engine.kill(self.record, &signal.to_string());
            return Ok(());
        }
        // Docker's API has no signal for an added process; this one only stops listening to it.
        Err(Error::Interrupted { signal })
    }
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let own = |name: &str| std::env::var(name).ok();
    let env: Result<Vec<String>, Error> = args.env.iter().map(|text| process::variable(text, own)).collect();
    let mut words = args.words.into_iter();
    let engine = Engine::open()?;
    let record = engine.find(&words.next().unwrap_or_default())?;
    let config = ExecConfig {
        attach_stdin: Some(args.interactive),
        attach_stdout: Some(!args.detach),
        attach_stderr: Some(!args.detach),
        tty: Some(args.tty),
        env: Some(env?),
        cmd: Some(words.collect()),
        privileged: Some(args.privileged),
        user: args.user,
        working_dir: args.workdir,
        ..ExecConfig::default()
    };
    let exec = engine.exec_record(&engine.create_exec(&record, &config)?)?;
    let attach = (!args.detach).then(|| Attach {
        stdin: args.interactive,
        stdout: true,
        stderr: true,
        ..Attach::default()
    });
    let stream = match engine.start_exec(&exec, attach) {
        Ok(stream) => stream,
        Err(error) => {
            super::style::print_error(&error.to_string());
            return Ok(ExitCode::from(error.exit_code()));
        }
    };
    if args.detach {
        return Ok(ExitCode::SUCCESS);
    }
    converse(
        &stream,
        args.tty,
        args.interactive,
        &Other { engine: &engine, record: &record, exec: Some(&exec.id) },
    )?;
    Ok(ExitCode::from(engine.exec_record(&exec.id)?.exit_code.unwrap_or(255) as u8))
}

/// Starts a container with these streams, (terminal, input), and waits for its end.
pub fn run_to_the_end(
    engine: &Engine,
    record: &Record,
    (tty, input): (bool, bool),
) -> anyhow::Result<ExitCode> {
    let attach = Attach { stdin: input, stdout: true, stderr: true, detach: LEAVE.to_vec(), raw: None };
    let begin = || {
        let stream = engine.attach(record, &attach)?;
        let end = engine.wait_for_next(record)?;
        engine.start(record)?;
        Ok((stream, end))
    };
    let (stream, end) = match begin() {
        Ok(both) => both,
        Err(error) => {
            // One that could not start removes itself, or has nothing left.
            let _ = engine.remove(record, true, true);
            return super::create::failed(&error);
        }
    };
    converse(&stream, tty, input, &Other { engine, record, exec: None })?;
    drop(stream);
    // One that was left by the keys runs on.
    if engine.find(&record.id).is_ok_and(|record| record.status.is_live()) {
        return Ok(ExitCode::SUCCESS);
    }
    match hear(&end) {
        Ok(Answer::Exited { code }) => Ok(ExitCode::from(code as u8)),
        _ => anyhow::bail!("the monitor of {} was lost", record.short_id()),
    }
}

pub fn attach(args: AttachArgs) -> anyhow::Result<ExitCode> {
    let engine = Engine::open()?;
    let record = engine.find(&args.container)?;
    engine.reconcile(&record)?;
    let record = engine.find(&record.id)?;
    anyhow::ensure!(record.status.is_live(), "container {} does not run; start it first", record.name);
    let input = !args.no_stdin && record.body.open_stdin.unwrap_or(false);
    let attach = Attach { stdin: input, stdout: true, stderr: true, detach: LEAVE.to_vec(), raw: None };
    let stream = engine.attach(&record, &attach)?;
    converse(&stream, record.has_terminal(), input, &Other { engine: &engine, record: &record, exec: None })?;
    // One that was left runs on; one that ended tells how.
    let now = engine
        .find(&record.id)
        .map_or(0, |record| if record.status.is_live() { 0 } else { record.exit_code });
    Ok(ExitCode::from(now as u8))
}
