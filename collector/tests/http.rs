//! The HTTP client against a server that answers oddly.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the whole file is tests; the lint knows test functions only")]

mod canned;

use std::time::Duration;

use canned::{Canned, answer, json};
use collector::http::{Answer, Client, Expected, HttpError, Limits, MAX_BODY, Timeouts};
use url::Url;

async fn get(url: &str) -> Result<Answer, HttpError> {
    let timeouts = Timeouts { read: Duration::from_millis(300), ..Timeouts::default() };
    let client = Client::new(timeouts, true, Limits::new(1)).unwrap();
    let room = client.room(&Expected::new(1)).await;
    client.get(&Url::parse(url).unwrap(), "t0ken", room).await
}

fn transient(result: Result<Answer, HttpError>) -> String {
    match result {
        Err(error @ HttpError::Transient { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_compressed_answer_is_decompressed() {
    const GZIPPED: [u8; 32] = [
        31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 171, 86, 42, 75, 204, 41, 77, 85, 178, 138, 142, 173, 5, 0, 66, 234, 64, 68,
        12, 0, 0, 0,
    ];
    let server = Canned::start(|_| answer("200 OK", "Content-Encoding: gzip\r\n", &GZIPPED)).await;
    assert_eq!(get(&server.url).await.unwrap().body, br#"{"value":[]}"#);
    let server = Canned::start(|_| answer("200 OK", "Content-Encoding: gzip\r\n", &GZIPPED[..20])).await;
    assert!(transient(get(&server.url).await).contains("cut off"));
}

#[tokio::test]
async fn redirects_are_followed_within_the_origin_only() {
    let stranger = Canned::start(|_| json("200 OK", "{}")).await;
    let away = stranger.url.clone();
    let server = Canned::start(move |request| match request {
        _ if request.starts_with("GET /here") => answer("307 Temporary Redirect", "Location: /there\r\n", b""),
        _ if request.starts_with("GET /there") => json("200 OK", "{}"),
        _ if request.starts_with("GET /circle") => answer("302 Found", "Location: /circle\r\n", b""),
        _ => answer("302 Found", &format!("Location: {away}/\r\n"), b""),
    })
    .await;
    assert_eq!(get(&format!("{}/here", server.url)).await.unwrap().status, 200);
    assert_eq!(get(&format!("{}/away", server.url)).await.unwrap().status, 302);
    assert_eq!(get(&format!("{}/circle", server.url)).await.unwrap().status, 302);
    assert!(stranger.requests().is_empty());
}

#[tokio::test]
async fn a_cut_off_body_is_transient_and_names_the_call_without_its_query() {
    let server = Canned::start(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"value\":".to_vec()).await;
    let reason = transient(get(&format!("{}/a/b?token=s3cret", server.url)).await);
    assert!(reason.starts_with(&format!("GET {}/a/b: the answer was cut off", server.url)), "{reason}");
    assert!(!reason.contains("s3cret") && !reason.contains("t0ken"), "{reason}");
}

#[tokio::test]
async fn silence_and_nonsense_are_transient() {
    let server = Canned::start(|_| Vec::new()).await;
    let reason = transient(get(&server.url).await);
    assert!(reason.contains("it took too long"), "{reason}");
    let server = Canned::start(|_| b"SSH-2.0-OpenSSH_9.6\r\n\r\n".to_vec()).await;
    transient(get(&server.url).await);
}

#[tokio::test]
async fn a_body_without_end_is_not_taken() {
    let server = Canned::start(|_| answer("200 OK", "", &vec![b' '; MAX_BODY + 1])).await;
    assert!(matches!(get(&server.url).await, Err(HttpError::TooLarge { .. })));
}
