//! A process of its own for each thing that is measured, on a core of its own; what it used.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Where a process runs. With one core all share it, and the figures are worth less.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Core {
    /// What is measured.
    Subject,
    /// Targets, drivers and whoever measures.
    Rest,
}

/// Keeps this thread, and what it starts from now on, to one core.
pub(crate) fn stay_on(core: Core) -> io::Result<()> {
    let [first, .., last] = cores() else { return Ok(()) };
    let mut set = CpuSet::new();
    set.set(match core {
        Core::Subject => *first,
        Core::Rest => *last,
    });
    Ok(sched_setaffinity(None, &set)?)
}

/// The cores that there were before any thread was kept to one.
fn cores() -> &'static [usize] {
    static CORES: OnceLock<Vec<usize>> = OnceLock::new();
    CORES.get_or_init(|| {
        let set = sched_getaffinity(None).unwrap_or_default();
        (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect()
    })
}

/// A process that ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    /// Starts it on that core.
    pub(crate) fn start(core: Core, command: &mut Command) -> io::Result<Self> {
        let before = sched_getaffinity(None)?;
        // A child inherits the affinity of the thread that starts it.
        stay_on(core)?;
        let started = command.stdin(Stdio::piped()).spawn();
        sched_setaffinity(None, &before)?;
        Ok(Self(started?))
    }

    /// The first line that it writes, of those that were asked to be piped.
    pub(crate) fn first_line(&mut self) -> io::Result<String> {
        let output = self.0.stdout.take().ok_or_else(|| io::Error::other("stdout is not piped"))?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    /// What it used until now.
    pub(crate) fn cpu(&self) -> io::Result<Cpu> {
        let mut threads = BTreeMap::new();
        for task in fs::read_dir(format!("/proc/{}/task", self.0.id()))? {
            let task = task?;
            // A thread may end while it is looked at.
            let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else { continue };
            let ran = text.split(' ').next().and_then(|ran| ran.parse().ok()).unwrap_or(0);
            threads.insert(task.file_name().to_string_lossy().into_owned(), ran);
        }
        Ok(Cpu(threads))
    }

    /// The memory that it holds, in MiB.
    pub(crate) fn resident(&self) -> io::Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        Ok(kilobytes.unwrap_or(f64::NAN) / 1024.0)
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.runs() {
            // It may end by itself in between: then there is nothing left to stop.
            let asked = kill_process(Pid::from_child(&self.0), Signal::TERM);
            let ended = self.0.wait();
            drop((asked, ended));
        }
    }
}

/// The time on a core of each thread, in nanoseconds.
#[derive(Debug)]
pub(crate) struct Cpu(BTreeMap<String, u64>);

impl Cpu {
    /// The time used since then; a thread that ended in between is left out.
    pub(crate) fn since(&self, earlier: &Self) -> Duration {
        let used = self.0.iter().map(|(thread, ran)| {
            ran.saturating_sub(earlier.0.get(thread).copied().unwrap_or_default())
        });
        Duration::from_nanos(used.sum())
    }
}

/// The size of a file in MiB.
pub(crate) fn size_of(file: &Path) -> io::Result<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a program's size has few digits")]
    Ok(fs::metadata(file)?.len() as f64 / f64::from(1 << 20))
}
