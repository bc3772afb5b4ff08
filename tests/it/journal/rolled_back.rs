//! The way back is remembered over restarts.

use super::*;

#[test]
fn the_split_before_a_cutover_comes_back_after_a_restart() {
    let origins = origins();
    let stage = Stage::new(&origins);
    let mut process = stage.start();
    assert_eq!(stage.set_weights(10, 30).status, 200);
    let answer = stage.send("POST", "cutover", &json!({ "to": "v2", "reason": "release" }));
    assert_eq!(answer.status, 200, "{}", answer.text());
    process.signal(Signal::KILL);
    process.wait();

    let mut process = stage.start();
    let weights = || [0, 1].map(|version| stage.version(version)["weight"].as_f64());
    assert_eq!(weights(), [Some(0.0), Some(1.0)]);
    let answer = stage.send("POST", "rollback", &json!({ "reason": "pays twice" }));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(weights(), [Some(10.0), Some(30.0)]);
    process.signal(Signal::TERM);
    process.wait();

    let _process = stage.start();
    assert_eq!(weights(), [Some(10.0), Some(30.0)]);
    // A second one, by the third process, leads one change further back, and not to v2.
    let answer = stage.send("POST", "rollback", &json!({}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(weights(), [Some(3.0), Some(1.0)]);
    assert_eq!(stage.send("POST", "rollback", &json!({})).status, 409);
    let entries = stage.entries();
    let expected =
        ["genesis", "resumed", "weights", "cutover", "resumed", "rollback", "resumed", "rollback"];
    assert_eq!(kinds(&entries), expected);
    assert_eq!(entries[5].after, json!({ "v1": 10.0, "v2": 30.0 }));
    stage.verify();
}
