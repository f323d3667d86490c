//! What speaks on the Kafka port when it does not speak Kafka: for the log line that ends such a connection.

use std::fmt;

/// A guess at the protocol of a connection's first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// Nothing here contradicts the Kafka protocol.
    Kafka,
    /// A TLS client hello: the client expects an encrypted listener.
    Tls,
    /// An HTTP request, with its method, or the preface of HTTP/2.
    Http(&'static str),
    /// An SSH client's greeting.
    Ssh,
    /// A PROXY protocol header, as load balancers send it.
    Proxy,
    /// Bytes of no protocol that we know.
    Garbage,
}

const METHODS: [&str; 10] =
    ["GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "PRI"];

/// The second version of the PROXY protocol begins so.
const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Guesses from the first bytes of a connection; eight are enough for most.
///
/// Nothing of this is mistaken for Kafka by the broker: a method's letters or a TLS record read as a frame length of more
/// than 100 MiB. It only finds the word for the log.
#[must_use]
pub fn sniff(first: &[u8]) -> Foreign {
    if let [0x16, 3, 0..=4, ..] = first {
        return Foreign::Tls;
    }
    if let Some(method) = METHODS.iter().find(|method| is_method(first, method)) {
        return Foreign::Http(method);
    }
    if first.starts_with(b"SSH-") {
        return Foreign::Ssh;
    }
    let known = first.len().min(PROXY_V2.len());
    if first.starts_with(b"PROXY ") || (known >= LONG_ENOUGH && first[..known] == PROXY_V2[..known]) {
        return Foreign::Proxy;
    }
    // A frame: a length, an API key and a version that are small and not negative.
    match first {
        [0..=0x3f, _, _, _, 0, 0..=0x7f, 0, 0..=0x7f, ..] => Foreign::Kafka,
        [0..=0x3f, ..] if first.len() < LONG_ENOUGH => Foreign::Kafka,
        _ => Foreign::Garbage,
    }
}

/// From so many bytes on a frame's first fields can be judged.
const LONG_ENOUGH: usize = 8;

fn is_method(first: &[u8], method: &str) -> bool {
    first.strip_prefix(method.as_bytes()).is_some_and(|rest| rest.first() == Some(&b' '))
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Foreign::Kafka => f.write_str("a Kafka request"),
            Foreign::Tls => f.write_str("a TLS client hello"),
            Foreign::Http(method) => write!(f, "an HTTP {method} request"),
            Foreign::Ssh => f.write_str("an SSH greeting"),
            Foreign::Proxy => f.write_str("a PROXY protocol header"),
            Foreign::Garbage => f.write_str("bytes of no known protocol"),
        }
    }
}
