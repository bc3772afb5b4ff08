//! The cohort key, which identifies players.

use super::matcher::{Params, RequestView};
use crate::config::pattern::KeySource;

/// The sources of a service's cohort key, in order; the client's address ends every list.
#[derive(Debug, Clone)]
pub struct Cohort {
    sources: Box<[Source]>,
}

#[derive(Debug, Clone)]
struct Source {
    source: KeySource,
    /// As in the file: `cookie:uid`.
    label: Box<str>,
}

/// A player's key and where it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CohortKey<'a> {
    /// The hashed value.
    pub value: &'a [u8],
    /// Number of the source in its list, for [`Cohort::label`].
    pub source: u16,
}

impl Cohort {
    /// Sources in order of preference.
    pub fn new(sources: &[KeySource]) -> Self {
        let mut sources: Vec<KeySource> = sources.to_vec();
        if !sources.contains(&KeySource::ClientIp) {
            sources.push(KeySource::ClientIp);
        }
        Self::exactly(&sources)
    }

    /// These sources in order of preference, and no other.
    pub fn exactly(sources: &[KeySource]) -> Self {
        let sources = sources.iter().cloned();
        let sources = sources.map(|source| Source { label: source.to_string().into(), source });
        Self { sources: sources.collect() }
    }

    /// The key of the player who sent `request` to a route with `params`. An empty value counts as
    /// absent: otherwise all players without a session would share one cohort.
    #[inline(always)]
    pub fn key<'a>(&self, request: &RequestView<'a>, params: &Params) -> CohortKey<'a> {
        let none = CohortKey { value: request.client_text, source: 0 };
        self.present(request, params).unwrap_or(none)
    }

    /// As [`Cohort::key`]; `None` if no source is present.
    #[inline(always)]
    pub fn present<'a>(&self, request: &RequestView<'a>, params: &Params) -> Option<CohortKey<'a>> {
        for (source, number) in self.sources.iter().zip(0u16..) {
            let value = match &source.source {
                KeySource::Header(name) => request.header(name),
                KeySource::Cookie(name) => request.cookie(name),
                KeySource::Query(name) => request.query_param(name).map(str::as_bytes),
                KeySource::Path(name) => params
                    .iter()
                    .find(|(param, _)| **param == **name)
                    .and_then(|(_, at)| request.segment(usize::from(*at)))
                    .map(str::as_bytes),
                KeySource::Claim(name) => request.claim(name),
                KeySource::ClientIp => Some(request.client_text),
            };
            if let Some(value) = value.filter(|v| !v.is_empty()) {
                return Some(CohortKey { value, source: number });
            }
        }
        None
    }

    /// Whether `request` has more than one value at one of the sources.
    pub fn is_doubled(&self, request: &RequestView<'_>) -> bool {
        self.sources.iter().any(|source| request.is_doubled(&source.source))
    }

    /// All sources as in the file, in their order.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().map(|source| &*source.label)
    }

    /// The source number `source` as in the file: `cookie:uid`.
    pub fn label(&self, source: u16) -> &str {
        self.sources.get(usize::from(source)).map_or("client-ip", |s| &s.label)
    }
}

#[cfg(test)]
mod tests {
    use httparse::Header;

    use super::*;

    #[test]
    fn the_first_source_present_decides() {
        let cohort = Cohort::new(&[
            KeySource::Header("x-player-id".into()),
            KeySource::Cookie("uid".into()),
            KeySource::Query("player".into()),
            KeySource::Path("player".into()),
        ]);
        let params: [(Box<str>, u16); 1] = [("player".into(), 1)];
        let key = |headers: &[Header<'_>], path: &str, query: &str, params: &Params| {
            let request = RequestView {
                method: "GET",
                host: "",
                path,
                query,
                headers,
                client: [10, 0, 0, 1].into(),
                client_text: b"10.0.0.1",
                claims: None,
            };
            let key = cohort.key(&request, params);
            (String::from_utf8_lossy(key.value).into_owned(), cohort.label(key.source).to_owned())
        };
        let header = Header { name: "X-Player-Id", value: b"p1" };
        let blank = Header { name: "X-Player-Id", value: b"" };
        let cookie = Header { name: "Cookie", value: b"theme=dark; uid=p2" };
        let expect = |got: (String, String), value: &str, label: &str| {
            assert_eq!((got.0.as_str(), got.1.as_str()), (value, label));
        };
        expect(key(&[cookie, header], "/", "player=p3", &params), "p1", "header:x-player-id");
        expect(key(&[cookie, blank], "/", "player=p3", &params), "p2", "cookie:uid");
        expect(key(&[], "/players/p4", "player=p3", &params), "p3", "query:player");
        expect(key(&[], "/players/p4", "", &params), "p4", "path:player");
        expect(key(&[], "/players/p4", "", &[]), "10.0.0.1", "client-ip");
    }
}
