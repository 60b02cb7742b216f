//! What is asked for, and what is kept of an answer.

use super::server::say;
use super::*;
use crate::dial::testing::closed_port;
use crate::failure::{Blame, Failure};
use crate::phase::Timed;

const BROTLI_HELLO: &[u8] = &[0x0b, 0x02, 0x80, b'h', b'e', b'l', b'l', b'o', 0x03];

async fn heard(keys: &str) -> String {
    let server = Server::start(vec![say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")]).await;
    let http = http(&format!("url = 'http://{}/a%20b?c=d#e'\n{keys}", server.address)).unwrap();
    let (seen, reading) = attempt(&http, Duration::from_secs(20)).await;
    assert_eq!(seen, "pass", "{:?}", reading.evidence);
    server.heard().remove(0)
}

#[tokio::test]
async fn a_request_says_who_asks_and_carries_the_trace() {
    let head = heard("").await;
    let trace = scope().ids.trace_hex();
    assert!(head.starts_with("get /a%20b?c=d http/1.1\r\nhost: 127.0.0.1:"), "{head}");
    assert!(head.contains("user-agent: picket/0.1.0 (probe=orders)\r\n"), "{head}");
    assert!(head.contains("accept: */*\r\n"), "{head}");
    assert!(head.contains("accept-encoding: gzip, br, zstd\r\n"), "{head}");
    assert!(head.contains(&format!("traceparent: 00-{trace}-")), "{head}");
    assert!(head.contains("-01\r\ntracestate: picket="), "{head}");
    let (epoch, rest) = trace.split_at(8);
    assert!(head.contains(&format!("x-amzn-trace-id: root=1-{epoch}-{rest};parent=")), "{head}");
    assert!(!head.contains("content-length"), "{head}");
}

#[tokio::test]
async fn what_the_user_writes_goes_before_what_picket_would_say() {
    let head = heard("headers = { User-Agent = 'me', traceparent = '00-1', accept = 'a/b', host = 'h' }\ncompression = false").await;
    for field in ["user-agent: me\r\n", "traceparent: 00-1\r\n", "accept: a/b\r\n", "host: h\r\n"] {
        assert!(head.contains(field), "{head}");
    }
    for name in ["accept-encoding", "tracestate", "picket"] {
        assert!(!head.contains(name), "{head}");
    }
}

#[tokio::test]
async fn a_body_brings_its_method_type_and_length() {
    let json =
        heard("json = { sku = 'a', n = 1, when = 2026-01-02 }\nquery = { page = 2, q = 'x y' }")
            .await;
    assert!(json.starts_with("post /a%20b?c=d&page=2&q=x+y http/1.1"), "{json}");
    assert!(json.contains("content-type: application/json\r\n"), "{json}");
    assert!(json.contains("content-length: 37\r\n"), "{json}");
    let form = heard("form = { a = 'b c', d = 1 }\nmethod = 'PUT'").await;
    assert!(form.starts_with("put "), "{form}");
    assert!(form.contains("content-type: application/x-www-form-urlencoded\r\n"), "{form}");
    assert!(form.contains("content-length: 9\r\n"), "{form}");
    let auth = heard("auth = { basic = { user = 'u', password = 'p' } }").await;
    assert!(auth.contains("authorization: basic dtpw\r\n"), "{auth}");
}

#[tokio::test]
async fn an_answer_leaves_facts_and_phases_that_follow_one_another() {
    let answer = "HTTP/1.1 201 Created\r\nX-A: 1\r\nx-a: 2\r\ncontent-length: 5\r\n\r\nhello";
    let (seen, reading) = ask(say(answer), "").await;
    assert_eq!(seen, "pass");
    assert_eq!(fact(&reading, "status"), &Fact::Integer(201));
    assert_eq!(fact(&reading, "http.version"), &Fact::Text("1.1".to_owned()));
    assert_eq!(fact(&reading, "size"), &Fact::Integer(5));
    assert_eq!(fact(&reading, "redirects"), &Fact::Integer(0));
    assert_eq!(fact(&reading, "ip"), &Fact::Text("127.0.0.1".to_owned()));
    assert_eq!(reading.body.as_deref(), Some(&b"hello"[..]));
    let fields: Vec<_> = reading.headers.iter().filter(|(name, _)| name == "x-a").collect();
    assert_eq!(fields.len(), 2);
    let phases: Vec<_> = reading.timeline.past().iter().map(|timed| timed.phase).collect();
    assert_eq!(phases, [Phase::Connect, Phase::Send, Phase::Wait, Phase::Receive]);
    let end = |timed: &Timed| timed.start + timed.took;
    for pair in reading.timeline.past()[1..].windows(2) {
        assert_eq!(end(&pair[0]), pair[1].start);
    }
    let Fact::Number(latency) = fact(&reading, "latency") else { panic!("a number") };
    let whole = reading.timeline.past().iter().map(end).max().unwrap().as_secs_f64();
    assert!(*latency <= whole && *latency > 0.0);
    let [request] = reading.requests.as_slice() else { panic!("one request") };
    assert_eq!(request.name, "GET");
    assert_eq!(request.attributes["http.response.status_code"], Fact::Integer(201));
    assert_eq!(request.attributes["network.protocol.version"], Fact::Text("1.1".to_owned()));
}

#[tokio::test]
async fn each_coding_is_undone_and_the_head_stays_as_it_came() {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: 9\r\n\r\n";
    let (seen, reading) = ask(say([&answer[..], BROTLI_HELLO].concat()), "").await;
    assert_eq!((seen, reading.body.as_deref()), ("pass", Some(&b"hello"[..])));
    assert!(reading.headers.contains(&("content-encoding".to_owned(), "br".to_owned())));
}

#[tokio::test]
async fn a_body_that_is_cut_off_is_kept_as_far_as_it_came() {
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf";
    let server = Server::start(vec![vec![Act::Hear, Act::Say(half.into()), Act::Hold]]).await;
    let http = http(&format!("url = 'http://{}/'", server.address)).unwrap();
    let (seen, reading) = attempt(&http, Duration::from_millis(300)).await;
    assert_eq!((seen, reading.body.as_deref()), ("response.timeout", Some(&b"half"[..])));
    assert_eq!(reading.timeline.open(), Some(Phase::Receive));
}

#[tokio::test]
async fn evidence_has_both_heads_and_no_credential() {
    let answer =
        "HTTP/1.1 500 Oh No\r\nset-cookie: session=hunter2\r\nx-a: b\r\ncontent-length: 0\r\n\r\n";
    let keys = "auth = { bearer = 'hunter2' }\nheaders = { x-api-key = 'hunter2', x-b = 'c' }";
    let (seen, reading) = ask(say(answer), keys).await;
    assert_eq!(seen, "pass");
    let evidence = reading.into_evidence(&scope());
    let request = evidence.request.unwrap();
    assert!(request.starts_with("GET /x HTTP/1.1\nhost: "), "{request}");
    assert!(request.contains("authorization: ***\n") && request.contains("x-b: c\n"), "{request}");
    let response = evidence.response.unwrap();
    assert!(response.starts_with("HTTP/1.1 500 Oh No\nset-cookie: ***\n"), "{response}");
    assert!(!request.contains("hunter2") && !response.contains("hunter2"));
}

#[tokio::test]
async fn a_secret_in_a_url_shows_in_no_record() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "h&nter 2\"").unwrap();
    let server = Server::start(vec![say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")]).await;
    let secret = format!("${{secret:{}}}", path.display());
    let keys = format!("url = 'http://{}/{secret}'\nquery = {{ t = '{secret}' }}", server.address);
    let (seen, reading) = attempt(&http(&keys).unwrap(), Duration::from_secs(20)).await;
    assert_eq!(seen, "pass");
    assert!(server.heard()[0].contains("h%26nter+2%22"), "{:?}", server.heard());
    let records = format!("{reading:?}");
    assert!(!records.contains("nter"), "{records}");
}

#[tokio::test]
async fn a_closed_port_fails_in_connect() {
    let address = crate::dial::testing::closed_port();
    let http = http(&format!("url = 'http://{address}/'")).unwrap();
    let (seen, reading) = attempt(&http, Duration::from_secs(20)).await;
    assert_eq!(seen, "connect.refused");
    let [timed] = reading.timeline.past() else { panic!("one phase: {:?}", reading.timeline) };
    assert_eq!((timed.phase, timed.error), (Phase::Connect, Some(ErrorType::ConnectRefused)));
    assert_eq!(reading.requests[0].error_type, Some(ErrorType::ConnectRefused));
}

#[tokio::test]
async fn connect_says_where_to_dial_and_the_host_stays_the_urls() {
    let server = Server::start(vec![say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")]).await;
    let keys = format!("url = 'http://orders.invalid/x'\nconnect = '{}'", server.address);
    let (seen, _) = attempt(&http(&keys).unwrap(), Duration::from_secs(20)).await;
    assert_eq!(seen, "pass");
    assert!(server.heard()[0].contains("host: orders.invalid\r\n"), "{:?}", server.heard());
}

#[tokio::test]
async fn a_proxy_is_asked_for_the_whole_address() {
    let server = Server::start(vec![say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")]).await;
    let keys =
        format!("url = 'http://orders.invalid/x?y'\nproxy = 'http://u:p@{}'", server.address);
    let (seen, reading) = attempt(&http(&keys).unwrap(), Duration::from_secs(20)).await;
    assert_eq!(seen, "pass");
    let head = &server.heard()[0];
    assert!(head.starts_with("get http://orders.invalid/x?y http/1.1\r\n"), "{head}");
    assert!(head.contains("proxy-authorization: basic dtpw\r\n"), "{head}");
    assert!(reading.into_evidence(&scope()).request.unwrap().contains("proxy-authorization: ***"));
}

#[test]
fn a_refusal_is_laid_at_the_right_door() {
    for (status, keys, error_type, blame) in [
        (429, "", ErrorType::Throttled, Blame::Quota),
        (403, "auth = { bearer = 'hunter2' }", ErrorType::ExpectStatus, Blame::Permission),
        (401, "", ErrorType::ExpectStatus, Blame::Target),
        (500, "auth = { bearer = 'hunter2' }", ErrorType::ExpectStatus, Blame::Target),
    ] {
        let mut reading = Reading::new("step/0".to_owned(), Instant::now());
        reading.fact("status", i64::from(status));
        let http = http(&format!("url = 'http://a/'\n{keys}")).unwrap();
        let broken = Failure::new(ErrorType::ExpectStatus, "status == 200");
        let laid = http.lay_blame(&reading, broken);
        assert_eq!((laid.error_type, laid.blame), (error_type, blame), "{status} {keys}");
    }
}

#[tokio::test]
async fn a_target_that_is_not_there_leaves_what_would_have_been_sent_and_where_to() {
    let address = closed_port();
    let http = http(&format!("url = 'http://{address}/x'\nheaders = {{ x-one = '1' }}")).unwrap();
    let (seen, reading) = attempt(&http, Duration::from_secs(20)).await;
    assert_eq!(seen, "connect.refused");
    let evidence = reading.into_evidence(&scope());
    assert_eq!(evidence.peer, Some(address.to_string()));
    let head = evidence.request.unwrap();
    assert!(head.starts_with("GET /x HTTP/1.1\n") && head.contains("x-one: 1\n"), "{head}");
}
