//! Checks plans of rollouts, and whether a service can go through the plan that it names.

use super::{Finding, label, no_such, smoke::check_smoke_gates};
use crate::config::{
    problem::FieldPath,
    schema::{
        Config, Gate, GateQuestion, GateWebhook, MAX_GATES, MAX_STEPS, MAX_WEBHOOK_TIMEOUT, Mode,
        Service, Step,
    },
    url::is_url,
};

/// Checks the plans of `config`.
pub(super) fn check(config: &Config, found: &mut Vec<Finding>) {
    let plans = FieldPath::default().key("plans");
    for (name, steps) in &config.plans {
        let path = plans.key(name);
        if let Err(message) = label(name, "") {
            found.push(Finding::of_name(path.clone(), message));
        }
        found.extend(check_steps(steps, &path));
        found.extend(check_smoke_gates(steps, config, &path));
    }
}

/// Findings about the steps of a plan at `path`, in a file or in a request to the admin API.
pub fn check_steps(steps: &[Step], path: &FieldPath) -> Vec<Finding> {
    let mut found = Vec::new();
    if steps.is_empty() {
        let message = "no step; write at least one, such as { weight: 100%, bake: 1h }";
        found.push(Finding::new(path.clone(), message));
    }
    if steps.len() > MAX_STEPS {
        let message = format!("{} steps; write at most {MAX_STEPS}", steps.len());
        found.push(Finding::new(path.clone(), message));
        return found;
    }
    for (index, step) in steps.iter().enumerate() {
        let before = index.checked_sub(1).map(|before| (before, steps[before].weight));
        let here = path.index(index);
        weight(step, before, index + 1 == steps.len(), (&here, path), &mut found);
        times(step, index + 1 == steps.len(), &here, &mut found);
        gates(&step.gates, &here.key("gates"), &mut found);
    }
    found
}

fn weight(
    step: &Step,
    before: Option<(usize, crate::config::units::Share)>,
    is_last: bool,
    (here, plan): (&FieldPath, &FieldPath),
    found: &mut Vec<Finding>,
) {
    let path = here.key("weight");
    if step.weight.0 <= 0.0 {
        let message = "no players, so nothing can be seen; write more than 0%";
        found.push(Finding::new(path, message));
    } else if let Some((before, weight)) = before.filter(|(_, weight)| *weight >= step.weight) {
        let message = format!(
            "not more than the {}% of the step before; write steps that grow",
            weight.0 * 100.0
        );
        let other = plan.index(before).key("weight");
        found.push(Finding::new(path, message).and(other));
    } else if is_last && step.weight.0 < 1.0 {
        let message =
            "the last step leaves players on the old version; end with { weight: 100%, bake: 1h }";
        found.push(Finding::new(path, message));
    }
}

fn times(step: &Step, is_last: bool, here: &FieldPath, found: &mut Vec<Finding>) {
    if let Some((least, within)) = step.least.zip(step.within)
        && within < least
    {
        let message = "shorter than `for`, the least time of the step; write a longer one";
        found.push(Finding::new(here.key("within"), message).and(here.key("for")));
    }
    if step.within.is_some() && step.gates.is_empty() {
        let message = "without gates there is no answer to wait for; write gates, or leave it out";
        found.push(Finding::new(here.key("within"), message).and(here.key("gates")));
    }
    if step.requests == Some(0) {
        found.push(Finding::new(here.key("requests"), "out of range; write 1 or more"));
    }
    if step.bake.is_some() {
        if !is_last {
            let message = "only the last step, with all players, is baked; write `for`";
            found.push(Finding::new(here.key("bake"), message));
        }
        for (field, written) in [("for", step.least), ("within", step.within)] {
            if is_last && written.is_some() {
                let message = "`bake` is the time of this step; leave one of them out";
                found.push(Finding::new(here.key(field), message).and(here.key("bake")));
            }
        }
    } else if !is_last
        && step.least.is_none()
        && step.within.is_none()
        && step.requests.is_none()
        && step.gates.is_empty()
    {
        let message = "nothing to wait for, so the next step would follow at once; write `for`, requests or gates";
        found.push(Finding::new(here.clone(), message));
    }
}

fn gates(gates: &[Gate], path: &FieldPath, found: &mut Vec<Finding>) {
    if gates.len() > MAX_GATES {
        let message = format!("{} gates; write at most {MAX_GATES}", gates.len());
        found.push(Finding::new(path.clone(), message));
        return;
    }
    for (index, gate) in gates.iter().enumerate() {
        let here = path.index(index);
        match &gate.question {
            GateQuestion::Smoke(name) => {
                if let Err(message) = label(name, "") {
                    found.push(Finding::new(here.clone(), message));
                }
            }
            GateQuestion::Webhook(hook) if !is_url(&hook.url) => {
                let message = "not a URL; write one such as http://gate:8080/check";
                found.push(Finding::new(here.key("webhook").key("url"), message));
            }
            GateQuestion::Webhook(hook)
                if hook.timeout.is_zero() || hook.timeout > MAX_WEBHOOK_TIMEOUT =>
            {
                let message = "out of range; a call takes more than zero and at most 5m";
                found.push(Finding::new(here.key("webhook").key("timeout"), message));
            }
            _ => {}
        }
        if let GateQuestion::Webhook(hook) = &gate.question {
            hook_name(hook, &gates[..index], (&here, path), found);
        }
        let earlier = gates[..index].iter().position(|other| is_same(gate, other));
        if let Some(earlier) = earlier {
            let other = path.index(earlier);
            let message = format!("asked by `{other}` already; write it once");
            found.push(Finding::new(here, message).and(other));
        }
    }
}

/// Checks the name of a webhook after the gates `before` of its step: each reason must say which one is meant. Two
/// without a name on one host are a warning, see [`alike`].
fn hook_name(
    hook: &GateWebhook,
    before: &[Gate],
    (here, gates): (&FieldPath, &FieldPath),
    found: &mut Vec<Finding>,
) {
    let at = here.key("webhook").key("name");
    if let Some(Err(message)) = hook.name.as_ref().map(|name| label(name, "")) {
        found.push(Finding::new(at, message));
        return;
    }
    let question = GateQuestion::Webhook(hook.clone());
    let like = |other: &Gate| match &other.question {
        GateQuestion::Webhook(other_hook) => {
            other.question.to_string() == question.to_string()
                && (hook.name.is_some() || other_hook.name.is_some())
        }
        _ => false,
    };
    if let Some(earlier) = before.iter().position(like) {
        let other = gates.index(earlier);
        let message = format!("`{other}` is called `{question}`, too; write another `name`");
        let at = if hook.name.is_some() { at } else { here.key("webhook") };
        found.push(Finding::new(at, message).and(other));
    }
}

/// Webhooks of a step that are called alike, since none has a name and they are on one host: the later one, and how
/// it is called.
pub(super) fn alike(gates: &[Gate]) -> Option<(usize, String)> {
    let host = |gate: &Gate| match &gate.question {
        GateQuestion::Webhook(hook) if hook.name.is_none() => Some(gate.question.to_string()),
        _ => None,
    };
    let mut each = gates.iter().enumerate().filter_map(|(index, gate)| Some((index, host(gate)?)));
    each.find(|(index, shown)| gates[..*index].iter().filter_map(host).any(|other| other == *shown))
}

/// Requests without a single bad one after which the gate `slo` passes a limit of the share `limit`, 0 to 1, of bad
/// requests. `rollout/gate/limits.rs` has the test, and a test that the two agree.
pub fn least_requests(limit: f64) -> f64 {
    3.93 / limit.max(1e-6)
}

/// Requests of a version, and no more failures than the baseline's, after which the gate `evidence` passes at the
/// soonest, where errors of the share `absolute`, 0 to 1, more than the baseline's are tolerated and the baseline hardly
/// fails. `analysis/certificate.rs` has the test.
pub(super) fn least_evidence(absolute: f64) -> f64 {
    (20_f64.ln() + 2.5) / (2.0 * absolute.max(1e-9))
}

fn is_same(one: &Gate, other: &Gate) -> bool {
    match (&one.question, &other.question) {
        (GateQuestion::Webhook(one), GateQuestion::Webhook(other)) => one.url == other.url,
        (one, other) => one == other,
    }
}

/// Checks the plan that `service` names: whether it exists, and whether each of its questions can be
/// answered for the service.
pub(super) fn chosen(
    plan: &str,
    service: &Service,
    config: &Config,
    path: &FieldPath,
    found: &mut Vec<Finding>,
) {
    if config.plans.is_empty() {
        let message = format!("no plan `{plan}`; write it under plans");
        found.push(Finding::new(path.clone(), message).and(FieldPath::default().key("plans")));
    } else if let Some(message) = no_such("plan", plan, &config.plans) {
        found.push(Finding::new(path.clone(), message));
    }
    let steps = config.plans.get(plan).map(Vec::as_slice).unwrap_or_default();
    let plans = FieldPath::default().key("plans").key(plan);
    for message in unanswered(steps, service) {
        let message = format!("`{plan}` does not fit: {message}");
        found.push(Finding::new(path.clone(), message).and(plans.clone()));
    }
}

/// Why rollouts of `service` could not go through `steps`: gates that could never pass. Each message has the
/// form `what is wrong; what would be right`; empty if there is none.
pub fn unanswered(steps: &[Step], service: &Service) -> Vec<String> {
    let compared = service.eject.as_ref().filter(|eject| eject.mode != Some(Mode::Off));
    let asks = |question: &GateQuestion, step: &Step| {
        step.gates.iter().any(|gate| gate.question == *question)
    };
    let amounts = compared.is_some_and(|eject| eject.amounts.is_some());
    let cases = [
        (GateQuestion::Evidence, compared.is_some(), "a comparison", "eject: { errors: {} }"),
        (GateQuestion::Slo, service.slo.is_some(), "`slo`", "slo: { errors: 0.3%, p95: 250ms }"),
        (GateQuestion::Amounts, amounts, "compared amounts", "amounts and eject.amounts"),
    ];
    let mut messages = Vec::new();
    for (question, is_answered, what, right) in cases {
        let first = steps.iter().position(|step| asks(&question, step));
        if let Some(step) = first.filter(|_| !is_answered) {
            messages.push(format!(
                "step {} has the gate {}, which never passes for a service without {what}; write {right}",
                step + 1,
                question.label()
            ));
        }
    }
    let endless = |step: &Step| {
        asks(&GateQuestion::Evidence, step) && step.within.is_none() && step.bake.is_none()
    };
    if let (Some(step), Some(eject)) = (steps.iter().position(endless), compared)
        && eject.errors.is_none()
    {
        messages.push(format!(
            "step {} waits for evidence, and no version is certainly healthy while errors are not compared; write eject.errors, or `within` in the step",
            step + 1
        ));
    }
    messages
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    /// The problems of a file whose line 4 has these fields of the service `a`, followed by `more`.
    fn problems(service: &str, more: &str) -> String {
        let text = format!(
            "listen: [ {{ address: 127.0.0.1:0 }} ]\nroutes: [ {{ service: a }} ]\nservices: {{ a: {{ baseline: v1, versions: {{ v1: {{ endpoints: [ 10.0.0.1:1 ] }} }},\n {service} }} }}\n{more}\n"
        );
        parse(&text).map_or_else(|problems| problems.to_string(), |_| String::new())
    }

    #[test]
    fn the_plan_of_the_contract_is_good() {
        let plans = "\
plans:
  careful:
    - { weight: 1%, for: 2m, gates: [ evidence, slo ] }
    - { weight: 5%, for: 10m, gates: [ evidence, { smoke: money-path }, { webhook: { url: \"http://gate/\", kind: guardrail } } ] }
    - { weight: 50%, for: 10m, within: 1h, requests: 1000, gates: [ evidence, approval ] }
    - { weight: 100%, bake: 1h }
  at-once: [ { weight: 100% } ]
  signals: [ { weight: 1%, within: 2m, gates: [ { evidence: { kind: signal } }, { approval: {} }, { smoke: { name: login, kind: signal } } ] }, { weight: 100%, gates: [ slo ] } ]
smoke: { money-path: { steps: [ { request: GET / } ] }, login: { steps: [ { request: GET / } ] } }";
        let service = "rollout: careful, second_person: true, eject: { errors: {} }, slo: { errors: 0.3%, p95: 250ms }";
        assert_eq!(problems(service, plans), "");
        assert_eq!(problems("rollout: at-once, slo: { p99: 1s }", plans), "");
    }

    #[test]
    fn steps_grow_to_all_players_and_have_something_to_wait_for() {
        let plans = "\
plans:
  none: []
  'a b': [ { weight: 100% } ]
  shrinks:
  - { weight: 5%, for: 2m }
  - { weight: 5%, for: 2m }
  - { weight: 1%, for: 0s, bake: 1m }
  odd:
  - { weight: 0%, within: 1m }
  - { weight: 2%, for: 2m, within: 1m, gates: [ slo, slo, { smoke: 'a b' } ] }
  - { weight: 3% }
  - { weight: 4%, requests: 0, gates: [ { webhook: { url: gate } }, { webhook: { url: 'http://g/', timeout: 10m } }, evidense, { slo: {}, evidence: {} } ] }
  - { weight: 100%, for: 1m, bake: 1h, gates: [ { webhook: { url: 'http://g/a' } }, { webhook: { url: 'http://g/a', kind: guardrail } } ] }
  forgot: [ { for: 2m, step: 1 } ]";
        assert_eq!(problems("", plans), "\
6:9: plans.none: no step; write at least one, such as { weight: 100%, bake: 1h }
7:3: plans.\"a b\": `a b` cannot be a name; write 1 to 64 of the letters a-z A-Z, the digits 0-9 and . _ -
10:15: plans.shrinks[1].weight: not more than the 5% of the step before; write steps that grow
11:15: plans.shrinks[2].weight: not more than the 5% of the step before; write steps that grow
11:24: plans.shrinks[2].for: `0s` is out of range; a duration is more than zero and at most a year
13:15: plans.odd[0].weight: no players, so nothing can be seen; write more than 0%
13:27: plans.odd[0].within: without gates there is no answer to wait for; write gates, or leave it out
14:36: plans.odd[1].within: shorter than `for`, the least time of the step; write a longer one
14:54: plans.odd[1].gates[1]: asked by `plans.odd[1].gates[0]` already; write it once
14:59: plans.odd[1].gates[2]: `a b` cannot be a name; write 1 to 64 of the letters a-z A-Z, the digits 0-9 and . _ -
15:5: plans.odd[2]: nothing to wait for, so the next step would follow at once; write `for`, requests or gates
16:29: plans.odd[3].requests: out of range; write 1 or more
16:59: plans.odd[3].gates[0].webhook.url: not a URL; write one such as http://gate:8080/check
16:109: plans.odd[3].gates[1].webhook.timeout: out of range; a call takes more than zero and at most 5m
16:118: plans.odd[3].gates[2]: `evidense` is not known; did you mean `evidence`? write one of evidence, slo, amounts, approval, { smoke: NAME }, { webhook: { url: … } }
16:128: plans.odd[3].gates[3]: a gate is one question; write a list of gates, such as [ evidence, { smoke: NAME } ]
17:26: plans.odd[4].for: `bake` is the time of this step; leave one of them out
17:85: plans.odd[4].gates[1]: asked by `plans.odd[4].gates[0]` already; write it once
18:13: plans.forgot[0].weight: missing; add `weight: 5%`
18:24: plans.forgot[0].step: unknown field `step`; known fields: weight, for, within, gates, bake, requests");
    }

    #[test]
    fn a_service_can_go_through_its_plan() {
        let plans =
            "plans: { p: [ { weight: 1%, gates: [ evidence, slo, amounts ] }, { weight: 100% } ] }";
        assert_eq!(
            problems("rollout: q", plans),
            "4:11: services.a.rollout: no plan `q`; known: p"
        );
        assert_eq!(
            problems("rollout: q", ""),
            "4:11: services.a.rollout: no plan `q`; write it under plans"
        );
        assert_eq!(problems("rollout: p", plans), "\
4:11: services.a.rollout: `p` does not fit: step 1 has the gate amounts, which never passes for a service without compared amounts; write amounts and eject.amounts
4:11: services.a.rollout: `p` does not fit: step 1 has the gate evidence, which never passes for a service without a comparison; write eject: { errors: {} }
4:11: services.a.rollout: `p` does not fit: step 1 has the gate slo, which never passes for a service without `slo`; write slo: { errors: 0.3%, p95: 250ms }");
        let compared = "rollout: p, slo: { p99: 1s }, amounts: { pay: { header: x-pay } }, eject: { amounts: { pay: 5% } }";
        assert_eq!(
            problems(compared, plans),
            "\
4:11: services.a.rollout: `p` does not fit: step 1 waits for evidence, and no version is certainly healthy while errors are not compared; write eject.errors, or `within` in the step"
        );
    }

    #[test]
    fn webhooks_of_one_step_have_names_of_their_own() {
        let plan =
            |gates: &str| format!("plans: {{ a: [ {{ weight: 100%, gates: [ {gates} ] }} ] }}");
        let hook = |name: &str, path: &str| {
            format!("{{ webhook: {{ {name} url: 'http://gate/{path}' }} }}")
        };
        let named = plan(&format!("{}, {}", hook("name: load,", "a"), hook("name: legal,", "b")));
        assert_eq!(problems("", &named), "");
        let same = problems(
            "",
            &plan(&format!("{}, {}", hook("name: load,", "a"), hook("name: load,", "b"))),
        );
        assert!(same.contains("plans.a[0].gates[1].webhook.name: `plans.a[0].gates[0]` is called `webhook load`, too"), "{same}");
        let host = problems("", &plan(&format!("{}, {}", hook("", "a"), hook("name: gate,", "b"))));
        assert!(host.contains("is called `webhook gate`, too; write another `name`"), "{host}");
        let bad = problems("", &plan(&hook("name: 'a b',", "a")));
        assert!(bad.contains("plans.a[0].gates[0].webhook.name: "), "{bad}");
    }

    #[test]
    fn what_is_valid_and_rarely_intended_is_a_warning() {
        let warned = |service: &str, more: &str| {
            let text = format!(
                "listen: [ {{ address: 127.0.0.1:0 }} ]\nroutes: [ {{ service: a }} ]\nservices: {{ a: {{ baseline: v1, versions: {{ v1: {{ endpoints: [ 10.0.0.1:1 ] }} }}, {service} }} }}\n{more}\n"
            );
            let config = parse(&text).expect("valid");
            let all = super::super::warn::warnings(&config).into_iter();
            all.map(|finding| finding.message).collect::<Vec<_>>().join("\n")
        };
        let service = "rollout: p, slo: { errors: 0.1% }";
        let plan = |within: &str| {
            format!(
                "plans: {{ p: [ {{ weight: 1%, within: {within}, gates: [ slo ] }}, {{ weight: 100% }} ] }}"
            )
        };
        let short = warned(service, &plan("1m"));
        assert!(
            short.contains(
                "step 1 of `p` has 1m for the gate slo, which passes after 3930 requests"
            ),
            "{short}"
        );
        assert!(short.contains("takes 6550 requests a second of the service"), "{short}");
        assert!(!warned(service, &plan("1h")).contains("gate slo"), "there is time");
        // Regression: a tolerance was accepted that no canary can be shown to keep to.
        let evidence = |absolute: &str, within: &str| {
            let compared = format!("rollout: p, eject: {{ errors: {{ absolute: {absolute} }} }}");
            let step = format!("{{ weight: 1%, for: 1m, {within} gates: [ evidence ] }}");
            warned(&compared, &format!("plans: {{ p: [ {step}, {{ weight: 100% }} ] }}"))
        };
        let hopeless = evidence("0.001%", "");
        assert!(
            hopeless.contains(
                "step 1 of `p` waits for the gate evidence, which passes after 274787 requests"
            ),
            "{hopeless}"
        );
        assert!(
            hopeless.contains("takes 7h at 1000 requests a second of the service"),
            "{hopeless}"
        );
        assert!(!evidence("0.01%", "").contains("evidence"), "46 minutes at that rate");
        let passed = evidence("0.01%", "within: 10m,");
        assert!(passed.contains("so `within` passes it without an answer"), "{passed}");
        assert!(!evidence("0.3%", "within: 10m,").contains("evidence"), "a minute and a half");
        let hooks = "plans: { p: [ { weight: 100%, gates: [ { webhook: { url: 'http://gate/a' } }, { webhook: { url: 'http://gate/b' } } ] } ] }";
        let alike = warned("rollout: p", hooks);
        assert!(
            alike.contains("another webhook of the step is called `webhook gate`, too"),
            "{alike}"
        );
    }
}
