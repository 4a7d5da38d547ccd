//! `glm batch`: files of requests and answers, with the demonstration model.
#![cfg(unix)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{glm, isolated, refusal, stderr, stdout, talker, text};
use serde_json::{Value, json};
use tempfile::TempDir;

const QUESTIONS: [&str; 5] = ["你好", "3加5等于几？", "谢谢", "hello", "你是谁？"];

/// Bytes of keys and values of 128 tokens of the demonstration model.
const ONE_PAGE: &str = "1000000";

/// A chat with a seed.
fn request(id: &str, question: &str, seed: u64, most: usize) -> Value {
    json!({ "custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": {
        "messages": [{ "role": "user", "content": question }],
        "seed": seed, "max_tokens": most, "temperature": 0.9,
    } })
}

/// So many chats. Those that ignore the end of the answer take long.
fn requests(count: usize, most: usize, is_long: bool) -> Vec<Value> {
    let request = |index: usize| {
        let question = QUESTIONS[index % QUESTIONS.len()];
        let most = 1 + (most + 7 * index) % most.max(2);
        let mut request = request(&format!("id-{index}"), question, index as u64, most);
        request["body"]["ignore_eos"] = is_long.into();
        request
    };
    (0..count).map(request).collect()
}

struct Files {
    dir: TempDir,
    input: PathBuf,
    output: PathBuf,
}

impl Files {
    fn new(requests: &[Value]) -> Self {
        let lines: String = requests.iter().map(|request| format!("{request}\n")).collect();
        Self::with(lines.as_bytes())
    }

    fn with(input: &[u8]) -> Self {
        let dir = TempDir::new().unwrap();
        let (name, output) = (dir.path().join("in.jsonl"), dir.path().join("out.jsonl"));
        fs::write(&name, input).unwrap();
        Self { dir, input: name, output }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = isolated(self.dir.path());
        command.args(["batch", "-m", &talker(), "--threads", "1"]).args(words);
        command.arg(&self.input).arg(&self.output).env("LC_ALL", "C");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    #[track_caller]
    fn succeed(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    }

    fn answers(&self) -> Vec<Value> {
        answers(&self.output)
    }
}

fn answers(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn name(answer: &Value) -> String {
    answer["custom_id"].as_str().unwrap().to_owned()
}

fn said(answer: &Value) -> String {
    assert_eq!(answer["response"]["status_code"], 200, "{answer}");
    assert!(answer["error"].is_null());
    answer["response"]["body"]["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

/// The text of each answer. Each is there once.
#[track_caller]
fn texts(answers: &[Value]) -> BTreeMap<String, String> {
    let texts: BTreeMap<_, _> = answers.iter().map(|a| (name(a), said(a))).collect();
    assert_eq!(texts.len(), answers.len(), "an answer is there twice");
    texts
}

#[test]
fn texts_are_those_of_a_chat() {
    let files = Files::new(&requests(5, 40, false));
    let said = files.succeed(&[]);
    assert!(said.contains("5 requests answered, 0 of them with an error"), "{said}");
    let texts = texts(&files.answers());
    for (index, request) in requests(5, 40, false).iter().enumerate() {
        let most = request["body"]["max_tokens"].to_string();
        let seed = index.to_string();
        let words = ["chat", "-m", &talker(), "--messages", "-", "--seed", &seed];
        let words = [&words[..], &["--temperature", "0.9", "--max-new-tokens", &most]].concat();
        let messages = request["body"]["messages"].to_string();
        let alone = glm(&words).write_stdin(messages).output().unwrap();
        assert!(alone.status.success(), "{}", stderr(&alone));
        assert_eq!(stdout(&alone).trim_end(), texts[&format!("id-{index}")], "{index}");
    }
}

#[test]
fn order_is_kept_if_asked_for() {
    let files = Files::new(&requests(30, 60, true));
    files.succeed(&["--max-sequences", "4"]);
    let as_they_end: Vec<_> = files.answers().iter().map(name).collect();
    let undisturbed = texts(&files.answers());
    files.succeed(&["--max-sequences", "4", "--restart", "--order"]);
    let ordered: Vec<_> = files.answers().iter().map(name).collect();
    let expected: Vec<_> = (0..30).map(|index| format!("id-{index}")).collect();
    assert_eq!(ordered, expected);
    assert_ne!(as_they_end, expected);
    assert_eq!(texts(&files.answers()), undisturbed);
}

#[test]
fn a_killed_command_goes_on() {
    let requests = requests(40, 120, true);
    let (whole, files) = (Files::new(&requests), Files::new(&requests));
    whole.succeed(&[]);
    let mut kills = 0;
    // Times that differ from run to run.
    let mut wait = std::process::id() % 97;
    for round in 0..15 {
        let words = [&["--max-sequences", "3"][..], &["--max-sequences", "2", "--order"]];
        let mut child = files.command(words[round % 2]).spawn().unwrap();
        wait = (wait * 37 + 11) % 97;
        let before = fs::metadata(&files.output).map_or(0, |file| file.len());
        let end = Instant::now() + Duration::from_secs(60);
        // At a random time, mostly once it has written something.
        while round % 3 > 0
            && fs::metadata(&files.output).map_or(0, |file| file.len()) <= before
            && child.try_wait().unwrap().is_none()
        {
            assert!(Instant::now() < end);
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_millis(wait.into()));
        child.kill().unwrap();
        kills += u32::from(!child.wait().unwrap().success());
        // As if the system had lost a part of a line.
        let length = fs::metadata(&files.output).map_or(0, |file| file.len());
        if round == 4 && length > 5 {
            let file = fs::File::options().write(true).open(&files.output).unwrap();
            file.set_len(length - 5).unwrap();
        }
    }
    assert!(kills > 2, "{kills}");
    files.succeed(&["--max-sequences", "5"]);
    assert_eq!(texts(&files.answers()), texts(&whole.answers()));
    let said = files.succeed(&[]);
    assert!(said.contains("40 of 40 requests are answered already"), "{said}");
    assert_eq!(files.answers().len(), 40);
}

/// Too little memory passes, and a wrong request does not.
#[test]
fn what_failed_for_lack_of_memory_is_tried_again() {
    let mut requests = requests(6, 8, false);
    requests[1] = request("long", &"很长".repeat(70), 1, 8);
    requests[3]["body"]["temperature"] = "hot".into();
    requests[4] = request("longer", &"很长".repeat(100), 1, 8);
    let (whole, files) = (Files::new(&requests), Files::new(&requests));
    whole.succeed(&[]);
    let statuses = |answers: &[Value]| -> Vec<_> {
        let status = |answer: &Value| answer["response"]["status_code"].as_u64().unwrap();
        answers.iter().map(status).collect()
    };
    // One page of keys and values: the others need two.
    let short = |words: &[&str]| {
        let output = files.run(&[&["--kv-memory", ONE_PAGE], words].concat());
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        let said = stderr(&output);
        assert!(said.contains("may succeed later: 2; the same command tries them again"), "{said}");
        let answers = files.answers();
        assert_eq!(statuses(&answers), [200, 200, 400, 200, 503, 503], "{answers:?}");
        assert_eq!((name(&answers[4]), name(&answers[5])), ("long".into(), "longer".into()));
        let problem = &answers[4]["response"]["body"]["error"];
        assert!(problem["message"].as_str().unwrap().contains("keys and values need"), "{problem}");
        said
    };
    short(&["--order"]);
    let said = short(&["--order"]);
    assert!(said.contains("4 of 6 requests are answered already"), "{said}");
    assert!(said.contains("requests that failed and are tried again: 2"), "{said}");
    files.succeed(&[]);
    let sorted = |mut answers: Vec<Value>| {
        for answer in &mut answers {
            answer["id"].take();
            answer["response"].as_object_mut().unwrap().remove("request_id");
            for field in ["id", "created"] {
                answer["response"]["body"][field].take();
            }
        }
        answers.sort_by_key(name);
        answers
    };
    assert_eq!(sorted(files.answers()), sorted(whole.answers()));
}

/// A higher flag answers them. No flag is high enough for the last.
#[test]
fn more_answers_than_the_flag_allows_are_tried_again() {
    let mut requests = requests(3, 8, false);
    requests[0]["body"]["n"] = 3.into();
    requests[2]["body"]["n"] = 2000.into();
    let files = Files::new(&requests);
    let output = files.run(&["--max-sequences", "2"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("may succeed later: 1; the same command tries them again"), "{said}");
    let answers = files.answers();
    assert_eq!(name(&answers[2]), "id-0");
    let error = &answers[2]["response"]["body"]["error"];
    assert_eq!((&error["code"], &error["param"]), (&"too_many_answers".into(), &"n".into()));
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("at most 2: start glm with a larger --max-sequences"),
        "{error}"
    );
    let said = files.succeed(&["--max-sequences", "3"]);
    assert!(said.contains("2 of 3 requests are answered already"), "{said}");
    let answers = files.answers();
    assert_eq!(answers[2]["response"]["body"]["choices"].as_array().unwrap().len(), 3);
    let last = answers.iter().find(|answer| name(answer) == "id-2").unwrap();
    assert_eq!(last["response"]["status_code"], 400);
}

#[test]
fn signals_end_it_between_lines() {
    let files = Files::new(&requests(40, 120, true));
    for signal in ["-INT", "-TERM"] {
        let child = files.command(&["--max-sequences", "2"]).spawn().unwrap();
        let before = fs::metadata(&files.output).map_or(0, |file| file.len());
        let end = Instant::now() + Duration::from_secs(60);
        while fs::metadata(&files.output).map_or(0, |file| file.len()) <= before {
            assert!(Instant::now() < end);
            std::thread::sleep(Duration::from_millis(5));
        }
        let pid = child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{signal}: {}", stderr(&output));
        let said = stderr(&output);
        assert!(said.contains("of 40 requests are answered; the same command goes on"), "{said}");
        texts(&files.answers());
    }
    files.succeed(&[]);
    assert_eq!(texts(&files.answers()).len(), 40);
}

#[test]
fn shards_are_disjoint_and_complete() {
    let files = Files::new(&requests(11, 20, false));
    files.succeed(&[]);
    let whole = texts(&files.answers());
    let mut together = BTreeMap::new();
    for shard in ["1/3", "2/3", "3/3"] {
        let part = Files { output: files.dir.path().join(&shard[..1]), ..Files::with(b"") };
        let part = Files { input: files.input.clone(), ..part };
        part.succeed(&["--shard", shard]);
        let part = texts(&part.answers());
        assert!((3..=4).contains(&part.len()));
        part.into_iter().for_each(|(name, text)| {
            assert!(together.insert(name, text).is_none());
        });
    }
    assert_eq!(together, whole);
    // The answers of one shard are not those of another.
    let other = Files { output: files.dir.path().join("1"), ..Files::with(b"") };
    let other = Files { input: files.input.clone(), ..other };
    let output = other.run(&["--shard", "2/3"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--restart"), "{}", stderr(&output));
}

#[test]
fn wrong_lines_are_answered_with_errors() {
    let good = request("good", "你好", 1, 8);
    let mut unknown = request("unknown", "你好", 1, 8);
    unknown["body"]["model"] = "gpt-4o".into();
    let mut hot = request("hot", "你好", 1, 8);
    hot["body"]["temperature"] = "hot".into();
    let mut url = request("url", "你好", 1, 8);
    url["url"] = "/v1/embeddings".into();
    let long = request("long", &"很长".repeat(40_000), 1, 8);
    let completion = json!({ "custom_id": "text", "method": "POST", "url": "/v1/completions",
        "body": { "prompt": ["你好", "谢谢"], "n": 2, "max_tokens": 4, "seed": 3 } });
    let mut input = b"{\"custom_id\": \"no UTF-8: \xff\"}\r\n".to_vec();
    let lines = format!("not json\n\n{unknown}\n{hot}\n{url}\n{long}\n[1]\n{completion}\n");
    input.extend(lines.into_bytes());
    let huge = "a".repeat(21 << 20);
    input.extend(format!("{{\"custom_id\":\"huge\",\"x\":\"{huge}\"}}\n{good}").into_bytes());
    let files = Files::with(&input);
    let said = files.succeed(&["--order"]);
    assert!(said.contains("10 requests answered, 8 of them with an error"), "{said}");
    let answers = files.answers();
    assert_eq!(answers.len(), 10);
    let statuses: Vec<_> =
        answers.iter().map(|answer| answer["response"]["status_code"].as_u64()).collect();
    let expected =
        [None, None, Some(404), Some(400), None, Some(400), None, Some(200), None, Some(200)];
    assert_eq!(statuses, expected, "{answers:?}");
    for answer in &answers {
        assert!(answer["id"].as_str().unwrap().starts_with("batch_req_"));
        if answer["response"].is_null() {
            assert_eq!(answer["error"]["code"], "invalid_line");
        } else if answer["response"]["status_code"] != 200 {
            let error = &answer["response"]["body"]["error"];
            assert!(!error["message"].as_str().unwrap().is_empty(), "{answer}");
        }
    }
    assert_eq!(answers[5]["response"]["body"]["error"]["code"], "context_length_exceeded");
    assert_eq!(answers[7]["response"]["body"]["choices"].as_array().unwrap().len(), 4);
    // All of them are done.
    let said = files.succeed(&["--order"]);
    assert!(said.contains("10 of 10 requests are answered already"), "{said}");
    assert_eq!(files.answers(), answers);
}

#[test]
fn the_same_id_twice_is_refused_before_anything_runs() {
    let files = Files::new(&[
        request("a", "你好", 1, 8),
        request("b", "你好", 1, 8),
        request("a", "谢谢", 1, 8),
    ]);
    let output = files.run(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("the lines 1 and 3 have the same custom_id a"));
    assert!(!files.output.exists());
}

#[test]
fn answers_to_other_requests_are_not_touched() {
    let files = Files::new(&requests(3, 8, false));
    files.succeed(&[]);
    let before = fs::read(&files.output).unwrap();
    let refused = |input: &[Value], words: &[&str]| {
        let lines: String = input.iter().map(|request| format!("{request}\n")).collect();
        fs::write(&files.input, lines).unwrap();
        let output = files.run(words);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(stderr(&output).contains("--restart"), "{}", stderr(&output));
        assert_eq!(fs::read(&files.output).unwrap(), before);
    };
    refused(&requests(2, 8, false), &[]);
    refused(&[request("id-0", "other", 0, 8)], &[]);
    // Other flags that change the text.
    refused(&requests(3, 8, false), &["--context", "300"]);
    refused(&requests(3, 8, false), &["--kv", "int8"]);
    refused(&requests(3, 8, false), &["--alias", "gpt-4o"]);
    // Another file.
    fs::write(&files.output, "a letter").unwrap();
    let output = files.run(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(fs::read(&files.output).unwrap(), b"a letter");
    files.succeed(&["--restart"]);
    assert_eq!(files.answers().len(), 3);
    // More requests behind the others.
    let more: String = requests(5, 8, false).iter().map(|request| format!("{request}\n")).collect();
    fs::write(&files.input, more).unwrap();
    files.succeed(&[]);
    assert_eq!(texts(&files.answers()).len(), 5);
}

#[test]
fn a_full_disk_leaves_whole_lines() {
    let files = Files::new(&requests(20, 30, true));
    let glm = files.command(&["--max-sequences", "3"]);
    let mut shell = Command::new("sh");
    // Two blocks of 512 or 1024 bytes. Without the signal, writing fails as on a full disk.
    shell.args(["-c", "trap '' XFSZ; ulimit -f 2; exec \"$@\"", "sh"]).arg(glm.get_program());
    shell.args(glm.get_args()).envs(glm.get_envs().filter_map(|(k, v)| Some((k, v?))));
    let output = shell.stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("out.jsonl: "), "{}", stderr(&output));
    let kept = texts(&files.answers());
    assert!((1..20).contains(&kept.len()), "{}", kept.len());
    files.succeed(&[]);
    let all = texts(&files.answers());
    assert!(all.len() == 20 && kept.iter().all(|(name, text)| all[name] == *text));
    let full = Files { output: "/dev/full".into(), ..Files::new(&requests(1, 8, false)) };
    assert_eq!(full.run(&[]).status.code(), Some(1));
}

#[test]
fn pipes_are_read_and_written() {
    let input: String =
        requests(4, 8, false).iter().map(|request| format!("{request}\n")).collect();
    let output =
        glm(&["batch", "-m", &talker(), "-", "-"]).write_stdin(input.as_bytes()).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let names: BTreeSet<_> =
        stdout(&output).lines().map(|line| name(&serde_json::from_str(line).unwrap())).collect();
    assert_eq!(names.len(), 4);
    // The same under its name.
    let output = Files { output: "/dev/stdout".into(), ..Files::with(input.as_bytes()) };
    let output = output.command(&[]).stdout(Stdio::piped()).output().unwrap();
    assert_eq!(stdout(&output).lines().count(), 4, "{}", stderr(&output));
}

#[test]
fn wrong_usage_is_explained() {
    for (words, code) in
        [(["--shard", "0/2"], 2), (["--shard", "x"], 2), (["--max-sequences", "0"], 2)]
    {
        refusal(&[&["batch", "in", "out"], &words[..]].concat(), code);
    }
    assert!(refusal(&["batch", "/nowhere/in", "out"], 1).contains("/nowhere/in"));
    let files = Files::new(&requests(1, 8, false));
    let input = text(&files.input);
    let said = refusal(&["batch", "-m", &talker(), &input, &input], 1);
    assert!(said.contains("both input and output"), "{said}");
    let other = text(&files.dir.path().join("link.jsonl"));
    fs::hard_link(&input, &other).unwrap();
    let said = refusal(&["batch", "-m", &talker(), "--restart", &input, &other], 1);
    assert!(said.contains("both input and output"), "{said}");
    let mut command = isolated(files.dir.path());
    command.args(["batch", "-m", &talker(), "--restart", "-", &other]).env("LC_ALL", "C");
    let output = command.stdin(fs::File::open(&input).unwrap()).output().unwrap();
    assert!(stderr(&output).contains("both input and output"), "{}", stderr(&output));
    assert!(fs::read_to_string(&input).unwrap().contains("custom_id"));
    // The output is checked before the model is opened.
    let folder = text(files.dir.path());
    for (output, problem) in [("/nowhere/out", "/nowhere"), (&*folder, "no regular file")] {
        let said = refusal(&["batch", "-m", "no-model", &input, output], 1);
        assert!(said.contains(problem), "{said}");
    }
}
