//! Labels: names and values that go with every outcome.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::keys::At;
use crate::config::{Mistake, Mistakes, Source, Spot};
use crate::template::{Template, Variable};

/// Names that metrics already have.
const TAKEN: &[&str] = &[
    "probe",
    "kind",
    "step",
    "stage",
    "verdict",
    "error_type",
    "blame",
    "phase",
    "le",
    "quantile",
];

/// Why a text can be no label's name.
pub(super) fn no_name(name: &str) -> Option<String> {
    let mut letters = name.chars();
    let first = letters.next().is_some_and(|letter| letter.is_ascii_alphabetic() || letter == '_');
    if !first || !letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_') {
        return Some(format!(
            "{name:?} is no label's name: write letters, digits and `_`, and no digit first"
        ));
    }
    TAKEN.contains(&name).then(|| {
        format!(
            "the label `{name}` is taken: use another name, every outcome has a `{name}` of its own"
        )
    })
}

/// The labels of one table, whose values are settled.
pub(super) fn read(
    source: &Arc<Source>,
    written: BTreeMap<At<String>, At<String>>,
    mistakes: &mut Mistakes,
) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for (name, value) in written {
        if let Some(why) = no_name(&name.value) {
            mistakes.push(Mistake::at(Spot::new(source, name.span), &why));
            continue;
        }
        // A text that could not be settled, or has a name in it that nobody knows, was told of already.
        let Ok(template) = Template::parse(&value.value) else { continue };
        if template.variables().any(|(variable, _)| matches!(variable, Variable::Named(_))) {
            continue;
        }
        match template.literal() {
            Some(text) => {
                labels.insert(name.value, text.into_owned());
            }
            None => mistakes.push(Mistake::advised(
                Spot::new(source, value.span),
                format!("the label `{}` is known only in the run", name.value),
                "write region, stage, matrix keys and env:NAME only",
            )),
        }
    }
    labels
}
