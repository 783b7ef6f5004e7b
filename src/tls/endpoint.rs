//! A server from outside: where it is, how a connection to it is opened, and why one is not.

use std::fmt;
use std::io;
use std::time::{Duration, UNIX_EPOCH};

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{ServerName, UnixTime};
use tokio_rustls::rustls::{self, CertificateError, InvalidMessage};

use super::Trust;
use super::socket::Socket;

/// What webpki calls a server's certificate that says it is an authority's; it hands that on without a type.
const CA_AS_SERVER: &str = "CaUsedAsEndEntity";

/// Where a server is, and how it is spoken to.
#[derive(Clone)]
pub(crate) struct Endpoint {
    authority: String,
    secret: Option<(TlsConnector, ServerName<'static>)>,
}

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1, also where it becomes a WebSocket.
    Http1,
    /// HTTP/2; without TLS the server has to know it.
    Http2,
}

impl Protocol {
    /// As ALPN names it.
    fn name(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }
}

/// A server that is there, and is not talked to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Untrusted {
    /// Nobody who is trusted knows it.
    #[error("no authority that is trusted here vouches for its certificate")]
    Stranger,
    /// What it shows or says will not do.
    #[error("{0}")]
    Unfit(String),
}

/// Why the server is not trusted with which a connection failed; `None` if that is not why.
pub(crate) fn untrusted(error: &io::Error) -> Option<&Untrusted> {
    error.get_ref()?.downcast_ref()
}

impl Endpoint {
    /// A server by the host and port of its URL, with TLS or without.
    ///
    /// # Errors
    /// When a host is none that a certificate can be for, in words.
    pub(crate) fn new(host: &str, port: u16, tls: Option<Trust>) -> Result<Self, String> {
        let named = |config: Trust| {
            // A URL has an address of IPv6 in brackets, a certificate has not.
            let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            let name = ServerName::try_from(bare.to_owned());
            let name = name.map_err(|_| format!("no certificate can be for the host {host:?}"))?;
            Ok::<_, String>((TlsConnector::from(config), name))
        };
        Ok(Self { authority: format!("{host}:{port}"), secret: tls.map(named).transpose()? })
    }

    /// Host and port.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// Whether connections are secret.
    pub(crate) fn is_secret(&self) -> bool {
        self.secret.is_some()
    }

    /// Opens a connection. Waits without end.
    ///
    /// # Errors
    /// [`untrusted`] tells those that will not go away by trying again.
    pub(crate) async fn open(&self, protocol: Protocol) -> io::Result<Socket> {
        let stream = TcpStream::connect(&self.authority).await?;
        stream.set_nodelay(true)?;
        let Some((connector, name)) = &self.secret else { return Ok(Socket::Plain(stream)) };
        let connector = connector.with_alpn(vec![protocol.name().to_vec()]);
        let stream = connector.connect(name.clone(), stream).await.map_err(explain)?;
        let agreed = stream.get_ref().1.alpn_protocol();
        if protocol == Protocol::Http2 && agreed != Some(protocol.name()) {
            return Err(io::Error::other(Untrusted::Unfit("it does not speak HTTP/2".to_owned())));
        }
        Ok(Socket::Secret(Box::new(stream.into())))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.is_secret() { "https" } else { "http" }, self.authority)
    }
}

/// What a failed handshake means for who reads it.
fn explain(error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let untrusted = match inner {
        Some(rustls::Error::InvalidCertificate(why)) if is_by_nobody(why) => Untrusted::Stranger,
        Some(rustls::Error::InvalidCertificate(why)) => Untrusted::Unfit(unfit(why)),
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            Untrusted::Unfit("it does not speak TLS: its URL may begin with http://".to_owned())
        }
        _ => return error,
    };
    io::Error::other(untrusted)
}

/// Whether nobody who is trusted has signed. Somebody may have the same name and another key, also one of another kind: the
/// same authority before it was made anew, or whoever else calls themselves `localhost`.
fn is_by_nobody(why: &CertificateError) -> bool {
    matches!(
        why,
        CertificateError::UnknownIssuer
            | CertificateError::BadSignature
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. }
    )
}

fn unfit(why: &CertificateError) -> String {
    match why {
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("its certificate was good until {}", moment(*not_after))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("its certificate is good from {} on", moment(*not_before))
        }
        CertificateError::Other(why) if why.to_string() == CA_AS_SERVER => {
            "its certificate is an authority's (CA:TRUE) and not a server's: make one with CA:FALSE"
                .to_owned()
        }
        why => format!("its certificate will not do: {why}"),
    }
}

fn moment(time: UnixTime) -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(time.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_named_as_its_url_names_it() {
        let config = || {
            let made = rcgen::generate_simple_self_signed(vec!["x".to_owned()]).expect("a certificate");
            super::super::trusting_pem(made.cert.pem().as_bytes()).expect("a certificate")
        };
        for (host, name) in
            [("chat.example.com", "chat.example.com"), ("[::1]", "::1"), ("127.0.0.1", "127.0.0.1")]
        {
            let endpoint = Endpoint::new(host, 443, Some(config())).expect("a host");
            assert_eq!(endpoint.authority(), format!("{host}:443"));
            assert_eq!(endpoint.secret.expect("TLS").1.to_str(), name);
        }
        let why = Endpoint::new("a b", 443, Some(config())).expect_err("no host");
        assert!(why.contains("a b"), "{why}");
        assert!(!Endpoint::new("x", 80, None).expect("a host").is_secret());
    }

    #[test]
    fn what_is_wrong_with_a_certificate_is_said_in_words() {
        let at = |secs| UnixTime::since_unix_epoch(Duration::from_secs(secs));
        let expired = CertificateError::ExpiredContext { time: at(9), not_after: at(86_400) };
        assert_eq!(unfit(&expired), "its certificate was good until 1970-01-02T00:00:00Z");
        let early = CertificateError::NotValidYetContext { time: at(9), not_before: at(86_400) };
        assert_eq!(unfit(&early), "its certificate is good from 1970-01-02T00:00:00Z on");
        assert!(unfit(&CertificateError::BadEncoding).contains("BadEncoding"));
    }
}
