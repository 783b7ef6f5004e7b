//! HTTPS: the certificate that the public address shows, and how a connection becomes a secret one.
//!
//! TLS 1.2 and 1.3 with the library's own choice of ciphers; HTTP/2 where the client offers it. Who calls is none of its
//! business: clients have tokens, not certificates.

use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{self, InconsistentKeys, ServerConfig};
use tokio_rustls::server::TlsStream;

use super::opening::Speaks;
use crate::config::TlsFiles;
use crate::tls::{certificates, read_file};

/// Largest file, in bytes: a chain of a dozen certificates is a tenth of it.
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// What is offered, the better first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// A certificate or key that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{setting} {}: {why}", path.display())]
pub struct Error {
    setting: &'static str,
    path: Box<Path>,
    why: String,
}

/// The certificate with its key, as they were in their files the last time.
pub struct Tls {
    files: TlsFiles,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads both files.
    pub fn open(files: &TlsFiles) -> Result<Self, Error> {
        Ok(Self { files: files.clone(), current: RwLock::new(read(files)?) })
    }

    /// Reads both files again, for the connections from now on. After an error all stays as it was.
    pub fn reload(&self) -> Result<(), Error> {
        let renewed = read(&self.files)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = renewed;
        Ok(())
    }

    /// Makes a connection secret. Waits for the client without end.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, Speaks)> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        let stream = TlsAcceptor::from(current).accept(stream).await?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(PROTOCOLS[0]);
        Ok((stream, if is_http2 { Speaks::Http2 } else { Speaks::Http1 }))
    }
}

fn read(files: &TlsFiles) -> Result<Arc<ServerConfig>, Error> {
    let in_cert = |why| Error { setting: "--tls-cert", path: files.cert.as_path().into(), why };
    let in_key = |why| Error { setting: "--tls-key", path: files.key.as_path().into(), why };
    let chain = read_file(&files.cert, FILE_BYTES_MAX).and_then(|pem| certificates(&pem)).map_err(in_cert)?;
    let key = read_file(&files.key, FILE_BYTES_MAX).and_then(|pem| key(&pem)).map_err(in_key)?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|why| in_cert(why.to_string()))?;
    let mut config = config.with_no_client_auth().with_single_cert(chain, key).map_err(|why| match why {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            in_key(format!("is not the key of the certificate in {}", files.cert.display()))
        }
        rustls::Error::InvalidCertificate(why) => {
            in_cert(format!("holds a certificate that cannot be used: {why}"))
        }
        why => in_key(format!("cannot be used: {why}")),
    })?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Arc::new(config))
}

fn key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|why| match why {
        rustls::pki_types::pem::Error::NoItemsFound => "holds no PRIVATE KEY in PEM".to_owned(),
        why => format!("is no PEM: {why}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(name: &str) -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_with_the_reason_and_changes_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let files =
            TlsFiles { cert: directory.path().join("cert.pem"), key: directory.path().join("key.pem") };
        let ((cert, key), (other, _)) = (made("one"), made("two"));
        let write = |cert: &str, key: &str| {
            std::fs::write(&files.cert, cert).expect("a file");
            std::fs::write(&files.key, key).expect("a file");
        };
        write(&cert, &key);
        let tls = Tls::open(&files).expect("a certificate and its key");
        let before = Arc::as_ptr(&tls.current.read().expect("no panic"));
        let (long, broken) = ("x".repeat(300_000), cert.replace("-----END", "----END"));
        for (cert, key, said) in [
            ("", &*key, "--tls-cert"),
            (&key, &key, "holds no CERTIFICATE"),
            (&long, &key, "is larger than"),
            (&broken, &key, "is no PEM"),
            (&cert, "", "holds no PRIVATE KEY"),
            (&cert, &cert, "holds no PRIVATE KEY"),
            (&other, &key, "--tls-key"),
            (&other, &key, "is not the key of the certificate in"),
        ] {
            write(cert, key);
            let why = tls.reload().expect_err(said).to_string();
            assert!(why.contains(said) && !why.contains('\n'), "{why}, not {said}");
        }
        assert_eq!(Arc::as_ptr(&tls.current.read().expect("no panic")), before);
        write(&cert, &key);
        tls.reload().expect("both are back");
        assert_ne!(Arc::as_ptr(&tls.current.read().expect("no panic")), before);
    }
}
