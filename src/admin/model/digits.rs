//! Precision of numbers in responses.

/// `number` to six digits after the point.
pub(super) fn six_digits(number: f64) -> f64 {
    (number * 1e6).round() / 1e6
}
