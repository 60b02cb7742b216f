//! `picket init`: writes a commented starting set.

use std::io::{self, Write};
use std::path::Path;

/// The files of the set.
const SET: &[(&str, &str)] = &[
    ("picket.toml", include_str!("init/picket.toml")),
    ("probes/example.toml", include_str!("init/example.toml")),
];

/// Writes the set (0); where one of its files is already, writes nothing (2).
pub(super) fn main(folder: &Path, out: &mut dyn Write, notes: &mut dyn Write) -> io::Result<u8> {
    let taken: Vec<_> =
        SET.iter().map(|(name, _)| folder.join(name)).filter(|path| path.exists()).collect();
    if !taken.is_empty() {
        for path in taken {
            writeln!(notes, "error: {} is there already: nothing was written", path.display())?;
        }
        return Ok(2);
    }
    for (name, text) in SET {
        let path = folder.join(name);
        if let Err(error) = write(&path, text) {
            writeln!(notes, "error: cannot write {}: {error}", path.display())?;
            return Ok(2);
        }
        writeln!(out, "wrote {}", path.display())?;
    }
    let config = folder.join("picket.toml");
    writeln!(
        out,
        "try: picket check --config {0}    then: picket run --config {0}",
        config.display()
    )?;
    Ok(0)
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // Never over a file that came to be in the meantime.
    std::fs::File::create_new(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_set_is_planned_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        assert_eq!(main(folder.path(), &mut out, &mut notes).unwrap(), 0);
        let loaded = crate::plan::load(Some(folder.path()), &[]).await.unwrap();
        assert!(!loaded.plan.probes.is_empty());
        std::fs::remove_file(folder.path().join("picket.toml")).unwrap();
        assert_eq!(main(folder.path(), &mut out, &mut notes).unwrap(), 2);
        assert!(!folder.path().join("picket.toml").exists());
        assert!(String::from_utf8(notes).unwrap().contains("example.toml is there already"));
    }
}
