//! Fenced cutovers of a service that has room for few requests at a time.

use super::*;

/// Begins that many writes, each once the one before waits behind the fence.
fn begin(stage: &Stage, count: usize) -> Vec<Client> {
    let begin = |n| {
        let client = stage.begin(&format!("/held/{n}"));
        stage.await_waiting(n + 1);
        client
    };
    (0..count).map(begin).collect()
}

/// Moves the writes to v2 while `count` of them wait.
fn move_with(stage: &Stage, count: usize) -> Vec<Client> {
    let mut stuck = stage.stick();
    let held = thread::scope(|scope| {
        let moving = scope.spawn(|| stage.cut_over("v2"));
        stage.await_closed();
        let held = begin(stage, count);
        stage.unstick();
        let moved = moving.join().expect("no panic");
        assert_eq!(moved.status, 200, "{}", moved.text());
        held
    });
    assert_eq!(stuck.answer().text(), "v1");
    held
}

/// Most of them were lost, since they were called faster than they could begin.
#[test]
fn held_writes_wait_for_room_in_their_order() {
    for (service, limit) in [
        ("breaker: { requests: 4 }", ""),
        ("connect_timeout: 1s", ", limit: { concurrency: { max: 1, queue: 0 } }"),
    ] {
        let stage = Stage::with("deadline: 30s", Duration::from_millis(20), |builder| {
            builder.service(service).route(&format!("match: {{ path: '/*' }}{limit}"))
        });
        for (n, client) in move_with(&stage, 20).iter_mut().enumerate() {
            let answer = client.answer();
            assert_eq!((answer.status, answer.text()), (200, "v2"), "{n} {service}{limit}");
        }
        assert_apart(stage.writes());
        eventually("the fence is open", || !stage.fence().is_closed());
    }
}

/// Each held write kept the fence closed until it had a place, so that a service with too much to do could not be moved
/// again, not even back.
#[test]
fn a_service_with_too_much_to_do_can_be_moved_back() {
    let limit = "limit: { concurrency: { max: 1, queue: 10, queue_timeout: 1m } }";
    let stage = Stage::with("deadline: 30s", Duration::from_secs(1), |builder| {
        builder.route(&format!("match: {{ path: '/*' }}, {limit}"))
    });
    let mut held = move_with(&stage, 6);
    eventually("the fence is open", || !stage.fence().is_closed());
    let done = stage.writes().into_iter().filter(|write| write.version == "v2").count();
    assert!(done < 5, "others still wait for a place: {done}");
    let back = stage.post("rollback", &json!({}));
    assert_eq!(back.status, 200, "{}", back.text());
    for client in &mut held {
        assert_eq!(client.answer().status, 200);
    }
    assert_apart(stage.writes());
}
