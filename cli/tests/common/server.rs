//! A running `glm serve`, and a client that sends it any bytes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{isolated, talker};

/// Longer than anything takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A server, of the demonstration model unless told. Dropping it ends it.
pub struct Server {
    child: Child,
    address: SocketAddr,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    _home: TempDir,
}

/// A response.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The JSON of a response that succeeded.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }

    /// The error of a response, in OpenAI's shape.
    #[track_caller]
    pub fn error(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        let json = self.json();
        let error = &json["error"];
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{json}");
        assert!(error["type"].is_string() && error.get("param").is_some(), "{json}");
        error.clone()
    }

    /// The values of events, without the last, which says that it is over.
    #[track_caller]
    pub fn events(&self) -> Vec<Value> {
        assert_eq!(self.header("content-type"), Some("text/event-stream"), "{self:?}");
        let data = self.body.lines().filter_map(|line| line.strip_prefix("data: "));
        let mut data: Vec<_> = data.collect();
        assert_eq!(data.pop(), Some("[DONE]"), "{self:?}");
        data.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
    }
}

impl Server {
    /// Starts with these flags, and waits until it serves.
    pub fn start(words: &[&str]) -> Self {
        Self::start_with(words, &[])
    }

    pub fn start_with(words: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::of(&talker(), words, variables)
    }

    /// Starts with the model in this folder.
    pub fn of(model: &str, words: &[&str], variables: &[(&str, &str)]) -> Self {
        let home = TempDir::new().unwrap();
        let mut command = isolated(home.path());
        command.args(["serve", "-m", model, "--port", "0"]).args(words);
        command.env_remove("GLM_API_KEY").env("LC_ALL", "C").envs(variables.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let (mut said, mut line) = (String::new(), String::new());
        let address = loop {
            line.clear();
            let length = stderr.read_line(&mut line).unwrap();
            assert!(length > 0, "the server has ended: {said}");
            said += &line;
            if let Some((_, address)) = line.split_once("served at http://") {
                break address.trim().parse().unwrap();
            }
        };
        let log = Arc::new(Mutex::new(said));
        let written = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let mut log = written.lock().unwrap_or_else(PoisonError::into_inner);
                *log += &line;
                log.push('\n');
            }
        });
        let server = Self { child, address, log, reader: Some(reader), _home: home };
        server.wait_for("to be ready", || server.get("/health").status == 200);
        server
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the server has written to stderr.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    #[track_caller]
    pub fn wait_for(&self, what: &str, is_so: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < end, "waited for {what}: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends these bytes and reads until the server closes the connection.
    pub fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // The server may have answered and closed before it has read all.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// A request with these headers.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let request = self.request(method, path, headers, body);
        parse(&self.raw(request.as_bytes()))
    }

    /// The bytes of a request on a connection of its own.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> String {
        let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "host") {
            head += &format!("host: {}\r\n", self.address);
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        format!("{head}content-length: {}\r\n\r\n{body}", body.len())
    }

    pub fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], "")
    }

    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, &[], &body.to_string())
    }

    /// A chat with this question and these other fields.
    pub fn chat(&self, question: &str, fields: Value) -> Reply {
        self.post("/v1/chat/completions", &chat(question, fields))
    }

    /// Sends a request and reads the beginning of its response, up to this text.
    pub fn begin(&self, path: &str, body: &Value, until: &str) -> BufReader<TcpStream> {
        let mut stream = self.connect();
        stream.write_all(self.request("POST", path, &[], &body.to_string()).as_bytes()).unwrap();
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        while !line.contains(until) {
            line.clear();
            assert!(reader.read_line(&mut line).unwrap() > 0, "no {until} in the response");
        }
        reader
    }

    /// A number of `/metrics`.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").body;
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        lines
            .find(|(key, _)| *key == name)
            .unwrap_or_else(|| panic!("{name}: {text}"))
            .1
            .parse()
            .unwrap()
    }

    /// The number of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that the server has had, in bytes; known on Linux.
    pub fn most_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let done = std::process::Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(done.unwrap().success());
    }

    /// The exit code and all that was written, once the server has ended.
    pub fn ended(mut self) -> (Option<i32>, String) {
        let end = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < end, "the server goes on: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        };
        self.reader.take().unwrap().join().unwrap();
        (status.code(), self.log())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The body of a chat with this question and these other fields.
pub fn chat(question: &str, mut fields: Value) -> Value {
    fields["messages"] = json!([{ "role": "user", "content": question }]);
    fields
}

/// The rest of a response whose beginning was read.
pub fn rest(mut reader: BufReader<TcpStream>) -> String {
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    rest
}

#[track_caller]
pub fn parse(response: &str) -> Reply {
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{response:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("{head:?}"));
    let is_chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    let body = if is_chunked { unchunked(body) } else { body.to_owned() };
    Reply { status, head: head.to_owned(), body }
}

/// The contents of a body in chunks, as far as it came.
fn unchunked(mut body: &str) -> String {
    let mut whole = Vec::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        let (Some(chunk), Some(next)) = (rest.get(..length), rest.get(length + 2..)) else { break };
        whole.extend_from_slice(chunk.as_bytes());
        body = next;
    }
    String::from_utf8(whole).unwrap()
}

/// A `response_format` for JSON with a `city` of two and whether it is `hot`.
pub fn weather_format() -> Value {
    let schema = json!({
        "type": "object",
        "properties": { "city": { "enum": ["北京", "上海"] }, "hot": { "type": "boolean" } },
        "required": ["city", "hot"],
        "additionalProperties": false,
    });
    json!({ "type": "json_schema", "json_schema": { "name": "weather", "schema": schema } })
}
