use super::*;

const REPEAT: Duration = Duration::from_secs(60);

fn at(s: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(s)
}

fn of(version: &str) -> EventDetails {
    EventDetails {
        service: Some("game-api".to_owned()),
        version: Some(version.to_owned()),
        reason: "why".to_owned(),
        ..EventDetails::default()
    }
}

fn posted(alerts: &Alerts, now: SystemTime) -> Vec<Posted> {
    alerts.posted(now, REPEAT, &BTreeMap::new(), "edge-1:9090")
}

/// Name and version of each alert, and whether it fires.
fn sent(alerts: &Alerts, now: SystemTime) -> Vec<(String, String, bool)> {
    let label = |alert: &Posted, key| alert.labels.get(key).cloned().unwrap_or_default();
    let shown = crate::telemetry::rfc3339::millis(now).to_string();
    let each = posted(alerts, now).into_iter();
    each.map(|a| (label(&a, "alertname"), label(&a, "version"), a.ends_at > shown)).collect()
}

fn named(name: &str, version: &str, fires: bool) -> (String, String, bool) {
    (name.to_owned(), version.to_owned(), fires)
}

#[test]
fn an_ejection_replaces_a_near_miss_and_ends_by_reinstatement() {
    let mut alerts = Alerts::default();
    alerts.follow(EventKind::NearMiss, &of("v42"), at(10));
    assert_eq!(sent(&alerts, at(11)), [named("TidegateNearMiss", "v42", true)]);
    alerts.follow(EventKind::Ejected, &of("v42"), at(20));
    alerts.follow(EventKind::ComparisonEnded, &of("v42"), at(20));
    let both = |fires| {
        [named("TidegateVersionEjected", "v42", fires), named("TidegateNearMiss", "v42", false)]
    };
    assert_eq!(sent(&alerts, at(21)), both(true));
    alerts.follow(EventKind::Reinstated, &of("v42"), at(50));
    assert_eq!(sent(&alerts, at(51)), both(false));
    assert!(!alerts.any() && !alerts.is_empty());
    // After a quarter of an hour the ended alert is no longer sent.
    assert_eq!(sent(&alerts, at(50 + 900)), []);
    alerts.retain(at(50 + 900), |_| true);
    assert!(alerts.is_empty());
}

#[test]
fn an_alert_names_the_report_of_its_incident() {
    let mut alerts = Alerts::default();
    let id = crate::incident::Id::new(at(10), "game-api", "v42", crate::incident::Kind::Ejected);
    let with_report = EventDetails { incident: Some(id.clone().into()), ..of("v42") };
    alerts.follow(EventKind::Ejected, &with_report, at(10));
    // The process that took over tells of the same ejection without a report of its own.
    alerts.follow(EventKind::Ejected, &of("v42"), at(20));
    alerts.follow(EventKind::Ejected, &of("v41"), at(20));
    let posted = posted(&alerts, at(21));
    let named: Vec<_> = posted.iter().map(|alert| alert.annotations.get("incident")).collect();
    assert_eq!(named, [None, Some(&id.path())]);
}

/// With `on_mistake: reinstate` the ejection ended in the same moment, so its alert was over before it was
/// sent.
#[test]
fn what_has_no_end_fires_for_ten_minutes() {
    let mut alerts = Alerts::default();
    alerts.follow(EventKind::Ejected, &of("v42"), at(10));
    alerts.follow(EventKind::EjectionMistaken, &of("v42"), at(20));
    alerts.follow(EventKind::Reinstated, &of("v42"), at(20));
    alerts.retain(at(20), |_| false);
    alerts.follow(EventKind::FewPlayers, &of("v43"), at(30));
    let sent = |alerts: &Alerts, second| {
        let all = posted(alerts, at(second));
        let name = |alert: &Posted| alert.labels["alertname"].clone();
        all.iter().map(|alert| (name(alert), alert.ends_at.clone())).collect::<Vec<_>>()
    };
    let ends = |name: &str, at: &str| (name.to_owned(), format!("1970-01-01T00:{at}.000Z"));
    let expected = [
        ends("TidegateVersionEjected", "00:20"),
        ends("TidegateEjectionMistaken", "10:20"),
        ends("TidegateFewPlayers", "10:30"),
    ];
    assert_eq!(sent(&alerts, 31), expected);
    assert_eq!(sent(&alerts, 100_000), []);
}

#[test]
fn a_firing_alert_continues_and_an_ended_one_begins_again() {
    let mut alerts = Alerts::default();
    let outage = EventDetails { version: None, ..of("") };
    alerts.follow(EventKind::SharedOutage, &outage, at(10));
    let more = EventDetails { reason: "more".to_owned(), ..outage.clone() };
    alerts.follow(EventKind::SharedOutage, &more, at(20));
    let first = &posted(&alerts, at(30))[0];
    assert_eq!(first.starts_at, "1970-01-01T00:00:10.000Z");
    assert_eq!(first.annotations["description"], "game-api at edge-1:9090: more");
    assert_eq!(first.annotations["summary"], "game-api: baseline and canaries fail alike");
    alerts.follow(EventKind::SharedOutageOver, &outage, at(40));
    alerts.follow(EventKind::SharedOutageOver, &outage, at(45));
    assert_eq!(posted(&alerts, at(50))[0].ends_at, "1970-01-01T00:00:40.000Z");
    alerts.follow(EventKind::SharedOutage, &outage, at(60));
    assert_eq!(posted(&alerts, at(61))[0].starts_at, "1970-01-01T00:01:00.000Z");
}

#[test]
fn what_is_gone_fires_no_more() {
    let mut alerts = Alerts::default();
    alerts.follow(EventKind::Ejected, &of("v42"), at(10));
    alerts.follow(EventKind::WouldEject, &of("v43"), at(10));
    let endpoint = EventDetails { endpoint: Some("10.0.0.1:80".to_owned()), ..of("v41") };
    alerts.follow(EventKind::EndpointDown, &endpoint, at(10));
    alerts.follow(EventKind::EndpointProbing, &endpoint, at(11));
    alerts.retain(at(20), |subject| subject.version.as_deref() == Some("v41"));
    let expected = [
        named("TidegateVersionEjected", "v42", false),
        named("TidegateVersionWorse", "v43", false),
        named("TidegateEndpointOut", "v41", true),
    ];
    assert_eq!(sent(&alerts, at(21)), expected);
    alerts.follow(EventKind::EndpointServing, &endpoint, at(30));
    assert!(!alerts.any());
}

#[test]
fn an_alert_is_written_as_alertmanager_reads_it() {
    let mut alerts = Alerts::default();
    alerts.follow(EventKind::Ejected, &of("v42"), at(10));
    let labels = BTreeMap::from([("cluster".to_owned(), "eu".to_owned())]);
    assert_eq!(
        serde_json::to_value(alerts.posted(at(70), REPEAT, &labels, "edge-1:9090")).expect("JSON"),
        serde_json::json!([{
            "labels": {
                "alertname": "TidegateVersionEjected", "severity": "critical", "cluster": "eu",
                "instance": "edge-1:9090", "service": "game-api", "version": "v42",
            },
            "annotations": {
                "summary": "game-api v42 is ejected",
                "description": "game-api v42 at edge-1:9090: why. `tidegate reinstate game-api v42` reinstates it.",
            },
            "startsAt": "1970-01-01T00:00:10.000Z",
            "endsAt": "1970-01-01T00:05:10.000Z",
        }])
    );
}

/// Alerts of several instances had the same labels, so a receiver ended the alert of one with the message of
/// another.
#[test]
fn alerts_of_two_instances_are_told_apart_and_a_configured_label_is_kept() {
    let mut alerts = Alerts::default();
    alerts.follow(EventKind::Ejected, &of("v42"), at(10));
    let labels_at = |instance: &str, labels: &BTreeMap<String, String>| {
        let posted = alerts.posted(at(11), REPEAT, labels, instance);
        let Posted { labels, annotations, .. } = posted.into_iter().next().expect("one");
        (labels, annotations["description"].clone())
    };
    let none = BTreeMap::new();
    assert_ne!(labels_at("edge-1:9090", &none).0, labels_at("edge-2:9090", &none).0);
    let own = BTreeMap::from([("instance".to_owned(), "malta-1".to_owned())]);
    let (labels, description) = labels_at("edge-1:9090", &own);
    assert_eq!(labels["instance"], "malta-1");
    assert!(description.starts_with("game-api v42 at malta-1: why."), "{description}");
}

#[test]
fn a_wanted_approval_fires_until_somebody_answers() {
    let name = "TidegateRolloutWantsApproval";
    let what = |what: &str| EventDetails { what: Some(what.to_owned()), ..of("v42") };
    for (end, kind) in [
        ("approve", EventKind::Rollout),
        ("reject", EventKind::Rollout),
        ("pause", EventKind::Rollout),
        ("rollback", EventKind::RolloutRolledBack),
        ("abort", EventKind::RolloutAborted),
    ] {
        let mut alerts = Alerts::default();
        alerts.follow(EventKind::RolloutWantsApproval, &of("v42"), at(10));
        alerts.follow(EventKind::Rollout, &what("break_in"), at(20));
        assert_eq!(sent(&alerts, at(7_000)), [named(name, "v42", true)]);
        alerts.follow(kind, &what(end), at(7_000));
        let fires: Vec<_> =
            sent(&alerts, at(7_001)).into_iter().filter(|(of, _, _)| of == name).collect();
        assert_eq!(fires, [named(name, "v42", false)], "{end}");
    }
}
