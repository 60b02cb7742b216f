//! What the demo's target does and when, and the probes that watch it.

use std::time::Duration;

/// How long the script is; then it begins anew.
pub(super) const CYCLE: Duration = Duration::from_secs(20);

/// What the target does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Answers with this status and body.
    Answer(u16, &'static str),
    /// Answers well, but so many milliseconds late.
    Late(u64),
    /// Promises more than it sends, and hangs up.
    Cut,
    /// Says nothing.
    Silent,
    /// Does not listen.
    Refuse,
}

/// One service of the demo.
#[derive(Debug)]
pub(super) struct Service {
    /// The probe's name, and the path.
    pub(super) name: &'static str,
    /// What it does, from which second of the cycle on.
    pub(super) acts: &'static [(u64, Act)],
    /// What is expected of it, as a probe file says it.
    pub(super) expect: &'static str,
    /// What it shows, for the probe file's reader.
    pub(super) about: &'static str,
}

const OK: Act = Act::Answer(200, r#"{"status":"ok"}"#);

/// The cast.
pub(super) const SERVICES: &[Service] = &[
    Service {
        name: "storefront",
        acts: &[(0, OK)],
        expect: r#"expect = ["status == 200", "json.status == 'ok'"]"#,
        about: "Always well.",
    },
    Service {
        name: "orders-api",
        acts: &[
            (0, OK),
            (3, Act::Answer(503, r#"{"error":"no database connection left"}"#)),
            (8, OK),
        ],
        expect: r#"expect = ["status in 200..299", "latency < 500ms"]"#,
        about: "Out of service for a while.",
    },
    Service {
        name: "checkout",
        acts: &[
            (0, Act::Late(20)),
            (5, Act::Late(150)),
            (8, Act::Late(320)),
            (11, Act::Late(640)),
            (15, Act::Late(20)),
        ],
        expect: "expect = [\"latency < 500ms\"]\nwarn   = [\"latency < 250ms\"]",
        about: "Slower and slower: first a warning, then a failure.",
    },
    Service {
        name: "inventory",
        acts: &[
            (0, OK),
            (6, Act::Answer(200, r#"{"status":"degraded","waiting":412}"#)),
            (10, Act::Answer(200, r#"{"status":"#)),
            (13, OK),
        ],
        expect: r#"expect = ["status == 200", "json.status == 'ok'"]"#,
        about: "Says 200 while its body says otherwise, then breaks its JSON.",
    },
    Service {
        name: "reports",
        acts: &[(0, OK), (12, Act::Cut), (17, OK)],
        expect: r#"expect = ["status == 200"]"#,
        about: "Hangs up in the middle of an answer.",
    },
    Service {
        name: "search",
        acts: &[(0, OK), (9, Act::Silent), (13, OK)],
        expect: r#"expect = ["status == 200"]"#,
        about: "Takes the request and says nothing.",
    },
    Service {
        name: "payments",
        acts: &[(0, OK), (14, Act::Refuse), (19, OK)],
        expect: r#"expect = ["status == 200"]"#,
        about: "Stops listening.",
    },
];

impl Service {
    /// What it does at a moment of the script.
    pub(super) fn act(&self, since: Duration) -> Act {
        let second = since.as_secs() % CYCLE.as_secs();
        let now = self.acts.iter().rev().find(|(from, _)| *from <= second);
        now.map_or(OK, |(_, act)| *act)
    }

    /// Whether it has a port of its own, because there are times at which it does not listen.
    pub(super) fn refuses(&self) -> bool {
        self.acts.iter().any(|(_, act)| *act == Act::Refuse)
    }
}

/// The probe file: every service once a second. `port` tells where each service listens.
pub(super) fn probe_file(port: impl Fn(&Service) -> u16) -> String {
    let mut text = String::from("[defaults]\nevery   = \"1s\"\ntimeout = \"900ms\"\n");
    for service in SERVICES {
        let Service { name, expect, about, acts: _ } = service;
        let port = port(service);
        let table = format!(
            "\n# {about}\n[probe.{name}]\nhttp   = {{ url = \"http://127.0.0.1:{port}/{name}\" }}\n{expect}\n"
        );
        text.push_str(&table);
    }
    text
}

/// The agent's file. It stands in one folder with the probe file, and its state is kept there too.
pub(super) fn agent_file(folder: &std::path::Path, listen: std::net::SocketAddr) -> String {
    // A JSON string is a TOML string.
    let quoted =
        |path: std::path::PathBuf| serde_json::Value::from(path.display().to_string()).to_string();
    format!(
        "[agent]\nregion = \"local\"\nstage  = \"demo\"\nprobes = [{}]\nstate  = {}\nlisten = \"{listen}\"\n",
        quoted(folder.join("probes.toml")),
        quoted(folder.join("state")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_begins_well_and_ends_well_and_most_break_in_between() {
        for service in SERVICES {
            let at = |second| service.act(Duration::from_secs(second));
            assert_eq!(at(0), at(19), "{}", service.name);
            assert_eq!(at(7), at(27), "{}", service.name);
        }
        let broken = SERVICES.iter().filter(|service| service.acts.len() > 1).count();
        assert_eq!(broken, SERVICES.len() - 1);
    }

    #[test]
    fn the_files_of_the_demo_are_toml() {
        let probes: toml::Table = probe_file(|_| 4711).parse().unwrap();
        assert_eq!(probes["probe"].as_table().unwrap().len(), SERVICES.len());
        let agent = agent_file("/tmp/a \"quoted\" folder".as_ref(), ([127, 0, 0, 1], 9464).into());
        let agent: toml::Table = agent.parse().unwrap();
        assert_eq!(agent["agent"]["state"].as_str(), Some("/tmp/a \"quoted\" folder/state"));
    }
}
