//! One DNS question to one server: over UDP, and over TCP when the answer was cut short.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use rustix::io::Errno;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout_at};

use crate::failure::{Blame, ErrorType, Failure};

/// How long the right answer may still come after one with a wrong id, which anyone could have sent.
const AFTER_A_STRAY: Duration = Duration::from_millis(500);
/// Without EDNS an answer has at most 512 bytes; some servers send more all the same.
const MAX_DATAGRAM: usize = 4096;

/// Asks one server once: a fresh socket, a fresh id, no repetition. Any answer to the question counts, whatever its
/// response code.
pub(super) async fn ask(
    server: SocketAddr,
    name: &Name,
    kind: RecordType,
) -> Result<Message, Failure> {
    let answer = over_udp(server, &question(name, kind)).await?;
    if !answer.metadata.truncation {
        return Ok(answer);
    }
    over_tcp(server, &question(name, kind)).await
}

fn question(name: &Name, kind: RecordType) -> Message {
    let mut question = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name.clone(), kind));
    question
}

async fn over_udp(server: SocketAddr, question: &Message) -> Result<Message, Failure> {
    let broke = |error: io::Error| broke(server, question, &error);
    let socket = open(server).await.map_err(broke)?;
    socket.send(&encode(question)?).await.map_err(broke)?;
    let mut datagram = vec![0; MAX_DATAGRAM];
    let mut patience: Option<(Instant, Failure)> = None;
    loop {
        let received = match &patience {
            None => socket.recv(&mut datagram).await,
            Some((until, stray)) => match timeout_at(*until, socket.recv(&mut datagram)).await {
                Ok(received) => received,
                Err(_elapsed) => return Err(stray.clone()),
            },
        };
        let length = received.map_err(broke)?;
        match read(server, question, datagram.get(..length).unwrap_or_default()) {
            Read::Answer(answer) => return Ok(*answer),
            Read::Nonsense(failure) => return Err(failure),
            Read::Stray(failure) => {
                patience.get_or_insert_with(|| (Instant::now() + AFTER_A_STRAY, failure));
            }
        }
    }
}

/// Connected, so that only the server's datagrams come in, and its host can say that nobody listens.
async fn open(server: SocketAddr) -> io::Result<UdpSocket> {
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    Ok(socket)
}

async fn over_tcp(server: SocketAddr, question: &Message) -> Result<Message, Failure> {
    let bytes = encode(question)?;
    let answer = exchange(server, &bytes).await.map_err(|error| broke(server, question, &error))?;
    match read(server, question, &answer) {
        Read::Answer(answer) => Ok(*answer),
        Read::Nonsense(failure) | Read::Stray(failure) => Err(failure),
    }
}

/// Over TCP a message follows its length, which has two bytes: the answer is bounded by that.
async fn exchange(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    let framed = [length.to_be_bytes().as_slice(), question].concat();
    stream.write_all(&framed).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

fn encode(question: &Message) -> Result<Vec<u8>, Failure> {
    question.to_vec().map_err(|error| {
        Failure::new(ErrorType::ConfigInvalid, format!("the name cannot be asked for: {error}"))
    })
}

/// What came in.
enum Read {
    /// An answer to the question.
    Answer(Box<Message>),
    /// Nothing that could be an answer.
    Nonsense(Failure),
    /// An answer to a question that was not asked here: perhaps the right one is still to come.
    Stray(Failure),
}

fn read(server: SocketAddr, question: &Message, bytes: &[u8]) -> Read {
    let malformed = |what: &str| {
        let message = format!("{}: {server} {what}", subject(question));
        Failure::new(ErrorType::DnsMalformed, message)
    };
    let Ok(answer) = Message::from_vec(bytes) else {
        return Read::Nonsense(malformed("answered with what is no DNS message"));
    };
    let (asked, told) = (&question.metadata, &answer.metadata);
    if asked.id != told.id {
        return Read::Stray(malformed("answered under another question's id"));
    }
    if told.message_type != MessageType::Response || told.op_code != asked.op_code {
        return Read::Nonsense(malformed("sent a message that is no answer to a query"));
    }
    // Some servers leave the question out when they have nothing but an error to tell.
    let without = answer.queries.is_empty() && told.response_code != ResponseCode::NoError;
    if answer.queries != question.queries && !without {
        return Read::Nonsense(malformed("answered another question"));
    }
    Read::Answer(Box::new(answer))
}

/// What was asked for, as messages name it.
fn subject(question: &Message) -> String {
    question
        .queries
        .first()
        .map(|query| format!("{} {}", super::dns::plain(query.name()), query.query_type()))
        .unwrap_or_default()
}

fn broke(server: SocketAddr, question: &Message, error: &io::Error) -> Failure {
    let subject = subject(question);
    match Errno::from_io_error(error) {
        Some(Errno::CONNREFUSED) => Failure::new(
            ErrorType::DnsRefused,
            format!("{subject}: nobody answers DNS questions at {server}"),
        )
        .blamed(Blame::Path),
        Some(Errno::MFILE | Errno::NFILE) => Failure::new(
            ErrorType::AgentNoFiles,
            format!("{subject}: no socket to ask {server} with: {error}"),
        ),
        Some(Errno::NETUNREACH | Errno::NETDOWN | Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT) => {
            Failure::new(
                ErrorType::AgentNoNetwork,
                format!("{subject}: there is no way to the DNS server {server}: {error}"),
            )
        }
        _ if is_cut_short(error) => Failure::new(
            ErrorType::DnsMalformed,
            format!("{subject}: {server} closed the connection in the middle of its answer"),
        ),
        _ => Failure::new(
            ErrorType::DnsTimeout,
            format!("{subject}: {server} could not be asked: {error}"),
        )
        .blamed(Blame::Path),
    }
}

/// Over TCP: closed or reset instead of answering.
fn is_cut_short(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_reset_is_as_malformed_as_one_that_ends() {
        let name = Name::from_ascii("x.test.").unwrap();
        let question = question(&name, RecordType::A);
        let server = "127.0.0.1:53".parse().unwrap();
        for kind in [io::ErrorKind::ConnectionReset, io::ErrorKind::UnexpectedEof] {
            let failure = broke(server, &question, &kind.into());
            assert_eq!(failure.error_type, ErrorType::DnsMalformed);
        }
    }
}
