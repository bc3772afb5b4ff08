//! Which clients a route admits, by address.

use std::net::{IpAddr, Ipv4Addr};

use crate::support::{Client, Origin, Proxy, eventually, proxy::Builder};

const OFFICE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 6, 1));

const BANNED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 6, 9));

const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 5, 1));

/// A proxy that admits only the office to `/back/*`.
fn office_only(origin: &Origin) -> Builder {
    let lists = "access: { allow: [ 127.0.6.0/24 ], deny: [ 127.0.6.9 ] }";
    let route = format!("match: {{ path: /back/* }}, {lists}");
    Proxy::builder().version("v1", origin).route(&route).route("name: rest")
}

fn status(proxy: &Proxy, from: IpAddr, path: &str) -> (u16, String) {
    let answer = Client::connect_from(from, proxy.address).get(path).send();
    let kind = if answer.status == 403 { answer.kind() } else { String::new() };
    (answer.status, kind)
}

#[test]
fn a_route_refuses_the_addresses_that_it_does_not_admit_and_sends_nothing_of_them_on() {
    let origin = Origin::answering("ok");
    let proxy = office_only(&origin).start();
    let refused = (403, "address".to_owned());
    assert_eq!(status(&proxy, OFFICE, "/back/office"), (200, String::new()));
    assert_eq!(status(&proxy, BANNED, "/back/office"), refused);
    assert_eq!(status(&proxy, STRANGER, "/back/office"), refused);
    assert_eq!(status(&proxy, STRANGER, "/back/%6fffice"), refused, "another spelling of the path");
    assert_eq!(origin.requests(), 1);
    assert_eq!(status(&proxy, STRANGER, "/games"), (200, String::new()), "another route");
}

#[test]
fn a_refused_client_keeps_its_connection_and_cannot_name_another_address() {
    let origin = Origin::answering("ok");
    let proxy = office_only(&origin).start();
    let mut client = Client::connect_from(STRANGER, proxy.address);
    for field in ["X-Forwarded-For", "Forwarded", "X-Real-IP"] {
        let named = if field == "Forwarded" { "for=127.0.6.1" } else { "127.0.6.1" };
        assert_eq!(client.get("/back/office").header(field, named).send().status, 403, "{field}");
    }
    assert_eq!(client.post("/back/office", b"x").send().status, 403);
    assert_eq!(client.get("/games").send().status, 200);
    assert_eq!(origin.requests(), 1);
}

#[test]
fn behind_a_trusted_proxy_the_client_counts_and_not_the_proxy() {
    let origin = Origin::answering("ok");
    let builder = office_only(&origin);
    let proxy = builder.top("trusted_proxies: [ 127.0.5.1 ]").start();
    let mut balancer = Client::connect_from(STRANGER, proxy.address);
    for (client, expected) in [("127.0.6.1", 200), ("127.0.6.9", 403), ("192.0.2.1", 403)] {
        let asked = balancer.get("/back/office").header("X-Forwarded-For", client);
        assert_eq!(asked.send().status, expected, "{client}");
    }
}

#[test]
fn a_reload_changes_the_lists_for_connections_that_are_open() {
    let origin = Origin::answering("ok");
    let builder = Proxy::builder().version("v1", &origin);
    let proxy = builder.start_with_file();
    let mut client = Client::connect_from(STRANGER, proxy.address);
    assert_eq!(client.get("/back/office").send().status, 200);
    proxy.write(&office_only(&origin).text());
    eventually("the lists are in force", || client.get("/back/office").send().status == 403);
}
