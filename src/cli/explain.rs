//! `picket explain`: what an error type means and what to look at first.

use std::io::{self, Write};

use super::columns;
use crate::failure::ErrorType;
use crate::near::nearest;

/// Explains one type, or lists all (0); a type that is none is 2.
pub(super) fn main(
    error_type: Option<&str>,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> io::Result<u8> {
    let Some(name) = error_type else {
        list(out)?;
        return Ok(0);
    };
    match name.parse() {
        Ok(error_type) => {
            explain(error_type, out)?;
            Ok(0)
        }
        Err(why) => {
            let near = nearest(name, ErrorType::ALL.iter().map(|known| known.as_str()));
            let advice = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => "`picket explain` lists them".to_owned(),
            };
            writeln!(notes, "error: {why}: {advice}")?;
            Ok(2)
        }
    }
}

fn verdict(error_type: ErrorType) -> &'static str {
    if error_type.entry().judged { "fail" } else { "error" }
}

fn explain(error_type: ErrorType, out: &mut dyn Write) -> io::Result<()> {
    let entry = error_type.entry();
    writeln!(out, "{}\n\n  {}\n", entry.name, entry.about)?;
    writeln!(out, "  blame    {}, unless the run knows better", entry.blame)?;
    let judged =
        if entry.judged { "picket judged the target" } else { "picket could not judge the target" };
    writeln!(out, "  verdict  {}: {judged}", verdict(error_type))?;
    writeln!(out, "  look at  {}", entry.advice)
}

fn group(name: &str) -> &str {
    name.split_once('.').map_or(name, |(group, _)| group)
}

fn list(out: &mut dyn Write) -> io::Result<()> {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut last = None;
    for error_type in ErrorType::ALL {
        let entry = error_type.entry();
        if last.replace(group(entry.name)).is_some_and(|last| last != group(entry.name)) {
            rows.push(Vec::new());
        }
        let cells = [entry.name, verdict(*error_type), entry.blame.as_str(), entry.about];
        rows.push(cells.map(str::to_owned).to_vec());
    }
    columns::write(out, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(name: Option<&str>) -> (u8, String, String) {
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let code = main(name, &mut out, &mut notes).unwrap();
        (code, String::from_utf8(out).unwrap(), String::from_utf8(notes).unwrap())
    }

    #[test]
    fn every_type_is_listed_and_explained() {
        let (_, listed, _) = told(None);
        for error_type in ErrorType::ALL {
            assert!(listed.contains(error_type.as_str()));
            let (code, out, _) = told(Some(error_type.as_str()));
            assert!(code == 0 && out.contains(error_type.entry().advice));
        }
    }

    #[test]
    fn a_type_that_is_none_is_bad_usage_with_the_nearest() {
        let (code, out, notes) = told(Some("dns.nxdomian"));
        assert!(code == 2 && out.is_empty());
        assert!(notes.contains("did you mean `dns.nxdomain`?"), "{notes}");
    }
}
