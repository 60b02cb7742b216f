//! Whom an exporter trusts, and what it shows.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::Way;

/// The TLS settings for a POST.
pub(super) fn config(way: &Way) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots(way)?);
    let Some((cert, key)) = way.files.cert.as_deref().zip(way.files.key.as_deref()) else {
        return Ok(builder.with_no_client_auth());
    };
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unread(key, &error))?;
    builder
        .with_client_auth_cert(certificates(cert)?, key)
        .map_err(|error| format!("{}: {error}", cert.display()))
}

/// Whom to trust: `ca` alone where it is given, else the host's roots, else those that are built in.
pub(super) fn roots(way: &Way) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    if !way.url.starts_with("https:") {
        return Ok(roots);
    }
    if let Some(path) = &way.files.ca {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        return Ok(roots);
    }
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_file_iter(path).map_err(|error| unread(path, &error))?;
    let found: Result<Vec<_>, _> = found.collect();
    let found = found.map_err(|error| unread(path, &error))?;
    if found.is_empty() {
        return Err(format!("{}: no certificate in PEM form", path.display()));
    }
    Ok(found)
}

fn unread(path: &Path, error: &dyn std::error::Error) -> String {
    format!("{}: {}", path.display(), super::chain(error))
}
