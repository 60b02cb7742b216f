//! File by file: which are read, which tables stand in them, and what the agent's own say.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::keys::{AgentKeys, At, JournalKeys, Table};
use super::settle::{Names, Settler};
use super::shape::{refuse_rest, unfit, unknown_key};
use super::{File, Mistake, Mistakes, Named, Settings, Source, Spot, Written, glob, kind_of};
use crate::place::{ProbeName, Region, Stage};
use crate::secret::Secrets;

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
    /// Where each probe's name was read.
    names: HashMap<String, Spot>,
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
        if self.files.iter().any(|file| file.source.path == path) {
            return;
        }
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
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                let title = format!("cannot read {}: {error}", path.display());
                self.mistakes.push(Mistake::of_no_line(title));
                return None;
            }
        };
        let source = |text| Arc::new(Source { path: path.to_owned(), text });
        match String::from_utf8(bytes) {
            Ok(text) => Some(source(text)),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                let spot =
                    Spot::new(&source(text), at..at + char::REPLACEMENT_CHARACTER.len_utf8());
                let advice = "write the file in UTF-8";
                self.mistakes.push(Mistake::advised(spot, "this is no UTF-8", advice));
                None
            }
        }
    }

    /// A file's tables. What breaks the rules of TOML makes noise behind it, so only its first breach is told, and
    /// each table that is written twice.
    fn parse<'i>(&mut self, source: &'i Arc<Source>) -> Option<Table<'i>> {
        let (table, mut errors) = DeTable::parse_recoverable(&source.text);
        if errors.is_empty() {
            return Some(table.into_inner());
        }
        errors.sort_by_key(|error| error.span().map_or(0, |span| span.start));
        for (index, error) in errors.into_iter().enumerate() {
            let spot = Spot::new(source, error.span().unwrap_or_default());
            if error.message() != "duplicate key" {
                if index == 0 {
                    self.mistakes.push(Mistake::at(spot, error.message()));
                }
            } else if index == 0 || spot.is_of_a_header() {
                self.mistakes.push(twice(spot));
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
        span: Range<usize>,
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
        let AgentKeys {
            region,
            stage,
            probes,
            state,
            listen,
            resolver,
            labels: _,
            max_in_flight,
            drain,
        } = keys;
        if let Some(region) = self.name_of_place(source, region, "region") {
            self.settings.region = (region != "auto").then(|| Region::from(region.as_str()));
        }
        if let Some(stage) = self.name_of_place(source, stage, "stage") {
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
            settings.resolver = resolver.value.into_iter().map(|server| server.0).collect();
        }
        settings.drain = drain.map_or(settings.drain, |drain| drain.value.get());
        let Some(most) = max_in_flight else { return };
        settings.max_in_flight = usize::try_from(most.value).unwrap_or(usize::MAX);
        if most.value == 0 {
            self.mistakes.push(Mistake::advised(
                Spot::new(source, most.span),
                "`max_in_flight` cannot be 0",
                "write how many runs may be under way at once, such as 1024",
            ));
        }
    }

    /// A region's or a stage's name, if it is one.
    fn name_of_place(
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
            if let Some(first) = self.names.get(name.as_ref()) {
                let title = format!("probe `{name}` is written twice");
                let mistake = Mistake::advised(spot.clone(), title, "rename one of the two");
                self.mistakes.push(mistake.with_first(first.clone(), "first written here"));
            } else {
                self.names.insert(name.to_string(), spot.clone());
            }
            if !value.get_ref().is_table() {
                self.no_table(source, &name, value.span(), value.get_ref());
                continue;
            }
            probes.push(Named { name: ProbeName::from(name.as_ref()), spot, line: 0 });
        }
        probes.sort_by_key(|probe| probe.spot.span.start);
        number(&source.text, &mut probes);
        probes
    }

    fn done(self) -> Written {
        let Self { settings, files, tables, names: _, mistakes, warnings } = self;
        let file_of = |name| tables.get(name).map(|spot: &Spot| Arc::clone(&spot.source));
        let (agent, export) = (file_of("agent"), file_of("export"));
        Written { settings, files, agent, export, mistakes, warnings }
    }
}

/// Gives each probe its line; they are in order, so that the text is read once.
fn number(text: &str, probes: &mut [Named]) {
    let (mut line, mut at) = (1, 0);
    for probe in probes {
        let start = probe.spot.span.start;
        line += text.get(at..start).map_or(0, |passed| passed.matches('\n').count());
        at = start;
        probe.line = line;
    }
}

/// A key that is written twice in one file, with its first place: the nearest of that name in the lines before it.
fn twice(spot: Spot) -> Mistake {
    let lines = spot.source.text.get(..spot.span.start).and_then(|before| before.rfind('\n'));
    let before = lines.and_then(|end| spot.source.text.get(..=end)).unwrap_or_default();
    let mut first: Option<Spot> = None;
    keys_of(DeTable::parse_recoverable(before).0.get_ref(), &mut |key, span| {
        let found = Spot::new(&spot.source, span);
        let nearer = first.as_ref().is_none_or(|first| first.span.start < found.span.start);
        if key == spot.text() && nearer && found.is_of_a_header() == spot.is_of_a_header() {
            first = Some(found);
        }
    });
    let title = format!("`{}` is written twice", spot.text());
    let mistake = Mistake::advised(spot, title, "keep one of the two");
    match first {
        Some(first) => mistake.with_first(first, "first written here"),
        None => mistake,
    }
}

/// Tells each key of a table and of the tables in it.
fn keys_of(table: &Table<'_>, tell: &mut dyn FnMut(&str, Range<usize>)) {
    for (key, value) in table {
        tell(key.get_ref(), key.span());
        if let DeValue::Table(inner) = value.get_ref() {
            keys_of(inner, tell);
        }
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
