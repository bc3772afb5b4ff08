//! Smoke checks: the next request from the values kept so far, and whether an answer is as expected; pure.
//!
//! The caller sends the requests and measures their times. Kept values may be tokens of players: a [`Failure`]
//! and a [`SmokeReport`] never contain one. Where an answer contains one, they show its name instead.

mod kept;
mod report;

use std::{fmt, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};
use regex_lite::Regex;
use serde_json::Value;
use serde_json_path::JsonPath;

use self::kept::{KeptValues, Place};
pub use self::report::{SmokeReport, SmokeStepReport};
use crate::config::{
    problem::escaped,
    schema::{
        HeaderExpectation, Kept, Scheme, SmokeCheck, SmokeExpectation, SmokeStep, Statuses,
        Template, json_path,
    },
};

/// Most characters of an answer that a failure shows.
const SHOWN: usize = 200;

/// Largest value that is kept, in bytes.
const LARGEST_KEPT: usize = 16 * 1024;

/// A compiled smoke check.
#[derive(Debug, Clone)]
pub struct Smoke {
    /// Longest time of all steps together.
    pub timeout: Duration,
    /// The host of all requests.
    pub host: String,
    /// The scheme that endpoints are told; `None` if that of the listeners.
    pub scheme: Option<Scheme>,
    steps: Vec<Step>,
}

#[derive(Debug, Clone)]
struct Step {
    /// The request as written, without values.
    label: String,
    method: String,
    target: Template,
    headers: Vec<(HeaderName, Template)>,
    json: Option<Value>,
    expect: Expectation,
    keep: Vec<(String, Kept)>,
}

#[derive(Debug, Clone)]
struct Expectation {
    status: Vec<Statuses>,
    within: Option<Duration>,
    headers: Vec<(HeaderName, HeaderMust)>,
    json: Vec<(JsonPath, Value)>,
}

#[derive(Debug, Clone)]
enum HeaderMust {
    Be(Template),
    Match(Regex),
}

/// A request to send.
pub struct SmokeRequest {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The path as it was written, without values.
    pub path: String,
    /// Fields beside `Host`.
    pub headers: HeaderMap,
    /// The body; empty if there is none.
    pub body: Vec<u8>,
    /// Longest time to the last byte of the answer.
    pub within: Option<Duration>,
}

/// An answer.
pub struct SmokeAnswer {
    /// Its status.
    pub status: u16,
    /// Its header fields.
    pub headers: HeaderMap,
    /// Its whole body.
    pub body: Vec<u8>,
    /// Time from the request to the last byte.
    pub took: Duration,
}

/// Why a step failed: what was expected, and what came instead. It contains no kept value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Smoke {
    /// Compiles `check`. The error says what is wrong with it, which `check` of the configuration finds, too.
    pub fn compile(check: &SmokeCheck) -> Result<Self, String> {
        Ok(Self {
            timeout: check.timeout,
            host: check.host.clone().unwrap_or_else(|| "localhost".to_owned()),
            scheme: check.scheme,
            steps: check.steps.iter().map(Step::compile).collect::<Result<_, _>>()?,
        })
    }

    /// The requests of its steps as they are written, in order.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().map(|step| &*step.label)
    }

    /// Begins to run it.
    pub fn begin(&self) -> SmokeRun<'_> {
        SmokeRun { smoke: self, kept: KeptValues::default(), next: 0 }
    }
}

impl Step {
    fn compile(step: &SmokeStep) -> Result<Self, String> {
        let fields = step.headers.iter();
        let fields = fields.map(|(name, value)| Ok((header_name(name)?, value.clone())));
        Ok(Self {
            label: step.request.to_string(),
            method: step.request.method.clone(),
            target: step.request.target.clone(),
            headers: fields.collect::<Result<_, String>>()?,
            json: step.json.clone(),
            expect: Expectation::compile(&step.expect)?,
            keep: step.keep.iter().map(|(name, kept)| (name.clone(), kept.clone())).collect(),
        })
    }
}

impl Expectation {
    fn compile(expect: &SmokeExpectation) -> Result<Self, String> {
        let headers = expect.headers.iter().map(|(name, must)| {
            let must = match must {
                HeaderExpectation::Is(text) => HeaderMust::Be(text.clone()),
                HeaderExpectation::Matches(pattern) => {
                    let pattern = Regex::new(&pattern.matches);
                    HeaderMust::Match(pattern.map_err(|error| error.to_string())?)
                }
            };
            Ok((header_name(name)?, must))
        });
        let json = expect.json.iter();
        let json = json.map(|(path, value)| Ok((json_path(path)?, value.clone())));
        Ok(Self {
            status: expect.status.as_slice().to_vec(),
            within: expect.within,
            headers: headers.collect::<Result<_, String>>()?,
            json: json.collect::<Result<_, String>>()?,
        })
    }
}

fn header_name(name: &str) -> Result<HeaderName, String> {
    HeaderName::try_from(name).map_err(|_| format!("`{name}` is not a header's name"))
}

/// A smoke check that runs: the values kept, and the number of the next step.
pub struct SmokeRun<'a> {
    smoke: &'a Smoke,
    kept: KeptValues,
    next: usize,
}

impl SmokeRun<'_> {
    /// The next request; `None` after the last step.
    pub fn request(&self) -> Option<Result<SmokeRequest, Failure>> {
        self.smoke.steps.get(self.next).map(|step| self.fill(step))
    }

    fn fill(&self, step: &Step) -> Result<SmokeRequest, Failure> {
        let mut headers = HeaderMap::new();
        for (name, template) in &step.headers {
            let text = self.kept.fill(template, Place::Header)?;
            let value = HeaderValue::try_from(text).map_err(|_| {
                Failure(format!(
                    "the field {name} cannot be sent: a kept value in it has control characters"
                ))
            })?;
            headers.append(name, value);
        }
        let body = match &step.json {
            None => Vec::new(),
            Some(json) => {
                headers.insert(
                    http::header::CONTENT_TYPE,
                    HeaderValue::from_static("application/json"),
                );
                self.kept.fill_json(json)?.to_string().into_bytes()
            }
        };
        Ok(SmokeRequest {
            method: step.method.clone(),
            target: self.kept.fill(&step.target, Place::Target)?,
            path: step.target.to_string().split('?').next().unwrap_or_default().to_owned(),
            headers,
            body,
            within: step.expect.within,
        })
    }

    /// Judges the answer to the next request, and keeps its values.
    pub fn judge(&mut self, answer: &SmokeAnswer) -> Result<(), Failure> {
        let Some(step) = self.smoke.steps.get(self.next) else { return Ok(()) };
        let body = (!answer.body.is_empty()).then(|| serde_json::from_slice(&answer.body));
        let body: Option<Value> = body.and_then(Result::ok);
        let mut kept = self.kept.clone();
        let taken = take(step, answer, body.as_ref(), &mut kept);
        // What this answer says must not be shown either, although later steps alone may use it.
        self.judge_status(step, answer, body.as_ref(), &kept)?;
        self.judge_headers(step, answer, &kept)?;
        self.judge_json(step, body.as_ref(), &kept)?;
        taken?;
        if let Some(within) = step.expect.within.filter(|within| answer.took > *within) {
            return Err(late(within, answer.took));
        }
        (self.kept, self.next) = (kept, self.next + 1);
        Ok(())
    }

    fn judge_status(
        &self,
        step: &Step,
        answer: &SmokeAnswer,
        body: Option<&Value>,
        masks: &KeptValues,
    ) -> Result<(), Failure> {
        let good = |statuses: &Statuses| (statuses.first..=statuses.last).contains(&answer.status);
        if step.expect.status.iter().any(good) {
            return Ok(());
        }
        let wanted: Vec<String> = step.expect.status.iter().map(Statuses::to_string).collect();
        // A body of a good status may hold a token that nobody asked to keep.
        let came = match (body, std::str::from_utf8(&answer.body)) {
            _ if answer.status < 400 || answer.body.is_empty() => String::new(),
            (Some(body), _) => format!(" with the body {}", masks.shown(&body.to_string())),
            (None, Ok(body)) => format!(" with the body {}", masks.shown(body)),
            (None, Err(_)) => String::new(),
        };
        let wanted = wanted.join(" or ");
        Err(Failure(format!("expected the status {wanted}, got {}{came}", answer.status)))
    }

    fn judge_headers(
        &self,
        step: &Step,
        answer: &SmokeAnswer,
        masks: &KeptValues,
    ) -> Result<(), Failure> {
        for (name, must) in &step.expect.headers {
            let values: Vec<&[u8]> =
                answer.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
            let (is_met, wanted) = match must {
                HeaderMust::Be(template) => {
                    let text = self.kept.fill(template, Place::Header)?;
                    (values.contains(&text.as_bytes()), format!("to be `{template}`"))
                }
                HeaderMust::Match(pattern) => {
                    let meets =
                        |v: &&[u8]| std::str::from_utf8(v).is_ok_and(|v| pattern.is_match(v));
                    (values.iter().any(meets), format!("to match `{pattern}`"))
                }
            };
            if is_met {
                continue;
            }
            let came: Vec<String> =
                values.iter().map(|v| masks.shown(&String::from_utf8_lossy(v))).collect();
            let came = if came.is_empty() { "there is none".to_owned() } else { came.join(", ") };
            return Err(Failure(format!("expected the field {name} {wanted}, got {came}")));
        }
        Ok(())
    }

    fn judge_json(
        &self,
        step: &Step,
        body: Option<&Value>,
        masks: &KeptValues,
    ) -> Result<(), Failure> {
        for (path, wanted) in &step.expect.json {
            let expected = format!("expected {path} to be {}", bounded(&wanted.to_string()));
            let Some(body) = body else {
                return Err(Failure(format!("{expected}, got a body that is not JSON")));
            };
            let filled = self.kept.fill_json(wanted)?;
            let came = match only(path, body) {
                Ok(came) if is_same(came, &filled) => continue,
                Ok(came) => masks.shown_json(came),
                Err(why) => why,
            };
            return Err(Failure(format!("{expected}, got {came}")));
        }
        Ok(())
    }
}

/// The failure of an answer that took too long.
fn late(within: Duration, took: Duration) -> Failure {
    let within = humantime::format_duration(within);
    Failure(format!("expected the answer within {within}, it took {} ms", took.as_millis()))
}

/// Puts the values that `step` keeps of `answer` into `kept`, as far as they are there; fails if one is not.
fn take(
    step: &Step,
    answer: &SmokeAnswer,
    body: Option<&Value>,
    kept: &mut KeptValues,
) -> Result<(), Failure> {
    let mut all = Ok(());
    for (name, source) in &step.keep {
        let value = match source {
            Kept::Json(path) => match body {
                Some(body) => only(path, body).cloned(),
                None => Err("a body that is not JSON".to_owned()),
            },
            Kept::Header(field) => answer
                .headers
                .get(field)
                .and_then(|value| value.to_str().ok())
                .map(|text| Value::String(text.to_owned()))
                .ok_or_else(|| "no such field".to_owned()),
            Kept::Cookie(cookie) => set_cookie(&answer.headers, cookie)
                .map(Value::String)
                .ok_or_else(|| "no such cookie".to_owned()),
        };
        let value = value.and_then(|value| match &value {
            Value::String(text) if text.len() > LARGEST_KEPT => {
                Err(format!("a text of more than {LARGEST_KEPT} bytes"))
            }
            Value::String(_) | Value::Number(_) | Value::Bool(_) => Ok(value),
            Value::Null => Err("null".to_owned()),
            _ => Err("a list or an object".to_owned()),
        });
        match value {
            Ok(value) => kept.put(name, value),
            Err(why) if all.is_ok() => {
                all = Err(Failure(format!("expected {source} to keep as `{name}`, got {why}")));
            }
            Err(_) => {}
        }
    }
    all
}

/// The value of the cookie `name` that an answer sets.
fn set_cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let set = headers.get_all(http::header::SET_COOKIE).iter();
    set.filter_map(|value| value.to_str().ok()).find_map(|text| {
        let (found, value) = text.split(';').next()?.split_once('=')?;
        (found.trim() == name).then(|| value.trim().trim_matches('"').to_owned())
    })
}

/// The only value to which `path` leads, or what is there instead.
fn only<'v>(path: &JsonPath, body: &'v Value) -> Result<&'v Value, String> {
    let nodes = path.query(body);
    match (nodes.len(), nodes.first()) {
        (1, Some(value)) => Ok(value),
        (0, _) | (_, None) => Err("nothing at that path".to_owned()),
        (several, _) => Err(format!("{several} values")),
    }
}

/// Whether two values are equal; `1` and `1.0` are.
fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            one == other || (one.is_f64() || other.is_f64()) && one.as_f64() == other.as_f64()
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(a, b)| is_same(a, b))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(name, a)| other.get(name).is_some_and(|b| is_same(a, b)))
        }
        (one, other) => one == other,
    }
}

/// The beginning of `text`, in one line.
fn bounded(text: &str) -> String {
    let beginning: String = text.chars().take(SHOWN).collect();
    let mut shown = escaped(&beginning);
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests;
