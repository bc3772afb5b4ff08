//! Who the clients of a route must be, compiled.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::authorizer::Authorizer;
use crate::{
    config::{
        Config,
        jwks::KeySet,
        pattern::KeySource,
        schema::{self, Jwt},
    },
    policy::token::TokenTerms,
    registry::{KeyStore, Registry},
    routing::{as_read, matcher::Condition},
};

/// An issuer of tokens, compiled.
#[derive(Debug)]
pub struct Issuer {
    /// Number of this compilation, unique in a process: tokens that were verified before a reload are verified again.
    pub number: u64,
    /// Its name in the configuration.
    pub name: Box<str>,
    /// What its tokens must be.
    pub terms: TokenTerms,
    /// Its keys.
    pub keys: Arc<KeyStore>,
    /// Where clients send the token: headers and cookies.
    pub from: Box<[KeySource]>,
    /// Header fields for the versions: name and claim.
    pub headers: Box<[(Box<str>, Box<str>)]>,
    /// Whether its keys are fetched, and may come.
    pub is_fetched: bool,
}

/// What a route asks of the client's token.
#[derive(Debug)]
pub struct Identity {
    /// The issuer.
    pub issuer: Arc<Issuer>,
    /// Whether a request needs a token.
    pub required: bool,
    /// Claims that the token must have.
    pub require: Box<[Condition]>,
}

/// All issuers and authorizers of a configuration, and the header fields that no client may send.
#[derive(Debug, Default)]
pub struct Issuers {
    all: Vec<Arc<Issuer>>,
    authorizers: Vec<Arc<Authorizer>>,
    /// The issuer whose claims are conditions of routes.
    pub routing: Option<Arc<Issuer>>,
    /// Fields that are written from claims and answers of authorizers, as applications may read them: in lower case, with `-` for what is no letter or digit.
    pub reserved: Arc<[Box<str>]>,
}

impl Issuers {
    /// Those of `config`; keys come from `registry`.
    pub(super) fn compile(config: &Config, registry: &Registry) -> Self {
        let compile = |(name, jwt): (&String, &Jwt)| Arc::new(Issuer::compile(name, jwt, registry));
        let all: Vec<Arc<Issuer>> = config.jwt.iter().map(compile).collect();
        let named = config.routes.iter().find(|route| !route.matches.claims.is_empty());
        let named = named.and_then(|route| route.auth.as_ref()?.jwt.as_deref());
        let names = config.jwt.values().flat_map(|jwt| jwt.headers.keys());
        let names = names.chain(config.authorizers.values().flat_map(|a| &a.copy));
        let read = |name: &String| name.bytes().map(as_read).map(char::from).collect::<String>();
        let mut reserved: Vec<Box<str>> = names.map(|name| read(name).into()).collect();
        reserved.sort();
        reserved.dedup();
        let routing = all.iter().find(|issuer| Some(&*issuer.name) == named).cloned();
        let authorizers = Authorizer::all(config, registry);
        Self { routing, all, authorizers, reserved: reserved.into() }
    }

    /// All issuers, in the order of the file.
    pub fn all(&self) -> &[Arc<Issuer>] {
        &self.all
    }

    /// All authorizers, in the order of the file.
    pub fn authorizers(&self) -> &[Arc<Authorizer>] {
        &self.authorizers
    }

    /// The authorizer that `auth` names.
    pub(super) fn authorizer(&self, auth: &schema::Auth) -> Option<Arc<Authorizer>> {
        let is_it = |known: &&Arc<Authorizer>| Some(&*known.name) == auth.external.as_deref();
        self.authorizers.iter().find(is_it).cloned()
    }

    /// What `auth` asks of tokens.
    pub(super) fn identity(&self, auth: &schema::Auth) -> Option<Identity> {
        let issuer = self.all.iter().find(|issuer| Some(&*issuer.name) == auth.jwt.as_deref())?;
        let require = auth.require.iter();
        Some(Identity {
            issuer: Arc::clone(issuer),
            required: auth.required != Some(false),
            require: require.map(|(name, v)| Condition::new(name, v.as_slice())).collect(),
        })
    }
}

impl Issuer {
    fn compile(name: &str, jwt: &Jwt, registry: &Registry) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let keys = registry.issuer_keys(name, jwt);
        if let Some(document) = &jwt.document
            && !keys.is_of(document)
            && let Ok(set) = KeySet::read(document, &jwt.algorithms)
        {
            keys.set(document, set);
        }
        Self {
            number: NEXT.fetch_add(1, Relaxed),
            name: name.into(),
            terms: TokenTerms::new(jwt),
            keys,
            from: jwt.from.as_slice().into(),
            headers: jwt
                .headers
                .iter()
                .map(|(n, c)| (n.as_str().into(), c.as_str().into()))
                .collect(),
            is_fetched: jwt.is_fetched(),
        }
    }
}
