//! A decision allocates nothing, whatever the size of the table.

#[path = "../../benches/fixture.rs"]
#[expect(dead_code, reason = "the benchmarks need more of it")]
mod fixture;

use fixture::Fixture;

#[test]
fn a_decision_allocates_nothing() {
    for routes in [10, 10_000] {
        let fixture = Fixture::new(routes);
        let mut rng = fastrand::Rng::with_seed(1);
        let (mut decided, mut canary) = (0, 0);
        let counted = allocation_counter::measure(|| {
            for request in &fixture.requests {
                if let Some((decision, _)) = fixture.decide(request, &mut rng) {
                    decided += u32::from(decision.route > 0);
                    canary += u32::from(decision.version == 1);
                }
            }
        });
        assert_eq!(counted.count_total, 0, "{routes} routes: {counted:?}");
        // The fixture is what it says: every request meets its own route, some players the canary.
        assert_eq!(decided as usize, fixture.requests.len());
        assert!((20..800).contains(&canary), "{canary} of {decided}");
    }
}
