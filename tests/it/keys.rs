//! Public keys and key sets: whose tokens are accepted when the operator configures them.

use jsonwebtoken::Algorithm;
use serde_json::json;

use crate::support::{
    Arrangement, Client, Process, TestServer, claims_of, key_path, sign_with_pem, sign_with_secret,
};

const KEYS: [(&str, Algorithm); 3] =
    [("ed25519", Algorithm::EdDSA), ("p256", Algorithm::ES256), ("rsa", Algorithm::RS256)];

fn path(name: &str) -> String {
    key_path(name).to_str().expect("UTF-8").to_owned()
}

fn sign(key: &str, algorithm: Algorithm, kid: Option<&str>) -> String {
    sign_with_pem(&format!("{key}.private.pem"), algorithm, kid, &claims_of("alice"))
}

fn status(server: &TestServer, token: String) -> u16 {
    let pull = json!({"direction": "after", "start_msg_index": 1, "count": 1});
    Client::new(server.ready().http, "alice", token).with("bob").call("pull", &pull).status
}

#[test]
fn each_kind_of_public_key_opens_the_door_to_its_own_tokens_only() {
    for (name, _) in KEYS {
        let server = TestServer::start_with(&["--verify-key", &path(&format!("{name}.public.pem"))]);
        for (other, algorithm) in KEYS {
            let expected = if other == name { 200 } else { 401 };
            let token = sign(other, algorithm, None);
            assert_eq!(status(&server, token), expected, "a token of {other} where {name} is accepted");
        }
    }
}

#[test]
fn a_key_of_the_same_kind_by_somebody_else_is_refused() {
    let server = TestServer::start_with(&["--verify-key", &path("rsa.public.pem")]);
    // RS384 and PS256 are signatures by the right key under another algorithm than the key's.
    for algorithm in [Algorithm::RS384, Algorithm::RS512, Algorithm::PS256] {
        assert_eq!(status(&server, sign("rsa", algorithm, None)), 401, "{algorithm:?}");
    }
    assert_eq!(status(&server, sign_with_secret(&[0; 32], &claims_of("alice"))), 401);
}

#[test]
fn a_key_set_is_accepted_with_and_without_the_keys_name() {
    let server = TestServer::start_with(&["--jwks", &path("jwks.json")]);
    for ((name, algorithm), kid) in KEYS.into_iter().zip(["ed", "p256", "rsa"]) {
        assert_eq!(status(&server, sign(name, algorithm, Some(kid))), 200, "{kid}");
        assert_eq!(status(&server, sign(name, algorithm, Some("nobody"))), 401, "{name} under another name");
    }
    assert_eq!(status(&server, sign("ed25519", Algorithm::EdDSA, Some("rsa"))), 401);
    assert_eq!(status(&server, sign("ed25519", Algorithm::EdDSA, None)), 200);
}

#[test]
fn claims_are_checked_under_public_keys_too() {
    let server = TestServer::start_with(&["--verify-key", &path("p256.public.pem")]);
    for claims in
        [json!({"sub": "alice"}), json!({"sub": "alice", "exp": 1}), json!({"exp": 9_999_999_999_u64})]
    {
        let token = sign_with_pem("p256.private.pem", Algorithm::ES256, None, &claims);
        assert_eq!(status(&server, token), 401, "{claims}");
    }
}

#[test]
fn a_key_file_that_cannot_be_used_is_2_and_named() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let junk = directory.path().join("junk.pem");
    std::fs::write(&junk, "no key").expect("a file");
    let junk = junk.to_str().expect("UTF-8");
    let data = directory.path().join("data");
    for (flag, file) in [
        ("--verify-key", junk),
        ("--verify-key", &path("rsa.private.pem")),
        ("--verify-key", &path("jwks.json")),
        ("--jwks", junk),
        ("--jwks", &path("rsa.public.pem")),
        ("--jwks", "/"),
        ("--verify-key", "no/such.pem"),
    ] {
        let finished = Process::run(Arrangement::flags(&[flag, file]).command(&data));
        assert_eq!(finished.code(), Some(2), "{flag} {file}: {finished:?}");
        finished.assert_says(&[flag, file]);
    }
}

#[test]
fn a_token_key_that_is_too_short_is_refused_and_kept() {
    let mut server = TestServer::start();
    server.stop();
    let file = server.data().join("token.key");
    std::fs::write(&file, "abcd\n").expect("a file");
    let finished = server.start_in_vain();
    assert_eq!(finished.code(), Some(2), "{finished:?}");
    finished.assert_says(&["token.key"]);
    assert_eq!(std::fs::read(&file).expect("the file"), b"abcd\n");
}

#[test]
fn the_key_is_for_its_owner_only_and_outlives_restarts() {
    use std::os::unix::fs::PermissionsExt;
    let mut server = TestServer::start();
    let file = server.data().join("token.key");
    let mode = std::fs::metadata(&file).expect("the key").permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
    let token = server.sign(&claims_of("alice"));
    server.kill();
    server.start_again();
    assert_eq!(status(&server, token), 200);
}
