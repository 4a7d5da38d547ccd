//! Folders that are written, and what others put there.

use super::*;

/// A source and a target that does not exist.
fn folders(dir: &Path) -> [PathBuf; 2] {
    let [source, target] = ["source", "target"].map(|name| dir.join(name));
    fs::create_dir(&source).unwrap();
    fs::write(source.join(CONFIG), "{}").unwrap();
    fs::write(source.join("LICENSE"), "").unwrap();
    [source, target]
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(Result::unwrap);
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_folder_has_its_name_when_it_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    let [source, target] = folders(dir.path());
    let output = Output::open(&target, false).unwrap();
    assert!(!target.exists());
    output.publish(&source).unwrap();
    assert_eq!(names(&target), ["LICENSE", CONFIG, WEIGHTS]);
    assert_eq!(names(dir.path()), ["source", "target"]);
}

#[test]
fn an_empty_folder_is_replaced_also_behind_a_link_and_with_dots() {
    let dir = tempfile::tempdir().unwrap();
    let [source, target] = folders(dir.path());
    fs::create_dir(&target).unwrap();
    let mut ways = vec![source.join("..").join("target")];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("target", dir.path().join("link")).unwrap();
        ways.push(dir.path().join("link"));
    }
    for way in ways {
        Output::open(&way, false).unwrap().publish(&source).unwrap();
        assert_eq!(names(&target).len(), 3, "{}", way.display());
        fs::remove_dir_all(&target).unwrap();
        fs::create_dir(&target).unwrap();
    }
}

#[test]
fn a_folder_that_another_process_writes_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let [source, target] = folders(dir.path());
    for is_kept in [true, false] {
        let output = Output::open(&target, is_kept).unwrap();
        let error = Output::open(&target, false).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("another process"), "{error}");
        assert!(output.path().exists());
    }
    // What a process leaves that was killed has no lock.
    let killed = Output::open(&target, true).unwrap();
    fs::write(killed.folder().join(JOURNAL), "{}").unwrap();
    fs::write(killed.folder().join("LICENSE"), "old").unwrap();
    fs::rename(killed.path(), killed.folder().join(WEIGHTS)).unwrap();
    drop(killed);
    let refused = Output::open(&target, false).map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("calibration that is not finished"), "{refused}");
    fs::remove_file(dir.path().join("target.quantize.part").join(JOURNAL)).unwrap();
    Output::open(&target, false).unwrap().publish(&source).unwrap();
    assert_eq!(fs::read(target.join("LICENSE")).unwrap(), b"");
}

#[test]
fn what_appears_at_the_target_stays() {
    let dir = tempfile::tempdir().unwrap();
    let [source, target] = folders(dir.path());
    for name in [CONFIG, WEIGHTS, "notes.txt"] {
        let output = Output::open(&target, false).unwrap();
        fs::create_dir_all(&target).unwrap();
        fs::write(target.join(name), "mine").unwrap();
        let error = output.publish(&source).unwrap_err().to_string();
        assert!(error.contains(&format!("holds {name} already")), "{error}");
        assert_eq!(names(&target), [name]);
        assert_eq!(names(dir.path()), ["source", "target"]);
        Output::open(&target, false).map(|_| ()).unwrap_err();
        fs::remove_dir_all(&target).unwrap();
    }
}

#[test]
fn only_what_was_written_is_removed_and_published() {
    let dir = tempfile::tempdir().unwrap();
    let [source, target] = folders(dir.path());
    for is_published in [false, true] {
        let output = Output::open(&target, false).unwrap();
        let folder = output.folder().to_owned();
        let other = folder.join("adapter_config.json");
        fs::write(&other, "").unwrap();
        match is_published {
            true => {
                let error = output.publish(&source).unwrap_err().to_string();
                assert!(error.contains("holds adapter_config.json, which is of"), "{error}");
            }
            false => drop(output),
        }
        assert_eq!(names(&folder), ["adapter_config.json"]);
        assert!(!target.exists());
        let error = Output::open(&target, false).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("is not empty, and not of `glm quantize`"), "{error}");
        fs::remove_dir_all(folder).unwrap();
    }
    drop(Output::open(&target, true).unwrap());
    assert_eq!(names(dir.path()), ["source"], "there is no journal");
}

#[cfg(unix)]
#[test]
fn links_of_others_are_not_followed() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let [source, target] = folders(dir.path());
    let [mine, unfinished] = ["mine", "target.quantize.part"].map(|name| dir.path().join(name));
    symlink(&source, &unfinished).unwrap();
    let error = Output::open(&target, false).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("is a link"), "{error}");
    fs::remove_file(&unfinished).unwrap();
    fs::write(&mine, "mine").unwrap();
    for name in [LOCK, PART, "LICENSE"] {
        fs::create_dir(&unfinished).unwrap();
        fs::write(unfinished.join(LOCK), "").unwrap();
        let _ = fs::remove_file(unfinished.join(name));
        symlink(&mine, unfinished.join(name)).unwrap();
        let _ = Output::open(&target, false).and_then(|output| output.publish(&source));
        assert_eq!(fs::read(&mine).unwrap(), b"mine", "{name}");
        let _ = fs::remove_dir_all(&unfinished);
        let _ = fs::remove_dir_all(&target);
    }
}

#[cfg(unix)]
#[test]
fn a_folder_that_is_replaced_keeps_its_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let [source, target] = folders(dir.path());
    fs::create_dir(&target).unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o700)).unwrap();
    Output::open(&target, false).unwrap().publish(&source).unwrap();
    assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn what_killed_processes_of_older_versions_left_is_named_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let [source, target] = folders(dir.path());
    let beside = dir.path().join("target.quantize.part");
    // The first wrote into the target; the next into a folder beside it, but locked the file of weights.
    for (folder, problem) in [(&target, "holds journal.json already"), (&beside, "remove it")] {
        fs::create_dir(folder).unwrap();
        let left = [PART, JOURNAL];
        left.iter().for_each(|name| fs::write(folder.join(name), name).unwrap());
        for is_kept in [true, false] {
            let error = Output::open(&target, is_kept).map(|_| ()).unwrap_err().to_string();
            let folder = folder.display().to_string();
            assert!(error.contains(&folder) && error.contains(problem), "{error}");
        }
        assert_eq!(names(folder).len(), 2);
        assert!(left.iter().all(|name| fs::read(folder.join(name)).unwrap() == name.as_bytes()));
        fs::remove_dir_all(folder).unwrap();
    }
    // A folder without files may be of a process that was killed before it had locked it.
    fs::create_dir(&beside).unwrap();
    Output::open(&target, false).unwrap().publish(&source).unwrap();
    assert_eq!(names(dir.path()), ["source", "target"]);
}

#[test]
#[cfg(unix)]
fn a_pipe_is_no_lock() {
    let dir = tempfile::tempdir().unwrap();
    let [_, target] = folders(dir.path());
    let folder = with_end(&target);
    fs::create_dir(&folder).unwrap();
    let made = std::process::Command::new("mkfifo").arg(folder.join(LOCK)).status().unwrap();
    assert!(made.success());
    let error = Output::open(&target, false).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains(LOCK), "{error}");
}
