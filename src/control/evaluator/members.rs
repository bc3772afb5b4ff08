//! Two members of a fleet each collect blocks of their own players, and one judge judges them.

use super::{
    blocks::ServiceBlocks,
    stage::{BASELINE, CANARY, Outcome, Stage},
    *,
};

const LOOK: Duration = Duration::from_millis(20);
const EJECT: &str = "{ errors: { absolute: 0.3% } }";

/// A member whose own judgement is not used.
struct Member {
    stage: Stage,
    asked: [u64; 2],
}

impl Member {
    fn new() -> Self {
        let mut stage = Stage::new(EJECT);
        stage.set_share(0.2);
        assert_eq!(stage.look_after(Duration::ZERO), []);
        Self { stage, asked: [0; 2] }
    }

    /// Serves a number of requests of each version, of which every `one_of`-th fails on the canary (0: none).
    fn serve(&mut self, requests: [u64; 2], one_of: u64) {
        for version in [BASELINE, CANARY] {
            for _ in 0..requests[version] {
                self.asked[version] += 1;
                let failed =
                    version == CANARY && one_of > 0 && self.asked[version].is_multiple_of(one_of);
                let outcome = if failed { Outcome::Failed } else { Outcome::Served(1_000) };
                self.stage.count(version, outcome);
            }
        }
    }

    /// The blocks of the next evaluation.
    fn collect(&mut self) -> ServiceBlocks {
        let Stage { snapshot, evaluator, now, .. } = &mut self.stage;
        *now += LOOK;
        evaluator.collector.collect_outcomes(snapshot, *now);
        evaluator.collector.services[0].collect(&snapshot.services[0], *now)
    }

    /// A judge with the terms of this member, without any blocks.
    fn judge(&self) -> ServiceJudge {
        let service = &self.stage.snapshot.services[0];
        let plan = service.compared.as_ref().expect("it is compared");
        let mut judge = ServiceJudge::new(terms(service, plan));
        judge.begin_canary("v42".into(), self.stage.now);
        judge
    }
}

fn answer(judge: &ServiceJudge) -> Answer {
    judge.answer("v42", Duration::ZERO).expect("it is compared").answer
}

#[test]
fn blocks_of_two_members_are_evidence_as_if_one_had_collected_them() {
    let mut members = [Member::new(), Member::new()];
    // A member that serves all players of both.
    let mut whole = Member::new();
    let [mut both, mut merged] = [members[0].judge(), members[0].judge()];
    let mut alone = [members[0].judge(), members[1].judge()];
    let mut of_whole = whole.judge();
    // When the canary fails by the blocks of both members, and by those of the member that serves all.
    let (mut of_both, mut of_one) = (None, None);
    for look in 1..=500_u64 {
        let one_of = if look > 100 { 10 } else { 0 };
        members.iter_mut().for_each(|member| member.serve([16, 4], one_of));
        whole.serve([32, 8], one_of);
        let (collected, all) = (members.each_mut().map(Member::collect), whole.collect());
        let now = whole.stage.now;
        for (judge, blocks) in alone.iter_mut().zip(&collected) {
            judge.judge([blocks.clone()], now);
        }
        let one = ServiceBlocks::merged(collected.clone());
        assert_eq!(both.judge(collected, now), merged.judge([one], now));
        assert_eq!(both.answer("v42", Duration::ZERO), merged.answer("v42", Duration::ZERO));
        of_whole.judge([all], now);
        if answer(&of_whole) == Answer::Fail {
            of_one.get_or_insert(look);
        }
        if answer(&both) == Answer::Fail && of_both.is_none() {
            of_both = Some(look);
            let of = alone.each_ref().map(answer);
            assert_eq!(of, [Answer::Undecided; 2], "a half of the evidence is not enough");
        }
    }
    let of_both: u64 = of_both.expect("the canary fails");
    let of_one = of_one.expect("the canary fails");
    assert!(of_both.abs_diff(of_one) <= 5, "after {of_both} looks, and {of_one}");
}

#[test]
fn equal_arms_of_two_members_are_healthy_sooner_than_of_one() {
    let mut members = [Member::new(), Member::new()];
    let mut both = members[0].judge();
    let mut one = members[0].judge();
    let mut healthy = [None, None];
    for look in 1..=1_000_u64 {
        members.iter_mut().for_each(|member| member.serve([16, 4], 0));
        let collected = members.each_mut().map(Member::collect);
        let now = members[0].stage.now;
        one.judge([collected[0].clone()], now);
        both.judge(collected, now);
        for (judge, healthy) in [&both, &one].into_iter().zip(&mut healthy) {
            if answer(judge) == Answer::Healthy {
                healthy.get_or_insert(look);
            }
        }
    }
    let [of_both, of_one] = healthy.map(|look| look.expect("it is as good as the baseline"));
    assert!((of_both * 3 / 2..of_both * 3).contains(&of_one), "after {of_both} looks, {of_one}");
}
