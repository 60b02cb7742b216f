//! Redirects over real sockets: where they lead, and what goes along.

use super::server::say;
use super::*;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn redirect(status: u16, fields: &str) -> Vec<Act> {
    say(format!("HTTP/1.1 {status} Moved\r\n{fields}\r\ncontent-length: 99\r\n\r\n"))
}

async fn walk(scripts: Vec<Vec<Act>>, keys: &str) -> (&'static str, Reading, Vec<String>) {
    let server = Server::start(scripts).await;
    let http = http(&format!("url = 'http://{}/x'\n{keys}", server.address)).unwrap();
    let (seen, reading) = attempt(&http, Duration::from_secs(20)).await;
    (seen, reading, server.heard())
}

#[tokio::test]
async fn a_redirect_is_a_request_of_its_own_with_phases_of_its_own() {
    let scripts = vec![redirect(302, "location: /y?z"), say(OK)];
    let (seen, reading, heard) = walk(scripts, "body = 'b'").await;
    assert_eq!(seen, "pass");
    assert!(heard[0].starts_with("post /x "), "{heard:?}");
    assert!(heard[1].starts_with("get /y?z "), "{heard:?}");
    assert_eq!(fact(&reading, "redirects"), &Fact::Integer(1));
    assert_eq!(fact(&reading, "status"), &Fact::Integer(200));
    let Fact::Text(url) = fact(&reading, "url") else { panic!("text") };
    assert!(url.ends_with("/y?z"));
    let hops: Vec<_> = reading.timeline.past().iter().map(|timed| timed.hop).collect();
    assert_eq!(hops, [0, 0, 0, 0, 1, 1, 1, 1]);
    let [first, second] = reading.requests.as_slice() else { panic!("two requests") };
    assert_ne!(first.span_id, second.span_id);
    assert_eq!(second.attributes["http.request.resend_count"], Fact::Integer(1));
}

#[tokio::test]
async fn mazes_loops_and_forbidden_ways_end() {
    for (location, keys, expected) in [
        ("/x", "", "redirect.loop"),
        ("//127.0.0.1:1/y", "follow = 1", "connect.refused"),
        ("http://169.254.169.254/latest/meta-data", "", "redirect.forbidden"),
        ("http://[::ffff:169.254.169.254]/", "", "redirect.forbidden"),
        ("javascript:alert(1)", "", "redirect.forbidden"),
        ("http://", "", "response.malformed"),
    ] {
        let (seen, ..) = walk(vec![redirect(301, &format!("location: {location}"))], keys).await;
        assert_eq!(seen, expected, "{location}");
    }
    let maze = (0..9).map(|turn| redirect(307, &format!("location: /{turn}"))).collect();
    let (seen, reading, heard) = walk(maze, "follow = 3").await;
    assert_eq!((seen, heard.len()), ("redirect.limit", 4));
    assert_eq!(fact(&reading, "redirects"), &Fact::Integer(3));
    assert_eq!(reading.timeline.open(), None);
}

#[tokio::test]
async fn a_redirect_that_is_not_followed_is_the_answer() {
    let (seen, reading, _) = walk(
        vec![say("HTTP/1.1 302 Found\r\nlocation: /y\r\ncontent-length: 0\r\n\r\n")],
        "follow = 0",
    )
    .await;
    assert_eq!(seen, "pass");
    assert_eq!(fact(&reading, "status"), &Fact::Integer(302));
}

#[tokio::test]
async fn credentials_stay_with_their_origin_and_cookies_with_their_host() {
    let elsewhere = Server::start(vec![say(OK)]).await;
    let port = elsewhere.address.port();
    let keys = "auth = { bearer = 'hunter2' }\nheaders = { x-api-key = 'k', cookie = 'own=1', x-plain = 'p', host = 'h' }";
    let there = redirect(307, &format!("location: http://localhost:{port}/y"));
    let (seen, reading, _) =
        walk(vec![redirect(302, "set-cookie: session=s\r\nlocation: /again"), there], keys).await;
    assert_eq!(seen, "pass", "{:?}", reading.evidence);
    let head = &elsewhere.heard()[0];
    for secret in ["authorization", "x-api-key", "cookie", "session", "host: h\r"] {
        assert!(!head.contains(secret), "{secret}: {head}");
    }
    assert!(head.contains("x-plain: p\r\n") && head.contains("traceparent: "), "{head}");
}

#[tokio::test]
async fn cookies_and_credentials_go_along_within_the_origin() {
    let home = redirect(302, "set-cookie: a=1\r\nset-cookie: b=2; path=/other\r\nlocation: /x");
    let (seen, _, heard) =
        walk(vec![home, say(OK)], "auth = { bearer = 'hunter2' }\nheaders = { cookie = 'own=1' }")
            .await;
    // The same address with another cookie is no loop.
    assert_eq!(seen, "pass");
    assert!(heard[1].contains("cookie: own=1; a=1\r\n"), "{}", heard[1]);
    assert!(heard[1].contains("authorization: bearer hunter2\r\n"), "{}", heard[1]);
}

#[tokio::test]
async fn connect_is_for_the_first_origin_alone() {
    let elsewhere = Server::start(vec![say(OK)]).await;
    let location = format!("location: http://{}/y", elsewhere.address);
    let first = Server::start(vec![redirect(302, &location)]).await;
    let keys = format!("url = 'http://orders.invalid/x'\nconnect = '{}'", first.address);
    let (seen, _) = attempt(&http(&keys).unwrap(), Duration::from_secs(20)).await;
    assert_eq!((seen, elsewhere.heard().len()), ("pass", 1));
}
