//! `glm pull` as a person sees it.
#![cfg(unix)]

mod common;

use std::path::Path;

use common::hub::{Fault, Hub, Repository, sha256};
use common::pulling::{NAME, talking};
use common::terminal::{Start, Terminal};

/// A pull of a model whose weights stall in their middle.
fn stalled(repository: Repository, words: &[&str], language: &str) -> (Hub, Terminal) {
    let hub = Hub::start();
    hub.add(NAME, repository.clone());
    let weights = &repository.files["model.safetensors"].bytes;
    hub.fail_whole(&sha256(weights), Fault::Stall(weights.len() / 2));
    let words = [&["pull", NAME], words].concat();
    let start = Start::new(&words).variable("HF_ENDPOINT", &hub.url()).variable("LANG", language);
    let terminal = start.open();
    hub.wait_for_stalled(1);
    (hub, terminal)
}

#[test]
fn a_bar_shows_the_progress_and_goes_away() {
    let (hub, mut terminal) = stalled(talking(), &[], "C.UTF-8");
    terminal.wait_for("downloading 3.60 MB");
    let is_bar = |line: &str| {
        let shown = [NAME, "█", " of 3.60 MB", "B/s", " left"];
        shown.iter().all(|part| line.contains(part)) && line.contains(" 1.9")
    };
    terminal.wait_until("a bar of half of the bytes", |screen| screen.lines().any(is_bar));
    hub.release();
    terminal.wait_for("glm -m");
    assert_eq!(terminal.exit_code(), Some(0));
    let screen = terminal.screen();
    assert!(
        !screen.contains('█') && screen.contains("models--THUDM--chatglm-6b/snapshots"),
        "{screen}"
    );
    assert!(screen.lines().all(|line| !line.contains("left")), "{screen}");
}

#[test]
fn ctrl_c_stops_and_says_how_to_go_on() {
    let (_hub, mut terminal) = stalled(talking(), &[], "zh_CN.UTF-8");
    terminal.send("\x03");
    assert_eq!(terminal.exit_code(), Some(130));
    let screen = terminal.screen();
    assert!(screen.contains("同一命令") && screen.contains("已停止"), "{screen}");
    assert!(!screen.contains('█'), "{screen}");
    assert!(terminal.is_sane());
}

#[test]
fn what_a_hub_says_does_not_control_the_terminal() {
    let hub = Hub::start();
    let config = "{\"model_type\": \"\u{9b}2Jbert\"}".as_bytes().to_vec();
    hub.add(NAME, talking().with("config.json", config));
    let start = Start::new(&["pull", NAME]).variable("HF_ENDPOINT", &hub.url());
    let mut terminal = start.open();
    terminal.wait_for("2Jbert");
    assert_eq!(terminal.exit_code(), Some(1));
    assert!(!terminal.written().contains('\u{9b}'), "{}", terminal.written());
}

#[test]
fn quantizing_is_shown_beside_the_download() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/demo/f16");
    let (hub, mut terminal) = stalled(Repository::of_folder(&demo), &["--quantize"], "C.UTF-8");
    terminal.wait_until("the download of the weights", |screen| {
        screen.lines().any(|line| line.contains("of 11.89 MB") && line.contains('█'))
    });
    hub.release();
    terminal.wait_for("glm -m");
    assert_eq!(terminal.exit_code(), Some(0));
    assert!(terminal.written().contains("quantized "), "{}", terminal.written());
    let screen = terminal.screen();
    assert!(screen.contains(&format!("{NAME}:int4")) && !screen.contains('█'), "{screen}");
    assert!(!terminal.written().contains("leftTHUDM"));
}
