//! What a comparison tolerates, with the defaults of what the file leaves out.

use super::{bet::Tolerance, certificate::Health};
use crate::config::schema::Eject;

/// Probability of ever ejecting a canary within all its tolerances: one rollout in a thousand.
const ALPHA: f64 = 1e-3;
/// Tolerated excess of errors, relative: what a person would call the same rate.
const ERRORS_RELATIVE: f64 = 0.10;
/// And absolute: one failure in ten thousand requests is nobody's reason to go back.
const ERRORS_ABSOLUTE: f64 = 1e-4;

/// What is compared and tolerated.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Tolerated excess of errors. Nothing: not compared.
    pub errors: Option<Tolerance>,
    /// Tolerated excess of latency at p95, a fraction of the baseline's. Nothing: not compared.
    pub p95: Option<f64>,
    /// The same at p99.
    pub p99: Option<f64>,
    /// Tolerated difference of amounts, a fraction of the baseline's. Nothing: not compared.
    pub amount: Option<f64>,
    /// Probability of ever ejecting a canary within all of them.
    pub alpha: f64,
    /// The most nats that one block may add to one bet, such as [`super::BURST_CAP`]. Nothing: no
    /// limit.
    pub burst_cap: Option<f64>,
    /// The health that lets a canary pass. Nothing: it never does.
    pub health: Option<Health>,
}

impl From<&Eject> for Limits {
    /// What the file asks for, with the defaults it leaves out.
    fn from(eject: &Eject) -> Self {
        let errors = eject.errors.as_ref().map(|errors| Tolerance {
            ratio: 1.0 + errors.relative.map_or(ERRORS_RELATIVE, |share| share.0),
            excess: errors.absolute.map_or(ERRORS_ABSOLUTE, |share| share.0),
        });
        let latency = eject.latency.as_ref();
        Self {
            errors,
            p95: latency.and_then(|latency| latency.p95).map(|share| share.0),
            p99: latency.and_then(|latency| latency.p99).map(|share| share.0),
            amount: None,
            alpha: ALPHA,
            burst_cap: None,
            health: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        schema::{EjectErrors, EjectLatency},
        units::Share,
    };

    #[test]
    fn the_file_becomes_limits() {
        let latency = Some(EjectLatency { p95: None, p99: Some(Share(0.2)) });
        let all = Limits::from(&Eject { errors: Some(EjectErrors::default()), latency });
        assert_eq!(all.errors, Tolerance::new(1.1, 1e-4));
        assert_eq!((all.p95, all.p99, all.alpha), (None, Some(0.2), 1e-3));
        let errors = EjectErrors { relative: Some(Share(0.5)), absolute: Some(Share(0.0)) };
        let only_errors = Limits::from(&Eject { errors: Some(errors), latency: None });
        assert_eq!((only_errors.errors, only_errors.p99), (Tolerance::new(1.5, 0.0), None));
        assert_eq!(Limits::from(&Eject::default()).errors, None);
    }
}
