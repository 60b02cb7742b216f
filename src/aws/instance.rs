//! The region of the instance that picket runs on, as the instance metadata service (version 2) tells it.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::place::Region;

/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(1);
/// How long an answer may be.
const LONGEST: usize = 4096;
/// Where the service answers on every instance.
const ENDPOINT: &str = "http://169.254.169.254";

/// Where this picket stands: what the instance says, else what the environment says, else `local`.
pub async fn region() -> Region {
    let environment = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    let endpoint = environment("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    let disabled = environment("AWS_EC2_METADATA_DISABLED")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"));
    // Off EC2 the address leads nowhere, and waiting for that would hold up every start.
    let ask = !disabled && (endpoint.is_some() || on_an_instance(Path::new("/sys")));
    let told = if ask { told_by(endpoint.as_deref().unwrap_or(ENDPOINT)).await } else { None };
    let region = told
        .or_else(|| environment("AWS_REGION"))
        .or_else(|| environment("AWS_DEFAULT_REGION"))
        .unwrap_or_else(|| "local".to_owned());
    Region::from(region.as_str())
}

/// Whether the host's firmware says that it is an EC2 instance.
fn on_an_instance(kernel: &Path) -> bool {
    let says = |file: &str, word: &str| {
        std::fs::read_to_string(kernel.join(file))
            .is_ok_and(|text| text.to_lowercase().contains(word))
    };
    says("class/dmi/id/sys_vendor", "amazon ec2")
        || says("class/dmi/id/bios_version", "amazon")
        || says("hypervisor/uuid", "ec2")
}

async fn told_by(endpoint: &str) -> Option<String> {
    let endpoint: Uri = endpoint.trim_end_matches('/').parse().ok()?;
    timeout(LIMIT, ask(&endpoint)).await.ok().flatten()
}

async fn ask(endpoint: &Uri) -> Option<String> {
    let token = Request::builder()
        .method(Method::PUT)
        .uri("/latest/api/token")
        .header("x-aws-ec2-metadata-token-ttl-seconds", "60");
    let token = answer(endpoint, token).await?;
    let region = Request::builder()
        .uri("/latest/meta-data/placement/region")
        .header("x-aws-ec2-metadata-token", token);
    let region = answer(endpoint, region).await?;
    let fits = !region.is_empty()
        && region.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-');
    fits.then_some(region)
}

/// One request on a connection of its own.
async fn answer(endpoint: &Uri, request: http::request::Builder) -> Option<String> {
    let host = endpoint.host()?.trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, endpoint.port_u16().unwrap_or(80))).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    let authority = endpoint.authority()?.as_str();
    let request = request.header("host", authority).body(Empty::<Bytes>::new()).ok()?;
    let exchange = async {
        let response = sender.send_request(request).await.ok()?;
        if response.status() != StatusCode::OK {
            return None;
        }
        let body = Limited::new(response.into_body(), LONGEST).collect().await.ok()?;
        String::from_utf8(body.to_bytes().to_vec()).ok()
    };
    // The connection's own end says nothing that the answer does not.
    let (text, _) = tokio::join!(exchange, connection);
    text.map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn the_instance_tells_its_region_to_who_has_a_token() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/", listener.local_addr().unwrap());
        let service = tokio::spawn(async move {
            for (wanted, body) in [
                ("PUT /latest/api/token", "a-token"),
                ("x-aws-ec2-metadata-token: a-token", "eu-west-1"),
            ] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = vec![0; 1024];
                let read = stream.read(&mut head).await.unwrap();
                assert!(String::from_utf8_lossy(&head[..read]).contains(wanted));
                let head = format!(
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            }
        });
        assert_eq!(told_by(&endpoint).await.as_deref(), Some("eu-west-1"));
        service.await.unwrap();
    }

    #[tokio::test]
    async fn a_service_that_refuses_tells_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        assert_eq!(told_by(&endpoint).await, None);
    }

    #[test]
    fn the_firmware_says_whether_this_is_an_instance() {
        let sys = tempfile::tempdir().unwrap();
        assert!(!on_an_instance(sys.path()));
        std::fs::create_dir_all(sys.path().join("class/dmi/id")).unwrap();
        std::fs::write(sys.path().join("class/dmi/id/sys_vendor"), "Amazon EC2\n").unwrap();
        assert!(on_an_instance(sys.path()));
    }
}
