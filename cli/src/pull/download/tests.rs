use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, io};

use super::super::hub::Hash;
use super::super::stop::Stop;
use super::*;

/// A server that gives each connection the next answer and then is silent for a second. Returns the URL of a file.
fn serve(answers: Vec<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/file", listener.local_addr().unwrap());
    thread::spawn(move || -> io::Result<()> {
        for answer in answers {
            let (mut stream, _) = listener.accept()?;
            let lines = BufReader::new(stream.try_clone()?).lines();
            for line in lines {
                if line?.is_empty() {
                    break;
                }
            }
            stream.write_all(answer.as_bytes())?;
            thread::spawn(move || {
                thread::sleep(Duration::from_secs(1));
                drop(stream);
            });
        }
        Ok(())
    });
    url
}

/// The file `hello\n`.
fn hello(url: String) -> RemoteFile {
    let hash = Hash::GitSha1("ce013625030ba8dba906f756967f9e9ca394464a".into());
    RemoteFile { path: "a".into(), size: 6, hash, url }
}

fn impatient(stop: Stop) -> Downloader {
    let mut http = Http::new(stop);
    http.stalled = Duration::from_millis(200);
    let retries = Retries { first: Duration::from_millis(1), most: 3 };
    Downloader { http, authorization: None, retries }
}

const WHOLE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n";

#[test]
fn a_stalled_connection_is_replaced() {
    let rest = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 3-5/6\r\nContent-Length: 3\r\n\r\nlo\n";
    let file = hello(serve(vec![format!("{WHOLE}hel"), rest.to_owned()]));
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("a");
    impatient(Stop::default()).fetch(&file, &target, &Progress::hidden()).unwrap();
    assert_eq!(fs::read(target).unwrap(), b"hello\n");
}

#[test]
fn tries_end_if_nothing_comes() {
    let file = hello(serve(vec![WHOLE.to_owned(); 4]));
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("a");
    let refusal = impatient(Stop::default()).fetch(&file, &target, &Progress::hidden());
    let message = crate::failure::message(&refusal.unwrap_err());
    assert!(message.contains("nothing arrived for 0.2 s"), "{message}");
    assert!(!target.exists());
}

#[test]
fn a_silent_server_does_not_hold_up_the_end() {
    let file = hello(serve(vec![format!("{WHOLE}hel")]));
    let dir = tempfile::tempdir().unwrap();
    let stop = Stop::default();
    let mut downloader = impatient(stop.clone());
    downloader.http.stalled = Duration::from_secs(60);
    let started = Instant::now();
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(200));
        stop.cancel.cancel();
    });
    let stopped = downloader.fetch(&file, &dir.path().join("a"), &Progress::hidden());
    assert!(crate::failure::is_cancelled(&stopped.unwrap_err()));
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_eq!(fs::read(dir.path().join("a.incomplete")).unwrap(), b"hel");
}

#[test]
fn ranges_are_what_was_asked_for() {
    let part =
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 1-2/6\r\nContent-Length: 2\r\n\r\nel";
    let downloader = impatient(Stop::default());
    let range =
        |answer: &str, range| downloader.range(&hello(serve(vec![answer.to_owned()])), range);
    assert_eq!(range(part, 1..3).unwrap(), b"el");
    assert_eq!(range(part, 2..2).unwrap(), b"");
    let refusal = |answer: &str, part| crate::failure::message(&range(answer, part).unwrap_err());
    let whole = format!("{WHOLE}hello\n");
    assert!(refusal(&whole, 1..3).contains("cannot send parts"));
    assert!(refusal(part, 2..4).contains("another part"));
    assert!(refusal(part, 1..2).contains("longer than 1 bytes"));
    assert!(refusal(part, 5..7).contains("no such range"));
}
