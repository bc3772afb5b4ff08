//! Who may call the admin endpoint: hashes of tokens, certificates, roles; and that no secret is shown.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::Path,
    process::Output,
    time::Instant,
};

use crate::support::{
    Origin, PATIENCE, Proxy,
    authority::Authority,
    eventually,
    issuer::{Issuer, TERMS},
    process::{Process, free_address, program},
    proxy::Builder,
};

/// Runs the program; its exit code, and what it printed where.
fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = program();
    for name in ["ADMIN", "TOKEN_FILE", "CA", "CERT", "KEY"] {
        command.env_remove(format!("TIDEGATE_{name}"));
    }
    let Output { status, stdout, stderr } = command.args(arguments).output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (status.code(), text(stdout), text(stderr))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn two_versions(origin: &Origin, admin: &str) -> Builder {
    let builder = Proxy::builder().version("v1", origin).version("v2", origin);
    builder.service("weights: { v1: 50, v2: 50 }").top(&format!("admin: {{ {admin} }}"))
}

#[test]
fn a_token_is_known_by_its_hash_alone() {
    let origin = Origin::answering("ok");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ann.token");
    let (code, hash, _) = run(&["token", "new", &shown(&file)]);
    assert_eq!((code, hash.len()), (Some(0), 72), "{hash}");
    let (code, again, _) = run(&["token", "hash", &shown(&file)]);
    assert_eq!((code, &again), (Some(0), &hash));
    let token = fs::read_to_string(&file).expect("a file");
    assert_eq!(run(&["token", "new", &shown(&file)]).0, Some(65), "it exists");
    assert_eq!(fs::read_to_string(&file).expect("a file"), token);
    assert!(!hash.contains(token.trim()));
    // The hash may be in the file, too.
    let other = folder.path().join("bob.token");
    run(&["token", "new", &shown(&other)]);
    let hashed = folder.path().join("bob.hash");
    fs::write(&hashed, run(&["token", "hash", &shown(&other)]).1).expect("a file");
    let admin = format!(
        "address: 127.0.0.1:0, tokens: [ {{ name: ann, hash: '{}' }}, {{ name: bob, file: '{}', role: viewer }} ]",
        hash.trim(),
        shown(&hashed)
    );
    let proxy = two_versions(&origin, &admin).start_with_file();
    let url = format!("http://{}", proxy.admin_address());
    let call = |command: &[&str], file: &Path| {
        let by = ["--admin", &url, "--token-file", &shown(file)];
        run(&[command, &by[..]].concat())
    };
    assert_eq!(call(&["weights", "game-api", "v1=90", "v2=10"], &file).0, Some(0));
    assert_eq!(call(&["status"], &other).0, Some(0));
    let (code, _, problem) = call(&["weights", "game-api", "v1=50", "v2=50"], &other);
    assert_eq!(code, Some(77), "{problem}");
    assert!(problem.contains("the role is `viewer`"), "{problem}");
    assert_eq!(call(&["status"], &hashed).0, Some(77), "the hash is no token");
}

#[test]
fn the_endpoint_speaks_tls_and_knows_the_holders_of_certificates() {
    let (origin, authority) = (Origin::answering("ok"), Authority::new());
    for (file, name) in [("edge", "localhost"), ("ann", "ann"), ("eve", "eve")] {
        authority.sign(file, name);
    }
    let stranger = Authority::new();
    stranger.sign("ann", "ann");
    let at = shown(authority.path());
    let client = format!(", client: {{ ca: {at}/ca.pem, mode: optional }}");
    let tls = authority.listener("edge", &client);
    let admin = format!(
        "address: 127.0.0.1:0, {tls}, certificates: [ {{ name: ann, subject: CN=ann, role: operator }} ]"
    );
    let proxy = two_versions(&origin, &admin).start_with_file();
    let url = format!("https://localhost:{}", proxy.admin_address().port());
    let call = |command: &[&str], of: &Authority, file: &str| {
        let (ca, cert, key) = (
            format!("{at}/ca.pem"),
            shown(&of.path().join(format!("{file}.pem"))),
            shown(&of.path().join(format!("{file}.key"))),
        );
        let mut by = vec!["--admin", &url, "--ca", &ca];
        if !file.is_empty() {
            by.extend(["--cert", &cert, "--key", &key]);
        }
        run(&[command, &by[..]].concat())
    };
    let (code, line, problem) = call(&["weights", "game-api", "v1=90", "v2=10"], &authority, "ann");
    assert_eq!(code, Some(0), "{line}{problem}");
    let (code, _, problem) = call(&["status"], &authority, "eve");
    assert_eq!(code, Some(77), "{problem}");
    assert!(problem.contains("admin.certificates"), "{problem}");
    assert_eq!(call(&["status"], &authority, "").0, Some(77));
    assert_eq!(call(&["status"], &stranger, "ann").0, Some(69), "of another authority");
    let plain = format!("http://localhost:{}", proxy.admin_address().port());
    assert_eq!(run(&["status", "--admin", &plain]).0, Some(69));
    assert_eq!(run(&["status", "--admin", &plain, "--ca", "x"]).0, Some(2));
    assert_eq!(run(&["status", "--admin", &url]).0, Some(69), "an unknown authority");
    // A new certificate of the endpoint is taken over.
    let before = fs::read(authority.path().join("edge.pem")).expect("a file");
    authority.sign("edge", "localhost");
    assert_ne!(before, fs::read(authority.path().join("edge.pem")).expect("a file"));
    eventually("it is in use", || {
        let admin = proxy.controller().admin_tls().cloned().expect("it is encrypted");
        admin.fault().is_none() && call(&["status"], &authority, "ann").0 == Some(0)
    });
}

#[test]
fn guessing_a_token_is_slowed_and_counted() {
    let origin = Origin::answering("ok");
    let folder = tempfile::tempdir().expect("a folder");
    let secret = "right-right-right-right";
    fs::write(folder.path().join("token"), secret).expect("a file");
    let file = shown(&folder.path().join("token"));
    let admin = format!("address: 127.0.0.1:0, tokens: [ {{ name: ann, file: '{file}' }} ]");
    let proxy = two_versions(&origin, &admin).start_with_file();
    let from = |last: u8| {
        let from = [127, 0, 7, last].into();
        crate::support::Client::connect_from(from, proxy.admin_address())
    };
    let right = format!("Bearer {secret}");
    let ask = |client: &mut crate::support::Client, token: &str| {
        client.get("/v1/status").header("Authorization", token).send().status
    };
    let mut holder = from(3);
    assert_eq!(ask(&mut holder, &right), 200);
    let (mut guesser, began) = (from(1), Instant::now());
    let mut statuses = Vec::new();
    for number in 0..30 {
        let guess = format!("Bearer wrong-wrong-wrong-{number}");
        let answer = guesser.get("/v1/status").header("Authorization", &guess).send();
        if answer.status == 429 {
            assert_eq!(answer.field("retry-after"), Some("1"));
        }
        statuses.push(answer.status);
    }
    assert!(statuses[..10].iter().all(|status| *status == 401), "{statuses:?}");
    let wrong = statuses.iter().filter(|status| **status == 401).count();
    assert!(wrong as u64 <= 11 + began.elapsed().as_secs(), "{statuses:?}");
    let page = from(2).get("/metrics").header("Authorization", &right).send();
    assert_eq!(page.status, 200, "from elsewhere");
    let line = "tidegate_admin_refused_total{reason=\"wrong_token\"} 1";
    assert!(page.text().contains(line), "{}", page.text());
    while ask(&mut from(3), "Bearer wrong-wrong-wrong-old") != 429 {}
    assert_eq!(ask(&mut holder, &right), 200, "it was right here before others were wrong");
    assert_eq!(guesser.get("/healthz").send().status, 200, "probes need no token");
}

/// Everything that the program shows to others was read for the secrets of its configuration.
#[test]
fn no_secret_of_a_configuration_is_shown_anywhere() {
    let (origin, issuer) = (Origin::answering("ok"), Issuer::new());
    let keys = issuer.serve();
    let folder = tempfile::tempdir().expect("a folder");
    let place = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).expect("a file");
        shown(&folder.path().join(name))
    };
    let secrets = [
        "s3cret-of-the-operator",
        "s3cret-of-the-webhook",
        "s3cret0of0the0pins0s3cret0of0the0pins",
    ];
    let (operator, webhook, pin) =
        (place("op", secrets[0]), place("hook", secrets[1]), place("pin", secrets[2]));
    let path = "hooks/T0/s3cret-in-a-path-of-a-url";
    let admin = free_address();
    let builder = Proxy::builder()
        .version("v1", &origin)
        .version("v2", &origin)
        .service(&format!("pin: {{ cookie: {{ keys: [ {{ id: k1, file: '{pin}' }} ] }} }}"))
        .top(&format!(
            "admin: {{ address: '{admin}', tokens: [ {{ name: ann, file: '{operator}' }} ] }}"
        ))
        .top("access_log: { path: stdout }")
        .top("log: { level: debug }")
        .top(&format!(
            "alerts: {{ webhooks: [ {{ url: 'http://{}/{path}', token_file: '{webhook}' }} ] }}",
            crate::support::nobody::refusing().0
        ))
        .top(&format!("jwt: {{ players: {{ jwks: 'http://{}/jwks', {TERMS} }} }}", keys.address))
        .route("match: { path: /bets }, auth: { jwt: players }")
        .route("name: rest");
    let process = Process::spawn(|address| builder.clone().listen(address).text());
    let good = issuer.token("ada", serde_json::json!({}));
    let bad = Issuer::new().token("eve", serde_json::json!({}));
    let mut shown_to_others = String::new();
    let mut client = process.connect();
    for token in [&good, &bad] {
        let answer = client.get("/bets").header("Authorization", &format!("Bearer {token}")).send();
        shown_to_others.push_str(answer.text());
    }
    let from = |last: u8| crate::support::Client::connect_from([127, 0, 7, last].into(), admin);
    for (token, last) in [(secrets[0], 1), ("wrong-wrong-wrong-wrong", 2), (&*good, 3)] {
        let mut client = from(last);
        for path in [
            "/v1/status",
            "/v1/services",
            "/v1/services/game-api",
            "/metrics",
            "/v1/incidents",
            "/v1/audit",
        ] {
            let answer =
                client.get(path).header("Authorization", &format!("Bearer {token}")).send();
            assert!(token != secrets[0] || answer.status != 401, "{path}");
            shown_to_others.push_str(answer.text());
        }
    }
    let eject = br#"{"version": "v2", "reason": "so that an alert is sent"}"#;
    let mut client = from(1);
    let put = client.post("/v1/services/game-api/eject", eject);
    let put = put.header("Authorization", &format!("Bearer {}", secrets[0]));
    assert_eq!(put.header("Content-Type", "application/json").send().status, 200);
    process.write("listen: [ 1 ]");
    eventually("the alert fails, and the bad file is refused", || {
        let log = process.log();
        log.contains("did not accept the alerts") && log.contains("listen")
    });
    shown_to_others.push_str(&process.log());
    let parts = [good.rsplit('.').next(), bad.rsplit('.').next()];
    let signatures = parts.into_iter().flatten();
    for secret in secrets.into_iter().chain(["s3cret-in-a-path"]).chain(signatures) {
        assert!(!shown_to_others.contains(secret), "{secret} in {shown_to_others}");
    }
    assert!(shown_to_others.contains("a call of the admin endpoint was refused"));
}

/// Regression: a stream of events went on after a reload had taken its caller's token away.
#[test]
fn a_stream_of_events_ends_when_a_reload_takes_the_token_of_its_reader_away() {
    let (origin, folder) = (Origin::answering("ok"), tempfile::tempdir().expect("a folder"));
    let token = |name: &str| {
        let file = folder.path().join(name);
        fs::write(&file, format!("0123456789abcdef-{name}")).expect("a file");
        format!("{{ name: {name}, file: '{}' }}", file.display())
    };
    let with = |tokens: &[String]| {
        let admin = format!("address: 127.0.0.1:0, tokens: [ {} ]", tokens.join(", "));
        two_versions(&origin, &admin)
    };
    let both = with(&[token("ann"), token("bob")]);
    let proxy = both.start_with_file();
    let read = |name: &str| {
        let mut socket = TcpStream::connect(proxy.admin_address()).expect("connected");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let bearer = format!("Authorization: Bearer 0123456789abcdef-{name}");
        let head = format!("GET /v1/events HTTP/1.1\r\nHost: localhost\r\n{bearer}\r\n\r\n");
        socket.write_all(head.as_bytes()).expect("sent");
        let mut lines = BufReader::new(socket).lines().map(|line| line.expect("a line"));
        (lines.next().expect("a status"), lines)
    };
    let (status, mut lines) = read("bob");
    assert_eq!(status, "HTTP/1.1 200 OK");
    proxy.write(&both.clone().top("log: { level: warn }").text());
    assert!(lines.any(|line| line == "event: configuration"), "others may not call less");
    proxy.write(&with(&[token("ann")]).text());
    // The chunk that ends the body.
    assert!(lines.any(|line| line == "0"), "the stream has ended");
    assert_eq!(read("bob").0, "HTTP/1.1 401 Unauthorized");
    assert_eq!(read("ann").0, "HTTP/1.1 200 OK");
}
