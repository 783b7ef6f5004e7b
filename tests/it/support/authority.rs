//! Somebody who vouches for servers, and what they vouch with.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ED25519, SignatureAlgorithm, date_time_ymd,
};
use tempfile::TempDir;

use super::TestServer;

/// A private authority, with its certificate in a file.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

/// What a certificate says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Good,
    Expired,
    /// Good from a day on that is far away.
    Early,
    /// One of an authority, as `openssl req -x509` makes it.
    Authority,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, &PKCS_ECDSA_P256_SHA256)
    }

    /// One with another kind of key.
    pub(crate) fn of_another_kind(name: &str) -> Self {
        Self::with(name, &PKCS_ED25519)
    }

    fn with(name: &str, algorithm: &'static SignatureAlgorithm) -> Self {
        let mut params = CertificateParams::new([]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate_for(algorithm).expect("a key"));
        let issuer = issuer.expect("a certificate");
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("ca.pem"), issuer.pem()).expect("a file");
        Self { issuer, directory }
    }

    /// Its certificate in PEM.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// The file with it.
    pub(crate) fn file(&self) -> String {
        self.path("ca.pem")
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    /// The flags of a server with a certificate for this host.
    pub(crate) fn flags(&self, host: &str, kind: Kind) -> [String; 4] {
        let mut params = CertificateParams::new([host.to_owned()]).expect("a host");
        match kind {
            Kind::Good => {}
            Kind::Expired => params.not_after = date_time_ymd(2020, 1, 2),
            Kind::Early => params.not_before = date_time_ymd(4000, 1, 2),
            Kind::Authority => params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let [cert_file, key_file] =
            ["cert", "key"].map(|what| self.path(&format!("{host}-{kind:?}-{what}.pem")));
        std::fs::write(&cert_file, certificate.pem()).expect("a file");
        std::fs::write(&key_file, key.serialize_pem()).expect("a file");
        ["--tls-cert".to_owned(), cert_file, "--tls-key".to_owned(), key_file]
    }

    /// A server with such a certificate.
    pub(crate) fn server(&self, host: &str, kind: Kind) -> TestServer {
        let flags = self.flags(host, kind);
        TestServer::start_with(&flags.each_ref().map(String::as_str))
    }
}
