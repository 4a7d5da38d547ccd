//! Settings, from the environment and from the file.
#![cfg(all(unix, feature = "demo"))]

mod common;

use std::fs;
use std::path::Path;

use common::cache::Home;
use common::{stderr, stdout, talker, text};
use serde_json::Value;

fn setting(home: &Home, name: &str) -> (Value, String) {
    let all = home.json(&["config", "--json"]);
    let found = all.as_array().unwrap().iter().find(|setting| setting["name"] == name).unwrap();
    (found["value"].clone(), found["origin"].as_str().unwrap().to_owned())
}

fn set(home: &Home, words: &[&str]) {
    let output = home.glm(&[&["config", "set"], words].concat()).output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "{}", stderr(&output));
}

#[test]
fn every_value_has_an_origin() {
    let home = Home::new();
    assert_eq!(setting(&home, "threads"), (Value::Null, "default".into()));
    assert_eq!(setting(&home, "draft"), ("auto".into(), "default".into()));
    assert_eq!(setting(&home, "model"), (Value::Null, "default".into()));
    home.add_quantized("a/m", "int4", Path::new(&talker()));
    assert_eq!(setting(&home, "model"), ("a/m:int4".into(), "newest of `glm list`".into()));
    set(&home, &["threads", "3"]);
    set(&home, &["stop", "a b", "-c"]);
    let file = text(&home.config());
    assert_eq!(setting(&home, "threads"), ("3".into(), format!("{file}:1")));
    assert_eq!(setting(&home, "stop"), (serde_json::json!(["a b", "-c"]), format!("{file}:2")));
    assert_eq!(stdout(&home.glm(&["config", "path"]).output().unwrap()), format!("{file}\n"));
    let shown = home.glm(&["config"]).env("GLM_THREADS", "5").output().unwrap();
    let line = stdout(&shown).lines().find(|line| line.starts_with("threads ")).unwrap().to_owned();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["threads", "5", "GLM_THREADS"]);
    assert!(home.glm(&["config", "unset", "threads"]).output().unwrap().status.success());
    assert_eq!(setting(&home, "threads").1, "default");
    let again = home.glm(&["config", "unset", "threads"]).output().unwrap();
    assert!(again.status.success() && stderr(&again).contains("threads is not in"));
}

#[test]
fn a_flag_comes_before_the_environment_and_that_before_the_file() {
    let home = Home::new();
    set(&home, &["threads", "1"]);
    set(&home, &["temperature", "0.5"]);
    let run = |words: &[&str], threads: &str| {
        let words = [&["--max-new-tokens", "1"], words].concat();
        let output = home.glm(&words).env("GLM_THREADS", threads).write_stdin("Hi\n").output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    };
    assert!(run(&[], "").contains("threads 1,"));
    assert!(run(&[], "2").contains("threads 2,"));
    assert!(run(&["-t", "3"], "2").contains("threads 3,"));
    // A temperature of the file does not disturb --greedy, and without it the answer is sampled.
    assert!(run(&["--greedy"], "").contains("greedy") && run(&[], "").contains("seed"));
    let answer = |words: &[&str]| home.json(&[&["generate", "--json", "-p", "Hi"], words].concat());
    assert!(answer(&["--greedy"])["seed"].is_null() && answer(&[])["seed"].is_u64());
    set(&home, &["seed", "7"]);
    assert_eq!((&answer(&[])["seed"], &answer(&["--seed", "8"])["seed"]), (&7.into(), &8.into()));
}

#[test]
fn the_model_of_a_path_is_the_same_in_every_folder() {
    let home = Home::new();
    let folder = home.path().join("models/q4");
    fs::create_dir_all(&folder).unwrap();
    let words = ["config", "set", "model", "q4"];
    let output = home.glm(&words).current_dir(folder.parent().unwrap()).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", stderr(&output));
    assert_eq!(setting(&home, "model").0, text(&folder));
    // A model that is not here yet is only noted.
    let output = home.glm(&["config", "set", "model", "THUDM/chatglm-6b"]).output().unwrap();
    assert!(output.status.success() && stderr(&output).contains("glm pull THUDM/chatglm-6b"));
    assert_eq!(setting(&home, "model").0, "THUDM/chatglm-6b");
}

#[test]
fn wrong_settings_are_named_with_their_place() {
    let home = Home::new();
    let wrong = home.glm(&["tokenize", "x"]).env("GLM_THREADS", "many").output().unwrap();
    // `tokenize` has no threads, but a wrong variable is wrong everywhere.
    assert_eq!(wrong.status.code(), Some(2));
    assert!(stderr(&wrong).contains("GLM_THREADS: invalid value `many`"), "{}", stderr(&wrong));
    for words in [&["man"][..], &["completions", "bash"], &["config", "path"]] {
        let without = home.glm(words).env("GLM_THREADS", "many").output().unwrap();
        assert!(without.status.success(), "{words:?} needs no settings: {}", stderr(&without));
    }
    for words in [&["generate", "-p", "x"][..], &["info", "--cpu"]] {
        let wrong = home.glm(words).env("GLM_ISA", "mmx").output().unwrap();
        assert_eq!(wrong.status.code(), Some(2), "{words:?}: {}", stderr(&wrong));
        assert!(stderr(&wrong).contains("mmx"), "{}", stderr(&wrong));
    }
    assert!(home.refusal(&["config", "set", "temprature", "1"], 2).contains("temperature"));
    assert!(home.refusal(&["config", "set", "threads", "x"], 2).contains("invalid value `x`"));
    assert!(!home.config().exists());

    set(&home, &["top-p", "0.5"]);
    let mut text = fs::read_to_string(home.config()).unwrap();
    text += "temprature = 1\n";
    fs::write(home.config(), text).unwrap();
    let said = home.refusal(&["info"], 2);
    assert!(said.contains("config.toml:2: there is no setting temprature"), "{said}");
    assert!(said.contains("temperature, top-k"), "{said}");
    // Help and `glm config` go on working, so that this can be mended.
    assert!(home.glm(&["chat", "--help"]).output().unwrap().status.success());
    home.refusal(&["config"], 2);
    assert!(home.glm(&["config", "unset", "temprature"]).output().unwrap().status.success());
    assert!(home.glm(&["info"]).output().unwrap().status.success());
}

#[test]
fn the_folder_of_the_file_is_that_of_the_desktop() {
    let home = Home::new();
    let folder = home.path().join("settings");
    let path = |name: &str| {
        let output = home.glm(&["config", "path"]).env("XDG_CONFIG_HOME", name).output().unwrap();
        stdout(&output).trim_end().to_owned()
    };
    assert_eq!(path(&text(&folder)), text(&folder.join("glm/config.toml")));
    assert_eq!(path(""), text(&home.config()));
}
