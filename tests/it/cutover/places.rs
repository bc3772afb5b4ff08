//! Whoever waits for a drain takes no place from the way back.

use super::*;

#[test]
fn the_way_back_never_waits_for_those_who_wait_for_a_drain() {
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = std::sync::Arc::new(Mutex::new(wait));
    let slow = |name: &'static str| {
        let wait = std::sync::Arc::clone(&wait);
        Origin::start(move |call| {
            // Ends with the test.
            let _ = wait.lock().expect("no panic").recv();
            call.answer(200, name.as_bytes())
        })
    };
    let origins = [slow("v1"), slow("v2")];
    let proxy = two(&origins).start();
    let mut clients = Vec::new();
    let mut begin = |version: usize| {
        let mut client = proxy.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        clients.push(client);
        eventually("it has begun", || proxy.in_flight() > version as u64);
    };
    begin(0);
    let generation = || proxy.snapshot().generation;
    thread::scope(|scope| {
        for number in 1..=8_u64 {
            let (before, to) = (generation(), version_after(number));
            let proxy = &proxy;
            scope.spawn(move || {
                let answer = post(
                    &mut proxy.admin(),
                    "cutover?wait=drained&timeout=1m",
                    &json!({ "to": to }),
                );
                assert_eq!(answer.status, 200, "{}", answer.text());
            });
            eventually("it has moved", || generation() > before);
            if number == 1 {
                begin(1);
            }
        }
        let before = generation();
        let full = post(&mut proxy.admin(), "cutover?wait=drained", &json!({ "to": "v2" }));
        assert_eq!((full.status, generation()), (503, before), "{}", full.text());
        assert!(full.text().contains("8 others wait for a drain already"), "{}", full.text());
        let moved = post(&mut proxy.admin(), "cutover", &json!({ "to": "v2" }));
        assert_eq!(moved.status, 200, "{}", moved.text());
        let back = post(&mut proxy.admin(), "rollback", &json!({}));
        assert_eq!(back.status, 200, "{}", back.text());
        let late = post(&mut proxy.admin(), "rollback?wait=drained&timeout=10ms", &json!({}));
        assert_eq!(late.status, 504, "{}", late.text());
        drop(go_on);
    });
    clients.iter_mut().for_each(|client| assert_eq!(client.answer().status, 200));
}
