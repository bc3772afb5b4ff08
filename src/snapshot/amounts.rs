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

/// What tells the evidence of `amount` from that of others, whatever they are called: the field that it
/// is read from, lower case; of a derived one, those of its terms with their signs.
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
