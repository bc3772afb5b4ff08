//! Evidence on its way to another process, which continues the comparisons.
//!
//! Evidence stays valid only if all of it is of the same question. So a service's evidence has a text of everything
//! that the question depends on: what is compared, by which limits, and which version has which share. Another
//! process continues only if its own text is the same; otherwise the comparisons begin anew, as after a reload
//! with other limits. Blocks that were still open are dropped whole, with both arms, so none counts twice. Players
//! count again from the takeover on, as at the beginning of a cycle.

use serde::{Deserialize, Serialize};

use super::{
    Evaluator,
    collect::CarriedCollector,
    judge::{CarriedJudge, ServiceJudge, Terms},
};
use crate::{
    analysis::RecordForm,
    snapshot::{ComparisonPlan, Service, Snapshot},
};

/// The evidence of one service.
#[derive(Debug, Serialize, Deserialize)]
pub struct CarriedEvidence {
    /// The service.
    pub service: Box<str>,
    form: RecordForm,
    /// What is asked.
    question: String,
    judge: CarriedJudge,
    collectors: Vec<CarriedCollector>,
}

impl CarriedEvidence {
    /// Continues with `question`, of which the `terms` are a part. The result is a judge, and how its blocks are
    /// made.
    pub(super) fn resume(
        mut self,
        question: &str,
        terms: Terms,
    ) -> (ServiceJudge, Vec<CarriedCollector>) {
        let service = self.service;
        let asked = self.judge.versions().count();
        if self.question != question {
            self.judge.forget_versions();
        }
        let judge = ServiceJudge::resume(terms, self.judge);
        let versions = judge.versions().count();
        if versions < asked {
            tracing::info!(
                %service,
                versions = asked - versions,
                "comparisons of the process before begin anew: limits, shares or versions differ here"
            );
        }
        if versions > 0 {
            tracing::info!(%service, versions, "comparisons of the process before go on");
        }
        self.collectors.retain(|collector| judge.compares(collector.version()));
        (judge, self.collectors)
    }
}

impl Evaluator {
    /// The evidence of all services of `snapshot`, for another process. `budget` is the memory that all records
    /// together may have, in bytes. `more` returns what the question about a service depends on beside the
    /// snapshot.
    pub fn carried(
        &self,
        snapshot: &Snapshot,
        mut budget: usize,
        more: impl Fn(&str) -> String,
    ) -> Vec<CarriedEvidence> {
        let each = snapshot.services.iter().filter_map(|service| {
            let plan = service.compared.as_ref()?;
            let collector = self.collector.services.get(&service.name)?;
            let judge = self.judges.get(&service.name)?;
            Some(CarriedEvidence {
                service: service.name.clone(),
                form: RecordForm::OWN,
                question: question(service, plan, &more(&service.name)),
                judge: judge.carried(&mut budget),
                collectors: collector.carried(),
            })
        });
        each.collect()
    }

    /// An evaluator that continues with `evidence` where that is still asked for.
    pub fn resume(
        evidence: impl IntoIterator<Item = CarriedEvidence>,
        more: impl Fn(&str) -> String,
    ) -> Self {
        let known = evidence.into_iter().filter(|of| {
            let is_known = of.form == RecordForm::OWN;
            if !is_known {
                let service = &of.service;
                tracing::info!(%service, "evidence of a release with other rules; comparisons begin anew");
            }
            is_known
        });
        let each = known.map(|of| (of.service.clone(), (more(&of.service), of)));
        Self { carried: each.collect(), ..Self::default() }
    }
}

/// Everything that the evidence of `service` depends on, as a text. It is compared, not read.
pub(super) fn question(service: &Service, plan: &ComparisonPlan, more: &str) -> String {
    let shares = (0..).zip(&service.versions).map(|(number, version)| {
        let is_baseline = service.baseline == number;
        (&*version.name, is_baseline, service.share(number))
    });
    let shares: Vec<_> = shares.filter(|(_, _, share)| *share > 0.0).collect();
    let strata = plan.strata.iter().map(|stratum| {
        let named: Vec<_> = stratum.named.iter().map(|named| &*named.route).collect();
        (&stratum.route, &stratum.limits, &stratum.slo, stratum.networks, named)
    });
    let strata: Vec<_> = strata.collect();
    format!("{shares:?} {:?} {} {strata:?} {more}", plan.mode, plan.ask_players)
}
