//! Arguments in, exit code out: one command a file.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{self, Mistakes, Settings};
use crate::plan::{self, Plan};
use crate::{aws, period::Period};

mod check;
mod demo;
mod junit;
mod log;
mod names;
mod run;
mod table;

/// The answer was good, or the stop was clean.
pub const GOOD: u8 = 0;
/// The answer was bad: some probe failed.
pub const BAD: u8 = 1;
/// The words or the files were wrong.
pub const USAGE: u8 = 2;
/// There is no answer: picket could not judge.
pub const UNJUDGED: u8 = 3;

/// Stands watch outside the service it watches.
#[derive(Debug, Parser)]
#[command(name = "picket", version, about, arg_required_else_help = true, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent until SIGTERM; SIGHUP reloads
    Run(AgentFile),
    /// Run every planned probe once, now
    #[command(after_help = "Exit: 0 all pass or warn, 1 some fail, 2 bad usage or config, 3 could not judge")]
    Check(check::Options),
    /// Load and plan, and run nothing
    #[command(after_help = "Exit: 0 all is well, 2 it is not")]
    Validate(Files),
    /// Show what would run here, and when
    Plan {
        #[command(flatten)]
        files: Files,
        /// How to show it
        #[arg(long, value_enum, default_value_t = Form::Table)]
        format: Form,
    },
    /// Write a commented starting set
    Init {
        /// Where to
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
    /// Show the product: a target that misbehaves, an agent on it, and the page
    Demo(demo::Demo),
    /// Print the JSON Schema of the agent's file or of probe files
    Schema {
        /// Which of the two
        #[arg(value_enum, default_value_t = schema::Which::Probes)]
        which: schema::Which,
    },
    /// Print the manual of all kinds of step, or of one
    Kinds {
        /// The kind
        kind: Option<String>,
    },
    /// Print what an error type means, whose doing it is, and what to look at
    Explain {
        /// The error type, such as tls.expired
        error_type: Option<String>,
    },
    /// Show runs from the journal
    History(history::Options),
    /// Show availability, percentiles and error budget from the journal
    Report(report::Options),
}

/// The agent's file.
#[derive(Args, Clone, Debug)]
struct AgentFile {
    /// The agent's file, or a folder that holds picket.toml [default: /etc/picket/picket.toml, else ./picket.toml]
    #[arg(long, short, value_name = "PATH")]
    config: Option<PathBuf>,
}

/// The agent's file and probe files.
#[derive(Args, Clone, Debug)]
struct Files {
    #[command(flatten)]
    agent: AgentFile,
    /// Probe files; without any, those that the agent's file names
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// How an answer is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Table,
    Json,
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // A reader that has gone away is no reason to fail.
            error.print().ok();
            return ExitCode::from(if error.use_stderr() { USAGE } else { GOOD });
        }
    };
    ExitCode::from(obey(arguments.command))
}

fn obey(command: Command) -> u8 {
    match command {
        Command::Run(agent) => run::main(&agent),
        Command::Check(options) => check::main(&options),
        Command::Demo(options) => demo::main(&options),
        _ => GOOD,
    }
}

/// The settings and the plan of some files, or everything that is wrong with them.
async fn load(files: &Files) -> Result<(Settings, Plan), Mistakes> {
    let written = config::read(files.agent.config.as_deref(), &files.files);
    let region = match &written.settings.region {
        Some(region) => region.clone(),
        None => aws::region().await,
    };
    let place = written.settings.place(region);
    let plan = plan::plan(&written, &place)?;
    Ok((written.settings, plan))
}

/// A runtime for a command that runs probes.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// Says on stderr why a command cannot go on.
fn refuse(why: &dyn std::fmt::Display) -> u8 {
    // Nothing can be done about a stderr that is closed.
    writeln!(io::stderr(), "{why}").ok();
    USAGE
}
