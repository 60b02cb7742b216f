//! From a host to its addresses: asked anew each time, never cached.
//!
//! - Addresses, `localhost` and the names of /etc/hosts need no question, and then there is no phase.
//! - The servers are asked in turn, each question once. A server's NXDOMAIN, or its having no record, is final; after
//!   silence (2 s, of the last server 5 s) or an error the next one is asked, as the system's own resolver does.
//! - A and AAAA are asked for at the same time, and one of them with addresses is enough.
//! - A short name is asked for under the system's search list; with servers of the probe's own as it stands.

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
/// How long the other family's answer is waited for when one is an error: some servers answer for one family alone.
const SECOND_OPINION: Duration = Duration::from_secs(1);
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
        Err(_) => hosts::known_addresses(host)?,
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
    let system = hosts::resolver()?;
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
    let second = match &first {
        Ok(_) => timeout(RESOLUTION_DELAY, rest).await.ok(),
        // That one family has no address says nothing of the other.
        Err(failure) if failure.error_type == ErrorType::DnsNoRecords => Some(rest.await),
        Err(_) => timeout(SECOND_OPINION, rest).await.ok(),
    };
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
    let code = answer.metadata.response_code;
    if code == ResponseCode::NXDomain {
        return fail(ErrorType::DnsNxdomain, "says that the name does not exist (NXDOMAIN)");
    }
    if code == ResponseCode::ServFail {
        return fail(ErrorType::DnsServfail, "could not get an answer (SERVFAIL)");
    }
    if code != ResponseCode::NoError {
        return fail(ErrorType::DnsRefused, &format!("refused to answer ({})", code_name(code)));
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
        let mut named = answer.answers.iter().filter(|record| record.name == *owner);
        let alias = |data: &'a RData| if let RData::CNAME(to) = data { Some(&to.0) } else { None };
        match named.find_map(|record| alias(&record.data)) {
            Some(next) => owner = next,
            None => return Some(owner),
        }
    }
    None
}

fn addresses_of(answer: &Message, kind: RecordType, owned: impl Fn(&Name) -> bool) -> Vec<IpAddr> {
    let fitting = answer.answers.iter().filter(|record| record.record_type() == kind);
    fitting
        .filter(|record| owned(&record.name))
        .filter_map(|record| record.data.ip_addr())
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
    let known = [
        (ResponseCode::FormErr, "FORMERR"),
        (ResponseCode::NotImp, "NOTIMP"),
        (ResponseCode::Refused, "REFUSED"),
    ];
    match known.iter().find(|(known, _)| *known == code) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("code {}", u16::from(code)),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UdpSocket;

    use super::*;
    use crate::dial::testing::{
        Served, Transport, a, aaaa, closed_port, cname, dns_answer, reading, serve_dns,
    };

    const HOST: &str = "orders.test";

    type Row = (&'static str, fn() -> RData);

    async fn answering(code: ResponseCode, records: &'static [Row]) -> Served {
        serve_dns(move |question, _| {
            let records: Vec<_> = records.iter().map(|(name, data)| (*name, data())).collect();
            dns_answer(question, code, &records).to_vec().ok()
        })
        .await
    }

    async fn ask_these(servers: &[SocketAddr], family: Family) -> Result<Vec<IpAddr>, Failure> {
        resolve(HOST, family, servers, &mut reading().timeline).await
    }

    async fn fault_of(server: &Served) -> &'static str {
        ask_these(&[server.address], Family::Any).await.unwrap_err().error_type.as_str()
    }

    #[tokio::test]
    async fn both_families_are_asked_and_the_phase_is_kept() {
        let server = answering(
            ResponseCode::NoError,
            &[(HOST, || a("10.0.0.1")), (HOST, || a("10.0.0.2")), (HOST, || aaaa("fd00::1"))],
        )
        .await;
        let mut reading = reading();
        let mut found =
            resolve(HOST, Family::Any, &[server.address], &mut reading.timeline).await.unwrap();
        found.sort();
        let expected: [IpAddr; 3] =
            ["10.0.0.1", "10.0.0.2", "fd00::1"].map(|ip| ip.parse().unwrap());
        assert_eq!(found, expected);
        assert_eq!(reading.timeline.past().len(), 1);
        assert_eq!(ask_these(&[server.address], Family::V4).await.unwrap().len(), 2);
        assert_eq!(ask_these(&[server.address], Family::V6).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn each_fault_of_a_resolver_has_its_name() {
        for (code, name) in [
            (ResponseCode::NXDomain, "dns.nxdomain"),
            (ResponseCode::ServFail, "dns.servfail"),
            (ResponseCode::Refused, "dns.refused"),
            (ResponseCode::FormErr, "dns.refused"),
            (ResponseCode::NoError, "dns.no_records"),
        ] {
            assert_eq!(fault_of(&answering(code, &[]).await).await, name);
        }
        let garbage = serve_dns(|_, _| Some(b"no DNS".to_vec())).await;
        assert_eq!(fault_of(&garbage).await, "dns.malformed");
        let echo = serve_dns(|question, _| question.to_vec().ok()).await;
        assert_eq!(fault_of(&echo).await, "dns.malformed");
    }

    #[tokio::test]
    async fn an_answer_to_another_question_or_for_another_name_is_malformed() {
        let other_question = serve_dns(|question, _| {
            let mut answer = dns_answer(question, ResponseCode::NoError, &[]);
            answer.queries[0].set_name("other.test.".parse().unwrap());
            answer.to_vec().ok()
        })
        .await;
        assert_eq!(fault_of(&other_question).await, "dns.malformed");
        let other_name =
            answering(ResponseCode::NoError, &[("other.test", || a("10.0.0.1"))]).await;
        let failure = ask_these(&[other_name.address], Family::V4).await.unwrap_err();
        assert_eq!(failure.error_type, ErrorType::DnsMalformed);
        assert!(failure.message.contains(HOST), "{}", failure.message);
        let circle = answering(
            ResponseCode::NoError,
            &[(HOST, || cname("b.test")), ("b.test", || cname(HOST))],
        )
        .await;
        assert_eq!(fault_of(&circle).await, "dns.malformed");
    }

    #[tokio::test]
    async fn an_answer_under_another_id_is_malformed_when_the_right_one_does_not_come() {
        let stray = serve_dns(|question, _| {
            let mut answer = dns_answer(question, ResponseCode::NoError, &[(HOST, a("10.0.0.1"))]);
            answer.metadata.id = !question.metadata.id;
            answer.to_vec().ok()
        })
        .await;
        assert_eq!(fault_of(&stray).await, "dns.malformed");
    }

    #[tokio::test]
    async fn a_spoofed_answer_does_not_keep_the_right_one_out() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = socket.local_addr().unwrap();
        let answers = tokio::spawn(async move {
            let mut question = [0; 512];
            let (length, from) = socket.recv_from(&mut question).await.unwrap();
            let question = Message::from_vec(&question[..length]).unwrap();
            let right = dns_answer(&question, ResponseCode::NoError, &[(HOST, a("10.0.0.1"))]);
            let mut spoofed = dns_answer(&question, ResponseCode::NXDomain, &[]);
            spoofed.metadata.id = !question.metadata.id;
            for answer in [spoofed, right] {
                socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        let found = ask_these(&[server], Family::V4).await.unwrap();
        assert_eq!(found, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        answers.await.unwrap();
    }

    #[tokio::test]
    async fn an_alias_is_followed() {
        let server = answering(
            ResponseCode::NoError,
            &[
                ("c.test", || a("10.0.0.9")),
                (HOST, || cname("b.test")),
                ("b.test", || cname("c.test")),
            ],
        )
        .await;
        let found = ask_these(&[server.address], Family::V4).await.unwrap();
        assert_eq!(found, ["10.0.0.9".parse::<IpAddr>().unwrap()]);
    }

    #[tokio::test]
    async fn an_answer_that_is_cut_short_is_asked_for_over_tcp() {
        let server = serve_dns(|question, transport| {
            let whole = [(HOST, a("10.0.0.1"))];
            let records = if transport == Transport::Tcp { &whole[..] } else { &[] };
            let mut answer = dns_answer(question, ResponseCode::NoError, records);
            answer.metadata.truncation = transport == Transport::Udp;
            answer.to_vec().ok()
        })
        .await;
        assert_eq!(ask_these(&[server.address], Family::V4).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn one_family_is_enough_when_the_other_fails_or_is_silent() {
        for silent in [true, false] {
            let server = serve_dns(move |question, _| {
                let six = question.queries[0].query_type() == RecordType::AAAA;
                let code = if six { ResponseCode::ServFail } else { ResponseCode::NoError };
                let answer = dns_answer(question, code, &[(HOST, a("10.0.0.1"))]);
                if six && silent { None } else { answer.to_vec().ok() }
            })
            .await;
            assert_eq!(ask_these(&[server.address], Family::Any).await.unwrap().len(), 1);
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_refused_and_the_next_is_asked() {
        let gone = closed_port();
        let failure = ask_these(&[gone], Family::Any).await.unwrap_err();
        assert_eq!(failure.error_type, ErrorType::DnsRefused);
        assert_eq!(failure.blame, Blame::Path);
        let server = answering(ResponseCode::NoError, &[(HOST, || a("10.0.0.1"))]).await;
        assert_eq!(ask_these(&[gone, server.address], Family::Any).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_silent_server_leaves_the_phase_open_for_the_callers_limit() {
        let server = serve_dns(|_, _| None).await;
        let mut reading = reading();
        let servers = [server.address];
        let asking = resolve(HOST, Family::Any, &servers, &mut reading.timeline);
        assert!(timeout(Duration::from_millis(50), asking).await.is_err());
        assert_eq!(reading.timeline.open(), Some(Phase::Dns));
    }

    #[tokio::test(start_paused = true)]
    async fn when_every_server_is_silent_it_is_a_timeout() {
        let server = serve_dns(|_, _| None).await;
        let servers = [server.address, server.address];
        let failure = ask_these(&servers, Family::V4).await.unwrap_err();
        assert_eq!(failure.error_type, ErrorType::DnsTimeout);
        assert!(failure.message.contains(&server.address.to_string()), "{}", failure.message);
    }

    proptest::proptest! {
        #[test]
        fn no_answer_is_too_strange_to_be_read(bytes: Vec<u8>, at in 0_usize..80, byte: u8) {
            let name = fully_qualified(HOST).unwrap();
            let mut question = Message::query();
            question.add_query(hickory_proto::op::Query::query(name.clone(), RecordType::A));
            let records = [(HOST, cname("b.test")), ("b.test", a("10.0.0.1"))];
            let mut bent = dns_answer(&question, ResponseCode::NoError, &records).to_vec().unwrap();
            if let Some(place) = bent.get_mut(at) {
                *place = byte;
            }
            for strange in [bytes, bent] {
                if let Ok(answer) = Message::from_vec(&strange) {
                    let server = "127.0.0.1:53".parse().unwrap();
                    let found = addresses_in(&answer, server, &name, RecordType::A);
                    assert!(found.unwrap_or_default().len() <= MAX_ADDRESSES);
                }
            }
        }
    }

    #[tokio::test]
    async fn an_address_is_no_question() {
        let mut reading = reading();
        let found = resolve("::1", Family::Any, &[], &mut reading.timeline).await.unwrap();
        assert_eq!(found, ["::1".parse::<IpAddr>().unwrap()]);
        let failure = resolve("::1", Family::V4, &[], &mut reading.timeline).await.unwrap_err();
        assert_eq!(failure.error_type, ErrorType::DnsNoRecords);
        assert!(reading.timeline.past().is_empty() && reading.timeline.open().is_none());
    }
}
