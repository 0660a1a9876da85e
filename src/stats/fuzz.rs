//! What fuzz targets call, and nobody else: what comes in requests for the
//! statistics. None of it may panic, whatever the bytes are.

use http::{HeaderMap, HeaderValue, header};

use super::steer;

/// A form of the page.
pub fn form(bytes: &[u8]) {
    steer::makes_sense(bytes, "nodes");
}

/// The fields that say who sends a form: the value of each in turn.
pub fn sender(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else {
        return;
    };
    for name in ["host", "origin", "referer", "sec-fetch-site"] {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("ha:1936"));
        headers.insert(name, value.clone());
        steer::is_own(&headers);
    }
}
