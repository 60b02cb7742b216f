//! The request as it goes over the wire.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, header};
use url::Url;

use super::evidence::authority;
use super::request::{Ask, unfit};
use crate::dial::Proxy;
use crate::failure::Failure;
use crate::outcome::hex;
use crate::template::Scope;

/// What a message is made from.
pub(super) struct Message<'a> {
    pub(super) ask: &'a Ask,
    pub(super) scope: &'a Scope,
    pub(super) span: [u8; 8],
    /// The run's cookies for this address.
    pub(super) cookies: Option<&'a str>,
    /// Whether it goes to the origin that the user wrote: only then credentials go along.
    pub(super) at_home: bool,
    pub(super) accept_encoding: Option<&'a HeaderValue>,
    /// Whether it is spoken in HTTP/2.
    pub(super) two: bool,
    /// The proxy that takes the request itself.
    pub(super) proxy: Option<&'a Proxy>,
}

impl Message<'_> {
    /// Writes it: picket's own fields first, the user's in place of them where both are given.
    pub(super) fn write(&self) -> Result<Request<Bytes>, Failure> {
        let mut headers = self.own()?;
        for name in self.ask.headers.keys() {
            headers.remove(name);
        }
        for (name, value) in &self.ask.headers {
            if self.at_home || !value.is_sensitive() {
                headers.append(name, value.clone());
            }
        }
        if !self.two && !headers.contains_key(header::HOST) {
            headers.insert(header::HOST, host(&self.ask.url)?);
        }
        add_cookies(self.cookies, &mut headers);
        let mut uri = target(&self.ask.url, self.two || self.proxy.is_some())?;
        if self.two {
            uri = fit_for_two(uri, &mut headers)?;
        }
        if let Some(authorization) = self.proxy.and_then(|proxy| proxy.authorization.as_ref()) {
            let value = HeaderValue::from_str(authorization.expose());
            let mut value = value.map_err(|_| unfit("proxy", "its user fits no header"))?;
            value.set_sensitive(true);
            headers.insert(header::PROXY_AUTHORIZATION, value);
        }
        let mut request = Request::new(self.ask.body.clone());
        *request.method_mut() = self.ask.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Ok(request)
    }

    fn own(&self) -> Result<HeaderMap, Failure> {
        let mut headers = HeaderMap::with_capacity(16);
        if !self.two {
            headers.insert(header::HOST, host(&self.ask.url)?);
        }
        headers.insert(header::USER_AGENT, user_agent(self.scope));
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        if let Some(accept) = self.accept_encoding {
            headers.insert(header::ACCEPT_ENCODING, accept.clone());
        }
        if !self.ask.headers.contains_key("traceparent") {
            propagate(self.scope, self.span, &mut headers);
        }
        Ok(headers)
    }
}

fn host(url: &Url) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(authority(url)).map_err(|_| unfit("url", "its host fits no header"))
}

fn user_agent(scope: &Scope) -> HeaderValue {
    let visible = |letter: char| if letter.is_ascii_graphic() { letter } else { '?' };
    let probe: String = scope.probe.as_str().chars().map(visible).collect();
    let name = format!("picket/{} (probe={probe})", env!("CARGO_PKG_VERSION"));
    HeaderValue::from_str(&name).unwrap_or_else(|_| HeaderValue::from_static("picket"))
}

/// The run's context, for the target's own traces.
fn propagate(scope: &Scope, span: [u8; 8], headers: &mut HeaderMap) {
    let trace = scope.ids.trace_hex();
    let span = hex(&span);
    let sampled = u8::from(scope.sampled);
    let (epoch, rest) = trace.split_at_checked(8).unwrap_or((&trace, ""));
    for (name, value) in [
        ("traceparent", format!("00-{trace}-{span}-{sampled:02x}")),
        ("tracestate", format!("picket={}", scope.ids.run)),
        ("x-amzn-trace-id", format!("Root=1-{epoch}-{rest};Parent={span};Sampled={sampled}")),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

fn add_cookies(cookies: Option<&str>, headers: &mut HeaderMap) {
    let Some(cookies) = cookies else { return };
    let own = headers.get(header::COOKIE).and_then(|own| own.to_str().ok());
    let all = own.map_or_else(|| cookies.to_owned(), |own| format!("{own}; {cookies}"));
    if let Ok(mut value) = HeaderValue::from_str(&all) {
        value.set_sensitive(true);
        headers.insert(header::COOKIE, value);
    }
}

/// The request's target: path and query alone, or the whole address.
fn target(url: &Url, whole: bool) -> Result<Uri, Failure> {
    let text = if whole { url.as_str() } else { &url[url::Position::BeforePath..] };
    text.parse().map_err(|error| unfit("url", &format!("cannot be asked for: {error}")))
}

/// HTTP/2 has its own place for the host, and no connection of one hop to speak of.
fn fit_for_two(uri: Uri, headers: &mut HeaderMap) -> Result<Uri, Failure> {
    for name in ["connection", "keep-alive", "proxy-connection", "te", "upgrade"] {
        headers.remove(name);
    }
    let Some(host) = headers.remove(header::HOST) else { return Ok(uri) };
    let wrong = || unfit("headers.host", "it is no host and port");
    let mut parts = uri.into_parts();
    parts.authority = Some(http::uri::Authority::from_maybe_shared(host).map_err(|_| wrong())?);
    Uri::from_parts(parts).map_err(|_| wrong())
}
