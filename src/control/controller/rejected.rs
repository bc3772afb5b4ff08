//! Why a change is refused.

/// Why a change was refused; nothing changed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Rejected {
    /// The service does not exist.
    #[error("there is no service `{service}`; there are: {known}")]
    NoService {
        /// As asked for.
        service: String,
        /// Names of services.
        known: String,
    },
    /// A version does not exist.
    #[error("service `{service}` has no version `{version}`; it has: {known}")]
    NoVersion {
        /// As asked for.
        service: String,
        /// As asked for.
        version: String,
        /// Names of versions.
        known: String,
    },
    /// A version that weights name does not exist.
    #[error("service `{service}` has no version `{version}`; it has: {known}")]
    NoVersionToWeigh {
        /// As asked for.
        service: String,
        /// As asked for.
        version: String,
        /// Names of versions.
        known: String,
    },
    /// All weights are 0.
    #[error("all weights are 0, so nobody could be served; {right}")]
    NoWeight {
        /// How to write what was probably meant.
        right: String,
    },
    /// Versions that have weight are not named, and `only` is not said.
    #[error(
        "{not_named} would get nobody, since the weights name only {named}: {preview}. {right}"
    )]
    NotNamed {
        /// Versions that have weight and are not named.
        not_named: String,
        /// Versions that are named.
        named: String,
        /// Shares before and after.
        preview: String,
        /// How to write what was probably meant.
        right: String,
    },
    /// Shares of players that cannot be.
    #[error("{0}")]
    Shares(String),
    /// Weights that nobody serves by.
    #[error("nobody would serve `{service}`: {why}; or give another version weight")]
    Unserved {
        /// The service.
        service: String,
        /// A version that has weight and does not serve.
        version: String,
        /// Why its versions with weight do not serve, and how they could.
        why: String,
    },
    /// A file has a service all of whose versions are ejected.
    #[error("{why}")]
    AllEjected {
        /// Which, and why.
        why: String,
    },
    /// Without the version nobody would serve.
    #[error(
        "`{version}` is the last version of `{service}` that serves; give another one weight first"
    )]
    LastVersion {
        /// The service.
        service: String,
        /// Its version.
        version: String,
    },
    /// There is nothing to take back.
    #[error("version `{version}` of `{service}` is not ejected")]
    NotEjected {
        /// The service.
        service: String,
        /// Its version.
        version: String,
    },
    /// A version has no such endpoint.
    #[error("version `{version}` of `{service}` has no endpoint `{endpoint}`; it has: {known}")]
    NoEndpoint {
        /// The service.
        service: String,
        /// Its version.
        version: String,
        /// As asked for.
        endpoint: String,
        /// Addresses of endpoints.
        known: String,
    },
    /// No other endpoint of the version serves.
    #[error(
        "no endpoint of version `{version}` of `{service}` serves beside `{endpoint}`; eject the version instead"
    )]
    LastEndpoint {
        /// The service.
        service: String,
        /// Its version.
        version: String,
        /// The endpoint.
        endpoint: String,
    },
    /// There is no endpoint to take back.
    #[error(
        "endpoint `{endpoint}` of version `{version}` of `{service}` is not ejected; it is {state}"
    )]
    EndpointNotEjected {
        /// The service.
        service: String,
        /// Its version.
        version: String,
        /// The endpoint.
        endpoint: String,
        /// Its state.
        state: &'static str,
    },
    /// Another process has taken over.
    #[error("another process has taken over; ask again on a new connection")]
    HandedOver,
    /// Somebody else made a change first.
    #[error("the generation is {actual}, not {expected}: somebody else made a change; look again")]
    Outdated {
        /// As the caller saw it.
        expected: u64,
        /// In force.
        actual: u64,
    },
}
