//! From a host to its addresses: asked anew each time, never cached.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use futures_util::future::select;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::time::timeout;

use super::ask::ask;
use super::{Family, hosts};
use crate::failure::{Blame, ErrorType, Failure};
use crate::phase::{Phase, Timeline};

/// How long a server may take when another is left to be asked.
const SHARE: Duration = Duration::from_secs(2);
/// How long the last server may take; usually the caller's time limit ends before.
const LAST_SHARE: Duration = Duration::from_secs(5);
/// How long the other family's answer is waited for when one has addresses (RFC 8305).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);
/// Bounds on what an answer may make us do.
const MAX_ALIASES: usize = 16;
const MAX_ADDRESSES: usize = 16;

/// The addresses of a host. `servers` are asked, or the system's when there are none. Addresses and names that this
/// host knows need no question, and then there is no phase.
pub(super) async fn resolve(
    host: &str,
    family: Family,
    servers: &[SocketAddr],
    timeline: &mut Timeline,
) -> Result<Vec<IpAddr>, Failure> {
    let known = match host.parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) => hosts::known_addresses(host),
    };
    if known.is_empty() {
        timeline.begin(Phase::Dns);
        let addresses = look_up(host, family, servers).await?;
        timeline.end();
        return Ok(addresses);
    }
    let fitting: Vec<_> = known.into_iter().filter(|address| family.takes(*address)).collect();
    if fitting.is_empty() {
        let message = format!("{host} has no {family} address");
        return Err(Failure::new(ErrorType::DnsNoRecords, message).blamed(Blame::Config));
    }
    Ok(fitting)
}

async fn look_up(
    host: &str,
    family: Family,
    servers: &[SocketAddr],
) -> Result<Vec<IpAddr>, Failure> {
    if !servers.is_empty() {
        // Servers of the user's own are asked for the very name: the search list is the system's.
        return ask_in_turn(servers, host, family).await;
    }
    let system = hosts::resolver();
    let mut answer = Err(Failure::new(ErrorType::DnsNxdomain, format!("{host} is no name")));
    for name in system.candidates(host) {
        answer = ask_in_turn(&system.servers, &name, family).await;
        let unknown = answer.as_ref().is_err_and(|failure| {
            matches!(failure.error_type, ErrorType::DnsNxdomain | ErrorType::DnsNoRecords)
        });
        if !unknown {
            break;
        }
    }
    answer
}

/// Asks one server after the other until one knows: what it says of the name is final, silence and errors are not.
async fn ask_in_turn(
    servers: &[SocketAddr],
    host: &str,
    family: Family,
) -> Result<Vec<IpAddr>, Failure> {
    let name = fully_qualified(host)?;
    let mut told: Option<Failure> = None;
    for (index, server) in servers.iter().enumerate() {
        let share = if index + 1 == servers.len() { LAST_SHARE } else { SHARE };
        let answered = timeout(share, ask_families(*server, &name, family)).await;
        let failure = match answered {
            Ok(Ok(addresses)) => return Ok(addresses),
            Ok(Err(failure)) if is_final(&failure) => return Err(failure),
            Ok(Err(failure)) => failure,
            Err(_elapsed) => Failure::new(
                ErrorType::DnsTimeout,
                format!("{host}: {server} did not answer within {} s", share.as_secs()),
            ),
        };
        if told.as_ref().is_none_or(|earlier| says_less(earlier, &failure)) {
            told = Some(failure);
        }
    }
    Err(told.unwrap_or_else(|| Failure::new(ErrorType::DnsTimeout, format!("{host}: no server"))))
}

/// Whether it is about the name, or about this picket, so that another server would not help.
fn is_final(failure: &Failure) -> bool {
    matches!(
        failure.error_type,
        ErrorType::DnsNxdomain
            | ErrorType::DnsNoRecords
            | ErrorType::AgentNoFiles
            | ErrorType::ConfigInvalid
    )
}

/// A server's silence says less than another's error.
fn says_less(earlier: &Failure, later: &Failure) -> bool {
    let silent = |failure: &Failure| {
        matches!(failure.error_type, ErrorType::DnsTimeout | ErrorType::AgentNoNetwork)
    };
    silent(earlier) && !silent(later)
}

fn fully_qualified(host: &str) -> Result<Name, Failure> {
    let name = Name::from_ascii(host).map_err(|error| {
        Failure::new(ErrorType::ConfigInvalid, format!("{host:?} is no host name: {error}"))
    });
    name.map(|mut name| {
        name.set_fqdn(true);
        name
    })
}

/// Asks one server for each family wanted, at the same time.
async fn ask_families(
    server: SocketAddr,
    name: &Name,
    family: Family,
) -> Result<Vec<IpAddr>, Failure> {
    let both = match family {
        Family::V4 => return ask_addresses(server, name, RecordType::A).await,
        Family::V6 => return ask_addresses(server, name, RecordType::AAAA).await,
        Family::Any => [RecordType::AAAA, RecordType::A],
    };
    let [six, four] = both.map(|kind| ask_addresses(server, name, kind));
    let (six, four) = (pin!(six), pin!(four));
    let (first, rest) = select(six, four).await.factor_first();
    let settled = match &first {
        Ok(_) => true,
        Err(failure) => failure.error_type == ErrorType::DnsNxdomain,
    };
    let second =
        if settled { timeout(RESOLUTION_DELAY, rest).await.ok() } else { Some(rest.await) };
    match second {
        Some(second) => both_families(first, second),
        None => first,
    }
}

/// One family with addresses is enough; of two failures the one that says more is told.
fn both_families(
    first: Result<Vec<IpAddr>, Failure>,
    second: Result<Vec<IpAddr>, Failure>,
) -> Result<Vec<IpAddr>, Failure> {
    match (first, second) {
        (Ok(first), Ok(second)) => Ok([first, second].concat()),
        (Ok(addresses), Err(_)) | (Err(_), Ok(addresses)) => Ok(addresses),
        (Err(first), Err(second)) => {
            let empty = first.error_type == ErrorType::DnsNoRecords;
            Err(if empty || says_less(&first, &second) { second } else { first })
        }
    }
}

async fn ask_addresses(
    server: SocketAddr,
    name: &Name,
    kind: RecordType,
) -> Result<Vec<IpAddr>, Failure> {
    let answer = ask(server, name, kind).await?;
    addresses_in(&answer, server, name, kind)
}

/// What the answer says of the name: its addresses, or why there are none.
fn addresses_in(
    answer: &Message,
    server: SocketAddr,
    name: &Name,
    kind: RecordType,
) -> Result<Vec<IpAddr>, Failure> {
    let host = plain(name);
    let fail =
        |error_type, what: &str| Err(Failure::new(error_type, format!("{host}: {server} {what}")));
    match answer.metadata.response_code {
        ResponseCode::NoError => {}
        ResponseCode::NXDomain => {
            return fail(ErrorType::DnsNxdomain, "says that the name does not exist (NXDOMAIN)");
        }
        ResponseCode::ServFail => {
            return fail(ErrorType::DnsServfail, "could not get an answer (SERVFAIL)");
        }
        other => {
            let what = format!("refused to answer ({})", code_name(other));
            return fail(ErrorType::DnsRefused, &what);
        }
    }
    let Some(owner) = follow_aliases(answer, name) else {
        return fail(ErrorType::DnsMalformed, "answered with aliases that lead in a circle");
    };
    let found = addresses_of(answer, kind, |record| record == owner);
    if !found.is_empty() {
        return Ok(found);
    }
    if !addresses_of(answer, kind, |_| true).is_empty() {
        return fail(ErrorType::DnsMalformed, "answered with addresses of another name");
    }
    let alias = if owner == name { String::new() } else { format!(" (alias of {})", plain(owner)) };
    fail(ErrorType::DnsNoRecords, &format!("knows no {kind} record of the name{alias}"))
}

/// Where the aliases (CNAME) in the answer lead; none when there is no end to them.
fn follow_aliases<'a>(answer: &'a Message, name: &'a Name) -> Option<&'a Name> {
    let mut owner = name;
    for _ in 0..MAX_ALIASES {
        let next = answer.answers.iter().find_map(|record| match &record.data {
            RData::CNAME(alias) if record.name == *owner => Some(&alias.0),
            _ => None,
        });
        match next {
            Some(next) => owner = next,
            None => return Some(owner),
        }
    }
    None
}

fn addresses_of(answer: &Message, kind: RecordType, owned: impl Fn(&Name) -> bool) -> Vec<IpAddr> {
    let address = |data: &RData| match data {
        RData::A(four) if kind == RecordType::A => Some(IpAddr::V4(four.0)),
        RData::AAAA(six) if kind == RecordType::AAAA => Some(IpAddr::V6(six.0)),
        _ => None,
    };
    answer
        .answers
        .iter()
        .filter(|record| owned(&record.name))
        .filter_map(|record| address(&record.data))
        .take(MAX_ADDRESSES)
        .collect()
}

/// A name as people write it.
pub(super) fn plain(name: &Name) -> String {
    let text = name.to_ascii();
    text.strip_suffix('.').unwrap_or(&text).to_owned()
}

/// A response code as the RFCs write it.
fn code_name(code: ResponseCode) -> String {
    match code {
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        other => format!("code {}", u16::from(other)),
    }
}
