//! What undoes a fenced cutover that is under way.

use super::*;

/// Writes stayed held until the deadline, although the version that was to get them was out.
#[test]
fn a_fenced_cutover_is_undone_at_once_when_an_operator_ejects_its_version() {
    let stage = Stage::new("required: true, deadline: 30s");
    let mut stuck = stage.stick();
    thread::scope(|scope| {
        let moving = scope.spawn(|| stage.cut_over("v2"));
        stage.await_closed();
        let mut held = stage.begin("/held");
        stage.await_waiting(1);
        let began = Instant::now();
        let ejected = stage.post("eject", &json!({ "version": "v2" }));
        assert_eq!(ejected.status, 200, "{}", ejected.text());
        assert_eq!(held.answer().text(), "v1");
        let undone = moving.join().expect("no panic");
        assert_eq!(undone.status, 409, "{}", undone.text());
        assert!(undone.text().contains("a version was taken out"), "{}", undone.text());
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    });
    assert_eq!(stage.share_of_v2(), 0.0);
    stage.unstick();
    assert_eq!(stuck.answer().text(), "v1");
    assert_apart(stage.writes());
}
