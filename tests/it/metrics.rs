//! What a scrape shows before anything has happened.

use std::collections::HashSet;

use crate::support::{Origin, Proxy};

fn page(proxy: &Proxy) -> String {
    proxy.admin().get("/metrics").host("localhost").send().text().to_owned()
}

/// The query of an analysis had no result before the first failure, or the canary's first request.
#[test]
fn every_counter_begins_at_0_before_the_first_event() {
    let (v1, v2) = (Origin::answering("v1"), Origin::answering("v2"));
    let builder = Proxy::builder().version("v1", &v1).version("v2", &v2);
    let proxy = builder.top("admin: { address: 127.0.0.1:0 }").start();
    let page = page(&proxy);
    let at = format!("service=\"game-api\",version=\"v2\",endpoint=\"{}\"", v2.address);
    for line in [
        "tidegate_requests_total{service=\"game-api\",version=\"v2\",route=\"default\",code_class=\"5xx\"}",
        "tidegate_request_duration_seconds_count{service=\"game-api\",version=\"v2\",route=\"default\"}",
        "tidegate_requests_unrouted_total{code=\"503\"}",
        "tidegate_ejections_total{service=\"game-api\",version=\"v2\",endpoint=\"\",reason=\"verdict\"}",
        "tidegate_comparison_events_total{service=\"game-api\",version=\"v2\",kind=\"few_players\"}",
        "tidegate_comparison_events_total{service=\"game-api\",version=\"v2\",kind=\"refusals_rise\"}",
        &format!("tidegate_ejections_total{{{at},reason=\"connect\"}}"),
        &format!("tidegate_health_checks_total{{{at},result=\"bad\"}}"),
        &format!("tidegate_upstream_errors_total{{{at},kind=\"reset\"}}"),
        "tidegate_retries_total{service=\"game-api\",version=\"v2\",reason=\"connect\"}",
        "tidegate_config_reloads_total{result=\"rejected\"}",
    ] {
        assert!(page.contains(&format!("\n{line} 0\n")), "{line} in:\n{page}");
    }
}

#[test]
fn of_very_many_routes_only_the_first_and_those_that_were_asked_have_series() {
    let v1 = Origin::answering("v1");
    let builder = Proxy::builder().version("v1", &v1).top("admin: { address: 127.0.0.1:0 }");
    let route = |n: usize| format!("name: r{n}, match: {{ path: /{n} }}");
    let proxy = (0..600).fold(builder, |builder, n| builder.route(&route(n))).start();
    proxy.get("/77");
    let page = page(&proxy);
    let routes = page.lines().filter_map(|line| {
        let (_, rest) = line.strip_prefix("tidegate_requests_total{")?.split_once("route=\"")?;
        rest.split('"').next()
    });
    assert_eq!(routes.collect::<HashSet<_>>(), HashSet::from(["r0", "r77"]));
}
