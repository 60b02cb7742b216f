//! TLS as a probe wants it: built once when the file is loaded.

use std::borrow::Cow;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::{fmt, io};

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    CertificateError, ClientConfig, Error, ProtocolVersion, SupportedProtocolVersion, version,
};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificate::{Certificate, day, weakness};
use super::fault::{failure_of_io, tls_error, tls_type};
use super::verify::{self, Trust, Witness};
use crate::failure::{ErrorType, Failure};
use crate::phase::Phase;
use crate::reading::Reading;
use crate::setting::Refused;

/// The keys of `tls = { … }`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The only authority to trust, instead of the system's: a path, or the PEM itself.
    pub ca: Option<Pem>,
    /// The client's certificate with its chain: a path, or the PEM itself. Goes with `key`.
    pub cert: Option<Pem>,
    /// The client's private key: a path, or the PEM itself. Goes with `cert`.
    pub key: Option<Pem>,
    /// The name to ask for (SNI) and to verify, instead of the URL's host.
    pub server_name: Option<String>,
    /// Whether to verify the certificate; default: true.
    pub verify: Option<bool>,
    /// The oldest version to speak: "1.2" (the default) or "1.3".
    pub min_version: Option<MinVersion>,
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl TlsSettings {
    fn trust(&self, folder: &Path) -> Result<Trust, Refused> {
        if self.verify == Some(false) {
            return Ok(Trust::Anything);
        }
        let trust = match &self.ca {
            Some(pem) => Trust::own(pem.certificates("tls.ca", folder)?),
            None => Trust::system(),
        };
        trust.map_err(|why| Refused::new("tls.ca", format!("no authority to trust: {why}")))
    }

    /// The client's certificate and key; a file may hold both.
    fn identity(&self, folder: &Path) -> Result<Option<Identity>, Refused> {
        let Some(cert) = &self.cert else {
            return match &self.key {
                Some(_) => {
                    Err(Refused::new("tls.key", "a key goes with a certificate: add `cert`"))
                }
                None => Ok(None),
            };
        };
        let chain = cert.certificates("tls.cert", folder)?;
        let key = match &self.key {
            Some(key) => key.private_key("tls.key", folder)?,
            None => cert.private_key("tls.cert", folder).map_err(|refused| {
                let message = format!("{}; give the key with `key`", refused.message);
                Refused { message, ..refused }
            })?,
        };
        Ok(Some((chain, key)))
    }

    fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        static NEWEST: &[&SupportedProtocolVersion] = &[&version::TLS13];
        match self.min_version.unwrap_or_default() {
            MinVersion::Tls12 => rustls::ALL_VERSIONS,
            MinVersion::Tls13 => NEWEST,
        }
    }
}

/// The oldest version to speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum MinVersion {
    /// TLS 1.2.
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    Tls13,
}

/// A path to a PEM file, or the PEM itself, which never prints.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Pem(String);

impl JsonSchema for Pem {
    fn schema_name() -> Cow<'static, str> {
        "Pem".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "description": "A path to a PEM file, or the PEM itself." })
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_inline() { f.write_str("***") } else { fmt::Debug::fmt(&self.0, f) }
    }
}

impl Pem {
    fn is_inline(&self) -> bool {
        self.0.contains("-----BEGIN")
    }

    /// The PEM itself; a message names the path, and never quotes what was read.
    fn read(&self, key: &str, folder: &Path) -> Result<Vec<u8>, Refused> {
        if self.is_inline() {
            return Ok(self.0.as_bytes().to_vec());
        }
        let path = folder.join(&self.0);
        std::fs::read(&path)
            .map_err(|error| Refused::new(key, format!("cannot read {}: {error}", path.display())))
    }

    fn certificates(
        &self,
        key: &str,
        folder: &Path,
    ) -> Result<Vec<CertificateDer<'static>>, Refused> {
        let pem = self.read(key, folder)?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        match certificates {
            Ok(certificates) if !certificates.is_empty() => Ok(certificates),
            Ok(_) => Err(self.refused(key, "no certificate in PEM (BEGIN CERTIFICATE)")),
            Err(error) => Err(self.refused(key, &format!("no readable PEM: {error}"))),
        }
    }

    fn private_key(&self, key: &str, folder: &Path) -> Result<PrivateKeyDer<'static>, Refused> {
        let pem = self.read(key, folder)?;
        PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
            self.refused(key, "no private key in PEM that is not encrypted (BEGIN PRIVATE KEY)")
        })
    }

    fn refused(&self, key: &str, what: &str) -> Refused {
        let place = if self.is_inline() { "the PEM" } else { self.0.as_str() };
        Refused::new(key, format!("{place} has {what}"))
    }
}

/// TLS, ready to be used.
#[derive(Debug)]
pub struct Tls {
    config: ClientConfig,
    trust: Trust,
    /// The name to ask for and to verify, when the settings say one.
    name: Option<ServerName<'static>>,
    /// What was read last: a certificate is the same in nearly every run, and is then not read again.
    last: Mutex<Option<Arc<Certificate>>>,
}

impl Tls {
    /// Reads the files and builds the configuration, once, when the probe file is loaded. `alpn` are the protocols to
    /// offer, best first; `host` is the URL's where it is known by then, else empty; relative paths start from `folder`.
    pub fn build(
        settings: &TlsSettings,
        alpn: &[&str],
        host: &str,
        folder: &Path,
    ) -> Result<Arc<Self>, Refused> {
        let trust = settings.trust(folder)?;
        let name = settings.server_name.as_deref().map(|name| server_name(name, "server_name"));
        let name = name.transpose()?;
        if name.is_none() && !host.is_empty() {
            server_name(host, "")?;
        }
        let builder = ClientConfig::builder_with_provider(verify::provider())
            .with_protocol_versions(settings.versions())
            .map_err(|error| Refused::new("tls", error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Witness::new(trust.clone())));
        let mut config = match settings.identity(folder)? {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| {
                Refused::new(
                    "tls.key",
                    format!("the key does not go with the certificate: {error}"),
                )
            })?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        // A resumed session skips what the phase is there to measure, and the certificate with it.
        config.resumption = Resumption::disabled();
        Ok(Arc::new(Self { config, trust, name, last: Mutex::new(None) }))
    }

    /// Shakes hands as the host. What was shown is noted in `reading`, whether it is trusted or not.
    pub(super) async fn handshake(
        &self,
        host: &str,
        stream: TcpStream,
        reading: &mut Reading,
    ) -> Result<TlsStream<TcpStream>, Failure> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => server_name(host, "")
                .map_err(|refused| Failure::new(ErrorType::ConfigInvalid, refused.message))?,
        };
        let wanted = name.to_str().into_owned();
        let witness = Arc::new(Witness::new(self.trust.clone()));
        // A clone shares all that was costly to build.
        let mut config = self.config.clone();
        config.dangerous().set_certificate_verifier(Arc::<Witness>::clone(&witness));
        let done = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        let certificate = witness.chain().first().and_then(|leaf| self.certificate(leaf));
        if let Some(certificate) = &certificate {
            certificate.note(reading);
        }
        let stream = done.map_err(|error| {
            let shown = Shown { wanted: &wanted, chain: witness.chain(), leaf: certificate };
            shown.failure(&error)
        })?;
        note_session(&stream, reading);
        Ok(stream)
    }

    fn certificate(&self, der: &[u8]) -> Option<Arc<Certificate>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(certificate) = &*last
            && certificate.is(der)
        {
            return Some(Arc::clone(certificate));
        }
        let certificate = Arc::new(Certificate::read(der)?);
        *last = Some(Arc::clone(&certificate));
        Some(certificate)
    }
}

fn server_name(name: &str, key: &str) -> Result<ServerName<'static>, Refused> {
    // A name with a dot at its end is the same name, but TLS knows it only without.
    let plain = name.strip_suffix('.').unwrap_or(name);
    let key = if key.is_empty() { "tls".to_owned() } else { format!("tls.{key}") };
    ServerName::try_from(plain.to_owned()).map_err(|_| {
        Refused::new(
            &key,
            format!("{name:?} is no name for TLS: write a host name or an IP address"),
        )
    })
}

fn note_session(stream: &TlsStream<TcpStream>, reading: &mut Reading) {
    let (_, session) = stream.get_ref();
    let version = match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "1.2",
        Some(ProtocolVersion::TLSv1_3) => "1.3",
        _ => return,
    };
    reading.fact("tls.version", version);
    if let Some(suite) = session.negotiated_cipher_suite() {
        // IANA's name: the library marks the suites of TLS 1.3.
        let name = suite.suite().as_str().unwrap_or("unknown").replacen("TLS13_", "TLS_", 1);
        reading.fact("tls.cipher", name);
    }
}

/// What a handshake that broke had come to.
struct Shown<'a> {
    wanted: &'a str,
    chain: &'a [CertificateDer<'static>],
    leaf: Option<Arc<Certificate>>,
}

impl Shown<'_> {
    fn failure(&self, error: &io::Error) -> Failure {
        let Some(tls) = tls_error(error) else { return self.broken(error) };
        let error_type = tls_type(tls);
        if matches!(error_type, ErrorType::TlsUntrusted | ErrorType::TlsWeak) {
            return self.distrusted(tls);
        }
        let message = match (tls, &self.leaf) {
            (Error::InvalidCertificate(reason), Some(leaf)) => self.refusal(reason, leaf),
            _ => format!("{}: {}", self.wanted, reason(tls)),
        };
        Failure::new(error_type, message)
    }

    fn broken(&self, error: &io::Error) -> Failure {
        let failure = failure_of_io(error, Phase::Tls, 0);
        if failure.error_type != ErrorType::TlsClosed {
            return failure;
        }
        let message =
            format!("{} closed the connection during the handshake: {error}", self.wanted);
        Failure { message, ..failure }
    }

    /// A signature that does not verify may only be one too weak to be looked at: the chain tells.
    fn distrusted(&self, tls: &Error) -> Failure {
        let judged = matches!(
            tls,
            Error::InvalidCertificate(
                CertificateError::BadSignature
                    | CertificateError::UnsupportedSignatureAlgorithmContext { .. }
                    | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. }
            )
        );
        let weak = self.chain.iter().filter(|_| judged).find_map(|der| weakness(der));
        if let Some(weak) = weak {
            return Failure::new(ErrorType::TlsWeak, weak);
        }
        let self_signed = self.leaf.as_ref().is_some_and(|leaf| leaf.self_signed());
        let why = if self_signed { "it is self-signed".to_owned() } else { reason(tls) };
        let message = format!("{} is not to be trusted: {why}", self.described());
        Failure::new(ErrorType::TlsUntrusted, message)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the library's list is open")]
    fn refusal(&self, reason: &CertificateError, leaf: &Certificate) -> String {
        let described = leaf.described();
        match reason {
            CertificateError::ExpiredContext { not_after, .. }
                if not_after.as_secs() != leaf.not_after() =>
            {
                let last = day(not_after.as_secs());
                format!("{described} leans on one of its chain that expired on {last}")
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                let last = day(leaf.not_after());
                format!("{described} expired on {last}")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                format!("{described} is not valid before {}", leaf.first_day())
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("{described} is for {}, not for {}", leaf.names_shown(), self.wanted)
            }
            other => format!("{described}: {other}"),
        }
    }

    fn described(&self) -> String {
        match &self.leaf {
            Some(leaf) => leaf.described(),
            None => format!("what {} shows as its certificate", self.wanted),
        }
    }
}

/// A TLS error in plain words, where the library's own are not plain.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library's list is open")]
fn reason(error: &Error) -> String {
    match error {
        Error::InvalidMessage(_) => format!("what came is not TLS ({error})"),
        Error::AlertReceived(alert) => format!("the server broke off with the alert {alert:?}"),
        Error::PeerIncompatible(why) => format!("no version or cipher in common ({why:?})"),
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "no trusted authority issued it, or an intermediate is missing".to_owned()
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, date_time_ymd};
    use rustls::ServerConfig;
    use rustls::server::WebPkiClientVerifier;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;

    use super::*;
    use crate::dial::testing::{
        Authority, Identity, Served, reading, serve, serve_bytes, serve_tls,
    };
    use crate::dial::{Connection, Dial, dial};
    use crate::outcome::Fact;

    const HOST: &str = "api.test";
    const ROOT: &str = include_str!("../../tests/fixtures/weak/root.pem");
    const KEY: &str = include_str!("../../tests/fixtures/weak/key.pem");
    const SHORT_KEY: &str = include_str!("../../tests/fixtures/weak/short_key.pem");
    const SHA1: &str = include_str!("../../tests/fixtures/weak/sha1.pem");

    fn trusting(pem: &str) -> TlsSettings {
        TlsSettings { ca: Some(Pem(pem.to_owned())), ..TlsSettings::default() }
    }

    fn to(server: &Served, host: &str, settings: &TlsSettings) -> Dial {
        Dial {
            host: host.to_owned(),
            port: 443,
            connect: Some(("127.0.0.1".to_owned(), server.address.port())),
            tls: Some(Tls::build(settings, &["http/1.1"], host, Path::new("/")).unwrap()),
            ..Dial::default()
        }
    }

    async fn try_on(
        server: &Served,
        host: &str,
        settings: &TlsSettings,
    ) -> (Result<Connection, Failure>, Reading) {
        let mut reading = reading();
        let made = dial(&to(server, host, settings), &mut reading).await;
        (made, reading)
    }

    async fn refusal(
        server: ServerConfig,
        host: &str,
        settings: &TlsSettings,
    ) -> (Failure, Reading) {
        let server = serve_tls(server).await;
        let (made, reading) = try_on(&server, host, settings).await;
        (made.unwrap_err(), reading)
    }

    #[tokio::test]
    async fn a_trusted_server_is_spoken_to_and_described() {
        let authority = Authority::new("trusted");
        let mut config = authority.issue(&[HOST, "127.0.0.1"]).server();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let server = serve_tls(config).await;
        for host in [HOST, "127.0.0.1"] {
            let (made, reading) = try_on(&server, host, &trusting(&authority.pem)).await;
            let mut connection = made.unwrap();
            let stamps = connection.stamps();
            connection.stream.write_all(b"hello").await.unwrap();
            let mut echo = [0; 5];
            connection.stream.read_exact(&mut echo).await.unwrap();
            assert_eq!((&echo, stamps.written(), stamps.read()), (b"hello", 5, 5));
            assert_eq!(connection.alpn.as_deref(), Some(b"http/1.1".as_slice()));
            assert_eq!(connection.peer, server.address);

            let phases: Vec<_> = reading.timeline.past().iter().map(|timed| timed.phase).collect();
            assert_eq!(phases, [Phase::Connect, Phase::Tls]);
            let text = |name: &str| reading.facts[name].clone();
            assert_eq!(text("tls.version"), Fact::from("1.3"));
            assert_eq!(text("tls.cipher"), Fact::from("TLS_AES_256_GCM_SHA384"));
            assert_eq!(text("cert.issuer"), Fact::from("CN=trusted"));
            assert_eq!(text("ip"), Fact::from("127.0.0.1"));
            let Fact::List(names) = text("cert.names") else { panic!("a list") };
            assert_eq!(names, [Fact::from(HOST), Fact::from("127.0.0.1")]);
            assert!(matches!(text("cert.expires_in"), Fact::Number(left) if left > 0.0));
            assert!(reading.evidence.certificate.is_some());
        }
    }

    #[tokio::test]
    async fn each_lie_of_a_certificate_has_its_name_and_leaves_evidence() {
        type Lie = fn(&mut CertificateParams);
        let expired: Lie = |params| params.not_after = date_time_ymd(2020, 5, 17);
        let early: Lie = |params| params.not_before = date_time_ymd(2090, 1, 2);
        let purpose: Lie =
            |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let authority = Authority::new("of lies");
        for (lie, error_type, quoted) in [
            (expired, ErrorType::TlsExpired, "expired on 2020-05-17"),
            (early, ErrorType::TlsNotYetValid, "2090-01-02"),
            (purpose, ErrorType::TlsUntrusted, "CN=of lies"),
        ] {
            let server = authority.issue_with(&[HOST], lie).server();
            let (failure, reading) = refusal(server, HOST, &trusting(&authority.pem)).await;
            assert_eq!(failure.error_type, error_type, "{}", failure.message);
            assert!(failure.message.contains(quoted), "{}", failure.message);
            assert!(reading.evidence.certificate.is_some() && reading.evidence.peer.is_some());
            assert_eq!(reading.timeline.past().last().unwrap().error, Some(error_type));
        }
    }

    #[tokio::test]
    async fn a_certificate_for_other_names_names_them() {
        let authority = Authority::new("of others");
        let server = authority.issue(&["a.test", "b.test"]).server();
        let (failure, reading) = refusal(server, HOST, &trusting(&authority.pem)).await;
        assert_eq!(failure.error_type, ErrorType::TlsHostname);
        assert!(failure.message.contains("is for a.test, b.test, not for api.test"));
        assert!(reading.facts.contains_key("cert.names"));
        // Asked for under a name that it has, it is fine.
        let settings =
            TlsSettings { server_name: Some("b.test".to_owned()), ..trusting(&authority.pem) };
        let server = serve_tls(authority.issue(&["b.test"]).server()).await;
        assert!(try_on(&server, HOST, &settings).await.0.is_ok());
    }

    #[tokio::test]
    async fn an_unknown_authority_is_not_trusted_unless_nothing_is_verified() {
        let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
        let (failure, _) =
            refusal(theirs.issue(&[HOST]).server(), HOST, &trusting(&ours.pem)).await;
        assert_eq!(failure.error_type, ErrorType::TlsUntrusted, "{}", failure.message);
        let (failure, _) =
            refusal(theirs.issue(&[HOST]).server(), HOST, &TlsSettings::default()).await;
        assert_eq!(failure.error_type, ErrorType::TlsUntrusted, "{}", failure.message);

        let anything = TlsSettings { verify: Some(false), ..TlsSettings::default() };
        let expired =
            theirs.issue_with(&["x.test"], |params| params.not_after = date_time_ymd(2020, 1, 1));
        let server = serve_tls(expired.server()).await;
        let (made, reading) = try_on(&server, HOST, &anything).await;
        assert!(made.is_ok());
        assert!(matches!(reading.facts["cert.expires_in"], Fact::Number(left) if left < 0.0));
    }

    #[tokio::test]
    async fn a_self_signed_certificate_is_trusted_when_it_is_named() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([HOST.to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        let identity = Identity::from_pem(&pem, &key.serialize_pem());
        let server = serve_tls(identity.server()).await;
        assert!(try_on(&server, HOST, &trusting(&pem)).await.0.is_ok());
        let (other, _) = try_on(&server, "other.test", &trusting(&pem)).await;
        assert_eq!(other.unwrap_err().error_type, ErrorType::TlsHostname);
    }

    #[tokio::test]
    async fn a_short_key_and_an_old_signature_are_weak() {
        for (chain, quoted) in [(SHORT_KEY, "1024 bits"), (SHA1, "SHA-1")] {
            let server = Identity::from_pem(chain, KEY).server();
            let (failure, reading) = refusal(server, "weak.test", &trusting(ROOT)).await;
            assert_eq!(failure.error_type, ErrorType::TlsWeak, "{}", failure.message);
            assert!(failure.message.contains(quoted), "{}", failure.message);
            assert!(reading.evidence.certificate.is_some());
        }
    }

    #[tokio::test]
    async fn what_is_no_tls_is_a_protocol_fault_and_an_end_is_closed() {
        let plain = serve_bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let alert = serve_bytes(&[21, 3, 3, 0, 2, 2, 40]).await;
        let revoked = serve_bytes(&[21, 3, 3, 0, 2, 2, 44]).await;
        let closed = serve_bytes(b"").await;
        let reset = serve(|stream| async move { drop(stream) }).await;
        for (server, error_type) in [
            (plain, ErrorType::TlsProtocol),
            (alert, ErrorType::TlsProtocol),
            (revoked, ErrorType::TlsRevoked),
            (closed, ErrorType::TlsClosed),
            (reset, ErrorType::TlsClosed),
        ] {
            let (made, reading) = try_on(&server, HOST, &TlsSettings::default()).await;
            let failure = made.unwrap_err();
            assert_eq!(failure.error_type, error_type, "{}", failure.message);
            assert!(failure.message.contains(HOST), "{}", failure.message);
            assert_eq!(reading.timeline.past().last().unwrap().phase, Phase::Tls);
        }
    }

    #[tokio::test]
    async fn a_version_that_is_too_old_is_a_protocol_fault() {
        let authority = Authority::new("of old");
        let identity = authority.issue(&[HOST]);
        let old = ServerConfig::builder_with_provider(verify::provider())
            .with_protocol_versions(&[&version::TLS12])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(identity.chain, identity.key)
            .unwrap();
        let server = serve_tls(old).await;
        let (made, reading) = try_on(&server, HOST, &trusting(&authority.pem)).await;
        assert!(made.is_ok());
        assert_eq!(reading.facts["tls.version"], Fact::from("1.2"));
        let settings =
            TlsSettings { min_version: Some(MinVersion::Tls13), ..trusting(&authority.pem) };
        let (made, _) = try_on(&server, HOST, &settings).await;
        assert_eq!(made.unwrap_err().error_type, ErrorType::TlsProtocol);
    }

    #[tokio::test]
    async fn a_handshake_that_stalls_leaves_the_phase_open_for_the_callers_limit() {
        let greeted = Arc::new(Notify::new());
        let heard = Arc::clone(&greeted);
        let server = serve(move |mut stream| {
            let heard = Arc::clone(&heard);
            async move {
                stream.read_u8().await.unwrap();
                heard.notify_one();
                std::future::pending::<()>().await;
            }
        })
        .await;
        let mut reading = reading();
        let dialled = to(&server, HOST, &TlsSettings::default());
        tokio::select! {
            _ = dial(&dialled, &mut reading) => panic!("nobody answered"),
            () = greeted.notified() => {}
        }
        assert_eq!(reading.timeline.open(), Some(Phase::Tls));
    }

    #[tokio::test]
    async fn a_client_certificate_is_shown_to_who_asks() {
        let authority = Authority::new("of clients");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
        let provider = verify::provider();
        let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
        let identity = authority.issue(&[HOST]);
        let config = ServerConfig::builder_with_provider(verify::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(identity.chain, identity.key)
            .unwrap();
        let server = serve_tls(config).await;
        let cert = Some(Pem(authority.issue(&["client.test"]).pem));
        let settings = TlsSettings { cert, ..trusting(&authority.pem) };
        let mut connection = try_on(&server, HOST, &settings).await.0.unwrap();
        connection.stream.write_all(b"x").await.unwrap();
        assert_eq!(connection.stream.read_u8().await.unwrap(), b'x');
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_its_key_and_never_printed() {
        let read = |text: &str| toml::from_str::<TlsSettings>(text);
        let build = |settings: &TlsSettings| Tls::build(settings, &[], HOST, Path::new("/nowhere"));
        for (text, key) in [
            ("ca = 'missing.pem'", "tls.ca"),
            ("ca = '-----BEGIN NOTHING'", "tls.ca"),
            ("cert = 'missing.pem'\nkey = 'missing.key'", "tls.cert"),
            ("key = 'alone.key'", "tls.key"),
            ("server_name = 'not a name'", "tls.server_name"),
        ] {
            assert_eq!(build(&read(text).unwrap()).unwrap_err().key, key);
        }
        assert!(read("min_version = '1.1'").is_err() && read("cipher = 'x'").is_err());
        let settings = read("key = '-----BEGIN PRIVATE KEY-----secret'").unwrap();
        assert!(!format!("{settings:?}").contains("secret"));
        assert!(!build(&settings).unwrap_err().message.contains("secret"));
    }
}
