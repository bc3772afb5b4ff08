use std::{
    io::Write,
    process::{Command, Stdio},
    time::{Duration, Instant, UNIX_EPOCH},
};

use super::*;
use crate::telemetry::collector::{Collector, Sample};

/// A service with a version that served, and one that has not.
fn scrape() -> Scrape {
    let now = Instant::now();
    let mut collector = Collector::default();
    collector.register_endpoint(0, 0);
    let sample = Sample { endpoint: 0, series: 0, duration_us: 900, upstream_us: 500 };
    let slow = Sample { duration_us: 31_000_000, upstream_us: Sample::NONE, ..sample };
    collector.absorb(&[sample, sample, slow], now);
    let latency = collector.endpoint(0, now);
    let v41 = Version {
        name: "v41".into(),
        weight: 97.5,
        state: State::Serving,
        semver: "4.1.0".into(),
        build: "a1b2c3".into(),
        contract: "2".into(),
        in_flight: 12,
        health_panic: true,
        retries: vec![("connect", 3)],
        withheld: vec![("budget", 2)],
        rescued: 11,
        shed: vec![("requests", 5), ("pending", 0)],
        amounts: vec![Amount { name: "stake".into(), count: 40, sum: 812.5, malformed: 2 }],
        endpoints: vec![Endpoint {
            address: "127.0.0.1:9001".into(),
            minute: latency.minute,
            total: latency.total,
            connections: 3,
            connecting: Duration::from_micros(45_500),
            errors: Errors { connect: 1, status: 7, ..Errors::default() },
            serves: true,
            checks: [30, 2],
            ejections: vec![("connect", 1)],
            share: 0.5,
            overloaded: 9,
        }],
        ..Version::default()
    };
    let v42 = Version {
        name: "v42".into(),
        ejections: vec![("verdict", 2)],
        events: vec![("few_players", 0), ("ejection_mistaken", 1)],
        evidence_log: vec![("errors".into(), 3.25), ("all".into(), 2.5)],
        evidence_threshold: vec![("all".into(), 6.907755278982137)],
        endpoints: vec![Endpoint { address: "127.0.0.1:9002".into(), ..Endpoint::default() }],
        ..Version::default()
    };
    Scrape {
        read_only: vec![ReadOnly { service: "game-api".into(), all: true, routes: 1, refused: 4 }],
        holds: vec![HoldUse {
            service: "game-api".into(),
            route: "cashier.webhook".into(),
            waiting: 2,
            bytes: 32_768,
            events: vec![("released", 7), ("full", 1)],
            holds: Durations::default(),
        }],
        refused: vec![RefusedUse {
            service: "game-api".into(),
            route: "bet.place".into(),
            counts: vec![("rate", 7), ("fence", 0)],
        }],
        rates: vec![RateUse {
            route: "bet.place".into(),
            limit: "client-ip".into(),
            refused: 3,
            advised: 0,
            lost: 0,
        }],
        concurrency: vec![
            ConcurrencyUse {
                service: "game-api".into(),
                limit: 180,
                in_flight: 171,
                waiting: 3,
                shed: vec![("high", "full", 0), ("low", "displaced", 12)],
                ..ConcurrencyUse::default()
            },
            ConcurrencyUse {
                service: "game-api".into(),
                route: "bet.place".into(),
                limit: 50,
                ..ConcurrencyUse::default()
            },
        ],
        authorizers: vec![("gate".into(), vec![("allowed", 5), ("cached", 9)])],
        callers_refused: vec![("wrong_token", 4), ("role", 0)],
        issuers: vec![IssuerUse {
            name: "players".into(),
            verified: 7,
            refused: vec![("missing", 2), ("expired", 1)],
            fetches: [3, 0],
            keys: 2,
            emptied: 1,
            age_s: Some(12.5),
        }],
        services: vec![Service {
            name: "game-api".into(),
            versions: vec![v41, v42],
            available: true,
            shared_outage: Some(false),
            weights_refused: false,
            rollout: Some(Rollout {
                version: "v42".into(),
                phases: vec![("growing", true), ("done", false)],
                step: 1,
                steps: 3,
                wants_approval: true,
                due_s: Some(86_400.0),
            }),
            rollouts_ended: vec![("done", 2), ("rolled_back", 1), ("aborted", 0)],
            cutovers: vec![("made", 3), ("undone", 1)],
            fence: Some(FenceUse { waiting: 2, holds: collector.series(0), uploads_cut: 1 }),
            incidents: vec![("ejected", 2), ("rolled_back", 0)],
            pins: Some(Pins {
                versions: vec![("v41".into(), 12, 311), ("v42".into(), 0, 0)],
                events: vec![("begun", 40), ("ended", 28)],
            }),
        }],
        exhausted: [2, 3],
        connections_limit: 16_384,
        names: vec![("game.internal".into(), true), ("gone.internal".into(), false)],
        series: vec![Series {
            service: "game-api".into(),
            version: "v41".into(),
            route: "bet \"place\"\\\n".into(),
            by_class: [0, 2, 0, 0, 1],
            durations: collector.series(0),
        }],
        keys_kept: Some(KeysKept { failing: false, moved: 1 }),
        idempotency: vec![Idempotency {
            service: "game-api".into(),
            route: "bet.place".into(),
            keys: 12,
            unsure: 2,
            limit: 1_000_000,
            waiting: 1,
            bytes: 4096,
            events: vec![("begun", 12), ("replayed", 3)],
        }],
        unrouted: vec![(404, 5)],
        requests_shed: 6,
        requests_shed_per_client: 8,
        control_panics: vec![("evaluate", 1)],
        requests_limit: 65_536,
        listeners: vec![Listener {
            name: "0.0.0.0:8080".into(),
            open: 64,
            accepted: 80,
            shed: 2,
            shed_per_client: 3,
            proxy_protocol_errors: 1,
            tls_handshakes_failed: 4,
        }],
        certificates: vec![Certificate {
            listener: "0.0.0.0:8443".into(),
            file: "/etc/tidegate/edge.pem".into(),
            not_after: UNIX_EPOCH + Duration::from_secs(1_803_168_000),
        }],
        generation: 42,
        reloads_applied: 3,
        reloads_rejected: 1,
        access_log: Lost { queue_full: 9, write_error: 0 },
        log: Lost { queue_full: 0, write_error: 4 },
        worker_panics: 0,
        samples_lost: 1024,
        outcomes_lost: 7,
        http2_floods: 2,
        journal: Some(Journal { entries: 7, failing: false, waiting: 1 }),
        checkpoints_sent: vec![("webhook", [2, 1])],
        alert_posts: vec![("alertmanager:9093".into(), [4, 1])],
        smoke_checks: vec![(["game-api".into(), "v42".into(), "money-path".into()], [3, 1])],
        build: "0.1.0",
        started: UNIX_EPOCH + Duration::from_millis(1_795_332_031_500),
        process: Some(Process {
            resident_bytes: 20 << 20,
            cpu: Duration::from_millis(1230),
            open_fds: 77,
            max_fds: Some(65_536),
            threads: 3,
        }),
    }
}

#[test]
fn the_page_reads_like_this() {
    let page = render(&scrape());
    let golden = include_str!("golden.txt");
    if page != golden && std::env::var_os("BLESS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/telemetry/metrics/golden.txt");
        std::fs::write(path, &page).expect("the golden text is written");
        return;
    }
    for (line, (rendered, golden)) in page.lines().zip(golden.lines()).enumerate() {
        assert_eq!(rendered, golden, "line {}; set BLESS=1 to accept", line + 1);
    }
    assert_eq!(page.len(), golden.len(), "one is longer; set BLESS=1 to accept");
}

#[test]
fn an_empty_scrape_is_a_page_too() {
    let page = render(&Scrape {
        services: Vec::new(),
        names: Vec::new(),
        series: Vec::new(),
        unrouted: Vec::new(),
        listeners: Vec::new(),
        certificates: Vec::new(),
        process: None,
        ..scrape()
    });
    assert!(page.contains("tidegate_config_generation 42\n"));
    assert!(!page.contains("tidegate_requests_total"));
}

#[test]
fn promtool_finds_nothing_to_complain_about() {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match promtool {
        Ok(promtool) => promtool,
        // A fresh machine has no promtool; the checks in CI install and require it.
        Err(error) if std::env::var_os("CI").is_none() => {
            eprintln!("skipped: promtool ({error}); it comes with Prometheus");
            return;
        }
        Err(error) => panic!("promtool: {error}; it comes with Debian's package prometheus"),
    };
    let mut stdin = promtool.stdin.take().expect("a pipe was asked for");
    stdin.write_all(render(&scrape()).as_bytes()).expect("promtool reads");
    drop(stdin);
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}
