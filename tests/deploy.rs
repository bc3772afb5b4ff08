//! What `deploy/` says is what the program understands.

use saphyr_parser::{Event, Parser};
use tidegate::config;

const SIDECAR: &str = include_str!("../deploy/kubernetes/sidecar.yaml");

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
    // The end in order: preStop waits, then answers in flight end, then the process is killed.
    let seconds = |key| after(&scalars, key).parse::<u64>().expect("seconds");
    let ends_after = seconds("seconds") + config.shutdown.deadline.as_secs();
    assert!(ends_after < seconds("terminationGracePeriodSeconds"), "{ends_after} s");
}

#[test]
fn the_scrape_configurations_are_well_formed_and_agree_with_the_pod() {
    for text in [
        include_str!("../deploy/prometheus/scrape.yaml"),
        include_str!("../deploy/kubernetes/scrape.yaml"),
    ] {
        assert_eq!(scalars(text).iter().filter(|s| *s == "job_name").count(), 1);
    }
    let pod = scalars(SIDECAR);
    assert_eq!(after(&pod, "prometheus.io/path"), "/metrics");
    assert_eq!(after(&pod, "prometheus.io/port"), "9090");
}
