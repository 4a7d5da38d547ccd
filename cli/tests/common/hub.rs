//! A hub on this machine. It serves repositories as huggingface.co and modelscope.cn do, fails on demand, and records requests.

#![allow(dead_code, unused_imports, reason = "each test file uses its part")]

mod answer;
mod repository;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use answer::Answer;
pub use repository::{Repository, sha256};

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Ranges of headers are shorter.
const HEADERS: usize = 200_000;

/// What goes wrong with an answer.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The connection is closed after these bytes of the body.
    Cut(usize),
    /// The last byte of the body is another.
    Damage,
    /// Another status, with this line of the head if it is not empty.
    Refuse(u16, &'static str),
    /// Another body.
    Body(String),
    /// A redirection to this place.
    Redirect(String),
    /// After these bytes of the body nothing comes, until the hub is [released](Hub::release).
    Stall(usize),
    /// The whole body comes, whatever range is asked for.
    IgnoreRange,
    /// No answer: the connection is closed.
    Close,
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Request {
    /// Path and query.
    pub target: String,
    /// The first byte that is asked for, if a range is.
    pub start: Option<usize>,
    pub authorization: Option<String>,
    /// The value of `Host`.
    pub host: String,
    /// The status of the answer and the bytes of its body that were sent.
    pub status: u16,
    pub sent: usize,
}

pub struct Hub {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// A fault of requests to come.
struct Planned {
    /// What their target contains.
    part: String,
    /// Bytes that the answer has at least.
    len: usize,
    /// How many requests fail.
    times: usize,
    fault: Fault,
}

#[derive(Default)]
struct Shared {
    repositories: Mutex<HashMap<String, Repository>>,
    /// Contents of large files by their hash.
    large: Mutex<HashMap<String, Arc<Vec<u8>>>>,
    /// Where large files are.
    content_host: Mutex<String>,
    /// Names of repositories that have others now.
    renamed: Mutex<HashMap<String, String>>,
    faults: Mutex<Vec<Planned>>,
    requests: Mutex<Vec<Request>>,
    stalled: AtomicUsize,
    is_released: AtomicBool,
    is_closed: AtomicBool,
}

impl Hub {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if serving.is_closed.load(Ordering::Relaxed) {
                    break;
                }
                let shared = Arc::clone(&serving);
                // A client that goes away is no failure of the test.
                thread::spawn(move || _ = shared.serve(stream));
            }
        });
        Self { address, shared }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The same hub under another name of its host.
    pub fn other_url(&self) -> String {
        format!("http://localhost:{}", self.address.port())
    }

    /// Adds a repository, or replaces it.
    pub fn add(&self, name: &str, repository: Repository) {
        self.shared.large.lock().unwrap().extend(repository.large());
        self.shared.repositories.lock().unwrap().insert(name.to_owned(), repository);
    }

    /// Gives a repository another name. Requests for the old one are redirected.
    pub fn rename(&self, old: &str, new: &str) {
        let mut repositories = self.shared.repositories.lock().unwrap();
        let repository = repositories.remove(old).unwrap();
        repositories.insert(new.to_owned(), repository);
        self.shared.renamed.lock().unwrap().insert(old.to_owned(), new.to_owned());
    }

    /// Lets another host have the large files.
    pub fn serve_large_from(&self, other: &Hub) {
        let large = self.shared.large.lock().unwrap().clone();
        other.shared.large.lock().unwrap().extend(large);
        *self.shared.content_host.lock().unwrap() = other.other_url();
    }

    /// Lets the next `times` requests fail whose target contains `part`.
    pub fn fail(&self, part: &str, times: usize, fault: Fault) {
        let part = part.to_owned();
        self.shared.faults.lock().unwrap().push(Planned { part, len: 0, times, fault });
    }

    /// Lets all requests fail for a large file of this hash, unless they are for its headers.
    pub fn fail_whole(&self, hash: &str, fault: Fault) {
        let (part, len, times) = (hash.to_owned(), HEADERS, usize::MAX);
        self.shared.faults.lock().unwrap().push(Planned { part, len, times, fault });
    }

    /// Ends all faults.
    pub fn mend(&self) {
        self.shared.faults.lock().unwrap().clear();
    }

    /// Lets stalled answers continue, and those that would stall.
    pub fn release(&self) {
        self.shared.is_released.store(true, Ordering::Relaxed);
    }

    /// Ends all faults and lets the next stall again.
    pub fn restart(&self) {
        self.mend();
        self.shared.stalled.store(0, Ordering::Relaxed);
    }

    /// Waits until this many answers have stalled.
    pub fn wait_for_stalled(&self, count: usize) {
        let started = Instant::now();
        while self.shared.stalled.load(Ordering::Relaxed) < count {
            assert!(started.elapsed() < PATIENCE, "no answer stalls: {:?}", self.requests());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The requests that came since the last call.
    pub fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut *self.shared.requests.lock().unwrap())
    }

    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// The requests that were answered whose target contains `part`.
    pub fn downloads(&self, part: &str) -> Vec<Request> {
        let mut requests = self.requests();
        requests.retain(|request| request.target.contains(part) && request.status / 100 == 2);
        requests
    }

    /// Bytes of answers that were sent for targets that contain `part`.
    pub fn sent(&self, part: &str) -> usize {
        self.downloads(part).iter().map(|request| request.sent).sum()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Ordering::Relaxed);
        // Wakes the thread that listens.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?.take(64 << 10)).lines();
        let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
        let target = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut head = HashMap::new();
        for line in lines {
            let line = line?;
            let Some((name, value)) = line.split_once(':') else { break };
            head.insert(name.to_lowercase(), value.trim().to_owned());
        }
        if target.is_empty() {
            return Ok(());
        }
        let start = head.get("range").map(|range| {
            let range = range.strip_prefix("bytes=").unwrap();
            range.split('-').next().unwrap().parse().unwrap()
        });
        let end = head.get("range").and_then(|range| range.split('-').nth(1)?.parse().ok());
        let authorization = head.get("authorization").cloned();
        let whole = self.answer(&target, authorization.is_some(), head.get("host"));
        let part = whole.clone().cut_out(start, end);
        let fault = self.next_fault(&target, part.len());
        let answer = match &fault {
            Some(Fault::Refuse(status, line)) => Answer::refuse(*status, line),
            Some(Fault::Redirect(location)) => Answer::redirect(location),
            Some(Fault::Body(body)) => Answer::body(body.clone().into_bytes()),
            Some(Fault::IgnoreRange) => whole,
            _ => part,
        };
        let index = {
            let mut requests = self.requests.lock().unwrap();
            let host = head.get("host").cloned().unwrap_or_default();
            let status = answer.status;
            requests.push(Request { target, start, authorization, host, status, sent: 0 });
            requests.len() - 1
        };
        let is_head = first.starts_with("HEAD ");
        let sent = |more: usize| {
            // None if the test has taken the requests.
            if let Some(request) = self.requests.lock().unwrap().get_mut(index) {
                request.sent += more;
            }
        };
        answer.send(&stream, is_head, fault.as_ref(), &mut { sent }, &|| self.stall())
    }

    fn next_fault(&self, target: &str, len: usize) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let is_hit = |planned: &&mut Planned| {
            planned.times > 0 && target.contains(&planned.part) && len >= planned.len
        };
        let planned = faults.iter_mut().find(is_hit)?;
        planned.times -= 1;
        Some(planned.fault.clone())
    }

    /// Waits until the hub is released or closed.
    fn stall(&self) {
        self.stalled.fetch_add(1, Ordering::Relaxed);
        let goes_on =
            || [&self.is_released, &self.is_closed].iter().any(|it| it.load(Ordering::Relaxed));
        while !goes_on() {
            thread::sleep(Duration::from_millis(5));
        }
    }
}
