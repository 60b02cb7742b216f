//! What probes are called side by side: members of a matrix share a name, so the values that differ are added.

use std::collections::BTreeMap;

use crate::outcome::Labels;
use crate::place::ProbeName;

/// A title for each: `orders-api`, or `orders-api{region=eu-west-1}` where another of that name has another region.
pub(super) fn titles<'a>(probes: &[(&'a ProbeName, &'a Labels)]) -> Vec<String> {
    let mut alike: BTreeMap<&ProbeName, Vec<&Labels>> = BTreeMap::new();
    for (name, labels) in probes {
        alike.entry(name).or_default().push(labels);
    }
    let title = |(name, labels): &(&ProbeName, &Labels)| {
        let others = alike.get(name).map(Vec::as_slice).unwrap_or_default();
        let differs = |key: &str, value: &str| {
            others.iter().any(|other| other.get(key).map(String::as_str) != Some(value))
        };
        let parts: Vec<_> = labels
            .iter()
            .filter(|(key, value)| differs(key, value))
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        if parts.is_empty() { name.to_string() } else { format!("{name}{{{}}}", parts.join(",")) }
    };
    probes.iter().map(title).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn only_what_tells_members_of_a_matrix_apart_is_added() {
        let labels = |region: &str| -> Labels {
            let pairs = [("region", region), ("team", "orders")];
            Arc::new(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
        };
        let (api, shop) = (ProbeName::from("api"), ProbeName::from("shop"));
        let (near, far) = (labels("eu-west-1"), labels("us-east-1"));
        let titles = titles(&[(&api, &near), (&api, &far), (&shop, &near), (&api, &near)]);
        assert_eq!(
            titles,
            ["api{region=eu-west-1}", "api{region=us-east-1}", "shop", "api{region=eu-west-1}"]
        );
    }
}
