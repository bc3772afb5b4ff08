//! The subject of a certificate as text (RFC 4514), fit for a header field.
//!
//! Every byte of UTF-8 except visible ASCII and the space is written as `\XX`, which RFC 4514
//! section 2.4 allows: no name can break out of the field, and readers can decode it.

use std::fmt::Write;

use rustls::pki_types::CertificateDer;
use x509_parser::{
    asn1_rs::{FromDer, Oid, ToDer},
    certificate::X509Certificate,
    x509::{AttributeTypeAndValue, X509Name},
};

/// Attributes with a short name: those of RFC 4514 section 3, and three that certificates of
/// partners often have, as OpenSSL writes them. Others are written by their number.
const SHORT_NAMES: &[(&str, &str)] = &[
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.97", "organizationIdentifier"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// The subject of `certificate`; `None` if the certificate cannot be parsed.
pub(super) fn of(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(text(parsed.subject()))
}

/// The text of a name, the most specific part first (RFC 4514 section 2.1).
fn text(name: &X509Name<'_>) -> String {
    let parts: Vec<String> = name
        .iter_rdn()
        .map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+"))
        .collect();
    parts.into_iter().rev().collect::<Vec<_>>().join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let id = number(attribute.attr_type());
    let short = SHORT_NAMES.iter().find(|(known, _)| *known == id);
    match (short, attribute.attr_value().as_any_str()) {
        (Some((_, name)), Ok(value)) => format!("{name}={}", escaped(&value)),
        // RFC 4514 section 2.4: the value's DER in hexadecimal digits.
        _ => {
            let der = attribute.attr_value().to_der_vec().unwrap_or_default();
            let digits = der.iter().fold(String::new(), |mut digits, byte| {
                // Writing to a string cannot fail.
                let _ = write!(digits, "{byte:02x}");
                digits
            });
            let name = short.map_or(id.as_str(), |(_, name)| name);
            format!("{name}=#{digits}")
        }
    }
}

fn number(id: &Oid<'_>) -> String {
    id.to_id_string()
}

fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        let special = matches!(byte, b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' | b'=')
            || byte == b' ' && (at == 0 || at == last)
            || byte == b'#' && at == 0;
        if special {
            text.extend(['\\', char::from(byte)]);
        } else if byte == b' ' || byte.is_ascii_graphic() {
            text.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    #[test]
    fn the_most_specific_part_comes_first() {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        let of = |params: &CertificateParams| {
            of(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der()).unwrap()
        };
        assert_eq!(of(&params), "");
        for (number, value) in [
            (&[2, 5, 4, 6][..], "DE"),
            (&[2, 5, 4, 97], "PSDDE-1"),
            (&[2, 5, 4, 12], "Dr"),
            (&[2, 5, 4, 3], "partner 7"),
        ] {
            params.distinguished_name.push(DnType::from_oid(number), value);
        }
        let expected = "CN=partner 7,2.5.4.12=#0c024472,organizationIdentifier=PSDDE-1,C=DE";
        assert_eq!(of(&params), expected);
    }

    #[test]
    fn values_are_escaped() {
        assert_eq!(escaped("Acme, \"Inc.\""), r#"Acme\, \"Inc.\""#);
        assert_eq!(escaped(" #a "), r"\ #a\ ");
        assert_eq!(escaped("#a"), r"\#a");
        assert_eq!(escaped("Lučić\r\nX: 1"), r"Lu\C4\8Di\C4\87\0D\0AX: 1");
    }
}
