//! Pins: what a request and its response do to the pin of a player or a round.
//!
//! A pin holds a key on the version that it began with. Weights do not count for it. It ends when a response
//! says so, or when one of its times has passed; it moves when its version cannot serve it any more, or when an
//! operator moves it. All of that is decided here, from arguments; `registry/pins.rs` keeps the pins, and
//! `proxy/pin.rs` acts.
//!
//! The key of a round is often not in the request that begins it: the version makes it up, and its response
//! names it. For a key `path:round` the response to a creation names it in its `Location` (RFC 9110 section
//! 10.2.2), which is read by the paths of the routes that have `{round}`. Any other field of the response can be
//! configured.

mod cookie;

use std::time::Duration;

pub use self::cookie::{PinCookie, Said};
use super::{
    cohort::Cohort,
    matcher::{Params, RequestView},
};
use crate::config::{
    pattern::{KeySource, PathPattern, Segment},
    schema::{self, PinOnEject},
};

/// A pin as it is kept. Times are in seconds of one clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin {
    /// Number of the version.
    pub version: u16,
    /// When it began.
    pub began: u32,
    /// When it was used last.
    pub used: u32,
}

/// The times of a service's pins, and what an ejection does to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PinTerms {
    /// A pin ends after so many seconds without a request.
    pub idle: u32,
    /// A pin ends after so many seconds.
    pub limit: u32,
    /// What happens to pins of an ejected version.
    pub on_eject: PinOnEject,
}

/// What a version can do for its pins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// It serves them, whatever its weight.
    Serves,
    /// It is ejected, and an endpoint works.
    Ejected,
    /// None of its endpoints works, or it is in the file no more.
    Out,
}

/// What becomes of a pin when a request uses it, or at any other moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its version serves.
    Stays,
    /// It goes to the version that rules and weights give.
    Moves,
    /// It has ended: it was not used for too long.
    Idle,
    /// It has ended: it is too old.
    Limit,
}

impl PinTerms {
    /// The terms of a checked configuration.
    pub fn new(pin: &schema::Pin) -> Self {
        // Rounded up: no pin ends before its time.
        let seconds =
            |time: Duration| u32::try_from(time.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
        Self { idle: seconds(pin.idle), limit: seconds(pin.limit), on_eject: pin.on_eject }
    }

    /// Why `pin` has ended at `now`: [`Fate::Limit`] or [`Fate::Idle`]; `None` if it has not.
    pub fn ended(&self, pin: Pin, now: u32) -> Option<Fate> {
        if now.saturating_sub(pin.began) > self.limit {
            return Some(Fate::Limit);
        }
        (now.saturating_sub(pin.used) > self.idle).then_some(Fate::Idle)
    }

    /// When a cookie of a pin counts as used last, if it was made at `renewed`. It is made anew after a quarter of
    /// the time, so it may have been used that much later.
    pub fn used_until(&self, renewed: u32) -> u32 {
        renewed.saturating_add(self.idle / 4)
    }

    /// Whether a cookie that was made at `renewed` is to be made anew.
    pub fn renews(&self, renewed: u32, now: u32) -> bool {
        now > self.used_until(renewed)
    }

    /// The last moment at which `pin` may be used.
    pub fn last(&self, pin: Pin) -> u32 {
        pin.began.saturating_add(self.limit).min(pin.used.saturating_add(self.idle))
    }

    /// What becomes of `pin` at `now`, if its version is a `host` like this. Weights are no argument.
    pub fn fate(&self, pin: Pin, now: u32, host: Host) -> Fate {
        if let Some(ended) = self.ended(pin, now) {
            return ended;
        }
        match (host, self.on_eject) {
            (Host::Serves, _) | (Host::Ejected, PinOnEject::Hold) => Fate::Stays,
            (Host::Ejected, PinOnEject::Move) | (Host::Out, _) => Fate::Moves,
        }
    }
}

/// A move of all pins of a version to another one, by an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinMove {
    /// The version that had them.
    pub from: String,
    /// The version that has them.
    pub to: String,
    /// Pins that began after this time, in seconds since 1970, are none of them.
    pub before: u32,
    /// Its place among the moves of the service: a later one has a higher one. Never 0.
    pub order: u64,
}

/// The version of a pin to `version` that began then, after those of `moves` that are later than the move `known`,
/// in their order. 0: after all of them.
pub fn after_moves<'a>(moves: &'a [PinMove], version: &'a str, began: u32, known: u64) -> &'a str {
    let step = |version: &'a str, one: &'a PinMove| {
        let counts = one.order > known && began <= one.before;
        if counts && one.from == version { &*one.to } else { version }
    };
    moves.iter().fold(version, step)
}

/// The requests and responses that begin and end pins of a service.
#[derive(Debug, Clone)]
pub struct PinRules {
    key: Cohort,
    begin: Option<Asked>,
    /// Where a response names a key; `None` if only requests do.
    named: Option<NamedBy>,
    /// Whether the response names the key even if the request has one.
    is_named: bool,
    end: Option<End>,
    /// Times, and what an ejection does.
    pub terms: PinTerms,
}

/// Conditions on a request.
#[derive(Debug, Clone)]
struct Asked {
    path: Option<PathPattern>,
    methods: Box<[Box<str>]>,
}

/// Where a response names a key.
#[derive(Debug, Clone)]
enum NamedBy {
    /// A header field, in lower case.
    Header(Box<str>),
    /// Its `Location`: a path that begins with one of these, which end in the parameter.
    Location(Box<[Box<[Segment]>]>),
}

#[derive(Debug, Clone)]
struct End {
    asked: Asked,
    says: Option<Says>,
}

/// What a response says when it ends a pin.
#[derive(Debug, Clone)]
struct Says {
    /// A header field, in lower case.
    header: Box<str>,
    /// The values.
    is: Box<[Box<str>]>,
}

impl Asked {
    fn new(path: Option<&PathPattern>, methods: &[String]) -> Self {
        let methods = methods.iter().map(|method| method.as_str().into());
        Self { path: path.cloned(), methods: methods.collect() }
    }

    fn holds(&self, request: &RequestView<'_>) -> bool {
        (self.methods.is_empty() || self.methods.iter().any(|method| **method == *request.method))
            && self.path.as_ref().is_none_or(|path| matches(path, request.path))
    }
}

impl PinRules {
    /// The rules of a service whose routes have these `paths`.
    pub fn new<'a>(pin: &schema::Pin, paths: impl Iterator<Item = &'a PathPattern>) -> Self {
        let answer = pin.begin.as_ref().and_then(|begin| begin.answer.as_ref());
        let header = answer.map(|answer| answer.header.to_ascii_lowercase());
        let locations = match header.as_deref() {
            None | Some("location") => locations(pin.sources(), paths),
            Some(_) => Box::default(),
        };
        let named = match header {
            _ if !locations.is_empty() => Some(NamedBy::Location(locations)),
            Some(header) => Some(NamedBy::Header(header.into())),
            None => None,
        };
        Self {
            key: Cohort::exactly(pin.sources()),
            begin: pin.begin.as_ref().map(|b| Asked::new(b.path.as_ref(), &b.methods)),
            named: named.filter(|_| pin.begin.is_some()),
            is_named: answer.is_some(),
            end: pin.end.as_ref().map(|end| End {
                asked: Asked::new(end.path.as_ref(), &end.methods),
                says: end.answer.as_ref().map(|answer| {
                    let values = answer.is.as_slice().iter().map(|value| value.as_str().into());
                    let header = answer.header.to_ascii_lowercase().into();
                    Says { header, is: values.collect() }
                }),
            }),
            terms: PinTerms::new(pin),
        }
    }

    /// The key in `request` to a route with `params`.
    pub fn key<'a>(&self, request: &RequestView<'a>, params: &Params) -> Option<&'a [u8]> {
        self.key.present(request, params).map(|key| key.value)
    }

    /// Whether `request` begins a pin, and how: by its own key, if it `has_key`, or by the one in its response.
    pub fn begins(&self, request: &RequestView<'_>, has_key: bool) -> Begins {
        if self.begin.as_ref().is_some_and(|begin| !begin.holds(request)) {
            return Begins::Not;
        }
        match (has_key && !self.is_named, &self.named) {
            (true, _) => Begins::Now,
            (false, Some(_)) => Begins::WhenNamed,
            (false, None) => Begins::Not,
        }
    }

    /// Whether a successful response to `request` begins a pin that a cookie keeps.
    pub fn begins_cookie(&self, request: &RequestView<'_>) -> bool {
        self.begin.as_ref().is_none_or(|begin| begin.holds(request))
    }

    /// Whether the response to `request` may end its pin.
    pub fn may_end(&self, request: &RequestView<'_>) -> bool {
        self.end.as_ref().is_some_and(|end| end.asked.holds(request))
    }

    /// The key that a response with `status` names, for a request with [`Begins::WhenNamed`]. `field` returns
    /// the value of a header field by its name in lower case. A response that is no success names none.
    pub fn named<'b>(
        &self,
        status: u16,
        field: impl FnOnce(&str) -> Option<&'b [u8]>,
    ) -> Option<&'b [u8]> {
        if !(200..400).contains(&status) {
            return None;
        }
        let key = match self.named.as_ref()? {
            NamedBy::Header(name) => field(name)?,
            NamedBy::Location(paths) => {
                let path = path_of(std::str::from_utf8(field("location")?).ok()?);
                paths.iter().find_map(|pattern| last_of(pattern, path))?.as_bytes()
            }
        };
        Some(key.trim_ascii()).filter(|key| !key.is_empty())
    }

    /// Whether a response with `status` ends the pin of a request for which [`PinRules::may_end`] holds.
    pub fn ends<'b>(&self, status: u16, field: impl FnOnce(&str) -> Option<&'b [u8]>) -> bool {
        match self.end.as_ref().map(|end| &end.says) {
            None => false,
            Some(None) => (200..300).contains(&status),
            Some(Some(Says { header, is })) => {
                let said = field(header).map(<[u8]>::trim_ascii);
                said.is_some_and(|said| is.iter().any(|value| value.as_bytes() == said))
            }
        }
    }
}

/// Whether a request begins a pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begins {
    /// It does not.
    Not,
    /// With the key that it has, before it is sent to the version.
    Now,
    /// When the response has named the key.
    WhenNamed,
}

/// The beginnings of `paths` up to the parameters that are among `keys`.
fn locations<'a>(
    keys: &[KeySource],
    paths: impl Iterator<Item = &'a PathPattern>,
) -> Box<[Box<[Segment]>]> {
    let is_key = |name: &String| keys.contains(&KeySource::Path(name.clone()));
    let mut all: Vec<Box<[Segment]>> = Vec::new();
    for path in paths {
        let at = path.segments.iter().position(|s| matches!(s, Segment::Param(n) if is_key(n)));
        if let Some(beginning) = at.map(|at| path.segments[..=at].into())
            && !all.contains(&beginning)
        {
            all.push(beginning);
        }
    }
    all.into()
}

/// The segment of `path` at the place of the last one of `pattern`, if the ones before it match.
fn last_of<'b>(pattern: &[Segment], path: &'b str) -> Option<&'b str> {
    let mut segments = path.strip_prefix('/')?.split('/');
    let mut last = None;
    for expected in pattern {
        let segment = segments.next()?;
        if !fits(expected, segment) {
            return None;
        }
        last = Some(segment);
    }
    last
}

fn fits(expected: &Segment, segment: &str) -> bool {
    match expected {
        Segment::Literal(text) => text == segment,
        Segment::Param(_) => !segment.is_empty(),
    }
}

/// Whether `path` is one that `pattern` describes.
fn matches(pattern: &PathPattern, path: &str) -> bool {
    let Some(path) = path.strip_prefix('/') else { return false };
    let mut segments = path.split('/');
    pattern.segments.iter().all(|expected| segments.next().is_some_and(|s| fits(expected, s)))
        && (pattern.prefix || segments.next().is_none())
}

/// The path of `location`, an absolute URL or a path, without query and fragment.
fn path_of(location: &str) -> &str {
    let path = match location.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|b| b.is_ascii_alphanumeric()) => {
            rest.find('/').map_or("", |at| &rest[at..])
        }
        _ => location,
    };
    path.split(['?', '#']).next().unwrap_or(path)
}

#[cfg(test)]
mod tests;
