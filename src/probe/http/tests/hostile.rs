//! Targets that misbehave: each gets its error type, whatever it does, and ends in its time.

use std::io::Write as _;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use super::server::say;
use super::*;
use crate::dial::testing::{Authority, serve};
use Act::{Endless, Hear, HearBytes, Hold, Reset, Say, Stall, Trickle};

/// One target: what it is, what it does, further keys, and what it must be called.
type Row = (&'static str, Vec<Act>, &'static str, &'static str);

const OK: &str = "HTTP/1.1 200 OK\r\n";

fn then(mut acts: Vec<Act>, act: Act) -> Vec<Act> {
    acts.push(act);
    acts
}

fn head(fields: &str) -> String {
    format!("{OK}{fields}\r\n\r\n")
}

fn gzip_bomb() -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&vec![0; 2 << 20]).unwrap();
    packed.finish().unwrap()
}

fn packed(coding: &str, body: &[u8]) -> Vec<u8> {
    let head = head(&format!("content-encoding: {coding}\r\ncontent-length: {}", body.len()));
    [head.as_bytes(), body].concat()
}

/// 2 MiB of zeros as the `brotli` program writes them.
const BROTLI_BOMB: &[u8] =
    &[0x9b, 0xff, 0xff, 0x1f, 0xf8, 0x27, 0x00, 0xe2, 0xb1, 0x40, 0x20, 0xf7, 0xfe, 0x03];

fn silent_and_slow() -> Vec<Row> {
    vec![
        ("silence from the start", vec![Hold], "", "response.timeout"),
        ("silence after the request", vec![Hear, Hold], "", "response.timeout"),
        ("half a status line", then(say("HTTP/1.1 2"), Hold), "", "response.timeout"),
        ("half a head", then(say(format!("{OK}a: b\r\n")), Hold), "", "response.timeout"),
        ("a head and no body", then(say(head("content-length: 9")), Hold), "", "response.timeout"),
        (
            "half a body",
            then(say(head("content-length: 9") + "half"), Hold),
            "",
            "response.timeout",
        ),
        (
            "half a chunk",
            then(say(head("transfer-encoding: chunked") + "9\r\nhalf"), Hold),
            "",
            "response.timeout",
        ),
        ("a trickle of a head", vec![Hear, Trickle(&[b'H'; 1000])], "", "response.malformed"),
        (
            "a trickle of a status line",
            vec![Hear, Trickle(b"HTTP/1.1 200 OK a very long reason indeed, is it not")],
            "",
            "response.timeout",
        ),
        (
            "a trickle of a body",
            then(say(head("content-length: 99")), Trickle(&[b'x'; 98])),
            "",
            "response.timeout",
        ),
    ]
}

fn cut_off() -> Vec<Row> {
    vec![
        ("closed at once", vec![], "", "response.closed"),
        ("closed after the request", vec![Hear], "", "response.closed"),
        ("closed in the status line", say("HTTP/1.1 2"), "", "response.truncated"),
        ("closed in the head", say(format!("{OK}a: b\r\n")), "", "response.truncated"),
        (
            "closed after an interim answer",
            say("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"),
            "",
            "response.closed",
        ),
        ("closed before the body", say(head("content-length: 9")), "", "response.truncated"),
        ("closed in the body", say(head("content-length: 9") + "half"), "", "response.truncated"),
        (
            "closed in a chunk",
            say(head("transfer-encoding: chunked") + "9\r\nhalf"),
            "",
            "response.truncated",
        ),
        (
            "closed before the last chunk",
            say(head("transfer-encoding: chunked") + "4\r\nhalf\r\n"),
            "",
            "response.truncated",
        ),
        ("reset after the request", vec![Hear, Reset], "", "response.reset"),
        ("reset in the status line", then(say("HTTP/1.1 2"), Reset), "", "response.reset"),
        ("reset in the head", then(say(format!("{OK}a: b\r\n")), Reset), "", "response.reset"),
        (
            "reset before the body",
            then(say(head("content-length: 9")), Reset),
            "",
            "response.reset",
        ),
        (
            "reset in the body",
            then(say(head("content-length: 9") + "half"), Reset),
            "",
            "response.reset",
        ),
        ("reset in an endless body", then(say(head("a: b") + "half"), Reset), "", "response.reset"),
    ]
}

fn too_large() -> Vec<Row> {
    let interim = "HTTP/1.1 102 Processing\r\n\r\n".repeat(17);
    let field = |count: usize| "a: b\r\n".repeat(count);
    let zeros = vec![0; 2 << 20];
    let zstd = zstd::encode_all(zeros.as_slice(), 3).unwrap();
    vec![
        (
            "endless headers",
            vec![Hear, Say(OK.into()), Endless(b"a: bcdefghijklmnop\r\n".to_vec())],
            "",
            "response.too_large",
        ),
        (
            "a header of 10 MiB",
            vec![Hear, Say(format!("{OK}a: ").into()), Say(vec![b'x'; 10 << 20])],
            "",
            "response.too_large",
        ),
        (
            "an endless reason",
            vec![Hear, Say(b"HTTP/1.1 200 ".to_vec()), Endless(vec![b'x'; 4096])],
            "",
            "response.too_large",
        ),
        ("201 fields", say(format!("{OK}{}\r\n", field(201))), "", "response.too_large"),
        ("200 fields", say(format!("{OK}{}content-length: 0\r\n\r\n", field(199))), "", "pass"),
        (
            "17 interim answers",
            say(interim.clone() + &head("content-length: 0")),
            "",
            "response.too_large",
        ),
        (
            "endless interim answers",
            vec![Hear, Endless(interim.clone().into_bytes())],
            "",
            "response.too_large",
        ),
        (
            "16 interim answers",
            say("HTTP/1.1 102 Processing\r\n\r\n".repeat(16) + &head("content-length: 0")),
            "",
            "pass",
        ),
        (
            "an endless body",
            vec![Hear, Say(head("a: b").into()), Endless(vec![b'x'; 65536])],
            "",
            "response.too_large",
        ),
        (
            "endless chunks",
            vec![
                Hear,
                Say(head("transfer-encoding: chunked").into()),
                Endless(b"4\r\nbody\r\n".to_vec()),
            ],
            "max_body = '4KiB'",
            "response.too_large",
        ),
        (
            "a body one byte too large",
            say(head("content-length: 9") + "123456789"),
            "max_body = '8B'",
            "response.too_large",
        ),
        ("a gzip bomb", say(packed("gzip", &gzip_bomb())), "", "response.too_large"),
        (
            "a gzip bomb in gzip's old name",
            say(packed("x-gzip", &gzip_bomb())),
            "",
            "response.too_large",
        ),
        ("a br bomb", say(packed("br", BROTLI_BOMB)), "", "response.too_large"),
        ("a zstd bomb", say(packed("zstd", &zstd)), "", "response.too_large"),
    ]
}

fn malformed() -> Vec<Row> {
    let cases: &[(&'static str, &'static str)] = &[
        ("a chunk size that is none", "transfer-encoding: chunked\r\n\r\nxyz\r\n"),
        ("a chunk size below zero", "transfer-encoding: chunked\r\n\r\n-4\r\nbody\r\n0\r\n\r\n"),
        (
            "a chunk size that overflows",
            "transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nbody",
        ),
        ("a chunk longer than it says", "transfer-encoding: chunked\r\n\r\n2\r\nbody\r\n0\r\n\r\n"),
        ("a length below zero", "content-length: -1\r\n\r\n"),
        ("a length that overflows", "content-length: 18446744073709551616\r\n\r\n"),
        ("a length that is none", "content-length: four\r\n\r\nbody"),
        ("two lengths", "content-length: 4\r\ncontent-length: 5\r\n\r\nbody!"),
        (
            "a length and chunks",
            "content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        ),
        ("a transfer coding that nobody asked for", "transfer-encoding: x-secret\r\n\r\nbody"),
        ("a NUL in a header", "a: b\0c\r\n\r\n"),
        ("a folded header", "a: b\r\n c\r\n\r\n"),
        ("a space before a colon", "a : b\r\n\r\n"),
        ("a header without a colon", "nonsense\r\n\r\n"),
        ("a header without a name", ": b\r\n\r\n"),
        ("no gzip", "content-encoding: gzip\r\ncontent-length: 4\r\n\r\nbody"),
        ("no br", "content-encoding: br\r\ncontent-length: 4\r\n\r\nbody"),
        ("no zstd", "content-encoding: zstd\r\ncontent-length: 4\r\n\r\nbody"),
    ];
    let mut rows: Vec<Row> = cases
        .iter()
        .map(|(name, rest)| (*name, say(format!("{OK}{rest}")), "", "response.malformed"))
        .collect();
    for (name, answer) in [
        ("HTTP/0.9", "<html>hello</html>\r\n\r\n"),
        ("HTTP/3.0", "HTTP/3.0 200 OK\r\n\r\n"),
        ("lower case", "http/1.1 200 ok\r\n\r\n"),
        ("a status of two digits", "HTTP/1.1 20 OK\r\n\r\n"),
        ("a status of letters", "HTTP/1.1 abc OK\r\n\r\n"),
        ("another protocol", "SSH-2.0-OpenSSH_9.2p1\r\n"),
        ("noise", "\u{7f}ELF\u{2}\u{1}\u{1}"),
        ("noise with lines", "\u{1}\u{2}\u{3}\u{4}\u{5}\u{6}\r\n\r\n"),
        ("HTTP/1.0 with chunks", "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ] {
        // Held open: what is wrong already is told at once.
        rows.push((name, then(say(answer), Hold), "", "response.malformed"));
    }
    rows
}

fn odd_but_right() -> Vec<Row> {
    vec![
        ("no length, to the close", say(head("a: b") + "body"), "", "pass"),
        ("HTTP/1.0", say("HTTP/1.0 200 OK\r\n\r\nbody"), "", "pass"),
        (
            "a status that nobody knows",
            say("HTTP/1.1 799 Odd\r\ncontent-length: 0\r\n\r\n"),
            "",
            "pass",
        ),
        ("no reason", say("HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n"), "", "pass"),
        (
            "the same length twice",
            say(head("content-length: 4\r\ncontent-length: 4") + "body"),
            "",
            "pass",
        ),
        ("204 and held open", then(say("HTTP/1.1 204 No Content\r\n\r\n"), Hold), "", "pass"),
        (
            "304 with a length",
            then(say("HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n"), Hold),
            "",
            "pass",
        ),
        (
            "HEAD with a length",
            then(say(head("content-length: 9")), Hold),
            "method = 'HEAD'",
            "pass",
        ),
        ("more than it said", say(head("content-length: 4") + "body and soul"), "", "pass"),
        (
            "reset after the whole answer",
            then(say(head("content-length: 4") + "body"), Reset),
            "",
            "pass",
        ),
        (
            "a coding that nobody knows",
            say(head("content-encoding: x-odd\r\ncontent-length: 4") + "body"),
            "",
            "pass",
        ),
        (
            "an answer in pieces",
            vec![Hear, Trickle(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx")],
            "",
            "pass",
        ),
    ]
}

fn as_http_two() -> Vec<Row> {
    /// A frame: its type, flags and stream, and what is in it.
    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [length[1], length[2], length[3], kind, flags, 0, 0, 0, stream];
        [&head[..], payload].concat()
    }
    let settings = || frame(4, 0, 0, &[]);
    // The preface, at least: what follows may come in pieces.
    let begin = |frames: Vec<u8>| vec![HearBytes(24), Say([settings(), frames].concat())];
    // `:status: 200` is entry 8 of the static table.
    let ok = |flags| frame(1, flags, 1, &[0x88]);
    let keys = "version = '2'";
    // Entry 16 of the static table is `accept-encoding: gzip, deflate`.
    let fields = |count| [&[0x88][..], &vec![0x90; count]].concat();
    let endless = frame(9, 0, 1, &vec![0x90; 16 << 10]);
    vec![
        ("h2: silence", vec![Hold], keys, "response.timeout"),
        ("h2: settings and silence", then(begin(vec![]), Hold), keys, "response.timeout"),
        ("h2: closed at once", vec![HearBytes(24)], keys, "response.closed"),
        ("h2: closed after settings", begin(vec![]), keys, "response.closed"),
        (
            "h2: HTTP/1.1 spoken",
            vec![HearBytes(24), Say(head("content-length: 0").into())],
            keys,
            "response.malformed",
        ),
        ("h2: noise", vec![HearBytes(24), Say(vec![0xff; 4096])], keys, "response.malformed"),
        (
            "h2: reset by RST_STREAM",
            then(begin(frame(3, 0, 1, &[0, 0, 0, 2])), Hold),
            keys,
            "response.reset",
        ),
        (
            "h2: goodbye before an answer",
            then(begin(frame(7, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0])), Hold),
            keys,
            "response.closed",
        ),
        ("h2: head and silence", then(begin(ok(4)), Hold), keys, "response.timeout"),
        (
            "h2: closed in the body",
            begin([ok(4), frame(0, 0, 1, b"half")].concat()),
            keys,
            "response.truncated",
        ),
        (
            "h2: reset in the body",
            then(
                begin([ok(4), frame(0, 0, 1, b"half"), frame(3, 0, 1, &[0, 0, 0, 2])].concat()),
                Hold,
            ),
            keys,
            "response.reset",
        ),
        (
            "h2: data on a stream that is not",
            then(begin(frame(0, 0, 9, b"what")), Hold),
            keys,
            "response.malformed",
        ),
        ("h2: TCP reset", vec![HearBytes(24), Reset], keys, "response.reset"),
        (
            "h2: 201 fields",
            then(begin(frame(1, 5, 1, &fields(201))), Hold),
            keys,
            "response.too_large",
        ),
        (
            "h2: an endless head",
            then(begin(frame(1, 0, 1, &[0x88])), Endless(endless)),
            keys,
            "response.too_large",
        ),
        (
            "h2: a head above the bound",
            then(begin(frame(1, 5, 1, &fields(12_000))), Hold),
            keys,
            "response.too_large",
        ),
        (
            "h2: 17 interim answers",
            then(begin(frame(1, 4, 1, &[0x08, 3, b'1', b'0', b'3']).repeat(17)), Hold),
            keys,
            "response.too_large",
        ),
        ("h2: an answer without a body", then(begin(ok(5)), Hold), keys, "pass"),
        (
            "h2: an answer with a body",
            then(begin([ok(4), frame(0, 1, 1, b"body")].concat()), Hold),
            keys,
            "pass",
        ),
    ]
}

async fn check((name, acts, keys, expected): Row) {
    let server = Server::start(vec![acts]).await;
    let http = http(&format!("url = 'http://{}/x'\n{keys}", server.address)).unwrap();
    let limit = if expected.ends_with(".timeout") { 250 } else { 20_000 };
    let (seen, reading) = attempt(&http, Duration::from_millis(limit)).await;
    assert_eq!(seen, expected, "{name}: {:?}", reading.evidence.more);
    let [request] = reading.requests.as_slice() else { panic!("{name}: one request") };
    assert_eq!(
        request.error_type.map_or("pass", ErrorType::as_str),
        if expected.ends_with(".timeout") { "pass" } else { expected }
    );
    assert_eq!(reading.timeline.open().is_some(), expected.ends_with(".timeout"), "{name}");
    assert!(reading.body.is_none_or(|body| body.len() <= 1 << 20), "{name}");
}

async fn check_all(rows: Vec<Row>) {
    join_all(rows.into_iter().map(check)).await;
}

#[tokio::test]
async fn a_silent_or_slow_target_is_called_by_where_it_stopped() {
    check_all(silent_and_slow()).await;
}

#[tokio::test]
async fn a_target_that_goes_away_is_called_by_how_far_it_came() {
    check_all(cut_off()).await;
}

#[tokio::test]
async fn a_target_that_says_too_much_is_cut_at_the_bound() {
    check_all(too_large()).await;
}

#[tokio::test]
async fn a_target_that_breaks_the_rules_is_malformed() {
    check_all(malformed()).await;
}

#[tokio::test]
async fn a_target_that_is_odd_but_right_passes() {
    check_all(odd_but_right()).await;
}

#[tokio::test]
async fn the_same_holds_for_http_two() {
    check_all(as_http_two()).await;
}

/// A body that no socket's buffers hold.
fn large_body() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("body");
    std::fs::write(&path, vec![b'x'; 16 << 20]).unwrap();
    let keys = format!("method = 'POST'\nbody_file = '{}'", path.display());
    (folder, keys)
}

#[tokio::test]
async fn a_target_that_does_not_read_times_out_in_send() {
    let server = Server::start(vec![vec![Hear, Stall]]).await;
    let (_folder, body) = large_body();
    let http = http(&format!("url = 'http://{}/x'\n{body}", server.address)).unwrap();
    let (seen, reading) = attempt(&http, Duration::from_millis(300)).await;
    assert_eq!(seen, "send.timeout");
    assert_eq!(reading.timeline.open(), Some(Phase::Send));
}

#[tokio::test]
async fn a_target_that_breaks_off_the_request_resets_the_sending() {
    let (_folder, body) = large_body();
    let (seen, _) = ask(vec![HearBytes(10), Reset], &body).await;
    assert_eq!(seen, "send.reset");
}

#[tokio::test]
async fn an_answer_before_the_request_is_out_counts() {
    let (_folder, body) = large_body();
    let refuse = "HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno";
    let (seen, reading) = ask(say(refuse), &body).await;
    assert_eq!(seen, "pass");
    assert_eq!(fact(&reading, "status"), &Fact::Integer(413));
}

#[tokio::test]
async fn settings_alone_are_no_answer_that_tls_could_cut_short() {
    let authority = Authority::new("of the test");
    let mut config = authority.issue(&["localhost"]).server();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let server = serve(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let mut stream = acceptor.accept(stream).await.unwrap();
            stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            // Without TLS's goodbye.
            let (mut stream, _) = stream.into_inner();
            stream.shutdown().await.unwrap();
            while stream.read(&mut [0; 1024]).await.is_ok_and(|bytes| bytes > 0) {}
        }
    })
    .await;
    let port = server.address.port();
    let keys = format!("url = 'https://localhost:{port}/'\ntls.ca = '''{}'''", authority.pem);
    let (seen, _) = attempt(&http(&keys).unwrap(), Duration::from_secs(20)).await;
    assert_eq!(seen, "response.closed");
}
