//! Whether a server's certificate is to be trusted, and what it was, trusted or not.

use std::sync::{Arc, LazyLock, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// The one provider of cryptography.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));
    Arc::clone(&PROVIDER)
}

/// What a probe trusts.
#[derive(Clone, Debug)]
pub(super) enum Trust {
    /// Chains to these roots.
    Roots(Arc<WebPkiServerVerifier>),
    /// Chains to the user's own authorities, and those certificates themselves: a server's self-signed certificate
    /// that the user names is trusted, though it is no authority or, as `openssl req -x509` makes it, is one.
    Own(Arc<WebPkiServerVerifier>, Arc<[CertificateDer<'static>]>),
    /// Anything: the user said so.
    Anything,
}

impl Trust {
    /// The host's roots, or Mozilla's where the host has none: read once, shared by all probes.
    pub(super) fn system() -> Result<Self, String> {
        static SYSTEM: LazyLock<Result<Arc<WebPkiServerVerifier>, String>> = LazyLock::new(|| {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            }
            verifier(roots)
        });
        SYSTEM.clone().map(Self::Roots)
    }

    /// These authorities and no other.
    pub(super) fn own(authorities: Vec<CertificateDer<'static>>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for authority in &authorities {
            roots.add(authority.clone()).map_err(|error| error.to_string())?;
        }
        Ok(Self::Own(verifier(roots)?, authorities.into()))
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self {
            Self::Own(_, own) if own.contains(leaf) => verify_named(leaf, name, now),
            Self::Roots(roots) | Self::Own(roots, _) => {
                roots.verify_server_cert(leaf, intermediates, name, &[], now)
            }
            Self::Anything => Ok(ServerCertVerified::assertion()),
        }
    }
}

fn verifier(roots: RootCertStore) -> Result<Arc<WebPkiServerVerifier>, String> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| error.to_string())
}

/// A certificate that the user named needs no issuer; its dates and its names count as ever.
fn verify_named(
    leaf: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<ServerCertVerified, Error> {
    let (_, parsed) =
        X509Certificate::from_der(leaf).map_err(|_| Error::from(CertificateError::BadEncoding))?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now > parsed.validity().not_after.timestamp() {
        return Err(CertificateError::Expired.into());
    }
    if now < parsed.validity().not_before.timestamp() {
        return Err(CertificateError::NotValidYet.into());
    }
    verify_server_name(&ParsedCertificate::try_from(leaf)?, name)?;
    Ok(ServerCertVerified::assertion())
}

/// Verifies one handshake and keeps the chain that was shown, so that it can be told also when it is refused.
#[derive(Debug)]
pub(super) struct Witness {
    trust: Trust,
    provider: Arc<CryptoProvider>,
    chain: OnceLock<Vec<CertificateDer<'static>>>,
}

impl Witness {
    /// One for one handshake.
    pub(super) fn new(trust: Trust) -> Self {
        Self { trust, provider: provider(), chain: OnceLock::new() }
    }

    /// The chain that was shown, the server's own certificate first; empty when it did not come to that.
    pub(super) fn chain(&self) -> &[CertificateDer<'static>] {
        self.chain.get().map_or(&[], Vec::as_slice)
    }

    fn trusts_anything(&self) -> bool {
        matches!(self.trust, Trust::Anything)
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.chain.get_or_init(|| {
            std::iter::once(leaf).chain(intermediates).map(|der| der.clone().into_owned()).collect()
        });
        self.trust.verify(leaf, intermediates, name, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if self.trusts_anything() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, leaf, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if self.trusts_anything() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, leaf, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
