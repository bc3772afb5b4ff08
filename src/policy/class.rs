//! Reads and writes: what a request's method promises.

/// Whether a request reads or writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A safe method: the client asks for no change (RFC 9110 section 9.2.1).
    Read,
    /// Any other method, unknown ones among them.
    Write,
}

impl Class {
    /// Both, in the order of counts by class.
    pub const ALL: [Self; 2] = [Self::Read, Self::Write];

    /// The class of `method`.
    pub fn of(method: &str) -> Self {
        match method {
            "GET" | "HEAD" | "OPTIONS" | "TRACE" => Self::Read,
            _ => Self::Write,
        }
    }
}

/// Whether sending a request with `method` twice does what sending it once does (RFC 9110 section 9.2.2).
pub fn is_idempotent(method: &str) -> bool {
    Class::of(method) == Class::Read || matches!(method, "PUT" | "DELETE")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_read_exactly_and_unknown_ones_write() {
        for (method, class, idempotent) in [
            ("GET", Class::Read, true),
            ("HEAD", Class::Read, true),
            ("OPTIONS", Class::Read, true),
            ("TRACE", Class::Read, true),
            ("PUT", Class::Write, true),
            ("DELETE", Class::Write, true),
            ("POST", Class::Write, false),
            ("PATCH", Class::Write, false),
            ("CONNECT", Class::Write, false),
            // Methods are case-sensitive (RFC 9110 section 9.1).
            ("get", Class::Write, false),
            ("PURGE", Class::Write, false),
            ("", Class::Write, false),
        ] {
            assert_eq!((Class::of(method), is_idempotent(method)), (class, idempotent), "{method}");
        }
    }
}
