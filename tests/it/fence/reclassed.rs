//! Files that make writes of what was read before, while such requests are in flight.

use super::*;

/// `v1` keeps each connection that switches protocols open until its client leaves; `v2` answers.
struct Live {
    proxy: Proxy,
    folder: TempDir,
    _origins: [Origin; 2],
}

/// The file with these settings of the fence and these routes.
fn file(origins: &[Origin; 2], folder: &TempDir, fence: &str, routes: &[&str]) -> Builder {
    let builder = Proxy::builder().version("v1", &origins[0]).version("v2", &origins[1]);
    let builder = builder.service(fence);
    let builder = routes.iter().fold(builder, |builder, route| builder.route(route));
    let builder = builder.top("admin: { address: \"127.0.0.1:0\" }");
    builder.top(&format!("state: '{}'", folder.path().join("state").display()))
}

const READ: &[&str] = &["match: { path: /live }", "match: { path: \"/*\" }"];
const WRITE: &[&str] = &["match: { path: /live }, class: write", "match: { path: \"/*\" }"];

impl Live {
    fn start(fence: &str) -> Self {
        let live = switching();
        let (writes, folder) = (Writes::default(), TempDir::new().expect("a folder"));
        let origins = [live, version("v2", &writes, Duration::ZERO, Arc::default())];
        let proxy = file(&origins, &folder, fence, READ).start_with_file();
        Self { proxy, folder, _origins: origins }
    }

    /// Writes the file with these settings and routes.
    fn write(&self, fence: &str, routes: &[&str]) {
        self.proxy.write(&file(&self._origins, &self.folder, fence, routes).text());
    }

    #[track_caller]
    fn apply(&self, fence: &str, routes: &[&str]) {
        let (before, _) = self.proxy.reloads();
        self.write(fence, routes);
        eventually("the file is applied", || self.proxy.reloads().0 > before);
    }

    #[track_caller]
    fn refused(&self, fence: &str, routes: &[&str]) -> String {
        let (_, before) = self.proxy.reloads();
        self.write(fence, routes);
        eventually("the file is refused", || self.proxy.reloads().1 > before);
        let error = self.proxy.controller().reloads().error.clone();
        error.expect("an error").to_string()
    }

    fn tunnel(&self) -> Client {
        let mut client = self.proxy.connect();
        client.send(
            "GET /live HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        );
        let head = client.wire.head().expect("open").expect("a head");
        assert_eq!(head.start_line(), "HTTP/1.1 101 Switching Protocols");
        client
    }

    fn cut_over(&self, to: &str) -> Answer {
        let path = format!("/v1/services/{SERVICE}/cutover");
        let mut admin = self.proxy.admin();
        let body = json!({ "to": to }).to_string();
        admin.request("POST", &path).host("127.0.0.1").body(body.as_bytes()).send()
    }

    #[track_caller]
    fn undone(&self, to: &str, why: &str) {
        let undone = self.cut_over(to);
        assert_eq!(undone.status, 504, "{}", undone.text());
        let detail = undone.json()["detail"].as_str().expect("a detail").to_owned();
        assert!(detail.contains(why), "{detail}");
    }

    #[track_caller]
    fn made(&self, to: &str) {
        let made = self.cut_over(to);
        assert_eq!(made.status, 200, "{}", made.text());
    }

    fn in_flight(&self, count: u64) {
        eventually("so many are in flight", || self.proxy.in_flight() == count);
    }
}

const FENCE: &str = "fence: { deadline: 200ms }";

/// Regression: the cutover did not wait for a connection that had switched protocols while its route read, and two
/// versions worked on writes.
#[test]
fn requests_that_a_file_makes_writes_are_awaited() {
    let live = Live::start(FENCE);
    let before = live.tunnel();
    live.apply(FENCE, WRITE);
    live.undone("v2", "v1 still had 1 write in flight");
    // One that begins by this file is a write anyway.
    let later = live.tunnel();
    live.undone("v2", "v1 still had 2 writes in flight");
    drop(before);
    live.in_flight(1);
    live.undone("v2", "v1 still had 1 write in flight");
    drop(later);
    live.in_flight(0);
    // What is a read again keeps nobody waiting, also beside one that has become a write again.
    live.apply(FENCE, READ);
    let first = live.tunnel();
    live.made("v2");
    live.made("v1");
    live.apply(FENCE, WRITE);
    live.apply(FENCE, READ);
    let second = live.tunnel();
    live.undone("v2", "v1 still had 1 write in flight");
    let why = live.refused(FENCE, WRITE);
    assert!(
        why.contains("v1 still has 1 request(s) in flight that began before an earlier file"),
        "{why}"
    );
    drop(first);
    live.in_flight(1);
    live.made("v2");
    live.made("v1");
    live.apply(FENCE, &[WRITE, &["match: { path: /other }"]].concat());
    live.undone("v2", "v1 still had 1 write in flight");
    drop(second);
    live.in_flight(0);
    live.made("v2");
}

/// A fence counts what was in flight before it was there: nobody knows what earlier files made of it.
#[test]
fn requests_that_began_before_the_fence_are_awaited() {
    let live = Live::start("connect_timeout: 1s");
    let before = live.tunnel();
    live.apply("connect_timeout: 1s", WRITE);
    live.apply(FENCE, WRITE);
    live.undone("v2", "v1 still had 1 write in flight");
    drop(before);
    live.in_flight(0);
    live.made("v2");
}

/// Where another version has the writes already, two would work on them from that moment.
#[test]
fn a_file_does_not_make_writes_of_requests_to_versions_without_the_writes() {
    let required = "fence: { required: true, deadline: 200ms }";
    let live = Live::start(required);
    let before = live.tunnel();
    live.made("v2");
    let why = live.refused(required, WRITE);
    assert!(why.contains("v1 still has 1 request(s) in flight"), "{why}");
    drop(before);
    live.in_flight(0);
    live.apply(required, &[WRITE, &["match: { path: /other }"]].concat());
    live.made("v1");
}
