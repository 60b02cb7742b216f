//! What every kind of step and every sink must keep to, found by walking their tables.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use picket::expect::Expectation;
use picket::export::SINKS;
use picket::probe::KINDS;

#[test]
fn every_file_of_a_table_has_a_row() {
    let names: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
    assert_eq!(files_of("probe"), sorted(&names), "src/probe/ and KINDS differ");
    let names: Vec<_> = SINKS.iter().map(|sink| sink.name).collect();
    assert_eq!(files_of("export"), sorted(&names), "src/export/ and SINKS differ");
}

#[test]
fn every_example_of_a_kind_is_a_probe_file_that_plans() {
    for kind in KINDS {
        assert!(kind.example.contains(kind.name), "{}'s example shows another kind", kind.name);
        plans(kind.name, &["validate", "probes.toml"], "probes.toml", kind.example);
    }
}

#[test]
fn every_example_of_a_sink_is_an_agent_file_that_plans() {
    for sink in SINKS {
        let table = format!("[export.{}", sink.name);
        assert!(sink.example.contains(&table), "{}'s example shows another sink", sink.name);
        let arguments = ["validate", "--config", "picket.toml"];
        plans(sink.name, &arguments, "picket.toml", sink.example);
    }
}

#[test]
fn every_kind_says_what_it_is_and_what_can_be_expected_of_it() {
    for kind in KINDS {
        assert!(!kind.about.is_empty(), "{} says nothing of itself", kind.name);
        assert!(!kind.default_expect.is_empty(), "{} expects nothing by default", kind.name);
        for line in kind.default_expect {
            if let Err(mistake) = Expectation::compile(line, kind.subjects) {
                panic!("{}'s own default {line:?} does not compile: {mistake:?}", kind.name);
            }
        }
        let mut seen = BTreeSet::new();
        for subject in kind.subjects {
            assert!(
                !subject.about.is_empty(),
                "{} of {} is not described",
                subject.name,
                kind.name
            );
            let written = (subject.name, format!("{:?}", subject.shape));
            assert!(seen.insert(written), "{} of {} is there twice", subject.name, kind.name);
        }
    }
}

#[test]
fn the_manual_of_every_kind_is_printed_from_its_row() {
    for kind in KINDS {
        let output = picket(Path::new("."), &["kinds", kind.name]).output().unwrap();
        let manual = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "picket kinds {} does not answer", kind.name);
        for line in kind.example.lines().map(str::trim).filter(|line| !line.is_empty()) {
            assert!(manual.contains(line), "the manual of {} lacks {line:?}", kind.name);
        }
        for subject in kind.subjects {
            assert!(manual.contains(subject.name), "{}'s lacks {}", kind.name, subject.name);
        }
    }
}

/// Writes the file into a folder of its own and has picket read it there.
fn plans(what: &str, arguments: &[&str], file: &str, text: &str) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(file), text).unwrap();
    let mut command = picket(folder.path(), arguments);
    // An example may ask for secrets: here they are.
    for secret in text.split("${secret:").skip(1) {
        command.env(secret.split('}').next().unwrap(), "a secret");
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{what}'s example does not plan:\n{said}");
}

fn picket(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_picket"));
    command.current_dir(folder).args(arguments).env("AWS_REGION", "eu-west-1");
    command
}

fn files_of(folder: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder);
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let mut stems: Vec<_> =
        files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    stems.sort();
    stems
}

fn sorted(names: &[&str]) -> Vec<String> {
    let mut names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    names.sort();
    names
}
