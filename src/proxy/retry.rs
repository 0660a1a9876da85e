//! Whether a request that failed may be tried again. Pure.

use http::Method;

/// How far a failed attempt got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// Not a byte of the request was written, and the server cannot know of
    /// it; or the server has said that it did nothing with it.
    Nothing,
    /// It may have reached the server, which may have acted on it.
    Perhaps,
}

/// Whether trying again can do the same thing twice.
///
/// RFC 9110 §9.2.2: a proxy repeats by itself only what is idempotent. A body
/// that was sent in part is gone with the connection, unless the server has
/// said that it did nothing with it.
pub(super) fn may_repeat(sent: Sent, method: &Method, has_body: bool) -> bool {
    match sent {
        Sent::Nothing => true,
        Sent::Perhaps => method.is_idempotent() && !has_body,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_sent_may_always_be_tried_elsewhere() {
        assert!(may_repeat(Sent::Nothing, &Method::POST, true));
    }

    #[test]
    fn a_post_that_may_have_arrived_is_never_sent_twice() {
        assert!(!may_repeat(Sent::Perhaps, &Method::POST, false));
        assert!(!may_repeat(Sent::Perhaps, &Method::PATCH, false));
    }

    #[test]
    fn an_idempotent_request_is_repeated_unless_it_has_a_body() {
        for method in [
            Method::GET,
            Method::HEAD,
            Method::OPTIONS,
            Method::PUT,
            Method::DELETE,
        ] {
            assert!(may_repeat(Sent::Perhaps, &method, false), "{method}");
            assert!(!may_repeat(Sent::Perhaps, &method, true), "{method}");
        }
    }
}
