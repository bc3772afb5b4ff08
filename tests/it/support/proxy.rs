//! The proxy under test: the library's `App` in this process, started from the text of a file.

use std::{
    fs,
    net::SocketAddr,
    sync::{Arc, MutexGuard},
};

use tempfile::TempDir;
use tidegate::{
    app::{App, Ended},
    config::{Loaded, parse, read, units::Weight},
    control::{Asked, Controller, WeightsChange, controller::ChangeHead, reach::Reach},
    registry::{ErrorKind, RetryReason},
    snapshot::Snapshot,
    store::Actor,
};

use super::{Answer, Client, Origin, process::Process};

/// The name of the service of a [`Builder`].
pub(crate) const SERVICE: &str = "game-api";

/// A running proxy; dropped, it shuts down.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    app: Option<App>,
    /// Holds the file, if there is one.
    folder: Option<TempDir>,
}

/// What a proxy's file says.
#[derive(Clone)]
pub(crate) struct Builder {
    listen: SocketAddr,
    /// Fields of the listener beside its address.
    listener: Vec<String>,
    workers: u16,
    /// Names, and the fields of each.
    versions: Vec<(String, String)>,
    service: Vec<String>,
    routes: Vec<String>,
    top: Vec<String>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 0).into(),
            listener: Vec::new(),
            workers: 1,
            versions: Vec::new(),
            service: Vec::new(),
            routes: Vec::new(),
            top: vec!["shutdown: { deadline: 2s }".to_owned()],
        }
    }

    pub(crate) fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// A field of the listener, `proxy_protocol: { from: [ 127.0.0.1 ] }`.
    pub(crate) fn listener(mut self, field: &str) -> Self {
        self.listener.push(field.to_owned());
        self
    }

    pub(crate) fn workers(mut self, workers: u16) -> Self {
        self.workers = workers;
        self
    }

    pub(crate) fn version(self, name: &str, origin: &Origin) -> Self {
        self.version_at(name, &[origin.address])
    }

    pub(crate) fn version_at(self, name: &str, endpoints: &[SocketAddr]) -> Self {
        let endpoints: Vec<String> = endpoints.iter().map(|e| format!("\"{e}\"")).collect();
        self.version_named(name, &endpoints.join(", "))
    }

    /// A version with `endpoints` as the file writes them.
    pub(crate) fn version_named(mut self, name: &str, endpoints: &str) -> Self {
        self.versions.push((name.to_owned(), format!("endpoints: [ {endpoints} ]")));
        self
    }

    /// A version whose endpoints speak `protocol`.
    pub(crate) fn version_speaking(
        mut self,
        name: &str,
        endpoints: &[SocketAddr],
        protocol: &str,
    ) -> Self {
        self = self.version_at(name, endpoints);
        let (_, fields) = self.versions.last_mut().expect("just pushed");
        fields.push_str(&format!(", protocol: {protocol}"));
        self
    }

    /// A field of the service, `weights: { v1: 1 }`.
    pub(crate) fn service(mut self, field: &str) -> Self {
        self.service.push(field.to_owned());
        self
    }

    /// A route's fields beside its service, `timeout: 1s, name: slow`. Without any, one route leads all.
    pub(crate) fn route(mut self, fields: &str) -> Self {
        self.routes.push(fields.to_owned());
        self
    }

    /// A field of the file, `limits: { connections: 1 }`.
    pub(crate) fn top(mut self, field: &str) -> Self {
        let name = field.split(':').next().unwrap_or(field);
        self.top.retain(|other| other.split(':').next() != Some(name));
        self.top.push(field.to_owned());
        self
    }

    /// The file.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |line: String| text.push_str(&(line + "\n"));
        line(format!("workers: {}", self.workers));
        line(format!("listen:\n  - address: \"{}\"", self.listen));
        self.listener.iter().for_each(|field| line(format!("    {field}")));
        self.top.iter().for_each(|field| line(field.clone()));
        line(format!("services:\n  {SERVICE}:"));
        let baseline = self.versions.first().map_or("none", |(name, _)| name);
        line(format!("    baseline: {baseline}"));
        self.service.iter().for_each(|field| line(format!("    {field}")));
        line("    versions:".to_owned());
        for (name, fields) in &self.versions {
            line(format!("      {name}: {{ {fields} }}"));
        }
        line("routes:".to_owned());
        if self.routes.is_empty() {
            line(format!("  - service: {SERVICE}"));
        }
        for fields in &self.routes {
            line(format!("  - {{ service: {SERVICE}, {fields} }}"));
        }
        text
    }

    pub(crate) fn start(&self) -> Proxy {
        Proxy::start(&self.text())
    }

    /// Starts with a real file, which is watched.
    pub(crate) fn start_with_file(&self) -> Proxy {
        Proxy::start_with_file(&self.text())
    }

    /// Starts the real program.
    pub(crate) fn spawn(&self) -> Process {
        Process::spawn(|address| self.clone().listen(address).text())
    }
}

impl Proxy {
    pub(crate) fn builder() -> Builder {
        Builder::new()
    }

    /// One version behind one route.
    pub(crate) fn to(origin: &Origin) -> Self {
        Self::builder().version("v1", origin).start()
    }

    /// Starts with the file `text`, which must be good.
    #[track_caller]
    pub(crate) fn start(text: &str) -> Self {
        let config = parse(text).unwrap_or_else(|problems| panic!("{problems:?} in:\n{text}"));
        let loaded = Loaded { config, hash: String::new(), tokens: Vec::new(), files: Vec::new() };
        let app = App::start(loaded, None, None).expect("the proxy starts");
        Self { address: app.listeners[0], app: Some(app), folder: None }
    }

    /// Starts with a file that holds `text` and is watched.
    #[track_caller]
    pub(crate) fn start_with_file(text: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let file = folder.path().join("tidegate.yaml");
        fs::write(&file, text).expect("a file");
        let loaded = read(&file).unwrap_or_else(|error| panic!("{error}"));
        let app = App::start(loaded, Some(file), None).expect("the proxy starts");
        Self { address: app.listeners[0], app: Some(app), folder: Some(folder) }
    }

    /// Replaces the file as editors do, by renaming; it is read again soon.
    pub(crate) fn write(&self, text: &str) {
        let folder = self.folder.as_ref().expect("started with a file").path();
        fs::write(folder.join("new"), text).expect("a file");
        fs::rename(folder.join("new"), folder.join("tidegate.yaml")).expect("a file");
    }

    /// Removes the file.
    pub(crate) fn remove_file(&self) {
        let folder = self.folder.as_ref().expect("started with a file").path();
        fs::remove_file(folder.join("tidegate.yaml")).expect("a file");
    }

    /// Who decides.
    pub(crate) fn controller(&self) -> MutexGuard<'_, Controller> {
        self.app().observatory().controller()
    }

    /// Where the admin endpoint listens.
    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.app().admin.expect("an admin endpoint")
    }

    /// A connection to the admin endpoint.
    pub(crate) fn admin(&self) -> Client {
        Client::connect(self.admin_address())
    }

    /// How often files were taken over, and refused.
    pub(crate) fn reloads(&self) -> (u64, u64) {
        let controller = self.app().observatory().controller();
        (controller.reloads().applied, controller.reloads().rejected)
    }

    pub(crate) fn app(&self) -> &App {
        self.app.as_ref().expect("held until it is shut down")
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// The answer to a GET on a connection of its own.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.connect().get(path).send()
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.app().observatory().controller().snapshot()
    }

    /// Changes the weights of the service; they are in force when this returns.
    pub(crate) fn set_weights(&self, weights: &[(&str, f64)]) {
        let weight = |w| Weight::new(w).expect("a weight");
        let change = WeightsChange {
            service: SERVICE.to_owned(),
            asked: Asked::Weights {
                weights: weights.iter().map(|(v, w)| ((*v).to_owned(), weight(*w))).collect(),
                only: true,
            },
            reach: Reach::Unasked,
            head: ChangeHead::of(Actor { name: "test".to_owned(), ..Actor::system() }),
        };
        self.app().observatory().controller().set_weights(change).expect("good weights");
    }

    /// Requests of the service that have not ended.
    pub(crate) fn in_flight(&self) -> u64 {
        let snapshot = self.snapshot();
        let versions = snapshot.services[0].versions.iter();
        versions.map(|v| v.state.in_flight()).sum()
    }

    /// Open connections of clients.
    pub(crate) fn open_connections(&self) -> usize {
        self.app().observatory().controller().shared().connections()
    }

    /// Connections ended for a flood of frames.
    pub(crate) fn floods(&self) -> u64 {
        self.app().observatory().controller().shared().cells.sum(|c| c.floods.read())
    }

    /// Attempts made again on `version`.
    pub(crate) fn retries(&self, version: &str, reason: RetryReason) -> u64 {
        let snapshot = self.snapshot();
        let version = snapshot.services[0].version(version).expect("a version");
        version.state.cells.sum(|c| c.retries[reason as usize].read())
    }

    /// Failed attempts at the endpoints of `version`.
    pub(crate) fn errors(&self, version: &str, kind: ErrorKind) -> u64 {
        let snapshot = self.snapshot();
        let version = snapshot.services[0].version(version).expect("a version");
        let each = version.known.iter().map(|known| &known.state);
        each.map(|e| e.cells.sum(|c| c.errors[kind as usize].read())).sum()
    }

    /// Failed attempts of any kind at the endpoints of `version`.
    pub(crate) fn all_errors(&self, version: &str) -> u64 {
        ErrorKind::ALL.iter().map(|kind| self.errors(version, *kind)).sum()
    }

    /// Ends the process in order.
    pub(crate) fn shutdown(mut self) -> Ended {
        self.app.take().expect("not shut down yet").shutdown()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(app) = self.app.take() {
            app.shutdown();
        }
    }
}
