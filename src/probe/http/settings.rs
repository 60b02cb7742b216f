//! The keys of `http = { … }` as they are written.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use url::Url;

use super::compression::Compression;
use super::request;
use super::text::Text;
use crate::dial::{Family, Proxy, TlsSettings};
use crate::period::Size;
use crate::setting::Refused;
use crate::template::Template;

/// The keys of `http = { … }`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::probe) struct Settings {
    /// Where to: an `http://` or `https://` address. A user and password go into `auth`, not here.
    pub(super) url: Template,
    /// The request method; default: GET, and POST when there is a body.
    pub(super) method: Option<String>,
    /// Header fields to send. They go before picket's own: `host`, `user-agent`, `accept`, `accept-encoding` and
    /// `traceparent` can be written here. Those with a secret, and `authorization`, `cookie`, `x-api-key` and their
    /// like, never follow a redirect to another origin.
    #[serde(default)]
    pub(super) headers: BTreeMap<String, Text>,
    /// Parameters to add to the URL's query.
    #[serde(default)]
    pub(super) query: BTreeMap<String, Text>,
    /// The body, as text. One of `body`, `json`, `form` and `body_file`.
    pub(super) body: Option<Template>,
    /// The body, as JSON. Variables in its texts are filled in; `content-type` is `application/json`.
    pub(super) json: Option<Value>,
    /// The body, as the fields of an HTML form; `content-type` is `application/x-www-form-urlencoded`.
    pub(super) form: Option<BTreeMap<String, Text>>,
    /// The body: the bytes of a file, read when the probe file is loaded. A relative path starts from its folder.
    pub(super) body_file: Option<Template>,
    /// Who asks: `{ basic = { user = "…", password = "${secret:…}" } }` or `{ bearer = "${secret:…}" }`.
    pub(super) auth: Option<Auth>,
    /// How many redirects to follow; 0: none, the redirect itself is the answer. Default: 5. Never from https to http,
    /// to link-local or metadata addresses, or to other schemes.
    pub(super) follow: Option<u32>,
    /// The protocol: "auto" (what the target chooses over TLS, 1.1 without; the default), "1.1" or "2".
    #[serde(default)]
    pub(super) version: Version,
    /// TLS: `{ ca, cert, key, server_name, verify, min_version }`.
    pub(super) tls: Option<TlsSettings>,
    /// Which addresses to use: "any" (whichever connects first; the default), "4" or "6".
    #[serde(default)]
    pub(super) ip: Family,
    /// Where to dial, "host:port". Host, SNI and verification stay the URL's; redirects to other origins are dialled
    /// where they say.
    pub(super) connect: Option<String>,
    /// The DNS servers to ask, "ip:port" or a list; default: the agent's.
    pub(super) resolver: Option<Servers>,
    /// The largest body to take, after decompression; a larger one is `response.too_large`. Default: 1MiB.
    pub(super) max_body: Option<Size>,
    /// The codings to offer: true (gzip, br and zstd; the default), false (none) or a list. What comes is decoded.
    #[serde(default)]
    pub(super) compression: Compression,
    /// Whether to keep the connection between runs, by HTTP/1.1; default: false, a fresh connection for each request.
    /// A kept connection that the target closes just then is a failure like any other: nothing is sent twice.
    #[serde(default)]
    pub(super) reuse: bool,
    /// A proxy to go through: `http://user:password@host:port`.
    pub(super) proxy: Option<Template>,
}

impl Settings {
    /// What to offer in the TLS handshake, best first.
    pub(super) const fn alpn(&self) -> &'static [&'static str] {
        match self.version {
            // A connection that is kept speaks HTTP/1.1, where one request ends before the next begins.
            Version::Auto if self.reuse => &["http/1.1"],
            Version::Auto => &["h2", "http/1.1"],
            Version::One => &["http/1.1"],
            Version::Two | Version::Three => &["h2"],
        }
    }

    /// What one key cannot say of itself.
    pub(super) fn refuse_what_does_not_fit(&self) -> Result<(), Refused> {
        let Settings { version, reuse, auth, headers, tls, follow, .. } = self;
        if *version == Version::Three {
            return Err(request::later("version", "HTTP/3"));
        }
        if *reuse && *version == Version::Two {
            return Err(Refused::new(
                "reuse",
                "a connection that is kept speaks HTTP/1.1: leave out `version`, or `reuse`",
            ));
        }
        match auth {
            Some(Auth::Oauth2(_)) => return Err(request::later("auth.oauth2", "OAuth 2")),
            Some(Auth::Sigv4(_)) => return Err(request::later("auth.sigv4", "signing by SigV4")),
            Some(Auth::Basic(_) | Auth::Bearer(_)) if has_authorization(headers) => {
                let message = "`auth` writes this header: keep one of the two";
                return Err(Refused::new("headers.authorization", message));
            }
            Some(Auth::Basic(_) | Auth::Bearer(_)) | None => {}
        }
        let mut bodies = self.bodies();
        if let (Some(first), Some(second)) = (bodies.next(), bodies.next()) {
            let message = format!("there is `{first}` already: a request has one body");
            return Err(Refused::new(second, message));
        }
        self.method()?;
        self.check_url()?;
        self.check_family()?;
        if tls.is_some() && self.is_in_the_open() && *follow == Some(0) {
            return Err(Refused::new("tls", "there is no TLS on an http:// URL: write https://"));
        }
        for (name, Text(template)) in headers {
            let value = template.literal().unwrap_or_default();
            request::field(name, &value)?;
        }
        Ok(())
    }

    /// An address in the URL is of one family: asked for the other, nothing could ever be dialled.
    fn check_family(&self) -> Result<(), Refused> {
        let dialled = self.url.literal().filter(|_| self.connect.is_none() && self.proxy.is_none());
        let url = dialled.and_then(|literal| Url::parse(&literal).ok());
        let address: Option<IpAddr> =
            url.and_then(|url| super::evidence::bare_host(&url).parse().ok());
        let Some(address) = address.filter(|address| !self.ip.takes(*address)) else {
            return Ok(());
        };
        let family = if address.is_ipv4() { "4" } else { "6" };
        let message = format!(
            "{address} is no {} address: write ip = \"{family}\", or leave it out",
            self.ip
        );
        Err(Refused::new("ip", message))
    }

    fn check_url(&self) -> Result<(), Refused> {
        if let Some(literal) = self.url.literal() {
            return request::target(&literal).map(|_| ());
        }
        // With a variable in it, what stands around the variable must fit.
        let written = self.url.to_string();
        if written.starts_with("${") {
            return Ok(());
        }
        let (scheme, rest) = written.split_once("://").unwrap_or((&written, ""));
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let known = ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
        if !known || authority.contains('@') {
            // A stand-in for the variables, so that the message is that of any other URL.
            let stand_in = if known { format!("{scheme}://user@host/") } else { written };
            return request::target(&stand_in).map(|_| ());
        }
        Ok(())
    }

    /// Whether the URL is an `http://` one.
    pub(super) fn is_in_the_open(&self) -> bool {
        let written = self.url.to_string();
        written.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://"))
    }

    /// The proxy, when nothing in it waits for the run.
    pub(super) fn literal_proxy(&self) -> Result<Option<Proxy>, Refused> {
        let Some(literal) = self.proxy.as_ref().and_then(Template::literal) else {
            return Ok(None);
        };
        Proxy::parse(&literal).map(Some).map_err(|message| Refused::new("proxy", message))
    }

    /// What `body_file` holds.
    pub(super) fn read_body_file(&self, folder: &Path) -> Result<Option<Bytes>, Refused> {
        let Some(template) = &self.body_file else { return Ok(None) };
        let refused = |message: String| Refused::new("body_file", message);
        let path = template
            .literal()
            .ok_or_else(|| refused("a path that only the run knows cannot be read".to_owned()))?;
        let path = folder.join(path.as_ref());
        let read = std::fs::read(&path);
        let bytes =
            read.map_err(|error| refused(format!("cannot read {}: {error}", path.display())))?;
        Ok(Some(bytes.into()))
    }
}

fn has_authorization(headers: &BTreeMap<String, Text>) -> bool {
    headers.keys().any(|name| name.eq_ignore_ascii_case("authorization"))
}

/// Who asks.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(in crate::probe) enum Auth {
    /// A user and a password.
    Basic(Basic),
    /// A token.
    Bearer(Template),
    /// An OAuth 2 client; comes in a later version.
    Oauth2(Later),
    /// The AWS service to sign for; comes in a later version.
    Sigv4(Later),
}

/// Whatever a later version will read.
#[derive(JsonSchema)]
#[schemars(transparent)]
pub(in crate::probe) struct Later(#[schemars(with = "Value")] ());

impl<'de> Deserialize<'de> for Later {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self(()))
    }
}

/// A user and a password.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::probe) struct Basic {
    /// The user.
    pub(super) user: Template,
    /// The password; best a `${secret:NAME}`.
    #[serde(default = "nothing")]
    pub(super) password: Template,
}

fn nothing() -> Template {
    Template::plain("")
}

/// The protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub(in crate::probe) enum Version {
    /// What the target chooses over TLS, HTTP/1.1 without.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// HTTP/1.1.
    #[serde(rename = "1.1")]
    One,
    /// HTTP/2, without TLS too.
    #[serde(rename = "2")]
    Two,
    /// HTTP/3; comes in a later version.
    #[serde(rename = "3")]
    Three,
}

/// DNS servers: one, or a list.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "wanted \"ip:port\", or a list of them")]
pub(in crate::probe) enum Servers {
    One(String),
    Many(Vec<String>),
}

impl Servers {
    /// Their addresses; without a port it is 53.
    pub(super) fn addresses(&self) -> Result<Vec<SocketAddr>, Refused> {
        let servers = match self {
            Self::One(server) => std::slice::from_ref(server),
            Self::Many(servers) => servers,
        };
        servers.iter().map(|server| server_address(server)).collect()
    }
}

fn server_address(server: &str) -> Result<SocketAddr, Refused> {
    let alone = || server.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 53));
    server.parse().ok().or_else(alone).ok_or_else(|| {
        let message =
            format!("{server:?} is no DNS server: write its address, such as 10.0.0.2:53");
        Refused::new("resolver", message)
    })
}

/// Reads `host:port`.
pub(super) fn host_and_port(text: &str) -> Result<(String, u16), Refused> {
    let wrong = || {
        let message =
            format!("{text:?} is no host and port: write host:port, such as 10.0.0.7:8443");
        Refused::new("connect", message)
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let fits = !host.is_empty() && (bare.is_some() || !host.contains([':', '/', '@', ' ']));
    let port = port.parse().ok().filter(|port| *port > 0 && fits).ok_or_else(wrong)?;
    Ok((bare.unwrap_or(host).to_owned(), port))
}
