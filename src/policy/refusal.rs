//! Which policy refused a request, as metrics and the access log name it.

/// What refused a request before a version got it; the `reason` label of `tidegate_refused_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The client's address is not admitted.
    Address,
    /// The client's token.
    Token,
    /// A limit of a rate.
    Rate,
    /// An authorizer: it denied the request, or failed.
    Authorizer,
    /// A read-only mode.
    ReadOnly,
    /// No version serves.
    NoVersion,
    /// A version's circuit breaker.
    Breaker,
    /// An idempotency key.
    Idempotency,
    /// The body did not arrive, or is malformed.
    Body,
    /// A fence.
    Fence,
    /// A limit of requests in flight.
    Concurrency,
    /// None of these.
    Other,
}

impl Refusal {
    /// All of them, in the order of their counts.
    pub const ALL: [Self; 12] = [
        Self::Address,
        Self::Token,
        Self::Rate,
        Self::Authorizer,
        Self::ReadOnly,
        Self::NoVersion,
        Self::Breaker,
        Self::Idempotency,
        Self::Body,
        Self::Fence,
        Self::Concurrency,
        Self::Other,
    ];

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Token => "token",
            Self::Rate => "rate",
            Self::Authorizer => "authorizer",
            Self::ReadOnly => "read_only",
            Self::NoVersion => "no_version",
            Self::Breaker => "breaker",
            Self::Idempotency => "idempotency",
            Self::Body => "body",
            Self::Fence => "fence",
            Self::Concurrency => "concurrency",
            Self::Other => "other",
        }
    }

    /// That of a problem of this `kind`, such as `concurrency_late`.
    pub fn of(kind: &str) -> Self {
        let is_of = |family: &str| {
            kind.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
        };
        match kind {
            "authorizer" | "denied" => Self::Authorizer,
            "no_version" | "no_endpoint" => Self::NoVersion,
            "request_timeout" | "bad_request" => Self::Body,
            _ if is_of("token") => Self::Token,
            _ if is_of("read_only") => Self::ReadOnly,
            _ if is_of("idempotency") => Self::Idempotency,
            _ if is_of("fence") => Self::Fence,
            _ if is_of("concurrency") => Self::Concurrency,
            "address" => Self::Address,
            "rate" => Self::Rate,
            "breaker" => Self::Breaker,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_a_family_is_of_its_policy() {
        for (kind, expected) in [
            ("idempotency_busy", Refusal::Idempotency),
            ("concurrency", Refusal::Concurrency),
            ("concurrency_late", Refusal::Concurrency),
            ("read_only_full", Refusal::ReadOnly),
            ("fence_left", Refusal::Fence),
            ("token", Refusal::Token),
            ("token_claim", Refusal::Token),
            ("denied", Refusal::Authorizer),
            ("request_timeout", Refusal::Body),
            ("no_endpoint", Refusal::NoVersion),
            ("tokens", Refusal::Other),
            ("", Refusal::Other),
        ] {
            assert_eq!(Refusal::of(kind), expected, "{kind}");
        }
        for (number, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, number);
        }
        for refusal in [Refusal::Address, Refusal::Rate, Refusal::Breaker, Refusal::Idempotency] {
            assert_eq!(Refusal::of(refusal.label()), refusal);
        }
    }
}
