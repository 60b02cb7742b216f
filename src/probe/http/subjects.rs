//! What expectations of an HTTP request can be about.

use crate::expect::{Shape, Subject, Type};
use crate::failure::ErrorType;

macro_rules! subjects {
    ($($name:literal $shape:ident $values:ident $error_type:ident $about:literal;)*) => {
        &[$(Subject {
            name: $name,
            shape: Shape::$shape,
            values: Type::$values,
            error_type: ErrorType::$error_type,
            about: $about,
        },)*]
    };
}

pub(super) const SUBJECTS: &[Subject] = subjects! {
    "status" Plain Number ExpectStatus "the status code";
    "latency" Plain Length ExpectLatency "from the start of the attempt to the last byte of the body";
    "phase" Phase Length ExpectPhase "the time of a phase: dns, connect, proxy, tls, send, wait, receive; over all redirects";
    "header" Header Texts ExpectHeader "the fields of that name";
    "body" Plain Text ExpectBody "the body as text, decoded";
    "size" Plain Size ExpectSize "the body's size, decoded";
    "json" Json Any ExpectJson "values of the JSON body, by path or JSONPath (RFC 9535)";
    "url" Plain Text ExpectRedirects "the address that answered last";
    "redirects" Plain Number ExpectRedirects "how many redirects were followed";
    "http.version" Plain Version ExpectVersion "the protocol: 1.0, 1.1 or 2";
    "tls.version" Plain Version ExpectTls "the TLS version: 1.2 or 1.3";
    "tls.cipher" Plain Text ExpectTls "the cipher suite";
    "cert.expires_in" Plain Length ExpectCert "how long the certificate is still valid";
    "cert.issuer" Plain Text ExpectCert "who issued the certificate";
    "cert.subject" Plain Text ExpectCert "whom the certificate names";
    "cert.names" Plain Texts ExpectCert "the names that the certificate is for";
    "ip" Plain Text ExpectValue "the address that answered";
};
