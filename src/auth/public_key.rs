//! Public keys from PEM and JWKS files: EdDSA (Ed25519), ES256 and RS256, nothing else.
//!
//! A PEM file the operator names must be usable. A JWKS comes from an identity provider that may
//! publish keys for other purposes: those are passed over with a warning, unless none is left.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use serde::Deserialize;

use super::token::Key;
use super::{Error, PublicKeys};

/// Largest key file, in bytes: a JWKS with certificates has 2 KiB a key.
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// Most public keys. A token without a `kid` is tried on each of its algorithm, 40 us apiece.
const KEYS_MAX: usize = 32;
/// An uncompressed point of P-256.
const P256_POINT_BYTES: usize = 65;
/// A point of Ed25519.
const ED25519_POINT_BYTES: usize = 32;
/// Least modulus of an RSA key, in bytes: 2048 bits (RFC 7518, 3.3).
const RSA_MODULUS_BYTES_MIN: usize = 256;

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<serde_json::Value>,
}

pub(super) fn load(settings: &PublicKeys) -> Result<Vec<Key>, Error> {
    let make = |(algorithm, id, decoding)| {
        Key::public(algorithm, id, decoding, settings.audience.as_deref(), settings.issuer.as_deref())
    };
    let mut keys = Vec::new();
    for path in &settings.pem_files {
        let (algorithm, decoding) = read(path, from_pem).map_err(Error::of_setting("verify-key"))?;
        keys.push(make((algorithm, None, decoding)));
    }
    if let Some(path) = &settings.jwks_file {
        let found = read(path, from_jwks).map_err(Error::of_setting("jwks"))?;
        keys.extend(found.into_iter().map(make));
    }
    match settings.jwks_file.as_ref().or(settings.pem_files.last()) {
        Some(path) if keys.len() > KEYS_MAX => {
            Err(Error::unusable(path, format!("more than {KEYS_MAX} public keys in all")))
        }
        _ => Ok(keys),
    }
}

/// What `parse` finds in a file.
fn read<T>(path: &Path, parse: impl Fn(&[u8]) -> Result<T, String>) -> Result<T, Error> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|source| Error::Io { path: path.to_owned(), source })?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Error::unusable(path, format!("is larger than {FILE_BYTES_MAX} bytes")));
    }
    parse(&bytes).map_err(|why| Error::unusable(path, why))
}

/// The one public key of a PEM file, with the algorithm that its type stands for.
fn from_pem(pem: &[u8]) -> Result<(Algorithm, DecodingKey), String> {
    let text = str::from_utf8(pem).map_err(|_| "is not PEM".to_owned())?;
    if text.contains("PRIVATE KEY") {
        return Err(
            "holds a private key: give the public one, the server has no use for the other".to_owned()
        );
    }
    if !text.contains("-----BEGIN PUBLIC KEY-----") && !text.contains("-----BEGIN RSA PUBLIC KEY-----") {
        return Err("holds no PUBLIC KEY in PEM".to_owned());
    }
    let key = DecodingKey::from_ed_pem(pem)
        .map(|key| (Algorithm::EdDSA, key))
        .or_else(|_| DecodingKey::from_ec_pem(pem).map(|key| (Algorithm::ES256, key)))
        .or_else(|_| DecodingKey::from_rsa_pem(pem).map(|key| (Algorithm::RS256, key)));
    let (algorithm, key) = key.map_err(|_| "is neither an Ed25519, a P-256 nor an RSA key".to_owned())?;
    check_size(algorithm, &key)?;
    Ok((algorithm, key))
}

fn from_jwks(json: &[u8]) -> Result<Vec<(Algorithm, Option<String>, DecodingKey)>, String> {
    let set: KeySet = serde_json::from_slice(json).map_err(|error| format!("is not a JWKS: {error}"))?;
    let mut keys = Vec::new();
    for (place, value) in set.keys.into_iter().enumerate() {
        match from_jwk(value) {
            Ok(key) => keys.push(key),
            Err(why) => tracing::warn!(place, why, "passed over a key of the JWKS"),
        }
    }
    if keys.is_empty() { Err("holds no key for EdDSA, ES256 or RS256".to_owned()) } else { Ok(keys) }
}

fn from_jwk(value: serde_json::Value) -> Result<(Algorithm, Option<String>, DecodingKey), String> {
    let jwk: Jwk = serde_json::from_value(value).map_err(|error| error.to_string())?;
    if jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
        return Err("is not for signatures".to_owned());
    }
    let (algorithm, named) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        _ => return Err("is not a public key for EdDSA, ES256 or RS256".to_owned()),
    };
    if jwk.common.key_algorithm.is_some_and(|stated| stated != named) {
        return Err("states an algorithm other than EdDSA, ES256 or RS256".to_owned());
    }
    let key = DecodingKey::from_jwk(&jwk).map_err(|error| error.to_string())?;
    check_size(algorithm, &key)?;
    Ok((algorithm, jwk.common.key_id, key))
}

fn check_size(algorithm: Algorithm, key: &DecodingKey) -> Result<(), String> {
    let fits = match (algorithm, key.kind()) {
        (Algorithm::EdDSA, DecodingKeyKind::SecretOrDer(point)) => point.len() == ED25519_POINT_BYTES,
        (Algorithm::ES256, DecodingKeyKind::SecretOrDer(point)) => point.len() == P256_POINT_BYTES,
        (Algorithm::RS256, DecodingKeyKind::SecretOrDer(der)) => der.len() > RSA_MODULUS_BYTES_MIN,
        (Algorithm::RS256, DecodingKeyKind::RsaModulusExponent { n, .. }) => n.len() >= RSA_MODULUS_BYTES_MIN,
        _ => false,
    };
    match (fits, algorithm) {
        (true, _) => Ok(()),
        (false, Algorithm::RS256) => Err("is an RSA key of less than 2048 bits".to_owned()),
        (false, _) => Err("is on another curve than Ed25519 or P-256".to_owned()),
    }
}
