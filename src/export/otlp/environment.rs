//! From the settings and the standard `OTEL_*` variables to the way of one signal: the file comes first.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::wire::{Files, Protocol, Way};
use super::{Compression, Otlp, Signal, Spoken};
use crate::period::Period;
use crate::template::Template;

/// How long one request may take when nobody says.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Looks a variable up.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The variables of this process; an empty one counts as none.
pub(super) fn process(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The signals that an endpoint is named for.
pub(super) fn signals(lookup: Lookup<'_>) -> Vec<Signal> {
    let all = [Signal::Traces, Signal::Metrics, Signal::Logs];
    let named = |signal: &Signal| Said { signal: *signal, lookup }.either("ENDPOINT").is_some();
    all.into_iter().filter(named).collect()
}

/// How often the instruments are read, as `OTEL_METRIC_EXPORT_INTERVAL` says.
pub(super) fn metrics_every(lookup: Lookup<'_>) -> Option<Duration> {
    let millis = lookup("OTEL_METRIC_EXPORT_INTERVAL")?.trim().parse().ok()?;
    Period::new(Duration::from_millis(millis)).map(Period::get)
}

/// The way of one signal.
pub(super) fn way(settings: &Otlp, signal: Signal, lookup: Lookup<'_>) -> Result<Way, String> {
    let Otlp {
        endpoint,
        protocol,
        headers,
        compression,
        timeout,
        ca,
        cert,
        key,
        every: _,
        signals: _,
        aws: _,
    } = settings;
    let said = Said { signal, lookup };
    let protocol = match protocol {
        Some(Spoken::Http) => Protocol::Http,
        Some(Spoken::Grpc) => Protocol::Grpc,
        None => said.protocol()?,
    };
    let compression = match compression {
        Some(compression) => *compression,
        None => said.compression()?,
    };
    let file = |said_here: &Option<PathBuf>, name| {
        said_here.clone().or_else(|| said.either(name).map(PathBuf::from))
    };
    Ok(Way {
        url: url(&said, endpoint.as_ref(), protocol)?,
        protocol,
        headers: match headers {
            Some(headers) => headers.0.clone(),
            None => said.headers()?,
        },
        gzip: compression == Compression::Gzip,
        timeout: match timeout {
            Some(timeout) => timeout.get(),
            None => said.timeout()?,
        },
        files: Files {
            ca: file(ca, "CERTIFICATE"),
            cert: file(cert, "CLIENT_CERTIFICATE"),
            key: file(key, "CLIENT_KEY"),
        },
    })
}

/// The whole URL: an endpoint for all signals gets the signal's path, one for the signal alone is used as it is.
fn url(said: &Said<'_>, endpoint: Option<&Template>, protocol: Protocol) -> Result<String, String> {
    let (text, whole) = if let Some(endpoint) = endpoint {
        let literal =
            endpoint.literal().ok_or("no secret and no capture can stand in `endpoint`")?;
        (literal.into_owned(), false)
    } else if let Some(own) = said.own("ENDPOINT") {
        (own, true)
    } else if let Some(general) = said.general("ENDPOINT") {
        (general, false)
    } else {
        let port = match protocol {
            Protocol::Http => 4318,
            Protocol::Grpc => 4317,
        };
        (format!("http://127.0.0.1:{port}"), false)
    };
    let url = Url::parse(&text).map_err(|error| {
        format!("{text:?} is no URL ({error}): write a whole one, such as http://127.0.0.1:4318")
    })?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "no name and password can stand in an endpoint: put them into `headers`, as authorization = \"Basic …\"".to_owned(),
        );
    }
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(format!(
            "{text:?} is neither http nor https: write a whole URL, such as http://127.0.0.1:4318"
        ));
    }
    Ok(match protocol {
        Protocol::Grpc => url.origin().ascii_serialization(),
        Protocol::Http if whole => url.into(),
        Protocol::Http => format!("{}{}", url.as_str().trim_end_matches('/'), said.signal.path()),
    })
}

/// What the variables say of one signal.
struct Said<'a> {
    signal: Signal,
    lookup: Lookup<'a>,
}

impl Said<'_> {
    fn own(&self, name: &str) -> Option<String> {
        let signal = match self.signal {
            Signal::Traces => "TRACES",
            Signal::Metrics => "METRICS",
            Signal::Logs => "LOGS",
        };
        (self.lookup)(&format!("OTEL_EXPORTER_OTLP_{signal}_{name}"))
    }

    fn general(&self, name: &str) -> Option<String> {
        (self.lookup)(&format!("OTEL_EXPORTER_OTLP_{name}"))
    }

    /// The signal's own variable, else the general one.
    fn either(&self, name: &str) -> Option<String> {
        self.own(name).or_else(|| self.general(name))
    }

    fn protocol(&self) -> Result<Protocol, String> {
        match self.either("PROTOCOL").as_deref() {
            None | Some("http/protobuf") => Ok(Protocol::Http),
            Some("grpc") => Ok(Protocol::Grpc),
            Some(other) => Err(format!(
                "OTEL_EXPORTER_OTLP_PROTOCOL says {other:?}: picket speaks http/protobuf and grpc"
            )),
        }
    }

    fn compression(&self) -> Result<Compression, String> {
        match self.either("COMPRESSION").as_deref() {
            None | Some("gzip") => Ok(Compression::Gzip),
            Some("none") => Ok(Compression::None),
            Some(other) => Err(format!(
                "OTEL_EXPORTER_OTLP_COMPRESSION says {other:?}: picket knows gzip and none"
            )),
        }
    }

    fn timeout(&self) -> Result<Duration, String> {
        let Some(text) = self.either("TIMEOUT") else {
            return Ok(TIMEOUT);
        };
        let millis = text.trim().parse().ok().filter(|millis| *millis > 0);
        millis.map(Duration::from_millis).ok_or_else(|| {
            format!(
                "OTEL_EXPORTER_OTLP_TIMEOUT says {text:?}: it wants milliseconds, such as 10000"
            )
        })
    }

    /// `name=value` pairs with commas between; values are percent-encoded.
    fn headers(&self) -> Result<BTreeMap<String, Template>, String> {
        let text = self.either("HEADERS").unwrap_or_default();
        let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
        let headers = pairs.enumerate().map(|(number, pair)| {
            // Named by its number: what stands here may be a secret.
            let wrong =
                || format!("OTEL_EXPORTER_OTLP_HEADERS: entry {} is not name=value", number + 1);
            let (name, value) = pair.split_once('=').ok_or_else(wrong)?;
            let name = name.trim().to_ascii_lowercase();
            ::http::HeaderName::try_from(&name).map_err(|_| wrong())?;
            Ok((name, Template::plain(&decoded(value.trim()))))
        });
        headers.collect()
    }
}

/// Percent-encoding undone; what is none stays as it is.
fn decoded(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = (*first == b'%').then(|| after.split_at_checked(2)).flatten().and_then(
            |(digits, after)| {
                let digits = std::str::from_utf8(digits).ok()?;
                Some((u8::from_str_radix(digits, 16).ok()?, after))
            },
        );
        let (byte, after) = code.unwrap_or((*first, after));
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).unwrap_or_else(|_| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(toml: &str) -> Otlp {
        toml::from_str(toml).unwrap()
    }

    fn variables(pairs: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        let pairs: BTreeMap<String, String> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        move |name| pairs.get(name).cloned()
    }

    #[test]
    fn without_a_word_it_goes_to_this_host() {
        let traces = way(&settings(""), Signal::Traces, &|_| None).unwrap();
        assert_eq!(traces.url, "http://127.0.0.1:4318/v1/traces");
        assert!(traces.gzip);
        assert_eq!(traces.timeout, Duration::from_secs(10));
        let grpc = way(&settings("protocol = 'grpc'"), Signal::Logs, &|_| None).unwrap();
        assert_eq!(grpc.url, "http://127.0.0.1:4317");
    }

    #[test]
    fn an_endpoint_in_the_environment_asks_for_its_signals() {
        assert!(signals(&|_| None).is_empty());
        let one = variables(&[("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://a/v1/metrics")]);
        assert_eq!(signals(&one), [Signal::Metrics]);
        assert_eq!(signals(&variables(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a")])).len(), 3);
    }

    #[test]
    fn variables_speak_where_the_file_is_silent() {
        let lookup = variables(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318/base/"),
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://logs:4318/own/path"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "X-One=a%20b, x-two=c=d"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
            ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "none"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "5000"),
        ]);
        let traces = way(&settings(""), Signal::Traces, &lookup).unwrap();
        assert_eq!(traces.url, "http://all:4318/base/v1/traces");
        assert!(!traces.gzip);
        assert_eq!(traces.timeout, Duration::from_millis(2500));
        assert_eq!(traces.headers["x-one"].literal().unwrap(), "a b");
        assert_eq!(traces.headers["x-two"].literal().unwrap(), "c=d");
        assert_eq!(traces.files.ca, Some("/ca.pem".into()));
        let logs = way(&settings(""), Signal::Logs, &lookup).unwrap();
        assert_eq!(logs.url, "http://logs:4318/own/path");
        assert!(logs.gzip);
        assert_eq!(metrics_every(&lookup), Some(Duration::from_secs(5)));
        let file = settings("endpoint = 'https://file'\ntimeout = '1s'\nheaders = { a = 'b' }");
        let logs = way(&file, Signal::Logs, &lookup).unwrap();
        assert_eq!(logs.url, "https://file/v1/logs");
        assert_eq!(logs.timeout, Duration::from_secs(1));
        assert_eq!(logs.headers.keys().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn what_is_not_understood_says_what_to_write() {
        for (name, value, hint) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "http/protobuf and grpc"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "gzip and none"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "10000"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318", "such as http://"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2", "entry 1"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:hunter2@host", "`headers`"),
        ] {
            let why = way(&settings(""), Signal::Traces, &variables(&[(name, value)]));
            let why = why.unwrap_err();
            assert!(why.contains(hint), "{why}");
            assert!(!why.contains("hunter2"), "{why}");
        }
    }
}
