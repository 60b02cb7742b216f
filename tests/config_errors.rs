//! Every mistake of a user's files is told, at its place, with what to write instead: a folder of mistakes, and what
//! is said of each beside it.

use std::fs;
use std::path::{Path, PathBuf};

use picket::config::{self, Mistakes};
use picket::place::Place;
use picket::plan::{self, Loaded};

fn planned(files: &[PathBuf]) -> Result<Loaded, Mistakes> {
    let place = Place { region: "eu-west-1".into(), stage: "prod".into() };
    plan::plan(&config::read(None, files), &place)
}

fn told(files: &[PathBuf]) -> String {
    planned(files).expect_err("a mistake").to_string()
}

fn snapshot(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("mistakes");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

#[test]
fn each_mistake_is_told_with_its_place_and_what_to_write() {
    let mut files: Vec<_> = fs::read_dir("tests/mistakes")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    assert!(files.len() > 10);
    for path in files {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        snapshot(&name, &told(&[path]));
    }
}

#[test]
fn a_probe_that_is_written_in_two_files_names_both_places() {
    let files =
        ["a", "b"].map(|name| Path::new("tests/mistakes/twice").join(name).with_extension("toml"));
    snapshot("twice_in_two_files", &told(&files));
}

#[test]
fn a_file_that_is_not_there_is_a_mistake() {
    let text = told(&[PathBuf::from("tests/mistakes/no_such_file.toml")]);
    assert!(text.contains("cannot read tests/mistakes/no_such_file.toml"), "{text}");
    assert!(text.ends_with("1 mistake in 1 file"), "{text}");
}

#[test]
fn no_mistake_shows_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("token");
    fs::write(&secret, "hunter2").unwrap();
    let file = folder.path().join("a.toml");
    let url = format!("https://example.com/${{secret:file:{}}}", secret.display());
    fs::write(&file, format!("[probe.a]\nhttp = {{ url = \"{url}\", nope = 1 }}\nevery = \"x\"\n"))
        .unwrap();
    let text = told(&[file]);
    assert!(text.contains("nope") && !text.contains("hunter2"), "{text}");
}
