//! The HTTP kind on a real nginx: versions, TLS, redirects, compression, credentials, through the built binary.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use serde_json::Value;

use service::{Service, free_address, program};

#[path = "parts/service.rs"]
#[expect(dead_code, reason = "each test takes the parts that it needs")]
mod service;

/// One line of the matrix: what is asked of nginx, and what picket must say of it.
struct Case {
    name: &'static str,
    port: Port,
    path: &'static str,
    /// More keys of `http`.
    more: &'static str,
    expect: &'static [&'static str],
    /// `pass`, or the error type.
    comes_to: &'static str,
    /// Facts of the step.
    facts: &'static [(&'static str, &'static str)],
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Port {
    /// HTTP/1.1 in the open.
    Plain,
    /// HTTP/2 and HTTP/1.1 by ALPN over TLS 1.3.
    Modern,
    /// HTTP/1.1 over TLS 1.2.
    Old,
    /// HTTP/1.1 over TLS for clients that show a certificate.
    Mutual,
}

const CASE: Case = Case {
    name: "",
    port: Port::Plain,
    path: "/hello",
    more: "",
    expect: &[],
    comes_to: "pass",
    facts: &[],
};
const TRUSTED: &str = ", tls = { ca = 'ca.pem' }";

#[rustfmt::skip]
const CASES: &[Case] = &[
    Case { name: "plain", facts: &[("status", "200"), ("http.version", "1.1")], expect: &["body == 'GET hello'"], ..CASE },
    Case { name: "query", path: "/query", more: ", query = { sku = 'canary' }", expect: &["body == 'sku=canary'"], ..CASE },
    Case { name: "method", more: ", method = 'PUT', body = 'x'", expect: &["body == 'PUT hello'"], ..CASE },
    Case { name: "request-header", path: "/echo-header", more: ", headers = { X-Order = 'canary' }", expect: &["body == 'canary'"], ..CASE },
    Case { name: "answer-header", expect: &["status == 200", r#"header["x-served-by"] == 'nginx'"#], ..CASE },
    Case { name: "json", path: "/json", expect: &["json.status == 'ok'", "json.items[1] == 2"], ..CASE },
    Case { name: "new-connection", path: "/connection-requests", expect: &["body == '1'"], ..CASE },
    Case { name: "not-found", path: "/nothing", comes_to: "expect.status", facts: &[("status", "404")], ..CASE },
    Case { name: "not-found-is-meant", path: "/nothing", expect: &["status == 404"], ..CASE },
    Case { name: "throttled", path: "/throttled", comes_to: "throttled", facts: &[("status", "429")], ..CASE },
    Case { name: "hung-up", path: "/hang-up", comes_to: "response.closed", ..CASE },
    Case { name: "no-content", path: "/no-content", expect: &["status == 204"], ..CASE },
    Case { name: "head", more: ", method = 'HEAD'", expect: &["status == 200"], ..CASE },

    Case { name: "gzip", path: "/long", expect: &["body contains 'a long answer'"], facts: &[("status", "200")], ..CASE },
    Case { name: "gzip-over-h2", port: Port::Modern, path: "/long", more: TRUSTED, expect: &["body contains 'a long answer'"], ..CASE },
    Case { name: "too-large", path: "/long", more: ", max_body = '64B'", comes_to: "response.too_large", ..CASE },

    Case { name: "redirect", path: "/moved", expect: &["status == 200", "redirects == 1", "url ends_with '/hello'"], ..CASE },
    Case { name: "redirect-not-followed", path: "/moved", more: ", follow = 0", expect: &["status == 302"], ..CASE },
    Case { name: "redirect-loop", path: "/loop", comes_to: "redirect.loop", ..CASE },
    Case { name: "redirect-maze", path: "/maze/1", more: ", follow = 3", comes_to: "redirect.limit", ..CASE },
    Case { name: "redirect-into-the-open", port: Port::Modern, path: "/downgrade", more: TRUSTED, comes_to: "redirect.downgrade", ..CASE },
    Case { name: "redirect-to-metadata", path: "/metadata", comes_to: "redirect.forbidden", ..CASE },

    Case { name: "basic", path: "/private/", more: ", auth = { basic = { user = 'ada', password = 'engine' } }", expect: &["body == 'ada'"], ..CASE },
    Case { name: "basic-wrong", path: "/private/", more: ", auth = { basic = { user = 'ada', password = 'loom' } }", comes_to: "expect.status", facts: &[("status", "401")], ..CASE },

    Case { name: "h2", port: Port::Modern, more: TRUSTED, expect: &["body == 'GET hello'"], facts: &[("http.version", "2"), ("tls.version", "1.3")], ..CASE },
    Case { name: "h2-asked", port: Port::Modern, more: ", version = '2', tls = { ca = 'ca.pem' }", facts: &[("http.version", "2")], ..CASE },
    Case { name: "h1-asked", port: Port::Modern, more: ", version = '1.1', tls = { ca = 'ca.pem' }", facts: &[("http.version", "1.1"), ("tls.version", "1.3")], ..CASE },
    Case { name: "tls-1.2", port: Port::Old, more: TRUSTED, facts: &[("http.version", "1.1"), ("tls.version", "1.2")], ..CASE },
    Case { name: "tls-too-old", port: Port::Old, more: ", tls = { ca = 'ca.pem', min_version = '1.3' }", comes_to: "tls.protocol", ..CASE },
    Case { name: "tls-on-a-plain-port", path: "https-on-plain", comes_to: "tls.protocol", ..CASE },
    Case { name: "untrusted", port: Port::Modern, comes_to: "tls.untrusted", ..CASE },
    Case { name: "untrusted-but-told-so", port: Port::Modern, more: ", tls = { verify = false }", ..CASE },
    Case { name: "wrong-name", port: Port::Modern, more: ", tls = { ca = 'ca.pem', server_name = 'other.test' }", comes_to: "tls.hostname", ..CASE },
    Case { name: "certificate", port: Port::Modern, more: TRUSTED, expect: &["cert.expires_in > 14d", "cert.issuer contains 'picket test CA'"], ..CASE },
    Case { name: "client-certificate", port: Port::Mutual, more: ", tls = { ca = 'ca.pem', cert = 'client.pem', key = 'client.key' }", expect: &["body == 'CN=canary'"], ..CASE },
    Case { name: "no-client-certificate", port: Port::Mutual, more: TRUSTED, comes_to: "expect.status", facts: &[("status", "400")], ..CASE },
];

#[tokio::test]
async fn every_case_of_the_matrix_comes_to_what_nginx_did() {
    let folder = tempfile::tempdir().unwrap();
    let ports = Port::all().map(|port| (port, free_address()));
    let ports = BTreeMap::from(ports);
    write_certificates(folder.path());
    let mut nginx = start_nginx(folder.path(), &ports);
    nginx.listens(ports[&Port::Plain]).await;

    let probes = folder.path().join("probes.toml");
    fs::write(&probes, CASES.iter().map(|case| case.probe(&ports)).collect::<String>()).unwrap();
    let outcomes = check(&probes);

    let mut wrong = Vec::new();
    for case in CASES {
        let outcome = outcomes.get(case.name).unwrap_or(&Value::Null);
        if let Err(why) = case.compare(outcome) {
            wrong.push(format!("{}: {why}\n  {outcome}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{} cases went wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn the_context_that_nginx_sees_is_the_trace_of_the_outcome() {
    let folder = tempfile::tempdir().unwrap();
    let ports = BTreeMap::from(Port::all().map(|port| (port, free_address())));
    write_certificates(folder.path());
    let mut nginx = start_nginx(folder.path(), &ports);
    nginx.listens(ports[&Port::Plain]).await;

    let probes = folder.path().join("probes.toml");
    // What is not expected is quoted: so the outcome has what nginx saw.
    let text = format!(
        "[probe.traced]\nhttp = {{ url = 'http://{}/traceparent' }}\nexpect = [\"body == ''\"]\n",
        ports[&Port::Plain]
    );
    fs::write(&probes, text).unwrap();
    let outcome = &check(&probes)["traced"];
    let trace = outcome["trace_id"].as_str().unwrap();
    assert_eq!(trace.len(), 32);
    let message = outcome["message"].as_str().unwrap();
    assert!(message.contains(&format!("00-{trace}-")), "nginx saw another trace: {outcome}");
}

impl Port {
    fn all() -> [Self; 4] {
        [Self::Plain, Self::Modern, Self::Old, Self::Mutual]
    }
}

impl Case {
    fn probe(&self, ports: &BTreeMap<Port, SocketAddr>) -> String {
        let address = ports[&self.port];
        let url = match (self.path, self.port) {
            ("https-on-plain", _) => format!("https://{address}/"),
            (path, Port::Plain) => format!("http://{address}{path}"),
            (path, Port::Modern | Port::Old | Port::Mutual) => format!("https://{address}{path}"),
        };
        let mut probe =
            format!("[probe.\"{}\"]\ntimeout = '30s'\nhttp = {{ url = '{url}'", self.name);
        probe.push_str(self.more);
        probe.push_str(" }\n");
        if !self.expect.is_empty() {
            writeln!(probe, "expect = {}", serde_json::to_string(self.expect).unwrap()).unwrap();
        }
        probe
    }

    fn compare(&self, outcome: &Value) -> Result<(), String> {
        let verdict = outcome["verdict"].as_str().ok_or("no outcome")?;
        let came_to = outcome["error_type"].as_str().unwrap_or(verdict);
        if came_to != self.comes_to {
            return Err(format!("came to {came_to}, not {}", self.comes_to));
        }
        for (name, meant) in self.facts {
            let fact = &outcome["steps"][0]["facts"][*name];
            let seen = fact.as_str().map_or_else(|| fact.to_string(), str::to_owned);
            if seen != *meant {
                return Err(format!("{name} was {seen}, not {meant}"));
            }
        }
        Ok(())
    }
}

/// One outcome a probe, by name.
fn check(probes: &Path) -> BTreeMap<String, Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_picket"));
    command.args(["check", "--format", "json"]).arg(probes).stderr(Stdio::piped());
    let output = command.env("AWS_REGION", "eu-west-1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let lines = String::from_utf8(output.stdout).unwrap();
    let outcomes: BTreeMap<_, _> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|outcome| (outcome["probe"].as_str().unwrap().to_owned(), outcome))
        .collect();
    assert!(!outcomes.is_empty(), "picket check said nothing: {said}");
    assert_eq!(output.status.code(), Some(1), "some fail, so it exits 1: {said}");
    outcomes
}

fn start_nginx(folder: &Path, ports: &BTreeMap<Port, SocketAddr>) -> Service {
    fs::write(folder.join("users"), "ada:{PLAIN}engine\n").unwrap();
    let locations = r#"
        default_type text/plain;
        add_header X-Served-By nginx always;
        location = /hello { return 200 "$request_method hello"; }
        location = /query { return 200 "$args"; }
        location = /echo-header { return 200 "$http_x_order"; }
        location = /traceparent { return 200 "$http_traceparent"; }
        location = /json { default_type application/json; return 200 '{"status":"ok","items":[1,2]}'; }
        location = /connection-requests { return 200 "$connection_requests"; }
        location = /no-content { return 204; }
        location = /throttled { return 429 "slow down"; }
        location = /hang-up { return 444; }
        location = /long { return 200 "LONG"; }
        location = /moved { return 302 /hello; }
        location = /loop { return 302 /loop; }
        location ~ ^/maze/(?<turn>.*)$ { return 302 /maze/${turn}1; }
        location = /downgrade { return 301 http://PLAIN/hello; }
        location = /metadata { return 302 http://169.254.169.254/latest/meta-data/; }
        location /private/ {
            auth_basic "private";
            auth_basic_user_file FOLDER/users;
            try_files /none @private;
        }
        location @private { return 200 "$remote_user"; }
    "#;
    let locations = locations
        .replace("LONG", &"a long answer ".repeat(100))
        .replace("PLAIN", &ports[&Port::Plain].to_string());
    let tls = "ssl_certificate FOLDER/server.pem; ssl_certificate_key FOLDER/server.key;";
    let [plain, modern, old, mutual] = Port::all().map(|port| ports[&port]);
    let text = format!(
        r#"
        daemon off; master_process off; pid FOLDER/nginx.pid; error_log stderr crit;
        events {{ worker_connections 512; }}
        http {{
            access_log off;
            client_body_temp_path FOLDER/body; proxy_temp_path FOLDER/proxy;
            fastcgi_temp_path FOLDER/fastcgi; uwsgi_temp_path FOLDER/uwsgi; scgi_temp_path FOLDER/scgi;
            gzip on; gzip_types text/plain; gzip_min_length 100;
            server {{ listen {plain}; {locations} }}
            server {{ listen {modern} ssl http2; {tls} ssl_protocols TLSv1.3; {locations} }}
            server {{ listen {old} ssl; {tls} ssl_protocols TLSv1.2; {locations} }}
            server {{
                listen {mutual} ssl; {tls} ssl_client_certificate FOLDER/ca.pem; ssl_verify_client on;
                ssl_protocols TLSv1.2 TLSv1.3;
                location / {{ return 200 "$ssl_client_s_dn"; }}
            }}
        }}"#
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, text.replace("FOLDER", folder.to_str().unwrap())).unwrap();
    Service::start(Command::new(program("nginx")).arg("-p").arg(folder).arg("-c").arg(&file))
}

/// A root of our own, a certificate for 127.0.0.1 and one for a client.
fn write_certificates(folder: &Path) {
    let mut root = CertificateParams::default();
    root.distinguished_name.push(DnType::CommonName, "picket test CA");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
    fs::write(folder.join("ca.pem"), root.pem()).unwrap();

    for (name, subject, usage) in [
        ("server", "nginx", ExtendedKeyUsagePurpose::ServerAuth),
        ("client", "canary", ExtendedKeyUsagePurpose::ClientAuth),
    ] {
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        leaf.distinguished_name = rcgen::DistinguishedName::new();
        leaf.distinguished_name.push(DnType::CommonName, subject);
        leaf.extended_key_usages = vec![usage];
        let leaf = leaf.signed_by(&key, &root).unwrap();
        fs::write(folder.join(format!("{name}.pem")), leaf.pem()).unwrap();
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}
