//! Whether picket's own chain leans on what a probe watches: then both fall silent at once.

use toml::de::DeValue;
use url::Url;

use crate::place::{Place, ProbeName};

/// A host that a probe watches.
#[derive(Debug)]
pub(super) struct Watched {
    probe: ProbeName,
    host: String,
}

impl Watched {
    pub(super) fn new(probe: &ProbeName, host: &str) -> Self {
        Self { probe: probe.clone(), host: host.to_owned() }
    }
}

/// An exporter, and the hosts that it needs.
#[derive(Debug)]
pub(super) struct Export {
    name: &'static str,
    hosts: Vec<String>,
}

impl Export {
    pub(super) fn of(name: &'static str, table: &DeValue<'_>, place: &Place) -> Self {
        let mut hosts = Vec::new();
        urls(table, &mut hosts);
        let signs = table.get("aws").and_then(|aws| aws.get_ref().as_bool()) == Some(true);
        if signs {
            hosts.extend(
                ["xray", "monitoring", "logs"]
                    .map(|service| format!("{service}.{}.amazonaws.com", place.region)),
            );
        }
        Self { name, hosts }
    }
}

/// The hosts of the URLs in a value, whatever its keys are.
pub(super) fn urls(value: &DeValue<'_>, hosts: &mut Vec<String>) {
    match value {
        DeValue::String(text) => {
            let url = Url::parse(text).ok().filter(|url| url.scheme().starts_with("http"));
            hosts.extend(url.as_ref().and_then(Url::host_str).map(str::to_lowercase));
        }
        DeValue::Array(items) => items.iter().for_each(|item| urls(item.get_ref(), hosts)),
        DeValue::Table(table) => table.values().for_each(|value| urls(value.get_ref(), hosts)),
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {}
    }
}

/// The managed service behind a host, and its region where the name says one.
fn service(host: &str) -> Option<String> {
    let labels: Vec<_> = host.split('.').rev().collect();
    match labels.as_slice() {
        ["com", "amazonaws", region, service, ..] | ["aws", "on", region, service, ..] => {
            Some(format!("{service} in {region}"))
        }
        ["com", "amazonaws", service] => Some((*service).to_owned()),
        ["net", "cloudfront", ..] => Some("CloudFront".to_owned()),
        _ => None,
    }
}

/// Managed runtimes, by a variable of their environment.
const RUNTIMES: &[(&str, &str)] = &[
    ("AWS_LAMBDA_FUNCTION_NAME", "Lambda"),
    ("ECS_CONTAINER_METADATA_URI_V4", "ECS"),
    ("AWS_APPRUNNER_SERVICE_ARN", "App Runner"),
    ("KUBERNETES_SERVICE_HOST", "Kubernetes"),
];

/// A line for each way in which picket leans on what it watches.
pub(super) fn warnings(exports: &[Export], watched: &[Watched]) -> Vec<String> {
    let mut lines = Vec::new();
    for Export { name, hosts } in exports {
        for host in hosts {
            for seen in watched {
                lines.extend(leaning(name, host, seen));
            }
        }
    }
    for (variable, runtime) in RUNTIMES {
        if std::env::var_os(variable).is_some() {
            lines.push(format!(
                "picket runs inside {runtime}: when that service is down, so is its watch"
            ));
        }
    }
    lines.dedup();
    lines
}

fn leaning(export: &str, host: &str, watched: &Watched) -> Option<String> {
    let Watched { probe, host: seen } = watched;
    let local = host == "localhost" || host.starts_with("127.") || host == "[::1]";
    let shared = match (service(host), service(seen)) {
        (Some(ours), Some(theirs)) if ours == theirs => ours,
        _ if host == seen && !local => host.to_owned(),
        _ => return None,
    };
    Some(format!(
        "export.{export} leans on {shared}, which probe `{probe}` watches: when it fails, so does the news of it"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exporter_on_a_watched_service_is_told() {
        let exports = [Export {
            name: "otlp",
            hosts: vec!["b.execute-api.eu-west-1.amazonaws.com".to_owned(), "127.0.0.1".to_owned()],
        }];
        let probe = ProbeName::from("orders");
        let watched = [
            Watched::new(&probe, "a.execute-api.eu-west-1.amazonaws.com"),
            Watched::new(&probe, "a.execute-api.us-east-1.amazonaws.com"),
            Watched::new(&probe, "127.0.0.1"),
        ];
        let lines = warnings(&exports, &watched);
        let told = lines.iter().filter(|line| line.contains("execute-api in eu-west-1")).count();
        assert_eq!(told, 1, "{lines:?}");
        assert!(!lines.iter().any(|line| line.contains("127.0.0.1")), "{lines:?}");
    }
}
