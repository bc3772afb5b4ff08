//! Pins on their way to the next process, in messages of bounded length.
//!
//! A pin is 22 bytes: its key, the number of its version in the message, and when it began. In base64 a message
//! of [`MOST`] pins takes 2.9 MB.

use std::{collections::HashMap, io, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::{
    registry::{KeptPin, PinKey},
    store::KeptPins,
};

/// Most pins of a message.
const MOST: usize = 100_000;

/// Bytes of a pin.
const BYTES: usize = 22;

/// Pins of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PinMessage {
    service: String,
    /// Versions that the pins name by their places here.
    versions: Vec<String>,
    /// In base64.
    pins: String,
}

impl PinMessage {
    /// The messages that hand `pins` over.
    pub(super) fn all(pins: &KeptPins) -> Vec<Self> {
        let each = pins.iter().flat_map(|(service, pins)| {
            pins.chunks(MOST).map(move |pins| Self::of(service.clone(), pins))
        });
        each.collect()
    }

    fn of(service: String, pins: &[KeptPin]) -> Self {
        let (mut versions, mut places) = (Vec::new(), HashMap::<&Arc<str>, u16>::new());
        let mut bytes = Vec::with_capacity(pins.len() * BYTES);
        for KeptPin { key, version, began } in pins {
            let place = *places.entry(version).or_insert_with(|| {
                versions.push(version.to_string());
                // A table has no more versions than that.
                (versions.len() - 1) as u16
            });
            bytes.extend_from_slice(key.bytes());
            bytes.extend_from_slice(&place.to_be_bytes());
            bytes.extend_from_slice(&began.to_be_bytes());
        }
        Self { service, versions, pins: STANDARD.encode(bytes) }
    }

    /// Adds its pins to `all`.
    pub(super) fn add_to(self, all: &mut KeptPins) -> io::Result<()> {
        let malformed = || io::Error::other("a message with malformed pins");
        let bytes = STANDARD.decode(&self.pins).map_err(|_| malformed())?;
        let names: Vec<Arc<str>> = self.versions.iter().map(|v| Arc::from(v.as_str())).collect();
        let (pins, rest) = bytes.as_chunks::<BYTES>();
        if !rest.is_empty() {
            return Err(malformed());
        }
        let each = pins.iter().map(|pin| {
            let (key, rest) = pin.split_first_chunk::<16>()?;
            let (place, began) = rest.split_first_chunk::<2>()?;
            let version = names.get(usize::from(u16::from_be_bytes(*place)))?;
            let began = u32::from_be_bytes(*began.first_chunk()?);
            Some(KeptPin { key: PinKey::from_bytes(*key), version: Arc::clone(version), began })
        });
        let pins: Option<Vec<KeptPin>> = each.collect();
        all.entry(self.service).or_default().extend(pins.ok_or_else(malformed)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_the_same_on_the_other_side_in_messages_of_bounded_length() {
        let names: [Arc<str>; 2] = ["v41".into(), "v42".into()];
        let pin = |n: u32| KeptPin {
            key: PinKey::of(&n.to_be_bytes()),
            version: Arc::clone(&names[n as usize % 2]),
            began: n,
        };
        let mut pins = KeptPins::new();
        pins.insert("wallet".to_owned(), (0..MOST as u32 + 7).map(pin).collect());
        pins.insert("game".to_owned(), vec![pin(5)]);
        pins.insert("empty".to_owned(), Vec::new());
        let messages = PinMessage::all(&pins);
        let lengths = messages.iter().map(|m| serde_json::to_vec(m).expect("JSON").len());
        assert!(lengths.max().is_some_and(|most| most < 3_000_000));
        assert_eq!(messages.len(), 3);
        let mut came = KeptPins::new();
        messages.into_iter().for_each(|m| m.add_to(&mut came).expect("well formed"));
        pins.remove("empty");
        assert_eq!(came, pins);
    }

    #[test]
    fn malformed_pins_are_refused() {
        let good = PinMessage::of(
            "a".to_owned(),
            &[KeptPin { key: PinKey::of(b"x"), version: "v1".into(), began: 1 }],
        );
        let pins = |pins: &str| PinMessage { pins: pins.to_owned(), ..good.clone() };
        let nowhere = PinMessage { versions: Vec::new(), ..good.clone() };
        for bad in [pins("?"), pins("AAAA"), nowhere] {
            let mut all = KeptPins::new();
            assert!(bad.add_to(&mut all).is_err());
        }
        assert!(good.add_to(&mut KeptPins::new()).is_ok());
    }
}
