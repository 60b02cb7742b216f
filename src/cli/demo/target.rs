//! The demo's target: a small server that misbehaves on a script.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::script::{Act, SERVICES, Service};

/// The largest head that is read.
const HEAD: usize = 16 * 1024;
/// How long one request may keep the target busy: longer than the probes wait.
const LIMIT: Duration = Duration::from_secs(3);
/// How often a port that comes and goes looks at the script.
const GLANCE: Duration = Duration::from_millis(100);

/// Plays the script for all services of one listener until it is dropped.
pub(super) async fn target(listener: TcpListener, began: Instant) {
    let mut clients = JoinSet::new();
    loop {
        while clients.try_join_next().is_some() {}
        if let Ok((stream, _)) = listener.accept().await {
            clients.spawn(tokio::time::timeout(LIMIT, client(stream, began)));
        }
    }
}

/// Plays the script of a service that does not listen at all times.
pub(super) async fn comes_and_goes(
    service: &'static Service,
    address: SocketAddr,
    first: TcpListener,
    began: Instant,
) {
    let mut listener = Some(first);
    loop {
        listener = match (service.act(began.elapsed()), listener) {
            (Act::Refuse, _) => None,
            (_, Some(listener)) => Some(listener),
            // The port may be taken for a moment: the next glance tries again.
            (_, None) => TcpListener::bind(address).await.ok(),
        };
        match &listener {
            None => tokio::time::sleep(GLANCE).await,
            Some(listener) => {
                if let Ok(Ok((stream, _))) = tokio::time::timeout(GLANCE, listener.accept()).await {
                    // One client at a time is enough: every answer of such a service is quick.
                    drop(tokio::time::timeout(LIMIT, client(stream, began)).await);
                }
            }
        }
    }
}

/// One request and what the script says to it. A client that goes away is no error.
async fn client(mut stream: TcpStream, began: Instant) -> std::io::Result<()> {
    let path = path_of(&mut stream).await?;
    let service = SERVICES.iter().find(|service| path.strip_prefix('/') == Some(service.name));
    let act = service.map_or(Act::Answer(404, "{}"), |service| service.act(began.elapsed()));
    match act {
        Act::Answer(status, body) => stream.write_all(&answer(status, body, body.len())).await?,
        Act::Late(millis) => {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            let body = r#"{"status":"ok"}"#;
            stream.write_all(&answer(200, body, body.len())).await?;
        }
        Act::Cut => stream.write_all(&answer(200, r#"{"rows":[1,2,3"#, 4096)).await?,
        Act::Silent => tokio::time::sleep(LIMIT).await,
        Act::Refuse => return Ok(()),
    }
    stream.shutdown().await
}

/// The path of the request, once its head is whole.
async fn path_of(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD {
        if stream.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    let head = String::from_utf8_lossy(&head);
    Ok(head.split(' ').nth(1).unwrap_or_default().to_owned())
}

fn answer(status: u16, body: &str, promised: usize) -> Vec<u8> {
    let reason =
        http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    format!(
        "HTTP/1.1 {status} {}\r\ncontent-type: application/json\r\ncontent-length: {promised}\r\nconnection: close\r\n\r\n{body}",
        reason.unwrap_or_default()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn the_target_answers_as_the_script_says() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let began = Instant::now().checked_sub(Duration::from_secs(4)).unwrap();
        let task = tokio::spawn(target(listener, began));
        assert!(ask(address, "/storefront").await.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(ask(address, "/orders-api").await.starts_with("HTTP/1.1 503 Service Unavailable"));
        assert!(ask(address, "/nobody").await.starts_with("HTTP/1.1 404"));
        task.abort();
    }

    #[tokio::test]
    async fn a_service_that_refuses_does_not_listen() {
        let payments = SERVICES.iter().find(|service| service.refuses()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let began = Instant::now().checked_sub(Duration::from_secs(14)).unwrap();
        let task = tokio::spawn(comes_and_goes(payments, address, listener, began));
        tokio::task::yield_now().await;
        let refused = async {
            while TcpStream::connect(address).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(4), refused).await.expect("it stops listening");
        task.abort();
    }
}
