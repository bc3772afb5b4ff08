//! Receivers of alerts.

use std::collections::{HashMap, HashSet};

use super::Finding;
use crate::config::{
    problem::FieldPath,
    schema::{Alerts, Webhook},
    url::is_url,
};

/// Labels that all alerts have.
const OWN: [&str; 5] = ["alertname", "severity", "service", "version", "endpoint"];

/// Checks the receivers of alerts.
pub(super) fn check(alerts: &Alerts, path: &FieldPath, found: &mut Vec<Finding>) {
    receivers(&alerts.webhooks, &path.key("webhooks"), found);
    labels(alerts, path, found);
}

/// Checks a list of receivers.
pub(super) fn receivers(webhooks: &[Webhook], path: &FieldPath, found: &mut Vec<Finding>) {
    if webhooks.is_empty() {
        found.push(Finding::new(path.clone(), "nobody to tell; write at least one"));
    }
    let (mut urls, mut names) = (HashMap::new(), HashSet::new());
    for (index, webhook) in webhooks.iter().enumerate() {
        let here = path.index(index);
        if let Err(message) = receiver(webhook) {
            found.push(Finding::new(here.key("url"), message));
        }
        // A URL may contain a secret, and problems go to the log.
        if let Some(first) = urls.insert(&webhook.url, index) {
            let message = format!("the URL of `webhooks[{first}]`, too; write it once");
            found.push(Finding::new(here.key("url"), message));
        } else if let Some(name) = &webhook.name
            && !is_name(name)
        {
            let message = format!("`{name}` is not a name; write letters, digits and `_.-:[]`");
            found.push(Finding::new(here.key("name"), message));
        } else if !names.insert(webhook.label()) {
            let message = format!(
                "another receiver is called `{}`; write a `name` of its own",
                webhook.label()
            );
            let field = if webhook.name.is_some() { "name" } else { "url" };
            found.push(Finding::new(here.key(field), message));
        }
        if webhook.ca.is_some() && webhook.url.starts_with("http://") {
            let message = "not used by http://; write https:// or leave it out";
            found.push(Finding::new(here.key("ca"), message).and(here.key("url")));
        }
    }
}

fn labels(alerts: &Alerts, path: &FieldPath, found: &mut Vec<Finding>) {
    for name in alerts.labels.keys() {
        let here = path.key("labels").key(name);
        let letter = |b: u8| b.is_ascii_alphabetic() || b == b'_';
        let good = name.bytes().next().is_some_and(letter)
            && name.bytes().all(|b| letter(b) || b.is_ascii_digit());
        if !good {
            let message =
                format!("`{name}` is not a label of Prometheus; write letters, digits and `_`");
            found.push(Finding::of_name(here, message));
        } else if OWN.contains(&name.as_str()) {
            let message = format!("alerts have a `{name}` of their own; write another name");
            found.push(Finding::of_name(here, message));
        }
    }
}

fn receiver(webhook: &Webhook) -> Result<(), String> {
    if is_url(&webhook.url) {
        return Ok(());
    }
    let message =
        "not a URL of a receiver; write one such as http://alertmanager:9093/api/v2/alerts";
    Err(message.to_owned())
}

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-:[]".contains(&b))
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    /// The problems of a file with these `alerts`.
    fn problems(alerts: &str) -> String {
        let text = format!(
            "listen: [ {{ address: 127.0.0.1:0 }} ]\nroutes: [ {{ service: a }} ]\nservices: {{ a: {{ \
             baseline: v1, versions: {{ v1: {{ endpoints: [ 10.0.0.1:1 ] }} }} }} }}\nalerts: {alerts}\n"
        );
        parse(&text).map_or_else(|problems| problems.to_string(), |_| String::new())
    }

    #[test]
    fn receivers_can_be_reached_and_labels_are_those_of_prometheus() {
        for good in [
            "{ webhooks: [ { url: 'http://am:9093/api/v2/alerts' } ] }",
            "{ webhooks: [ { url: 'http://a:1/x' }, { url: 'http://a:1/y', name: pager } ] }",
            "{ webhooks: [ { url: 'https://[::1]/x?y=1', ca: ca.pem, token_file: t } ], labels: { cluster: eu }, repeat: 30s, timeout: 1s }",
        ] {
            assert_eq!(problems(good), "", "{good}");
        }
        for (bad, expected) in [
            ("{ webhooks: [] }", "4:21: alerts.webhooks: nobody to tell; write at least one"),
            (
                "{ webhooks: [ { url: 'am:9093' } ] }",
                "4:30: alerts.webhooks[0].url: not a URL of a receiver; write one such as http://alertmanager:9093/api/v2/alerts",
            ),
            (
                "{ webhooks: [ { url: 'http://u:p@am/' } ] }",
                "4:30: alerts.webhooks[0].url: not a URL of a receiver; write one such as http://alertmanager:9093/api/v2/alerts",
            ),
            (
                "{ webhooks: [ { url: 'http://a/' }, { url: 'http://a/' } ] }",
                "4:52: alerts.webhooks[1].url: the URL of `webhooks[0]`, too; write it once",
            ),
            (
                "{ webhooks: [ { url: 'http://a/x' }, { url: 'http://a/y' } ] }",
                "4:53: alerts.webhooks[1].url: another receiver is called `a`; write a `name` of its own",
            ),
            (
                "{ webhooks: [ { url: 'http://a/', name: b }, { url: 'http://b/' } ] }",
                "4:61: alerts.webhooks[1].url: another receiver is called `b`; write a `name` of its own",
            ),
            (
                "{ webhooks: [ { url: 'http://a/', name: 'a b' } ] }",
                "4:49: alerts.webhooks[0].name: `a b` is not a name; write letters, digits and `_.-:[]`",
            ),
            (
                "{ webhooks: [ 'https://u:p@a.test/services/secret' ] }",
                "4:23: alerts.webhooks[0]: the text `https://a.test/…` stands here; write a map of fields",
            ),
            (
                "{ webhooks: [ { url: 'http://a/', ca: ca.pem } ] }",
                "4:47: alerts.webhooks[0].ca: not used by http://; write https:// or leave it out",
            ),
            (
                "{ webhooks: [ { url: 'http://a/' } ], labels: { a-b: x } }",
                "4:57: alerts.labels.a-b: `a-b` is not a label of Prometheus; write letters, digits and `_`",
            ),
            (
                "{ webhooks: [ { url: 'http://a/' } ], labels: { service: x } }",
                "4:57: alerts.labels.service: alerts have a `service` of their own; write another name",
            ),
        ] {
            assert_eq!(problems(bad), expected, "{bad}");
        }
    }
}
