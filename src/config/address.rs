//! Addresses of the standard library and of `ipnet`, with errors that explain the form.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, IntoDeserializer},
};

/// Schema of an address with a port.
#[derive(Debug)]
pub struct SocketText;

impl JsonSchema for SocketText {
    fn schema_name() -> Cow<'static, str> {
        "SocketAddress".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "Address and port: 127.0.0.1:8080, [::]:8080.",
            "pattern": "^(\\[[0-9A-Fa-f:.%]+\\]|[0-9.]+):[0-9]{1,5}$"
        })
    }
}

/// Schema of a range of addresses.
#[derive(Debug)]
pub struct NetworkText;

impl JsonSchema for NetworkText {
    fn schema_name() -> Cow<'static, str> {
        "Network".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A range of addresses, or one address: 10.0.0.0/8, 192.0.2.7, 2001:db8::/32.",
            "pattern": "^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$"
        })
    }
}

/// One address with a port; for `#[serde(with = …)]`.
pub mod socket {
    use super::*;

    /// Reads `127.0.0.1:8080`.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<SocketAddr, D::Error> {
        Socket::deserialize(d).map(|socket| socket.0)
    }

    /// Writes `127.0.0.1:8080`.
    pub fn serialize<S: Serializer>(value: &SocketAddr, s: S) -> Result<S::Ok, S::Error> {
        value.serialize(s)
    }
}

/// A list of addresses with ports; for `#[serde(with = …)]`.
pub mod sockets {
    use super::*;

    /// Reads `[ 10.0.0.2:53 ]`.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<SocketAddr>, D::Error> {
        Ok(Vec::<Socket>::deserialize(d)?.into_iter().map(|socket| socket.0).collect())
    }

    /// Writes `[ 10.0.0.2:53 ]`.
    pub fn serialize<S: Serializer>(value: &[SocketAddr], s: S) -> Result<S::Ok, S::Error> {
        value.serialize(s)
    }
}

/// A list of address ranges, a single address being the range of itself; for `#[serde(with = …)]`.
pub mod networks {
    use super::*;

    /// Reads `[ 10.0.0.0/8, 192.0.2.7 ]`.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<IpNet>, D::Error> {
        Ok(Vec::<Network>::deserialize(d)?.into_iter().map(|network| network.0).collect())
    }

    /// Writes `[ 10.0.0.0/8, 192.0.2.7/32 ]`.
    pub fn serialize<S: Serializer>(value: &[IpNet], s: S) -> Result<S::Ok, S::Error> {
        value.serialize(s)
    }
}

/// A list of address ranges as `networks`, each written as its first address: where `10.0.0.1/8` may be meant as one
/// address, all the others would be admitted or refused without a word; for `#[serde(with = …)]`.
pub mod exact_networks {
    pub use super::networks::serialize;
    use super::*;

    /// Reads `[ 10.0.0.0/8, 192.0.2.7 ]`.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<IpNet>, D::Error> {
        Ok(Vec::<Exact>::deserialize(d)?.into_iter().map(|network| network.0).collect())
    }

    struct Exact(IpNet);

    impl<'de> Deserialize<'de> for Exact {
        fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
            let text = String::deserialize(d)?;
            let Network(network) = Network::deserialize(text.as_str().into_deserializer())?;
            match text.parse::<IpNet>().is_ok_and(|written| written != network) {
                true => {
                    let address = text.split('/').next().unwrap_or(&text);
                    Err(de::Error::custom(format!(
                        "`{text}` is all of {network}; write {network}, or {address} for the one address"
                    )))
                }
                false => Ok(Self(network)),
            }
        }
    }
}

struct Socket(SocketAddr);

impl<'de> Deserialize<'de> for Socket {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map(Self).map_err(|_| {
            de::Error::custom(format!(
                "`{text}` is not an address with a port; write it in digits, such as 127.0.0.1:8080 or [::1]:8080"
            ))
        })
    }
}

struct Network(IpNet);

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let address = text.parse::<IpAddr>().map(IpNet::from);
        address.or_else(|_| text.parse()).map(|network| Self(network.trunc())).map_err(|_| {
            de::Error::custom(format!(
                "`{text}` is not a range of addresses; write 10.0.0.0/8, 2001:db8::/32 or one address"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Lists {
        #[serde(with = "networks")]
        lenient: Vec<IpNet>,
        #[serde(with = "exact_networks")]
        exact: Vec<IpNet>,
    }

    /// Whoever wrote `10.0.0.1/8` for one address admitted 16 million.
    #[test]
    fn a_range_of_an_access_list_is_written_as_its_first_address() {
        let read = |exact: &str| {
            let lists = serde_json::json!({ "lenient": [ "10.0.0.1/8" ], "exact": [ exact ] });
            serde_json::from_value::<Lists>(lists)
        };
        for good in ["10.0.0.0/8", "10.0.0.1/32", "10.0.0.1", "2001:db8::/32", "::1"] {
            let lists = read(good).expect(good);
            assert_eq!((lists.lenient[0].prefix_len(), lists.exact.len()), (8, 1), "{good}");
        }
        for (wrong, range) in [("10.0.0.1/8", "10.0.0.0/8"), ("2001:db8::1/32", "2001:db8::/32")] {
            let error = read(wrong).expect_err(wrong).to_string();
            assert!(error.contains(&format!("write {range}, or ")), "{error}");
        }
    }
}
