//! What a certificate says.

use std::collections::BTreeMap;
use std::net::IpAddr;

use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;

use crate::clock::{self, Timestamp};
use crate::outcome::{Fact, hex};
use crate::reading::Reading;

/// How many names a message lists.
const NAMES_SHOWN: usize = 5;
/// The least length of an RSA key that is still trusted.
const MIN_RSA_BITS: usize = 2048;
/// Signatures by hashes that are broken.
const OLD_SIGNATURES: &[(&str, &str)] = &[
    ("1.2.840.113549.1.1.2", "RSA and MD2"),
    ("1.2.840.113549.1.1.4", "RSA and MD5"),
    ("1.2.840.113549.1.1.5", "RSA and SHA-1"),
    ("1.3.14.3.2.29", "RSA and SHA-1"),
    ("1.2.840.10040.4.3", "DSA and SHA-1"),
    ("1.2.840.10045.4.1", "ECDSA and SHA-1"),
];

/// What a certificate says, as records show it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Certificate {
    der: Vec<u8>,
    subject: String,
    issuer: String,
    names: Vec<String>,
    not_before: Timestamp,
    not_after: Timestamp,
    fingerprint: String,
}

impl Certificate {
    /// Reads a certificate's DER; none when it is no certificate.
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let validity = certificate.validity();
        Some(Self {
            der: der.to_vec(),
            subject: clean(&certificate.subject().to_string()),
            issuer: clean(&certificate.issuer().to_string()),
            names: names_of(&certificate),
            not_before: moment(validity.not_before),
            not_after: moment(validity.not_after),
            fingerprint: hex(&Sha256::digest(der)),
        })
    }

    /// Whether it is this one, byte for byte.
    pub(super) fn is(&self, der: &[u8]) -> bool {
        self.der == der
    }

    /// Notes what it says as facts and as evidence.
    pub(super) fn note(&self, reading: &mut Reading) {
        let not_after = i64::try_from(self.not_after.secs()).unwrap_or(i64::MAX);
        reading.fact("cert.expires_in", self.expires_in(clock::now()));
        reading.fact("cert.not_after", not_after);
        reading.fact("cert.issuer", self.issuer.as_str());
        reading.fact("cert.subject", self.subject.as_str());
        reading.fact("cert.names", self.names.clone());
        reading.evidence.certificate = Some(BTreeMap::from([
            ("subject".to_owned(), Fact::Text(self.subject.clone())),
            ("issuer".to_owned(), Fact::Text(self.issuer.clone())),
            ("names".to_owned(), Fact::from(self.names.clone())),
            ("not_before".to_owned(), Fact::Text(self.not_before.to_string())),
            ("not_after".to_owned(), Fact::Text(self.not_after.to_string())),
            ("sha256".to_owned(), Fact::Text(self.fingerprint.clone())),
        ]));
    }

    /// The seconds that are left, negative when it has expired.
    fn expires_in(&self, now: Timestamp) -> f64 {
        if self.not_after >= now {
            self.not_after.since(now).as_secs_f64()
        } else {
            -now.since(self.not_after).as_secs_f64()
        }
    }

    /// Who it is for, as a message says it: `the certificate of CN=example.com (issued by CN=Some CA)`.
    pub(super) fn described(&self) -> String {
        let subject = if self.subject.is_empty() { "no subject" } else { &self.subject };
        format!("the certificate of {subject} (issued by {})", self.issuer)
    }

    /// Whether it was issued by itself.
    pub(super) fn self_signed(&self) -> bool {
        self.subject == self.issuer
    }

    /// The last second in which it is valid, since 1970.
    pub(super) fn not_after(&self) -> u64 {
        self.not_after.secs()
    }

    /// The day on which it becomes valid.
    pub(super) fn first_day(&self) -> String {
        day(self.not_before)
    }

    /// The names that it is valid for, as a message lists them.
    pub(super) fn names_shown(&self) -> String {
        if self.names.is_empty() {
            return "no name at all (the common name does not count)".to_owned();
        }
        let shown = self.names.iter().take(NAMES_SHOWN).map(String::as_str).collect::<Vec<_>>();
        match self.names.len().saturating_sub(shown.len()) {
            0 => shown.join(", "),
            more => format!("{} and {more} more", shown.join(", ")),
        }
    }
}

/// Why the key or the signature of a certificate is too weak, if it is.
pub(super) fn weakness(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = clean(&certificate.subject().to_string());
    if let Ok(PublicKey::RSA(key)) = certificate.public_key().parsed()
        && key.key_size() < MIN_RSA_BITS
    {
        return Some(format!("the RSA key of {subject} has only {} bits", key.key_size()));
    }
    // Nobody relies on what a certificate says of itself.
    if certificate.subject() == certificate.issuer() {
        return None;
    }
    let signature = certificate.signature_algorithm.algorithm.to_id_string();
    let (_, hash) = OLD_SIGNATURES.iter().find(|(old, _)| *old == signature)?;
    Some(format!("the certificate of {subject} is signed with {hash}"))
}

fn names_of(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    extension.value.general_names.iter().filter_map(name_of).collect()
}

/// Host names and addresses: a client looks at no other.
fn name_of(name: &GeneralName<'_>) -> Option<String> {
    if let GeneralName::DNSName(name) = name {
        return Some(clean(name));
    }
    let GeneralName::IPAddress(bytes) = name else { return None };
    let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
    let address = four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
    address.ok().map(|address| address.to_string())
}

fn moment(time: ASN1Time) -> Timestamp {
    Timestamp::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}

/// The day of a moment, as a message says it.
pub(super) fn day(moment: Timestamp) -> String {
    let text = moment.to_string();
    text.get(..10).unwrap_or(&text).to_owned()
}

/// A certificate's text is the target's: it may not break a line.
fn clean(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}
