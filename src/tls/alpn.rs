//! Protocol names of ALPN.

/// HTTP/2 (RFC 9113 section 3.2).
pub const H2: &[u8] = b"h2";

/// HTTP/1.1 (RFC 7301 section 6).
pub const HTTP_1_1: &[u8] = b"http/1.1";

/// HTTP/1.0 (RFC 7301 section 6).
pub const HTTP_1_0: &[u8] = b"http/1.0";
