//! URLs of those whom this process calls by itself, such as receivers of alerts.

use http::Uri;

/// Whether `text` is an HTTP or HTTPS URL with a host and, if it names a port, one that exists. A user in it is not
/// sent by anybody, so it is none.
pub(super) fn is_url(text: &str) -> bool {
    let Ok(url) = text.parse::<Uri>() else { return false };
    let Some(authority) = url.authority().filter(|a| !a.as_str().contains('@')) else {
        return false;
    };
    let after = authority.as_str().strip_prefix(authority.host());
    let has_port = after.is_some_and(|port| port.is_empty())
        || authority.port_u16().is_some_and(|port| port > 0);
    matches!(url.scheme_str(), Some("http" | "https")) && !authority.host().is_empty() && has_port
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_host_and_a_port_that_exists() {
        for good in
            ["http://a/", "https://[::1]:8080/x?y=1", "http://10.0.0.1:65535", "http://a:1/"]
        {
            assert!(is_url(good), "{good}");
        }
        for bad in [
            "a:1",
            "ftp://a/",
            "http://",
            "http://:80/",
            "http://u:p@a/",
            "http://a:0/",
            "http://a:65536/",
            "http://[::1]:99999/",
            "http://a:/",
            "http://a:x/",
        ] {
            assert!(!is_url(bad), "{bad}");
        }
    }
}
