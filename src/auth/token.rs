//! What makes a token acceptable: a signature by one of our keys under that key's own algorithm, and
//! claims that name a user, now.

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode, decode_header};
use serde::{Deserialize, Deserializer};

use super::{LocalKey, NOT_BEFORE_LEEWAY_S, Refusal, Verified};
use crate::config::limits::TOKEN_BYTES_MAX;
use crate::message::{Caller, UserId};

/// A key whose tokens are accepted.
pub(super) struct Key {
    algorithm: Algorithm,
    /// The key's name, if it has one. Only ever compared with a token's `kid`.
    id: Option<String>,
    decoding: DecodingKey,
    validation: Validation,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: NumericDate,
    #[serde(default)]
    nbf: Option<NumericDate>,
    #[serde(default)]
    admin: Truth,
}

/// Unix time in seconds, rounded down; RFC 7519 allows fractions. So a token may end within a second before its time.
struct NumericDate(u64);

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        if seconds.is_finite() && seconds >= 0.0 {
            // Saturates: a time past the year 584 billion is as good as never.
            return Ok(Self(seconds as u64));
        }
        Err(serde::de::Error::custom("not a time"))
    }
}

/// `true`, and nothing that merely looks like it.
#[derive(Default)]
struct Truth(bool);

impl<'de> Deserialize<'de> for Truth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        Ok(Self(value == serde_json::Value::Bool(true)))
    }
}

impl Key {
    /// The server's own key. Whoever holds it is the server or its app, so `aud` and `iss` say nothing.
    pub(super) fn local(key: &LocalKey) -> Self {
        let mut validation = signature_only(Algorithm::HS256);
        validation.validate_aud = false;
        let decoding = DecodingKey::from_secret(key.secret());
        Self { algorithm: Algorithm::HS256, id: None, decoding, validation }
    }

    /// A public key of somebody who may sign for others than us too.
    pub(super) fn public(
        algorithm: Algorithm,
        id: Option<String>,
        decoding: DecodingKey,
        audience: Option<&str>,
        issuer: Option<&str>,
    ) -> Self {
        let mut validation = signature_only(algorithm);
        if let Some(audience) = audience {
            validation.set_audience(&[audience]);
            validation.required_spec_claims.insert("aud".to_owned());
        }
        if let Some(issuer) = issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        Self { algorithm, id, decoding, validation }
    }

    /// A name, where both have one, has to be the same. The signature decides in any case.
    fn may_have_signed(&self, header: &Header) -> bool {
        let same_name = match (&self.id, &header.kid) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => true,
        };
        self.algorithm == header.alg && same_name
    }
}

/// Times are checked here and not by the library: with our clock, when first seen and on every later
/// request of the connection alike.
fn signature_only(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.required_spec_claims.clear();
    validation
}

pub(super) fn verify(keys: &[Key], token: &str, now_s: u64) -> Result<Verified, Refusal> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Refusal::Malformed);
    }
    let header = decode_header(token).map_err(|_| Refusal::Malformed)?;
    if asks_for_more_than_we_do(&header) {
        return Err(Refusal::NotAccepted);
    }
    let mut refusal = Refusal::NotAccepted;
    for key in keys.iter().filter(|key| key.may_have_signed(&header)) {
        match decode::<Claims>(token, &key.decoding, &key.validation) {
            Ok(token) => return check(&token.claims, now_s),
            Err(error) => refusal = refusal_of(error.kind()),
        }
    }
    Err(refusal)
}

/// A key or a rule that the token brings along, or a token inside a token (RFC 7515, 4.1; RFC 8725).
fn asks_for_more_than_we_do(header: &Header) -> bool {
    header.crit.is_some()
        || header.jwk.is_some()
        || header.jku.is_some()
        || header.x5u.is_some()
        || header.enc.is_some()
        || header.zip.is_some()
}

/// Claims are only read behind a good signature, so a complaint about them gives nothing away.
fn refusal_of(error: &ErrorKind) -> Refusal {
    match error {
        ErrorKind::Json(_) | ErrorKind::Base64(_) | ErrorKind::Utf8(_) | ErrorKind::InvalidToken => {
            Refusal::Malformed
        }
        _ => Refusal::NotAccepted,
    }
}

fn check(claims: &Claims, now_s: u64) -> Result<Verified, Refusal> {
    let user = UserId::parse(&claims.sub).map_err(|_| Refusal::Malformed)?;
    if claims.nbf.as_ref().is_some_and(|nbf| nbf.0 > now_s.saturating_add(NOT_BEFORE_LEEWAY_S)) {
        return Err(Refusal::NotAccepted);
    }
    let verified = Verified { caller: Caller { user, admin: claims.admin.0 }, expires_s: claims.exp.0 };
    if verified.is_expired(now_s) { Err(Refusal::Expired) } else { Ok(verified) }
}
