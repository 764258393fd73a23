//! `lab classroom`: for whoever teaches.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use lab::course::classroom::{pack, serve::Classroom};
use lab::measure::plan;

/// Pack everything for the laptops of a class; show the book and collect results on the local network.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lab classroom pack class.tar --book book/book
  lab classroom serve --book book/book --listen 0.0.0.0:8000
  lab lesson send 192.168.1.5:8000 --name Eva --token 1234abcd       (on a student's laptop)")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Write one archive with the programs, the guest kernels and the book
    Pack {
        /// The archive
        archive: PathBuf,
        /// The built book
        #[arg(long, value_name = "FOLDER")]
        book: Option<PathBuf>,
    },
    /// Serve the book to all, and results to whoever has the token
    Serve {
        /// Where to listen
        #[arg(long, default_value = "127.0.0.1:8000", value_name = "ADDRESS:PORT")]
        listen: String,
        /// The built book
        #[arg(long, value_name = "FOLDER")]
        book: Option<PathBuf>,
        /// Where results are kept, a file a student
        #[arg(long, default_value = "results", value_name = "FOLDER")]
        results: PathBuf,
        /// The class's token; a new one each time where not given
        #[arg(long)]
        token: Option<String>,
    },
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.action {
        Action::Pack { archive, book } => {
            let packed = pack::pack(&archive, book.as_deref())?;
            for part in packed.parts {
                super::print(&format!("packed: {part}\n"))?;
            }
            for missing in packed.missing {
                anstream::eprintln!("lab: warning: without {missing}");
            }
        }
        Action::Serve { listen, book, results, token } => {
            std::fs::create_dir_all(&results).with_context(|| format!("create {}", results.display()))?;
            let listener = TcpListener::bind(&listen).with_context(|| format!("listen on {listen}"))?;
            let token = token.unwrap_or_else(|| format!("{:08x}", plan::fresh_seed()));
            let address = listener.local_addr()?;
            super::print(&format!(
                "book:    http://{address}/book/\nresults: http://{address}/results?token={token}\ntoken:   {token}\n"
            ))?;
            Classroom { book, results, token }.serve(&listener)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
