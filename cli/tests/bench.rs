//! `glm bench` with the model that is part of the program.
#![cfg(feature = "demo")]

mod common;

use std::fs;

use common::{glm, json, refusal, stderr, stdout, text};

/// Little work.
const SHORT: [&str; 8] = ["--prompts", "8", "--depths", "8,20", "--tokens", "2", "--rounds", "2"];

#[test]
fn a_measurement_says_what_the_machine_could_do() {
    let said = json(&[&["bench", "--json"], &SHORT[..]].concat());
    let runs = said["runs"].as_array().unwrap();
    assert_eq!(
        runs.iter().map(|run| &run["name"]).collect::<Vec<_>>(),
        ["prompt", "decode", "decode"]
    );
    for run in runs {
        let [median, most, share, limit] =
            ["tokens_per_second", "most", "share_of_limit", "limit_tokens_per_second"]
                .map(|name| run[name].as_f64().unwrap());
        assert!(median > 0.0 && most >= median && share > 0.0, "{run}");
        assert!((median / limit - share).abs() < 1e-9 * share, "{run}");
    }
    // More context takes longer to read, unless products take longer anyway.
    let limit = |run: usize| runs[run]["limit_tokens_per_second"].as_f64().unwrap();
    assert!(limit(1) >= limit(2) && limit(2) > 0.0);
    // The processor, and the model as `glm info` describes it.
    let info = json(&["info", "--json"]);
    assert_eq!(said["size_bytes"], info["weights"]["bytes"]);
    assert!((5_000_000..7_000_000).contains(&said["parameters"].as_u64().unwrap()), "{said}");
    let cpu = json(&["info", "--cpu", "--json"]);
    let named = [&cpu["processor"], &cpu["architecture"]];
    assert!(named.contains(&&said["processor"]), "{said}");
    assert_eq!(said["isa"], cpu["chosen"]);
}

#[test]
fn what_is_measured_by_itself_has_room_in_the_context() {
    let lengths = |more: &[&str]| -> Vec<u64> {
        let said = json(&[&["bench", "--json", "--tokens", "1", "--rounds", "1"], more].concat());
        let runs = said["runs"].as_array().unwrap();
        runs.iter().map(|run| run["tokens"].as_u64().unwrap()).collect()
    };
    // The context is 512.
    assert_eq!(lengths(&[]), [32, 128, 32]);
    let full = ["--prompts", "512", "--depths", "495", "--sequences", "0", "--draft-tokens", "0"];
    assert_eq!(lengths(&full), [512, 495]);
    for shape in [&[][..], &["--shape", "chatglm-6b"]] {
        let refused = refusal(&[&["bench", "--prompts", "2049"], shape].concat(), 2);
        let context = if shape.is_empty() { " to 512, " } else { " to 2048, " };
        assert!(refused.contains("--prompts") && refused.contains(context), "{refused}");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = text(&dir.path().join("speed.svg"));
    assert_eq!(lengths(&["--plot", &path]), [16, 32, 64, 128, 256, 32, 128, 256]);
}

/// An answer follows one token at least.
#[test]
fn a_depth_of_zero_alone_has_room_in_the_context() {
    let none = ["--sequences", "0", "--draft-tokens", "0", "--rounds", "1"];
    let said = json(&[&["bench", "--json", "--prompts", "1", "--depths", "0"], &none[..]].concat());
    assert_eq!(said["runs"].as_array().unwrap().len(), 2, "{said}");
}

#[test]
fn sequences_and_drafts_are_measured_beside_one_token() {
    let flags = ["--prompts", "8", "--depths", "8", "--tokens", "1", "--rounds", "1"];
    let said = json(&[&["bench", "--json"][..], &flags].concat());
    let counts = |list: &str, name: &str| -> Vec<_> {
        let measured = said[list].as_array().unwrap();
        assert!(measured.iter().all(|run| run["ratio_to_one"].as_f64().unwrap() > 0.0), "{said}");
        measured.iter().map(|run| run[name].as_u64().unwrap()).collect()
    };
    assert_eq!(counts("sequences", "sequences"), [4, 8]);
    assert_eq!(counts("drafts", "tokens"), [2, 4, 8, 16]);
    assert!(said["lookup"]["tokens_per_pass"].as_f64().unwrap() >= 1.0, "{said}");
    let none = ["--sequences", "0", "--draft-tokens", "0"];
    let said = json(&[&["bench", "--json"][..], &flags, &none].concat());
    assert!(["sequences", "drafts"].iter().all(|list| said[*list].as_array().unwrap().is_empty()));
    assert!(said["lookup"].is_null());
}

#[test]
fn the_table_is_markdown_with_a_row_for_each_measurement() {
    let words = [&["bench", "-t", "1", "--sequences", "3", "--draft-tokens", "2"], &SHORT[..]];
    let shown = stdout(&glm(&words.concat()).output().unwrap());
    let (above, table) = shown.split_once("\n\n").unwrap();
    assert!(above.contains("ChatGLM-6B") && above.contains("1 thread, "), "{shown}");
    let (table, below) = table.split_once("\n\n").unwrap();
    assert!(below.contains("prompt lookup: ") && below.contains("this machine: reads "), "{shown}");
    let rows: Vec<Vec<_>> = table
        .lines()
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let column = |name: &str| -> Vec<_> {
        let place = rows[0].iter().position(|head| *head == name).unwrap();
        rows[2..].iter().map(|row| row[place]).collect()
    };
    assert_eq!(
        column("test"),
        ["pp8", "tg2@d8", "tg2@d20", "tg2@d32 x3", "verify2@d32", "lookup64"]
    );
    let speeds = column("t/s").into_iter().map(|cell| cell.split_once(" ± ").unwrap());
    assert!(speeds.into_iter().all(|(speed, _)| speed.parse::<f64>().unwrap() > 0.0), "{shown}");
    assert_eq!(column("threads"), ["1"; 6]);
    assert_eq!(column("speedup")[..3], ["-"; 3]);
    assert!(column("speedup")[3..].iter().all(|cell| cell.parse::<f64>().unwrap() > 0.0));
    assert!(table.lines().all(|line| line.chars().count() == table.find('\n').unwrap()));
}

#[test]
fn the_picture_has_both_panels() {
    let dir = tempfile::tempdir().unwrap();
    let path = text(&dir.path().join("speed.SVG"));
    let words = [&["bench", "--plot", &path], &SHORT[..]].concat();
    let output = glm(&words).output().unwrap();
    assert!(output.status.success() && stderr(&output).contains("speed.SVG"));
    let svg = fs::read_to_string(&path).unwrap();
    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>") && !svg.contains("NaN"));
    for text in ["ChatGLM-6B INT4", "tokens of the prompt", "tokens of context", "limit: "] {
        assert!(svg.contains(text), "{text}");
    }
    // What the picture does not show is not measured.
    assert!(!stdout(&output).contains("verify"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_picture_that_cannot_be_written_is_refused_before_the_measurement() {
    let dir = tempfile::tempdir().unwrap();
    let missing = text(&dir.path().join("missing/speed.svg"));
    assert!(refusal(&["bench", "--plot", &missing], 1).contains("missing"));
    for name in ["speed.png", "-", ""] {
        assert!(refusal(&["bench", "--plot", name], 2).contains(".svg"));
    }
    for words in [["--bits", "5"], ["--group", "16"], ["--rounds", "0"], ["--shape", "gpt-2"]] {
        refusal(&[&["bench", "--shape", "chatglm-6b"][..], &words].concat(), 2);
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_no_picture() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use common::isolated;

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("speed.svg");
    let mut child = isolated(dir.path())
        .args(["bench", "--tokens", "1", "--rounds", "1", "--plot", &text(&path)])
        // More than anyone waits for.
        .args(["--prompts", &["8"; 10_000].join(",")])
        .env("LC_ALL", "C")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("pp8")));
    let done = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(done.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(stderr(&output).ends_with("\nstopped\n"), "{}", stderr(&output));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Runs `glm` in a pseudo-terminal, and types Ctrl-C when it shows `stop`. Returns its exit code, all that it shows, and the screen
/// after it.
#[cfg(unix)]
fn in_a_terminal(words: &[&str], stop: &str) -> (Option<i32>, String, String) {
    use std::io::{Read, Write};

    use pty_process::Size;
    use pty_process::blocking::{Command, open};

    let (mut pty, pts) = open().unwrap();
    pty.resize(Size::new(40, 130)).unwrap();
    let home = tempfile::tempdir().unwrap();
    let unset = ["XDG_CONFIG_HOME", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "GLM_MODEL"];
    let command = Command::new(env!("CARGO_BIN_EXE_glm")).args(words);
    let command = command.env("HOME", home.path()).envs(unset.map(|name| (name, "")));
    let mut child = command.env("LC_ALL", "zh_CN.UTF-8").env("TERM", "xterm").spawn(pts).unwrap();
    let (mut bytes, mut seen, mut stopped) = ([0; 4096], Vec::new(), false);
    // Linux reports the end of the last process as an error.
    while let Ok(count @ 1..) = pty.read(&mut bytes) {
        seen.extend_from_slice(&bytes[..count]);
        if !stopped && String::from_utf8_lossy(&seen).contains(stop) {
            pty.write_all(b"\x03").unwrap();
            stopped = true;
        }
    }
    let mut parser = vt100::Parser::new(40, 130, 0);
    parser.process(&seen);
    let shown = String::from_utf8_lossy(&seen).into_owned();
    (child.wait().unwrap().code(), shown, parser.screen().contents())
}

#[cfg(unix)]
#[test]
fn a_terminal_shows_what_is_measured_and_then_only_the_table() {
    let words = ["bench", "--prompts", "8,500", "--depths", "8", "--rounds", "2"];
    let words = [&words[..], &["--sequences", "0", "--draft-tokens", "0"]].concat();
    let (code, shown, screen) = in_a_terminal(&words, "never");
    assert_eq!(code, Some(0));
    for message in
        ["正在测量本机的性能上限", "正在测量长度为 500 个 token 的提示词，第 2 轮，共 2 轮"]
    {
        assert!(shown.contains(message), "{shown}");
    }
    assert!(!screen.contains("正在"), "{screen}");
    let lines: Vec<_> = screen.lines().collect();
    let top = lines.iter().position(|line| line.starts_with("| model ")).unwrap();
    assert!(lines[top - 1].is_empty(), "{screen}");
    assert!(lines[top + 2..top + 5].iter().all(|line| line.ends_with("- |")), "{screen}");
    assert!(lines[top + 7].starts_with("peak memory: "), "{screen}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_is_obeyed_between_rounds() {
    let words = ["bench", "--prompts", "400", "--depths", "8", "--rounds", "10000"];
    let (code, _, screen) = in_a_terminal(&words, "第 2 轮，共 10000 轮");
    assert_eq!(code, Some(130));
    assert!(screen.trim_end().ends_with("已停止"), "{screen}");
    assert!(screen.contains("| test ") && !screen.contains("pp400"), "{screen}");
}
