//! Business amounts in the responses of a service.

use crate::config::schema;

/// An amount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amount {
    /// Its name.
    pub name: Box<str>,
    /// Where it comes from.
    pub source: AmountSource,
}

/// Where an amount comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AmountSource {
    /// A field of the response head.
    Field {
        /// Its name as configured; case-insensitive.
        header: Box<str>,
        /// Whether it is removed from the response to the client.
        remove: bool,
    },
    /// A sum of other amounts: their numbers, and whether each is subtracted.
    Sum(Box<[(u8, bool)]>),
}

impl Amount {
    /// The amounts of `service`, in the order of the file; at most [`schema::MAX_AMOUNTS`].
    pub(super) fn compile(service: &schema::Service) -> Box<[Self]> {
        let number = |name: &str| service.amounts.get_index_of(name).unwrap_or(0) as u8;
        let all = service.amounts.iter().take(schema::MAX_AMOUNTS).map(|(name, amount)| Self {
            name: name.as_str().into(),
            source: match &amount.is {
                Some(sum) => AmountSource::Sum(
                    sum.terms.iter().map(|term| (number(&term.name), term.minus)).collect(),
                ),
                None => {
                    AmountSource::Field { header: header(amount).into(), remove: amount.remove }
                }
            },
        });
        all.collect()
    }
}

/// Identifies the evidence of `amount` independently of its name: by its header field in lower case
/// or, for a derived amount, by the fields of its terms with their signs.
pub(super) fn identity(amount: &schema::Amount, service: &schema::Service) -> String {
    let Some(sum) = &amount.is else { return header(amount) };
    let terms = sum.terms.iter().map(|term| {
        let header = service.amounts.get(&term.name).map(header).unwrap_or_default();
        format!("{} {header}", if term.minus { '-' } else { '+' })
    });
    terms.collect::<Vec<_>>().join(" ")
}

fn header(amount: &schema::Amount) -> String {
    amount.header.as_deref().unwrap_or_default().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, sync::Arc};

    use super::super::{AmountArm, Overrides, Resolved, RuntimeState, Snapshot, SnapshotInputs};
    use crate::{config::parse, registry::Registry};

    /// The evidence of the canary's `margin` and `stake`, for a margin with the formula `is`.
    fn arms(is: &str, registry: &Registry) -> Box<[AmountArm]> {
        let config = parse(&format!(
            "listen: [ {{ address: '127.0.0.1:0' }} ]\nroutes: [ {{ service: a }} ]\n\
            services:\n  a:\n    baseline: v1\n    versions:\n\
            \x20     v1: {{ endpoints: [ '127.0.0.1:9001' ] }}\n\
            \x20     v2: {{ endpoints: [ '127.0.0.1:9002' ] }}\n\
            \x20   amounts:\n      margin: {{ is: {is} }}\n      stake: {{ header: X-Stake }}\n\
            \x20     payout: {{ header: x-payout }}\n\
            \x20   eject: {{ amounts: {{ margin: 1%, stake: 5% }} }}\n"
        ));
        let config = config.unwrap_or_else(|problems| panic!("{problems}"));
        let (overrides, decided) = (Overrides::new(), RuntimeState::default());
        let (resolved, tls) = (Resolved::new(), HashMap::new());
        let sources = SnapshotInputs {
            config: &config,
            overrides: &overrides,
            decided: &decided,
            resolved: &resolved,
            tls: &tls,
            access_log: None,
        };
        let snapshot = Snapshot::compile(1, sources, None, registry);
        let compared = snapshot.service("a").and_then(|service| service.compared.as_ref());
        let stratum = &compared.expect("a comparison").strata[0];
        let derived: Vec<_> = stratum.limits.amounts.iter().map(|limit| limit.derived).collect();
        assert_eq!(derived, [true, false]);
        stratum.arms[1].amounts.clone()
    }

    #[test]
    fn an_amount_that_is_made_of_others_than_before_counts_anew() {
        let registry = Registry::new(1);
        let before = arms("stake - payout", &registry);
        assert!(before[0].below.is_some() && before[1].below.is_none());
        let same = arms("stake - payout", &registry);
        let other = arms("stake", &registry);
        let kept =
            |after: &[AmountArm], n: usize| Arc::ptr_eq(&before[n].evidence, &after[n].evidence);
        assert!(kept(&same, 0) && kept(&same, 1) && kept(&other, 1));
        assert!(!kept(&other, 0));
        // A sum of one field is not that field: it has other evidence.
        assert!(!Arc::ptr_eq(&other[0].evidence, &other[1].evidence));
    }
}
