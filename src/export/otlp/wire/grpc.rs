//! OTLP over gRPC: one unary call a batch, its message encoded already.

use std::error::Error;
use std::fmt;
use std::sync::OnceLock;

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{MetadataKey, MetadataValue};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};

use super::{Way, chain, details, later, tls};
use crate::export::Refusal;
use crate::export::otlp::Signal;

/// A client for one service.
pub(super) struct Call {
    endpoint: Endpoint,
    path: PathAndQuery,
    // Made with the first batch: a channel wants a runtime, and settings are checked without one.
    channel: OnceLock<Channel>,
}

impl Call {
    pub(super) fn ready(way: &Way, signal: Signal) -> Result<Self, String> {
        let mut endpoint = Endpoint::from_shared(way.url.clone())
            .and_then(|endpoint| endpoint.user_agent(concat!("picket/", env!("CARGO_PKG_VERSION"))))
            .map_err(|error| chain(&error))?
            .connect_timeout(way.timeout);
        if way.url.starts_with("https:") {
            let mut config = ClientTlsConfig::new().trust_anchors(tls::roots(way)?.roots);
            if let Some((cert, key)) = way.files.cert.as_deref().zip(way.files.key.as_deref()) {
                let read = |path: &std::path::Path| {
                    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
                };
                config = config.identity(Identity::from_pem(read(cert)?, read(key)?));
            }
            endpoint = endpoint.tls_config(config).map_err(|error| chain(&error))?;
        }
        let path = PathAndQuery::from_static(signal.method());
        Ok(Self { endpoint, path, channel: OnceLock::new() })
    }

    pub(super) async fn send(
        &self,
        way: &Way,
        headers: Vec<(String, String)>,
        message: Bytes,
    ) -> Result<Bytes, Refusal> {
        let channel = self.channel.get_or_init(|| self.endpoint.connect_lazy());
        let mut client = Grpc::new(channel.clone());
        if way.gzip {
            client = client.send_compressed(CompressionEncoding::Gzip);
        }
        client = client.accept_compressed(CompressionEncoding::Gzip);
        let mut request = Request::new(message);
        for (name, value) in headers {
            let (Ok(key), Ok(value)) = (
                MetadataKey::from_bytes(name.to_ascii_lowercase().as_bytes()),
                MetadataValue::try_from(value),
            ) else {
                return Err(later(format!(
                    "the header {name} has a value that no header can have"
                )));
            };
            request.metadata_mut().insert(key, value);
        }
        // Over the whole: tonic's own limit begins once there is a connection.
        let answer = timeout(way.timeout, async {
            client.ready().await.map_err(|error| later(chain(&error)))?;
            let answer = client.unary(request, self.path.clone(), Encoded).await;
            answer.map_err(|status| refusal(&status))
        });
        let answer = answer.await.map_err(|_| later("no answer in time"))?;
        answer.map(tonic::Response::into_inner)
    }
}

/// What a code means for the batch, as the OTLP specification has it; and, as over HTTP, credentials may be renewed.
fn refusal(status: &Status) -> Refusal {
    let code = status.code();
    let said = match status.source() {
        Some(source) => chain(source),
        None => status.message().to_owned(),
    };
    let reason = format!("{code:?}: {said}");
    let after = details::retry_delay(status.details());
    match code {
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::Cancelled
        | Code::OutOfRange
        | Code::DataLoss
        | Code::Unauthenticated
        | Code::PermissionDenied => Refusal::Later { reason, after },
        Code::ResourceExhausted if too_large(&said) => Refusal::TooLarge { reason },
        Code::ResourceExhausted if after.is_some() => Refusal::Later { reason, after },
        // A status that has a source was made here, of a connection that broke: the other side has not judged.
        Code::Unknown | Code::Internal if status.source().is_some() => {
            Refusal::Later { reason, after }
        }
        Code::Ok
        | Code::Unknown
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Unimplemented
        | Code::Internal => Refusal::Never { reason },
    }
}

fn too_large(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["larger than max", "too large", "message length"].iter().any(|sign| message.contains(sign))
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Call").field(&self.path.as_str()).finish()
    }
}

/// Messages that are encoded already.
#[derive(Clone, Copy)]
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = from.remaining();
        Ok(Some(from.copy_to_bytes(length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_consequence() {
        let of = |code, message: &str| refusal(&Status::new(code, message));
        for code in [Code::Unavailable, Code::DeadlineExceeded, Code::Aborted, Code::DataLoss] {
            assert!(matches!(of(code, ""), Refusal::Later { .. }), "{code:?}");
        }
        for code in [Code::InvalidArgument, Code::Unimplemented, Code::ResourceExhausted] {
            assert!(matches!(of(code, ""), Refusal::Never { .. }), "{code:?}");
        }
        let large = of(Code::ResourceExhausted, "grpc: received message larger than max (5 vs 4)");
        assert!(matches!(large, Refusal::TooLarge { .. }));
    }
}
