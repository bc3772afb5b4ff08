//! Reads and writes: what a request's method promises, where its route does not say more.

pub use crate::config::schema::Class;

impl Class {
    /// Both, in the order of counts by class.
    pub const ALL: [Self; 2] = [Self::Read, Self::Write];

    /// The class of `method`: a safe one reads (RFC 9110 section 9.2.1), any other writes, unknown ones among them.
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

/// Whether sending a request with `method` on a route of `class` twice does what sending it once does. A GET of a route that
/// writes is what its route says; a PUT is idempotent as a write.
pub fn is_repeatable(method: &str, class: Class) -> bool {
    match class {
        Class::Read => true,
        Class::Write => is_idempotent(method) && Class::of(method) == Class::Write,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_that_writes_makes_no_safe_method_of_a_write() {
        for (method, write) in [("GET", false), ("HEAD", false), ("PUT", true), ("POST", false)] {
            assert_eq!(is_repeatable(method, Class::Write), write, "{method}");
            assert!(is_repeatable(method, Class::Read), "{method}");
        }
    }

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
