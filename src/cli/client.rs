//! Client of a running instance's admin endpoint: one connection per request.

use std::{
    env,
    ffi::OsStr,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use http::{Uri, uri::Authority};
use reqwest::{
    Method, RequestBuilder, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, IF_MATCH},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    runtime::{Builder, Runtime},
    time::timeout,
};

use super::failure::{Exit, Failure};
use crate::{
    admin::{auth::SECOND, problem::Document},
    config::{
        problem::escaped,
        schema::{ClientIdentity, VersionTls},
    },
    http_client::{self, why},
    tls::{self, HTTP_1_1},
};

/// Longest wait for a response: longer than the endpoint's own timeout.
const PATIENCE: Duration = Duration::from_secs(15);

/// A stream has a keep-alive message every 15 s: after three missing ones it is dead.
const SILENCE: Duration = Duration::from_secs(45);

/// Largest response: tens of thousands of versions.
const ANSWER_BYTES: usize = 64 << 20;

/// Address and token for the admin endpoint.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ClientArguments {
    /// URL of the admin endpoint.
    #[arg(
        long,
        value_name = "URL",
        env = "TIDEGATE_ADMIN",
        default_value = "http://127.0.0.1:9090",
        value_parser = endpoint
    )]
    admin: Endpoint,
    /// File with the token, if the admin endpoint requires one.
    #[arg(long, value_name = "FILE", env = "TIDEGATE_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// PEM file of the authorities that sign the certificate of an https endpoint. Default: those of the system.
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CA")]
    ca: Option<PathBuf>,
    /// PEM file of a certificate to show to an https endpoint.
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CERT", requires = "key")]
    cert: Option<PathBuf>,
    /// PEM file of the private key of that certificate.
    #[arg(long, value_name = "FILE", env = "TIDEGATE_KEY", requires = "cert")]
    key: Option<PathBuf>,
}

/// Options of the commands that show something.
#[derive(Debug, clap::Args)]
pub(super) struct ShowArguments {
    /// Print the response of the admin endpoint as one JSON object.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) client: ClientArguments,
}

/// Where an admin endpoint is.
#[derive(Debug, Clone)]
struct Endpoint {
    is_encrypted: bool,
    authority: Authority,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.authority.fmt(f)
    }
}

/// A request to the admin endpoint.
#[derive(Debug)]
pub(super) struct Call {
    /// Method.
    pub(super) method: Method,
    /// Path and query.
    pub(super) target: String,
    /// Body, as JSON.
    pub(super) body: Option<String>,
    /// Generation that must be in force.
    pub(super) if_generation: Option<u64>,
    /// File with the token of a second person who agrees.
    pub(super) second: Option<PathBuf>,
}

impl Call {
    /// Reads `target`.
    pub(super) fn get(target: impl Into<String>) -> Self {
        let (body, if_generation, second) = (None, None, None);
        Self { method: Method::GET, target: target.into(), body, if_generation, second }
    }

    /// Sends `request` to `target` as JSON. Fails if it cannot be JSON.
    pub(super) fn post(
        target: impl Into<String>,
        request: &impl Serialize,
    ) -> Result<Self, Failure> {
        let body = serde_json::to_string(request);
        let body = Some(body.map_err(|error| Failure::new(Exit::Fault, error))?);
        let (if_generation, second) = (None, None);
        Ok(Self { method: Method::POST, target: target.into(), body, if_generation, second })
    }
}

impl ClientArguments {
    /// The endpoint's host and port.
    pub(super) fn authority(&self) -> &Authority {
        &self.admin.authority
    }

    /// Makes `call` and returns the JSON of the response.
    pub(super) fn call<T: DeserializeOwned>(&self, call: Call) -> Result<T, Failure> {
        serde_json::from_slice(&self.exchanged(call, PATIENCE)?)
            .map_err(|error| self.strange(&error))
    }

    /// As [`Self::call`]; the endpoint may take `longer` than usual.
    pub(super) fn call_within<T: DeserializeOwned>(
        &self,
        call: Call,
        longer: Duration,
    ) -> Result<T, Failure> {
        let body = self.exchanged(call, PATIENCE + longer)?;
        serde_json::from_slice(&body).map_err(|error| self.strange(&error))
    }

    /// Makes `call` and returns the text of the response.
    pub(super) fn text(&self, call: Call) -> Result<String, Failure> {
        String::from_utf8(self.exchanged(call, PATIENCE)?).map_err(|error| self.strange(&error))
    }

    fn strange(&self, error: &dyn std::fmt::Display) -> Failure {
        let error = escaped(&error.to_string());
        let message = format!("{} does not answer as an admin endpoint does: {error}", self.admin);
        Failure::new(Exit::Unavailable, message)
    }

    fn exchanged(&self, call: Call, patience: Duration) -> Result<Vec<u8>, Failure> {
        self.answered(self.request(call, "application/json")?, patience)
    }

    fn answered(&self, request: RequestBuilder, patience: Duration) -> Result<Vec<u8>, Failure> {
        let exchange = async {
            let answer =
                request.timeout(patience).send().await.map_err(|error| self.failed(&error))?;
            self.whole(answer).await
        };
        runtime()?.block_on(exchange)
    }

    /// Reads lines of `target` as they arrive, while `takes` returns true; returns at the end of
    /// the stream.
    pub(super) fn stream(
        &self,
        target: &str,
        mut takes: impl FnMut(&str) -> bool,
    ) -> Result<(), Failure> {
        let request = self.request(Call::get(target), "text/event-stream")?;
        runtime()?.block_on(async {
            let begun = timeout(PATIENCE, request.send()).await;
            let answer = begun.map_err(|_| self.unreachable(&no_answer()))?;
            let mut answer = answer.map_err(|error| self.failed(&error))?;
            if !answer.status().is_success() {
                return self.whole(answer).await.map(drop);
            }
            let mut held = Vec::new();
            // A broken or silent stream has ended; the caller may connect again.
            while let Ok(Ok(Some(part))) = timeout(SILENCE, answer.chunk()).await {
                held.extend_from_slice(&part);
                while let Some(end) = held.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = held.drain(..=end).collect();
                    if !takes(String::from_utf8_lossy(&line).trim_end()) {
                        return Ok(());
                    }
                }
                if held.len() > ANSWER_BYTES {
                    return Err(self.unreachable("a line without an end"));
                }
            }
            Ok(())
        })
    }

    /// The complete body of `answer`, or the failure that it reports.
    async fn whole(&self, mut answer: Response) -> Result<Vec<u8>, Failure> {
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(|error| self.failed(&error))? {
            body.extend_from_slice(&part);
            if body.len() > ANSWER_BYTES {
                let most = ANSWER_BYTES >> 20;
                return Err(self.unreachable(&format!("an answer of more than {most} MiB")));
            }
        }
        if status.is_success() { Ok(body) } else { Err(refusal(status, &body)) }
    }

    fn failed(&self, error: &reqwest::Error) -> Failure {
        self.unreachable(&if error.is_timeout() { no_answer() } else { why(error) })
    }

    fn unreachable(&self, why: &str) -> Failure {
        let message = format!("the admin endpoint at {} cannot be reached: {why}", self.admin);
        Failure::new(Exit::Unavailable, message)
    }

    fn request(&self, call: Call, accepts: &str) -> Result<RequestBuilder, Failure> {
        let tls = self.tls()?;
        let client = http_client::client(tls.as_ref());
        let client = client.map_err(|error| Failure::new(Exit::Fault, error))?;
        let scheme = if self.admin.is_encrypted { "https" } else { "http" };
        let url = format!("{scheme}://{}{}", self.admin, call.target);
        let mut request = client.request(call.method, url).header(ACCEPT, accepts);
        if let Some(file) = &self.token_file {
            request = request.header(AUTHORIZATION, bearer(file)?);
        }
        if let Some(file) = &call.second {
            request = request.header(SECOND, bearer(file)?);
        }
        if let Some(generation) = call.if_generation {
            request = request.header(IF_MATCH, format!("\"{generation}\""));
        }
        Ok(match call.body {
            Some(body) => request.header(CONTENT_TYPE, "application/json").body(body),
            None => request,
        })
    }
}

impl ClientArguments {
    /// The settings of TLS, if the endpoint is encrypted.
    fn tls(&self) -> Result<Option<tls::Client>, Failure> {
        if !self.admin.is_encrypted {
            let given =
                [(&self.ca, "--ca", "TIDEGATE_CA"), (&self.cert, "--cert", "TIDEGATE_CERT")];
            let unused = given.into_iter().find_map(|(file, option, variable)| {
                unused(file.as_deref(), (option, variable), env::var_os(variable).as_deref())
            });
            return match unused {
                Some(what) => {
                    let message =
                        format!("{what} not used by http://; write --admin https://{}", self.admin);
                    Err(Failure::new(Exit::Arguments, message))
                }
                None => Ok(None),
            };
        }
        let client = self.cert.clone().zip(self.key.clone());
        let client = client.map(|(cert, key)| ClientIdentity { cert, key });
        let tls = VersionTls { ca: self.ca.clone(), client, ..VersionTls::default() };
        let opened = tls::Client::open(&tls, &[HTTP_1_1]);
        opened.map(Some).map_err(|error| Failure::new(Exit::File, error))
    }
}

/// The subject, with its verb, of an error about an option that is not used: the `variable`, if the value is from there.
fn unused(
    file: Option<&Path>,
    (option, variable): (&str, &str),
    environment: Option<&OsStr>,
) -> Option<String> {
    let file = file?;
    Some(match environment == Some(file.as_os_str()) {
        true => format!("`{variable}` of the environment is set, and is"),
        false => format!("`{option}` is"),
    })
}

/// The value of a field with the token in `file`.
fn bearer(file: &Path) -> Result<HeaderValue, Failure> {
    let bad_file = |message: String| Failure::new(Exit::File, message);
    let shown = file.display();
    let text = std::fs::read_to_string(file).map_err(|e| bad_file(format!("{shown}: {e}")))?;
    let value = HeaderValue::try_from(format!("Bearer {}", text.trim()));
    let mut value = value.map_err(|_| bad_file(format!("{shown} holds no token")))?;
    value.set_sensitive(true);
    Ok(value)
}

fn runtime() -> Result<Runtime, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::new(Exit::Fault, error))
}

fn no_answer() -> String {
    format!("no answer in {} s", PATIENCE.as_secs())
}

/// Parses the URL of an admin endpoint.
fn endpoint(url: &str) -> Result<Endpoint, String> {
    const FORMS: &str = "write http://HOST:PORT or https://HOST:PORT";
    let uri: Uri = url.parse().map_err(|error| format!("{error}; {FORMS}"))?;
    let parts = uri.into_parts();
    let is_encrypted = match parts.scheme.as_ref().map(|scheme| scheme.as_str()) {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(format!("{FORMS}, without a path")),
    };
    let bare = parts.path_and_query.is_none_or(|path| path == "/");
    match parts.authority {
        Some(authority) if bare && !authority.as_str().contains('@') => {
            Ok(Endpoint { is_encrypted, authority })
        }
        _ => Err(format!("{FORMS}, without a path")),
    }
}

/// Checks that a name is one that the configuration allows, so that it needs no encoding in a path.
pub(super) fn service_name(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if text.is_empty() || !text.bytes().all(allowed) {
        return Err("a name has letters, digits, `.`, `_` and `-`".to_owned());
    }
    Ok(text.to_owned())
}

/// The failure for a response with an error status.
fn refusal(status: StatusCode, body: &[u8]) -> Failure {
    let document = serde_json::from_slice::<Document>(body);
    let field = document.as_ref().ok().and_then(|document| document.field.as_deref());
    let exit = match (status, field) {
        (StatusCode::GATEWAY_TIMEOUT, Some("wait")) => Exit::Waiting,
        (StatusCode::GATEWAY_TIMEOUT | StatusCode::CONFLICT, Some("fence")) => Exit::Undone,
        (status, _) => exit_by(status),
    };
    let token = match status {
        StatusCode::UNAUTHORIZED => "; `--token-file FILE` sends the token in FILE",
        _ => "",
    };
    let message = match document {
        Ok(Document { detail, field: Some(field), .. }) => {
            format!("{status}: {}: {}", escaped(&field), escaped(&detail))
        }
        Ok(Document { detail, .. }) => format!("{status}: {}{token}", escaped(&detail)),
        Err(_) => format!("{status}; is this the admin endpoint?"),
    };
    Failure::new(exit, message)
}

fn exit_by(status: StatusCode) -> Exit {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::MISDIRECTED_REQUEST => {
            Exit::Unauthorized
        }
        status if status.is_client_error() => Exit::Refused,
        _ => Exit::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Problem;

    #[test]
    fn a_url_is_host_and_port() {
        let read =
            |url| endpoint(url).map(|endpoint| (endpoint.is_encrypted, endpoint.to_string()));
        assert_eq!(read("http://127.0.0.1:9090"), Ok((false, "127.0.0.1:9090".to_owned())));
        assert_eq!(read("https://[::1]:9090/"), Ok((true, "[::1]:9090".to_owned())));
        for wrong in [
            "127.0.0.1:9090",
            "ftp://edge:9090",
            "http://edge/v1",
            "http://a:b@edge",
            "",
            "http://",
        ] {
            assert!(endpoint(wrong).is_err(), "{wrong}");
        }
    }

    /// An error named an option that nobody had given.
    #[test]
    fn a_file_of_the_environment_is_named_by_its_variable() {
        let told = |environment: Option<&str>| {
            let file = Some(Path::new("ca.pem"));
            unused(file, ("--ca", "TIDEGATE_CA"), environment.map(OsStr::new)).expect("it is given")
        };
        assert_eq!(told(Some("ca.pem")), "`TIDEGATE_CA` of the environment is set, and is");
        assert_eq!(told(Some("other.pem")), "`--ca` is");
        assert_eq!(told(None), "`--ca` is");
        assert_eq!(unused(None, ("--ca", "TIDEGATE_CA"), None), None);
    }

    #[test]
    fn a_refusal_shows_code_detail_and_field() {
        let refused = |status: StatusCode| {
            let problem = Problem::new(status, "no such version").at("weights.v43");
            refusal(status, &serde_json::to_vec(&problem.document()).unwrap())
        };
        let failure = refused(StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(failure.exit, Exit::Refused);
        assert_eq!(failure.message, "422 Unprocessable Entity: weights.v43: no such version");
        assert_eq!(refused(StatusCode::UNAUTHORIZED).exit, Exit::Unauthorized);
        let problem = Problem::new(StatusCode::UNAUTHORIZED, "a token is required").document();
        let body = serde_json::to_vec(&problem).unwrap();
        let message = refusal(StatusCode::UNAUTHORIZED, &body).message;
        let right =
            "401 Unauthorized: a token is required; `--token-file FILE` sends the token in FILE";
        assert_eq!(message, right);
        assert_eq!(refused(StatusCode::SERVICE_UNAVAILABLE).exit, Exit::Unavailable);
        assert!(refusal(StatusCode::NOT_FOUND, b"<html>").message.contains("admin endpoint?"));
    }

    #[test]
    fn an_undone_cutover_and_a_wait_in_vain_are_told_by_the_field() {
        let exit = |status, field: &str| {
            let problem = Problem::new(status, "why").at(field).document();
            refusal(status, &serde_json::to_vec(&problem).unwrap()).exit
        };
        assert_eq!(exit(StatusCode::GATEWAY_TIMEOUT, "wait"), Exit::Waiting);
        assert_eq!(exit(StatusCode::GATEWAY_TIMEOUT, "fence"), Exit::Undone);
        assert_eq!(exit(StatusCode::CONFLICT, "fence"), Exit::Undone);
        assert_eq!(exit(StatusCode::UNPROCESSABLE_ENTITY, "fence"), Exit::Refused);
        assert_eq!(exit(StatusCode::GATEWAY_TIMEOUT, "timeout"), Exit::Unavailable);
    }
}
