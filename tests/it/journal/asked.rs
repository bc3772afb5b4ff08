//! `GET /v1/audit`, and who may ask.

use super::*;

/// Writes the secret of the token `name`, and returns its line of the configuration.
fn token(folder: &Path, name: &str, role: &str) -> String {
    let file = folder.join(name);
    fs::write(&file, secret(name)).expect("a file");
    format!("{{ name: {name}, file: '{}', role: {role} }}", file.display())
}

fn secret(name: &str) -> String {
    format!("a secret of {name} that is long").replace(' ', "-")
}

#[test]
fn an_auditor_reads_entries_page_by_page_and_changes_nothing() {
    let origins = origins();
    let mut stage = Stage::new(&origins);
    let folder = stage.folder.path();
    let roles = [("probe", "viewer"), ("gli", "auditor"), ("ci", "operate")];
    let tokens: Vec<String> = roles.iter().map(|(name, role)| token(folder, name, role)).collect();
    let admin =
        format!("admin: {{ address: \"{}\", tokens: [ {} ] }}", stage.admin, tokens.join(", "));
    let versions = [origins[0].address, origins[1].address];
    stage.builder = Proxy::builder()
        .version_at("v1", &versions)
        .version("v2", &origins[2])
        .service("weights: { v1: 3, v2: 1 }")
        .top(&admin)
        .top(&format!("state: '{}'", stage.state().display()))
        .listen(stage.address);
    let _process = stage.start();
    let ask = |name: &str, method: &str, path: &str, body: &str| {
        let mut client = Client::connect(stage.admin);
        let bearer = format!("Bearer {}", secret(name));
        let request =
            client.request(method, path).host("localhost").header("Authorization", &bearer);
        request.body(body.as_bytes()).send()
    };
    let weights = format!("/v1/services/{SERVICE}/weights");
    for n in 2..=6 {
        let body = format!(r#"{{"weights":{{"v1":{n},"v2":1}}}}"#);
        assert_eq!(ask("ci", "PUT", &weights, &body).status, 200);
        for name in ["probe", "gli"] {
            let refused = ask(name, "PUT", &weights, &body);
            assert_eq!(refused.status, 403, "{refused:?}");
        }
    }
    assert_eq!(ask("gli", "GET", "/v1/status", "").status, 200);
    assert_eq!(ask("gli", "GET", "/metrics", "").status, 200);
    let refused = ask("probe", "GET", "/v1/audit", "");
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("`auditor`, `approver` or `operator`"), "{}", refused.text());
    assert_eq!(ask("ci", "GET", "/v1/audit", "").status, 200);

    let (mut after, mut all) = (0, Vec::new());
    loop {
        let page = ask("gli", "GET", &format!("/v1/audit?after={after}&limit=3"), "").json();
        assert_eq!(page["head"]["seq"], 7, "{page}");
        let entries = page["entries"].as_array().expect("a list");
        all.extend(entries.iter().map(|entry| entry["entry"]["seq"].as_u64().expect("a number")));
        match page["next"].as_u64() {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(all, (1..=7).collect::<Vec<_>>());
    // The bytes are those that the hash is of.
    let answer = ask("gli", "GET", "/v1/audit?after=6", "");
    let (text, page) = (answer.text(), answer.json());
    let reader = Reader::open(&stage.state()).expect("a journal");
    let stored = reader.show(&Filter { after: 6, ..Filter::default() }).expect("entries");
    assert!(text.contains(&stored[0].line), "{text}");
    assert_eq!(page["entries"][0]["hash"], json!(stored[0].hash));
    assert_eq!(page["head"], json!({ "seq": 7, "hash": stored[0].hash }));

    let count = |query: &str| {
        let page = ask("gli", "GET", &format!("/v1/audit?{query}"), "").json();
        (page["entries"].as_array().expect("a list").len(), page["unknown"].clone())
    };
    assert_eq!(count("kind=weights").0, 5);
    assert_eq!(count(&format!("service={SERVICE}")).0, 6, "those of the service, and the start");
    let (none, unknown) = count("kind=weigths");
    assert_eq!(none, 0);
    assert!(
        unknown[0].as_str().is_some_and(|said| said.contains("did you mean `weights`?")),
        "{unknown}"
    );
    for (query, field) in [("limit=0", "limit"), ("limit=1001", "limit")] {
        let refused = ask("gli", "GET", &format!("/v1/audit?{query}"), "");
        assert_eq!((refused.status, refused.json()["field"].as_str()), (422, Some(field)));
    }
    assert_eq!(ask("gli", "GET", "/v1/audit?afer=3", "").status, 400);
}

#[test]
fn without_a_journal_there_is_nothing_to_audit() {
    let origins = origins();
    let admin = free_address();
    let builder = Proxy::builder().version("v1", &origins[0]);
    let _process = builder.top(&format!("admin: {{ address: \"{admin}\" }}")).spawn();
    serves(admin);
    let answer = Client::connect(admin).get("/v1/audit").host("localhost").send();
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("this process has no journal; `state`"), "{}", answer.text());
}
