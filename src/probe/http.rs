//! An HTTP request, as a client of the service would send it.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{HeaderValue, header, response};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;

use self::compression::Coding;
use self::decode::Gathering;
use self::exchange::Exchange;
use self::keep::Shelf;
use self::message::Message;
use self::redirect::{Next, Trail, same_origin};
use self::request::{Ask, Trouble, unfit};
use self::settings::{Settings, Version};
use super::{Ground, Probe};
use crate::clock::{self, Timestamp};
use crate::dial::{Connection, Dial, Guard, Proxy, Tls, TlsSettings, dial};
use crate::expect::Subject;
use crate::failure::{Blame, ErrorType, Failure};
use crate::outcome::{CLOCK_OFFSET, Fact};
use crate::period::Size;
use crate::phase::Phase;
use crate::reading::Reading;
use crate::setting::Refused;
use crate::template::{Scope, Template};

mod compression;
mod decode;
mod evidence;
mod exchange;
mod keep;
mod message;
mod redirect;
mod request;
mod settings;
mod subjects;
#[cfg(test)]
mod tests;
mod text;
mod wire;

/// How many redirects are followed when nothing is said.
const FOLLOW: u32 = 5;
/// The largest body when nothing is said.
const MAX_BODY: u64 = 1 << 20;

/// An HTTP request: its settings, and what is made out of them when the file is loaded.
#[derive(Deserialize)]
#[serde(from = "Settings")]
pub(super) struct Http {
    settings: Settings,
    /// The request, when nothing in it waits for the run.
    fixed: Option<Arc<Ask>>,
    /// What `body_file` holds.
    file: Option<Bytes>,
    /// Whether a secret may show up in another guise.
    has_secrets: bool,
    /// TLS to the URL's own origin, and to those that redirects lead to.
    tls: OnceLock<Result<Arc<Tls>, Refused>>,
    tls_elsewhere: OnceLock<Result<Arc<Tls>, Refused>>,
    folder: PathBuf,
    connect: Option<(String, u16)>,
    resolver: Vec<SocketAddr>,
    /// The proxy, when nothing in it waits for the run.
    proxy: Option<Proxy>,
    accept_encoding: Option<HeaderValue>,
    /// The largest body to take, in bytes.
    room: usize,
    /// The connection between runs, with `reuse`.
    shelf: Shelf,
}

impl From<Settings> for Http {
    fn from(settings: Settings) -> Self {
        Self {
            settings,
            fixed: None,
            file: None,
            has_secrets: false,
            tls: OnceLock::new(),
            tls_elsewhere: OnceLock::new(),
            folder: PathBuf::new(),
            connect: None,
            resolver: Vec::new(),
            proxy: None,
            accept_encoding: None,
            room: 0,
            shelf: Shelf::default(),
        }
    }
}

impl fmt::Debug for Http {
    /// Without what may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("url", &self.settings.url).finish_non_exhaustive()
    }
}

impl JsonSchema for Http {
    fn schema_name() -> Cow<'static, str> {
        "Http".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Settings::json_schema(generator)
    }
}

impl Probe for Http {
    const KIND: &'static str = "http";
    const ABOUT: &'static str = "An HTTP request, as a client of the service would send it.";
    const EXAMPLE: &'static str = include_str!("http/example.toml");
    const SUBJECTS: &'static [Subject] = subjects::SUBJECTS;
    const DEFAULT_EXPECT: &'static [&'static str] = &["status in 200..299"];

    fn ready(&mut self, ground: &Ground) -> Result<(), Refused> {
        self.folder.clone_from(&ground.folder);
        self.settings.refuse_what_does_not_fit()?;
        self.file = self.settings.read_body_file(&self.folder)?;
        self.connect = self.settings.connect.as_deref().map(settings::host_and_port).transpose()?;
        self.resolver = match &self.settings.resolver {
            Some(servers) => servers.addresses()?,
            None => ground.resolver.clone(),
        };
        self.proxy = self.settings.literal_proxy()?;
        self.accept_encoding = self.settings.compression.accept();
        let room = self.settings.max_body.map_or(MAX_BODY, Size::bytes);
        self.room = usize::try_from(room).unwrap_or(usize::MAX);
        let templates = self.settings.templates();
        self.has_secrets = templates.iter().any(Template::has_secret);
        if templates.iter().all(|template| template.literal().is_some()) {
            self.fixed = Some(Arc::new(self.literal_ask()?));
        }
        // A TLS setting that does not fit is told when the file is loaded, even where only a redirect needs it.
        if self.settings.tls.is_some() || !self.settings.is_in_the_open() {
            self.tls(true)?;
        }
        Ok(())
    }

    fn has_subject(&self, subject: &str) -> Result<(), String> {
        let about_tls = subject.starts_with("tls") || subject.starts_with("cert");
        if about_tls && self.settings.is_in_the_open() {
            return Err(
                "there is no TLS on an http:// URL: write https://, or leave it out".to_owned()
            );
        }
        Ok(())
    }

    fn lay_blame(&self, reading: &Reading, broken: Failure) -> Failure {
        if broken.error_type != ErrorType::ExpectStatus {
            return broken;
        }
        match reading.facts.get("status") {
            Some(Fact::Integer(429)) => Failure::new(ErrorType::Throttled, broken.message),
            Some(Fact::Integer(401 | 403)) if self.settings.auth.is_some() => {
                broken.blamed(Blame::Permission)
            }
            _ => broken,
        }
    }

    async fn look(&self, scope: &Scope, reading: &mut Reading) -> Result<(), Failure> {
        let mut ask = self.ask(scope)?;
        for credential in &ask.credentials {
            scope.hide(credential);
        }
        let origin = ask.url.clone();
        let mut trail = Trail::new(self.settings.follow.unwrap_or(FOLLOW));
        loop {
            let cookies = scope.cookies_for(&ask.url);
            trail.ask(&ask.method, &ask.url, cookies.as_deref())?;
            let at_home = same_origin(&origin, &ask.url);
            let hop = Hop { ask: &ask, cookies, at_home, trail: &trail, scope };
            let Some(next) = self.request(&hop, reading).await? else { return Ok(()) };
            ask = Arc::new(follow(&ask, next));
            reading.timeline.next_hop();
        }
    }
}

/// One request of a trail.
struct Hop<'a> {
    ask: &'a Ask,
    cookies: Option<String>,
    /// Whether it goes to the origin that the user wrote.
    at_home: bool,
    trail: &'a Trail,
    scope: &'a Scope,
}

impl Http {
    /// Makes one request and keeps its record; the answer is where it redirects to, if it does.
    async fn request(&self, hop: &Hop<'_>, reading: &mut Reading) -> Result<Option<Next>, Failure> {
        let redirects = hop.trail.redirects();
        let span = hop.scope.ids.span(&format!("{}/request/{redirects}", reading.place));
        evidence::open(&hop.ask.method, &hop.ask.url, redirects, span, reading, hop.scope);
        let mut result = self.exchange(hop, span, reading).await;
        if let Err(failure) = &mut result {
            reading.timeline.broke(failure.error_type);
            // It may quote what the target said.
            failure.message = hop.scope.clean(&failure.message);
        }
        let now = reading.timeline.elapsed();
        if let Some(request) = reading.requests.last_mut() {
            request.took = now.saturating_sub(request.start);
            request.error_type = result.as_ref().err().map(|failure| failure.error_type);
        }
        result
    }

    async fn exchange(
        &self,
        hop: &Hop<'_>,
        span: [u8; 8],
        reading: &mut Reading,
    ) -> Result<Option<Next>, Failure> {
        let url = &hop.ask.url;
        reading.fact("url", evidence::shown(url, hop.scope));
        reading.fact("redirects", hop.trail.redirects());
        let way = self.way(hop)?;
        // Written before the way is gone, so that evidence has it also when nobody is there to take it.
        let mut message = Message {
            ask: hop.ask,
            scope: hop.scope,
            span,
            cookies: hop.cookies.as_deref(),
            at_home: hop.at_home,
            accept_encoding: self.accept_encoding.as_ref(),
            two: self.settings.version == Version::Two,
            proxy: way.proxy.as_ref().filter(|_| way.tls.is_none()),
        };
        let mut request = evidence::kept(message.write()?, &message, reading);
        let keeps = self.settings.reuse && hop.at_home;
        let kept = if keeps { self.shelf.take(url, reading) } else { None };
        let connection = match kept {
            Some(connection) => connection,
            None => dial(&way, reading).await?,
        };
        evidence::connected(&connection, reading);
        let two = self.speaks_two(&connection, url)?;
        if two != message.two {
            message.two = two;
            request = evidence::kept(message.write()?, &message, reading);
        }
        reading.timeline.begin(Phase::Send);
        let timeline = &mut reading.timeline;
        let Connection { stream, peer, alpn, through_proxy } = connection;
        let (mut exchange, parts) = if two {
            Exchange::two(stream, request, timeline).await?
        } else {
            Exchange::one(stream, request, timeline).await?
        };
        note_head(&parts, hop, reading);
        let set = parts.headers.get_all(header::SET_COOKIE).iter();
        hop.scope.keep_cookies(url, set.filter_map(|value| value.to_str().ok()));
        let next = hop.trail.next(&hop.ask.method, url, parts.status, &parts.headers);
        if !matches!(next, Ok(None)) {
            // The connection is this request's own: what else it has to say is not heard.
            reading.timeline.end_at(exchange.ended_at());
            return next;
        }
        let ended = self.receive(&mut exchange, &parts, reading).await?;
        reading.timeline.end_at(ended);
        let latency = ended.saturating_duration_since(reading.began);
        reading.fact("latency", latency.as_secs_f64());
        if let Some(stream) = exchange.into_stream(&parts).filter(|_| keeps) {
            let connection = Connection { stream, peer, alpn, through_proxy };
            self.shelf.put(url, connection, reading);
        }
        Ok(None)
    }

    /// Reads the body; what came of it is kept, whatever happens.
    async fn receive(
        &self,
        exchange: &mut Exchange,
        parts: &response::Parts,
        reading: &mut Reading,
    ) -> Result<Instant, Failure> {
        let gathering = Gathering::new(Coding::of(&parts.headers), self.room);
        let mut keeping = Keeping { gathering: Some(gathering), reading };
        let Some(gathering) = &mut keeping.gathering else { return Ok(Instant::now()) };
        exchange.body(gathering).await?;
        Ok(exchange.ended_at())
    }

    /// Which way a hop goes.
    fn way(&self, hop: &Hop<'_>) -> Result<Dial, Failure> {
        let url = &hop.ask.url;
        let tls = (url.scheme() == "https").then(|| self.tls(hop.at_home)).transpose();
        let first = hop.trail.redirects() == 0;
        Ok(Dial {
            host: evidence::bare_host(url).to_owned(),
            port: url.port_or_known_default().unwrap_or(80),
            ip: self.settings.ip,
            connect: self.connect.clone().filter(|_| hop.at_home),
            resolver: self.resolver.clone(),
            proxy: self.proxy(hop.scope)?,
            tls: tls.map_err(Trouble::Refused)?,
            guard: if first { Guard::None } else { Guard::NotLinkLocal },
        })
    }

    fn speaks_two(&self, connection: &Connection, url: &Url) -> Result<bool, Failure> {
        let agreed = connection.alpn.as_deref() == Some(b"h2");
        if self.settings.version != Version::Two || agreed || url.scheme() == "http" {
            return Ok(agreed || (self.settings.version == Version::Two && url.scheme() == "http"));
        }
        let message = "the target does not speak HTTP/2: it did not choose h2 in the TLS handshake";
        Err(Failure::new(ErrorType::TlsProtocol, message))
    }

    fn literal_ask(&self) -> Result<Ask, Refused> {
        let literal = |template: &Template| Ok(template.literal().unwrap_or_default().into_owned());
        self.settings.ask(&literal, self.file.as_ref()).map_err(|trouble| match trouble {
            Trouble::Refused(refused) => refused,
            Trouble::Failure(failure) => Refused::new("", failure.message),
        })
    }

    fn ask(&self, scope: &Scope) -> Result<Arc<Ask>, Failure> {
        if let Some(fixed) = &self.fixed {
            return Ok(Arc::clone(fixed));
        }
        if self.has_secrets {
            for template in self.settings.templates().iter().filter(|each| each.has_secret()) {
                request::hide_disguises(template, scope)?;
            }
        }
        let fill = |template: &Template| template.render(scope);
        Ok(Arc::new(self.settings.ask(&fill, self.file.as_ref())?))
    }

    fn proxy(&self, scope: &Scope) -> Result<Option<Proxy>, Failure> {
        let Some(template) = self.settings.proxy.as_ref().filter(|_| self.proxy.is_none()) else {
            return Ok(self.proxy.clone());
        };
        let parsed = Proxy::parse(&template.render(scope)?);
        parsed.map(Some).map_err(|message| unfit("proxy", &message))
    }

    /// TLS to the user's own origin, or to another, which learns nothing of the user's names and keys.
    fn tls(&self, at_home: bool) -> Result<Arc<Tls>, Refused> {
        let settings = self.settings.tls.clone().unwrap_or_default();
        let alpn = self.settings.alpn();
        let (slot, settings) = if at_home {
            (&self.tls, settings)
        } else {
            (
                &self.tls_elsewhere,
                TlsSettings { cert: None, key: None, server_name: None, ..settings },
            )
        };
        let host = self.fixed.as_ref().filter(|_| at_home);
        let host = host.map_or("", |ask| evidence::bare_host(&ask.url));
        slot.get_or_init(|| Tls::build(&settings, alpn, host, &self.folder)).clone()
    }
}

/// What was gathered of a body goes to the reading also when the run is cut off.
struct Keeping<'a> {
    gathering: Option<Gathering>,
    reading: &'a mut Reading,
}

impl Drop for Keeping<'_> {
    fn drop(&mut self) {
        if let Some(gathering) = self.gathering.take() {
            let body = gathering.into_bytes();
            self.reading.fact("size", i64::try_from(body.len()).unwrap_or(i64::MAX));
            self.reading.body = Some(body);
        }
    }
}

/// Keeps what the head of an answer says.
fn note_head(parts: &response::Parts, hop: &Hop<'_>, reading: &mut Reading) {
    evidence::answered(parts.status, parts.version, reading);
    reading.fact("status", parts.status.as_u16());
    reading.fact("http.version", evidence::protocol(parts.version));
    if let Some(ahead) = clock_ahead(parts) {
        reading.fact(CLOCK_OFFSET, ahead);
    }
    reading.headers = parts
        .headers
        .iter()
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        })
        .collect();
    if hop.scope.evidence {
        let parts = parts.clone();
        reading.evidence_later(move |evidence, scope| {
            evidence.response = Some(evidence::response_head(&parts, scope));
        });
    }
}

/// How far this host's clock is ahead of the target's `Date`, in seconds; a date is half a second old on the average.
fn clock_ahead(parts: &response::Parts) -> Option<f64> {
    let date = parts.headers.get(header::DATE)?.to_str().ok()?;
    let theirs = Timestamp::from(httpdate::parse_http_date(date).ok()?);
    let ours = clock::now();
    Some(ours.since(theirs).as_secs_f64() - theirs.since(ours).as_secs_f64() - 0.5)
}

/// The request that a redirect asks for.
fn follow(ask: &Ask, next: Next) -> Ask {
    let Next { method, url, with_body } = next;
    let mut headers = ask.headers.clone();
    if !with_body {
        for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LANGUAGE] {
            headers.remove(name);
        }
    }
    let body = if with_body { ask.body.clone() } else { Bytes::new() };
    Ask { method, url, headers, body, credentials: Vec::new() }
}
