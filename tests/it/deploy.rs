//! What `deploy/` says is what the program understands.

use std::process::Command;

use saphyr_parser::{Event, Parser};
use tidegate::config;

use crate::support::lacks;

const SIDECAR: &str = include_str!("../../deploy/kubernetes/sidecar.yaml");

/// The scalars of all documents of `text`, in order.
fn scalars(text: &str) -> Vec<String> {
    let events = Parser::new_from_str(text).map(|event| event.expect("well-formed YAML").0);
    let scalar = |event| match event {
        Event::Scalar(value, ..) => Some(value.into_owned()),
        _ => None,
    };
    events.filter_map(scalar).collect()
}

/// What follows the scalar `key`.
fn after<'a>(scalars: &'a [String], key: &str) -> &'a str {
    let at = scalars.iter().position(|scalar| scalar == key);
    &scalars[at.unwrap_or_else(|| panic!("there is no `{key}`")) + 1]
}

#[test]
fn the_config_map_holds_a_configuration_that_fits_the_pod() {
    let scalars = scalars(SIDECAR);
    let config = config::parse(after(&scalars, "tidegate.yaml")).expect("a valid configuration");
    let ports = [config.listen[0].address.port(), config.admin.expect("admin").address.port()];
    let declared = scalars.windows(2).filter(|pair| pair[0] == "containerPort");
    let declared: Vec<u16> = declared.map(|pair| pair[1].parse().expect("a port")).collect();
    assert_eq!(declared, ports);
    // The end in order: not ready, then answers in flight end, then the process is killed. Between the
    // first two at least one probe fails.
    let seconds = |key| after(&scalars, key).parse::<u64>().expect("seconds");
    let (delay, deadline) = (config.shutdown.delay.as_secs(), config.shutdown.deadline.as_secs());
    assert!(delay + deadline < seconds("terminationGracePeriodSeconds"), "{delay} s, {deadline} s");
    let at = scalars.iter().position(|scalar| scalar == "readinessProbe").expect("a probe");
    assert_eq!(after(&scalars[at..], "failureThreshold"), "1");
    assert!(delay > after(&scalars[at..], "periodSeconds").parse().expect("seconds"), "{delay} s");
    assert!(!scalars.iter().any(|scalar| scalar == "preStop"), "the delay takes its place");
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
fn the_scrape_configurations_are_well_formed_and_agree_with_the_pod() {
    for text in [
        include_str!("../../deploy/prometheus/scrape.yaml"),
        include_str!("../../deploy/kubernetes/scrape.yaml"),
    ] {
        assert_eq!(scalars(text).iter().filter(|s| *s == "job_name").count(), 1);
    }
    let pod = scalars(SIDECAR);
    assert_eq!(after(&pod, "prometheus.io/path"), "/metrics");
    assert_eq!(after(&pod, "prometheus.io/port"), "9090");
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
