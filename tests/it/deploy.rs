//! What `deploy/` says is what the program understands.

use std::{path::Path, process::Command};

use saphyr_parser::{Event, Parser};
use serde_json::{Value, json};
use tidegate::config;

use crate::support::{Origin, Proxy, lacks, process::program};

const SIDECAR: &str = include_str!("../../deploy/kubernetes/sidecar.yaml");
const SCRAPE: &str = include_str!("../../deploy/kubernetes/scrape.yaml");
const DOCKERFILE: &str = include_str!("../../deploy/Dockerfile");

/// The documents of `text`; every scalar is a text.
fn documents(text: &str) -> Vec<Value> {
    let mut documents = Vec::new();
    // What is open: a list, or a map with the key whose value comes next.
    let mut open: Vec<(Value, Option<String>)> = Vec::new();
    for event in Parser::new_from_str(text) {
        let whole = match event.expect("well-formed YAML").0 {
            Event::MappingStart(..) => {
                open.push((json!({}), None));
                continue;
            }
            Event::SequenceStart(..) => {
                open.push((json!([]), None));
                continue;
            }
            Event::Scalar(text, ..) => json!(text),
            Event::MappingEnd | Event::SequenceEnd => open.pop().expect("it was opened").0,
            _ => continue,
        };
        match open.last_mut() {
            None => documents.push(whole),
            Some((Value::Array(items), _)) => items.push(whole),
            Some((map, key)) => match key.take() {
                Some(key) => map[key] = whole,
                None => *key = Some(whole.as_str().expect("a text as key").to_owned()),
            },
        }
    }
    documents
}

/// The document of `kind` in the manifest of the sidecar.
fn manifest(kind: &str) -> Value {
    documents(SIDECAR).into_iter().find(|document| document["kind"] == kind).expect("it is there")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn number(value: &Value) -> u64 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{value}"))
}

fn configuration() -> config::Config {
    let text = &manifest("ConfigMap")["data"]["tidegate.yaml"];
    config::parse(text.as_str().expect("a text")).expect("a valid configuration")
}

#[test]
fn the_config_map_holds_a_configuration_that_fits_the_pod() {
    let (config, deployment) = (configuration(), manifest("Deployment"));
    let pod = &deployment["spec"]["template"]["spec"];
    let tidegate = &pod["initContainers"][0];
    let declared = list(&tidegate["ports"]).iter().map(|port| number(&port["containerPort"]));
    let ports = [config.listen[0].address.port(), config.admin.expect("admin").address.port()];
    assert_eq!(declared.collect::<Vec<_>>(), ports.map(u64::from));
    // The end in order: not ready, then answers in flight end, then the process is killed. Between the
    // first two at least one probe fails.
    let (delay, deadline) = (config.shutdown.delay.as_secs(), config.shutdown.deadline.as_secs());
    assert!(delay + deadline < number(&pod["terminationGracePeriodSeconds"]));
    let probe = &tidegate["readinessProbe"];
    assert_eq!(probe["failureThreshold"], "1");
    assert!(delay > number(&probe["periodSeconds"]), "{delay} s");
    assert!(tidegate["lifecycle"].is_null(), "the delay takes the place of preStop");
}

/// Players came in before the games listened.
#[test]
fn every_game_has_a_probe_at_the_port_that_tidegate_sends_to() {
    let (config, deployment) = (configuration(), manifest("Deployment"));
    let games = list(&deployment["spec"]["template"]["spec"]["containers"]);
    let versions = &config.services["game-api"].versions;
    assert!(versions.keys().eq(games.iter().map(|game| game["name"].as_str().expect("a name"))));
    for (game, version) in games.iter().zip(versions.values()) {
        let (ready, start) = (&game["readinessProbe"], &game["startupProbe"]);
        let probe = if ready.is_null() { start } else { ready };
        let named = |port: &&Value| port["name"] == probe["httpGet"]["port"];
        let port = list(&game["ports"]).iter().find(named).expect("the probe's port");
        let port = number(&port["containerPort"]);
        assert_eq!(version.endpoints[0].to_string(), format!("127.0.0.1:{port}"));
        assert_eq!(
            game["env"][0]["value"],
            format!(":{port}"),
            "the kubelet does not see loopback"
        );
    }
}

/// Prometheus was answered 401.
#[test]
fn prometheus_scrapes_the_pod_with_a_token_that_changes_nothing() {
    let deployment = manifest("Deployment");
    let template = &deployment["spec"]["template"];
    let note = |name: &str| template["metadata"]["annotations"][name].as_str().expect("a text");
    let config = configuration();
    let address = config.admin.as_ref().expect("admin").address;
    assert_eq!(note("prometheus.io/port"), address.port().to_string());
    let job = &documents(SCRAPE)[0]["scrape_configs"][0];
    let sent = job["authorization"]["credentials_file"].as_str().expect("a file");
    // The mounted key of the Secret is the file on both sides.
    let key = |path: &Path| path.file_name().expect("a name").to_owned();
    let tokens = &config.admin.as_ref().expect("admin").tokens;
    let token =
        tokens.iter().find(|token| token.file.as_deref().map(key) == Some(key(Path::new(sent))));
    let token = token.expect("a token of that name");
    let role = config::schema::Role::Viewer;
    assert_eq!(token.role, role);
    assert!(tokens.iter().all(|token| (token.role == role) == (token.name == "prometheus")));
    let told = format!("--from-literal={}=", key(token.file.as_deref().expect("a file")).display());
    assert!(SIDECAR.contains(&told), "the Secret has the key");

    let v1 = Origin::answering("v1");
    let folder = tempfile::tempdir().expect("a folder");
    let secret = "0123456789abcdef-prometheus";
    std::fs::write(folder.path().join("prometheus"), secret).expect("written");
    let file = folder.path().join("prometheus").display().to_string();
    let admin = format!(
        "admin: {{ address: 127.0.0.1:0, tokens: [ {{ name: p, file: '{file}', role: read }} ] }}"
    );
    let proxy = Proxy::builder().version("v1", &v1).top(&admin).start_with_file();
    let bearer = format!("Bearer {secret}");
    let scrape = |with: &str| {
        let mut client = proxy.admin();
        client.get(note("prometheus.io/path")).header("Authorization", with).send().status
    };
    assert_eq!((scrape(&bearer), scrape("Bearer other")), (200, 401));
    let mut client = proxy.admin();
    let change = client.post("/v1/services/game-api/eject", br#"{"version":"v1"}"#);
    let change = change.header("Authorization", &bearer).header("Content-Type", "application/json");
    let refused = change.send();
    assert_eq!(refused.status, 403, "{}", refused.text());
    assert!(refused.text().contains("may only read"), "{}", refused.text());
}

/// The folder that was to be mounted had no file of that name.
#[test]
fn the_image_starts_as_its_head_says() {
    let after = |text: &str, part: &str| {
        let rest = text.split(part).nth(1).unwrap_or_else(|| panic!("there is no {part}"));
        rest.split_whitespace().next().expect("a word").to_owned()
    };
    let mounted = after(DOCKERFILE, " -v ");
    let [folder, inside, "ro"] = mounted.split(':').collect::<Vec<_>>()[..] else {
        panic!("{mounted}")
    };
    let command = DOCKERFILE.lines().find_map(|line| line.strip_prefix("CMD ")).expect("a command");
    let command: Vec<String> = serde_json::from_str(command).expect("a list");
    let file = command.last().and_then(|file| file.strip_prefix(&format!("{inside}/")));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = root.join(folder).join(file.expect("a file of the mounted folder"));
    let config = config::read(&file).expect("a good configuration").config;
    let listen = config.listen[0].address;
    assert!(listen.ip().is_unspecified(), "{listen} is reached from outside the container");
    let published = after(DOCKERFILE, " -p ");
    assert!(published.ends_with(&format!(":{}", listen.port())), "{published}");
    assert_eq!(after(DOCKERFILE, "\nEXPOSE "), listen.port().to_string());
    let host = after(DOCKERFILE, "--add-host ");
    let host = host.split(':').next().expect("a host");
    let endpoints = config.services.values().flat_map(|service| service.versions.values());
    for endpoint in endpoints.flat_map(|version| &version.endpoints) {
        assert!(endpoint.to_string().starts_with(&format!("{host}:")), "{endpoint}");
    }
    let mut arguments = command.iter().take(command.len() - 1).map(String::as_str);
    assert!(arguments.by_ref().eq(["run"]), "{command:?}");
    let checked = program().arg("check").arg(&file).output().expect("the program runs");
    assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}");
}

#[test]
fn the_units_of_systemd_fit_each_other() {
    let service = include_str!("../../deploy/systemd/tidegate.service");
    let socket = include_str!("../../deploy/systemd/tidegate.socket");
    let value = |unit: &'static str, key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("there is no `{key}`"))
    };
    // A bare port would listen at [::], which `0.0.0.0` in a configuration is not.
    for address in socket.lines().filter_map(|line| line.strip_prefix("ListenStream=")) {
        address.parse::<std::net::SocketAddr>().expect("an address as the configuration has it");
    }
    assert_eq!(value(socket, "Service"), "tidegate.service");
    let stop: u64 =
        value(service, "TimeoutStopSec").trim_end_matches('s').parse().expect("seconds");
    assert!(stop > config::schema::Shutdown::default().deadline.as_secs());
}

#[test]
fn the_scrape_configurations_are_well_formed() {
    for text in [include_str!("../../deploy/prometheus/scrape.yaml"), SCRAPE] {
        let documents = documents(text);
        assert_eq!(list(&documents[0]["scrape_configs"]).len(), 1);
    }
}

const RULES: &str = include_str!("../../deploy/prometheus/rules.yaml");

#[test]
fn the_rules_of_prometheus_fire_when_they_should() {
    if lacks("promtool", "prometheus") {
        return;
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus");
    for arguments in [["check", "rules", "rules.yaml"], ["test", "rules", "rules.test.yaml"]] {
        let output = Command::new("promtool").args(arguments).current_dir(folder).output();
        let output = output.expect("promtool runs");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
}

#[test]
fn the_rules_of_prometheus_ask_for_metrics_that_exist_and_are_all_tested() {
    let page = include_str!("../../src/telemetry/metrics/golden.txt");
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    let named: Vec<_> = RULES.split(word).filter(|word| word.starts_with("tidegate_")).collect();
    assert!(named.len() > 10, "{named:?}");
    for name in named {
        assert!(page.contains(&format!("# TYPE {name} ")), "there is no metric {name}");
    }
    let tests = include_str!("../../deploy/prometheus/rules.test.yaml");
    let alerts = RULES.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    for alert in alerts {
        assert!(tests.contains(&format!("alertname: {alert}\n")), "{alert} has no test");
    }
}
