use crate::config::parse;

const SERVICES: &str = "services: { a: { baseline: v1, versions: { v1: { endpoints: [ 10.0.0.1:1 ] }, v2: { endpoints: [ 10.0.0.2:1 ] } } } }\n";
const LISTEN: &str = "listen: [ { address: 127.0.0.1:8080 } ]\n";
const ROUTES: &str = "routes: [ { service: a } ]\n";

#[track_caller]
fn assert_problems(text: &str, expected: &str) {
    let problems = parse(text).map_or_else(|p| p.to_string(), |_| String::new());
    assert_eq!(problems, expected.trim_end(), "\n{problems}\n");
}

#[test]
fn addresses_must_not_clash() {
    assert_problems(
        &format!(
            "{SERVICES}{ROUTES}listen:
- address: 127.0.0.1:8080
- address: 127.0.0.1:8080
- address: 0.0.0.0:8080
- address: 127.0.0.1:0
- address: 127.0.0.1:0
admin: {{ address: 0.0.0.0:8080 }}
"
        ),
        "\
5:12: listen[1].address: taken by `listen[0].address` already; write another port
6:12: listen[2].address: taken by `listen[0].address` already; write another port
9:19: admin.address: reachable from other hosts without a token; write admin.tokens, or an address of this host only, such as 127.0.0.1:9090
9:19: admin.address: taken by `listen[0].address` already; write another port",
    );
}

#[test]
fn those_in_front_are_named() {
    assert_problems(
        &format!(
            "{SERVICES}{ROUTES}listen:
- address: 127.0.0.1:8080
  proxy_protocol: {{ from: [] }}
- address: 127.0.0.1:8081
  proxy_protocol: {{ from: [ 10.1.2.3/8, 192.0.2.7, 10.0.0.0/8, 0.0.0.0/0 ] }}
- address: 127.0.0.1:8082
  proxy_protocol: {{ }}
- address: 127.0.0.1:8083
  proxy_protocol: {{ from: [ balancer, 10.0.0.0/33 ] }}
trusted_proxies: [ 10.0.0.0/8, 10.0.0.0/8, ::1, ::/0 ]
"
        ),
        "\
5:27: listen[0].proxy_protocol.from: no balancer; write the addresses that send the heads
7:52: listen[1].proxy_protocol.from[2]: `10.0.0.0/8` twice; write it once
9:19: listen[2].proxy_protocol.from: missing; add `from: [ 10.0.0.0/8 ]`
11:29: listen[3].proxy_protocol.from[0]: `balancer` is not a range of addresses; write 10.0.0.0/8, 2001:db8::/32 or one address
11:39: listen[3].proxy_protocol.from[1]: `10.0.0.0/33` is not a range of addresses; write 10.0.0.0/8, 2001:db8::/32 or one address
12:32: trusted_proxies[1]: `10.0.0.0/8` twice; write it once
12:49: trusted_proxies[3]: `::/0` is everybody, so a client could claim any address; write the addresses of the proxies",
    );
}

#[test]
fn lists_of_addresses_say_something_and_admit_somebody() {
    assert_problems(
        &format!(
            "{SERVICES}{LISTEN}routes:
- {{ service: a, access: {{ }} }}
- {{ service: a, match: {{ path: /b }}, access: {{ allow: [ 10.1.0.0/16, 192.0.2.7 ], deny: [ 10.0.0.0/8, 10.0.0.0/8 ] }} }}
- {{ service: a, match: {{ path: /c }}, access: {{ allow: [], deny: [ 10.0.0.0/8 ] }} }}
"
        ),
        "\
4:25: routes[0].access: neither `allow` nor `deny`; write the addresses, or leave `access` out
5:57: routes[1].access.allow[0]: `10.1.0.0/16` is denied by `10.0.0.0/8`, so it admits nobody; leave one of them out
5:103: routes[1].access.deny[1]: `10.0.0.0/8` twice; write it once
6:55: routes[2].access.allow: admits nobody; write the addresses, or leave `allow` out to admit all",
    );
}

#[test]
fn idempotency_is_of_writes_and_within_bounds() {
    assert_problems(
        &format!(
            "{SERVICES}{LISTEN}routes:
- {{ service: a, match: {{ path: /r, methods: [ GET, HEAD ] }}, idempotency: {{ }} }}
- {{ service: a, match: {{ path: /b }}, idempotency: {{ window: 1s, wait: 20m, body: 2MiB, answer: 1MiB, memory: 512KiB, keys: 0 }} }}
- {{ service: a, idempotency: {{ required: true, window: 24h, unsure: ask, errors: replay }} }}
"
        ),
        "\
4:62: routes[0].idempotency: all requests of the route read, and only writes take part; leave it out
5:61: routes[1].idempotency.window: out of range; write 1m to 744h
5:71: routes[1].idempotency.wait: out of range; write 100ms to 10m
5:82: routes[1].idempotency.body: out of range; write at most 1MiB
5:110: routes[1].idempotency.memory: less than 16 responses of `answer` bytes; write at least 16MiB
5:124: routes[1].idempotency.keys: out of range; write 1 to 10000000",
    );
}

#[test]
fn process_wide_values_are_in_range() {
    assert_problems(
        &format!(
            "{SERVICES}{ROUTES}{LISTEN}workers: 0
admin:
  address: 0.0.0.0:9090
  tokens: [ {{ name: ci, file: '' }}, {{ name: ci, file: b }}, {{ name: 'c i', file: c }} ]
limits:
  {{ connections: 0, connections_per_client: 0, requests: 0, requests_per_client: 0, header_bytes: 512B, header_count: 257 }}
access_log: {{ path: '' }}
resolver: {{ servers: [ 10.0.0.2:53, 10.0.0.2:53, 10.0.0.2:0 ] }}
"
        ),
        "\
4:10: workers: out of range; write 1 to 1024
7:31: admin.tokens[0].file: names no file; write its path
7:45: admin.tokens[1].name: `ci` names another token already; give each its own name
7:68: admin.tokens[2].name: `c i` cannot be a name; write 1 to 64 of the letters a-z A-Z, the digits 0-9 and . _ -
9:18: limits.connections: out of range; write 1 or more
9:45: limits.connections_per_client: out of range; write 1 or more
9:58: limits.requests: out of range; write 1 or more
9:82: limits.requests_per_client: out of range; write 1 or more
9:99: limits.header_bytes: `512B` is out of range; write 1KiB to 1MiB
9:119: limits.header_count: out of range; write 1 to 256
10:21: access_log.path: names no file; write its path
11:37: resolver.servers[1]: `10.0.0.2:53` twice; write it once
11:50: resolver.servers[2]: port 0; a DNS server listens at port 53",
    );
    // It quoted `1000B`, which nobody had written.
    assert_problems(
        &format!("{SERVICES}{ROUTES}{LISTEN}limits: {{ header_bytes: 1KB }}\n"),
        "4:25: limits.header_bytes: `1KB` is out of range; write 1KiB to 1MiB",
    );
    assert_problems(
        &format!("{SERVICES}{ROUTES}{LISTEN}admin: {{ address: 0.0.0.0:9090 }}\n"),
        "4:19: admin.address: reachable from other hosts without a token; write admin.tokens, or an address of this host only, such as 127.0.0.1:9090",
    );
}

#[test]
fn tls_names_its_files() {
    assert_problems(
        &format!(
            "{ROUTES}listen:
- {{ address: 127.0.0.1:1, tls: {{ certificates: [] }} }}
- address: 127.0.0.1:2
  tls:
    certificates: [ {{ cert: a.pem, key: '', ocsp: '' }}, {{ cert: a.pem, key: a.pem }} ]
    min_version: 1.1
    client: {{ ca: '', mode: always }}
- {{ address: 127.0.0.1:3, tls: {{ certificates: [ {{ cert: a.pem, key: a.key }} ], min_version: 1.3, client: {{ ca: c.pem }} }} }}
services:
  a:
    baseline: v1
    versions:
      v1: {{ endpoints: [ 10.0.0.1:1 ], tls: {{ ca: '', server_name: 'a:1', client: {{ cert: '', key: k }} }} }}
      v2: {{ endpoints: [ 10.0.0.2:1 ], tls: {{}} }}
      v3: {{ endpoints: [ 10.0.0.2:1 ], tls: {{ server_name: A.internal, client: {{ cert: c }} }} }}
"
        ),
        "\
3:48: listen[0].tls.certificates: no certificate; write at least one, such as { cert: edge.pem, key: edge.key }
6:41: listen[1].tls.certificates[0].key: names no file; write its path
6:51: listen[1].tls.certificates[0].ocsp: names no file; write its path
6:65: listen[1].tls.certificates[1].cert: `a.pem` twice; write it once
7:18: listen[1].tls.min_version: `1.1` is not a version of TLS that is spoken here; write \"1.2\" or \"1.3\"
8:19: listen[1].tls.client.ca: names no file; write its path
8:29: listen[1].tls.client.mode: `always` is not known; write one of required, optional
14:51: services.a.versions.v1.tls.ca: names no file; write its path
14:68: services.a.versions.v1.tls.server_name: `a:1` is not a host; write a name or an address, such as game.internal
14:91: services.a.versions.v1.tls.client.cert: names no file; write its path
16:80: services.a.versions.v3.tls.client.key: missing; add `key: FILE`",
    );
}

#[test]
fn services_agree_with_themselves() {
    assert_problems(
        &format!(
            "{LISTEN}{ROUTES}services:
  a/b: {{ baseline: v1, versions: {{}} }}
  a:
    baseline: v3
    versions:
      v1: {{ endpoints: [] }}
      v 2: {{ endpoints: [ a:1, A:1, 0.0.0.0:1, 127.0.0.1:8080 ] }}
    weights: {{ v1: 0, v9: 0 }}
    cohort: {{ key: [ client-ip, cookie:uid, cookie:uid, path:round ], salt: \"a\\n\" }}
    rules:
      - {{ match: {{}}, version: v1 }}
      - {{ match: {{ headers: {{ X-A: [ a, a ], x-a: b, 'x y': [] }} }}, version: beta }}
      - {{ match: {{ cookies: {{ uid: 'a;b' }}, query: {{ '': x }}, params: {{ round: a/b }}, players: [ '', p, p ] }}, version: v1 }}
      - {{ match: {{ clients: [ 10.0.0.0/8 ] }}, version: v1 }}
      - {{ match: {{ clients: [ 10.1.2.3/8 ] }}, version: v1 }}
"
        ),
        "\
4:3: services.a/b: `a/b` cannot be a name; write 1 to 64 of the letters a-z A-Z, the digits 0-9 and . _ -
4:34: services.a/b.versions: no version; write at least the baseline
6:15: services.a.baseline: no version `v3`; did you mean `v1`?
8:24: services.a.versions.v1.endpoints: no endpoint; write at least one
9:7: services.a.versions.\"v 2\": `v 2` cannot be a name; write 1 to 64 of the letters a-z A-Z, the digits 0-9 and . _ -
9:32: services.a.versions.\"v 2\".endpoints[1]: `a:1` twice; write it once
9:37: services.a.versions.\"v 2\".endpoints[2]: `0.0.0.0` is every address and no endpoint; write 127.0.0.1
9:48: services.a.versions.\"v 2\".endpoints[3]: `listen[0].address` listens there, so requests would run in a circle; write the version's own port
10:14: services.a.weights: the sum is zero, so no version gets players; write a weight above zero
10:23: services.a.weights.v9: no version `v9`; did you mean `v1`?
11:33: services.a.cohort.key[1]: `cookie:uid` is never asked, since client-ip is always there; write client-ip last
11:45: services.a.cohort.key[2]: `cookie:uid` twice; write it once
11:57: services.a.cohort.key[3]: `path:round` is never asked, since client-ip is always there; write client-ip last
11:57: services.a.cohort.key[3]: no route to `a` has `{round}` in its path; write it there, such as /rounds/{round}
11:77: services.a.cohort.salt: not a salt; write at most 256 bytes without control characters
13:18: services.a.rules[0].match: no condition, so every request would match; write at least one, or use weights
14:41: services.a.rules[1].match.headers.X-A[1]: `a` twice; write it once
14:46: services.a.rules[1].match.headers.x-a: `x-a` twice, since case does not count; write one list
14:54: services.a.rules[1].match.headers.\"x y\": `x y` is not a header's name; write letters, digits and -
14:61: services.a.rules[1].match.headers.\"x y\": an empty list; write the values that match
14:78: services.a.rules[1].version: no version `beta`; known: v1, v 2
15:36: services.a.rules[2].match.cookies.uid: `a;b` never matches; a cookie's value has no white space, comma or semicolon; leave it out
15:54: services.a.rules[2].match.query.\"\": an empty name; write the parameter's name
15:73: services.a.rules[2].match.params.round: no route to `a` has `{round}` in its path; write it there, such as /rounds/{round}
15:80: services.a.rules[2].match.params.round: `a/b` never matches; a path parameter is one segment; write a text without /
15:98: services.a.rules[2].match.players[0]: empty; write the player's cohort key
15:105: services.a.rules[2].match.players[2]: `p` twice; write it once
17:18: services.a.rules[4].match: the same as `services.a.rules[3].match`, which comes first; write it once",
    );
}

#[test]
fn notices_and_holds_are_within_bounds() {
    assert_problems(
        &format!(
            "{LISTEN}{SERVICES}routes:
- {{ service: a, name: w, match: {{ path: /w, methods: [ GET ] }}, read_only: pass }}
- {{ service: a, read_only: {{ hold: {{ queue: 0, bytes: 2GiB, deadline: 2h }} }} }}
read_only: {{ retry_after: 2h }}
announcements: {{ webhooks: [], before: [ 1h, 24h, 999h ] }}
notices:
  'a b': {{ from: '2026-12-01T03:00:00Z', until: '2026-12-01T04:00:00+01:00' }}
  b: {{ from: '2026-12-01T03:00:00Z', until: '2026-12-01T04:00:00Z', services: [ wallet ] }}
  c: {{ from: '2026-12-01T03:00:00Z', until: '2026-12-01T04:00:00Z', services: [] }}
  d: {{ from: '2026-12-01T03:00:00Z', until: '2026-12-01T04:00:00Z', text: {{ english please: x }} }}
"
        ),
        "\
4:65: routes[0].read_only: all requests of the route read, and reads always go on; leave it out
5:45: routes[1].read_only.hold.queue: out of range; write 1 to 100000
5:55: routes[1].read_only.hold.bytes: out of range; write at most 1GiB
5:71: routes[1].read_only.hold.deadline: out of range; write 100ms to 1h
6:27: read_only.retry_after: out of range; write 1s to 1h
7:28: announcements.webhooks: nobody to tell; write at least one
7:46: announcements.before[1]: not shorter than the one before it; write the longest first
7:51: announcements.before[2]: out of range; write at most 30d
9:3: notices.\"a b\": `a b` cannot be a name; write 1 to 64 of the letters a-z A-Z, the digits 0-9 and . _ -
9:49: notices.\"a b\".until: not after `2026-12-01T03:00:00Z`, when it begins; write a later time
10:81: notices.b.services[0]: no service `wallet`; known: a
11:79: notices.c.services: an empty list; write the services, or leave it out for all
12:75: notices.d.text: `english please` is not the tag of a language; write one such as en",
    );
}

#[test]
fn routes_are_distinct_and_lead_somewhere() {
    assert_problems(
        &format!(
            "{LISTEN}{SERVICES}routes:
- {{ service: b, version: v1 }}
- {{ service: a, version: v3, match: {{ path: '/*' }} }}
- {{ service: a, match: {{ path: '/rounds/{{id}}', methods: [ GET, PUT ] }} }}
- {{ service: a, match: {{ path: '/rounds/{{round}}', methods: [ PUT ] }} }}
- {{ service: a, match: {{ path: '/rounds/{{id}}', methods: [ POST ] }} }}
- {{ service: a, name: bet.place, match: {{ path: /v1/bets, host: [] }} }}
- {{ service: a, name: bet.place, match: {{ path: /v2/bets, methods: [ get, CONNECT, get ], headers: {{ host: x }} }} }}
- {{ service: a, name: 'bet place', match: {{ path: /v3/bets, host: [ A.example, a.example ] }} }}
"
        ),
        "\
4:14: routes[0].service: no service `b`; known: a
5:26: routes[1].version: no version `v3`; did you mean `v1`?
5:37: routes[1].match: `routes[0]` (default) matches the same requests; write another condition, or drop one of them
7:24: routes[3].match: `routes[2]` (/rounds/{id}) matches the same requests; write another condition, or drop one of them
8:3: routes[4]: `/rounds/{id}` is the label of `routes[2]` already; write a name, such as name: bet.place
9:65: routes[5].match.host: an empty list; write a host, or leave it out
10:23: routes[6].name: `bet.place` is the label of `routes[5]` already; write another name
10:70: routes[6].match.methods[0]: `get` is not a method in upper case; write GET
10:75: routes[6].match.methods[1]: CONNECT asks for a tunnel, which is not offered; leave it out
10:84: routes[6].match.methods[2]: `get` is not a method in upper case; write GET
10:84: routes[6].match.methods[2]: `get` twice; write it once
10:102: routes[6].match.headers.host: the host is no header in HTTP/2; write `host: api.example.com` beside `path`
11:23: routes[7].name: `bet place` cannot be a name; write 1 to 64 of the letters a-z A-Z, the digits 0-9 and . _ - / { } * :
11:80: routes[7].match.host[1]: `a.example` twice, since case does not count; write it once",
    );
}
