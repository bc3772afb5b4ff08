//! Processes before this one that still finish writes: a fenced cutover waits for each of them.

use std::path::Path;

use super::*;

/// A service with a fence whose v1 does not end a write before the test says so, and the way to say so.
fn stage(folder: &TempDir) -> ([Origin; 2], mpsc::Sender<()>, Builder, SocketAddr, PathBuf) {
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let slow = Origin::start(move |call| {
        call.skip_body()?;
        // Fails once the test lets go, or has failed.
        let _ = held.lock().expect("no panic").recv();
        call.answer(200, b"v1")
    });
    let origins = [slow, Origin::answering("v2")];
    let (builder, admin) = builder(&origins);
    let (builder, path) = with_socket(builder, folder);
    let state = format!("state: '{}'", folder.path().join("state").display());
    let builder = builder.service("fence: { required: true }").top(&state);
    (origins, release, builder.top("shutdown: { deadline: 60s }"), admin, path)
}

fn cut_over(admin: SocketAddr) -> Answer {
    let path = format!("/v1/services/{SERVICE}/cutover");
    Client::connect(admin).request("POST", &path).host("localhost").body(br#"{"to":"v2"}"#).send()
}

/// Takes over from the process that serves, by the socket at `path`.
fn take_over(address: SocketAddr, text: &str, admin: SocketAddr, path: &Path) -> Process {
    let old = pid(admin);
    let next = Process::spawn_beside(address, text, |mut command| {
        command.arg("--takeover").arg(path);
        command
    });
    eventually("it serves", || pid(admin).is_some_and(|new| Some(new) != old));
    next
}

/// Whoever took over twice in a row knew only the last process, and moved writes beside those of the first.
#[test]
fn a_fenced_cutover_waits_for_every_process_before_however_short_its_own_deadline_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let (origins, release, builder, admin, path) = stage(&folder);
    let mut first = spawn(&builder, admin);
    let address = first.address;
    let text = builder.clone().listen(address).text();
    eventually("the socket is there", || path.exists());
    let mut busy = first.connect();
    busy.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
    origins[0].await_requests(1);
    let mut second = take_over(address, &text, admin, &path);
    // The last one allows itself little, and must not take this for what the first allows itself.
    let short = builder.top("shutdown: { deadline: 1s }").listen(address).text();
    let third = take_over(address, &short, admin, &path);
    assert_eq!(second.wait().code(), Some(0), "{}", second.log());
    // Longer than a process with this deadline would last.
    for _ in 0..8 {
        let refused = cut_over(admin);
        assert_eq!(refused.status, 409, "{}", refused.text());
        assert!(refused.text().contains("still finishes requests"), "{}", refused.text());
        thread::sleep(Duration::from_secs(1));
    }
    drop(release);
    assert_eq!(busy.answer().text(), "v1");
    assert_eq!(first.wait().code(), Some(0), "{}", first.log());
    let moved = cut_over(admin);
    assert_eq!(moved.status, 200, "{}{}", moved.text(), third.log());
}

#[test]
fn a_release_that_keeps_no_fences_does_not_take_over_where_one_is_required() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_origins, _release, builder, admin, path) = stage(&folder);
    let _process = spawn(&builder, admin);
    eventually("the socket is there", || path.exists());
    let hello = |continues: bool| json!({ "message": "hello", "protocol": 1, "version": "0.0.9", "continues": continues });
    let connect = || UnixStream::connect(&path).expect("the process listens");
    let refused = converse(&mut connect(), &hello(false));
    assert_eq!(refused["message"], "refused", "{refused}");
    let why = refused["reason"].as_str().expect("a reason");
    assert!(why.contains("release 0.0.9 is too old: it would forget which version"), "{why}");
    let mut stream = connect();
    assert_eq!(converse(&mut stream, &hello(true))["message"], "offer");
}

/// A takeover with a file that requires the fence is no way around what a reload refuses.
#[test]
fn a_process_whose_file_requires_the_fence_of_a_split_does_not_take_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let origins = origins();
    let (free, admin) = builder(&origins);
    let (free, path) = with_socket(free, &folder);
    let first = spawn(&free, admin);
    let address = first.address;
    eventually("the socket is there", || path.exists());
    let weights = br#"{"weights": {"v1": 1, "v2": 1}}"#;
    let put = format!("/v1/services/{SERVICE}/weights");
    let split = Client::connect(admin).request("PUT", &put).host("localhost").body(weights).send();
    assert_eq!(split.status, 200, "{}", split.text());
    let required = free.service("fence: { required: true }").listen(address).text();
    let mut next = Process::spawn_beside(address, &required, |mut command| {
        command.arg("--takeover").arg(&path);
        command
    });
    assert_eq!(next.wait().code(), Some(69), "{}", next.log());
    assert!(next.log().contains("fence.required: from then on only one version"), "{}", next.log());
    assert_eq!(first.connect().get("/").send().status, 200);
}
