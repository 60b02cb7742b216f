//! `picket schema`: the JSON Schemas of both files, for editors.

use std::io::{self, Write};

use clap::ValueEnum;

use crate::config::schema;

/// Whose schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Of {
    /// A probe file's.
    #[default]
    Probes,
    /// The agent's: picket.toml.
    Agent,
}

/// Prints one schema.
pub(super) fn main(of: Of, out: &mut dyn Write) -> io::Result<u8> {
    writeln!(out, "{}", text(of))?;
    Ok(0)
}

fn text(of: Of) -> String {
    let schema = match of {
        Of::Probes => schema::probes(),
        Of::Agent => schema::agent(),
    };
    format!("{schema:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `PICKET_WRITE_SCHEMAS=1 cargo test --lib schemas` writes them anew.
    #[test]
    fn the_schemas_of_the_repository_are_those_of_the_code() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema");
        for (name, of) in [("picket", Of::Agent), ("probes", Of::Probes)] {
            let path = folder.join(format!("{name}.schema.json"));
            let now = text(of) + "\n";
            if std::env::var_os("PICKET_WRITE_SCHEMAS").is_some() {
                std::fs::write(&path, &now).unwrap();
            }
            let kept = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(kept == now, "{} is stale: see this test's comment", path.display());
        }
    }
}
