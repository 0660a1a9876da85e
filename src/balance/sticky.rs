//! The sticky cookie, as `HAProxy`'s `cookie NAME insert indirect nocache`:
//! the balancer sets it, reads it, and keeps it from the servers.

use std::borrow::Cow;

use cookie::Cookie;
use http::{Method, StatusCode};

/// Takes the sticky cookie out of a `Cookie` field, so that servers never see
/// it (`indirect`): gives what is left, if anything is, and puts the cookie's
/// value into `value`.
///
/// Of several, the first counts; all are removed.
pub fn take<'f>(field: &'f [u8], name: &str, value: &mut Option<String>) -> Option<Cow<'f, [u8]>> {
    // What is left, from where the first of ours stands.
    let mut rest: Option<Vec<u8>> = None;
    let mut seen = 0;
    for pair in field.split(|byte| *byte == b';') {
        match (ours(pair, name), &mut rest) {
            (Some(cookie), rest) => {
                value.get_or_insert_with(|| cookie.value_trimmed().to_owned());
                rest.get_or_insert_with(|| field.get(..seen).unwrap_or_default().to_vec());
            }
            (None, Some(rest)) => {
                // It comes with its own separator, unless it is the first now.
                if !rest.is_empty() && rest.last() != Some(&b';') {
                    rest.push(b';');
                }
                rest.extend_from_slice(pair);
            }
            (None, None) => {}
        }
        seen += pair.len() + 1;
    }
    let Some(rest) = rest else {
        return Some(field.into());
    };
    let rest = rest.trim_ascii();
    let rest = rest.strip_suffix(b";").unwrap_or(rest);
    (!rest.is_empty()).then(|| Cow::Owned(rest.to_vec()))
}

/// The pair as a cookie, if it has that name.
fn ours<'p>(pair: &'p [u8], name: &str) -> Option<Cookie<'p>> {
    // Only what may be ours is worth parsing.
    if !pair.trim_ascii_start().starts_with(name.as_bytes()) {
        return None;
    }
    let cookie = Cookie::parse(std::str::from_utf8(pair).ok()?).ok()?;
    (cookie.name() == name).then_some(cookie)
}

/// Whether a `Set-Cookie` field sets a cookie of that name: the name is the
/// balancer's.
pub fn is_ours(field: &[u8], name: &str) -> bool {
    ours(field, name).is_some()
}

/// Appends the fields that send the user back to `server` from now on
/// (`insert`), and keep shared caches from handing that to others (`nocache`).
pub fn insert(head: &mut Vec<u8>, name: &str, server: &str, method: &Method, status: StatusCode) {
    // Put together by hand: every new user gets one, and through the crate's
    // `Display` it costs four times as much.
    for part in ["set-cookie: ", name, "=", server, "; Path=/\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
    if cacheable(method, status) {
        head.extend_from_slice(b"cache-control: private\r\n");
    }
}

/// Whether a cache may store the response unless told otherwise, by `HAProxy`'s
/// reckoning (`http_ana.c`).
fn cacheable(method: &Method, status: StatusCode) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE
    ) && matches!(
        status.as_u16(),
        200 | 203 | 204 | 206 | 300 | 301 | 404 | 405 | 410 | 414 | 501
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn taken(field: &str) -> (Option<String>, Option<String>) {
        let mut value = None;
        let rest = take(field.as_bytes(), "SERVERID", &mut value);
        let rest = rest.map(|rest| String::from_utf8(rest.into_owned()).unwrap());
        (value, rest)
    }

    #[test]
    fn the_cookie_is_read_and_kept_from_the_server() {
        let (value, rest) = taken("NODESESSID=abc; SERVERID=s1; theme=dark");
        assert_eq!(value.as_deref(), Some("s1"));
        assert_eq!(rest.as_deref(), Some("NODESESSID=abc; theme=dark"));
    }

    #[test]
    fn nothing_is_left_of_a_field_that_was_all_ours() {
        assert_eq!(taken("SERVERID=s1"), (Some("s1".into()), None));
    }

    #[test]
    fn of_several_the_first_counts_and_all_go() {
        let mut value = None;
        take(b"SERVERID=s1; a=b; SERVERID=s2", "SERVERID", &mut value);
        assert_eq!(take(b"SERVERID=s3", "SERVERID", &mut value), None);
        assert_eq!(value.as_deref(), Some("s1"));
        assert_eq!(
            taken("SERVERID=s1; a=b; SERVERID=s2").1.as_deref(),
            Some("a=b")
        );
    }

    #[test]
    fn other_cookies_are_not_touched() {
        for cookies in [
            "XSERVERID=1; SERVERID2=s1; x=SERVERID",
            "a=\"b\\\"\"; ;;=;c",
            "",
        ] {
            assert_eq!(taken(cookies), (None, Some(cookies.into())));
        }
    }

    #[test]
    fn a_quoted_value_means_the_same() {
        assert_eq!(taken("SERVERID=\"s1\"").0.as_deref(), Some("s1"));
    }

    #[test]
    fn a_new_user_gets_the_cookie_and_caches_are_told() {
        for (method, told) in [
            (
                Method::GET,
                "set-cookie: SERVERID=s1; Path=/\r\ncache-control: private\r\n",
            ),
            // No cache keeps the answer to a POST.
            (Method::POST, "set-cookie: SERVERID=s1; Path=/\r\n"),
        ] {
            let mut head = Vec::new();
            insert(&mut head, "SERVERID", "s1", &method, StatusCode::OK);
            assert_eq!(String::from_utf8(head).unwrap(), told);
        }
    }

    #[test]
    fn a_servers_own_cookie_of_the_name_is_known_and_no_other() {
        assert!(is_ours(b"SERVERID=mine; Path=/x", "SERVERID"));
        assert!(!is_ours(b"NODESESSID=SERVERID; HttpOnly", "SERVERID"));
    }

    proptest! {
        #[test]
        fn any_cookie_field_survives_without_our_pair(field in "[ -~]{0,80}") {
            let (_, left) = taken(&field);
            for pair in left.unwrap_or_default().split(';') {
                let name = Cookie::parse(pair).ok().map(|c| c.name().to_owned());
                prop_assert_ne!(name.as_deref(), Some("SERVERID"));
            }
        }
    }
}
