//! What a broken connection is called.

use std::io;

use rustix::io::Errno;
use rustls::{AlertDescription, CertificateError, Error};

use crate::failure::{ErrorType, Failure};
use crate::phase::Phase;

/// The failure that an input or output error is. `bytes_read` tells an answer that never came from one cut short.
pub fn failure_of_io(error: &io::Error, phase: Phase, bytes_read: u64) -> Failure {
    if let Some(tls) = tls_error(error) {
        return Failure::new(tls_type(tls), format!("{phase}: {tls}"));
    }
    let error_type = match Errno::from_io_error(error) {
        Some(Errno::MFILE | Errno::NFILE) => ErrorType::AgentNoFiles,
        Some(Errno::CONNREFUSED) => ErrorType::ConnectRefused,
        Some(Errno::TIMEDOUT) => phase.timeout(),
        _ => broken(error.kind(), phase, bytes_read),
    };
    Failure::new(error_type, format!("{phase}: {error}"))
}

fn broken(kind: io::ErrorKind, phase: Phase, bytes_read: u64) -> ErrorType {
    match (phase, kind) {
        (_, io::ErrorKind::TimedOut) => phase.timeout(),
        (Phase::Tls, io::ErrorKind::InvalidData) => ErrorType::TlsProtocol,
        (_, io::ErrorKind::InvalidData) => ErrorType::ResponseMalformed,
        (Phase::Dns, _) => ErrorType::DnsTimeout,
        (Phase::Connect | Phase::Proxy, _) => ErrorType::ConnectReset,
        (Phase::Tls, _) => ErrorType::TlsClosed,
        (Phase::Send, _) => ErrorType::SendReset,
        (_, io::ErrorKind::UnexpectedEof) if bytes_read == 0 => ErrorType::ResponseClosed,
        (_, io::ErrorKind::UnexpectedEof) => ErrorType::ResponseTruncated,
        (Phase::Auth | Phase::Wait | Phase::Receive | Phase::Deliver, _) => {
            ErrorType::ResponseReset
        }
    }
}

/// The TLS error inside an input or output error.
pub(super) fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// What a TLS error is called.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library's list is open")]
pub(super) fn tls_type(error: &Error) -> ErrorType {
    match error {
        Error::InvalidCertificate(reason) => certificate_type(reason),
        Error::AlertReceived(AlertDescription::CertificateRevoked) => ErrorType::TlsRevoked,
        Error::AlertReceived(AlertDescription::CloseNotify) => ErrorType::TlsClosed,
        // Among them: alerts, no version or cipher in common, and what is not TLS.
        _ => ErrorType::TlsProtocol,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library's list is open")]
fn certificate_type(reason: &CertificateError) -> ErrorType {
    match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            ErrorType::TlsExpired
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            ErrorType::TlsNotYetValid
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            ErrorType::TlsHostname
        }
        CertificateError::Revoked => ErrorType::TlsRevoked,
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            ErrorType::TlsWeak
        }
        _ => ErrorType::TlsUntrusted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(error: &io::Error, phase: Phase, bytes_read: u64) -> &'static str {
        failure_of_io(error, phase, bytes_read).error_type.as_str()
    }

    #[test]
    fn a_broken_connection_is_named_after_the_phase_it_broke_in() {
        let reset = || io::Error::from(io::ErrorKind::ConnectionReset);
        let eof = || io::Error::from(io::ErrorKind::UnexpectedEof);
        assert_eq!(named(&reset(), Phase::Send, 0), "send.reset");
        assert_eq!(named(&reset(), Phase::Wait, 0), "response.reset");
        assert_eq!(named(&reset(), Phase::Tls, 0), "tls.closed");
        assert_eq!(named(&eof(), Phase::Wait, 0), "response.closed");
        assert_eq!(named(&eof(), Phase::Receive, 7), "response.truncated");
        let files = io::Error::from_raw_os_error(Errno::MFILE.raw_os_error());
        assert_eq!(named(&files, Phase::Connect, 0), "agent.no_files");
        let timed_out = io::Error::from_raw_os_error(Errno::TIMEDOUT.raw_os_error());
        assert_eq!(named(&timed_out, Phase::Wait, 0), "response.timeout");
    }

    #[test]
    fn a_tls_error_is_found_inside_an_input_error() {
        let wrap = |error: Error| io::Error::new(io::ErrorKind::InvalidData, error);
        let alert = wrap(Error::AlertReceived(AlertDescription::CertificateRevoked));
        assert_eq!(named(&alert, Phase::Wait, 0), "tls.revoked");
        let revoked = wrap(CertificateError::Revoked.into());
        assert_eq!(named(&revoked, Phase::Tls, 0), "tls.revoked");
        let alert = wrap(Error::AlertReceived(AlertDescription::HandshakeFailure));
        assert_eq!(named(&alert, Phase::Tls, 0), "tls.protocol");
    }
}
