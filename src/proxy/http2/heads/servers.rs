//! What servers that speak HTTP/2 are asked, and what they answer, as HTTP/1.1
//! says it.

use http::{HeaderValue, Method, StatusCode, Uri, header, response, uri::Scheme};

use super::{fields, push, push_fields};
use crate::http1::{Known, Request};

/// A request to a server that speaks HTTP/2.
pub(in crate::proxy::http2) fn request_parts(
    request: &Request<'_, '_>,
    scheme: Scheme,
) -> Result<http::Request<()>, http::Error> {
    let host = request
        .fields
        .values(Known::Host)
        .next()
        .unwrap_or_default();
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(host)
        .path_and_query(request.target)
        .build()?;
    let mut made = http::Request::builder()
        .method(request.method.clone())
        .uri(uri)
        .version(http::Version::HTTP_2)
        .body(())?;
    let headers = made.headers_mut();
    *headers = fields(request.fields);
    if request.takes_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    Ok(made)
}

/// The head of a response to a request of that method, as HTTP/1.1 says it,
/// and whether its body goes in chunks.
pub(in crate::proxy::http2) fn response_text(
    parts: &response::Parts,
    method: &Method,
    ended: bool,
) -> (Vec<u8>, bool) {
    let status = parts.status;
    let mut head = Vec::with_capacity(512);
    let reason = status.canonical_reason().unwrap_or_default();
    head.extend_from_slice(format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).as_bytes());
    push_fields(&mut head, &parts.headers);
    let told = parts.headers.contains_key(header::CONTENT_LENGTH);
    // Nothing is said of a body that would be there for another method.
    let bodiless = *method == Method::HEAD
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    let chunked = !told && !bodiless && !ended;
    if chunked {
        push(&mut head, b"transfer-encoding", b"chunked");
    } else if !told && !bodiless {
        push(&mut head, b"content-length", b"0");
    }
    head.extend_from_slice(b"\r\n");
    (head, chunked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::{Length, Response};

    #[test]
    fn a_request_to_a_server_is_a_whole_uri_without_fields_of_the_connection() {
        let head = b"POST /a?b HTTP/1.1\r\nhost: h:1\r\ncontent-length: 3\r\n\
            connection: te\r\nte: trailers\r\nx: y\r\n\r\n";
        let made = Request::read(head, |request| request_parts(request, Scheme::HTTPS));
        let made = made.unwrap().unwrap().unwrap();
        assert_eq!(made.uri(), "https://h:1/a?b");
        assert_eq!(made.method(), Method::POST);
        let all: Vec<_> = made
            .headers()
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_bytes()))
            .collect();
        let expected = [
            ("content-length", &b"3"[..]),
            ("x", b"y"),
            ("te", b"trailers"),
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn a_target_that_no_uri_has_is_refused_and_not_altered() {
        let head = b"GET /<a> HTTP/1.1\r\nhost: h\r\n\r\n";
        let made = Request::read(head, |request| request_parts(request, Scheme::HTTP));
        assert!(made.unwrap().unwrap().is_err());
    }

    #[test]
    fn a_response_of_a_server_says_how_long_it_is() {
        let text = |status: u16, method: &Method, length: Option<&str>, ended: bool| {
            let mut response = http::Response::builder().status(status);
            if let Some(length) = length {
                response = response.header("content-length", length);
            }
            let parts = response.body(()).unwrap().into_parts().0;
            let (text, chunked) = response_text(&parts, method, ended);
            let read = Response::read(&text, method, |response| response.length).unwrap();
            (read.unwrap(), chunked, String::from_utf8(text).unwrap())
        };
        let get = Method::GET;
        let (length, chunked, _) = text(200, &get, None, false);
        assert_eq!((length, chunked), (Length::Chunked, true));
        let (length, chunked, _) = text(200, &get, Some("5"), false);
        assert_eq!((length, chunked), (Length::Exact(5), false));
        let (length, chunked, _) = text(200, &get, None, true);
        assert_eq!((length, chunked), (Length::Exact(0), false));
        for (status, method) in [(204, &get), (304, &get), (200, &Method::HEAD)] {
            for ended in [true, false] {
                let (length, chunked, said) = text(status, method, None, ended);
                assert!(matches!(length, Length::None | Length::Exact(0)), "{said}");
                assert!(!chunked);
                assert!(!said.contains("content-length"), "{said}");
                assert!(!said.contains("transfer-encoding"), "{said}");
            }
        }
    }
}
