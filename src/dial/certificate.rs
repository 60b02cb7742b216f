//! What a certificate says.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
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
    /// Seconds since 1970: some certificates outlive what a `Timestamp` can hold.
    not_before: u64,
    not_after: u64,
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
            not_before: seconds(validity.not_before),
            not_after: seconds(validity.not_after),
            fingerprint: hex(&Sha256::digest(der)),
        })
    }

    /// Whether it is this one, byte for byte.
    pub(super) fn is(&self, der: &[u8]) -> bool {
        self.der == der
    }

    /// Notes what it says as facts and as evidence.
    pub(super) fn note(&self, reading: &mut Reading) {
        reading.fact("cert.expires_in", self.expires_in(clock::now()));
        reading.fact("cert.not_after", i64::try_from(self.not_after).unwrap_or(i64::MAX));
        reading.fact("cert.issuer", self.issuer.as_str());
        reading.fact("cert.subject", self.subject.as_str());
        reading.fact("cert.names", self.names.clone());
        reading.evidence.certificate = Some(BTreeMap::from([
            ("subject".to_owned(), Fact::Text(self.subject.clone())),
            ("issuer".to_owned(), Fact::Text(self.issuer.clone())),
            ("names".to_owned(), Fact::from(self.names.clone())),
            ("not_before".to_owned(), Fact::Text(moment(self.not_before))),
            ("not_after".to_owned(), Fact::Text(moment(self.not_after))),
            ("sha256".to_owned(), Fact::Text(self.fingerprint.clone())),
        ]));
    }

    /// The seconds that are left, negative when it has expired.
    fn expires_in(&self, now: Timestamp) -> f64 {
        let now = now.secs();
        let left = Duration::from_secs(self.not_after.saturating_sub(now));
        let gone = Duration::from_secs(now.saturating_sub(self.not_after));
        left.as_secs_f64() - gone.as_secs_f64()
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
        self.not_after
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

fn seconds(time: ASN1Time) -> u64 {
    u64::try_from(time.timestamp()).unwrap_or(0)
}

fn moment(seconds: u64) -> String {
    let moment = i64::try_from(seconds).ok().map(OffsetDateTime::from_unix_timestamp);
    let text = moment.and_then(|moment| moment.ok()?.format(&Rfc3339).ok());
    text.unwrap_or_else(|| "beyond the year 9999".to_owned())
}

/// The day of a moment in seconds since 1970, as a message says it.
pub(super) fn day(seconds: u64) -> String {
    let text = moment(seconds);
    text.split('T').next().unwrap_or(&text).to_owned()
}

/// A certificate's text is the target's: it may not break a line.
fn clean(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dial::testing::Authority;

    fn certificate(names: &[&str]) -> Certificate {
        let identity = Authority::new("of names\nand lines").issue(names);
        Certificate::read(&identity.chain[0]).unwrap()
    }

    #[test]
    fn a_long_list_of_names_is_cut_short_in_messages_alone() {
        let names: Vec<_> = (0..9).map(|index| format!("{index}.test")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let certificate = certificate(&names);
        assert_eq!(certificate.names, names);
        let shown = "0.test, 1.test, 2.test, 3.test, 4.test and 4 more";
        assert_eq!(certificate.names_shown(), shown);
    }

    #[test]
    fn what_a_certificate_says_stays_on_one_line() {
        let certificate = certificate(&[]);
        assert_eq!(certificate.issuer, "CN=of names?and lines");
        assert!(certificate.names_shown().contains("no name"));
    }

    #[test]
    fn the_time_that_is_left_goes_below_zero() {
        let certificate = certificate(&["a.test"]);
        let ends = Certificate { not_after: 10_000, ..certificate };
        assert!((ends.expires_in(Timestamp::from_secs(6_400)) - 3600.0).abs() < 1e-6);
        assert!((ends.expires_in(Timestamp::from_secs(13_600)) + 3600.0).abs() < 1e-6);
        assert_eq!(day(253_402_300_799), "9999-12-31");
    }

    proptest::proptest! {
        #[test]
        fn no_certificate_is_too_strange_to_be_read(at in 0_usize..400, byte: u8) {
            static DER: std::sync::LazyLock<Vec<u8>> =
                std::sync::LazyLock::new(|| Authority::new("x").issue(&["a.test"]).chain[0].to_vec());
            let mut bent = DER.clone();
            if let Some(place) = bent.get_mut(at) {
                *place = byte;
            }
            assert_eq!(weakness(&bent), None);
            if let Some(certificate) = Certificate::read(&bent) {
                assert!(!certificate.described().contains('\n'));
            }
        }
    }
}
