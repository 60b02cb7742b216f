//! Reads what was written; knows no defaults of a probe; errors show the line.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use crate::place::{Place, ProbeName, Region, Stage};
use crate::secret::Secrets;
use keys::{AgentKeys, At, JournalKeys, Table};
pub use mistake::{Mistake, Mistakes, Source, Spot};
use settle::{Names, Settler};
use shape::{refuse_rest, unfit, unknown_key};

pub mod glob;
pub mod keys;
mod mistake;
pub mod schema;
pub mod settle;
pub mod shape;

/// What was written, of all files.
#[derive(Debug)]
pub struct Written {
    /// The agent's settings.
    pub settings: Settings,
    /// The files that hold probes, in order.
    pub files: Vec<File>,
    /// The file that `[agent]` is in: its labels wait for the place.
    pub agent: Option<Arc<Source>>,
    /// The file that `[export]` is in.
    pub export: Option<Arc<Source>>,
    /// What is wrong so far.
    pub mistakes: Mistakes,
    /// What is allowed but looks unmeant.
    pub warnings: Vec<String>,
}

/// The agent's settings, defaults filled in.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file that they come from, if one was read.
    pub file: Option<PathBuf>,
    /// Where this picket stands; none to find out.
    pub region: Option<Region>,
    /// The stage that it serves.
    pub stage: Stage,
    /// The patterns of the probe files, and the folder that they start from.
    pub probes: (PathBuf, Vec<String>),
    /// The folder of the journal and the ledger.
    pub state: PathBuf,
    /// Where the page answers; none for nowhere.
    pub listen: Option<SocketAddr>,
    /// DNS servers to ask; the system's when empty.
    pub resolver: Vec<SocketAddr>,
    /// How many runs may be under way at once.
    pub max_in_flight: usize,
    /// How long outcomes are kept.
    pub journal: Keep,
}

/// How long outcomes are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Passes.
    pub passes: Duration,
    /// All others.
    pub failures: Duration,
    /// The most bytes on disk.
    pub max_size: u64,
}

/// A file that holds probes.
#[derive(Debug)]
pub struct File {
    /// As it was read.
    pub source: Arc<Source>,
    /// The folder that relative paths in it start from.
    pub folder: PathBuf,
    /// The probes' names, in the order in which they are written.
    pub probes: Vec<Named>,
}

/// A probe's name and where it stands.
#[derive(Debug)]
pub struct Named {
    /// The name.
    pub name: ProbeName,
    /// Where it stands.
    pub spot: Spot,
}

impl Default for Settings {
    fn default() -> Self {
        let state = std::env::var_os("STATE_DIRECTORY")
            .and_then(|folders| std::env::split_paths(&folders).next())
            .filter(|folder| !folder.as_os_str().is_empty());
        Self {
            file: None,
            region: None,
            stage: Stage::from("prod"),
            probes: (PathBuf::new(), vec!["probes/*.toml".to_owned()]),
            state: state.unwrap_or_else(|| PathBuf::from("/var/lib/picket")),
            listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9464))),
            resolver: Vec::new(),
            max_in_flight: 1024,
            journal: Keep {
                passes: Duration::from_hours(7 * 24),
                failures: Duration::from_hours(30 * 24),
                max_size: 1 << 30,
            },
        }
    }
}

impl Settings {
    /// Where this picket stands, when `region` is what was found out.
    pub fn place(&self, found: Region) -> Place {
        Place { region: self.region.clone().unwrap_or(found), stage: self.stage.clone() }
    }
}

/// Reads the agent's file and the probe files. `config` is a file or a folder; without it and without probe files
/// the usual places are tried. Probe files given alone are read with the defaults of the agent, or with what one of
/// them says of it. What is wrong is kept with what was read, so that one look tells everything.
pub fn read(config: Option<&Path>, probe_files: &[PathBuf]) -> Written {
    let mut reading = Reading::default();
    match agent_file(config, probe_files) {
        Some(path) => reading.agent_file(&path, probe_files.is_empty()),
        None => reading.settings.probes.0 = config.map(Path::to_owned).unwrap_or_default(),
    }
    if probe_files.is_empty() {
        reading.probe_files();
    }
    for path in probe_files.iter().flat_map(|path| in_folder(path)) {
        reading.given_file(&path, config.is_none());
    }
    reading.done()
}

/// The agent's file; none when there is none.
fn agent_file(config: Option<&Path>, probe_files: &[PathBuf]) -> Option<PathBuf> {
    match config {
        Some(folder) if folder.is_dir() => {
            Some(folder.join("picket.toml")).filter(|path| path.exists())
        }
        Some(file) => Some(file.to_owned()),
        None if !probe_files.is_empty() => None,
        None => [Path::new("/etc/picket/picket.toml"), Path::new("picket.toml")]
            .into_iter()
            .find(|path| path.exists())
            .map(Path::to_owned),
    }
}

/// The probe files that a path on the command line means.
fn in_folder(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    glob::files(path, "*.toml").unwrap_or_default()
}

#[derive(Debug, Default)]
struct Reading {
    settings: Settings,
    files: Vec<File>,
    /// Where each of the agent's tables was read.
    tables: BTreeMap<&'static str, Spot>,
    mistakes: Mistakes,
    warnings: Vec<String>,
}

/// Tables that only the agent's file has.
const AGENT_TABLES: &[&str] = &["agent", "journal", "export"];

impl Reading {
    fn agent_file(&mut self, path: &Path, its_probes: bool) {
        self.settings.file = Some(path.to_owned());
        self.settings.probes.0 = path.parent().map(Path::to_owned).unwrap_or_default();
        let Some(source) = self.open(path) else { return };
        let Some(mut tables) = self.parse(&source) else { return };
        self.agent_tables(&source, &mut tables);
        if !its_probes {
            // The probes of the command line stand in for the agent's own.
            tables.remove("probe");
            tables.remove("defaults");
        }
        self.probe_tables(&source, tables);
    }

    /// A probe file that the command line names; it may say what the agent's file would.
    fn given_file(&mut self, path: &Path, may_be_agent: bool) {
        let Some(source) = self.open(path) else { return };
        let Some(mut tables) = self.parse(&source) else { return };
        if may_be_agent && AGENT_TABLES.iter().any(|name| tables.contains_key(*name)) {
            self.settings.probes.0 = path.parent().map(Path::to_owned).unwrap_or_default();
            let agent = tables.get("agent").and_then(|agent| agent.get_ref().as_table());
            let names_probes = agent.is_some_and(|agent| agent.contains_key("probes"));
            let its_own = tables.contains_key("probe");
            self.agent_tables(&source, &mut tables);
            if names_probes || !its_own {
                self.probe_files();
            }
        }
        self.probe_tables(&source, tables);
    }

    /// The files that the agent's patterns mean.
    fn probe_files(&mut self) {
        let (folder, patterns) = self.settings.probes.clone();
        for pattern in patterns {
            match glob::files(&folder, &pattern) {
                Ok(found) if found.is_empty() && !glob::is_pattern(&pattern) => {
                    self.probe_file(&folder.join(&pattern));
                }
                Ok(found) if found.is_empty() => {
                    self.warnings.push(format!("{} fits no file", folder.join(&pattern).display()));
                }
                Ok(found) => found.iter().for_each(|path| self.probe_file(path)),
                Err(error) => {
                    let whole = folder.join(&pattern);
                    let title = format!("cannot look for {}: {error}", whole.display());
                    self.mistakes.push(Mistake::of_no_line(title));
                }
            }
        }
    }

    fn probe_file(&mut self, path: &Path) {
        if self.files.iter().any(|file| file.source.path == path) {
            return;
        }
        let Some(source) = self.open(path) else { return };
        let Some(tables) = self.parse(&source) else { return };
        self.probe_tables(&source, tables);
    }

    fn open(&mut self, path: &Path) -> Option<Arc<Source>> {
        match std::fs::read_to_string(path) {
            Ok(text) => Some(Arc::new(Source { path: path.to_owned(), text })),
            Err(error) => {
                let title = format!("cannot read {}: {error}", path.display());
                self.mistakes.push(Mistake::of_no_line(title));
                None
            }
        }
    }

    fn parse<'i>(&mut self, source: &'i Arc<Source>) -> Option<Table<'i>> {
        let (table, errors) = DeTable::parse_recoverable(&source.text);
        if errors.is_empty() {
            return Some(table.into_inner());
        }
        let mut last_line = 0;
        for error in errors {
            let spot = Spot::new(source, error.span().unwrap_or_default());
            // What follows on the same line follows from the first.
            if spot.line() != last_line {
                last_line = spot.line();
                self.mistakes.push(Mistake::advised(spot, error.message(), ""));
            }
        }
        None
    }

    fn agent_tables(&mut self, source: &Arc<Source>, tables: &mut Table<'_>) {
        for name in AGENT_TABLES {
            let Some((key, value)) = tables.remove_entry(*name) else { continue };
            let spot = Spot::new(source, key.span());
            if let Some(first) = self.tables.insert(name, spot.clone()) {
                let title = format!("`{name}` is written twice");
                let mistake = Mistake::advised(spot, title, "keep one of the two");
                self.mistakes.push(mistake.with_first(first, "first written here"));
                continue;
            }
            let span = value.span();
            match (*name, value.into_inner()) {
                ("agent", DeValue::Table(table)) => self.agent_keys(source, table),
                ("journal", DeValue::Table(table)) => self.journal_keys(source, &table),
                (_, DeValue::Table(_)) => {}
                (name, value) => self.no_table(source, name, span, &value),
            }
        }
    }

    fn no_table(
        &mut self,
        source: &Arc<Source>,
        name: &str,
        span: std::ops::Range<usize>,
        value: &DeValue<'_>,
    ) {
        let title = format!("`{name}` cannot be {}", kind_of(value));
        self.mistakes.push(Mistake::advised(Spot::new(source, span), title, "write a table"));
    }

    fn agent_keys(&mut self, source: &Arc<Source>, mut table: Table<'_>) {
        // Labels may name the region: they are read when it is known.
        table.remove("labels");
        let mut table = self.with_environment(source, &table);
        let mistakes = &mut self.mistakes;
        let keys = AgentKeys::take(&mut table, &mut |key, span, error| {
            mistakes.push(unfit(source, key, &span, error));
        });
        refuse_rest(source, &table, AgentKeys::KEYS, &mut self.mistakes);
        let AgentKeys { region, stage, probes, state, listen, resolver, labels: _, max_in_flight } =
            keys;
        if let Some(region) = self.mistakes_of_name(source, region, "region") {
            self.settings.region = (region != "auto").then(|| Region::from(region.as_str()));
        }
        if let Some(stage) = self.mistakes_of_name(source, stage, "stage") {
            self.settings.stage = Stage::from(stage.as_str());
        }
        let settings = &mut self.settings;
        if let Some(probes) = probes {
            settings.probes.1 = probes.value.into_iter().map(|pattern| pattern.value).collect();
        }
        if let Some(state) = state {
            settings.state = state.value;
        }
        if let Some(listen) = listen {
            settings.listen = listen.value.0;
        }
        if let Some(resolver) = resolver {
            settings.resolver = resolver.value;
        }
        match max_in_flight {
            Some(most) if most.value == 0 => self.mistakes.push(Mistake::advised(
                Spot::new(source, most.span),
                "`max_in_flight` cannot be 0",
                "write how many runs may be under way at once, such as 1024",
            )),
            Some(most) => {
                settings.max_in_flight = usize::try_from(most.value).unwrap_or(usize::MAX)
            }
            None => {}
        }
    }

    /// A region's or a stage's name, if it is one.
    fn mistakes_of_name(
        &mut self,
        source: &Arc<Source>,
        name: Option<At<String>>,
        key: &str,
    ) -> Option<String> {
        let At { value, span } = name?;
        let fits = !value.is_empty()
            && value.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter));
        if fits {
            return Some(value);
        }
        let title = format!("{value:?} is no {key}'s name");
        let advice = "write letters, digits, `-`, `_` and `.`";
        self.mistakes.push(Mistake::advised(Spot::new(source, span), title, advice));
        None
    }

    fn journal_keys(&mut self, source: &Arc<Source>, table: &Table<'_>) {
        let mut table = self.with_environment(source, table);
        let mistakes = &mut self.mistakes;
        let JournalKeys { keep, keep_failures, max_size } =
            JournalKeys::take(&mut table, &mut |key, span, error| {
                mistakes.push(unfit(source, key, &span, error));
            });
        refuse_rest(source, &table, JournalKeys::KEYS, &mut self.mistakes);
        let journal = &mut self.settings.journal;
        journal.passes = keep.map_or(journal.passes, |keep| keep.value.get());
        journal.failures = keep_failures.map_or(journal.failures, |keep| keep.value.get());
        journal.max_size = max_size.map_or(journal.max_size, |size| size.value.bytes());
    }

    /// The agent's own tables know the environment only: region and stage are what they say.
    fn with_environment<'i>(&mut self, source: &Arc<Source>, table: &Table<'i>) -> Table<'i> {
        let secrets = Secrets::here();
        let givens = BTreeMap::new();
        let mut settler = Settler::new(source, &secrets);
        let settled = settler.table(table, Names { givens: &givens, captures: &[] });
        self.mistakes.extend(settler.mistakes);
        settled
    }

    fn probe_tables(&mut self, source: &Arc<Source>, mut tables: Table<'_>) {
        let folder = source.path.parent().map(Path::to_owned).unwrap_or_default();
        let mut file = File { source: Arc::clone(source), folder, probes: Vec::new() };
        for name in ["defaults", "probe"] {
            let Some(value) = tables.remove(name) else { continue };
            let span = value.span();
            match (name, value.into_inner()) {
                ("probe", DeValue::Table(table)) => file.probes = self.probes(source, table),
                (_, DeValue::Table(_)) => {}
                (name, other) => self.no_table(source, name, span, &other),
            }
        }
        self.files.push(file);
        for key in tables.keys() {
            let name = key.get_ref().as_ref();
            if AGENT_TABLES.contains(&name) {
                let spot = Spot::new(source, key.span());
                let title = format!("`{name}` belongs in the agent's file");
                self.mistakes.push(Mistake::advised(spot, title, "write it in picket.toml"));
                continue;
            }
            let known = ["probe", "defaults"].iter().chain(AGENT_TABLES).copied();
            self.mistakes.push(unknown_key(source, key.span(), name, known));
        }
    }

    fn probes(&mut self, source: &Arc<Source>, table: Table<'_>) -> Vec<Named> {
        let mut probes = Vec::new();
        for (key, value) in table {
            let spot = Spot::new(source, key.span());
            let name = key.into_inner();
            if let Some(why) = no_probe_name(&name) {
                self.mistakes.push(Mistake::at(spot, &why));
                continue;
            }
            if let Some(first) = self.first(&name) {
                let title = format!("probe `{name}` is written twice");
                let mistake = Mistake::advised(spot, title, "rename one of the two");
                self.mistakes.push(mistake.with_first(first, "first written here"));
                continue;
            }
            if !value.get_ref().is_table() {
                self.no_table(source, &name, value.span(), value.get_ref());
                continue;
            }
            probes.push(Named { name: ProbeName::from(name.as_ref()), spot });
        }
        probes.sort_by_key(|probe| probe.spot.span.start);
        probes
    }

    fn first(&self, name: &str) -> Option<Spot> {
        let mut known = self.files.iter().flat_map(|file| &file.probes);
        known.find(|probe| probe.name.as_str() == name).map(|probe| probe.spot.clone())
    }

    fn done(self) -> Written {
        let Self { settings, files, tables, mistakes, warnings } = self;
        let file_of = |name| tables.get(name).map(|spot: &Spot| Arc::clone(&spot.source));
        let (agent, export) = (file_of("agent"), file_of("export"));
        Written { settings, files, agent, export, mistakes, warnings }
    }
}

/// Why a text can be no probe's name.
fn no_probe_name(name: &str) -> Option<String> {
    let fits = |letter: char| letter.is_alphanumeric() || "-_.:/ ".contains(letter);
    if name.is_empty() || name.trim() != name || !name.chars().all(fits) {
        return Some(format!(
            "{name:?} is no probe's name: write letters, digits, `-`, `_`, `.`, `:` and `/`"
        ));
    }
    (name.len() > 200).then(|| "this probe's name is too long: at most 200 bytes".to_owned())
}

/// What a value is, in words.
pub fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
