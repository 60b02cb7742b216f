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

use super::certificate::{Certificate, weakness};
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
        let error_type = match tls_type(tls) {
            ErrorType::TlsUntrusted | ErrorType::TlsWeak => return self.distrusted(tls),
            other => other,
        };
        Failure::new(error_type, self.message(error_type, tls))
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
        match weak {
            Some(weak) => Failure::new(ErrorType::TlsWeak, weak),
            None => Failure::new(
                ErrorType::TlsUntrusted,
                format!("{} is not to be trusted: {}", self.described(), reason(tls)),
            ),
        }
    }

    fn message(&self, error_type: ErrorType, tls: &Error) -> String {
        let described = self.described();
        match (error_type, &self.leaf) {
            (ErrorType::TlsExpired, Some(leaf)) => {
                // Another one of the chain may be the one that has expired.
                format!(
                    "{described} or its chain has expired: its own last day is {}",
                    leaf.last_day()
                )
            }
            (ErrorType::TlsNotYetValid, Some(leaf)) => {
                format!("{described} is not valid yet: its first day is {}", leaf.first_day())
            }
            (ErrorType::TlsHostname, Some(leaf)) => {
                format!("{described} is for {}, not for {}", leaf.names_shown(), self.wanted)
            }
            (ErrorType::TlsRevoked, _) => {
                format!("{}: a certificate was revoked: {tls}", self.wanted)
            }
            _ => format!("{}: {}", self.wanted, reason(tls)),
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
