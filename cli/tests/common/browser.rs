//! Chromium without a window, driven over WebDriver.

#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Keys that are no characters, as WebDriver names them.
pub const ENTER: &str = "\u{e007}";
pub const ESCAPE: &str = "\u{e00c}";
pub const TAB: &str = "\u{e004}";
pub const SHIFT: char = '\u{e008}';

/// The name under which WebDriver returns elements.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

pub struct Browser {
    driver: Child,
    session: String,
    agent: ureq::Agent,
    folder: TempDir,
}

impl Browser {
    /// Opens a window of this size. Nothing is kept of it.
    ///
    /// # Panics
    /// If `chromedriver` or Chromium is missing.
    pub fn open(width: u32, height: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut driver = Command::new("chromedriver");
        // Its profile and sockets go with the folder.
        driver
            .env("TMPDIR", folder.path())
            .args(["--port=0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut driver = driver.spawn().expect("chromedriver: install Debian's chromium-driver");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.find_map(|line| {
            let line = line.unwrap();
            Some(line.split_once("successfully on port ")?.1.trim_end_matches('.').to_owned())
        });
        let port = port.expect("chromedriver says its port");
        // What it writes later must not fill the pipe.
        thread::spawn(move || lines.for_each(drop));

        let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None);
        let agent = config.timeout_global(Some(PATIENCE)).build().new_agent();
        let downloads = folder.path().join("downloads");
        let arguments = [
            "--headless=new".to_owned(),
            // Tests may run as root, where the sandbox does not start.
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--no-proxy-server".to_owned(),
            "--accept-lang=en-US".to_owned(),
            format!("--window-size={width},{height}"),
        ];
        let options =
            json!({ "args": arguments, "prefs": { "download.default_directory": downloads } });
        let capabilities =
            json!({ "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" } });
        let mut browser =
            Self { driver, session: format!("http://127.0.0.1:{port}/session"), agent, folder };
        let created = browser.post("", &json!({ "capabilities": { "alwaysMatch": capabilities } }));
        browser.session = format!("{}/{}", browser.session, created["sessionId"].as_str().unwrap());
        browser.resize(width, height);
        browser
    }

    /// Changes the size of the page.
    pub fn resize(&self, width: u32, height: u32) {
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
    }

    pub fn go(&self, url: &str) {
        self.post("/url", &json!({ "url": url }));
    }

    pub fn reload(&self) {
        self.post("/refresh", &json!({}));
    }

    /// What a function with this body returns; promises are waited for.
    pub fn run(&self, script: &str) -> Value {
        self.run_with(script, &json!([]))
    }

    /// The same with a list of arguments.
    pub fn run_with(&self, script: &str, arguments: &Value) -> Value {
        let script = format!("return (async function () {{ {script} }}).apply(null, arguments)");
        self.post("/execute/sync", &json!({ "script": script, "args": arguments }))
    }

    /// Runs a script in every page that is opened from now on, before the page's own.
    pub fn before_pages(&self, script: &str) {
        self.devtools("Page.addScriptToEvaluateOnNewDocument", &json!({ "source": script }));
    }

    /// A command of Chromium's own protocol.
    pub fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.post("/goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    /// Waits until an expression is true.
    ///
    /// # Panics
    /// If it does not become true.
    #[track_caller]
    pub fn wait(&self, expression: &str) {
        let start = Instant::now();
        // An element that is not there yet is null.
        let script = format!("try {{ return Boolean({expression}) }} catch {{ return false }}");
        while self.run(&script) != json!(true) {
            if start.elapsed() > PATIENCE {
                panic!("never true: {expression}\n{}", self.text("body"));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The text that is shown in the first element of a selector.
    pub fn text(&self, selector: &str) -> String {
        let script = "return document.querySelector(arguments[0])?.innerText ?? null";
        let text = self.run_with(script, &json!([selector]));
        text.as_str().unwrap_or_else(|| panic!("no {selector}")).to_owned()
    }

    /// How many elements a selector has.
    pub fn count(&self, selector: &str) -> u64 {
        let script = "return document.querySelectorAll(arguments[0]).length";
        self.run_with(script, &json!([selector])).as_u64().unwrap()
    }

    /// Clicks the first element of a selector where the user would; it must be visible.
    #[track_caller]
    pub fn click(&self, selector: &str) {
        self.post(&format!("/element/{}/click", self.element(selector)), &json!({}));
    }

    /// Types into the first element of a selector, or chooses a file.
    #[track_caller]
    pub fn type_into(&self, selector: &str, text: &str) {
        self.post(&format!("/element/{}/value", self.element(selector)), &json!({ "text": text }));
    }

    /// Presses keys one after the other, wherever the focus is.
    pub fn keys(&self, keys: &str) {
        self.press(keys.chars().flat_map(|key| {
            let key = key.to_string();
            [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })]
        }));
    }

    /// Presses a key while another is held.
    pub fn chord(&self, held: char, key: &str) {
        let action = |kind: &str, key: &str| json!({ "type": kind, "value": key });
        let held = held.to_string();
        self.press([
            action("keyDown", &held),
            action("keyDown", key),
            action("keyUp", key),
            action("keyUp", &held),
        ]);
    }

    fn press(&self, actions: impl IntoIterator<Item = Value>) {
        let actions: Vec<Value> = actions.into_iter().collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": actions });
        self.post("/actions", &json!({ "actions": [keyboard] }));
    }

    /// The name and the role of an element for screen readers.
    pub fn name_and_role(&self, element: &Value) -> (String, String) {
        let id = element[ELEMENT].as_str().unwrap();
        let get =
            |what: &str| self.get(&format!("/element/{id}/{what}")).as_str().unwrap().to_owned();
        (get("computedlabel"), get("computedrole"))
    }

    /// What the console of the browser has shown since the last call.
    pub fn console(&self) -> Vec<String> {
        let log = self.post("/se/log", &json!({ "type": "browser" }));
        let message = |entry: &Value| entry["message"].as_str().unwrap().to_owned();
        log.as_array().unwrap().iter().map(message).collect()
    }

    /// The file that was downloaded last, once it is there.
    pub fn download(&self) -> PathBuf {
        let start = Instant::now();
        loop {
            let files = std::fs::read_dir(self.folder.path().join("downloads"));
            let mut files = files.into_iter().flatten().map(|entry| entry.unwrap().path());
            if let Some(file) =
                files.find(|path| path.extension().is_some_and(|kind| kind == "json"))
            {
                return file;
            }
            assert!(start.elapsed() < PATIENCE, "nothing was downloaded");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// A picture of the page as PNG in base64.
    pub fn picture(&self) -> String {
        self.get("/screenshot").as_str().unwrap().to_owned()
    }

    #[track_caller]
    fn element(&self, selector: &str) -> String {
        let found = self.post("/element", &json!({ "using": "css selector", "value": selector }));
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    fn get(&self, path: &str) -> Value {
        value(self.agent.get(format!("{}{path}", self.session)).call())
    }

    #[track_caller]
    fn post(&self, path: &str, body: &Value) -> Value {
        let request =
            self.agent.post(format!("{}{path}", self.session)).content_type("application/json");
        value(request.send(body.to_string()))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends Chromium. If it hangs, the end of the driver ends it.
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// The value of an answer.
///
/// # Panics
/// If it is an error.
#[track_caller]
fn value(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Value {
    let mut answer = answer.expect("chromedriver answers");
    let json = answer.body_mut().with_config().limit(64 << 20).read_to_string().unwrap();
    let mut json: Value = serde_json::from_str(&json).unwrap();
    assert!(answer.status().is_success(), "{}", json["value"]["message"]);
    json["value"].take()
}
