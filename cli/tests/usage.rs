//! Exit codes, and what is said about wrong usage.

mod common;

use std::fs;

use common::{glm, refusal, stderr, stdout, talker, text, tiny};

#[cfg(feature = "demo")]
#[test]
fn each_kind_of_end_has_its_code() {
    let dir = tempfile::tempdir().unwrap();
    let out = text(&dir.path().join("out"));
    let (tiny, talker) = (tiny("int4"), talker());
    let table: &[(i32, &[&str])] = &[
        (0, &["--help"]),
        (0, &["help", "chat"]),
        (0, &["--version"]),
        (0, &["info", "-m", &tiny]),
        (0, &["tokenize", ""]),
        (0, &["generate", "--greedy", "--max-new-tokens", "1", "-p", "-5"]),
        // Files and models.
        (1, &["info", "-m", "/nowhere"]),
        (1, &["generate", "-m", &tiny, "Hello"]),
        (1, &["generate", "--ids", "[99999999,301,304]"]),
        (1, &["generate", "--context", "3", "Hello"]),
        (1, &["logits", "--ids", "[5]", "--out", "/nowhere/out"]),
        // What cannot be parsed.
        (2, &["nosuch"]),
        (2, &["--nosuch"]),
        (2, &["generate", "--nosuch", "x"]),
        (2, &["generate", "--temperature", "warm", "x"]),
        (2, &["generate", "--ids", "[5,"]),
        (2, &["completions", "nosuch"]),
        (2, &["bench", "--shape", "nosuch"]),
        (2, &["chat", "--template", "nosuch"]),
        // What is missing or one too many.
        (2, &["quantize"]),
        (2, &["generate"]),
        (2, &["generate", "-p", ""]),
        (2, &["fill"]),
        (2, &["score", "x"]),
        (2, &["score", "", "x"]),
        (2, &["score", "-m", &talker, "[MASK]a[MASK]", "x"]),
        (2, &["generate", "--ids", "[]"]),
        (2, &["logits", "--ids", "[]", "--out", &out]),
        (2, &["generate", "--greedy", "--top-p", "0.5", "x"]),
        (2, &["man", "--command", "nosuch"]),
        // What is out of range.
        (2, &["generate", "--temperature", "-1", "x"]),
        (2, &["generate", "--temperature", "101", "x"]),
        (2, &["generate", "--top-p", "-0.1", "x"]),
        (2, &["generate", "--min-p", "2", "x"]),
        (2, &["generate", "--repetition-penalty", "0", "x"]),
        (2, &["generate", "--top-k", "-1", "x"]),
        (2, &["generate", "--seed", "-1", "x"]),
        (2, &["generate", "--max-new-tokens", "0", "x"]),
        (2, &["generate", "--draft", "16", "x"]),
        (2, &["generate", "--context", "0", "x"]),
        (2, &["generate", "--context", "99999", "x"]),
        (2, &["score", "--context", "0", "x", "y"]),
        (2, &["chat", "--threads", "0"]),
        (2, &["chat", "--threads", "1025"]),
        (2, &["quantize", &tiny, &out, "--bits", "5"]),
        (2, &["quantize", &tiny, &out, "--group", "48"]),
        (2, &["quantize", &tiny, &out, "--threads", "0"]),
        (2, &["quantize", &tiny, &out, "--target-bits", "4"]),
        (2, &["quantize", &tiny, &out, "--target-bits", "9"]),
        (2, &["quantize", &tiny, &out, "--target-bits", "NaN"]),
        (2, &["quantize", &tiny, &out, "--target-bits", "4.5", "--bits", "4"]),
        (2, &["quantize", &tiny, &out, "--target-bits", "4.5", "--group", "64"]),
        (2, &["quantize", &tiny, &out, "--target-bits", "4.5", "--symmetric"]),
        (2, &["quantize", &tiny, &out, "--bits", "8", "--symmetric"]),
        (2, &["bench", "--shape", "chatglm-6b", "--bits", "8", "--symmetric"]),
        (2, &["pull", "THUDM/chatglm-6b", "--quantize", "8", "--symmetric"]),
        (2, &["pull", "a/b", "--quantize", "--target-bits", "4.5"]),
        (2, &["bench", "--shape", "chatglm-6b", "--bits", "5"]),
        (2, &["bench", "--symmetric"]),
        (2, &["bench", "--prompts", "0"]),
        (2, &["bench", "--rounds", "0"]),
    ];
    for (code, words) in table {
        let output = glm(words).output().unwrap();
        assert_eq!(output.status.code(), Some(*code), "{words:?}: {}", stderr(&output));
        assert_eq!(stderr(&output).contains("error: "), *code != 0, "{words:?}");
        assert!(*code == 0 || output.stdout.is_empty(), "{words:?}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_negative_number_is_answered_with_the_range() {
    for flag in ["--seed", "--top-k"] {
        let said = refusal(&["generate", flag, "-1", "x"], 2);
        assert!(said.contains("must be a whole number, at least 0"), "{said}");
        assert!(said.contains(flag) && !said.contains("-- -1"), "{said}");
    }
    let said = refusal(&["generate", "--threads", "-1", "x"], 2);
    assert!(said.contains("from 1 to 1024"), "{said}");
}

#[test]
fn an_unknown_command_gets_fitting_advice() {
    let said = refusal(&["nosuch"], 2);
    assert!(said.contains("`nosuch`") && said.contains("`glm --help`"), "{said}");
    assert!(!said.contains("bench") && !said.contains("glm -m"), "{said}");
    assert!(refusal(&["genrate"], 2).contains("did you mean `generate`?"));
    assert!(refusal(&["THUDM/chatglm-6b"], 2).contains("glm -m THUDM/chatglm-6b"));
    let folder = tempfile::tempdir().unwrap();
    let folder = text(folder.path());
    assert!(refusal(&[&folder], 2).contains(&format!("glm -m {folder}")));
}

#[test]
fn nothing_to_answer_is_an_error_with_advice() {
    let model = talker();
    for command in ["generate", "fill"] {
        for input in ["", "\n", " \n"] {
            let output = glm(&[command, "-m", &model]).write_stdin(input).output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{command} {input:?}");
            let said = stderr(&output);
            assert!(said.contains("empty") && said.contains(&format!("glm {command} ")), "{said}");
        }
    }
    let said = refusal(&["score", "-m", &model, "1+1=?"], 2);
    assert!(said.contains("on stdin"), "{said}");
}

#[test]
fn answers_are_scored_in_one_blank() {
    let words = ["score", "-m", &talker(), "床前[MASK]光，疑是地上[MASK]。", "明月"];
    let said = refusal(&words, 2);
    assert!(said.contains("2 blanks") && said.contains("scored in one"), "{said}");
}

#[test]
fn logits_go_to_stdout_if_that_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("logits");
    let model = tiny("int4");
    let words = ["logits", "-m", &model, "--ids", "[5,6,301,304]", "--out"];
    let run = |out: &str| {
        let output = glm(&[&words[..], &[out]].concat()).current_dir(dir.path()).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        output.stdout
    };
    assert!(run(&text(&file)).is_empty());
    assert_eq!(run("-"), fs::read(&file).unwrap());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no file is called -");
}

#[test]
fn the_language_of_errors_is_that_of_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let folder = text(folder.path());
    let chinese: &[(i32, &[&str], &str)] = &[
        (2, &["nosuch"], "没有 `nosuch` 这个命令"),
        (2, &["generate", "--seed", "-1", "x"], "必须是不小于 0 的整数"),
        (2, &["generate", "--temperature", "200", "x"], "必须是 0 到 100"),
        (2, &["generate"], "提示为空"),
        (2, &["quantize"], "缺少参数"),
        (2, &["info", "--nosuch"], "无法识别的参数"),
        (1, &["info", "-m", "/nowhere"], "没有文件夹 /nowhere"),
        (1, &["info", "-m", &folder], "缺少此文件"),
        (1, &["generate", "-m", &folder, "x"], "没有分词器"),
    ];
    for (code, words, part) in chinese {
        let output = glm(words).env("LC_ALL", "zh_CN.UTF-8").output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(*code), "{words:?}: {said}");
        assert!(said.starts_with("错误：") && said.contains(part), "{words:?}: {said}");
    }
    let english = glm(&["nosuch"]).env("LC_ALL", "C").env("LANG", "zh_CN.UTF-8").output().unwrap();
    assert!(stderr(&english).starts_with("error: there is no command"));
    let model = tiny("int4");
    let info = glm(&["info", "-m", &model]).env("LC_ALL", "zh_CN.UTF-8").output().unwrap();
    assert!(stdout(&info).contains("词表") && !stdout(&info).contains("vocabulary"));
}

/// What the program says in a terminal, and its exit code.
#[cfg(unix)]
fn in_a_terminal(words: &[&str]) -> (String, Option<i32>) {
    use std::io::Read;

    let (mut terminal, pts) = pty_process::blocking::open().unwrap();
    terminal.resize(pty_process::Size::new(24, 80)).unwrap();
    let command = pty_process::blocking::Command::new(env!("CARGO_BIN_EXE_glm"));
    let home = tempfile::tempdir().unwrap();
    let unset = ["XDG_CONFIG_HOME", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "GLM_MODEL"];
    let command = command.env("HOME", home.path()).envs(unset.map(|name| (name, "")));
    let mut child = command.args(words).env("LC_ALL", "C").spawn(pts).unwrap();
    let mut said = Vec::new();
    // At the end of the program, Linux reports an I/O error.
    let _ = terminal.read_to_end(&mut said);
    (String::from_utf8(said).unwrap(), child.wait().unwrap().code())
}

#[cfg(unix)]
#[test]
fn a_terminal_is_not_waited_for_and_gets_no_binary_file() {
    let model = tiny("int4");
    for (words, part) in [
        (&["logits", "-m", &model, "--ids", "[5]", "--out", "-"][..], "not written to a terminal"),
        (&["score", "1+1=?"], "no answers to score"),
        (&["generate"], "the prompt is empty"),
        (&["fill"], "the text is empty"),
    ] {
        let (said, code) = in_a_terminal(words);
        assert_eq!(code, Some(2), "{words:?}: {said}");
        assert!(said.contains(part), "{words:?}: {said}");
    }
    let (page, code) = in_a_terminal(&["man"]);
    assert!(code == Some(0) && page.contains("glm man | man -l -"), "{page}");
}

#[cfg(unix)]
#[test]
fn help_has_the_width_of_the_terminal() {
    let (help, _) = in_a_terminal(&["score", "--help"]);
    let footer = help.lines().skip_while(|line| !line.contains("If the text has a blank"));
    let lines: Vec<_> = footer.take_while(|line| !line.trim().is_empty()).collect();
    let longest = lines.iter().map(|line| line.trim_end().len()).max().unwrap();
    assert!((70..=80).contains(&longest), "{lines:?}");
}
