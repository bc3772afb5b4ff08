//! The pins of a service, compiled.

use std::sync::Arc;

use super::{sources::SnapshotInputs, version::Version};
use crate::{
    config::{schema, units::Weight},
    registry::PinTable,
    routing::pin::{Host, PinCookie, PinMove, PinRules},
};

/// The pins of a service.
#[derive(Debug)]
pub struct PinPlan {
    /// What begins and ends them.
    pub rules: Arc<PinRules>,
    /// The pins.
    pub table: Arc<PinTable>,
    /// Most of them in the table.
    pub most: u32,
    /// The cookie that keeps them instead of the table; `None` if the table does.
    pub cookie: Option<Arc<PinCookie>>,
    /// Moves by operators, in their order.
    pub moves: Box<[PinMove]>,
    /// Index of the version in the service, by its number in the table; [`u16::MAX`] if the file does not have
    /// it.
    places: Box<[u16]>,
    /// Index of the version that has all writes of a service with a fence; `None` if there is no such version.
    writer: Option<u16>,
}

impl PinPlan {
    /// The pins of the service of this name with these `versions`. `before` is a plan of the same
    /// configuration.
    pub(super) fn new(
        (name, pin): (&str, &schema::Pin),
        sources: SnapshotInputs<'_>,
        versions: &[Version],
        table: Arc<PinTable>,
        before: Option<&Self>,
    ) -> Self {
        let config = sources.config;
        let routes = config.routes.iter().filter(|route| route.service == name);
        let paths = routes.filter_map(|route| route.matches.path.as_ref());
        let rules = before.map(|before| Arc::clone(&before.rules));
        let cookie = before.and_then(|before| before.cookie.clone());
        let make = |cookie| Arc::new(PinCookie::new(name, cookie));
        let numbers = versions.iter().map(|v| v.pinned.as_ref().map(|pinned| pinned.number));
        let numbers: Vec<Option<u16>> = numbers.collect();
        let most = numbers.iter().flatten().max().map_or(0, |most| usize::from(*most) + 1);
        let mut places = vec![u16::MAX; most];
        for (number, place) in numbers.into_iter().zip(0u16..) {
            if let Some(number) = number {
                places[usize::from(number)] = place;
            }
        }
        Self {
            rules: rules.unwrap_or_else(|| Arc::new(PinRules::new(pin, paths))),
            table,
            most: pin.most.unwrap_or(schema::Pin::MOST),
            cookie: cookie.or_else(|| pin.cookie.as_ref().map(make)),
            moves: sources.decided.pin_moves.get(name).cloned().unwrap_or_default().into(),
            places: places.into(),
            writer: writer(config.services.get(name), versions),
        }
    }

    /// Index in the service of the version with this number in the table.
    pub fn place(&self, number: u16) -> Option<u16> {
        self.places.get(usize::from(number)).copied().filter(|place| *place != u16::MAX)
    }

    /// What the version with this number in the table, one of `versions`, can do for its pins.
    pub fn host(&self, number: u16, versions: &[Version]) -> Host {
        let place = self.place(number);
        if self.writer.is_some() && place != self.writer {
            return Host::Out;
        }
        match place.and_then(|place| versions.get(usize::from(place))) {
            Some(version) if !version.works() => Host::Out,
            Some(version) if version.ejected => Host::Ejected,
            Some(_) => Host::Serves,
            None => Host::Out,
        }
    }
}

/// Index of the only version with players, if the service has a fence. No other version may work on its writes,
/// so pins do not hold them elsewhere.
fn writer(service: Option<&schema::Service>, versions: &[Version]) -> Option<u16> {
    service?.fence.as_ref()?;
    let mut with =
        (0u16..).zip(versions).filter(|(_, version)| version.share_weight() > Weight::ZERO);
    let (writer, _) = with.next()?;
    with.next().is_none().then_some(writer)
}
