use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
        RsaKeyPair,
    },
};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::config::schema::JwtAlgorithm;

const NOW: u64 = 1_800_000_000;

/// A private key of a test.
enum Signer {
    Rsa(Box<RsaKeyPair>),
    Ec(EcdsaKeyPair),
}

impl Signer {
    fn rsa() -> Self {
        Self::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key")))
    }

    fn ec() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"))
    }

    /// The public half as JWK.
    fn jwk(&self, more: Value) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match self {
            Self::Rsa(key) => {
                let public = key.public_key();
                let (n, e) = (public.modulus(), public.exponent());
                json!({ "kty": "RSA", "n": text(n.big_endian_without_leading_zero()), "e": text(e.big_endian_without_leading_zero()) })
            }
            Self::Ec(key) => {
                let point = key.public_key().as_ref();
                json!({ "kty": "EC", "crv": "P-256", "x": text(&point[1..33]), "y": text(&point[33..]) })
            }
        };
        let more = more.as_object().expect("an object").clone();
        jwk.as_object_mut().expect("an object").extend(more);
        jwk
    }

    fn sign(&self, message: &[u8], algorithm: &str) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let padding: &dyn aws_lc_rs::signature::RsaEncoding = match algorithm {
                    "PS256" => &RSA_PSS_SHA256,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(padding, &random, message, &mut signature).expect("a signature");
                signature
            }
            Self::Ec(key) => key.sign(&random, message).expect("a signature").as_ref().to_vec(),
        }
    }

    fn token(&self, head: &Value, payload: &Value) -> String {
        let message = message(head, payload);
        let algorithm = head["alg"].as_str().unwrap_or_default();
        let signature = self.sign(message.as_bytes(), algorithm);
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn message(head: &Value, payload: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(head), part(payload))
}

fn keys(jwks: &[Value], algorithms: &[JwtAlgorithm]) -> KeySet {
    KeySet::read(&json!({ "keys": jwks }).to_string(), algorithms).expect("keys")
}

fn terms(algorithms: &[JwtAlgorithm]) -> TokenTerms {
    TokenTerms {
        algorithms: algorithms.iter().map(|a| (*a).into()).collect(),
        issuers: ["https://id.example".into()].into(),
        audiences: ["games".into()].into(),
        leeway_s: 30,
    }
}

fn payload() -> Value {
    json!({ "iss": "https://id.example", "aud": "games", "sub": "ada", "exp": NOW + 600, "nbf": NOW - 5 })
}

/// The payload with `more` instead of its own members; `null` leaves one out.
fn with(more: &Value) -> Value {
    let mut payload = payload();
    let members = payload.as_object_mut().expect("an object");
    for (name, value) in more.as_object().expect("an object") {
        match value {
            Value::Null => drop(members.remove(name)),
            value => drop(members.insert(name.clone(), value.clone())),
        }
    }
    payload
}

const RSA: [JwtAlgorithm; 1] = [JwtAlgorithm::RS256];

#[test]
fn what_an_issuer_said_counts_while_its_time_lasts() {
    let (rsa, ec) = (Signer::rsa(), Signer::ec());
    let algorithms = [JwtAlgorithm::RS256, JwtAlgorithm::PS256, JwtAlgorithm::ES256];
    let keys = keys(&[rsa.jwk(json!({ "kid": "r" })), ec.jwk(json!({ "kid": "e" }))], &algorithms);
    let terms = terms(&algorithms);
    for (signer, head) in [
        (&rsa, json!({ "alg": "RS256", "kid": "r" })),
        (&rsa, json!({ "alg": "PS256", "kid": "r", "typ": "JWT" })),
        (&ec, json!({ "kid": "e", "alg": "ES256" })),
        // The only key that fits.
        (&ec, json!({ "alg": "ES256" })),
    ] {
        let verified = terms.verify(signer.token(&head, &payload()).as_bytes(), &keys, NOW);
        let verified = verified.unwrap_or_else(|fault| panic!("{head}: {fault:?}"));
        assert_eq!((verified.claims.one("sub"), verified.until_s), (Some("ada"), NOW + 630));
    }
    for more in [
        json!({ "aud": [ "others", "games" ] }),
        json!({ "exp": NOW - 29 }),
        json!({ "exp": NOW as f64 + 0.5 }),
        json!({ "nbf": NOW + 30 }),
        json!({ "nbf": null }),
        json!({ "exp": 1e300 }),
    ] {
        let token = ec.token(&json!({ "alg": "ES256", "kid": "e" }), &with(&more));
        assert!(terms.verify(token.as_bytes(), &keys, NOW).is_ok(), "{more}");
    }
}

#[test]
fn whatever_is_wrong_with_a_token_is_refused() {
    let (rsa, other) = (Signer::rsa(), Signer::rsa());
    let jwk = rsa.jwk(json!({ "kid": "r" }));
    let (keys, terms) = (keys(std::slice::from_ref(&jwk), &RSA), terms(&RSA));
    let head = json!({ "alg": "RS256", "kid": "r" });
    let good = rsa.token(&head, &payload());
    assert!(terms.verify(good.as_bytes(), &keys, NOW).is_ok());
    let unsigned = |algorithm: &str| message(&json!({ "alg": algorithm }), &payload()) + ".";
    // The public key as the secret of a HMAC, in the forms in which libraries have mistaken it.
    let secret = |secret: &[u8]| {
        let message = message(&json!({ "alg": "HS256", "kid": "r" }), &payload());
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let tag = hmac::sign(&key, message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
    };
    let modulus = URL_SAFE_NO_PAD.decode(jwk["n"].as_str().expect("a text")).expect("a number");
    let said = |more: Value| rsa.token(&head, &with(&more));
    let headed = |head: Value| rsa.token(&head, &payload());
    let (start, signature) = good.rsplit_once('.').expect("three parts");
    let forged = message(&head, &with(&json!({ "sub": "bob" }))) + "." + signature;
    let huge = said(json!({ "padding": "x".repeat(MOST_TOKEN_BYTES) }));
    let stranger = other.jwk(json!({ "kid": "r" }));
    for (what, token, fault) in [
        ("another payload", forged, TokenFault::Signature),
        ("no signature", format!("{start}."), TokenFault::Signature),
        ("a cut signature", good[..good.len() - 4].to_owned(), TokenFault::Signature),
        ("no base64", format!("{start}.%%%%"), TokenFault::Signature),
        ("the key of a stranger", other.token(&head, &payload()), TokenFault::Signature),
        (
            "a key of the token's own",
            other.token(&json!({ "alg": "RS256", "jwk": stranger }), &payload()),
            TokenFault::Signature,
        ),
        ("none", unsigned("none"), TokenFault::Algorithm),
        ("None", unsigned("None"), TokenFault::Algorithm),
        ("NONE", unsigned("NONE"), TokenFault::Algorithm),
        ("no algorithm", headed(json!({ "kid": "r" })), TokenFault::Malformed),
        ("the modulus as secret", secret(&modulus), TokenFault::Algorithm),
        ("the key's text as secret", secret(jwk.to_string().as_bytes()), TokenFault::Algorithm),
        ("another padding", headed(json!({ "alg": "PS256", "kid": "r" })), TokenFault::Algorithm),
        ("an unknown key", headed(json!({ "alg": "RS256", "kid": "s" })), TokenFault::UnknownKey),
        (
            "an extension",
            headed(json!({ "alg": "RS256", "kid": "r", "crit": ["exp"] })),
            TokenFault::Extended,
        ),
        (
            "a raw payload",
            headed(json!({ "alg": "RS256", "kid": "r", "b64": false })),
            TokenFault::Extended,
        ),
        ("expired", said(json!({ "exp": NOW - 30 })), TokenFault::Expired),
        ("without an end", said(json!({ "exp": null })), TokenFault::Endless),
        ("an end that is no number", said(json!({ "exp": "never" })), TokenFault::Endless),
        ("an end before time began", said(json!({ "exp": -1 })), TokenFault::Expired),
        ("not yet valid", said(json!({ "nbf": NOW + 31 })), TokenFault::Early),
        ("a begin that is no number", said(json!({ "nbf": "now" })), TokenFault::Early),
        ("another audience", said(json!({ "aud": "bank" })), TokenFault::Audience),
        ("other audiences", said(json!({ "aud": [ "bank", 7 ] })), TokenFault::Audience),
        ("no audience", said(json!({ "aud": null })), TokenFault::Audience),
        ("another issuer", said(json!({ "iss": "https://id.example/" })), TokenFault::Issuer),
        ("issuers", said(json!({ "iss": [ "https://id.example" ] })), TokenFault::Issuer),
        ("no issuer", said(json!({ "iss": null })), TokenFault::Issuer),
        ("a huge token", huge, TokenFault::Large),
        ("empty", String::new(), TokenFault::Malformed),
        ("dots", "..".into(), TokenFault::Malformed),
        ("two parts", start.to_owned(), TokenFault::Malformed),
        ("four parts", format!("{good}.x"), TokenFault::Signature),
        ("garbage", "\u{0}\u{7f}é.é.é".into(), TokenFault::Malformed),
        ("white space", format!(" {good}"), TokenFault::Malformed),
    ] {
        assert_eq!(terms.verify(token.as_bytes(), &keys, NOW), Err(fault), "{what}");
    }
    assert_eq!(terms.verify(b"\xff.\xff.\xff", &keys, NOW), Err(TokenFault::Malformed));
}

#[test]
fn a_token_without_the_name_of_its_key_does_not_choose_among_several() {
    let (one, two) = (Signer::rsa(), Signer::rsa());
    let both = keys(&[one.jwk(json!({ "kid": "1" })), two.jwk(json!({ "kid": "2" }))], &RSA);
    let verify = |token: &str, keys: &KeySet| terms(&RSA).verify(token.as_bytes(), keys, NOW);
    let unnamed = two.token(&json!({ "alg": "RS256" }), &payload());
    assert_eq!(verify(&unnamed, &both), Err(TokenFault::UnnamedKey));
    assert!(verify(&unnamed, &keys(&[two.jwk(json!({ "kid": "2" }))], &RSA)).is_ok());
    let swapped = one.token(&json!({ "alg": "RS256", "kid": "2" }), &payload());
    assert_eq!(verify(&swapped, &both), Err(TokenFault::Signature));
}

#[test]
fn keys_that_do_not_fit_the_algorithms_are_no_keys() {
    let (rsa, ec) = (Signer::rsa(), Signer::ec());
    let read = |jwks: &[Value], algorithms: &[JwtAlgorithm]| {
        KeySet::read(&json!({ "keys": jwks }).to_string(), algorithms)
            .map(|keys| keys.len())
            .map_err(|why| why.split(';').next().unwrap_or_default().to_owned())
    };
    let none = Err("no public key for RS256".to_owned());
    for (what, jwk) in [
        ("of another type", ec.jwk(json!({}))),
        ("for encryption", rsa.jwk(json!({ "use": "enc" }))),
        ("for other operations", rsa.jwk(json!({ "key_ops": [ "encrypt" ] }))),
        ("for another algorithm", rsa.jwk(json!({ "alg": "PS256" }))),
        ("of an unknown algorithm", rsa.jwk(json!({ "alg": "RSA-OAEP" }))),
        ("a secret", json!({ "kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0" })),
        ("of an unknown type", json!({ "kty": "AKP" })),
        ("no key", json!(7)),
    ] {
        assert_eq!(read(std::slice::from_ref(&jwk), &RSA), none, "{what}");
        let beside = [jwk, rsa.jwk(json!({ "kid": "good", "use": "sig", "alg": "RS256" }))];
        assert_eq!(read(&beside, &RSA), Ok(1), "{what}, beside a good one");
    }
    assert_eq!(read(&[], &RSA), Ok(0), "its issuer has revoked all");
    let revoked = keys(&[], &RSA);
    let token = rsa.token(&json!({ "alg": "RS256" }), &payload());
    let terms = terms(&RSA);
    assert_eq!(terms.verify(token.as_bytes(), &revoked, NOW).err(), Some(TokenFault::UnknownKey));
    let twins = [rsa.jwk(json!({ "kid": "a" })), Signer::rsa().jwk(json!({ "kid": "a" }))];
    assert_eq!(read(&twins, &RSA), Err("two keys are called `a`".to_owned()));
    let why = KeySet::read("<html>", &RSA).expect_err("no set").to_string();
    assert!(why.starts_with("no set of keys"), "{why}");
}

#[test]
fn seeds_of_tokens_keep_what_is_promised() {
    crate::config::fuzzing::replay("token", crate::policy::fuzzing::token);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn nothing_passes_that_a_configured_key_did_not_sign(
        at in 0usize..2000, byte in any::<u8>(), algorithm in 0usize..8, cut in 0usize..40, sub in "[a-z]{1,8}",
    ) {
        static SIGNER: std::sync::LazyLock<(Signer, Signer)> =
            std::sync::LazyLock::new(|| (Signer::ec(), Signer::ec()));
        let (ours, theirs) = &*SIGNER;
        let algorithms = [JwtAlgorithm::ES256, JwtAlgorithm::RS256];
        let keys = keys(&[ours.jwk(json!({ "kid": "k" }))], &algorithms);
        let terms = terms(&algorithms);
        let payload = with(&json!({ "sub": sub }));
        let good = ours.token(&json!({ "alg": "ES256", "kid": "k" }), &payload);
        prop_assert!(terms.verify(good.as_bytes(), &keys, NOW).is_ok());
        // Any byte changed: of the signature, too, where base64 has no spare bits here.
        let mut changed = good.clone().into_bytes();
        let at = at % changed.len();
        changed[at] = byte;
        if changed != good.as_bytes() {
            prop_assert!(terms.verify(&changed, &keys, NOW).is_err());
        }
        let name = ["ES256", "RS256", "HS256", "none", "ES384", "EdDSA", "es256", ""][algorithm];
        let forged = theirs.token(&json!({ "alg": name, "kid": "k" }), &payload);
        prop_assert!(terms.verify(forged.as_bytes(), &keys, NOW).is_err());
        prop_assert!(terms.verify(&good.as_bytes()[..good.len() - 1 - cut], &keys, NOW).is_err());
    }
}
