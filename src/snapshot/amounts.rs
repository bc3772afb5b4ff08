//! What amounts the answers of a service carry.

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
    /// A field of the answer's head.
    Field {
        /// Its name as written; case does not count.
        header: Box<str>,
        /// The client does not get it.
        remove: bool,
    },
    /// Others: their numbers, and whether each is taken away.
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

/// The field that `amount` is read from, lower case.
pub(super) fn header(amount: &schema::Amount) -> String {
    amount.header.as_deref().unwrap_or_default().to_ascii_lowercase()
}
