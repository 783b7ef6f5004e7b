use std::fs;
use std::path::Path;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair, RsaKeyPair,
};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::*;

const NOW_S: u64 = 1_700_000_000;
const SECRET: [u8; 32] = [7; 32];

/// Base64 in the standard alphabet, padded; `url` for the other one, unpadded.
fn base64(bytes: &[u8], url: bool) -> String {
    let ends: &[u8] = if url { b"-_" } else { b"+/" };
    let alphabet: Vec<u8> =
        (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').chain(ends.to_vec()).collect();
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0_usize, |bits, i| bits << 8 | usize::from(*group.get(i).unwrap_or(&0)));
        for i in 0..=group.len() {
            text.push(char::from(alphabet[bits >> (18 - 6 * i) & 63]));
        }
        text.extend((group.len()..3).filter(|_| !url).map(|_| '='));
    }
    text
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = base64(der, false);
    let lines: Vec<_> = body.as_bytes().chunks(64).map(|line| str::from_utf8(line).expect("ASCII")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// A key pair of somebody else's.
struct Pair {
    algorithm: Algorithm,
    private_pem: String,
    public_pem: String,
}

impl Pair {
    fn ed25519() -> Self {
        let pair = Ed25519KeyPair::generate().expect("a key");
        let private: Pkcs8V1Der<'_> = pair.as_der().expect("PKCS #8");
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("X.509");
        Self::new(Algorithm::EdDSA, private.as_ref(), public.as_ref())
    }

    fn ecdsa(algorithm: Algorithm, curve: &'static EcdsaSigningAlgorithm) -> Self {
        let private = EcdsaKeyPair::generate_pkcs8(curve, &SystemRandom::new()).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(curve, private.as_ref()).expect("a key");
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("X.509");
        Self::new(algorithm, private.as_ref(), public.as_ref())
    }

    fn p256() -> Self {
        Self::ecdsa(Algorithm::ES256, &ECDSA_P256_SHA256_FIXED_SIGNING)
    }

    fn p384() -> Self {
        Self::ecdsa(Algorithm::ES384, &ECDSA_P384_SHA384_FIXED_SIGNING)
    }

    fn rsa() -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
        let private: Pkcs8V1Der<'_> = pair.as_der().expect("PKCS #8");
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("X.509");
        Self::new(Algorithm::RS256, private.as_ref(), public.as_ref())
    }

    fn new(algorithm: Algorithm, private: &[u8], public: &[u8]) -> Self {
        Self { algorithm, private_pem: pem("PRIVATE KEY", private), public_pem: pem("PUBLIC KEY", public) }
    }

    fn encoding(&self) -> EncodingKey {
        let pem = self.private_pem.as_bytes();
        match self.algorithm {
            Algorithm::EdDSA => EncodingKey::from_ed_pem(pem),
            Algorithm::RS256 => EncodingKey::from_rsa_pem(pem),
            _ => EncodingKey::from_ec_pem(pem),
        }
        .expect("a key")
    }

    fn sign(&self, kid: Option<&str>, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = kid.map(str::to_owned);
        jsonwebtoken::encode(&header, claims, &self.encoding()).expect("a token")
    }

    fn jwk(&self, kid: &str) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.encoding(), self.algorithm).expect("a JWK");
        jwk.common.key_id = Some(kid.to_owned());
        serde_json::to_value(jwk).expect("JSON")
    }
}

fn local_key(directory: &Path) -> LocalKey {
    let path = directory.join("token.key");
    fs::write(&path, SECRET.iter().map(|byte| format!("{byte:02x}")).collect::<String>()).expect("a file");
    LocalKey::read(&path).expect("a key")
}

fn verifier_of(public: &PublicKeys) -> Result<Verifier, Error> {
    let directory = tempfile::tempdir().expect("a directory");
    Verifier::new(&local_key(directory.path()), public)
}

fn verifier() -> Verifier {
    verifier_of(&PublicKeys::default()).expect("a verifier")
}

fn written(directory: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, text).expect("a file");
    path
}

fn with_pem(text: &str) -> Result<Verifier, Error> {
    let directory = tempfile::tempdir().expect("a directory");
    let pem_files = vec![written(&directory, "key.pem", text)];
    verifier_of(&PublicKeys { pem_files, ..PublicKeys::default() })
}

fn with_jwks(keys: &[Value]) -> Result<Verifier, Error> {
    let directory = tempfile::tempdir().expect("a directory");
    let jwks_file = Some(written(&directory, "jwks.json", &json!({"keys": keys}).to_string()));
    verifier_of(&PublicKeys { jwks_file, ..PublicKeys::default() })
}

fn claims() -> Value {
    json!({"sub": "alice", "exp": NOW_S + 60})
}

/// A token of the server's own key with any header fields.
fn signed(header: &Value, claims: &Value) -> String {
    let message = [header, claims].map(|part| base64(part.to_string().as_bytes(), true)).join(".");
    let key = EncodingKey::from_secret(&SECRET);
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).expect("a signature");
    format!("{message}.{signature}")
}

fn hs256(claims: &Value) -> String {
    signed(&json!({"alg": "HS256", "typ": "JWT"}), claims)
}

#[test]
fn a_token_of_the_local_key_names_its_user_until_it_expires() {
    let directory = tempfile::tempdir().expect("a directory");
    let caller = Caller { user: crate::message::UserId::parse("alice").expect("an id"), admin: false };
    let key = local_key(directory.path());
    let token = key.sign(&caller, NOW_S, std::time::Duration::from_secs(60));
    let verifier = Verifier::new(&key, &PublicKeys::default()).expect("a verifier");
    let expected = Verified { caller: caller.clone(), expires_s: NOW_S + 60 };
    assert_eq!(verifier.verify(&token, NOW_S), Ok(expected.clone()));
    assert_eq!(verifier.verify(&token, NOW_S + 60 - 1), Ok(expected));
    assert_eq!(verifier.verify(&token, NOW_S + 60), Err(Refusal::Expired));
    let admin = key.sign(&Caller { admin: true, ..caller }, NOW_S, std::time::Duration::from_secs(60));
    assert!(verifier.verify(&admin, NOW_S).expect("a caller").caller.admin);
}

#[test]
fn required_claims_are_required_and_have_their_types() {
    let verifier = verifier();
    for (claims, expected) in [
        (json!({"exp": NOW_S + 60}), Refusal::Malformed),
        (json!({"sub": "alice"}), Refusal::Malformed),
        (json!({"sub": 7, "exp": NOW_S + 60}), Refusal::Malformed),
        (json!({"sub": "", "exp": NOW_S + 60}), Refusal::Malformed),
        (json!({"sub": "a".repeat(129), "exp": NOW_S + 60}), Refusal::Malformed),
        (json!({"sub": "a\nb", "exp": NOW_S + 60}), Refusal::Malformed),
        (json!({"sub": "alice", "exp": "tomorrow"}), Refusal::Malformed),
        (json!({"sub": "alice", "exp": null}), Refusal::Malformed),
        (json!({"sub": "alice", "exp": -1}), Refusal::Malformed),
        (json!({"sub": "alice", "exp": 0}), Refusal::Expired),
        (json!({"sub": "alice", "exp": NOW_S}), Refusal::Expired),
        (
            json!({"sub": "alice", "exp": NOW_S + 60, "nbf": NOW_S + NOT_BEFORE_LEEWAY_S + 1}),
            Refusal::NotAccepted,
        ),
        (json!({"sub": "alice", "exp": NOW_S + 60, "nbf": NOW_S + 30}), Refusal::NotAccepted),
        (json!({"sub": "alice", "exp": NOW_S + 60, "nbf": "now"}), Refusal::Malformed),
        (json!(["alice"]), Refusal::Malformed),
    ] {
        assert_eq!(verifier.verify(&hs256(&claims), NOW_S), Err(expected), "{claims}");
    }
}

#[test]
fn times_may_be_fractions_and_clocks_may_differ_a_little() {
    let verifier = verifier();
    for claims in [
        json!({"sub": "alice", "exp": NOW_S as f64 + 1.5, "nbf": NOW_S as f64 - 0.5}),
        json!({"sub": "alice", "exp": NOW_S + 1}),
        json!({"sub": "alice", "exp": NOW_S + 60, "nbf": NOW_S + NOT_BEFORE_LEEWAY_S}),
        json!({"sub": "alice", "exp": 1e300, "nbf": null}),
    ] {
        assert!(verifier.verify(&hs256(&claims), NOW_S).is_ok(), "{claims}");
    }
}

#[test]
fn only_the_value_true_makes_an_admin() {
    let verifier = verifier();
    for (admin, expected) in [
        (json!(true), true),
        (json!(false), false),
        (json!("true"), false),
        (json!(1), false),
        (json!(null), false),
    ] {
        let token = hs256(&json!({"sub": "alice", "exp": NOW_S + 60, "admin": admin}));
        assert_eq!(verifier.verify(&token, NOW_S).expect("a caller").caller.admin, expected, "{admin}");
    }
}

#[test]
fn doubled_claims_are_malformed() {
    let parts = [r#"{"alg":"HS256"}"#, r#"{"sub":"alice","sub":"bob","exp":1700000060}"#];
    let message = parts.map(|part| base64(part.as_bytes(), true)).join(".");
    let key = EncodingKey::from_secret(&SECRET);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).expect("signed");
    assert_eq!(verifier().verify(&format!("{message}.{signature}"), NOW_S), Err(Refusal::Malformed));
}

#[test]
fn what_is_no_jwt_is_malformed() {
    let verifier = verifier();
    let huge = "a".repeat(crate::config::limits::TOKEN_BYTES_MAX + 1);
    for token in ["", ".", "..", "...", "a.b.c", "eyJ9.e30.", "\u{1F600}.a.b", &huge] {
        assert_eq!(verifier.verify(token, NOW_S), Err(Refusal::Malformed), "{token:?}");
    }
}

#[test]
fn another_signature_is_not_accepted() {
    let verifier = verifier();
    let token = hs256(&claims());
    let (message, signature) = token.rsplit_once('.').expect("three parts");
    let other = EncodingKey::from_secret(&[8; 32]);
    let forged = jsonwebtoken::crypto::sign(message.as_bytes(), &other, Algorithm::HS256).expect("signed");
    assert_eq!(verifier.verify(&format!("{message}.{forged}"), NOW_S), Err(Refusal::NotAccepted));
    assert_eq!(verifier.verify(&format!("{message}."), NOW_S), Err(Refusal::NotAccepted));
    assert_eq!(verifier.verify(&format!("{message}.{}", &signature[..40]), NOW_S), Err(Refusal::NotAccepted));
    // Control: the same parts with the right signature.
    assert!(verifier.verify(&format!("{message}.{signature}"), NOW_S).is_ok());
}

#[test]
fn the_algorithm_is_the_keys_and_never_the_tokens() {
    let verifier = verifier();
    for alg in ["none", "None", "HS384", "HS512", "RS256", "ES256", "EdDSA", ""] {
        let refusal = verifier.verify(&signed(&json!({"alg": alg}), &claims()), NOW_S);
        assert!(matches!(refusal, Err(Refusal::NotAccepted | Refusal::Malformed)), "{alg}: {refusal:?}");
    }
    let unsigned = format!("{}.{}.", base64(br#"{"alg":"none"}"#, true), base64(b"{}", true));
    assert!(verifier.verify(&unsigned, NOW_S).is_err());
}

#[test]
fn a_public_key_used_as_an_hmac_secret_is_not_accepted() {
    for pair in [Pair::rsa(), Pair::p256(), Pair::ed25519()] {
        let verifier = with_pem(&pair.public_pem).expect("a verifier");
        let key = EncodingKey::from_secret(pair.public_pem.as_bytes());
        let token = jsonwebtoken::encode(&Header::default(), &claims(), &key).expect("a token");
        assert_eq!(verifier.verify(&token, NOW_S), Err(Refusal::NotAccepted), "{:?}", pair.algorithm);
        // Control: the same pair, used as it should be.
        assert!(verifier.verify(&pair.sign(None, &claims()), NOW_S).is_ok(), "{:?}", pair.algorithm);
    }
}

#[test]
fn a_token_that_brings_its_own_key_or_rules_is_not_accepted() {
    let verifier = verifier();
    let jwk = Pair::p256().jwk("mine");
    for header in [
        json!({"alg": "HS256", "crit": ["b64"]}),
        json!({"alg": "HS256", "jwk": jwk}),
        json!({"alg": "HS256", "jku": "https://example.org/keys"}),
        json!({"alg": "HS256", "x5u": "https://example.org/cert"}),
        json!({"alg": "HS256", "enc": "A128GCM"}),
        json!({"alg": "HS256", "zip": "DEF"}),
    ] {
        assert_eq!(
            verifier.verify(&signed(&header, &claims()), NOW_S),
            Err(Refusal::NotAccepted),
            "{header}"
        );
    }
    let harmless = json!({"alg": "HS256", "kid": "any", "typ": "at+jwt", "x5t": "abc"});
    assert!(verifier.verify(&signed(&harmless, &claims()), NOW_S).is_ok());
}

#[test]
fn a_jwks_key_verifies_only_what_it_signed_and_the_kid_only_picks_it() {
    let (first, second) = (Pair::p256(), Pair::p256());
    let verifier = with_jwks(&[first.jwk("one"), second.jwk("two")]).expect("a verifier");
    for kid in [None, Some("two")] {
        assert!(verifier.verify(&second.sign(kid, &claims()), NOW_S).is_ok(), "{kid:?}");
    }
    for kid in ["one", "three", "../two"] {
        assert_eq!(
            verifier.verify(&second.sign(Some(kid), &claims()), NOW_S),
            Err(Refusal::NotAccepted),
            "{kid}"
        );
    }
    assert_eq!(verifier.verify(&Pair::p256().sign(Some("one"), &claims()), NOW_S), Err(Refusal::NotAccepted));
    assert!(verifier.verify(&hs256(&claims()), NOW_S).is_ok(), "the local key stays");
}

#[test]
fn every_public_algorithm_works_from_a_jwks() {
    for pair in [Pair::rsa(), Pair::p256(), Pair::ed25519()] {
        let verifier = with_jwks(&[pair.jwk("k")]).expect("a verifier");
        assert!(verifier.verify(&pair.sign(Some("k"), &claims()), NOW_S).is_ok(), "{:?}", pair.algorithm);
    }
}

#[test]
fn unusable_keys_of_a_jwks_are_passed_over_unless_none_is_left() {
    let good = Pair::ed25519();
    let mut for_encryption = Pair::p256().jwk("enc");
    for_encryption["use"] = json!("enc");
    let mut other_algorithm = Pair::rsa().jwk("ps");
    other_algorithm["alg"] = json!("PS256");
    let mut small = Pair::rsa().jwk("small");
    small["n"] = json!("AQAB");
    let unusable = [
        for_encryption,
        other_algorithm,
        small,
        Pair::p384().jwk("p384"),
        json!({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256", "kid": "oct"}),
        json!({"kty": "new", "kid": "new"}),
        json!("text"),
    ];
    let verifier = with_jwks(&[&unusable[..], &[good.jwk("good")]].concat()).expect("a verifier");
    assert_eq!(verifier.keys.len(), 2);
    assert!(verifier.verify(&good.sign(Some("good"), &claims()), NOW_S).is_ok());
    assert!(with_jwks(&unusable).expect_err("no key").to_string().contains("holds no key"));
}

#[test]
fn a_pem_that_is_no_usable_public_key_is_refused() {
    let pair = Pair::p256();
    for (text, expected) in [
        (pair.private_pem.as_str(), "private key"),
        ("", "no PUBLIC KEY"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "neither"),
        (&Pair::p384().public_pem, "another curve"),
    ] {
        let refusal = with_pem(text).expect_err("no verifier").to_string();
        assert!(refusal.contains(expected), "{refusal}");
    }
    let missing = PublicKeys { pem_files: vec!["no/such.pem".into()], ..PublicKeys::default() };
    let refusal = verifier_of(&missing).expect_err("no verifier").to_string();
    assert!(refusal.starts_with("--verify-key no/such.pem: "), "{refusal}");
}

#[test]
fn somebody_elses_token_has_to_be_meant_for_this_server() {
    let pair = Pair::ed25519();
    let directory = tempfile::tempdir().expect("a directory");
    let pem_files = vec![written(&directory, "key.pem", &pair.public_pem)];
    let open = PublicKeys { pem_files, ..PublicKeys::default() };
    let strict =
        PublicKeys { audience: Some("chat".to_owned()), issuer: Some("idp".to_owned()), ..open.clone() };
    let [open, strict] = [open, strict].map(|keys| verifier_of(&keys).expect("a verifier"));
    let accepts = |verifier: &Verifier, aud: Value, iss: Value| {
        let claims = json!({"sub": "alice", "exp": NOW_S + 60, "aud": aud, "iss": iss});
        verifier.verify(&pair.sign(None, &claims), NOW_S).is_ok()
    };
    assert!(accepts(&strict, json!("chat"), json!("idp")));
    assert!(accepts(&strict, json!(["mail", "chat"]), json!("idp")));
    assert!(!accepts(&strict, json!("mail"), json!("idp")));
    assert!(!accepts(&strict, json!("chat"), json!("other")));
    assert!(!accepts(&open, json!("chat"), json!("idp")));
    for verifier in [&open, &strict] {
        let bare = verifier.verify(&pair.sign(None, &claims()), NOW_S).is_ok();
        assert_eq!(bare, std::ptr::eq(verifier, &open));
    }
    let own = hs256(&json!({"sub": "alice", "exp": NOW_S + 60, "aud": "mail"}));
    assert!(strict.verify(&own, NOW_S).is_ok(), "the local key needs no audience");
}
