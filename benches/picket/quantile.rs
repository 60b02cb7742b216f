//! Where the middle and the tail of many values lie.

/// Counts of values up to each bound.
#[derive(Clone, Debug, Default)]
pub(crate) struct Histogram(Vec<(f64, f64)>);

impl Histogram {
    /// Adds to the count of the values up to `bound`.
    pub(crate) fn add(&mut self, bound: f64, count: f64) {
        match self.0.iter_mut().find(|(known, _)| known.total_cmp(&bound).is_eq()) {
            Some((_, counted)) => *counted += count,
            None => self.0.push((bound, count)),
        }
        self.0.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    }

    /// The value that this share of values does not pass, as Prometheus works it out: straight lines within a bucket.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let rank = self.0.last().map_or(0.0, |(_, all)| all * share);
        let (mut low, mut below) = (0.0, 0.0);
        for (bound, count) in &self.0 {
            if *count >= rank && *count > below {
                let end = if bound.is_finite() { *bound } else { low };
                return low + (end - low) * (rank - below) / (count - below);
            }
            (low, below) = (*bound, *count);
        }
        f64::NAN
    }
}

/// The value that this share of these does not pass.
pub(crate) fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a few thousand values"
    )]
    let place = (share * values.len() as f64) as usize;
    values.get(place.min(values.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}
