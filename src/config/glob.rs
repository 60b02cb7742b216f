//! Names with `*` and `?` in them, and the files that fit one.

use std::path::{Component, Path, PathBuf};

/// Whether a name fits a pattern: `*` is any text, `?` any one letter. Linear in practice, never exponential.
pub fn fits(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut at, mut read) = (0, 0);
    let mut retry = None;
    while read < name.len() {
        match pattern.get(at) {
            Some('*') => {
                retry = Some((at, read));
                at += 1;
            }
            Some(letter) if *letter == '?' || Some(letter) == name.get(read) => {
                at += 1;
                read += 1;
            }
            // The last star takes one letter more.
            _ => match retry {
                Some((star, from)) => {
                    retry = Some((star, from + 1));
                    at = star + 1;
                    read = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(at).all(|letter| *letter == '*')
}

/// Whether a text has a `*` or a `?` in it.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// The files that fit a pattern, sorted by name; the pattern starts at `folder` unless it is absolute.
pub fn files(folder: &Path, pattern: &str) -> std::io::Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::new()];
    let whole = folder.join(pattern);
    for part in whole.components() {
        let name = match part {
            Component::Normal(name) => name.to_string_lossy().into_owned(),
            Component::Prefix(_)
            | Component::RootDir
            | Component::CurDir
            | Component::ParentDir => {
                for path in &mut found {
                    path.push(part);
                }
                continue;
            }
        };
        if !is_pattern(&name) {
            for path in &mut found {
                path.push(&name);
            }
            continue;
        }
        let mut next = Vec::new();
        for path in found {
            next.extend(entries(&path, &name)?);
        }
        found = next;
    }
    found.retain(|path| path.is_file());
    found.sort();
    Ok(found)
}

fn entries(folder: &Path, pattern: &str) -> std::io::Result<Vec<PathBuf>> {
    let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let entries = match std::fs::read_dir(here) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut fitting = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let text = name.to_string_lossy();
        // As a shell has it: a file that hides is not meant by a star.
        if fits(pattern, &text) && (pattern.starts_with('.') || !text.starts_with('.')) {
            fitting.push(folder.join(&name));
        }
    }
    Ok(fitting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text_and_a_question_mark_one_letter() {
        assert!(fits("orders-*", "orders-api"));
        assert!(fits("*", ""));
        assert!(fits("eu-*-?", "eu-west-1"));
        assert!(fits("a*b*c", "axxbxxbxc"));
        assert!(!fits("eu-*", "us-east-1"));
        assert!(!fits("?", ""));
        assert!(!fits(&"*a".repeat(30), &"b".repeat(5000)));
    }

    #[test]
    fn files_are_found_in_order_and_hidden_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("probes")).unwrap();
        for name in ["b.toml", "a.toml", ".c.toml", "d.txt"] {
            std::fs::write(folder.path().join("probes").join(name), "").unwrap();
        }
        let found = files(folder.path(), "probes/*.toml").unwrap();
        let names: Vec<_> = found.iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["a.toml", "b.toml"]);
        assert!(files(folder.path(), "none/*.toml").unwrap().is_empty());
    }
}
