use httparse::Header;
use proptest::prelude::*;

use super::*;
use crate::config::pattern::Segment;

fn route(yaml: serde_json::Value) -> RouteMatch {
    serde_json::from_value(yaml).expect("a route match")
}

fn view<'a>(
    method: &'a str,
    host: &'a str,
    target: &'a str,
    headers: &'a [Header<'a>],
) -> RequestView<'a> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    RequestView {
        method,
        host,
        path,
        query,
        headers,
        client: [127, 0, 0, 1].into(),
        client_text: b"127.0.0.1",
        claims: None,
    }
}

#[test]
fn the_most_specific_route_wins_in_any_order_of_the_file() {
    let routes = [
        ("catch-all", serde_json::json!({})),
        ("prefix", serde_json::json!({"path": "/v1/*"})),
        ("longer prefix", serde_json::json!({"path": "/v1/bets/*"})),
        ("exact", serde_json::json!({"path": "/v1/bets"})),
        ("exact post", serde_json::json!({"path": "/v1/bets", "methods": ["POST"]})),
        (
            "exact post eu",
            serde_json::json!({"path": "/v1/bets", "methods": ["POST"], "headers": {"X-Region": "eu"}}),
        ),
        ("exact beta", serde_json::json!({"path": "/v1/bets", "query": {"beta": ["1", "yes"]}})),
        ("settle", serde_json::json!({"path": "/v1/rounds/{id}/settle"})),
        ("round seven", serde_json::json!({"path": "/v1/rounds/7/settle"})),
        ("rounds", serde_json::json!({"path": "/v1/rounds/{id}/*"})),
        ("host", serde_json::json!({"host": "api.example.com", "path": "/v1/*"})),
        ("suffix", serde_json::json!({"host": "*.example.com", "path": "/only/*"})),
        ("purge", serde_json::json!({"path": "/v1/bets", "methods": ["PURGE"]})),
        ("root", serde_json::json!({"path": "/"})),
        ("slash", serde_json::json!({"path": "/v1/bets/"})),
    ];
    let eu = [Header { name: "x-region", value: b"eu" }];
    let us = [Header { name: "x-region", value: b"us" }];
    let cases: [(&str, RequestView<'_>); 21] = [
        ("root", view("GET", "h", "/", &[])),
        ("catch-all", view("GET", "h", "/other", &[])),
        ("catch-all", view("OPTIONS", "h", "*", &[])),
        ("exact", view("GET", "h", "/v1/bets", &[])),
        ("exact beta", view("GET", "h", "/v1/bets?beta=yes", &[])),
        ("exact post", view("POST", "h", "/v1/bets", &us)),
        ("exact post eu", view("POST", "h", "/v1/bets", &eu)),
        ("exact post", view("POST", "h", "/v1/bets?beta=1", &[])),
        ("purge", view("PURGE", "h", "/v1/bets", &[])),
        ("slash", view("GET", "h", "/v1/bets/", &[])),
        ("longer prefix", view("GET", "h", "/v1/bets/9", &[])),
        ("prefix", view("GET", "h", "/v1", &[])),
        ("prefix", view("GET", "h", "/v1/betsy", &[])),
        ("settle", view("GET", "h", "/v1/rounds/8/settle", &[])),
        ("round seven", view("GET", "h", "/v1/rounds/7/settle", &[])),
        ("rounds", view("GET", "h", "/v1/rounds/7/other", &[])),
        ("prefix", view("GET", "h", "/v1/rounds//settle", &[])),
        ("host", view("POST", "API.example.com", "/v1/bets", &eu)),
        ("suffix", view("GET", "api.example.com", "/only/x", &[])),
        ("suffix", view("GET", "a.b.example.com", "/only", &[])),
        ("catch-all", view("GET", "example.com", "/only", &[])),
    ];
    for rotation in 0..routes.len() {
        let mut order: Vec<_> = routes.iter().collect();
        order.rotate_left(rotation);
        let matches: Vec<RouteMatch> = order.iter().map(|(_, m)| route(m.clone())).collect();
        let table = Table::new(&matches);
        for (expected, request) in &cases {
            let found = table.find(request).map(|r| order[r as usize].0);
            assert_eq!(
                found,
                Some(*expected),
                "{} {}{}",
                request.method,
                request.host,
                request.path
            );
        }
    }
}

#[test]
fn nothing_matches_nothing() {
    assert_eq!(Table::new([]).find(&view("GET", "h", "/", &[])), None);
    let only = [route(serde_json::json!({"path": "/a/{b}", "methods": ["GET"]}))];
    let table = Table::new(&only);
    assert_eq!(table.find(&view("GET", "h", "/a/x", &[])), Some(0));
    for (method, path) in [
        ("POST", "/a/x"),
        ("GET", "/a"),
        ("GET", "/a/"),
        ("GET", "/a/x/"),
        ("GET", "*"),
        ("GET", ""),
    ] {
        assert_eq!(table.find(&view(method, "h", path, &[])), None, "{method} {path}");
    }
}

/// Once every suffix of a name was hashed, however long the name: 32 KiB of labels took 50 ms.
#[test]
fn a_host_longer_than_any_name_costs_no_look_at_its_ends() {
    let any = [serde_json::json!({"host": "*.example.com"}), serde_json::json!({})];
    let routes = any.map(route);
    let table = Table::new(&routes);
    let host = "a.".repeat(120) + "example.com";
    assert_eq!(table.find(&view("GET", &host, "/", &[])), Some(0));
    let host = "a.".repeat(8 << 20) + "example.com";
    let began = std::time::Instant::now();
    assert_eq!(table.find(&view("GET", &host, "/", &[])), Some(1));
    // 16 MiB are scanned once here; hashing 8 million suffixes would take hours.
    assert!(began.elapsed() < std::time::Duration::from_secs(20));
}

/// The definition of precedence without an index: tries all routes and takes the best.
fn by_definition(routes: &[RouteMatch], request: &RequestView<'_>) -> Option<u32> {
    let segments: Vec<&str> = request.path.strip_prefix('/').unwrap_or("").split('/').collect();
    let rank = |(number, route): (u32, &RouteMatch)| {
        let path = route.path.as_ref()?;
        let (n, m) = (path.segments.len(), segments.len());
        let fits = if path.prefix { n <= m } else { n == m };
        let equal = path.segments.iter().zip(&segments).all(|(p, s)| match p {
            Segment::Literal(text) => text == s,
            Segment::Param(_) => !s.is_empty(),
        });
        let method = route.methods.is_empty() || route.methods.iter().any(|m| m == request.method);
        let literals: Vec<bool> =
            path.segments.iter().map(|s| matches!(s, Segment::Literal(_))).collect();
        (fits && equal && method).then_some((
            !path.prefix,
            n,
            literals,
            !route.methods.is_empty(),
            std::cmp::Reverse(number),
        ))
    };
    (0..).zip(routes).filter_map(|r| rank(r).map(|rank| (rank, r.0))).max().map(|(_, n)| n)
}

proptest! {
    #[test]
    fn agrees_with_the_definition(
        paths in prop::collection::vec(
            (prop::collection::vec(prop::sample::select(vec!["a", "b", "{p}", "c"]), 0..4), any::<bool>(), any::<bool>()), 1..12),
        asked in prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "x", ""]), 1..5),
        post in any::<bool>(),
    ) {
        let routes: Vec<RouteMatch> = paths.iter().filter_map(|(parts, prefix, named)| {
            let parts: Vec<String> = parts.iter().enumerate().map(|(i, p)| p.replace("{p}", &format!("{{p{i}}}"))).collect();
            let path = match (parts.is_empty(), prefix) {
                (true, true) => "/*".to_owned(),
                (_, prefix) => format!("/{}{}", parts.join("/"), if *prefix { "/*" } else { "" }),
            };
            let mut m = RouteMatch { path: path.parse().ok(), ..RouteMatch::default() };
            m.path.as_ref()?;
            if *named { m.methods = vec!["POST".into()]; }
            Some(m)
        }).collect();
        let target = format!("/{}", asked.join("/"));
        let request = view(if post { "POST" } else { "GET" }, "h", &target, &[]);
        prop_assert_eq!(Table::new(&routes).find(&request), by_definition(&routes, &request));
    }
}
