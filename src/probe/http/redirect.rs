//! Where a redirect leads, and where it must not. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use url::{Host, Url};

use crate::failure::{ErrorType, Failure};

/// The hops of one attempt so far.
#[derive(Debug)]
pub(super) struct Trail {
    follow: u32,
    /// What was asked for: the method, the address, the cookies. An address that is asked for again with other
    /// cookies is no loop: that is how cookie walls let people in.
    asked: Vec<(Method, Url, Option<String>)>,
}

/// The next request of a trail.
#[derive(Debug, PartialEq)]
pub(super) struct Next {
    pub(super) method: Method,
    pub(super) url: Url,
    /// Whether the body goes along.
    pub(super) with_body: bool,
}

impl Trail {
    /// A trail that may have so many redirects.
    pub(super) fn new(follow: u32) -> Self {
        Self { follow, asked: Vec::new() }
    }

    /// How many redirects were followed.
    pub(super) fn redirects(&self) -> u32 {
        u32::try_from(self.asked.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }

    /// Notes a request that is about to be made; one that was made before is a loop.
    pub(super) fn ask(
        &mut self,
        method: &Method,
        url: &Url,
        cookies: Option<&str>,
    ) -> Result<(), Failure> {
        let ask = (method.clone(), url.clone(), cookies.map(str::to_owned));
        if self.asked.contains(&ask) {
            let message = format!("redirected to {}, which was asked for before", shown(url));
            return Err(Failure::new(ErrorType::RedirectLoop, message));
        }
        if self.redirects() == self.follow && !self.asked.is_empty() {
            let message =
                format!("more than {} redirects; the next is {}", self.follow, shown(url));
            return Err(Failure::new(ErrorType::RedirectLimit, message));
        }
        self.asked.push(ask);
        Ok(())
    }

    /// Where an answer to the last request leads; none when it is the final answer.
    pub(super) fn next(
        &self,
        method: &Method,
        url: &Url,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Result<Option<Next>, Failure> {
        if self.follow == 0 || !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let Some(target) = location(url, headers)? else { return Ok(None) };
        permit(url, &target)?;
        let rewritten = match status.as_u16() {
            303 => *method != Method::HEAD,
            301 | 302 => *method == Method::POST,
            _ => false,
        };
        let method = if rewritten { Method::GET } else { method.clone() };
        Ok(Some(Next { method, url: target, with_body: !rewritten }))
    }
}

fn location(url: &Url, headers: &HeaderMap) -> Result<Option<Url>, Failure> {
    let mut fields = headers.get_all(header::LOCATION).iter();
    let Some(first) = fields.next() else { return Ok(None) };
    let malformed = |message: String| Failure::new(ErrorType::ResponseMalformed, message);
    if fields.any(|other| other != first) {
        return Err(malformed("a redirect with several locations".to_owned()));
    }
    let text = std::str::from_utf8(first.as_bytes())
        .map_err(|_| malformed("a redirect whose location is no text".to_owned()))?;
    let mut target = url
        .join(text)
        .map_err(|error| malformed(format!("a redirect to {text:?}, which is no URL: {error}")))?;
    target.set_fragment(None);
    Ok(Some(target))
}

fn permit(from: &Url, target: &Url) -> Result<(), Failure> {
    if !matches!(target.scheme(), "http" | "https") {
        let message = format!("redirected to a {}: address", target.scheme());
        return Err(Failure::new(ErrorType::RedirectForbidden, message));
    }
    let literal = match target.host() {
        Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
        Some(Host::Domain(_)) | None => None,
    };
    if let Some(address) = literal.filter(|address| is_forbidden(*address)) {
        return Err(forbidden(address));
    }
    if from.scheme() == "https" && target.scheme() == "http" {
        let message = format!("redirected from https to {}", shown(target));
        return Err(Failure::new(ErrorType::RedirectDowngrade, message));
    }
    Ok(())
}

/// The failure of a redirect that leads to this address.
pub(super) fn forbidden(address: IpAddr) -> Failure {
    let message = format!("redirected to {address}, a link-local or metadata address");
    Failure::new(ErrorType::RedirectForbidden, message)
}

/// Whether no redirect may lead to this address: link-local and metadata addresses, however they are written.
pub(super) fn is_forbidden(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => {
            let metadata = address.segments().starts_with(&[0xfd00, 0x0ec2]);
            metadata
                || address.is_unicast_link_local()
                || embedded(address).is_some_and(|inner| inner.is_link_local())
        }
    }
}

/// The IPv4 address inside an IPv6 one: mapped, compatible, NAT64 and 6to4.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let inner = |halves: &[u16]| match halves {
        [high, low, ..] => Some(Ipv4Addr::from((u32::from(*high) << 16) | u32::from(*low))),
        [] | [_] => None,
    };
    match segments.as_slice() {
        [0, 0, 0, 0, 0, 0 | 0xffff, rest @ ..]
        | [0x64, 0xff9b, 0, 0, 0, 0, rest @ ..]
        | [0x2002, rest @ ..] => inner(rest),
        _ => None,
    }
}

/// Whether two addresses are of one origin: scheme, host and port.
pub(super) fn same_origin(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host() == other.host()
        && one.port_or_known_default() == other.port_or_known_default()
}

/// Whether a header stays with the origin that it was written for.
pub(super) fn stays_home(name: &HeaderName) -> bool {
    const NAMES: &[&str] = &[
        "authorization",
        "cookie",
        "proxy-authorization",
        "x-api-key",
        "x-amz-security-token",
        "host",
    ];
    NAMES.contains(&name.as_str()) || super::evidence::is_sensitive(name.as_str())
}

/// An address without what may be secret in it.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    super::request::without_userinfo(&mut url);
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(
        follow: u32,
        method: &Method,
        from: &str,
        status: u16,
        to: &str,
    ) -> Result<Option<Next>, ErrorType> {
        let mut headers = HeaderMap::new();
        headers.insert(header::LOCATION, to.parse().unwrap());
        let status = StatusCode::from_u16(status).unwrap();
        Trail::new(follow)
            .next(method, &from.parse().unwrap(), status, &headers)
            .map_err(|failure| failure.error_type)
    }

    #[test]
    fn methods_are_rewritten_as_browsers_do() {
        for (status, before, after) in [
            (301, Method::POST, Method::GET),
            (302, Method::POST, Method::GET),
            (303, Method::PUT, Method::GET),
            (303, Method::HEAD, Method::HEAD),
            (307, Method::POST, Method::POST),
            (308, Method::POST, Method::POST),
            (301, Method::DELETE, Method::DELETE),
        ] {
            let next = next(5, &before, "http://a/x", status, "y").unwrap().unwrap();
            assert_eq!(next.method, after, "{status} {before}");
            assert_eq!(next.url.as_str(), "http://a/y");
            assert_eq!(next.with_body, before == after);
        }
    }

    #[test]
    fn what_is_not_to_be_followed_is_the_final_answer() {
        assert_eq!(next(0, &Method::GET, "http://a/", 302, "http://b/"), Ok(None));
        assert_eq!(next(5, &Method::GET, "http://a/", 304, "http://b/"), Ok(None));
        assert_eq!(next(5, &Method::GET, "http://a/", 200, "http://b/"), Ok(None));
    }

    #[test]
    fn no_redirect_leads_to_a_metadata_address_however_it_is_written() {
        for to in [
            "http://169.254.169.254/latest",
            "http://2852039166/",
            "http://0xa9fea9fe/",
            "http://0251.0376.0251.0376/",
            "http://[::ffff:169.254.169.254]/",
            "http://[::ffff:a9fe:a9fe]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://[2002:a9fe:a9fe::]/",
            "http://[fe80::1]/",
            "http://[fd00:ec2::254]/",
            "javascript:alert(1)",
            "file:///etc/passwd",
            "ftp://a/",
        ] {
            let from = "http://a/";
            assert_eq!(
                next(5, &Method::GET, from, 302, to),
                Err(ErrorType::RedirectForbidden),
                "{to}"
            );
        }
    }

    #[test]
    fn no_redirect_leads_into_the_open() {
        let down = next(5, &Method::GET, "https://a/", 301, "http://a/");
        assert_eq!(down, Err(ErrorType::RedirectDowngrade));
        let nowhere = next(5, &Method::GET, "https://a/", 301, "https://");
        assert_eq!(nowhere, Err(ErrorType::ResponseMalformed));
    }

    #[test]
    fn a_trail_that_bites_its_tail_is_a_loop_and_a_long_one_is_too_long() {
        let url = |text: &str| text.parse::<Url>().unwrap();
        let mut trail = Trail::new(2);
        let mut ask = |to: &str, cookies: Option<&str>| {
            trail.ask(&Method::GET, &url(to), cookies).map_err(|failure| failure.error_type)
        };
        assert_eq!(ask("http://a/", None), Ok(()));
        assert_eq!(ask("http://a/", None), Err(ErrorType::RedirectLoop));
        assert_eq!(ask("http://a/", Some("seen=1")), Ok(()));
        assert_eq!(ask("http://a/2", None), Ok(()));
        assert_eq!(ask("http://a/3", None), Err(ErrorType::RedirectLimit));
    }
}
