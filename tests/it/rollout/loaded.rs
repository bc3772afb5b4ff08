//! Rollouts of services with slow requests.

use super::*;
use crate::support::{
    backends::{Backends, Behavior},
    load::{Clients, Load},
};

/// Regression: requests that began under the split before, and ended under that of a large first step, were counted as
/// players of the new one. So the players seemed not to follow the weights, and `evidence` never passed.
#[test]
fn requests_in_flight_over_a_large_step_do_not_hinder_its_evidence() {
    let slow = Behavior { latency: Duration::from_millis(700), sigma: 0.3, ..Behavior::default() };
    let backends = Backends::start(&["v1", "v2"], &slow);
    let proxy = Proxy::builder()
        .version_at("v1", &[backends.all[0].address])
        .version_at("v2", &[backends.all[1].address])
        .service("cohort: { key: [ 'header:x-player-id' ] }")
        .service("eject: { errors: { absolute: 20% }, deadline: 3s }")
        .top("admin: { address: 127.0.0.1:0 }")
        .start_with_file();
    let load = Load::of(proxy.address, vec![Clients::new(300).players(1_500)]);
    let rollout = || proxy.admin().get(ROLLOUT).host("localhost").send().json();
    eventually("many requests are in flight", || load.seen().answered > 500);
    // Players are compared with the weights from the 13th second on.
    let steps = json!([
        { "weight": "50%", "for": "16s", "gates": ["evidence"] }, { "weight": "100%", "for": "1s" },
    ]);
    let body = json!({ "to": "v2", "steps": steps, "reason": "a test" }).to_string();
    let begun = proxy.admin().post(ROLLOUT, body.as_bytes()).host("localhost").send();
    assert_eq!(begun.status, 200, "{}", begun.text());
    let mut why = Value::Null;
    eventually("the step is over", || {
        let now = rollout();
        if now["step"] == 1 {
            why = now["gates"][0]["why"].clone();
            assert!(!why.as_str().unwrap_or_default().contains("not believed"), "{why}");
        }
        now["step"] == 2
    });
    assert!(why.as_str().expect("a reason").starts_with("certainly healthy"), "{why}");
    let mut admin = proxy.admin();
    let events = admin.get("/v1/events?since=0").host("localhost");
    let events = events.header("Accept", "application/json").send().text().to_owned();
    assert!(events.contains("rollout_started") && !events.contains("rollout_warning"), "{events}");
    assert_eq!(load.seen().failed, 0);
}
