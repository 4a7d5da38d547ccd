//! The model that is part of the program: what it says is what it was trained to say.
#![cfg(feature = "demo")]

mod common;

use common::{glm, json, stderr, stdout};

/// What `glm` prints for these words and this input.
fn said(words: &[&str], input: &str) -> String {
    let output = glm(words).write_stdin(input).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", stderr(&output));
    stdout(&output)
}

#[test]
fn a_newcomer_is_answered_and_told_by_whom() {
    let output = glm(&["chat", "--greedy"]).write_stdin("你好\n").output().unwrap();
    assert!(output.status.success());
    assert_eq!(stdout(&output), "你好！有什么可以帮你的吗？\n");
    let note = stderr(&output);
    assert!(note.contains("small demonstration model of this program answers"), "{note}");
    assert!(note.contains("`glm pull THUDM/chatglm-6b --quantize`, then start `glm`"), "{note}");
}

#[test]
fn the_program_alone_is_a_chat() {
    assert_eq!(said(&[], "谢谢\n"), said(&["chat"], "谢谢\n"));
}

#[test]
fn what_was_filled_is_shown_when_the_context_ends() {
    let words = ["fill", "--greedy", "--context", "24", "10, [MASK], 30, [MASK], 50, 60"];
    let output = glm(&words).output().unwrap();
    assert!(stdout(&output).ends_with(", 30, [MASK], 50, 60\n"), "{}", stdout(&output));
    assert!(stderr(&output).contains("the context is full"), "{}", stderr(&output));
}

#[test]
fn a_conversation_is_that_of_the_transcript() {
    let transcript = include_str!("demo/transcript.txt");
    let of = |mark: &str| {
        let lines = transcript.lines().filter_map(|line| line.strip_prefix(mark));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    assert_eq!(said(&["chat", "--greedy"], &of("> ")), of("< "));
}

#[test]
fn blanks_are_filled_from_both_sides() {
    for (text, filled) in [
        ("举头望[MASK]，低头思故乡。", "举头望明月，低头思故乡。\n"),
        ("少壮不[MASK]，老大徒伤悲。", "少壮不努力，老大徒伤悲。\n"),
        ("2, 4, [MASK], 8, 10", "2, 4, 6, 8, 10\n"),
        ("A friend in [MASK] is a friend indeed.", "A friend in need is a friend indeed.\n"),
    ] {
        assert_eq!(said(&["fill", "--greedy", text], ""), filled);
    }
    let two = json(&["fill", "--greedy", "--json", "一寸[MASK]一寸金，寸金难买寸[MASK]。"]);
    assert_eq!(two["text"], "一寸光阴一寸金，寸金难买寸光阴。");
    assert_eq!(two["spans"], serde_json::json!(["光阴", "光阴"]));
    assert_eq!(two["answers"].as_array().unwrap().len(), 2);
}

#[test]
fn drafts_change_no_answer_and_are_counted() {
    let words = ["generate", "--json", "--ignore-eos", "--max-new-tokens", "60", "-p", "你好"];
    let answer = |more: &[&str]| json(&[&words[..], more].concat());
    let (off, fixed) =
        (answer(&["--seed", "3", "--draft", "off"]), answer(&["--seed", "3", "--draft", "4"]));
    assert_eq!(off["ids"], fixed["ids"]);
    assert_eq!((&off["drafted_tokens"], &off["tokens_per_pass"]), (&0.into(), &().into()));
    let [drafted, accepted] =
        ["drafted_tokens", "accepted_tokens"].map(|name| fixed[name].as_u64().unwrap());
    assert!(0 < drafted && accepted <= drafted, "{fixed}");
    assert!(fixed["tokens_per_pass"].as_f64().unwrap() >= 1.0);
    let refused = glm(&["generate", "--draft", "16", "x"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let said = glm(&["chat", "--greedy", "--stats", "--draft", "4"]).write_stdin("你好\n").output();
    assert!(stderr(&said.unwrap()).contains(" tokens/s; context: "));
}

#[test]
fn info_names_the_instructions_of_the_processor() {
    let cpu = json(&["info", "--cpu", "--json"]);
    let known = cpu["instruction_sets"].as_array().unwrap();
    assert!(known.contains(&"scalar".into()) && known.contains(&cpu["chosen"]), "{cpu}");
    let run = |isa| glm(&["info", "--cpu"]).env("GLM_ISA", isa).output().unwrap();
    assert!(stdout(&run("scalar")).contains("scalar, as GLM_ISA says"));
    let refused = run("altivec");
    assert!(!refused.status.success() && stdout(&refused).is_empty());
    assert!(stderr(&refused).contains("altivec") && stderr(&refused).contains("scalar"));
    #[cfg(unix)]
    {
        let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"scalar\xff");
        let refused = glm(&["info", "--cpu"]).env("GLM_ISA", name).output().unwrap();
        assert!(!refused.status.success() && stderr(&refused).contains("which has scalar"));
    }
}

#[test]
fn other_commands_take_it_too() {
    assert_eq!(said(&["generate", "--greedy", "-p", "谢谢"], ""), "不客气!\n");
    let ids = json(&["tokenize", "--json", "你好"]);
    assert_eq!(json(&["tokenize", "--json", "--decode", &ids["ids"].to_string()])["text"], "你好");
    let info = json(&["info", "--json"]);
    assert_eq!((&info["architecture"], &info["quantized"]), (&"ChatGLM-6B".into(), &true.into()));
    assert_eq!(info["weights"]["in_memory"], 0);
}
