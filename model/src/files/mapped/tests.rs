use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::files::quantize::{QuantizeOptions, quantize};
use crate::network::chunk::Chunk;
use crate::network::hook::RunOptions;
use crate::network::model::{Model, Options};

/// The weights of [`folder`].
const WEIGHTS: &str = "pytorch_model.bin";

/// A copy of a model whose weights are all read in the mapped file.
fn folder() -> TempDir {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", WEIGHTS] {
        fs::copy(models.join("chatglm-6b-tiny/bin-f16").join(name), dir.path().join(name)).unwrap();
    }
    dir
}

fn open(dir: &TempDir, no_mmap: bool) -> Model {
    let options = Options { threads: Some(1), no_mmap, ..Options::default() };
    Model::open(dir.path(), &options).unwrap()
}

/// The logits after a prompt.
fn logits(model: &Model) -> Result<Vec<f32>> {
    let (mut sequence, mut workspace) = (model.sequence(Some(16))?, model.workspace()?);
    let special = &model.config().special;
    let ids = [1, 2, special.gmask.unwrap(), special.sop.unwrap()];
    let chunks = &mut [Chunk::last(&mut sequence, &ids)];
    let logits = model.run(&mut workspace, chunks, RunOptions::default());
    let logits = logits.map(|logits| logits.last(0).to_vec());
    assert_eq!(sequence.len(), if logits.is_ok() { ids.len() } else { 0 });
    logits
}

#[track_caller]
fn change<T>(result: Result<T>) -> (PathBuf, FileChange) {
    match result {
        Err(Error::FileChanged { path, change }) => (path, change),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("a change of a file was not found"),
    }
}

/// Writes to the file at another time than that of its last modification.
fn touch(path: &Path) {
    let file = File::options().write(true).open(path).unwrap();
    let before = file.metadata().unwrap().modified().unwrap();
    file.set_modified(before + Duration::from_millis(1)).unwrap();
}

fn cut(path: &Path, len: u64) {
    File::options().write(true).open(path).unwrap().set_len(len).unwrap();
}

#[test]
fn names_and_rights_of_a_file_may_change() {
    let dir = folder();
    let model = open(&dir, false);
    assert_eq!(model.inventory().copied_bytes, 0);
    let before = logits(&model).unwrap();
    let (old, new) = (dir.path().join(WEIGHTS), dir.path().join("new"));
    fs::rename(&old, &new).unwrap();
    fs::set_permissions(&new, fs::metadata(&new).unwrap().permissions()).unwrap();
    assert_eq!(logits(&model).unwrap(), before);
    fs::write(&old, "another file").unwrap();
    fs::remove_file(&new).unwrap();
    assert_eq!(logits(&model).unwrap(), before);
    model.check_files().unwrap();
}

#[test]
fn a_file_that_is_changed_gives_no_results() {
    let dir = folder();
    let weights = dir.path().join(WEIGHTS);
    let (model, copied) = (open(&dir, false), open(&dir, true));
    let expected = logits(&model).unwrap();
    assert_eq!(logits(&copied).unwrap(), expected, "with and without maps");
    let all = copied.inventory().bytes();
    assert_eq!((copied.inventory().copied_bytes, copied.inventory().mapped_bytes()), (all, 0));
    let before = fs::metadata(&weights).unwrap().modified().unwrap();
    touch(&weights);
    let (path, found) = change(logits(&model));
    assert_eq!((&path, found), (&weights, FileChange::Modified));
    // It may have been read in between.
    File::options().write(true).open(&weights).unwrap().set_modified(before).unwrap();
    assert_eq!(change(model.check_files()).1, FileChange::Modified);
    change(logits(&model));
    // What is opened now is whole.
    assert_eq!(logits(&open(&dir, false)).unwrap(), expected);
    cut(&weights, 0);
    copied.check_files().unwrap();
    assert_eq!(logits(&copied).unwrap(), expected);
}

#[test]
#[cfg(any(target_os = "linux", target_os = "macos"))]
fn a_file_that_is_cut_gives_no_results() {
    survive_truncated_files().unwrap();
    survive_truncated_files().unwrap();
    let dir = folder();
    let weights = dir.path().join(WEIGHTS);
    let len = fs::metadata(&weights).unwrap().len();
    // The second cut is in the last page: there is no signal.
    for rest in [0, len - 1] {
        let model = open(&dir, false);
        let whole = fs::read(&weights).unwrap();
        let expected = logits(&model).unwrap();
        cut(&weights, rest);
        assert_eq!(change(logits(&model)), (weights.clone(), FileChange::Cut));
        fs::write(&weights, whole).unwrap();
        change(logits(&model));
        assert_eq!(logits(&open(&dir, false)).unwrap(), expected);
    }
}

#[test]
#[cfg(any(target_os = "linux", target_os = "macos"))]
fn missing_pages_are_zeros() {
    survive_truncated_files().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let paths = ["a", "b"].map(|name| dir.path().join(name));
    // Pages have at most 64 KiB.
    let len = 10 << 16;
    paths.iter().for_each(|path| fs::write(path, vec![7; len]).unwrap());
    let [cut_off, whole] = paths.each_ref().map(|path| Bytes::map(path).unwrap());
    assert_eq!(cut_off[len - 1], 7);
    cut(&paths[0], (3 << 16) + 1);
    let seen = || cut_off.file().unwrap().check_seen();
    seen().unwrap();
    let sums: Vec<u64> = std::thread::scope(|scope| {
        let sum = |from: usize| cut_off[from..].iter().map(|&byte| u64::from(byte)).sum::<u64>();
        let threads: Vec<_> = (0..10).map(|part| scope.spawn(move || sum(part << 16))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let left = |part: u64| if part < 4 { ((3 - part) << 16) + 1 } else { 0 };
    assert_eq!(sums, (0..10).map(|part| 7 * left(part)).collect::<Vec<_>>());
    assert_eq!(change(seen()), (paths[0].clone(), FileChange::Cut));
    // Neither the other file nor the next map of this one.
    whole.check().unwrap();
    assert_eq!((whole[0], whole[len - 1]), (7, 7));
    drop(cut_off);
    Bytes::map(&paths[0]).unwrap().check().unwrap();
    // Reading the file does not touch the map.
    cut(&paths[1], 5);
    let part = whole.slice(3..100).unwrap();
    assert_eq!(change(part.in_memory()), (paths[1].clone(), FileChange::Cut));
}

#[test]
fn bytes_are_read_where_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    fs::write(&path, (0..200).collect::<Vec<u8>>()).unwrap();
    let part = Bytes::map(&path).unwrap().slice(50..150).unwrap();
    let copy = part.in_memory().unwrap();
    assert!(copy.file().is_none() && copy.as_ptr() != part.as_ptr());
    assert_eq!(copy[..], part[..]);
    assert_eq!(copy.in_memory().unwrap().as_ptr(), copy.as_ptr());
    assert!(part.slice(7..7).unwrap().in_memory().unwrap().is_empty());
}

#[test]
fn a_source_that_is_changed_is_not_quantized() {
    let dir = folder();
    let (weights, target) = (dir.path().join(WEIGHTS), dir.path().join("target"));
    let quantize = |mut then: Box<dyn FnMut() + Send>| {
        let mut options = QuantizeOptions::new(8, 32);
        options.threads = Some(1);
        quantize(dir.path(), &target, &options, &mut |_, _, _| {
            then();
            ControlFlow::Continue(())
        })
    };
    let path = weights.clone();
    assert_eq!(change(quantize(Box::new(move || touch(&path)))).0, weights);
    assert!(!target.exists() && !dir.path().join("target.quantize.part").exists());
    quantize(Box::new(|| {})).unwrap();
    assert!(target.join("model.safetensors").exists());
}

/// What the handler does with other signals is shown by a process of its own: this test in it, as the variable says.
#[test]
#[cfg(any(target_os = "linux", target_os = "macos"))]
fn other_signals_have_their_effect() {
    use std::os::unix::process::ExitStatusExt;
    const VARIABLE: &str = "GLM_TEST_SIGBUS";
    match std::env::var(VARIABLE).as_deref() {
        Ok(what) => raise(what),
        Err(_) => {
            for (what, code, signal) in [
                ("sent", None, Some(libc::SIGBUS)),
                ("foreign map", None, Some(libc::SIGBUS)),
                ("foreign map and the standard library", None, Some(libc::SIGBUS)),
                ("sent to a handler", Some(42), None),
                ("foreign map with a handler", Some(42), None),
                ("sent and ignored", Some(43), None),
            ] {
                let mut command = std::process::Command::new(std::env::current_exe().unwrap());
                command.args(["--exact", "files::mapped::tests::other_signals_have_their_effect"]);
                let status = command.env(VARIABLE, what).output().unwrap().status;
                assert_eq!((status.code(), status.signal()), (code, signal), "{what}");
            }
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "macos"))]
fn raise(what: &str) {
    extern "C" fn handler(_: libc::c_int) {
        // SAFETY: ends the process, which is allowed in a handler.
        unsafe { libc::_exit(42) }
    }
    let is_of_std = what.contains("standard library");
    let action = match what {
        _ if what.contains("handler") => handler as extern "C" fn(libc::c_int) as usize,
        _ if what.contains("ignored") => libc::SIG_IGN,
        _ => libc::SIG_DFL,
    };
    if !is_of_std {
        // SAFETY: a valid handler, or the number of an action.
        unsafe { libc::signal(libc::SIGBUS, action) };
    }
    survive_truncated_files().unwrap();
    // Ours does not matter to others.
    let _ours = Bytes::map(&folder().path().join(WEIGHTS)).unwrap();
    if what.contains("sent") {
        // SAFETY: the call takes a number.
        unsafe { libc::raise(libc::SIGBUS) };
        std::process::exit(43);
    }
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    // SAFETY: the bytes are read in a way that does not mind changes.
    let map = unsafe { Mmap::map(&file) }.unwrap();
    file.set_len(0).unwrap();
    // SAFETY: reads an address that is mapped. There is no memory behind it, which is the purpose.
    let byte = unsafe { std::ptr::read_volatile(map.as_ptr()) };
    panic!("read {byte}");
}
