//! Folders that are no models, or not yet: what is wrong with them is said.
#![cfg(feature = "demo")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{glm, refusal, stderr, stdout, talker, text};
use tempfile::TempDir;

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 9\n";

/// A copy of the demonstration model.
fn copy() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    for file in fs::read_dir(talker()).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
    }
    let path = dir.path().to_owned();
    (dir, path)
}

/// What is said about a folder by `glm generate`.
fn said(folder: &Path) -> String {
    refusal(&["generate", "-m", &text(folder), "-p", "x"], 1)
}

#[test]
fn a_pointer_of_git_lfs_is_named() {
    for file in ["ice_text.model", "model.safetensors", "config.json"] {
        let (_dir, folder) = copy();
        fs::write(folder.join(file), POINTER).unwrap();
        let said = said(&folder);
        assert!(said.contains(&format!("{file}: is a git-lfs pointer")), "{said}");
        assert!(said.contains("git lfs pull") && said.contains("glm pull"), "{said}");
        assert!(!said.contains("protobuf"), "{said}");
    }
}

#[test]
fn a_damaged_gguf_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("chatglm3-6b-q4_k_m.gguf");
    fs::write(&file, "GGUF").unwrap();
    let chinese = glm(&["info", "-m", &text(dir.path())]).env("LC_ALL", "zh_CN.UTF-8").output();
    assert!(stderr(&chinese.unwrap()).contains("文件不完整"));
    for path in [dir.path(), &file] {
        let said = said(path);
        assert!(said.contains("q4_k_m.gguf: is cut off"), "{said}");
    }
}

/// Without weights there is nothing to run, but the metadata are read.
#[test]
fn a_gguf_file_of_another_architecture_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model.gguf");
    let text_of = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    // Version 3, no tensors, one pair: a text.
    let header = [&b"GGUF\x03\0\0\0"[..], &[0; 8], &1_u64.to_le_bytes()].concat();
    let pair = [text_of("general.architecture"), 8_u32.to_le_bytes().into(), text_of("llama")];
    fs::write(&file, [header, pair.concat()].concat()).unwrap();
    let chinese = glm(&["info", "-m", &text(dir.path())]).env("LC_ALL", "zh_CN.UTF-8").output();
    assert!(stderr(&chinese.unwrap()).contains("不支持这种架构的 GGUF 文件"));
    let said = said(&file);
    assert!(said.contains("model.gguf: general.architecture is \"llama\""), "{said}");
}

#[test]
#[cfg(target_os = "linux")]
fn what_cannot_be_read_is_not_called_missing() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    for file in ["ice_text.model", "model.safetensors", "config.json"] {
        let (_dir, folder) = copy();
        fs::remove_file(folder.join(file)).unwrap();
        symlink(file, folder.join(file)).unwrap();
        let said = said(&folder);
        assert!(said.contains(file) && said.contains("symbolic links"), "{said}");
    }
    let (_dir, folder) = copy();
    let file = folder.join("loop");
    symlink("loop", &file).unwrap();
    assert!(said(&file.join("x")).contains("symbolic links"));
    // The administrator may read everything, so these say something to other people only.
    let (_dir, folder) = copy();
    fs::set_permissions(folder.join("ice_text.model"), fs::Permissions::from_mode(0o0)).unwrap();
    if fs::read(folder.join("ice_text.model")).is_err() {
        assert!(said(&folder).contains("ice_text.model: Permission denied"));
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o0)).unwrap();
        let said = said(&folder);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(said.contains("Permission denied") && said.contains(&text(&folder)), "{said}");
    }
}

#[test]
fn a_folder_that_the_hub_s_tool_downloaded_is_a_model() {
    let (_dir, folder) = copy();
    let kept = folder.join(".cache/huggingface/download");
    fs::create_dir_all(&kept).unwrap();
    fs::write(kept.join("config.json.metadata"), "0123\n4567\n1.0\n").unwrap();
    fs::write(kept.join("x.incomplete"), "").unwrap();
    let run = glm(&["generate", "-m", &text(&folder), "--greedy", "-p", "谢谢"]).output().unwrap();
    assert_eq!(stdout(&run), "不客气!\n");
}
