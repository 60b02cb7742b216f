//! Arguments in, exit code out: one command a file.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::clock::{self, Timestamp};
use crate::config::{self, Mistakes};
use crate::lag;
use crate::place::Place;
use crate::plan::{Loaded, Planned};
use crate::schedule;

mod check;
mod columns;
mod demo;
mod explain;
mod history;
mod init;
mod junit;
mod kinds;
mod log;
mod names;
mod plan;
mod report;
mod run;
mod schema;
mod table;
mod validate;

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
#[command(
    name = "picket",
    version,
    about,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent until SIGTERM; SIGHUP reloads
    Run(AgentFile),
    /// Run every planned probe once, now
    #[command(
        after_help = "Exit: 0 all pass or warn, 1 some fail, 2 bad usage or config, 3 could not judge"
    )]
    Check(check::Options),
    /// Load and plan, and run nothing
    #[command(after_help = "Exit: 0 all is well, 2 it is not")]
    Validate(Files),
    /// Show what would run here, and when
    Plan {
        #[command(flatten)]
        files: Files,
        /// How to show it
        #[arg(long, value_enum, default_value_t)]
        format: plan::Format,
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
        #[arg(value_enum, default_value_t)]
        of: schema::Of,
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
    History {
        #[command(flatten)]
        agent: AgentFile,
        #[command(flatten)]
        asked: history::Asked,
    },
    /// Show availability, percentiles and error budget from the journal
    Report {
        #[command(flatten)]
        agent: AgentFile,
        #[command(flatten)]
        asked: report::Asked,
    },
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
    let (mut out, mut notes) = (io::stdout(), io::stderr());
    let (out, notes): (&mut dyn Write, &mut dyn Write) = (&mut out, &mut notes);
    let answered = match command {
        Command::Run(agent) => return run::main(&agent),
        Command::Check(options) => return check::main(&options),
        Command::Demo(options) => return demo::main(&options),
        Command::Validate(Files { agent, files }) => {
            waiting(validate::main(agent.config.as_deref(), &files, out, notes))
        }
        Command::Plan { files: Files { agent, files }, format } => waiting(plan::main(
            agent.config.as_deref(),
            &files,
            format,
            clock::now(),
            &next_due,
            out,
            notes,
        )),
        Command::Init { folder } => init::main(&folder, out, notes),
        Command::Schema { of } => schema::main(of, out),
        Command::Kinds { kind } => kinds::main(kind.as_deref(), out, notes),
        Command::Explain { error_type } => explain::main(error_type.as_deref(), out, notes),
        Command::History { agent, asked } => from_journal(&agent, notes, |state| {
            history::print(state, &asked, Some(table::width()), out)
        }),
        Command::Report { agent, asked } => {
            from_journal(&agent, notes, |state| report::print(state, &asked, out))
        }
    };
    // A reader that has gone away, such as `head`, is no reason to fail.
    answered.unwrap_or(GOOD)
}

/// When a probe is due next.
fn next_due(planned: &Planned, place: &Place, now: Timestamp) -> Timestamp {
    let offset = schedule::offset_of(&planned.identity(), &place.region, planned.every);
    schedule::next_due(now, planned.every, offset)
}

/// An answer from the journal of the agent that a file names.
fn from_journal(
    agent: &AgentFile,
    notes: &mut dyn Write,
    write: impl FnOnce(&std::path::Path) -> Result<(), history::Unanswered>,
) -> io::Result<u8> {
    let written = config::read(agent.config.as_deref(), &[]);
    if !written.mistakes.is_empty() {
        // Another journal than the one that is meant would answer.
        writeln!(notes, "{}", written.mistakes)?;
        return Ok(USAGE);
    }
    match write(&written.settings.state) {
        Ok(()) | Err(history::Unanswered::Write(_)) => Ok(GOOD),
        Err(error @ history::Unanswered::Journal(_)) => {
            writeln!(notes, "error: {}", run::chain(&error))?;
            Ok(USAGE)
        }
    }
}

/// Waits for an answer that has to ask the instance's metadata first.
fn waiting(answer: impl Future<Output = io::Result<u8>>) -> io::Result<u8> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(answer)
}

/// The settings and the plan of some files, or everything that is wrong with them.
async fn load(files: &Files) -> Result<Loaded, Mistakes> {
    crate::plan::load(files.agent.config.as_deref(), &files.files).await
}

/// The most threads that run probes: they wait far more than they work, and each costs memory.
const THREADS: usize = 4;

/// And those beside it, that encode, read the journal and write pages: each has memory of its own to keep.
const ASIDE: usize = 4;

/// A runtime for a command that runs probes.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(cores.min(THREADS)).max_blocking_threads(ASIDE).enable_all();
    lag::watch(&mut runtime).build()
}

/// Says on stderr why a command cannot go on.
fn refuse(why: &dyn std::fmt::Display) -> u8 {
    // Nothing can be done about a stderr that is closed.
    writeln!(io::stderr(), "{why}").ok();
    USAGE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_in_the_agents_file_is_told_before_another_journal_answers() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("picket.toml");
        std::fs::write(&file, "[agent]\nstat = 'here'\n").unwrap();
        let agent = AgentFile { config: Some(file) };
        let mut notes = Vec::new();
        let code =
            from_journal(&agent, &mut notes, |state| panic!("{} was asked", state.display()));
        let notes = String::from_utf8(notes).unwrap();
        assert!(code.unwrap() == USAGE && notes.contains("did you mean `state`?"), "{notes}");
    }
}
