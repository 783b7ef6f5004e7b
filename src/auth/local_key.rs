//! The server's own HS256 key: a file of the data directory, made on the first start.
//!
//! The file holds the key in hexadecimal, so that an app's backend in any language can sign with it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header};
use serde::Serialize;

use super::Error;
use crate::message::Caller;

/// Name of the key's file in a data directory.
const FILE_NAME: &str = "token.key";
/// Size of the key that is made, and least size of one that is read, in bytes: as long as the hash
/// of HS256, below which RFC 7518 (3.2) forbids to go.
const KEY_BYTES: usize = 32;
/// Largest file that is read, in bytes; a longer key than 512 bytes makes nothing safer.
const FILE_BYTES_MAX: u64 = 1024;
/// Who but the owner may not read a secret: group and others.
const OTHERS_MODE: u32 = 0o077;

/// A secret that signs and verifies tokens.
pub struct LocalKey {
    secret: Vec<u8>,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    exp: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    admin: bool,
}

impl LocalKey {
    /// The key of a data directory; made, and made durable, if there is none.
    ///
    /// The caller holds the directory's lock: two servers that start at once must not make two keys.
    pub fn open_or_create(directory: &Path) -> Result<Self, Error> {
        let path = directory.join(FILE_NAME);
        match fs::symlink_metadata(&path) {
            Ok(_) => Self::read(&path),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                create(directory, &path).map_err(|source| Error::Io { path: path.clone(), source })?;
                tracing::info!(path = %path.display(), "made a key that signs tokens");
                Self::read(&path)
            }
            Err(source) => Err(Error::Io { path, source }),
        }
    }

    /// The key of a data directory that a server has made before.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        Self::read(&directory.join(FILE_NAME))
    }

    /// The key in a file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = read_text(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        match from_hex(text.trim()) {
            Some(secret) if secret.len() >= KEY_BYTES => Ok(Self { secret }),
            Some(secret) => Err(Error::unusable(
                path,
                format!("holds {} bytes of key, at least {KEY_BYTES} are needed", secret.len()),
            )),
            None => Err(Error::unusable(
                path,
                format!("is not a key in hexadecimal, such as `openssl rand -hex {KEY_BYTES}` prints"),
            )),
        }
    }

    /// A token that names `caller` for `ttl` from `now_s` (Unix time in seconds).
    pub fn sign(&self, caller: &Caller, now_s: u64, ttl: Duration) -> String {
        let claims = Claims { sub: caller.user.as_str(), exp: expires_s(now_s, ttl), admin: caller.admin };
        jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(&self.secret))
            .expect("an HMAC over three plain claims cannot fail")
    }

    pub(super) fn secret(&self) -> &[u8] {
        &self.secret
    }
}

/// When a token ends that is signed now: its `exp`, Unix time in seconds.
pub fn expires_s(now_s: u64, ttl: Duration) -> u64 {
    now_s.saturating_add(ttl.as_secs())
}

impl std::fmt::Debug for LocalKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LocalKey(secret)")
    }
}

/// Makes the file under another name first: a crash leaves a whole key or none.
fn create(directory: &Path, path: &Path) -> io::Result<()> {
    let unfinished: PathBuf = path.with_extension("key.unfinished");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut secret = [0; KEY_BYTES];
    getrandom::fill(&mut secret).map_err(|error| io::Error::other(error.to_string()))?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    file.write_all(to_hex(&secret).as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    File::open(directory)?.sync_all()
}

fn read_text(path: &Path) -> io::Result<String> {
    let file = File::open(path)?;
    let mode = file.metadata()?.mode();
    if mode & OTHERS_MODE != 0 {
        let mode = format!("{:o}", mode & 0o777);
        tracing::warn!(path = %path.display(), mode, "others can read the key that signs tokens: chmod 600 it");
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).chain(["\n".to_owned()]).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary directory")
    }

    #[test]
    fn the_first_start_makes_a_key_and_later_ones_keep_it() {
        let directory = directory();
        let made = LocalKey::open_or_create(directory.path()).expect("a key");
        let kept = LocalKey::open_or_create(directory.path()).expect("a key");
        assert_eq!(made.secret.len(), KEY_BYTES);
        assert_eq!(made.secret, kept.secret);
        let mode = fs::metadata(directory.path().join(FILE_NAME)).expect("the file").mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1);
    }

    #[test]
    fn two_directories_have_two_keys() {
        let (one, other) = (directory(), directory());
        let secret = |at: &tempfile::TempDir| LocalKey::open_or_create(at.path()).expect("a key").secret;
        assert_ne!(secret(&one), secret(&other));
    }

    #[test]
    fn what_a_crash_left_of_a_key_is_replaced() {
        let directory = directory();
        fs::write(directory.path().join("token.key.unfinished"), "12").expect("a file");
        LocalKey::open_or_create(directory.path()).expect("a key");
    }

    #[test]
    fn only_a_server_makes_a_key() {
        assert!(matches!(LocalKey::open(directory().path()), Err(Error::Io { .. })));
    }

    #[test]
    fn a_short_or_odd_key_is_refused_with_what_to_do() {
        let directory = directory();
        let path = directory.path().join(FILE_NAME);
        for (text, expected) in [
            ("", "0 bytes of key"),
            (&"ab".repeat(31) as &str, "31 bytes of key"),
            (&"a".repeat(65), "openssl rand -hex 32"),
            (&"zz".repeat(32), "openssl rand -hex 32"),
        ] {
            fs::write(&path, text).expect("a file");
            let refusal = LocalKey::open_or_create(directory.path()).expect_err("no key").to_string();
            assert!(refusal.contains(expected), "{text:?} gave {refusal}");
        }
        fs::write(&path, "aB".repeat(33) + "\r\n").expect("a file");
        assert_eq!(LocalKey::open(directory.path()).expect("a key").secret, [0xab; 33]);
    }
}
