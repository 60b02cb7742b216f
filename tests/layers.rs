//! Each layer uses the ones above it, never one below. The order is the table of contents in `lib.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn no_layer_uses_one_below_it() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let layers = layers(&fs::read_to_string(source.join("lib.rs")).unwrap());
    let mut broken = Vec::new();
    for file in rust_files(&source) {
        let inside = file.strip_prefix(&source).unwrap();
        let word = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        let Some(own) = layers.get(word) else {
            assert!(["lib", "main"].contains(&word), "lib.rs does not name src/{word}.rs");
            continue;
        };
        for used in words_used(&fs::read_to_string(&file).unwrap()) {
            if layers.get(&used).is_some_and(|layer| layer > own) {
                broken.push(format!("src/{} uses crate::{used}", inside.display()));
            }
        }
    }
    assert!(broken.is_empty(), "a layer uses one below it:\n{}", broken.join("\n"));
}

#[test]
fn siblings_of_a_table_do_not_know_one_another() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut broken = Vec::new();
    for (folder, names) in [
        ("probe", picket::probe::KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>()),
        ("export", picket::export::SINKS.iter().map(|sink| sink.name).collect()),
    ] {
        for file in rust_files(&source.join(folder)) {
            let inside = file.strip_prefix(source.join(folder)).unwrap();
            let own = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
            let text = code_of(&fs::read_to_string(&file).unwrap());
            for other in names.iter().filter(|name| **name != own) {
                if text.contains(&format!("crate::{folder}::{other}")) {
                    broken.push(format!("src/{folder}/{} uses {other}", inside.display()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn a_use_is_seen_however_it_is_written() {
    let text = "use crate::clock::now;\nuse crate::{\n    place::{Place, Region},\n    plan,\n};\n\
                // crate::comment\nfn f() { crate::journal::open() }\n#[cfg(test)]\nuse crate::tested;\n";
    assert_eq!(words_used(text), ["clock", "place", "plan", "journal"]);
}

/// The number of each word's layer: a comment line in `lib.rs` begins a new one.
fn layers(contents: &str) -> BTreeMap<String, usize> {
    let mut layer = 0;
    let mut layers = BTreeMap::new();
    for line in contents.lines() {
        if line.starts_with("// ") {
            layer += 1;
        }
        if let Some(word) = line.strip_prefix("pub mod ") {
            layers.insert(word.trim_end_matches(';').to_owned(), layer);
        }
    }
    assert!(layer > 3 && layers.len() > 10, "lib.rs no longer reads as a table of contents");
    layers
}

/// The words of the crate that a file names, tests and comments apart.
fn words_used(text: &str) -> Vec<String> {
    let code = code_of(text);
    code.split("crate::").skip(1).flat_map(first_words).collect()
}

/// The first word, or of a list in braces each entry's first.
fn first_words(path: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let Some(list) = path.strip_prefix('{') else {
        return vec![word(path)];
    };
    let mut depth = 0;
    let mut entries = vec![String::new()];
    for letter in list.chars() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => entries.push(String::new()),
            _ => {}
        }
        entries.last_mut().unwrap().push(letter);
    }
    let words = entries.iter().map(|entry| word(entry.trim_start_matches(','))).collect::<Vec<_>>();
    words.into_iter().filter(|word| !word.is_empty()).collect()
}

fn code_of(text: &str) -> String {
    let product = text.split("#[cfg(test)]").next().unwrap();
    let lines = product.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
