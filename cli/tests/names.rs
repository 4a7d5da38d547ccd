//! Models by name: found, listed and removed in the caches.
#![cfg(all(unix, feature = "demo"))]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use common::cache::{Home, age};
use common::{stderr, stdout, talker, text, tiny};
use serde_json::Value;

const ABOUT: [&str; 2] = ["info", "--json"];

/// What `glm info` says about a model and how it was chosen.
fn format(home: &Home, words: &[&str]) -> String {
    let info = home.json(&[&ABOUT[..], words].concat());
    let matrices = info["matrices"].as_array().unwrap();
    let layer = matrices.iter().find(|matrix| matrix["name"] == "attention qkv");
    layer.unwrap_or(&matrices[1])["format"].as_str().unwrap().to_owned()
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|model| model["name"].as_str().unwrap()).collect()
}

#[test]
fn a_name_is_that_of_a_repository_in_the_cache() {
    let home = Home::new();
    let original = home.add_snapshot("THUDM/chatglm-6b", "aaaa", Path::new(&tiny("bin-f16")));
    home.add_ref("THUDM/chatglm-6b", "main", "aaaa");
    let quantized = home.add_quantized("THUDM/chatglm-6b", "int4", Path::new(&tiny("int4")));
    let is = |name: &str, start: &str| {
        let found = format(&home, &["-m", name]);
        assert!(found.starts_with(start), "{name}: {found}");
    };
    for name in ["THUDM/chatglm-6b", "chatglm-6b"] {
        is(name, "F16");
        is(&format!("{name}:int4"), "INT4");
    }
    is(&text(&original), "F16");
    is(&text(&home.repository("THUDM/chatglm-6b")), "F16");
    is(&text(&quantized), "INT4");
    // Of the original only the files of a tokenizer: then the quantized model is meant.
    fs::remove_file(original.join("pytorch_model.bin.index.json")).ok();
    for entry in fs::read_dir(&original).unwrap().map(Result::unwrap) {
        if entry.file_name().to_string_lossy().ends_with(".bin") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    is("chatglm-6b", "INT4");
    fs::remove_dir_all(home.repository("THUDM/chatglm-6b")).unwrap();
    is("THUDM/chatglm-6b", "INT4");
}

#[test]
fn the_revision_main_is_meant_and_others_have_names() {
    let home = Home::new();
    let (old, new) = (tiny("bin-f16"), tiny("int4"));
    age(&home.add_snapshot("a/m", "1111111111", Path::new(&old)), 9);
    home.add_snapshot("a/m", "2222222222", Path::new(&new));
    assert!(format(&home, &["-m", "a/m"]).starts_with("INT4"), "the newest");
    assert_eq!(names(&home.json(&["list", "--json"])), ["a/m", "a/m@11111111"]);
    home.add_ref("a/m", "main", "1111111111");
    home.add_ref("a/m", "refs/pr/1", "2222222222");
    assert!(format(&home, &["-m", "a/m"]).starts_with("F16"));
    assert!(format(&home, &["-m", "m@refs/pr/1"]).starts_with("INT4"));
    assert_eq!(names(&home.json(&["list", "--json"])), ["a/m@refs/pr/1", "a/m"]);
}

#[test]
fn an_unknown_or_ambiguous_name_is_refused_with_advice() {
    let home = Home::new();
    let info = |name: &str| home.refusal(&["info", "-m", name], 1);
    let said = info("THUDM/chatglm-6b");
    assert!(said.contains("`glm pull THUDM/chatglm-6b`") && said.contains("glm list"), "{said}");
    assert!(said.contains(&text(&home.hub())) && !said.contains("os error"), "{said}");
    assert!(info("THUDM/chatglm-6b:int8-g64").contains("--quantize=8 --group 64`"));
    assert!(info("chatglm-6b").contains("glm pull OWNER/chatglm-6b"));
    assert!(info("/nowhere").contains("there is no folder /nowhere"));
    for owner in ["THUDM", "zai-org"] {
        home.add_snapshot(&format!("{owner}/chatglm-6b"), "aaaa", Path::new(&tiny("int4")));
    }
    let said = info("chatglm-6b");
    assert!(said.contains("THUDM/chatglm-6b, zai-org/chatglm-6b"), "{said}");
    assert!(format(&home, &["-m", "zai-org/chatglm-6b"]).starts_with("INT4"));
    // A folder of that name wins.
    fs::create_dir_all(home.path().join("here/chatglm-6b")).unwrap();
    let run =
        home.glm(&["info", "-m", "chatglm-6b"]).current_dir(home.path().join("here")).output();
    assert!(stderr(&run.unwrap()).contains("chatglm-6b/config.json: is missing"));
}

#[test]
fn without_a_name_the_settings_decide_then_age_then_the_demonstration() {
    let home = Home::new();
    let run = |words: &[&str], variable: &str| {
        let output = home.glm(words).env("GLM_MODEL", variable).write_stdin("谢谢\n").output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        (stdout(&output), stderr(&output))
    };
    let greedy = ["--greedy"];
    let (answer, said) = run(&greedy, "");
    assert_eq!(answer, "不客气！\n");
    assert!(said.contains("There is no model here yet") && said.contains("glm pull"), "{said}");
    age(&home.add_snapshot("a/old", "aaaa", Path::new(&talker())), 5);
    let new = home.add_quantized("b/new", "int4", Path::new(&talker()));
    // These cannot be talked to: no tokenizer, not finished.
    home.add_snapshot("c/ids", "aaaa", Path::new(&tiny("int4")));
    home.add_quantized("d/new", "int4.part", Path::new(&talker()));
    assert!(run(&greedy, "").1.contains("model: b/new:int4, the newest"));
    age(&new, 6);
    assert!(run(&greedy, "").1.contains("model: a/old, the newest"));
    assert!(run(&["tokenize", "你好"], "").1.contains("model: a/old, the newest"));
    assert!(run(&greedy, "new").1.contains("model: b/new:int4, from GLM_MODEL"));
    assert!(home.glm(&["config", "set", "model", "b/new"]).output().unwrap().status.success());
    assert!(run(&greedy, "").1.contains("config.toml:1"));
    assert!(run(&greedy, "old").1.contains("model: a/old, from GLM_MODEL"));
    let (_, said) = run(&["-m", "old", "--greedy"], "new");
    assert!(said.contains("(a/old)") && !said.contains("model: "), "{said}");
    let wrong = home.glm(&["info"]).env("GLM_MODEL", "x/y").output().unwrap();
    assert!(stderr(&wrong).contains("GLM_MODEL: there is no model x/y") && !wrong.status.success());
    // Flags that need no model do not look for one.
    assert!(run(&["info", "--cpu"], "x/y").1.is_empty());
}

#[test]
fn the_list_has_what_can_be_run_and_marks_what_is_incomplete() {
    let home = Home::new();
    let empty = home.glm(&["list"]).output().unwrap();
    assert!(empty.status.success() && empty.stdout.is_empty());
    assert!(stderr(&empty).contains("glm pull"), "{}", stderr(&empty));
    assert_eq!(home.json(&["list", "--json"]), serde_json::json!([]));

    let whole = home.add_snapshot("THUDM/chatglm-6b", "aaaa", Path::new(&tiny("bin-f16")));
    age(&whole, 50);
    age(&home.add_quantized("THUDM/chatglm-6b", "int4", Path::new(&talker())), 3);
    let cut = home.add_snapshot("THUDM/chatglm2-6b", "aaaa", Path::new(&talker()));
    fs::remove_file(cut.join("model.safetensors")).unwrap();
    age(&cut, 1);
    let other = home.add_snapshot("google/bert", "aaaa", Path::new(&talker()));
    fs::remove_file(other.join("config.json")).unwrap();
    fs::write(other.join("config.json"), "{\"model_type\": \"bert\"}").unwrap();

    let list = home.json(&["list", "--json"]);
    assert_eq!(names(&list), ["THUDM/chatglm2-6b", "THUDM/chatglm-6b:int4", "THUDM/chatglm-6b"]);
    assert_eq!(
        [&list[0]["state"], &list[1]["state"], &list[2]["state"]],
        ["incomplete", "ready", "ready"]
    );
    assert_eq!([&list[1]["format"], &list[2]["format"]], ["int4", "f16"]);
    let files =
        fs::read_dir(tiny("bin-f16")).unwrap().map(|file| file.unwrap().metadata().unwrap().len());
    assert_eq!(list[2]["bytes"].as_u64(), Some(files.sum()));
    let table = stdout(&home.glm(&["list"]).output().unwrap());
    let rows: Vec<_> = table.lines().collect();
    assert!(rows[0].starts_with("NAME ") && rows[0].ends_with("CHANGED"), "{table}");
    assert!(rows[1].contains("incomplete") && rows[1].contains("1 h ago"), "{table}");
    assert!(rows[2].contains("int4") && rows[2].contains("ChatGLM-6B"), "{table}");
    assert!(rows[3].contains("2 d ago") && rows.len() == 4, "{table}");
    let all = home.json(&["list", "--all", "--json"]);
    assert_eq!(all.as_array().unwrap().len(), 4);
    assert!(all.as_array().unwrap().iter().any(|model| model["kind"] == "bert"));
    let chinese = home.glm(&["list"]).env("LC_ALL", "zh_CN.UTF-8").output().unwrap();
    assert!(stdout(&chinese).contains("未下载完"));

    let said = home.refusal(&["generate", "-m", "chatglm2-6b", "-p", "x"], 1);
    assert!(said.contains("`glm pull THUDM/chatglm2-6b` goes on"), "{said}");
}

#[test]
fn a_snapshot_is_removed_with_the_blobs_that_no_other_has() {
    let home = Home::new();
    home.add_snapshot("a/m", "1111", Path::new(&talker()));
    home.add_ref("a/m", "main", "1111");
    let second = home.add_snapshot("a/m", "2222", Path::new(&talker()));
    home.add_ref("a/m", "v1", "2222");
    fs::remove_file(second.join("model.safetensors")).unwrap();
    let blobs = home.repository("a/m").join("blobs");
    fs::write(blobs.join("own"), [0; 1000]).unwrap();
    symlink("../../blobs/own", second.join("model.safetensors")).unwrap();
    // What links lead to elsewhere is not touched.
    let outside = home.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), "kept").unwrap();
    symlink(&outside, second.join("folder")).unwrap();
    symlink(outside.join("kept"), second.join("file")).unwrap();

    let said = home.refusal(&["rm", "a/m@v1"], 2);
    assert!(said.contains("--yes") && second.exists(), "{said}");
    let done = home.glm(&["rm", "--yes", "a/m@v1"]).output().unwrap();
    assert!(stderr(&done).contains("1.00 kB freed"), "{}", stderr(&done));
    assert!(!second.exists() && !blobs.join("own").exists());
    // Nobody had locked anything before, and a `glm pull` that began meanwhile had to wait.
    assert!(home.hub().join(".locks/models--a--m/glm.lock").exists());
    assert!(!home.repository("a/m").join("refs/v1").exists());
    assert!(home.glm(&["info", "-m", "a/m"]).output().unwrap().status.success());
    assert_eq!(fs::read(outside.join("kept")).unwrap(), b"kept");

    assert!(home.glm(&["rm", "-y", "m"]).output().unwrap().status.success());
    assert!(!home.repository("a/m").exists() && home.hub().exists());
    assert!(home.refusal(&["rm", "-y", "m"], 1).contains("there is no model m"));
}

/// A folder that is not finished has the lock of the model that it becomes or was.
#[test]
fn what_another_process_has_locked_is_not_removed() {
    let home = Home::new();
    let lock = |cache: &Path, name: &str| {
        let folder = cache.join(".locks/models--a--m");
        fs::create_dir_all(&folder).unwrap();
        let file = fs::File::create(folder.join(name)).unwrap();
        file.lock_shared().unwrap();
        file
    };
    home.add_snapshot("a/m", "1111", Path::new(&talker()));
    for format in ["int4", "int4.part", "int4.old.part"] {
        home.add_quantized("a/m", format, Path::new(&tiny("int4")));
    }
    let models = ["a/m:int4.old.part", "a/m:int4.part", "a/m:int4", "a/m"];
    let locks = [lock(&home.hub(), "glm.lock"), lock(&home.quantized(), "int4.lock")];
    for name in models {
        let said = home.refusal(&["rm", "-y", name], 1);
        assert!(said.contains("another process writes it"), "{name}: {said}");
    }
    let said = home.refusal(&["quantize", "a/m"], 1);
    assert!(said.contains("a/m:int4: another process writes or removes it"), "{said}");
    drop(locks);
    for name in models {
        let done = home.glm(&["rm", "-y", name]).output().unwrap();
        assert!(done.status.success(), "{name}: {}", stderr(&done));
    }
    assert_eq!(home.json(&["list", "--all", "--json"]), serde_json::json!([]));
}

#[test]
fn a_quantized_model_is_removed_and_nothing_that_links_lead_to() {
    let home = Home::new();
    let int4 = home.add_quantized("a/m", "int4", Path::new(&talker()));
    let int8 = home.add_quantized("a/m", "int8", Path::new(&talker()));
    assert!(home.refusal(&["rm", "-y", "a/m:int4", "a/x"], 1).contains("a/x"));
    assert!(int4.exists(), "nothing is removed if a name is wrong");
    assert!(home.glm(&["rm", "-y", "a/m:int4"]).output().unwrap().status.success());
    assert!(!int4.exists() && int8.exists());
    assert!(home.quantized().join(".locks/models--a--m/int4.lock").exists());
    // A folder is no name, and a link to another place is refused.
    home.refusal(&["rm", "-y", &text(&int8)], 1);
    let elsewhere = home.path().join("elsewhere");
    fs::rename(&int8, &elsewhere).unwrap();
    symlink(&elsewhere, &int8).unwrap();
    assert!(home.refusal(&["rm", "-y", "a/m:int8"], 1).contains("is a link"));
    assert!(elsewhere.join("model.safetensors").exists());
    fs::remove_file(&int8).unwrap();
    fs::rename(&elsewhere, &int8).unwrap();
    assert!(home.glm(&["rm", "-y", "m"]).output().unwrap().status.success());
    assert!(!int8.parent().unwrap().exists());
}

#[test]
fn a_failed_quantize_leaves_no_folder() {
    let home = Home::new();
    home.add_snapshot("THUDM/chatglm-6b", "aaaa", Path::new(&tiny("bin-f16")));
    // No file may have more than 512 bytes. Without the trap, the system would end the process.
    let script = "trap '' XFSZ; ulimit -f 1; exec \"$0\" quantize chatglm-6b";
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", script, env!("CARGO_BIN_EXE_glm")]).env("HOME", home.path().join("home"));
    for name in ["XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HF_HOME", "HF_HUB_CACHE", "GLM_THREADS"] {
        limited.env_remove(name);
    }
    let limited = limited.env("LC_ALL", "C").output().unwrap();
    assert_eq!(limited.status.code(), Some(1), "{}", stderr(&limited));
    assert!(stderr(&limited).contains("File too large"), "{}", stderr(&limited));
    // But that of the locks.
    let names = fs::read_dir(home.quantized()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), [".locks"]);
}

#[test]
fn a_model_of_the_cache_is_quantized_beside_it() {
    let home = Home::new();
    home.add_snapshot("THUDM/chatglm-6b", "aaaa", Path::new(&tiny("bin-f16")));
    let said = home.glm(&["quantize", "chatglm-6b"]).output().unwrap();
    assert!(said.status.success(), "{}", stderr(&said));
    assert!(stderr(&said).contains("glm -m THUDM/chatglm-6b:int4"), "{}", stderr(&said));
    assert!(stderr(&said).contains("has no tokenizer"), "{}", stderr(&said));
    assert_eq!(format(&home, &["-m", "chatglm-6b:int4"]), "INT4 with minimum, groups of 64");
    let words = ["quantize", "chatglm-6b", "--bits", "8", "--group", "64"];
    assert!(home.glm(&words).output().unwrap().status.success());
    assert!(format(&home, &["-m", "chatglm-6b:int8-g64"]).starts_with("INT8"));
    let words = ["quantize", "chatglm-6b", "--symmetric", "--group", "64"];
    assert!(home.glm(&words).output().unwrap().status.success());
    assert_eq!(format(&home, &["-m", "chatglm-6b:int4-g64-sym"]), "INT4, groups of 64");
    let words = ["quantize", "chatglm-6b", "--target-bits", "7.5"];
    let said = home.glm(&words).output().unwrap();
    assert!(said.status.success(), "{}", stderr(&said));
    assert!(stderr(&said).contains("at most 7.5 bits a weight"), "{}", stderr(&said));
    assert!(format(&home, &["-m", "chatglm-6b:mixed-7.5"]).starts_with("INT"));
    let missing = home.refusal(&["info", "-m", "THUDM/chatglm-6b:mixed-7.25"], 1);
    assert!(missing.contains("glm quantize THUDM/chatglm-6b --target-bits 7.25"), "{missing}");
    assert!(home.refusal(&["quantize", "chatglm-6b"], 1).contains("already"));
    assert!(home.refusal(&["quantize", &tiny("int4")], 2).contains("DST"));
}
