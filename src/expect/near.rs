//! Did you mean: the known word that is nearest to one that is not.

/// The nearest of the words, if it is near enough to be meant.
pub(super) fn near<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |candidate: &str| strsim::damerau_levenshtein(&word.to_lowercase(), candidate);
    known
        .map(|candidate| (distance(candidate), candidate))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, candidate)| *distance <= candidate.len().max(4) / 3)
        .map(|(_, candidate)| candidate)
}
