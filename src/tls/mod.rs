//! TLS from a client's side, and what both sides of it share: sockets that are secret or plain, certificates in files.
//!
//! A server is believed if an authority that is trusted vouches for its certificate and the certificate is for the host
//! of the URL, at this time; there is no way to turn that off. What the server shows is the business of
//! [`crate::http::tls`], what is said over a connection that of whoever opens it.

mod endpoint;
mod pem;
mod socket;

use std::sync::{Arc, OnceLock};

use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

pub(crate) use endpoint::{Endpoint, Protocol, Untrusted, untrusted};
pub(crate) use pem::{certificates, read_file};
pub(crate) use socket::Socket;

/// How the certificates of servers are checked.
pub(crate) type Trust = Arc<ClientConfig>;

/// Largest file of authorities, in bytes: four times what a system trusts by default.
pub(crate) const AUTHORITIES_BYTES_MAX: u64 = 1024 * 1024;

/// How servers are checked that an authority of this system vouches for. Its files are read once in the life of a process.
///
/// # Errors
/// When there is no authority in them, in words.
pub(crate) fn trusting_system() -> Result<Trust, String> {
    static CHECK: OnceLock<Trust> = OnceLock::new();
    if let Some(check) = CHECK.get() {
        return Ok(check.clone());
    }
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // A system may have some that no library reads; the others are as good without them.
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        let why = found.errors.first().map(|why| format!(": {why}")).unwrap_or_default();
        return Err(format!("this system has no certificates of authorities that could be trusted{why}"));
    }
    Ok(CHECK.get_or_init(|| trusting(roots)).clone())
}

/// How servers are checked that one of these authorities vouches for, and no other: certificates in PEM. The certificate
/// of a server stands for itself, unless it says that it is an authority's.
///
/// # Errors
/// When there is none in it, or one that cannot be used, in words.
pub(crate) fn trusting_pem(pem: &[u8]) -> Result<Trust, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|why| format!("holds a certificate that cannot be used: {why}"))?;
    }
    Ok(trusting(roots))
}

fn trusting(roots: RootCertStore) -> Trust {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config =
        config.with_safe_default_protocol_versions().expect("the provider has ciphers of both versions");
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_authority_is_refused_with_the_reason() {
        let made = rcgen::generate_simple_self_signed(vec!["one".to_owned()]).expect("a certificate");
        assert!(trusting_pem(made.cert.pem().as_bytes()).is_ok());
        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let broken = made.cert.pem().replace("-----END", "----END");
        for (pem, said) in [
            ("", "holds no CERTIFICATE"),
            (&*made.signing_key.serialize_pem(), "holds no CERTIFICATE"),
            (&broken, "is no PEM"),
            (nonsense, "cannot be used"),
        ] {
            let why = trusting_pem(pem.as_bytes()).expect_err(said);
            assert!(why.contains(said), "{why}, not {said}");
        }
    }
}
