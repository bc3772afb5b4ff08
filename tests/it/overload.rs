//! Endpoints that say that they have too much to do: they get a smaller share.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use crate::support::{Origin, Proxy, eventually};

fn share(proxy: &Proxy, number: usize) -> u32 {
    proxy.snapshot().services[0].versions[0].known[number].state.standing.share()
}

#[test]
fn an_endpoint_with_too_much_to_do_gets_a_smaller_share_and_is_not_ejected() {
    let is_overloaded = Arc::new(AtomicBool::new(true));
    let told = Arc::clone(&is_overloaded);
    let busy = Origin::start(move |call| match told.load(SeqCst) {
        true => call.send("HTTP/1.1 429 Too Many\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"),
        false => call.answer(200, b"busy"),
    });
    let idle = Origin::answering("idle");
    let builder = Proxy::builder().version_at("v1", &[busy.address, idle.address]);
    let proxy = builder.top("admin: { address: 127.0.0.1:0 }").start();
    let mut client = proxy.connect();
    let mut ask = || client.get("/").send().status;
    eventually("its share falls", || {
        (0..20).for_each(|_| assert!([200, 429].contains(&ask())));
        share(&proxy, 0) < 64
    });
    assert_eq!(share(&proxy, 1), 256, "the other one has the whole share");
    let refused = (0..400).filter(|_| ask() == 429).count();
    println!("{refused} of 400 refused");
    assert!((1..160).contains(&refused), "it is asked on, but seldom: {refused} of 400");
    let page = proxy.admin().get("/metrics").host("localhost").send();
    let labels = format!("service=\"game-api\",version=\"v1\",endpoint=\"{}\"", busy.address);
    let value = |name: &str| -> f64 {
        let name = format!("{name}{{{labels}}} ");
        let found = page.text().lines().find_map(|line| line.strip_prefix(&*name));
        found.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{}", page.text()))
    };
    assert!((0.09..0.3).contains(&value("tidegate_endpoint_share")));
    assert!(value("tidegate_endpoint_overloaded_total") > 10.0);
    assert_eq!(value("tidegate_endpoint_up"), 1.0);
    is_overloaded.store(false, SeqCst);
    eventually("its share grows", || {
        assert_eq!(ask(), 200);
        share(&proxy, 0) > 100
    });
    eventually("it has the whole share", || ask() == 200 && share(&proxy, 0) == 256);
}

/// Of three endpoints that are compared, one refuses all requests with 503 and `Retry-After`: it is no outlier.
#[test]
fn a_refusal_with_retry_after_does_not_count_against_an_endpoint_beside_its_peers() {
    let busy = Origin::start(|call| {
        call.send("HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n")
    });
    let others = [Origin::answering("ok"), Origin::answering("ok")];
    let addresses = [busy.address, others[0].address, others[1].address];
    let builder = Proxy::builder().version_at("v1", &addresses).service("eject: { errors: {} }");
    let proxy = builder.top("admin: { address: 127.0.0.1:0 }").start();
    let mut client = proxy.connect();
    let refused = (0..2_000).filter(|_| client.get("/").send().status == 503).count();
    let snapshot = proxy.snapshot();
    let endpoint = &snapshot.services[0].versions[0].known[0].state;
    assert!(refused > 20, "{refused}");
    assert!(endpoint.standing.serves(), "it is not ejected after {refused} refusals");
    assert_eq!(endpoint.attempts().failures, 0);
    eventually("its share falls", || client.get("/").send().status > 0 && share(&proxy, 0) < 128);
}
