//! Did you mean: the known word that is nearest to one that is not.

/// The known word that is nearest to what was written, if one is near enough to be meant.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = written.to_lowercase();
    let distance = |name: &str| strsim::damerau_levenshtein(&lower, &name.to_lowercase());
    let (distance, name) = known.into_iter().map(|name| (distance(name), name)).min()?;
    let near = distance <= name.chars().count().max(3) / 3;
    let part = lower.chars().count() >= 3 && name.to_lowercase().starts_with(&lower);
    (near || part).then_some(name)
}

/// What to write instead of an unknown word.
pub fn instead<'a>(written: &str, known: impl IntoIterator<Item = &'a str>, what: &str) -> String {
    let known: Vec<_> = known.into_iter().collect();
    match nearest(written, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("{what} are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_near() {
        assert_eq!(nearest("exepct", ["expect", "every"]), Some("expect"));
        assert_eq!(nearest("Every", ["expect", "every"]), Some("every"));
        assert_eq!(nearest("time", ["timeout", "every"]), Some("timeout"));
        assert_eq!(nearest("zebra", ["expect", "every"]), None);
    }

    #[test]
    fn what_is_near_to_nothing_is_told_what_there_is() {
        assert_eq!(
            instead("zebra", ["expect", "every"], "keys here"),
            "keys here are expect, every"
        );
    }
}
