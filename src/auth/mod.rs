//! Tokens to callers: who signed, for whom, until when.
//!
//! A token is a JWT. The algorithm is fixed by the key and never by the token. Where a token stands
//! in a request is the edge's business; what the caller may do is the conversations'.

mod local_key;
mod public_key;
#[cfg(test)]
mod tests;
mod token;

use std::path::PathBuf;

use crate::config;
use crate::message::Caller;

pub use local_key::{LocalKey, expires_s};

/// By how much the clock of whoever signed a token may be ahead, in seconds: how early `nbf` may be. Servers under NTP
/// differ by less than one. `exp` has no such grace: an expired token opens no door.
pub const NOT_BEFORE_LEEWAY_S: u64 = 5;

/// Why a token does not name a caller. Says no more than that to whoever shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request carries none.
    #[error("token missing: send it as \"Authorization: Bearer <jwt>\" or \"Token: <jwt>\"")]
    Missing,
    /// It is no JWT with the claims that are required.
    #[error("token malformed")]
    Malformed,
    /// Its time is over.
    #[error("token expired")]
    Expired,
    /// No key of this server has signed it, or it is not meant for now or for this server.
    #[error("token not accepted")]
    NotAccepted,
}

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file holds no key that can be used.
    #[error("{}: {why}", path.display())]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// A setting names such a file.
    #[error("--{flag} {why}")]
    Setting {
        /// Which setting.
        flag: &'static str,
        /// What is wrong with its file.
        why: Box<Error>,
    },
}

impl Error {
    fn unusable(path: impl Into<PathBuf>, why: impl Into<String>) -> Self {
        Self::Unusable { path: path.into(), why: why.into() }
    }

    fn of_setting(flag: &'static str) -> impl Fn(Self) -> Self {
        move |why| Self::Setting { flag, why: Box::new(why) }
    }
}

/// Who a token names, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The caller.
    pub caller: Caller,
    /// The `exp` claim, Unix time in seconds.
    pub expires_s: u64,
}

impl Verified {
    /// Whether the token's time is over at `now_s` (Unix time in seconds).
    pub fn is_expired(&self, now_s: u64) -> bool {
        now_s >= self.expires_s
    }
}

/// Knows every key whose tokens are accepted. Made once, never changed.
pub struct Verifier {
    keys: Vec<token::Key>,
}

/// Which keys a [`Verifier`] accepts beside the local one.
#[derive(Debug, Clone, Default)]
pub struct PublicKeys {
    /// PEM files, one key each.
    pub pem_files: Vec<PathBuf>,
    /// A JWKS file.
    pub jwks_file: Option<PathBuf>,
    /// What `aud` must name in their tokens; `None`: their tokens must have no `aud`
    /// (RFC 7519, 4.1.3: whoever does not find itself named must refuse).
    pub audience: Option<String>,
    /// What `iss` must be in their tokens; `None`: anything.
    pub issuer: Option<String>,
}

impl Verifier {
    /// Accepts tokens signed with `local`, the data directory's own key, and what the settings of `serve` say.
    pub fn open(local: &LocalKey, settings: &config::Serve) -> Result<Self, Error> {
        let public = PublicKeys {
            pem_files: settings.verify_keys.clone(),
            jwks_file: settings.jwks.clone(),
            audience: settings.audience.clone(),
            issuer: settings.issuer.clone(),
        };
        Self::new(local, &public)
    }

    /// Accepts tokens signed with `local` and those of `public`, read from their files now.
    pub fn new(local: &LocalKey, public: &PublicKeys) -> Result<Self, Error> {
        let mut keys = vec![token::Key::local(local)];
        keys.extend(public_key::load(public)?);
        Ok(Self { keys })
    }

    /// Who `token` names at `now_s` (Unix time in seconds).
    pub fn verify(&self, token: &str, now_s: u64) -> Result<Verified, Refusal> {
        token::verify(&self.keys, token, now_s)
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("keys", &self.keys.len()).finish()
    }
}
