//! A connection that is kept between runs.

use std::time::Duration;

use super::server::{Act, Server, say};
use super::{attempt, fact, http};
use crate::phase::Phase;

const LIMIT: Duration = Duration::from_secs(20);
const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn a_kept_connection_takes_the_next_request_without_a_dial() {
    let twice = [say(GOOD), say(GOOD), vec![Act::Hold]].concat();
    let server =
        Server::start(vec![twice, say("HTTP/1.1 500 Another\r\ncontent-length: 0\r\n\r\n")]).await;
    let http = http(&format!("url = 'http://{}/x'\nreuse = true", server.address)).unwrap();
    let (first, seen) = attempt(&http, LIMIT).await;
    assert_eq!(first, "pass");
    assert!(seen.timeline.spent(Phase::Connect).is_some());
    let (second, seen) = attempt(&http, LIMIT).await;
    assert_eq!((second, fact(&seen, "status")), ("pass", &200_i64.into()));
    assert_eq!(fact(&seen, "ip"), &"127.0.0.1".into());
    assert_eq!(seen.timeline.spent(Phase::Connect), None, "no phase that did not happen");
    assert!(seen.timeline.spent(Phase::Wait).is_some());
}

#[tokio::test]
async fn a_connection_that_the_target_closed_is_dialled_anew() {
    for last in [
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\n\r\nok",
    ] {
        let server = Server::start(vec![say(last)]).await;
        let http = http(&format!("url = 'http://{}/x'\nreuse = true", server.address)).unwrap();
        for _ in 0..2 {
            let (came, seen) = attempt(&http, LIMIT).await;
            assert_eq!(came, "pass", "{last:?}");
            assert!(seen.timeline.spent(Phase::Connect).is_some(), "{last:?}");
        }
    }
}

#[tokio::test]
async fn without_reuse_every_run_dials() {
    let twice = [say(GOOD), vec![Act::Hold]].concat();
    let server = Server::start(vec![twice]).await;
    let http = http(&format!("url = 'http://{}/x'", server.address)).unwrap();
    for _ in 0..2 {
        let (came, seen) = attempt(&http, LIMIT).await;
        assert_eq!(came, "pass");
        assert!(seen.timeline.spent(Phase::Connect).is_some());
    }
}
