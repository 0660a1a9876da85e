//! The sticky cookie, as `HAProxy`'s `cookie NAME insert indirect nocache`:
//! the balancer sets it, reads it, and keeps it from the servers.

use cookie::Cookie;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{CACHE_CONTROL, COOKIE, SET_COOKIE},
};

/// Takes the sticky cookie out of a request: returns its value and removes
/// the pair, so that servers never see it (`indirect`).
///
/// Of several, the first counts; all are removed.
pub fn take(headers: &mut HeaderMap, name: &str) -> Option<String> {
    if !mentions(headers, COOKIE, name) {
        return None;
    }
    let mut value = None;
    let fields: Vec<HeaderValue> = headers.get_all(COOKIE).iter().cloned().collect();
    headers.remove(COOKIE);
    for field in fields {
        // What is not text is the server's business, whole.
        match field.to_str() {
            Ok(text) => {
                let rest = without(text, name, &mut value);
                if let Some(rest) = rest.and_then(|rest| HeaderValue::try_from(rest).ok()) {
                    headers.append(COOKIE, rest);
                }
            }
            Err(_) => {
                headers.append(COOKIE, field);
            }
        }
    }
    value
}

/// The cookie field without the pairs of that name, byte for byte otherwise;
/// `None` when nothing is left.
fn without(field: &str, name: &str, value: &mut Option<String>) -> Option<String> {
    let kept: Vec<&str> = field
        .split(';')
        .filter(|pair| match Cookie::parse(*pair) {
            Ok(cookie) if cookie.name() == name => {
                value.get_or_insert_with(|| cookie.value_trimmed().to_owned());
                false
            }
            _ => true,
        })
        .collect();
    let rest = kept.join(";");
    let rest = rest.trim();
    (!rest.is_empty()).then(|| rest.to_owned())
}

/// Removes a server's own cookie of that name from its response: the name is
/// the balancer's. Says whether there was one.
pub fn strip(headers: &mut HeaderMap, name: &str) -> bool {
    if !mentions(headers, SET_COOKIE, name) {
        return false;
    }
    let is_ours = |field: &HeaderValue| {
        let cookie = field
            .to_str()
            .ok()
            .and_then(|text| Cookie::parse(text).ok());
        cookie.is_some_and(|cookie| cookie.name() == name)
    };
    let fields: Vec<HeaderValue> = headers.get_all(SET_COOKIE).iter().cloned().collect();
    let all = fields.len();
    headers.remove(SET_COOKIE);
    for field in fields.into_iter().filter(|field| !is_ours(field)) {
        headers.append(SET_COOKIE, field);
    }
    headers.get_all(SET_COOKIE).iter().count() < all
}

/// Sends the user back to `server` from now on (`insert`), and keeps shared
/// caches from handing that cookie to others (`nocache`).
pub fn insert(
    headers: &mut HeaderMap,
    name: &str,
    server: &str,
    method: &Method,
    status: StatusCode,
) {
    let cookie = Cookie::build((name, server)).path("/").build().to_string();
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        headers.append(SET_COOKIE, cookie);
    }
    if cacheable(method, status) {
        headers.append(CACHE_CONTROL, HeaderValue::from_static("private"));
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

fn mentions(headers: &HeaderMap, field: http::HeaderName, name: &str) -> bool {
    let contains = |value: &HeaderValue| {
        value
            .as_bytes()
            .windows(name.len())
            .any(|window| window == name.as_bytes())
    };
    headers.get_all(field).iter().any(contains)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(cookies: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            headers.append(COOKIE, HeaderValue::try_from(*cookie).unwrap());
        }
        headers
    }

    fn all(headers: &HeaderMap, name: http::HeaderName) -> Vec<&str> {
        headers
            .get_all(name)
            .iter()
            .map(|v| v.to_str().unwrap())
            .collect()
    }

    #[test]
    fn the_cookie_is_read_and_kept_from_the_server() {
        let mut headers = request(&["NODESESSID=abc; SERVERID=s1; theme=dark"]);
        assert_eq!(take(&mut headers, "SERVERID").as_deref(), Some("s1"));
        assert_eq!(all(&headers, COOKIE), ["NODESESSID=abc; theme=dark"]);
    }

    #[test]
    fn a_cookie_header_that_becomes_empty_is_dropped() {
        let mut headers = request(&["SERVERID=s1"]);
        assert_eq!(take(&mut headers, "SERVERID").as_deref(), Some("s1"));
        assert!(!headers.contains_key(COOKIE));
    }

    #[test]
    fn of_several_the_first_counts_and_all_go() {
        let mut headers = request(&["SERVERID=s1; a=b; SERVERID=s2", "SERVERID=s3"]);
        assert_eq!(take(&mut headers, "SERVERID").as_deref(), Some("s1"));
        assert_eq!(all(&headers, COOKIE), ["a=b"]);
    }

    #[test]
    fn other_cookies_are_not_touched() {
        for cookies in [
            "XSERVERID=1; SERVERID2=s1; x=SERVERID",
            "a=\"b\\\"\"; ;;=;c",
            "",
        ] {
            let mut headers = request(&[cookies]);
            assert_eq!(take(&mut headers, "SERVERID"), None);
            assert_eq!(all(&headers, COOKIE).join(""), cookies.trim());
        }
    }

    #[test]
    fn a_quoted_value_means_the_same() {
        let mut headers = request(&["SERVERID=\"s1\""]);
        assert_eq!(take(&mut headers, "SERVERID").as_deref(), Some("s1"));
    }

    #[test]
    fn a_new_user_gets_the_cookie_and_caches_are_told() {
        let mut headers = HeaderMap::new();
        insert(&mut headers, "SERVERID", "s1", &Method::GET, StatusCode::OK);
        assert_eq!(all(&headers, SET_COOKIE), ["SERVERID=s1; Path=/"]);
        assert_eq!(all(&headers, CACHE_CONTROL), ["private"]);
    }

    #[test]
    fn a_response_that_no_cache_keeps_says_nothing_of_caches() {
        let mut headers = HeaderMap::new();
        insert(
            &mut headers,
            "SERVERID",
            "s1",
            &Method::POST,
            StatusCode::OK,
        );
        assert!(!headers.contains_key(CACHE_CONTROL));
    }

    #[test]
    fn a_servers_own_cookie_of_the_name_is_removed_and_no_other() {
        let mut headers = HeaderMap::new();
        headers.append(
            SET_COOKIE,
            HeaderValue::from_static("SERVERID=mine; Path=/x"),
        );
        headers.append(
            SET_COOKIE,
            HeaderValue::from_static("NODESESSID=1; HttpOnly"),
        );
        strip(&mut headers, "SERVERID");
        assert_eq!(all(&headers, SET_COOKIE), ["NODESESSID=1; HttpOnly"]);
    }

    proptest! {
        #[test]
        fn any_cookie_header_survives_without_our_pair(field in "[ -~]{0,80}") {
            let mut headers = request(&[&field]);
            take(&mut headers, "SERVERID");
            for left in headers.get_all(COOKIE) {
                for pair in left.to_str().unwrap().split(';') {
                    let name = Cookie::parse(pair).ok().map(|c| c.name().to_owned());
                    prop_assert_ne!(name.as_deref(), Some("SERVERID"));
                }
            }
        }
    }
}
