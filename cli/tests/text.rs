//! What needs a tokenizer, against transcripts of the published model and tokenizer code.

mod common;

use std::fs;
use std::path::Path;

use common::{glm, json, refusal, shared, stderr, stdout, talker, text};
use serde_json::{Value, json};

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn message(role: &str, content: &Value) -> Value {
    json!({ "role": role, "content": content })
}

/// The messages of a recorded case, in each of the ways that they are recorded.
fn messages(case: &Value) -> Value {
    if case["messages"].is_array() {
        return case["messages"].clone();
    }
    let turns = case["turns"].as_array().into_iter().flatten();
    let said = turns.flat_map(|turn| [message("user", &turn[0]), message("assistant", &turn[1])]);
    let history = case["history"].as_array().into_iter().flatten().cloned();
    let role = case["role"].as_str().unwrap_or("user");
    history.chain(said).chain([message(role, &case["query"])]).collect()
}

#[test]
#[ignore = "needs the shared fixtures; .ci/run runs it"]
fn conversations_are_answered_as_by_the_published_code() {
    for model in ["chatglm-6b", "chatglm2-6b", "chatglm3-6b", "glm-4-9b-chat"] {
        let model = shared(&format!("models/e2e-{model}"));
        let dir = tempfile::tempdir().unwrap();
        let file = text(&dir.path().join("messages.json"));
        for case in read(&model.join("golden_e2e.json"))["cases"].as_array().unwrap() {
            fs::write(&file, messages(case).to_string()).unwrap();
            let words = ["chat", "-m", &text(&model), "--messages", &file, "--greedy", "--json"];
            let answer = json(&[&words[..], &["--max-new-tokens", "40"]].concat());
            let name = format!("{}: {}", model.display(), case["name"]);
            assert_eq!(answer["prompt_ids"], case["input_ids"], "{name}");
            assert_eq!(answer["ids"], case["output_ids"], "{name}");
            if case["response"].is_string() {
                assert_eq!(answer["text"], case["response"], "{name}");
            }
            let ended = case["ended_with_eos"].as_bool().or(case["ended_with_stop_id"].as_bool());
            assert_eq!(answer["finish"] == "stop", ended.unwrap(), "{name}");
        }
    }
}

#[test]
#[ignore = "needs the shared fixtures; .ci/run runs it"]
fn text_and_ids_are_those_of_the_published_tokenizer() {
    let folder = shared("tokenizers/chatglm-6b");
    let goldens = shared("tokenizer_goldens/chatglm-6b.json");
    let folder = text(&folder);
    // A few: each run reads the whole tokenizer, and the tokenizer has tests of its own.
    for case in read(&goldens)["texts"].as_array().unwrap().iter().step_by(40) {
        let written = case["text"].as_str().unwrap();
        let mut encode = glm(&["tokenize", "-m", &folder, "--stdin", "--json"]);
        let run = encode.write_stdin(written).output().unwrap();
        let encoded: Value = serde_json::from_slice(&run.stdout).unwrap();
        assert_eq!(encoded["ids"], case["ids"], "{written:?}");
        let ids = case["ids"].to_string();
        let decoded = json(&["tokenize", "-m", &folder, "--json", "--decode", &ids]);
        assert_eq!(decoded["text"], case["decoded"], "{written:?}");
    }
    let shown = stdout(&glm(&["tokenize", "-m", &folder, "你好 [MASK]"]).output().unwrap());
    assert!(shown.contains("\"你好\"") && shown.contains("130000\t[MASK]"), "{shown}");
}

#[test]
fn a_pipe_is_one_conversation() {
    let model = talker();
    let flags = ["-m", &model, "--greedy", "--max-new-tokens", "8"];
    let run = glm(&[&["chat"][..], &flags].concat()).write_stdin("Hi\n\n你好").output().unwrap();
    assert!(run.status.success());
    assert!(stderr(&run).contains("ChatGLM-6B"), "{}", stderr(&run));

    let dir = tempfile::tempdir().unwrap();
    let file = text(&dir.path().join("messages.json"));
    let mut said = Vec::new();
    let mut expected = String::new();
    for question in ["Hi", "你好"] {
        said.push(message("user", &question.into()));
        fs::write(&file, json!(said).to_string()).unwrap();
        let answer = json(&[&["chat", "--messages", &file, "--json"][..], &flags].concat());
        expected += &format!("{}\n", answer["text"].as_str().unwrap());
        said.push(message("assistant", &answer["text"]));
    }
    assert_eq!(stdout(&run), expected);
}

#[test]
fn a_conversation_that_does_not_fit_is_refused_or_loses_its_oldest_rounds() {
    let model = talker();
    let lines = "What is the capital of France?\n".repeat(6);
    let run = |overflow| {
        let words = ["chat", "-m", &model, "--greedy", "--max-new-tokens", "8", "--context", "80"];
        let mut glm = glm(&[&words[..], &["--context-overflow", overflow]].concat());
        glm.write_stdin(lines.as_str()).output().unwrap()
    };
    let refused = run("error");
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("the context holds 80"), "{}", stderr(&refused));
    let dropped = run("drop-oldest");
    assert!(dropped.status.success(), "{}", stderr(&dropped));
    assert!(
        stderr(&dropped).contains("rounds dropped at its beginning: 1"),
        "{}",
        stderr(&dropped)
    );
}

#[test]
fn a_prompt_is_an_argument_or_stdin() {
    let model = talker();
    let flags = ["generate", "-m", &model, "--greedy", "--max-new-tokens", "6"];
    let given = stdout(&glm(&[&flags[..], &["-p", "你好"]].concat()).output().unwrap());
    assert!(!given.trim().is_empty());
    for rest in [&[][..], &["-p", "-"]] {
        let mut glm = glm(&[&flags[..], rest].concat());
        assert_eq!(stdout(&glm.write_stdin("你好\n").output().unwrap()), given);
    }
    let answer = json(&[&flags[..], &["-p", "你好", "--json"]].concat());
    assert_eq!(format!("{}\n", answer["text"].as_str().unwrap()), given);
    assert_eq!((&answer["prompt_tokens"], &answer["seed"]), (&4.into(), &Value::Null));
}

#[test]
fn a_default_that_is_unusable_is_noted_where_an_answer_depends_on_it() {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(talker()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    let defaults = json!({ "temperature": -1, "top_k": "many".repeat(1000) });
    fs::write(copy.path().join("generation_config.json"), defaults.to_string()).unwrap();
    let model = text(copy.path());
    let generate = ["generate", "-m", &model, "-p", "你好", "--max-new-tokens", "1"];
    let fill = ["fill", "-m", &model, "你[MASK]", "--max-new-tokens", "1"];
    let chat = ["chat", "-m", &model, "--max-new-tokens", "1"];
    let noted = |words: &[&str]| {
        let output = glm(words).write_stdin("你好\n").output().unwrap();
        let said = stderr(&output);
        assert!(output.status.success() && said.len() < 2000, "{words:?}: {said}");
        said.matches("generation_config.json").count()
    };
    for command in [&generate[..], &fill, &chat] {
        assert_eq!(noted(command), 2, "{command:?}");
        assert_eq!(noted(&[command, &["--temperature", "1"]].concat()), 1, "{command:?}");
        assert_eq!(noted(&[command, &["--greedy"]].concat()), 0, "{command:?}");
    }
    for words in [&["info", "-m", &model][..], &["score", "-m", &model, "床前[MASK]光", "明月"]]
    {
        assert_eq!(noted(words), 0, "{words:?}");
    }
}

#[test]
fn a_stop_string_ends_the_answer_before_it() {
    let model = talker();
    let flags = ["generate", "-m", &model, "-p", "你好", "--greedy", "--json"];
    let flags = [&flags[..], &["--max-new-tokens", "20"]].concat();
    let whole = json(&flags);
    let (before, _) = whole["text"].as_str().unwrap().split_once("什么").unwrap();
    let stopped = json(&[&flags[..], &["--stop", "zzz", "--stop", "什么"]].concat());
    assert_eq!((&stopped["text"], &stopped["finish"]), (&before.into(), &"stop".into()));
}

#[test]
fn a_blank_is_filled_where_it_is() {
    let model = talker();
    for blank in ["[MASK]", "[gMASK]"] {
        let written = format!("凯旋门位于{blank}。");
        let words = ["fill", "-m", &model, &written, "--greedy", "--max-new-tokens", "6"];
        let filled = json(&[&words[..], &["--json"]].concat());
        let span = filled["spans"][0].as_str().unwrap();
        assert_eq!(filled["text"], format!("凯旋门位于{span}。"));
        assert_eq!(stdout(&glm(&words).output().unwrap()), format!("凯旋门位于{span}。\n"));
    }
    assert!(refusal(&["fill", "-m", &model, "no blank"], 1).contains("[MASK]"));
    assert!(refusal(&["fill", "-m", &model, "[MASK][gMASK]"], 1).contains("one kind"));
}

#[test]
fn a_seed_repeats_an_answer() {
    let model = talker();
    let flags = ["generate", "-m", &model, "-p", "Hi", "--max-new-tokens", "12", "--json"];
    let first = json(&flags);
    let again = json(&[&flags[..], &["--seed", &first["seed"].to_string()]].concat());
    assert_eq!(first["ids"], again["ids"]);
}

#[test]
fn the_messages_of_an_openai_request_are_answered() {
    let model = talker();
    let answer = |messages: Value| {
        let words = ["chat", "-m", &model, "--messages", "-", "--greedy", "--json"];
        let output = glm(&words).write_stdin(messages.to_string()).output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["ids"].clone()
    };
    let parts = json!([{ "type": "text", "text": "你" }, { "type": "text", "text": "好" }]);
    let request = json!({ "model": "x", "messages": [message("user", &parts)] });
    assert_eq!(answer(request), answer(json!([message("user", &"你好".into())])));
}

#[test]
fn bad_conversations_are_refused_with_a_reason() {
    let model = talker();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("messages.json");
    for (written, part) in [
        (&b"[{\"role\""[..], "JSON"),
        (b"{}", "JSON"),
        (b"[{\"role\": \"poet\", \"content\": \"\"}]", "poet"),
        (b"[{\"role\": \"assistant\", \"content\": \"\"}]", "first"),
        (b"[{\"role\": \"system\", \"content\": \"\"}]", "system"),
        (b"[]", "empty"),
        (b"[{\"role\": \"user\", \"content\": [{\"type\": \"image_url\"}]}]", "image_url"),
        (b"\xff", "UTF-8"),
    ] {
        fs::write(&file, written).unwrap();
        let said = refusal(&["chat", "-m", &model, "--messages", &text(&file), "--json"], 1);
        assert!(said.contains(part) && said.contains("messages.json"), "{said}");
    }
    fs::write(&file, vec![b' '; (16 << 20) + 1]).unwrap();
    let said = refusal(&["chat", "-m", &model, "--messages", &text(&file)], 1);
    assert!(said.contains("longer than"), "{said}");
    assert!(refusal(&["chat", "-m", &model, "--messages", "/nowhere"], 1).contains("/nowhere"));
    let run = glm(&["generate", "-m", &model]).write_stdin(&b"\xff"[..]).output().unwrap();
    assert!(stderr(&run).contains("UTF-8") && run.status.code() == Some(1));
}
