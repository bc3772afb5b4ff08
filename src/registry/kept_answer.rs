//! A response that is kept so that it can be sent again.

/// A whole response of a version, without what belongs to its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAnswer {
    /// Its status.
    pub status: u16,
    /// Its end-to-end header fields except the length, each a line with its end.
    pub fields: Box<[u8]>,
    /// Its body.
    pub body: Box<[u8]>,
}

impl KeptAnswer {
    /// Bytes of header fields and body.
    pub fn bytes(&self) -> usize {
        self.fields.len() + self.body.len()
    }

    /// As bytes: the status (2 bytes, big endian), the length of the fields (4 bytes), fields, and body.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(6 + self.bytes());
        bytes.extend_from_slice(&self.status.to_be_bytes());
        // A head has less than 4 GiB.
        bytes.extend_from_slice(&(self.fields.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&self.fields);
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// The response in `bytes`; `None` if there is none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (status, rest) = bytes.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (fields, body) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        let status = u16::from_be_bytes(*status);
        (200..600).contains(&status).then(|| Self {
            status,
            fields: fields.into(),
            body: body.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_read_as_it_was_and_nothing_else_is() {
        let answer = KeptAnswer {
            status: 201,
            fields: (*b"X-Bet: 7\r\n").into(),
            body: (*b"{\"bet\":7}").into(),
        };
        let bytes = answer.encode();
        assert_eq!(KeptAnswer::decode(&bytes), Some(answer));
        for bad in [&b""[..], &bytes[..5], &bytes[..9], b"\x00\x00\x00\x00\x00\x00"] {
            assert_eq!(KeptAnswer::decode(bad), None);
        }
    }
}
