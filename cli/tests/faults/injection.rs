//! Runs a command again and again, each time with a fault at another of its system calls, and after each once more without.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Variables of the environment of a run.
pub type Variables = Vec<(&'static str, String)>;

/// All files below a folder by their paths: contents, also of what a link leads to. Folders that are empty have an entry, too.
pub type Tree = BTreeMap<String, Vec<u8>>;

/// How a run ended: its code, or `None` if it was killed, and what it said.
pub struct Ended {
    pub code: Option<i32>,
    pub said: String,
}

/// A call whose failure does not fail the command.
pub struct Ignored {
    /// The call and the end of its (last) path, without the letters that are random.
    pub call: &'static str,
    pub path: &'static str,
    pub reason: &'static str,
}

/// A command that writes files in a folder.
pub struct Case<'a> {
    /// Puts files there that are there before, among them files of others.
    pub prepare: &'a dyn Fn(&Path),
    pub run: &'a dyn Fn(&Path, &Variables) -> Ended,
    pub ignored: &'a [Ignored],
    /// Ends of names of files that are appended to. Unfinished, they are the begin of what they become.
    pub grows: &'a [&'a str],
    /// Whether a file may be left by a process that was killed, beside what there is without a fault.
    pub may_stay: &'a dyn Fn(&str) -> bool,
    /// The bytes of a file without what differs from run to run.
    pub same: &'a dyn Fn(&str, Vec<u8>) -> Vec<u8>,
    /// What the command says when it is given again though it had succeeded, if it refuses that.
    pub refuses: Option<&'a str>,
    /// Which calls fail, by name and paths.
    pub only: &'a dyn Fn(&str) -> bool,
    /// Whether a command that fails goes on and says so, as an editor does, in place of ending.
    pub goes_on: bool,
}

/// A call that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Call {
    name: String,
    paths: Vec<String>,
    is_hit: bool,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.paths.join(" "))
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    Error(i32),
    Kill,
    /// All writes write half of what they could.
    Short,
}

/// Errors of a full disk and of a broken one.
const ENOSPC: i32 = 28;
const EIO: i32 = 5;

/// The library that fails calls, compiled.
pub struct Injection {
    dir: TempDir,
    library: PathBuf,
}

impl Injection {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let library = dir.path().join("faults.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/shim.rs");
        let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let done = Command::new(compiler)
            .args(["--edition", "2024", "--crate-type", "cdylib", "-O", "-C", "panic=abort"])
            .args(["-D", "unsafe_op_in_unsafe_fn", "-o"])
            .args([&library, &source])
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        Self { dir, library }
    }

    /// Fails the calls of a command in turn, with errors and by the end of the process, and all its writes by half. Of equal calls, the
    /// first and the last fail (see [`selected`]).
    ///
    /// After each: files that are there without a fault have what they have then, or what they had before; so has a model folder of any
    /// name; files of others are as they were; an error is reported by the code and with the name of the file; and the next run
    /// makes what it makes without a fault.
    #[track_caller]
    pub fn check(&self, case: &Case<'_>) {
        let (before, expected, calls) = self.without(case);
        assert!(!calls.is_empty(), "no call is seen");
        let short = self.attempt(case, 0, Some(Fault::Short));
        assert_eq!(short.ended.code, Some(0), "short writes: {}", short.ended.said);
        assert_same(&short.tree, &expected, &|_| false, "short writes");
        let mut hit = 0;
        let mut faults = selected(&calls);
        faults.retain(|(at, _)| (case.only)(&calls[*at].to_string()));
        for &(at, fault) in &faults {
            hit += usize::from(self.fail(case, at + 1, fault, &before, &expected));
        }
        // Threads make their calls in any order, and some not always.
        assert!(2 * hit > faults.len(), "only {hit} calls have failed");
    }

    /// What there is before and after a run without a fault, and its calls.
    fn without(&self, case: &Case<'_>) -> (Tree, Tree, Vec<Call>) {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().canonicalize().unwrap().join("home");
        fs::create_dir(&folder).unwrap();
        (case.prepare)(&folder);
        let before = tree(&folder, case);
        drop(dir);
        let Attempt { ended, tree, calls, .. } = self.attempt(case, 0, None);
        assert_eq!(ended.code, Some(0), "{}", ended.said);
        (before, tree, calls)
    }

    /// Runs the command in a new folder with a fault.
    fn attempt(&self, case: &Case<'_>, number: usize, fault: Option<Fault>) -> Attempt {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().canonicalize().unwrap().join("home");
        fs::create_dir(&folder).unwrap();
        (case.prepare)(&folder);
        let log = self.dir.path().join("log");
        let _ = fs::remove_file(&log);
        let kind = match fault {
            Some(Fault::Error(code)) => code.to_string(),
            Some(Fault::Kill) => "kill".to_owned(),
            Some(Fault::Short) => "short".to_owned(),
            None => String::new(),
        };
        let ended = (case.run)(
            &folder,
            &vec![
                ("LD_PRELOAD", self.library.display().to_string()),
                ("FAULTS_FOLDER", folder.display().to_string()),
                ("FAULTS_LOG", log.display().to_string()),
                ("FAULTS_CALL", number.to_string()),
                ("FAULTS_KIND", kind),
            ],
        );
        let calls = calls(&fs::read_to_string(&log).unwrap_or_default());
        Attempt { tree: tree(&folder, case), ended, calls, folder, _dir: dir }
    }

    /// Runs the command with a fault and then without. Returns whether there was such a call.
    #[track_caller]
    fn fail(
        &self,
        case: &Case<'_>,
        number: usize,
        fault: Fault,
        before: &Tree,
        expected: &Tree,
    ) -> bool {
        let attempt = self.attempt(case, number, Some(fault));
        let Some(call) = attempt.calls.iter().find(|call| call.is_hit) else {
            assert_eq!(attempt.ended.code, Some(0), "{}", attempt.ended.said);
            return false;
        };
        let Ended { code, said } = &attempt.ended;
        let what = format!("{fault:?} at call {number}, {call}\n{said}");
        assert!(!said.contains("panicked"), "{what}");
        let ignored = case.ignored.iter().find(|ignored| ignored.is_of(call));
        match (fault, ignored) {
            (Fault::Kill, _) => assert_eq!(*code, None, "{what}"),
            (_, Some(ignored)) => {
                assert_eq!(*code, Some(0), "{} ({})", what, ignored.reason);
            }
            _ => {
                assert_eq!(*code, Some(if case.goes_on { 0 } else { 1 }), "{what}");
                assert!(call.is_named_in(said), "{what}");
            }
        }
        let is_killed = fault == Fault::Kill;
        assert_whole(&attempt.tree, [before, expected], case, is_killed, &what);
        let is_left = |path: &str| fault == Fault::Kill && (case.may_stay)(path);
        let is_left = |path: &str| is_left(path) || ignored.is_some() && call.left(path);
        let is_done = difference(&attempt.tree, expected, &is_left).is_none();
        let ended = (case.run)(&attempt.folder, &Vec::new());
        let what = format!("{what}\nthen, without a fault:\n{}", ended.said);
        match case.refuses {
            Some(text) if is_done => assert!(ended.said.contains(text), "{what}"),
            _ => assert_eq!(ended.code, Some(0), "{what}"),
        }
        assert_same(&tree(&attempt.folder, case), expected, &is_left, &what);
        true
    }
}

/// A run with a fault, and the folder that it leaves.
struct Attempt {
    ended: Ended,
    calls: Vec<Call>,
    tree: Tree,
    folder: PathBuf,
    _dir: TempDir,
}

impl Ignored {
    fn is_of(&self, call: &Call) -> bool {
        let path = call.paths.last().map_or("", String::as_str);
        self.call == call.name && path.ends_with(self.path)
    }
}

impl Call {
    /// Whether a message names the file. One that has a temporary name may be named by what it becomes, in the same folder.
    fn is_named_in(&self, said: &str) -> bool {
        self.paths.iter().any(|path| {
            let (folder, name) = path.rsplit_once('/').unwrap_or_default();
            let is_temporary = name.starts_with('.') || name.ends_with(".part");
            // Of a folder that is removed with all that is in it, the folder is named.
            let mut folders = Path::new(path).ancestors().filter(|_| self.is_removal());
            said.contains(path)
                || is_temporary && said.contains(folder)
                || folders.any(|folder| {
                    folder.extension().is_some_and(|end| end == "part")
                        && said.contains(&folder.display().to_string())
                })
        })
    }

    /// Whether a file is there because this call failed, which was to remove it.
    fn left(&self, path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or_default();
        self.is_removal() && self.paths.iter().any(|removed| removed.ends_with(name))
    }

    fn is_removal(&self) -> bool {
        self.name == "unlink" || self.name == "rmdir"
    }
}

/// The calls of a log.
fn calls(log: &str) -> Vec<Call> {
    let call = |line: &str| {
        let (is_hit, line) = match line.strip_prefix('!') {
            Some(line) => (true, line),
            None => (false, line),
        };
        let mut parts = line.split('\t').map(str::to_owned);
        Call { name: parts.next().unwrap_or_default(), paths: parts.collect(), is_hit }
    };
    log.lines().map(call).collect()
}

/// Of the calls of each kind on each file, the first fails with an error, and the last is where the process ends. Removed files of a folder,
/// downloads to it, and files with temporary names in it count as one.
fn selected(calls: &[Call]) -> Vec<(usize, Fault)> {
    let kind = |call: &Call| {
        let path = call.paths.last().map_or("", String::as_str);
        let (folder, name) = path.rsplit_once('/').unwrap_or_default();
        let is_many = call.name == "unlink"
            || name.ends_with(".incomplete")
            || name.starts_with('.')
            || folder.ends_with("/blobs");
        (call.name.clone(), folder.to_owned(), (!is_many).then(|| name.to_owned()))
    };
    let mut ends = BTreeMap::new();
    for (at, call) in calls.iter().enumerate() {
        ends.entry(kind(call)).or_insert([at, at])[1] = at;
    }
    // Both are errors of any call; the code asks for neither.
    let error = |at: usize| Fault::Error(if at.is_multiple_of(2) { EIO } else { ENOSPC });
    let faults = ends.into_values();
    let faults = faults.flat_map(|[first, last]| [(first, error(first)), (last, Fault::Kill)]);
    let mut faults: Vec<_> = faults.collect();
    faults.sort_by_key(|(at, _)| *at);
    faults
}

/// All files below a folder.
fn tree(folder: &Path, case: &Case<'_>) -> Tree {
    fn add(folder: &Path, name: &str, case: &Case<'_>, tree: &mut Tree) {
        let mut is_empty = true;
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            is_empty = false;
            let name = format!("{name}/{}", entry.file_name().to_str().unwrap());
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                add(&entry.path(), &name, case, tree);
            } else {
                // A link to nothing has the bytes of its path.
                let link = |_| fs::read_link(entry.path()).map(|to| to.into_os_string().into_vec());
                let bytes = fs::read(entry.path()).or_else(link).unwrap();
                tree.insert(name.clone(), (case.same)(&name, bytes));
            }
        }
        if is_empty {
            tree.insert(format!("{name}/"), Vec::new());
        }
    }
    let mut found = Tree::new();
    add(folder, "", case, &mut found);
    found
}

/// Checks what a fault has left: no file that is wrong where another program would look for it.
#[track_caller]
fn assert_whole(
    found: &Tree,
    [before, expected]: [&Tree; 2],
    case: &Case<'_>,
    is_killed: bool,
    what: &str,
) {
    for (path, bytes) in before {
        let now = found.get(path);
        // What the command replaces is there, before or after. A folder that replaces another is two steps.
        let is_replaced = expected.get(path) != Some(bytes);
        let may_go =
            path.ends_with('/') || is_replaced && (is_killed || !expected.contains_key(path));
        assert!(now.is_some() || may_go, "{path} is gone: {what}");
    }
    for (path, bytes) in found {
        let known = [before, expected].map(|tree| tree.get(path));
        let is_known = known.contains(&Some(bytes));
        let grows = case.grows.iter().any(|end| path.ends_with(end));
        let is_begin = known[1].is_some_and(|whole| whole.starts_with(bytes));
        let is_new = known == [None, None];
        assert!(is_known || is_new || grows && is_begin, "{path} is wrong: {what}");
    }
    // Folders of models that have other names.
    for path in found.keys().filter(|path| path.ends_with("/model.safetensors")) {
        let folder = path.strip_suffix("model.safetensors").unwrap();
        let files = |tree: &Tree| {
            let in_it = |end| tree.get(&format!("{folder}{end}")).cloned();
            Some((in_it("config.json")?, in_it("model.safetensors")?))
        };
        let Some(model) = files(found) else { continue };
        let all = |tree: &Tree| tree.values().cloned().collect::<Vec<_>>();
        let right = [all(before), all(expected)].concat();
        let is_right = right.contains(&model.0) && right.contains(&model.1);
        assert!(is_right, "{folder} loads and is wrong: {what}");
    }
}

/// Checks that two trees are the same, but for files that may be left.
#[track_caller]
fn assert_same(found: &Tree, expected: &Tree, is_left: &dyn Fn(&str) -> bool, what: &str) {
    if let Some(difference) = difference(found, expected, is_left) {
        panic!("{difference}: {what}");
    }
}

/// How two trees differ, but for files that may be left.
fn difference(found: &Tree, expected: &Tree, is_left: &dyn Fn(&str) -> bool) -> Option<String> {
    let missing = expected.keys().find(|path| !found.contains_key(*path));
    if let Some(path) = missing {
        return Some(format!("{path} is missing"));
    }
    found.iter().find_map(|(path, bytes)| match expected.get(path) {
        None if is_left(path) => None,
        None => Some(format!("{path} is left")),
        Some(other) => (bytes != other).then(|| {
            let [found, expected] = [bytes, other].map(|bytes| String::from_utf8_lossy(bytes));
            let begin =
                |text: std::borrow::Cow<'_, str>| text.chars().take(500).collect::<String>();
            let [found, expected] = [found, expected].map(begin);
            format!("{path} differs: {found:?} is not {expected:?}")
        }),
    })
}
