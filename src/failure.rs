//! Why a run did not pass: the closed list of error types, and whose doing each is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Whose doing it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Blame {
    /// The service under watch.
    Target,
    /// The way to it.
    Path,
    /// A limit of the account or the service.
    Quota,
    /// What this picket may not do.
    Permission,
    /// What was written in a probe file.
    Config,
    /// This picket itself.
    Agent,
}

impl Blame {
    /// The word in records, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Target => "target",
            Self::Path => "path",
            Self::Quota => "quota",
            Self::Permission => "permission",
            Self::Config => "config",
            Self::Agent => "agent",
        }
    }
}

impl fmt::Display for Blame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One row of the closed list.
#[derive(Debug)]
pub struct Entry {
    /// The word in records, metrics and logs.
    pub name: &'static str,
    /// Whose doing it is, unless the failure knows better.
    pub blame: Blame,
    /// Whether picket could judge the target: `fail` where it could, `error` where it could not.
    pub judged: bool,
    /// What it means, in a sentence or two.
    pub about: &'static str,
    /// What to look at first.
    pub advice: &'static str,
}

macro_rules! error_types {
    ($($variant:ident $name:literal $blame:ident $judged:ident $about:literal $advice:literal;)*) => {
        /// The closed list: where and how a run broke.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorType { $(#[doc = $about] $variant,)* }

        impl ErrorType {
            /// Every error type, grouped by where it breaks.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The type's row of the list.
            pub const fn entry(self) -> &'static Entry {
                match self {
                    $(Self::$variant => &Entry {
                        name: $name, blame: Blame::$blame, judged: error_types!(@ $judged), about: $about, advice: $advice,
                    },)*
                }
            }
        }
    };
    (@ fail) => { true };
    (@ error) => { false };
}

error_types! {
    DnsNxdomain "dns.nxdomain" Target fail "The resolver says that the name does not exist." "Look at the zone: was the record deleted, the stack torn down, or the name misspelt?";
    DnsServfail "dns.servfail" Target fail "The resolver could not get an answer (SERVFAIL)." "Ask the zone's own servers; look at delegation and DNSSEC.";
    DnsRefused "dns.refused" Target fail "The resolver refused to answer (REFUSED), or answered with another error code." "Is this resolver meant to serve this host?";
    DnsNoRecords "dns.no_records" Target fail "The name exists but has no address of the family asked for." "Look at the A and AAAA records, and at the probe's `ip`.";
    DnsTimeout "dns.timeout" Target fail "No resolver answered in time." "Is the resolver up, and does the network let UDP and TCP port 53 through?";
    DnsMalformed "dns.malformed" Target fail "The resolver's answer could not be read, or answers another question." "Something on the way speaks broken DNS: compare with another resolver.";
    ConnectRefused "connect.refused" Target fail "The host answered that nothing listens on the port." "Is the service up and on this port?";
    ConnectReset "connect.reset" Target fail "The connection was reset while it was being made." "A firewall or an overloaded listener: look at its backlog.";
    ConnectUnreachable "connect.unreachable" Target fail "There is no way to the host, though this host has a route to the world." "Routes, security groups, and whether the address family works on this host.";
    ConnectTimeout "connect.timeout" Target fail "Nothing answered the connection attempt in time." "Security groups and network ACLs that drop silently, or a host that is gone.";
    TlsExpired "tls.expired" Target fail "The certificate has expired." "Renew it; look at why renewal did not happen.";
    TlsNotYetValid "tls.not_yet_valid" Target fail "The certificate is not valid yet." "A clock is wrong, here or where it was issued.";
    TlsHostname "tls.hostname" Target fail "The certificate is for other names." "The wrong certificate is served: look at SNI and the listener.";
    TlsUntrusted "tls.untrusted" Target fail "The certificate's chain does not end at a trusted root, or is incomplete." "A missing intermediate or a private CA: give it with `tls = { ca = … }`.";
    TlsRevoked "tls.revoked" Target fail "A certificate was revoked." "Issue a new one.";
    TlsWeak "tls.weak" Target fail "A key or a signature of the chain is too weak to trust." "Issue a certificate with RSA of 2048 bits or more, or P-256, and SHA-256.";
    TlsProtocol "tls.protocol" Target fail "The two sides did not agree on a protocol, or what came was not TLS." "Look at the listener's versions and ciphers; is the port really a TLS port?";
    TlsClosed "tls.closed" Target fail "The connection was closed during the handshake." "The listener gave up: look at its log.";
    TlsTimeout "tls.timeout" Target fail "The handshake did not end in time." "An overloaded listener, or one that does not speak TLS.";
    SendTimeout "send.timeout" Target fail "The request could not be sent in time." "The target does not read: it is overloaded or stuck.";
    SendReset "send.reset" Target fail "The connection broke while the request was being sent." "The target closes early: look at its limits of size and time.";
    ResponseTimeout "response.timeout" Target fail "The answer did not come, or did not end, in time." "Look at the phases: a long `wait` is the service's work, a long `receive` its transfer.";
    ResponseClosed "response.closed" Target fail "The connection was closed before an answer came." "A crash or an idle limit behind a load balancer.";
    ResponseTruncated "response.truncated" Target fail "The connection was closed in the middle of the answer." "A crash while answering, or a wrong content-length.";
    ResponseMalformed "response.malformed" Target fail "The answer breaks the protocol's rules." "Look at the evidence: is something else on this port?";
    ResponseTooLarge "response.too_large" Target fail "The answer is larger than its bound." "Raise `max_body` if that size is meant.";
    ResponseReset "response.reset" Target fail "The connection was reset before the answer was whole." "A crash, or a proxy that gave up.";
    RedirectLoop "redirect.loop" Target fail "A redirect leads back to where it came from." "Look at the rules for scheme, host and trailing slash.";
    RedirectLimit "redirect.limit" Target fail "There are more redirects than `follow` allows." "Raise `follow`, or probe the last address.";
    RedirectDowngrade "redirect.downgrade" Target fail "A redirect leads from https to http." "The target sends its users into the open: mend the redirect.";
    RedirectForbidden "redirect.forbidden" Target fail "A redirect leads to where picket must not go: a link-local or metadata address, or another scheme." "Find out who writes this Location header.";
    ExpectStatus "expect.status" Target fail "The status is not the expected one." "The service answered: its logs know why.";
    ExpectHeader "expect.header" Target fail "A header is not as expected." "Compare the response head in the evidence.";
    ExpectBody "expect.body" Target fail "The body is not as expected." "Compare the body in the evidence.";
    ExpectJson "expect.json" Target fail "A value of the JSON body is not as expected, or is missing." "Compare the body in the evidence.";
    ExpectLatency "expect.latency" Target fail "The step took longer than expected." "The phases say where the time went.";
    ExpectPhase "expect.phase" Target fail "A phase took longer than expected." "The phases say where the time went.";
    ExpectSize "expect.size" Target fail "The body's size is not as expected." "Compare the body in the evidence.";
    ExpectCert "expect.cert" Target fail "The certificate is not as expected." "Renewal, or the wrong certificate served.";
    ExpectTls "expect.tls" Target fail "The TLS version or cipher is not as expected." "Look at the listener's policy.";
    ExpectVersion "expect.version" Target fail "The HTTP version is not as expected." "Look at ALPN and what stands in between.";
    ExpectRedirects "expect.redirects" Target fail "The redirects, or where they end, are not as expected." "Follow the requests of the run one by one.";
    ExpectRcode "expect.rcode" Target fail "The DNS response code is not as expected." "Ask the zone's own servers.";
    ExpectAnswers "expect.answers" Target fail "The DNS answers are not as expected." "Ask the zone's own servers.";
    ExpectMatch "expect.match" Target fail "The dialogue did not say what was expected." "Compare what was received in the evidence.";
    ExpectValue "expect.value" Target fail "A value is not as expected." "The message quotes the value that was seen.";
    DeliverTimeout "deliver.timeout" Target fail "The message did not arrive in time." "Look at the hop in between: the rule, the subscription, the function's errors.";
    DeliverDuplicate "deliver.duplicate" Target fail "A message arrived more than once." "At-least-once delivery showed itself, or a consumer failed to delete.";
    DeliverOrder "deliver.order" Target fail "Messages arrived out of order." "Look at the message groups.";
    Throttled "throttled" Quota fail "The service limited the request rate (429 or a throttling error)." "Look at the quota, and at who uses it up.";
    AwsAccessDenied "aws.access_denied" Permission error "AWS denied the call to this picket." "Compare the role with `picket iam`.";
    AwsExpiredCredentials "aws.expired_credentials" Agent error "The credentials have expired." "Instance metadata, or the clock.";
    AwsNotFound "aws.not_found" Target fail "The resource does not exist." "Was it deleted, or is the name for another region?";
    AwsFunctionError "aws.function_error" Target fail "The function ended with an error." "The evidence has its payload and the tail of its log.";
    AwsServiceError "aws.service_error" Target fail "The service answered with an error." "The evidence has its code and request id.";
    JourneyTimeout "journey.timeout" Target fail "The journey's time was used up before this step." "The phases of the steps before it say where the time went.";
    AgentOverloaded "agent.overloaded" Agent error "This picket was too busy to measure honestly." "Fewer probes on this host, or a larger host.";
    AgentNoFiles "agent.no_files" Agent error "This picket ran out of file descriptors." "Raise LimitNOFILE in the unit.";
    AgentClock "agent.clock" Agent error "This host's clock is off." "Look at chrony.";
    AgentNoNetwork "agent.no_network" Agent error "This host has no network: no route to the world, or none to its DNS server." "Routes and interfaces of this host.";
    AgentNoCredentials "agent.no_credentials" Agent error "No credentials or secret could be had." "The secret's source, or the instance profile.";
    AgentPanic "agent.panic" Agent error "A defect of picket ended this run." "Please report it with the message; the other probes go on.";
    ConfigInvalid "config.invalid" Config error "A value that is known only in the run does not fit where it stands." "The message names the key.";
}

impl ErrorType {
    /// The word in records, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        self.entry().name
    }
}

impl FromStr for ErrorType {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().copied().find(|known| known.as_str() == name);
        found.ok_or_else(|| format!("{name:?} is no error type"))
    }
}

impl fmt::Display for ErrorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for ErrorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for ErrorType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ErrorType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        name.parse().map_err(de::Error::custom)
    }
}

/// A run, or a step of it, that did not pass: a value, not an error of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Where and how it broke.
    pub error_type: ErrorType,
    /// Whose doing it is.
    pub blame: Blame,
    /// What happened, in one line, with the values that were seen and no secret.
    pub message: String,
}

impl Failure {
    /// A failure with the blame that its type has.
    pub fn new(error_type: ErrorType, message: impl Into<String>) -> Self {
        Self { error_type, blame: error_type.entry().blame, message: message.into() }
    }

    /// The same failure, laid at another's door.
    #[must_use]
    pub fn blamed(mut self, blame: Blame) -> Self {
        self.blame = blame;
        self
    }

    /// Whether picket could judge the target: then it is a `fail`, else an `error`.
    pub const fn judged(&self) -> bool {
        self.error_type.entry().judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_reads_back_and_has_no_name_twice() {
        let mut names: Vec<_> = ErrorType::ALL.iter().map(|known| known.as_str()).collect();
        for name in &names {
            assert_eq!(name.parse::<ErrorType>().unwrap().as_str(), *name);
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ErrorType::ALL.len());
    }
}
