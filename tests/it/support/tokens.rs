//! Tokens of every kind, good and bad.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::since_epoch;

/// Claims that are good for an hour.
pub(crate) fn claims_of(user: &str) -> Value {
    json!({"sub": user, "exp": (since_epoch() + Duration::from_hours(1)).as_secs()})
}

/// An HS256 token.
pub(crate) fn sign_with_secret(secret: &[u8], claims: &Value) -> String {
    encode(&Header::default(), claims, &EncodingKey::from_secret(secret)).expect("an HMAC cannot fail")
}

/// A token signed with one of the private keys beside the tests; `kid` as given.
pub(crate) fn sign_with_pem(name: &str, algorithm: Algorithm, kid: Option<&str>, claims: &Value) -> String {
    let pem = key_file(name);
    let key = match algorithm {
        Algorithm::EdDSA => EncodingKey::from_ed_pem(&pem),
        Algorithm::ES256 => EncodingKey::from_ec_pem(&pem),
        _ => EncodingKey::from_rsa_pem(&pem),
    };
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
    encode(&header, claims, &key.expect("a private key")).expect("a signature")
}

/// The claims of `token` under a header that asks for no signature (RFC 7519, section 6).
pub(crate) fn unsigned(token: &str) -> String {
    // {"alg":"none","typ":"JWT"}
    const HEADER: &str = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
    let claims = token.split('.').nth(1).expect("a token has three parts");
    format!("{HEADER}.{claims}.")
}

/// Where one of the keys beside the tests is.
pub(crate) fn key_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/keys").join(name)
}

/// The bytes of one of the keys beside the tests.
pub(crate) fn key_file(name: &str) -> Vec<u8> {
    std::fs::read(key_path(name)).expect("a key beside the tests")
}

/// The secret in a data directory.
pub(super) fn secret_of(data: &Path) -> Vec<u8> {
    let text = std::fs::read_to_string(data.join("token.key")).expect("a key made on the first start");
    let digit = |byte: u8| char::from(byte).to_digit(16).expect("a key in hexadecimal") as u8;
    text.trim().as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}
