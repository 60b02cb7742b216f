//! The status page and the API: over real sockets, and as a real browser shows them.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use picket::board::Board;
use picket::status;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

#[path = "page/fake.rs"]
mod fake;

use fake::{Fake, busy, calm, crowd};

/// A status server on a free port; it ends with the test.
struct Server {
    port: u16,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(fake: Fake) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, stopped) = oneshot::channel();
        let board: Arc<dyn Board> = Arc::new(fake);
        let task = tokio::spawn(status::serve(listener, board, async move {
            drop(stopped.await);
        }));
        Self { port, stop, task }
    }

    async fn stop(self) {
        drop(self.stop);
        self.task.await.unwrap();
    }

    /// Sends the text and reads until the server closes.
    async fn exchange(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    async fn get(&self, path: &str) -> (u16, String, String) {
        parts(&self.exchange(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await)
    }

    fn address(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

/// Status, head in lower case, body.
fn parts(answer: &str) -> (u16, String, String) {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a whole head");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

#[tokio::test]
async fn every_answer_forbids_scripts_frames_and_caching() {
    let server = Server::start(busy()).await;
    for path in ["/", "/metrics", "/healthz", "/readyz", "/api/outcomes", "/api/plan", "/nothing"] {
        let (_, head, _) = server.get(path).await;
        for guard in [
            "content-security-policy: default-src 'none'; style-src 'sha256-",
            "x-content-type-options: nosniff",
            "x-frame-options: deny",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
        ] {
            assert!(head.contains(guard), "{path} lacks {guard}:\n{head}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn only_looking_is_allowed() {
    let server = Server::start(busy()).await;
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"] {
        let request = format!("{method} / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
        let (status, head, body) = parts(&server.exchange(&request).await);
        assert_eq!(status, 405, "{method}");
        assert!(head.contains("allow: get, head"), "{head}");
        assert!(serde_json::from_str::<Value>(&body).unwrap()["error"].is_string());
    }
    let (status, head, body) = parts(&server.exchange("HEAD / HTTP/1.1\r\nhost: x\r\n\r\n").await);
    assert_eq!((status, body.as_str()), (200, ""));
    assert!(head.contains("content-length: "), "{head}");
    server.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_said_in_json() {
    let server = Server::start(calm()).await;
    let (status, head, body) = server.get("/favicon.ico").await;
    assert_eq!(status, 404);
    assert!(head.contains("content-type: application/json"));
    assert!(serde_json::from_str::<Value>(&body).unwrap()["error"].is_string());
    server.stop().await;
}

#[tokio::test]
async fn health_is_of_the_process_and_readiness_of_the_schedule() {
    let server = Server::start(Fake { ready: Err("draining".into()), ..calm() }).await;
    assert_eq!(server.get("/healthz").await.0, 200);
    let (status, _, body) = server.get("/readyz").await;
    assert_eq!((status, body.as_str()), (503, "draining\n"));
    server.stop().await;
    let server = Server::start(calm()).await;
    assert_eq!(server.get("/readyz").await.0, 200);
    server.stop().await;
}

#[tokio::test]
async fn metrics_come_in_the_type_that_the_agent_says() {
    let server = Server::start(calm()).await;
    let request =
        "GET /metrics HTTP/1.1\r\nhost: x\r\naccept: application/openmetrics-text\r\n\r\n";
    let (status, head, body) = parts(&server.exchange(request).await);
    assert_eq!(status, 200);
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(body.ends_with("# EOF\n"));
    server.stop().await;
}

#[tokio::test]
async fn outcomes_are_an_array_of_records_and_a_wrong_query_is_refused() {
    let server = Server::start(busy()).await;
    let (status, _, body) = server.get("/api/outcomes?probe=checkout&limit=3&failed=1").await;
    assert_eq!(status, 200);
    let outcomes: Vec<Value> = serde_json::from_str(&body).unwrap();
    assert_eq!(outcomes.len(), 3);
    assert!(outcomes.iter().all(|outcome| outcome["verdict"] == "fail"), "{body}");
    assert!(outcomes[0]["due"].as_str() > outcomes[1]["due"].as_str(), "newest first");
    let (status, _, body) = server.get("/api/outcomes?limit=1001").await;
    assert_eq!(status, 400);
    assert!(body.contains("from 1 to 1000"), "{body}");
    let (_, _, body) = server.get("/api/plan").await;
    assert!(serde_json::from_str::<Value>(&body).unwrap().is_array());
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_says_nothing_holds_up_no_other() {
    let server = Server::start(calm()).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
        stream.write_all(b"GET / HT").await.unwrap();
        silent.push(stream);
    }
    assert_eq!(server.get("/healthz").await.0, 200);
    drop(silent);
    server.stop().await;
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let server = Server::start(calm()).await;
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
    let line = format!("x-filler: {}\r\n", "y".repeat(1000));
    let head = format!("GET / HTTP/1.1\r\n{}", line.repeat(40));
    // The server may close before it has all.
    drop(stream.write_all(head.as_bytes()).await);
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer).await);
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.contains("431"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn a_thousand_probes_fit_on_one_page_of_bounded_size() {
    let server = Server::start(crowd(1500)).await;
    let (status, _, body) = server.get("/").await;
    assert_eq!(status, 200);
    assert!(body.len() < 4 * 1024 * 1024, "{} bytes", body.len());
    assert!(body.contains("500 more probes are counted above"));
    assert_eq!(body.matches("<article ").count(), 1000);
    server.stop().await;
}

#[tokio::test]
async fn a_browser_shows_the_reason_the_blame_and_the_evidence_as_text() {
    let server = Server::start(busy()).await;
    let dom = dump(&server.address("/")).await;
    for shown in [
        "2 of 8 probes fail",
        "status in 200..299  (was 503)",
        "expect.status",
        "blame: target",
        "connect.refused",
        "warning",
        "last failure:",
        "&lt;script&gt;document.title='stolen'&lt;/script&gt;",
        "p99",
        "team=orders",
        "config reload refused",
    ] {
        assert!(dom.contains(shown), "the page does not show {shown:?}:\n{dom}");
    }
    assert!(!dom.contains("<script"), "what a target wrote became markup");
    assert!(!dom.contains("<title>stolen"), "what a target wrote was run");
    let (failing, passing) = (dom.find(">Failing<").unwrap(), dom.find(">Passing<").unwrap());
    assert!(failing < passing, "failing probes come first");
    server.stop().await;
}

#[tokio::test]
async fn a_browser_draws_the_page_narrow_and_wide() {
    let server = Server::start(busy()).await;
    let folder = tempfile::tempdir().unwrap();
    // Kept where asked, so that a person can look at them.
    let keep = std::env::var_os("PICKET_SHOTS").map(std::path::PathBuf::from);
    let into = keep.as_deref().unwrap_or_else(|| folder.path());
    for (name, size) in [("narrow", "400,1400"), ("wide", "1400,1100")] {
        for theme in ["light", "dark"] {
            let shot = into.join(format!("{name}-{theme}.png"));
            draw(&server.address("/"), size, theme, &shot).await;
            let bytes = std::fs::read(&shot).expect("the browser left a picture");
            assert!(bytes.len() > 10_000, "{name} {theme} is empty");
            let wide = u32::from_be_bytes(bytes[16..20].try_into().unwrap());
            assert_eq!(wide.to_string(), size.split(',').next().unwrap());
        }
    }
    server.stop().await;
}

/// The page's tree as the browser has it.
async fn dump(address: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = browser(folder.path(), &["--dump-dom", address]).await;
    String::from_utf8_lossy(&output).into_owned()
}

async fn draw(address: &str, size: &str, theme: &str, shot: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let (size, shot) =
        (format!("--window-size={size}"), format!("--screenshot={}", shot.display()));
    let mut arguments = vec![size.as_str(), shot.as_str()];
    if theme == "dark" {
        arguments.extend(["--force-dark-mode", "--blink-settings=preferredColorScheme=0"]);
    } else {
        arguments.push("--blink-settings=preferredColorScheme=1");
    }
    arguments.push(address);
    browser(folder.path(), &arguments).await;
}

/// Runs the browser once, in a profile of its own.
async fn browser(profile: &Path, arguments: &[&str]) -> Vec<u8> {
    let running = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--disable-dev-shm-usage", "--hide-scrollbars"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(50), running)
        .await
        .expect("the browser ends by itself")
        .unwrap_or_else(|error| panic!("chromium cannot be started ({error}): install it with `apt-get install -y --no-install-recommends chromium fonts-dejavu-core`"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
