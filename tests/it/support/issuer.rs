//! An issuer of tokens: keys, tokens, and an origin that hands out the public halves.

use std::{
    io,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::Origin;

/// What the configuration of an issuer says beside its keys.
pub(crate) const TERMS: &str =
    "algorithms: [ ES256 ], issuer: 'https://id.example', audience: games";

/// An issuer with one key at a time.
#[derive(Clone)]
pub(crate) struct Issuer {
    key: Arc<Mutex<(String, EcdsaKeyPair)>>,
}

fn pair() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key")
}

impl Issuer {
    pub(crate) fn new() -> Self {
        Self { key: Arc::new(Mutex::new(("k1".to_owned(), pair()))) }
    }

    /// Takes a new key, called `kid`.
    pub(crate) fn rotate(&self, kid: &str) {
        *self.key.lock().expect("no panic") = (kid.to_owned(), pair());
    }

    /// The public half of the key, as a set.
    pub(crate) fn jwks(&self) -> String {
        let key = self.key.lock().expect("no panic");
        let (kid, point) = (&key.0, key.1.public_key().as_ref());
        let [x, y] = [&point[1..33], &point[33..]].map(|half| URL_SAFE_NO_PAD.encode(half));
        json!({ "keys": [ { "kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "x": x, "y": y } ] })
            .to_string()
    }

    /// A token of `player` that counts for ten minutes, with `more` instead of its own claims.
    pub(crate) fn token(&self, player: &str, more: Value) -> String {
        let mut payload = json!({
            "iss": "https://id.example", "aud": "games", "sub": player, "exp": now_s() + 600,
        });
        let more = more.as_object().expect("an object").clone();
        payload.as_object_mut().expect("an object").extend(more);
        self.signed(&payload.to_string())
    }

    /// A token of the player `sub`, which is written as JSON.
    pub(crate) fn token_of(&self, sub: &str) -> String {
        let iss = "https://id.example";
        let exp = now_s() + 600;
        self.signed(&format!(r#"{{"iss":"{iss}","aud":"games","sub":{sub},"exp":{exp}}}"#))
    }

    fn signed(&self, payload: &str) -> String {
        let key = self.key.lock().expect("no panic");
        let head = json!({ "alg": "ES256", "kid": key.0 });
        let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
        let message = format!("{}.{}", part(&head.to_string()), part(payload));
        let signature = key.1.sign(&SystemRandom::new(), message.as_bytes()).expect("a signature");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// As [`Self::token`], as the value of `Authorization`.
    pub(crate) fn bearer(&self, player: &str) -> String {
        format!("Bearer {}", self.token(player, json!({})))
    }

    /// An origin that answers with the keys.
    pub(crate) fn serve(&self) -> Origin {
        let issuer = self.clone();
        Origin::start(move |call| {
            call.skip_body()?;
            call.answer(200, issuer.jwks().as_bytes())
        })
    }

    /// As [`Self::serve`], but fails until `works`.
    pub(crate) fn serve_if(&self, works: impl Fn() -> bool + Send + Sync + 'static) -> Origin {
        let issuer = self.clone();
        Origin::start(move |call| -> io::Result<()> {
            call.skip_body()?;
            match works() {
                true => call.answer(200, issuer.jwks().as_bytes()),
                false => call.answer(500, b"out of order"),
            }
        })
    }
}

pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}
