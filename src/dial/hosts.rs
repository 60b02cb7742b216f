//! What this host says of names: /etc/hosts and /etc/resolv.conf, read anew when they change.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::SystemTime;

use resolv_conf::ScopedIp;
use rustix::io::Errno;

use crate::failure::{ErrorType, Failure};

/// Where DNS servers listen.
const DNS_PORT: u16 = 53;
/// No more servers and search domains than glibc uses: each costs a run time.
const MAX_SERVERS: usize = 3;
const MAX_SEARCH: usize = 6;

/// The addresses that need no question: those of `localhost` and of /etc/hosts. Empty when DNS has to be asked.
pub(super) fn known_addresses(host: &str) -> Result<Vec<IpAddr>, Failure> {
    static HOSTS: LazyLock<Watched<Hosts>> =
        LazyLock::new(|| Watched::new(Path::new("/etc/hosts"), Hosts::parse));
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let listed = HOSTS.read()?.named(&name);
    if listed.is_empty() && (name == "localhost" || name.ends_with(".localhost")) {
        return Ok(vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]);
    }
    Ok(listed)
}

/// The servers and the search list of this host.
pub(super) fn resolver() -> Result<Arc<Resolver>, Failure> {
    static RESOLVER: LazyLock<Watched<Resolver>> =
        LazyLock::new(|| Watched::new(Path::new("/etc/resolv.conf"), Resolver::parse));
    RESOLVER.read()
}

/// Whom to ask, and under which names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resolver {
    /// Never empty: without any, this host is asked, as glibc does.
    pub(super) servers: Vec<SocketAddr>,
    search: Vec<String>,
    dots: usize,
}

impl Resolver {
    fn parse(text: &[u8]) -> Self {
        let (mut config, _unread) = resolv_conf::Config::parse_with_errors(text);
        config.glibc_normalize();
        let mut servers: Vec<_> =
            config.nameservers.iter().take(MAX_SERVERS).map(server_at).collect();
        if servers.is_empty() {
            servers.push(SocketAddr::from((Ipv4Addr::LOCALHOST, DNS_PORT)));
        }
        let search = config.get_last_search_or_domain().take(MAX_SEARCH).cloned().collect();
        Self { servers, search, dots: usize::try_from(config.ndots).unwrap_or(usize::MAX) }
    }

    /// The names to ask for, in this order. A name with dots enough is asked for as it is and under no other.
    pub(super) fn candidates(&self, host: &str) -> Vec<String> {
        let dots = host.bytes().filter(|byte| *byte == b'.').count();
        if host.ends_with('.') || dots >= self.dots {
            return vec![host.to_owned()];
        }
        let searched = self.search.iter().map(|domain| format!("{host}.{domain}"));
        searched.chain([host.to_owned()]).collect()
    }
}

fn server_at(server: &ScopedIp) -> SocketAddr {
    match server {
        ScopedIp::V4(ip) => SocketAddr::from((*ip, DNS_PORT)),
        ScopedIp::V6(ip, scope) => {
            let scope = scope.as_deref().and_then(|scope| scope.parse().ok()).unwrap_or(0);
            SocketAddr::V6(SocketAddrV6::new(*ip, DNS_PORT, 0, scope))
        }
    }
}

/// /etc/hosts by name.
#[derive(Debug, Default)]
struct Hosts(HashMap<String, Vec<IpAddr>>);

impl Hosts {
    fn parse(text: &[u8]) -> Self {
        let mut hosts = Self::default();
        for line in String::from_utf8_lossy(text).lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            let Some(Ok(ip)) = words.next().map(str::parse::<IpAddr>) else { continue };
            for name in words {
                let addresses = hosts.0.entry(name.to_ascii_lowercase()).or_default();
                if !addresses.contains(&ip) {
                    addresses.push(ip);
                }
            }
        }
        hosts
    }

    fn named(&self, name: &str) -> Vec<IpAddr> {
        self.0.get(name).cloned().unwrap_or_default()
    }
}

/// A file that is read again when its time or its length has changed. One that is absent or closed to us reads as an
/// empty one; one that could not be read for want of file descriptors is not taken for empty.
struct Watched<T> {
    path: &'static Path,
    parse: fn(&[u8]) -> T,
    last: Mutex<Option<(Mark, Arc<T>)>>,
}

type Mark = Option<(SystemTime, u64)>;

impl<T> Watched<T> {
    fn new(path: &'static Path, parse: fn(&[u8]) -> T) -> Self {
        Self { path, parse, last: Mutex::new(None) }
    }

    fn read(&self) -> Result<Arc<T>, Failure> {
        let mark = mark_of(self.path);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((marked, value)) = &*last
            && *marked == mark
        {
            return Ok(Arc::clone(value));
        }
        let text = std::fs::read(self.path).or_else(|error| self.forgive(&error))?;
        let value = Arc::new((self.parse)(&text));
        *last = Some((mark, Arc::clone(&value)));
        Ok(value)
    }

    fn forgive(&self, error: &io::Error) -> Result<Vec<u8>, Failure> {
        if !matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE)) {
            return Ok(Vec::new());
        }
        let message = format!("{} could not be read: {error}", self.path.display());
        Err(Failure::new(ErrorType::AgentNoFiles, message))
    }
}

fn mark_of(path: &Path) -> Mark {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_is_searched_for_and_a_long_one_is_not() {
        let resolver = Resolver::parse(
            b"nameserver 10.0.0.2\nnameserver fe80::1%3\nsearch a.test b.test\noptions ndots:2\n",
        );
        assert_eq!(resolver.servers[0], "10.0.0.2:53".parse().unwrap());
        assert_eq!(resolver.candidates("db.x"), ["db.x.a.test", "db.x.b.test", "db.x"]);
        assert_eq!(resolver.candidates("db."), ["db."]);
        assert_eq!(resolver.candidates("a.b.c"), ["a.b.c"]);
    }

    #[test]
    fn without_a_server_this_host_is_asked() {
        assert_eq!(Resolver::parse(b"").servers, ["127.0.0.1:53".parse().unwrap()]);
    }

    #[test]
    fn a_hosts_line_gives_each_of_its_names() {
        let hosts = Hosts::parse(b"# none\n10.0.0.1 One one.test # two\n::1 one\nnonsense three\n");
        assert_eq!(hosts.named("one").len(), 2);
        assert_eq!(hosts.named("one.test"), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert!(hosts.named("two").is_empty() && hosts.named("three").is_empty());
    }

    #[test]
    fn localhost_needs_no_question() {
        assert!(known_addresses("LOCALHOST.").unwrap().iter().all(IpAddr::is_loopback));
        assert_eq!(known_addresses("api.localhost").unwrap().len(), 2);
        assert!(known_addresses("no-such-name.test").unwrap().is_empty());
    }

    #[test]
    fn a_file_that_changed_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path: &'static Path = Box::leak(folder.path().join("hosts").into_boxed_path());
        let watched = Watched::new(path, <[u8]>::to_vec);
        assert!(watched.read().unwrap().is_empty());
        std::fs::write(path, "one").unwrap();
        assert_eq!(*watched.read().unwrap(), b"one");
        std::fs::write(path, "seven").unwrap();
        assert_eq!(*watched.read().unwrap(), b"seven");
    }

    #[test]
    fn want_of_file_descriptors_is_told_and_does_not_read_as_an_empty_file() {
        let watched = Watched::new(Path::new("/etc/hosts"), <[u8]>::to_vec);
        let error = |errno: Errno| io::Error::from_raw_os_error(errno.raw_os_error());
        let failure = watched.forgive(&error(Errno::MFILE)).unwrap_err();
        assert_eq!(failure.error_type, ErrorType::AgentNoFiles);
        assert_eq!(watched.forgive(&error(Errno::NOENT)), Ok(Vec::new()));
    }
}
