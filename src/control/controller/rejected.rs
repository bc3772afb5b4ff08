//! Why a change is refused.

use crate::{
    control::overtaken::Overtaken,
    rollout::{PlanError, Refused},
};

/// Why a change was refused. A refused change has no effect.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Rejected {
    /// The service does not exist.
    #[error("there is no service `{service}`; there are: {known}")]
    NoService {
        /// As requested.
        service: String,
        /// Names of services.
        known: String,
    },
    /// A version does not exist.
    #[error("service `{service}` has no version `{version}`; it has: {known}")]
    NoVersion {
        /// As requested.
        service: String,
        /// As requested.
        version: String,
        /// Names of versions.
        known: String,
    },
    /// The weights name a version that does not exist.
    #[error("service `{service}` has no version `{version}`; it has: {known}")]
    NoVersionToWeigh {
        /// As requested.
        service: String,
        /// As requested.
        version: String,
        /// Names of versions.
        known: String,
    },
    /// A version whose pins are to be moved, or that is to get them, does not exist.
    #[error("service `{service}` has no version `{version}`; it has: {known}")]
    NoVersionForPins {
        /// As requested.
        service: String,
        /// As requested.
        version: String,
        /// The field of the request.
        field: &'static str,
        /// Names of versions.
        known: String,
    },
    /// The service has no pins.
    #[error("`{service}` has no pins; `pin` in the file gives it some")]
    NoPins {
        /// The service.
        service: String,
    },
    /// Pins cannot be moved there.
    #[error("{why}")]
    PinsStay {
        /// Why, and what would help.
        why: String,
    },
    /// There is no such route.
    #[error("there is no route `{route}`; there are: {known}")]
    NoRouteForMode {
        /// As requested.
        route: String,
        /// Labels of routes.
        known: String,
    },
    /// A route of which no mode refuses anything.
    #[error(
        "route `{route}` has {why}: a read-only mode would refuse nothing there; change that in the file first, or make \
         the service read-only for its other routes"
    )]
    NothingToRefuse {
        /// The route.
        route: String,
        /// What of its configuration says so.
        why: &'static str,
    },
    /// A file without something that is read-only.
    #[error(
        "{} is read-only, and this file no longer has it, so its writes would go on: end the mode first, with {}, or keep \
         its name and what belongs to it",
        scope.told(), super::lost_modes::ending(scope)
    )]
    ModeLost {
        /// What is read-only.
        scope: crate::policy::read_only::Scope,
    },
    /// A mode would be over before it began.
    #[error("`until` is {until}, and it is {now} now; write a later time")]
    ModeIsOver {
        /// As requested.
        until: String,
        /// The time of this process.
        now: String,
    },
    /// A notice is refused.
    #[error("{why}")]
    Notice {
        /// The field.
        field: &'static str,
        /// Why, and what would be right.
        why: String,
    },
    /// There is no such notice.
    #[error("there is no notice `{name}` that was set at run time; there are: {known}")]
    NoNotice {
        /// As requested.
        name: String,
        /// Names of notices.
        known: String,
    },
    /// A file lacks a version with players, which a version would get that nobody gave them to.
    #[error("services.{service}: {why}")]
    GrowthByFile {
        /// The service.
        service: String,
        /// Which version would grow, and what would be right.
        why: String,
    },
    /// A retreat came while it waited.
    #[error(transparent)]
    Overtaken(#[from] Overtaken),
    /// All weights are 0.
    #[error("all weights are 0, so no version would serve; {right}")]
    NoWeight {
        /// What was probably meant.
        right: String,
    },
    /// Versions with weight are not named, and `only` is not set.
    #[error(
        "{not_named} would get no players, since the weights name only {named}: {preview}. {right}"
    )]
    NotNamed {
        /// Versions that have weight and are not named.
        not_named: String,
        /// Versions that are named.
        named: String,
        /// Shares before and after.
        preview: String,
        /// What was probably meant.
        right: String,
    },
    /// The shares of players are invalid.
    #[error("{0}")]
    Shares(String),
    /// With these weights no version would serve.
    #[error("no version would serve `{service}`: {why}; or give another version weight")]
    Unserved {
        /// The service.
        service: String,
        /// A version that has weight and cannot serve.
        version: String,
        /// Why the versions with weight cannot serve, and what would help.
        why: String,
    },
    /// None of the endpoints that would get the traffic can be reached.
    #[error(
        "no endpoint of {versions} of `{service}` can be reached: {why}; start it, or insist with `force` \
         (`--force` on the command line)"
    )]
    Unreached {
        /// The service.
        service: String,
        /// The first of the versions.
        version: String,
        /// The versions that would get the traffic.
        versions: String,
        /// Their endpoints, and what is wrong with each.
        why: String,
    },
    /// In the file there is a service all of whose versions are ejected.
    #[error("{why}")]
    AllEjected {
        /// The service, and why.
        why: String,
    },
    /// No other version could serve.
    #[error("`{version}` is the last version of `{service}` that serves; {right}")]
    LastVersion {
        /// Why the other versions with weight do not serve, or what would help.
        right: String,
        /// The service.
        service: String,
        /// Its version.
        version: String,
    },
    /// The version is not ejected.
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
        /// As requested.
        endpoint: String,
        /// Addresses of endpoints.
        known: String,
    },
    /// No other endpoint of the version serves.
    #[error(
        "`{endpoint}` is the last endpoint of version `{version}` of `{service}` that serves; eject the version instead"
    )]
    LastEndpoint {
        /// The service.
        service: String,
        /// Its version.
        version: String,
        /// The endpoint.
        endpoint: String,
    },
    /// The endpoint is not ejected.
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
    /// The service has no rollout.
    #[error(
        "`{service}` has no rollout; start one with `tidegate rollout start {service} VERSION`"
    )]
    NoRollout {
        /// The service.
        service: String,
    },
    /// The table of transitions, or a rule of rollouts, does not allow the command.
    #[error(transparent)]
    Rollout(Refused),
    /// There is no such plan.
    #[error("there is no plan `{plan}`; {known}")]
    NoPlan {
        /// As requested.
        plan: String,
        /// Names of plans.
        known: String,
    },
    /// Neither the request nor the file names a plan.
    #[error(
        "no plan is named, and the file has no `rollout` for `{service}`; name a plan, or give `steps`"
    )]
    PlanMissing {
        /// The service.
        service: String,
    },
    /// The steps of the request are invalid.
    #[error(transparent)]
    Plan(PlanError),
    /// The service cannot answer a gate of the plan.
    #[error("the plan does not fit: {why}")]
    PlanDoesNotFit {
        /// What is wrong, and what would be right.
        why: String,
    },
    /// Growth that needs a second person, who did not agree.
    #[error(
        "`{service}` asks for a second person: {what} needs one besides {by}, who agrees by a token of their own: \
         `--second-token-file`, or the field `Tidegate-Second-Authorization`"
    )]
    Alone {
        /// The service.
        service: String,
        /// What was asked for.
        what: &'static str,
        /// Who asked.
        by: String,
    },
    /// The writes of the service move only behind its fence.
    #[error(
        "the writes of `{service}` move only behind its fence (`fence.required`), so that no two versions work on \
         them: `tidegate cutover {service} VERSION`, or POST /v1/services/{service}/cutover, moves them"
    )]
    FenceRequired {
        /// The service.
        service: String,
    },
    /// A file that requires the fence of a service of which several versions have writes.
    #[error(
        "services.{service}.fence.required: from then on only one version may work on writes, but {why}"
    )]
    SplitWrites {
        /// The service.
        service: String,
        /// Which have them, and what to do.
        why: String,
    },
    /// A file that makes writes of reads, while some are in flight that began before another such file.
    #[error(
        "services.{service}: the file adds its fence or makes writes of what was read before, and {version} still has \
         {left} request(s) in flight that began before an earlier file that did so; try again when they have ended"
    )]
    StillReclassed {
        /// The service.
        service: String,
        /// The version.
        version: String,
        /// How many.
        left: u64,
    },
    /// A file without the version that has the writes of a service.
    #[error(
        "services.{service}: `{version}` has the writes, and they move only behind the fence (`fence.required`); \
         keep it in the file, `tidegate cutover {service} VERSION`, and then remove it"
    )]
    WriterIsGone {
        /// The service.
        service: String,
        /// The version.
        version: String,
    },
    /// The service has no fence.
    #[error(
        "`{service}` has no fence; write `fence: {{}}` for the service into the file, or cut over without"
    )]
    NoFence {
        /// The service.
        service: String,
    },
    /// A fence cannot be raised now.
    #[error("the writes of `{service}` cannot be moved now: {why}")]
    FenceUnready {
        /// The service.
        service: String,
        /// What is in the way.
        why: String,
    },
    /// A cutover behind a fence was undone.
    #[error(
        "the cutover of `{service}` was undone: {why}; the writes that waited went where they would have gone"
    )]
    FenceUndone {
        /// The service.
        service: String,
        /// What was in the way.
        why: String,
        /// Whether the deadline had passed.
        is_late: bool,
    },
    /// No split is left to which a rollback would lead.
    #[error(
        "there is nothing further to go back to: no change of the weights of `{service}` is left to undo; \
         `tidegate weights {service} VERSION=WEIGHT` sets them, and `tidegate cutover {service} VERSION` moves \
         its traffic to a version"
    )]
    NothingBefore {
        /// The service.
        service: String,
    },
    /// The split before the one in force had versions that the file no longer has.
    #[error(
        "the split of `{service}` before the last change gave players to {versions}, which the file no longer \
         has; `tidegate cutover {service} VERSION` moves its traffic to a version"
    )]
    BeforeIsGone {
        /// The service.
        service: String,
        /// The missing versions.
        versions: String,
    },
    /// Another process has taken over.
    #[error("another process has taken over; try again on a new connection")]
    HandedOver,
    /// Another change was made since the caller looked.
    #[error("{}; look again", outdated(*expected, *actual, *decided))]
    Outdated {
        /// The generation that the caller saw.
        expected: u64,
        /// The generation in force.
        actual: u64,
        /// The generation of the last change that counts.
        decided: u64,
    },
}

fn outdated(expected: u64, actual: u64, decided: u64) -> String {
    match expected > actual {
        true => format!("there is no generation {expected} yet: {actual} is in force"),
        false => format!(
            "generation {expected} is outdated: the last change by an operator, a verdict or a file is generation \
             {decided}, and {actual} is in force"
        ),
    }
}
