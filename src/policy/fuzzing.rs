//! Properties of tokens and idempotency keys that must hold for any input; used by `fuzz/`, and by the tests with the seeds of its corpus.

use super::{
    idempotency::{LONGEST_KEY, Spelling, parse_key},
    token::{MOST_TOKEN_BYTES, TokenTerms},
};
use crate::{
    config::{
        jwks::KeySet,
        schema::{Jwt, JwtAlgorithm},
    },
    routing::Claims,
};

/// The example of RFC 7515 appendix A.3, whose private key nobody is to use.
const KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

/// Its token counts at this time.
const THEN: u64 = 1_300_819_000;

/// Whatever the bytes, a token is judged without a panic, and only the one that the key signed counts. As a set of keys, they are
/// keys or are none; as a payload, their claims can be read.
pub fn token(input: &[u8]) {
    let (algorithms, jwt) = (vec![JwtAlgorithm::ES256], |algorithms| {
        let text = serde_json::json!({ "jwks": "k", "algorithms": algorithms, "issuer": "joe", "leeway": "1ms" });
        serde_json::from_value::<Jwt>(text).expect("a configuration")
    });
    let keys = KeySet::read(KEYS, &algorithms).expect("a key");
    let terms = TokenTerms::new(&jwt(algorithms));
    if let Ok(verified) = terms.verify(input, &keys, THEN) {
        assert!(input.len() <= MOST_TOKEN_BYTES);
        assert_eq!(verified.claims.one("iss"), Some("joe"));
        assert_eq!(verified.claims.one("http://example.com/is_root"), Some("true"));
        assert_eq!(verified.until_s, 1_300_819_380);
    }
    assert!(terms.verify(input, &keys, 1_300_819_380).is_err(), "it has expired");
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(set) = KeySet::read(text, &[JwtAlgorithm::ES256, JwtAlgorithm::RS256]) {
        assert!(terms.verify(input, &set, THEN).is_err());
    }
    if let Ok(payload) = serde_json::from_str::<serde_json::Map<_, _>>(text) {
        let claims = Claims::new(input).expect("an object");
        assert!(payload.keys().all(|name| claims.all(name).len() <= input.len()));
    }
}

/// Whatever the value of the field, it is a key or is none. A key has a bound and no byte that could end a line, and is written
/// as it was read: so a version cannot take two spellings for two keys. Written in either way it is the same key, unless it
/// cannot be without quotes.
pub fn idempotency_key(input: &[u8]) {
    let Ok(key) = parse_key(input) else { return };
    assert!((1..=LONGEST_KEY).contains(&key.len()));
    assert!(key.iter().all(|byte| matches!(byte, b' '..=b'~')));
    let own = Spelling::of(input);
    assert_eq!(own.write(&key), input.trim_ascii());
    assert_eq!(parse_key(&Spelling::Quoted.write(&key)).as_deref(), Ok(&*key));
    let bare = Spelling::Bare.write(&key);
    let again = parse_key(&bare);
    assert!(again.as_deref() == Ok(&*key) || own == Spelling::Quoted);
}
