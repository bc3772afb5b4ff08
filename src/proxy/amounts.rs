//! Business amounts in response heads: they are read, counted, and removed if so configured.
//!
//! An amount is a decimal number without sign or exponent. A malformed or repeated amount is
//! counted and logged, and does not affect the request. Interim responses, and responses that count
//! as failures of the version or belong to a smoke check, have no amounts; fields to be removed are removed from them, too.

use super::{field_kind::FieldKind, head::ResponseHead, plan::Plan, worker::Worker};
use crate::{
    config::schema::MAX_AMOUNTS,
    snapshot::{Amount, AmountSource, AssignedBy, Version},
};

/// Value of each amount of the service, by the amount's number.
pub(super) type AmountValues = [f64; MAX_AMOUNTS];

/// No amount.
pub(super) const NONE: AmountValues = [0.0; MAX_AMOUNTS];

/// Longest text of an amount.
const LONGEST: usize = 32;

/// Up to the number of digits at which every integer is exact in an `f64`.
const POWERS_OF_TEN: [f64; 16] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// An amount as found in a response head.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Found<'b> {
    Nothing,
    Amount(f64),
    /// Not an amount, or a repeated field.
    Malformed(&'b [u8]),
}

/// Extracts the business amounts of a response's head, counts them for the version, and returns
/// them.
#[inline(never)]
pub(super) fn take(
    configured: &[Amount],
    head: &mut ResponseHead<'_, '_>,
    plan: &Plan,
    version: &Version,
    worker: &Worker,
) -> AmountValues {
    let status = head.status;
    let found = read(configured, head);
    let counts_not = (status < 200 && status != 101) || plan.route().failures.contains(status);
    if counts_not || plan.decision.by == AssignedBy::Smoke {
        return NONE;
    }
    let mut all = NONE;
    for (number, (amount, state)) in configured.iter().zip(&version.amounts).enumerate() {
        let cells = state.cells.of(worker.id);
        let value = match &amount.source {
            AmountSource::Sum(terms) => sum(terms, &found),
            AmountSource::Field { header, .. } => match found[number] {
                Found::Nothing => None,
                Found::Amount(amount) => Some(amount),
                Found::Malformed(text) => {
                    cells.malformed.add(1);
                    let times = cells.malformed.read();
                    // A version that sends one malformed amount sends many: log at powers of two
                    // only.
                    if times.is_power_of_two() {
                        let (service, version) = (&*plan.service().name, &*version.name);
                        let text = text[..text.len().min(LONGEST)].escape_ascii();
                        tracing::warn!(
                            service, version, header, %text, times,
                            "an amount is not one decimal number such as 12.50; it counts as 0"
                        );
                    }
                    None
                }
            },
        };
        if let Some(amount) = value {
            cells.count.add(1);
            cells.sum.add(amount);
            all[number] = amount;
        }
    }
    all
}

/// Finds the amounts among the fields of `head`, and marks those that are to be removed.
fn read<'b>(configured: &[Amount], head: &mut ResponseHead<'_, 'b>) -> [Found<'b>; MAX_AMOUNTS] {
    let mut found = [Found::Nothing; MAX_AMOUNTS];
    for (field, kind) in head.others() {
        for (amount, found) in configured.iter().zip(&mut found) {
            let AmountSource::Field { header, remove } = &amount.source else { continue };
            // The spelling is mostly the same, and comparing equal bytes is cheap.
            let same = field.name == &**header || field.name.eq_ignore_ascii_case(header);
            if !same {
                continue;
            }
            *found = match (*found, parse(field.value)) {
                (Found::Nothing, Some(amount)) => Found::Amount(amount),
                _ => Found::Malformed(field.value),
            };
            if *remove {
                *kind = FieldKind::HopByHop;
            }
        }
    }
    found
}

/// A derived amount; `None` if the response has none of its terms.
fn sum(terms: &[(u8, bool)], found: &[Found<'_>; MAX_AMOUNTS]) -> Option<f64> {
    terms.iter().fold(None, |sum, (number, minus)| match found[usize::from(*number)] {
        Found::Amount(amount) => Some(sum.unwrap_or(0.0) + if *minus { -amount } else { amount }),
        _ => sum,
    })
}

/// Parses digits, optionally followed by a point and more digits.
fn parse(text: &[u8]) -> Option<f64> {
    if text.len() > LONGEST {
        return None;
    }
    let (mut digits, mut mantissa, mut point) = (0, 0u64, None);
    for byte in text {
        match byte {
            b'0'..=b'9' => {
                mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(byte - b'0'));
                digits += 1;
            }
            b'.' if point.is_none() && digits > 0 => point = Some(digits),
            _ => return None,
        }
    }
    let decimals = digits - point.unwrap_or(digits);
    if digits == 0 || (point.is_some() && decimals == 0) {
        return None;
    }
    if digits < POWERS_OF_TEN.len() {
        // Both are exact, so the quotient is correctly rounded.
        return Some(mantissa as f64 / POWERS_OF_TEN[decimals]);
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::mem::MaybeUninit;

    use proptest::prelude::*;

    use super::{
        super::{
            buffer::Blocks,
            head::{Fields, MAX_FIELDS, NO_KINDS, parse_response},
            rewrite::{Delimiter, Persistence, write_response},
        },
        *,
    };

    /// Stake, which is removed, payout, which is kept, and their difference.
    fn configured() -> Vec<Amount> {
        let field = |name: &str, header: &str, remove| Amount {
            name: name.into(),
            source: AmountSource::Field { header: header.into(), remove },
        };
        let ggr = AmountSource::Sum([(1, false), (2, true)].into());
        vec![
            Amount { name: "ggr".into(), source: ggr },
            field("stake", "x-bet-stake", true),
            field("payout", "x-bet-payout", false),
        ]
    }

    /// The amounts of a response with `fields`, and the fields that the client receives.
    fn through(fields: &str) -> ([Option<f64>; 3], String) {
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{fields}\r\n");
        let mut space: Fields<'_> = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut kinds = NO_KINDS;
        let parsed = parse_response(text.as_bytes(), &mut space, &mut kinds, false);
        let (mut head, _) = parsed.expect("well formed").expect("complete");
        let configured = configured();
        let found = read(&configured, &mut head);
        let amount = |number: usize| match &configured[number].source {
            AmountSource::Sum(terms) => sum(terms, &found),
            AmountSource::Field { .. } => match found[number] {
                Found::Amount(amount) => Some(amount),
                _ => None,
            },
        };
        let mut out = Blocks::default().take();
        write_response(&mut out, &head, Delimiter::None, Persistence::Implied, None, b"");
        let sent = std::str::from_utf8(out.data()).expect("text");
        let sent = sent.strip_prefix("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n").expect("the head");
        ([0, 1, 2].map(amount), sent.to_owned())
    }

    #[test]
    fn amounts_are_read_and_those_to_be_removed_are_not_sent() {
        let both = "X-Bet-Stake: 12.50\r\nServer: x\r\nx-bet-payout: 20\r\n";
        let sent = "Server: x\r\nx-bet-payout: 20\r\n\r\n";
        assert_eq!(through(both), ([Some(-7.5), Some(12.5), Some(20.0)], sent.to_owned()));
        let one = ([Some(5.0), Some(5.0), None], "\r\n".to_owned());
        assert_eq!(through("x-bet-stake: 5\r\n"), one);
        assert_eq!(through("X-Other: 1\r\n"), ([None; 3], "X-Other: 1\r\n\r\n".to_owned()));
    }

    #[test]
    fn what_is_not_one_number_is_no_amount_and_not_sent_either() {
        for bad in
            ["", "-1", "+1", "1,5", "1e3", ".5", "5.", "1.2.3", "0x1", "NaN", "1 2", "\u{0661}"]
        {
            let (value, sent) = through(&format!("x-bet-stake: {bad}\r\n"));
            assert_eq!((value, &*sent), ([None; 3], "\r\n"), "{bad:?}");
        }
        let (value, sent) = through("x-bet-stake: 1\r\nX-BET-STAKE: 2\r\nx-bet-stake: 3\r\n");
        assert_eq!((value, &*sent), ([None; 3], "\r\n"), "thrice");
        assert_eq!(parse(&[b'1'; LONGEST + 1]), None);
        assert!(parse(&[b'9'; LONGEST]).is_some_and(f64::is_finite));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_number_or_none(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some(amount) = parse(&bytes) {
                prop_assert!(amount.is_finite() && amount >= 0.0);
                prop_assert!(bytes.iter().all(|b| b.is_ascii_digit() || *b == b'.'));
            }
        }

        #[test]
        fn numbers_are_read_as_rust_reads_them(text in "[0-9]{1,12}(\\.[0-9]{1,12})?") {
            prop_assert_eq!(parse(text.as_bytes()), text.parse().ok());
        }

        #[test]
        fn what_is_written_is_read(units in 0u64..1 << 50, digits in 0usize..9) {
            let amount = units as f64 / 10f64.powi(digits as i32);
            prop_assert_eq!(parse(amount.to_string().as_bytes()), Some(amount));
            let fixed = format!("{amount:.digits$}");
            prop_assert_eq!(parse(fixed.as_bytes()), Some(amount));
        }
    }
}
