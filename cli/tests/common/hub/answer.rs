//! Answers of HTTP.

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use super::Fault;

#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    /// Lines of the head.
    head: Vec<String>,
    body: Arc<Vec<u8>>,
    /// The part of the body that is sent.
    start: usize,
    end: usize,
}

impl Answer {
    pub fn new(status: u16, head: Vec<String>, body: Arc<Vec<u8>>) -> Self {
        let end = body.len();
        Self { status, head, body, start: 0, end }
    }

    pub fn body(body: Vec<u8>) -> Self {
        Self::new(200, Vec::new(), Arc::new(body))
    }

    pub fn json(value: &serde_json::Value) -> Self {
        Self::body(value.to_string().into_bytes())
    }

    pub fn refuse(status: u16, line: &str) -> Self {
        let head = [line].iter().filter(|line| !line.is_empty()).map(ToString::to_string).collect();
        Self::new(status, head, Arc::new(b"{\"error\":\"refused\"}".to_vec()))
    }

    pub fn redirect(location: &str) -> Self {
        Self::refuse(302, &format!("Location: {location}"))
    }

    pub fn with(mut self, line: String) -> Self {
        self.head.push(line);
        self
    }

    /// Bytes that are sent.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Leaves of a body only the range that was asked for.
    pub fn cut_out(mut self, start: Option<usize>, end: Option<usize>) -> Self {
        let Some(start) = start.filter(|_| self.status == 200) else { return self };
        let len = self.body.len();
        if start >= len {
            return Self::refuse(416, &format!("Content-Range: bytes */{len}"));
        }
        (self.status, self.start) = (206, start);
        self.end = end.map_or(len, |last: usize| (last + 1).min(len));
        let range = format!("Content-Range: bytes {start}-{}/{len}", self.end - 1);
        self.with(range)
    }

    pub fn send(
        &self,
        mut stream: &TcpStream,
        is_head: bool,
        fault: Option<&Fault>,
        sent: &mut dyn FnMut(usize),
        stall: &dyn Fn(),
    ) -> io::Result<()> {
        if matches!(fault, Some(Fault::Close)) {
            return stream.shutdown(Shutdown::Both);
        }
        let mut body = self.body[self.start..self.end].to_vec();
        if let (Some(Fault::Damage), Some(last)) = (fault, body.last_mut()) {
            *last ^= 1;
        }
        let head: String = self.head.iter().map(|line| format!("{line}\r\n")).collect();
        let (status, len) = (self.status, body.len());
        write!(
            stream,
            "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {len}\r\n{head}\r\n"
        )?;
        if is_head {
            return Ok(());
        }
        let (before, after) = match fault {
            Some(Fault::Cut(bytes)) => (*bytes, None),
            Some(Fault::Stall(bytes)) => (*bytes, Some(())),
            _ => (len, None),
        };
        let (first, rest) = body.split_at(before.min(len));
        put(stream, first, sent)?;
        if after.is_some() {
            stall();
            put(stream, rest, sent)?;
        }
        stream.shutdown(Shutdown::Write)
    }
}

fn put(mut stream: &TcpStream, bytes: &[u8], sent: &mut dyn FnMut(usize)) -> io::Result<()> {
    for piece in bytes.chunks(64 << 10) {
        stream.write_all(piece)?;
        sent(piece.len());
    }
    stream.flush()
}
